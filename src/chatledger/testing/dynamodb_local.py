"""DynamoDB Local for tests: a real server, in memory, on a free port, that ends with the tests.

    with DynamoDBLocal() as dynamodb:
        dynamodb.client().list_tables()

pytest has the fixture ``chatledger_dynamodb``, one for the whole session; with
``pytest_plugins = ["chatledger.testing.dynamodb_local"]`` in a ``conftest.py`` there is also
``dynamodb_local``, which does the same. On the command line,
``python -m chatledger.testing.dynamodb_local`` prints the endpoint and serves until Ctrl-C.

It needs Linux or macOS, Java 17 or newer, and Maven for the one-time download. If
``CHATLEDGER_TEST_DYNAMODB`` is set to an endpoint, for example of DynamoDB Local's container, that
one is used instead, and none of this is needed; it may contain other tables already.
"""

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from chatledger.testing.dynamodb_local_jars import CannotRun, find_programs, install, is_installed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["ENDPOINT_VARIABLE", "KEY", "REGION", "CannotRun", "DynamoDBLocal"]

ENDPOINT_VARIABLE = "CHATLEDGER_TEST_DYNAMODB"
"""The environment variable with the endpoint to use instead of starting a server."""
REGION = "us-east-1"
KEY = "chatledger"
"""The access key id and the secret. DynamoDB Local accepts any letters and digits."""
LEAN = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
"""Options with which the JVM takes a third less CPU time for some ten thousand calls, since it
neither collects garbage in parallel nor optimizes code that soon ends."""
MAX_ATTEMPTS = 5
START_TIMEOUT = 60.0
"""The seconds until the server must answer; it takes 1.5 on an idle machine."""
STOP_TIMEOUT = 10.0
"""The seconds until the server must have stopped before it is killed."""


class DynamoDBLocal:
    """A DynamoDB Local that runs within a ``with`` block, with tables of its own.

    Attributes:
        endpoint: Its URL, within the block.

    Raises:
        CannotRun: It cannot be downloaded or started here; the message says what to do.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the server's process; None if ``CHATLEDGER_TEST_DYNAMODB`` names a server."""
        return self._process.pid if self._process else None

    def client(self) -> "DynamoDBClient":
        """Return a boto3 client for it, which ignores AWS accounts, profiles and proxies."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "dynamodb",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=KEY,
            config=Config(proxies={}),
        )

    def __enter__(self) -> Self:
        given = os.environ.get(ENDPOINT_VARIABLE)
        if given:
            self.endpoint = given
            return self
        jars = install()
        (java,) = find_programs("java")
        for _ in range(MAX_ATTEMPTS):
            # The log file has no name, so that nothing remains however the tests end.
            with reserve_port() as port, tempfile.TemporaryFile() as log:
                if self._start(java_command(java, jars, port), port, log):
                    self.endpoint = f"http://127.0.0.1:{port}"
                    return self
        raise CannotRun(
            f"Other programs took {MAX_ATTEMPTS} ports, one after the other; try again."
        )

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self, command: list[str], port: int, log: IO[bytes]) -> bool:
        """Start the server; return False if another program has taken the port."""
        try:
            # Both run in sessions of their own, so that Ctrl-C in the terminal reaches the tests
            # only, which need the server until they have ended.
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", WATCHDOG_SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._process = subprocess.Popen(
                command,
                env=os.environ | {"DDB_LOCAL_TELEMETRY": "0"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._tell_watchdog(f"{self._process.pid}\n")
            problem = wait_until_ready(self._process, port)
        except BaseException:
            self._stop()
            raise
        if problem is None:
            return True
        self._stop()
        log.seek(0)
        output = log.read().decode(errors="replace").strip()
        if "java.net.BindException" in output:
            return False
        last = "\n".join(output.splitlines()[-20:])
        raise CannotRun(
            f"DynamoDB Local did not start ({problem}). Java must be 17 or newer. "
            f"Its output ends with:\n{last}"
        )

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._watchdog is not None:
            self._tell_watchdog("exit\n")
            self._watchdog.communicate()
            self._watchdog = None

    def _tell_watchdog(self, line: str) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        with suppress(BrokenPipeError):  # the watchdog was killed; the server still ends here
            self._watchdog.stdin.write(line.encode())
            self._watchdog.stdin.flush()


WATCHDOG_SCRIPT = """\
read -r server
if read -r exit; then exit; fi
kill "$server"
for second in 1 2 3 4 5; do kill -0 "$server" || exit; sleep 1; done
kill -9 "$server"
"""
"""Stops the server if the tests are killed (SIGKILL) and cannot stop it themselves.

