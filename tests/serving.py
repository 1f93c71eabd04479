"""A real ``chatledger serve`` for tests: a process on loopback, over a file that outlives it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Protocol

import httpx

START = 30.0
"""Seconds that a server may take until it answers, on a slow machine."""
END = 15.0
"""Seconds that it may take to end after a signal."""


class Server:
    """``environment`` is what it finds there; no ``CHATLEDGER_*`` variable of ours reaches it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._given = {"CHATLEDGER_STORE": f"sqlite:///{folder / 'chatledger.db'}"} | environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self._given.get('CHATLEDGER_HOST', '127.0.0.1')}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        for _ in range(5):
            self._launch()
            if self._answers():
                return
            # Between the choice of the port and the server's start another program may take it.
            if is_free(self.port):
                break
            self.port = free_port()
        raise AssertionError(f"The server did not start. It said:\n{self.log()}")

    def log(self) -> str:
        """What it has printed since the first start, on stdout and stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); it can tidy up nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(END)

    def restart(self) -> None:
        """Kill it, and start it on the same port and file."""
        self.kill()
        self._launch()
        assert self._answers(), f"The server did not come back. It said:\n{self.log()}"

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; how it did (``returncode``, negative where a signal ended it)."""
        assert self._process is not None, "it was never started"
        self._process.send_signal(by)
        return self._process.wait(END)

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                SERVE,
                cwd=self.folder,
                env=environment(**self._given, CHATLEDGER_PORT=str(self.port)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _answers(self) -> bool:
        assert self._process is not None
        end = time.monotonic() + START
        with httpx.Client(trust_env=False, timeout=5) as client:
            while time.monotonic() < end and self._process.poll() is None:
                try:
                    if client.get(f"{self.url}/health").status_code == 200:
                        return self._process.poll() is None
                except httpx.TransportError:
                    pass
                time.sleep(0.02)
        self.kill()
        return False


class StartServer(Protocol):
    """The fixture ``start_server``: a server with these variables, ended with the module."""

    def __call__(self, **environment: str) -> Server: ...


SERVE = [sys.executable, "-m", "chatledger", "serve"]


@contextmanager
def announced(folder: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and the address that it prints, at the moment that it does."""
    process = subprocess.Popen(
        SERVE,
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    mute = Timer(START, process.kill)
    mute.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address, line
        yield process, address[0]
    finally:
        mute.cancel()
        process.kill()
        process.communicate()


def environment(**given: str) -> dict[str, str]:
    """Ours without what would configure a server, and ``given``."""
    ours = {name: value for name, value in os.environ.items() if "CHATLEDGER" not in name}
    return ours | given


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    with socket.socket() as attempt:
        # As servers do: a port whose last connections are still fading counts as free.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
