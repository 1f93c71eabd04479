"""The server as a program and a fixture: it starts, is left, bears a crowd, and ends."""

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
from tests.testing.bedrock_server.requests_for_tests import HELLO, ONCE, asks, events, streams, text

BY_HAND = [sys.executable, "-m", "chatledger.testing.bedrock_server"]
HEADERS = {"Authorization": f"Bearer {API_KEY}"}
SLOW = Says([f"{n} " for n in range(1000)], pause=0.02)


def test_a_client_that_goes_away_in_the_middle_is_noticed(bedrock_server: BedrockServer) -> None:
    bedrock_server.script(SLOW)
    with streams(bedrock_server.client(ONCE)) as stream:
        next(stream)
        assert not bedrock_server.requests[0].abandoned.is_set()
    assert bedrock_server.wait_abandoned().operation == "ConverseStream"
    assert bedrock_server.requests[0].ended.wait(5)


def test_who_hears_the_end_has_abandoned_nothing(bedrock_server: BedrockServer) -> None:
    assert events(bedrock_server.client(ONCE))
    (request,) = bedrock_server.requests
    assert request.ended.wait(5)
    assert not request.abandoned.is_set()
    with pytest.raises(TimeoutError, match=r"not an abandoned request within 0\.05 s"):
        bedrock_server.wait_abandoned(timeout=0.05)


def test_the_end_does_not_wait_for_a_slow_reply() -> None:
    before = threading.active_count()
    with BedrockServer() as server:
        server.script(SLOW)
        with streams(server.client(ONCE)) as stream:
            next(stream)
            begun = time.monotonic()
            server.__exit__()
            assert time.monotonic() - begun < 2
        assert not server.requests[0].abandoned.is_set()
    assert threading.active_count() == before


def test_a_port_that_is_taken_is_an_error() -> None:
    with BedrockServer() as one:
        port = int(one.endpoint.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"), BedrockServer(port=port):
            pass


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of a connection are of this process, which may have no more than 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_streams_are_served_at_once() -> None:
    words = Says([f"{n} " for n in range(10)], delay=1.0, pause=0.1)

    async def ask(session: aiohttp.ClientSession, url: str) -> bytes:
        async with session.post(url, json=HELLO, headers=HEADERS) as answer:
            assert answer.headers["Content-Type"] == "application/vnd.amazon.eventstream"
            return await answer.read()

    async def crowd(url: str) -> list[bytes]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(ask(session, url) for _ in range(1000)))

    with BedrockServer(answering=lambda _: words) as server:
        url = f"{server.endpoint}/model/amazon.nova-lite-v1%3A0/converse-stream"
        answers = asyncio.run(crowd(url))
        assert len(server.requests) == 1000
        assert all(answer.count(b"contentBlockDelta") == 10 for answer in answers)
        assert all(answer.count(b"messageStop") == 1 for answer in answers)


def test_no_message_is_logged(
    bedrock_server: BedrockServer, caplog: pytest.LogCaptureFixture
) -> None:
    # boto3 itself logs what it sends, so this one goes around it.
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("botocore").setLevel(logging.INFO)
        asks(bedrock_server)
        asks(bedrock_server, {})
    assert "Ada" not in caplog.text


def test_by_hand_it_says_where_it_is_and_ends_when_told(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*BY_HAND, "--pace", "0.001"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
            said = subprocess.run(
                [sys.executable, "-c", ASK],
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert said.stdout.startswith("Hello, Ada!"), said.stderr
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


ASK = f"""
import boto3
client = boto3.client("bedrock-runtime")
answer = client.converse(modelId="amazon.nova-micro-v1:0", **{HELLO!r})
print(answer["output"]["message"]["content"][0]["text"])
"""


def test_by_hand_a_port_that_is_taken_is_told_in_a_line(shared: BedrockServer) -> None:
    port = shared.endpoint.rpartition(":")[2]
    ended = subprocess.run(
        [*BY_HAND, "--port", port], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("The server did not start:")
    assert "Traceback" not in ended.stderr


def test_a_conftest_of_ones_own_gets_the_fixture_in_one_line(tmp_path: Path) -> None:
    plugins = 'pytest_plugins = ["chatledger.testing.bedrock_server"]\n'
    (tmp_path / "conftest.py").write_text(plugins)
    (tmp_path / "test_it.py").write_text(
        "def test_it(bedrock_server):\n"
        "    client = bedrock_server.client()\n"
        f"    said = client.converse(modelId='amazon.nova-micro-v1:0', **{HELLO!r})\n"
        "    assert said['stopReason'] == 'end_turn'\n"
    )
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


def test_each_test_has_a_script_of_its_own(bedrock_server: BedrockServer) -> None:
    assert bedrock_server.requests == []
    assert text(events(bedrock_server.client(ONCE))).startswith("Hello, Ada!")
