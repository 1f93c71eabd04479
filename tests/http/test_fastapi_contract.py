"""The FastAPI server fulfils the HTTP contract, as a process, over a socket."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.http.bad_input import MAX_BODY_BYTES
from tests.http.client import JSON, MARKER, expect_error, new_user, send_message
from tests.http.contract import HTTPContract
from tests.http.cors_contract import SITE, CORSContract, NoCORSContract
from tests.http.streaming_contract import StreamingContract
from tests.serving import Server, StartServer


@pytest.fixture(scope="module")
def quick(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0")


@pytest.fixture(scope="module")
def slow_server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0.2")


@pytest.fixture
def url(quick: Server) -> str:
    return quick.url


@pytest.fixture
def slow_url(slow_server: Server) -> str:
    return slow_server.url


class TestHTTPContract(HTTPContract):
    pass


class TestStreamingContract(StreamingContract):
    pass


class TestNoCORS(NoCORSContract):
    pass


@pytest.fixture(scope="module")
def of_a_site(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0", CHATLEDGER_ALLOW_ORIGIN=SITE)


class TestCORS(CORSContract):
    @pytest.fixture
    def url(self, of_a_site: Server) -> str:
        return of_a_site.url


@pytest.mark.parametrize("path", ["/chat", "/chat/stream", "/conversations"])
def test_a_body_of_unknown_length_has_the_same_limit(client: httpx.Client, path: str) -> None:
    body = json.dumps({"message": MARKER, "user_id": new_user()}).encode()

    def in_chunks() -> Iterator[bytes]:
        yield body
        for _ in range(MAX_BODY_BYTES // 1024):
            yield b" " * 1024

    expect_error(client.post(path, content=in_chunks(), headers=JSON), 413)


def test_one_off_messages_are_not_in_the_database_file(client: httpx.Client, quick: Server) -> None:
    def stored(text: str) -> bool:
        return any(text.encode() in file.read_bytes() for file in quick.folder.glob("*.db*"))

    send_message(client, "a secret of mine: halibut")
    send_message(client, "a secret of mine: halibut", user_id=new_user(), save_history=False)
    send_message(client, "no secret: mackerel", save_history=True)
    assert stored("mackerel")
    assert not stored("halibut")
