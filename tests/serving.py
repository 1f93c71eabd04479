"""A real ``chatledger serve`` for tests: a process on loopback with a database file."""

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

START_SECONDS = 30.0
"""Seconds that a server may take to start, on a slow machine."""
STOP_SECONDS = 15.0
"""Seconds that a server may take to stop after a signal."""

NO_LIMITS = {
    f"CHATLEDGER_{name}": "off"
    for name in (
        "TURNS_AT_ONCE",
        "ALL_TURNS_AT_ONCE",
        "TURNS_A_MINUTE",
        "TOKENS_A_DAY",
        "BYTES_A_DAY",
        "CONVERSATIONS",
    )
}
"""Variables for tests that share a server, and so the limits of one address."""


SERVE = [sys.executable, "-m", "chatledger", "serve"]


class Server:
    """A server with the variables ``environment``, and no other ``CHATLEDGER_*`` variable.

    Callers have no limits but those in ``environment``.
    """

    command = SERVE

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        store = {"CHATLEDGER_STORE": f"sqlite:///{folder / 'chatledger.db'}"}
        self._variables = NO_LIMITS | store | environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self._variables.get('CHATLEDGER_HOST', '127.0.0.1')}:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it responds."""
        for _ in range(5):
            self._launch()
            if self._answers():
                return
            # Another program may have taken the port before the server did.
            if is_port_free(self.port):
                break
            self.port = free_port()
        raise AssertionError(f"The server did not start. It said:\n{self.log()}")

    def log(self) -> str:
        """Return what the server has printed since its first start, on stdout and stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """Kill the server (SIGKILL), as a crash would; it cannot clean up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def restart(self) -> None:
        """Kill the server and start it again with the same port and file."""
        self.kill()
        self._launch()
        assert self._answers(), f"The server did not come back. It said:\n{self.log()}"

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it was never started"
        self._process.send_signal(number)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code, negative if the signal killed the server."""
        self.send_signal(by)
        return self.wait()

    def wait(self) -> int:
        """Wait for the server to end; return the exit code, negative if a signal killed it."""
        assert self._process is not None
        return self._process.wait(STOP_SECONDS)

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=environment(**self._variables, CHATLEDGER_PORT=str(self.port)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # The tests may run under nohup, below which the server ignores SIGHUP.
                preexec_fn=restore_sighup,
            )

    def _answers(self) -> bool:
        assert self._process is not None
        end = time.monotonic() + START_SECONDS
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


def restore_sighup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class StartServer(Protocol):
    """Type of the fixture ``start_server``: start a server that is killed after the module."""

    def __call__(self, **environment: str) -> Server: ...


@contextmanager
def started_server(folder: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server; yield its process and URL as soon as it has printed the URL."""
    process = subprocess.Popen(
        SERVE,
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address, line
        yield process, address[0]
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without ``CHATLEDGER_*`` and Lambda, plus ``variables``."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if "CHATLEDGER" not in name and not name.startswith("AWS_LAMBDA_")
    }
    return inherited | variables


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def is_port_free(port: int) -> bool:
    with socket.socket() as attempt:
        # As servers do, so that a port with connections in TIME_WAIT counts as free.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