It waits for the end of a pipe whose other end only this process holds, and which closes however
this process ends. Linux has PR_SET_PDEATHSIG, which needs no further process; but it fires when
the *thread* that started the server ends, needs code between fork and exec, and macOS lacks it.
"""


def java_command(java: str, jars: Path, port: int) -> list[str]:
    # Without UsePerfData, because a killed JVM leaves that file in the temporary folder.
    virtual_machine = [java, "-XX:-UsePerfData", *LEAN, "-cp", f"{jars}/*"]
    main = "com.amazonaws.services.dynamodbv2.local.main.ServerRunner"
    return [
        *virtual_machine,
        main,
        "-inMemory",
        "-sharedDb",
        "-disableTelemetry",
        "-port",
        f"{port}",
    ]


@contextmanager
def reserve_port() -> Iterator[int]:
    """Find a free port and, on Linux, keep it from being given to others during the block.

    On Linux, a program that sets SO_REUSEADDR, as Java's servers do, may listen on a port to which
    another such program is bound without listening. Elsewhere another program may take the port.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        port: int = reservation.getsockname()[1]
        if sys.platform != "linux":
            reservation.close()
        yield port


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> str | None:
    """Wait until the server answers; return None, or the reason if it does not."""
    deadline = time.monotonic() + START_TIMEOUT
    problem: str | None = "no attempt was made"
    while time.monotonic() < deadline:
        problem = probe(port)
        # After the probe: if the process has ended, it was another server that answered.
        if process.poll() is not None:
            return f"it ended with {process.returncode}"
        if problem is None:
            return None
        time.sleep(0.05)
    return f"no answer within {START_TIMEOUT:.0f} s: {problem}"


def probe(port: int) -> str | None:
    """Return None if the server answers, or the problem.

    It is asked for its tables, because it accepts connections before its engine runs.
    """
    credential = f"Credential={KEY}/20260101/{REGION}/dynamodb/aws4_request"
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": "DynamoDB_20120810.ListTables",
        "Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("POST", "/", b"{}", headers)
        response = connection.getresponse()
        answer = response.read(1000).decode(errors="replace")
        return None if response.status == 200 else f"{response.status} {answer}"
    except (OSError, http.client.HTTPException) as failed:
        return repr(failed)
    finally:
        connection.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chatledger.testing.dynamodb_local",
        description="Run DynamoDB Local in memory until Ctrl-C; download it first if necessary.",
    )
    parser.add_argument("--install", action="store_true", help="only download it")
    parser.add_argument(
        "--is-installed",
        action="store_true",
        help="exit with status 0 if it has been downloaded, else 1",
    )
    options = parser.parse_args(arguments)
    if options.is_installed:
        sys.exit(not is_installed())
    try:
        if options.install:
            print(install())
        else:
            serve()
    except CannotRun as failed:
        sys.exit(str(failed))


def serve() -> None:
    with suppress(KeyboardInterrupt), DynamoDBLocal() as running:
        print(running.endpoint, flush=True)
        signal.pause()


try:
    import pytest
except ModuleNotFoundError:
    pass  # the context manager and the command work without pytest
else:

    @pytest.fixture(scope="session")
    def dynamodb_local() -> Iterator[DynamoDBLocal]:
        """The DynamoDB Local of this test session; see its ``endpoint`` and ``client()``."""
        with DynamoDBLocal() as running:
            yield running


if __name__ == "__main__":
    main()
