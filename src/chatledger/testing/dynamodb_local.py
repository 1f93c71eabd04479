"""DynamoDB Local for tests: a real server, in memory, on a free port, gone afterwards.

    with DynamoDBLocal() as dynamodb:
        dynamodb.client().list_tables()

pytest knows the fixture ``dynamodb_local`` (one for the whole session) once a ``conftest.py``
says ``pytest_plugins = ["chatledger.testing.dynamodb_local"]``. By hand:
``python -m chatledger.testing.dynamodb_local`` prints the endpoint and serves until Ctrl-C.

It needs Linux or macOS, Java 17 or newer, and Maven once, for the download. Where
``CHATLEDGER_TEST_DYNAMODB`` names an endpoint (of the container, say) that one is used, and
none of this is needed; it may hold other tables already.
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

from chatledger.testing.dynamodb_local_jars import CannotRun, install, is_installed, programs

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["ENDPOINT", "KEY", "REGION", "CannotRun", "DynamoDBLocal"]

ENDPOINT = "CHATLEDGER_TEST_DYNAMODB"
REGION = "us-east-1"
KEY = "chatledger"
"""Id and secret at once. DynamoDB Local checks neither, but wants letters and digits."""
ATTEMPTS = 5
START = 60.0
"""Seconds that it may take until it answers; 1.5 on a machine that has nothing else to do."""
END = 10.0


class DynamoDBLocal:
    """A context manager: within it, ``endpoint`` answers.

    Every server has its own tables. ``pid`` is its process, or None if it is not ours.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def client(self) -> "DynamoDBClient":
        """A boto3 client for it; no account, profile, proxy or configuration is looked at."""
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
        given = os.environ.get(ENDPOINT)
        if given:
            self.endpoint = given
            return self
        jars = install()
        (java,) = programs("java")
        for _ in range(ATTEMPTS):
            # Without a name, so that nothing is left behind however the tests end.
            with reserved_port() as port, tempfile.TemporaryFile() as log:
                if self._start(command(java, jars, port), port, log):
                    self.endpoint = f"http://127.0.0.1:{port}"
                    return self
        raise CannotRun(f"{ATTEMPTS} ports, one after the other, were taken by other programs.")

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self, command: list[str], port: int, log: IO[bytes]) -> bool:
        """Whether it answers; not where another program has the port."""
        try:
            # Both in sessions of their own: a Ctrl-C at the terminal is for the tests, which
            # still need the server while they end.
            self._watch = subprocess.Popen(
                ["/bin/sh", "-c", WATCH],
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
            self._tell_watch(f"{self._process.pid}\n")
            problem = until_it_answers(self._process, port)
        except BaseException:
            self._stop()
            raise
        if problem is None:
            return True
        self._stop()
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
        if "java.net.BindException" in said:
            return False
        last = "\n".join(said.splitlines()[-20:])
        raise CannotRun(
            f"DynamoDB Local did not start ({problem}). Java must be 17 or newer. It said:\n{last}"
        )

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._watch is not None:
            self._tell_watch("farewell\n")
            self._watch.communicate()
            self._watch = None

    def _tell_watch(self, line: str) -> None:
        assert self._watch is not None
        assert self._watch.stdin is not None
        with suppress(BrokenPipeError):  # it was killed; the server still ends with the context
            self._watch.stdin.write(line.encode())
            self._watch.stdin.flush()


WATCH = """\
read -r server
if read -r farewell; then exit; fi
kill "$server"
for second in 1 2 3 4 5; do kill -0 "$server" || exit; sleep 1; done
kill -9 "$server"
"""
"""Ends the server when the tests are killed (SIGKILL) and can end nothing themselves.

It waits on a pipe of which only we hold the other end, and which closes however we die. Linux'
PR_SET_PDEATHSIG would need no process, but strikes as soon as the *thread* ends that started the
server, needs code between fork and exec, and is not there on macOS.
"""


def command(java: str, jars: Path, port: int) -> list[str]:
    # PerfData is a file in /tmp that a killed JVM leaves there.
    virtual_machine = [java, "-XX:-UsePerfData", "-cp", f"{jars}/*"]
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
def reserved_port() -> Iterator[int]:
    """A free port that on Linux nobody else is given meanwhile.

    There a program that sets SO_REUSEADDR, as Java's servers do, may listen where another one
    that has set it is bound and does not listen. Elsewhere somebody else may be faster.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        port: int = reservation.getsockname()[1]
        if sys.platform != "linux":
            reservation.close()
        yield port


def until_it_answers(process: subprocess.Popen[bytes], port: int) -> str | None:
    """None once it does, or why it does not."""
    end = time.monotonic() + START
    problem: str | None = "no attempt was made"
    while time.monotonic() < end:
        problem = ask(port)
        # The order counts: one that ended was not the one that answered.
        if process.poll() is not None:
            return f"it ended with {process.returncode}"
        if problem is None:
            return None
        time.sleep(0.05)
    return f"no answer within {START:.0f} s: {problem}"


def ask(port: int) -> str | None:
    """Ask for its tables, and not just for a connection: then the engine behind it runs too."""
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
        said = response.read(1000).decode(errors="replace")
        return None if response.status == 200 else f"{response.status} {said}"
    except (OSError, http.client.HTTPException) as failed:
        return repr(failed)
    finally:
        connection.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chatledger.testing.dynamodb_local",
        description="Run DynamoDB Local, in memory, until Ctrl-C; download it first if need be.",
    )
    parser.add_argument("--install", action="store_true", help="download it, and no more")
    parser.add_argument(
        "--is-installed", action="store_true", help="say with the exit status whether it is here"
    )
    wanted = parser.parse_args(arguments)
    if wanted.is_installed:
        sys.exit(not is_installed())
    try:
        if wanted.install:
            print(install())
        else:
            serve()
    except CannotRun as why:
        sys.exit(str(why))


def serve() -> None:
    with suppress(KeyboardInterrupt), DynamoDBLocal() as running:
        print(running.endpoint, flush=True)
        signal.pause()


try:
    import pytest
except ModuleNotFoundError:
    pass  # the context manager and the command do without
else:

    @pytest.fixture(scope="session")
    def dynamodb_local() -> Iterator[DynamoDBLocal]:
        """A DynamoDB Local for the whole session; ``endpoint`` and ``client()`` lead to it."""
        with DynamoDBLocal() as running:
            yield running


if __name__ == "__main__":
    main()
