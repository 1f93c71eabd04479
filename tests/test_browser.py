"""The browser that the page's tests look through."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import opened_page


def test_it_opens_a_page(page: Page) -> None:
    page.goto("data:text/html,<button onclick=\"this.textContent='thanks'\">press</button>")
    page.get_by_role("button").click()
    expect(page.get_by_role("button")).to_have_text("thanks")


@pytest.mark.parametrize("script", ["console.error('oh dear')", "throw new Error('oh dear')"])
def test_an_error_that_a_page_logs_fails_the_test(browser: Browser, script: str) -> None:
    with pytest.raises(AssertionError, match="oh dear"), opened_page(browser) as page:
        page.goto(f"data:text/html,<script>{script}</script>")


def test_it_reaches_nothing_but_this_machine(browser: Browser) -> None:
    with pytest.raises(AssertionError, match="ERR_NAME_NOT_RESOLVED"), opened_page(browser) as page:
        page.goto("data:text/html,<img src=http://example.com/picture.png>")
