"""The fixture ``page``: a page in a real Chromium."""

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
    # No page may depend on the network; a test whose page does must fail.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
TIMEOUT = 15_000
"""Milliseconds that an action may take on a busy machine."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "console_errors: this test expects failed requests, which Chromium logs as errors",
    )


# Module scope, not session: while Playwright runs, asyncio considers an event loop running in this
# thread, and the asynchronous tests of other modules could not start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium from Debian that can only reach this machine."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("These tests need Chromium: apt-get install chromium", pytrace=False)
    expect.set_options(timeout=TIMEOUT)
    # Playwright starts it with a new profile and without the sandbox, as root and containers need.
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS) as browser,
    ):
        yield browser


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page in a fresh browser context; the test fails if the page logs an error."""
    expected = request.node.get_closest_marker("console_errors") is not None
    with open_page(browser, console_errors=expected) as page:
        yield page


@contextmanager
def open_page(browser: Browser, *, console_errors: bool = False) -> Iterator[Page]:
    errors: list[str] = []
    with browser.new_context() as context:
        context.set_default_timeout(TIMEOUT)
        context.on("weberror", lambda error: errors.append(f"uncaught: {error.error}"))
        if not console_errors:
            context.on(
                "console",
                lambda message: errors.append(message.text) if message.type == "error" else None,
            )
        yield context.new_page()
    assert not errors, "the page logged errors:\n" + "\n".join(errors)
