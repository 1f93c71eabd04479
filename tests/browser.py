"""A real Chromium for whichever test asks for a ``page``."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    # Ours may not need anything from the network, and a test that does should say so.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
PATIENCE = 15_000
"""Milliseconds that something on a page may take where other programs run at the same time."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "console_errors: a failed request, which Chromium logs, belongs to this test"
    )


# Not for the session: as long as playwright runs, asyncio takes this thread for one with a running
# loop, and the asynchronous tests of other modules would be refused theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless, that reaches this machine alone."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("These tests need Chromium: apt-get install chromium", pytrace=False)
    expect.set_options(timeout=PATIENCE)
    # Playwright runs it without its sandbox, as root and containers need, and on a new profile.
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS) as browser,
    ):
        yield browser


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a visitor who was never here; the test fails if it logs an error."""
    expected = request.node.get_closest_marker("console_errors") is not None
    with opened_page(browser, console_errors=expected) as page:
        yield page


@contextmanager
def opened_page(browser: Browser, *, console_errors: bool = False) -> Iterator[Page]:
    errors: list[str] = []
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE)
        context.on("weberror", lambda error: errors.append(f"uncaught: {error.error}"))
        if not console_errors:
            context.on(
                "console", lambda said: errors.append(said.text) if said.type == "error" else None
            )
        yield context.new_page()
    assert not errors, "the page logged errors:\n" + "\n".join(errors)
