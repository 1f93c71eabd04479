"""The browser that the tests of the page use."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import open_page


def test_a_page_can_be_opened(page: Page) -> None:
    page.goto("data:text/html,<button onclick=\"this.textContent='thanks'\">press</button>")
    page.get_by_role("button").click()
    expect(page.get_by_role("button")).to_have_text("thanks")


@pytest.mark.parametrize("script", ["console.error('oh dear')", "throw new Error('oh dear')"])
def test_an_error_that_a_page_logs_fails_the_test(browser: Browser, script: str) -> None:
    with pytest.raises(AssertionError, match="oh dear"), open_page(browser) as page:
        page.goto(f"data:text/html,<script>{script}</script>")


def test_the_browser_reaches_only_this_machine(browser: Browser) -> None:
    with pytest.raises(AssertionError, match="ERR_NAME_NOT_RESOLVED"), open_page(browser) as page:
        page.goto("data:text/html,<img src=http://example.com/picture.png>")
