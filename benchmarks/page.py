"""The chat page in Chromium: how long until a long conversation can be read and answered."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from playwright.sync_api import BrowserContext, sync_playwright

from benchmarks.measurement import Elapsed, Figure, Ratio, benchmark
from benchmarks.sqlite import TEXT
from benchmarks.streams import run_server
from chatledger import Message
from chatledger.stores.sqlite import SQLiteStore
from tests.browser import ARGUMENTS

SHORT, LONG = 50, 10_000
LAST = "That was all."


@benchmark(f"Page: open a conversation of {LONG:,} messages", rounds=15)
def open_conversations(folder: Path) -> Iterator[Sequence[Figure]]:
    with SQLiteStore(folder / "chatledger.db") as store:
        for length in (SHORT, LONG):
            messages = [Message.user(TEXT), Message.assistant(TEXT)] * (length // 2)
            messages[-1] = Message.assistant(LAST)
            for start in range(0, length, 1_000):
                store.append(str(length), messages[start : start + 1_000], owner="bob")
    settings = {
        "CHATLEDGER_STORE": f"sqlite:///{folder}/chatledger.db",
        "CHATLEDGER_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "chatledger", "serve"]
    with (
        run_server(command, settings) as (_, port),
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        ) as browser,
        browser.new_context() as context,
    ):
        url = f"http://127.0.0.1:{port}/"
        page = context.new_page()
        page.goto(url)
        page.evaluate("localStorage.setItem('chatledger.user', 'bob')")
        yield [
            Ratio(
                f"vs. one of {SHORT}",
                partial(_open, context, f"{url}#c={LONG}"),
                partial(_open, context, f"{url}#c={SHORT}"),
            )
        ]


def _open(context: BrowserContext, url: str) -> Elapsed:
    """Open a tab, and type a message once the last one is shown.

    The CPU time is that of the page's main thread.
    """
    with context.new_page() as page:
        session = context.new_cdp_session(page)
        session.send("Performance.enable")
        start = perf_counter()
        page.goto(url)
        page.get_by_text(LAST).wait_for()
        page.get_by_role("textbox", name="Your message").press_sequentially("Hi")
        wall = perf_counter() - start
        metrics = session.send("Performance.getMetrics")["metrics"]
    [cpu] = [each["value"] for each in metrics if each["name"] == "TaskDuration"]
    return Elapsed(cpu, wall)
