"""The server as a fixture and a command: starting, stopping, disconnects and many clients."""

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from chatledger.testing.bedrock_server import ACCESS_KEY, API_KEY, SECRET_KEY, BedrockServer, Says
from tests.testing.bedrock_server.client import HELLO, ONCE, events, open_stream, reply_text, send

COMMAND = [sys.executable, "-m", "chatledger.testing.bedrock_server"]
HEADERS = {"Authorization": f"Bearer {API_KEY}"}
SLOW = Says([f"{n} " for n in range(1000)], pause=0.02)


def test_a_client_that_disconnects_during_a_reply_is_noticed(bedrock_server: BedrockServer) -> None:
    bedrock_server.script(SLOW)
    with open_stream(bedrock_server.client(ONCE)) as stream:
        next(stream)
        assert not bedrock_server.requests[0].abandoned.is_set()
    assert bedrock_server.wait_for_abandoned_request().operation == "ConverseStream"
    assert bedrock_server.requests[0].ended.wait(5)


def test_a_request_whose_reply_was_read_to_the_end_is_not_abandoned(
    bedrock_server: BedrockServer,
) -> None:
    assert events(bedrock_server.client(ONCE))
    (request,) = bedrock_server.requests
    assert request.ended.wait(5)
    assert not request.abandoned.is_set()
    with pytest.raises(TimeoutError, match=r"Waited 0\.05 s in vain for an abandoned request\."):
        bedrock_server.wait_for_abandoned_request(timeout=0.05)


def test_stopping_does_not_wait_for_a_slow_reply() -> None:
    before = threading.active_count()
    with BedrockServer() as server:
        server.script(SLOW)
        with open_stream(server.client(ONCE)) as stream:
            next(stream)
            begun = time.monotonic()
            server.__exit__()
            assert time.monotonic() - begun < 2
        assert not server.requests[0].abandoned.is_set()
    assert threading.active_count() == before


def test_a_port_in_use_is_an_error() -> None:
    with BedrockServer() as other:
        port = int(other.endpoint.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"), BedrockServer(port=port):
            pass


@pytest.fixture
def high_file_limit() -> Iterator[None]:
    """Raise the limit of open files: both ends of a connection belong to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("high_file_limit")
def test_a_thousand_streams_are_served_at_once() -> None:
    words = Says([f"{n} " for n in range(10)], delay=1.0, pause=0.1)

    async def post(session: aiohttp.ClientSession, url: str) -> bytes:
        async with session.post(url, json=HELLO, headers=HEADERS) as response:
            assert response.headers["Content-Type"] == "application/vnd.amazon.eventstream"
            return await response.read()

    async def post_a_thousand_times(url: str) -> list[bytes]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(post(session, url) for _ in range(1000)))

    with BedrockServer(responder=lambda _: words) as server:
        url = f"{server.endpoint}/model/amazon.nova-lite-v1%3A0/converse-stream"
        answers = asyncio.run(post_a_thousand_times(url))
        assert len(server.requests) == 1000
        assert all(response.count(b"contentBlockDelta") == 10 for response in answers)
        assert all(response.count(b"messageStop") == 1 for response in answers)


def test_no_message_is_logged(
    bedrock_server: BedrockServer, caplog: pytest.LogCaptureFixture
) -> None:
    # Plain HTTP, because boto3 itself logs the requests that it sends.
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("botocore").setLevel(logging.INFO)
        send(bedrock_server)
        send(bedrock_server, {})
    assert "Ada" not in caplog.text


def test_the_command_prints_its_address_and_stops_on_sigterm(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "--pace", "0.001"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            endpoint, *lines = (process.stdout.readline().strip() for _ in range(6))
            assert lines == [
                f"export AWS_ENDPOINT_URL_BEDROCK_RUNTIME={endpoint}",
                f"export AWS_ACCESS_KEY_ID={ACCESS_KEY}",
                f"export AWS_SECRET_ACCESS_KEY={SECRET_KEY}",
                "export AWS_DEFAULT_REGION=us-east-1",
                f"# or, with an API key: export AWS_BEARER_TOKEN_BEDROCK={API_KEY}",
            ]
            variables = dict(line.removeprefix("export ").split("=") for line in lines[:4])
            completed = subprocess.run(
                [sys.executable, "-c", CONVERSE],
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert completed.stdout.startswith("Hello, Ada!"), completed.stderr
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


CONVERSE = f"""
import boto3
client = boto3.client("bedrock-runtime")
answer = client.converse(modelId="amazon.nova-micro-v1:0", **{HELLO!r})
print(answer["output"]["message"]["content"][0]["text"])
"""


def test_the_command_reports_a_port_in_use_in_one_line(shared: BedrockServer) -> None:
    port = shared.endpoint.rpartition(":")[2]
    completed = subprocess.run(
        [*COMMAND, "--port", port], capture_output=True, text=True, check=False, timeout=60
    )
    assert completed.returncode == 1
    assert completed.stderr.startswith("The server did not start:")
    assert "Traceback" not in completed.stderr


def test_one_line_in_a_conftest_provides_the_fixture(tmp_path: Path) -> None:
    plugins = 'pytest_plugins = ["chatledger.testing.bedrock_server"]\n'
    (tmp_path / "conftest.py").write_text(plugins)
    (tmp_path / "test_it.py").write_text(
        "def test_it(bedrock_server):\n"
        "    client = bedrock_server.client()\n"
        f"    response = client.converse(modelId='amazon.nova-micro-v1:0', **{HELLO!r})\n"
        "    assert response['stopReason'] == 'end_turn'\n"
    )
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    completed = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert completed.returncode == 0, completed.stdout
    assert "1 passed" in completed.stdout


def test_each_test_gets_a_server_of_its_own(bedrock_server: BedrockServer) -> None:
    assert bedrock_server.requests == []
    assert reply_text(events(bedrock_server.client(ONCE))).startswith("Hello, Ada!")
