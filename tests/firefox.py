"""The fixture ``firefox``: a page in Debian's Firefox, driven by WebDriver BiDi.

https://w3c.github.io/webdriver-bidi/ (Playwright drives only a Firefox of its own.)
"""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

SECONDS = 60
"""The longest time that Firefox may take for anything on a busy machine."""
ENTER = "\ue007"
PREFERENCES: dict[str, object] = {
    # Everything but this machine is behind a proxy that does not exist.
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.no_proxies_on": "127.0.0.1, localhost",
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


class Firefox:
    """A tab of Firefox."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._ids = count()
        self._tab = ""
        self.errors: list[str] = []
        """What pages have logged as errors."""

    async def open_tab(self) -> None:
        await self._send("session.new", capabilities={})
        await self._send("session.subscribe", events=["log.entryAdded"])
        self._tab = (await self._send("browsingContext.create", type="tab"))["context"]

    async def close(self) -> None:
        await self._send("session.end")

    async def visit(self, url: str) -> None:
        await self._send("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    async def reload(self) -> None:
        await self._send("browsingContext.reload", context=self._tab, wait="complete")

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, as JSON has it."""
        result = await self._send(
            "script.evaluate",
            expression=f"JSON.stringify(({expression}) ?? null)",
            target={"context": self._tab},
            awaitPromise=False,
        )
        assert result["type"] == "success", result
        return json.loads(result["result"]["value"])

    async def wait_for(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""
        async with asyncio.timeout(SECONDS):
            while not await self.evaluate(f"Boolean({condition})"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def type(self, text: str) -> None:
        """Press the keys of the text, in whatever has the focus."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": keys}
        await self._send("input.performActions", context=self._tab, actions=[source])

    async def click(self, selector: str) -> None:
        """Click the middle of the first element that the selector matches."""
        await self.wait_for(f"document.querySelector({json.dumps(selector)})?.checkVisibility()")
        element = f"document.querySelector({json.dumps(selector)})"
        box = await self.evaluate(f"{element}.getBoundingClientRect()")
        x, y = round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)
        actions = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        source = {"type": "pointer", "id": "mouse", "actions": actions}
        await self._send("input.performActions", context=self._tab, actions=[source])

    async def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        id = next(self._ids)
        await self._connection.send_json({"id": id, "method": method, "params": parameters})
        async with asyncio.timeout(SECONDS):
            while True:
                message = await self._connection.receive_json()
                if message.get("method") == "log.entryAdded":
                    if message["params"]["level"] == "error":
                        self.errors.append(message["params"]["text"])
                elif message.get("id") == id:
                    assert message["type"] == "success", f"{method}: {message}"
                    result: dict[str, Any] = message["result"]
                    return result


@pytest.fixture(scope="module")
def firefox_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a headless Firefox with a new profile."""
    program = shutil.which("firefox-esr")
    if program is None:
        pytest.fail("These tests need Firefox: apt-get install firefox-esr", pytrace=False)
    profile: Path = tmp_path_factory.mktemp("firefox")
    lines = [f"user_pref({json.dumps(n)}, {json.dumps(v)});" for n, v in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    with subprocess.Popen(
        [program, "--headless", "--remote-debugging-port", "0", "--profile", profile],
        env={"HOME": str(profile), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if match := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
                    yield match[1]
                    return
            pytest.fail("Firefox did not start.")
        finally:
            process.kill()


@asynccontextmanager
async def open_firefox(address: str) -> AsyncIterator[Firefox]:
    """Open a tab; the block fails if a page in it logs an error."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{address}/session", max_msg_size=0) as connection,
    ):
        firefox = Firefox(connection)
        await firefox.open_tab()
        try:
            yield firefox
        finally:
            await firefox.close()
        assert not firefox.errors, "the page logged errors"
