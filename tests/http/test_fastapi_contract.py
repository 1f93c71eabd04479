"""The FastAPI server fulfils the HTTP contract, as a process, over a socket."""

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatledger.chat import Chat
from chatledger.http.api import SECURITY_HEADERS
from chatledger.http.fastapi import create_app
from chatledger.models import Models
from chatledger.models.offline import OfflineModel
from chatledger.stores.sqlite import AsyncSQLiteStore
from chatledger.testing.bedrock_server import BedrockServer
from tests.chat.scripted_models import DONE, ScriptedModel
from tests.http.bad_input import MAX_BODY_BYTES
from tests.http.change_contract import ChangeContract
from tests.http.client import (
    JSON,
    MARKER,
    Fields,
    check_responses,
    create_conversation,
    expect_error,
    new_user,
    open_client,
    read_conversation,
    send_message,
    success_body,
    transcript,
    wait_until,
)
from tests.http.contract import HTTPContract
from tests.http.cors_contract import SITE, CORSContract, NoCORSContract
from tests.http.description import Description
from tests.http.export_contract import ExportContract
from tests.http.failure_contract import MODEL, FailureContract
from tests.http.reply_contract import ReplyContract
from tests.http.streaming_contract import StreamingContract
from tests.serving import Server, StartServer


@pytest.fixture(scope="module")
def quick(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0")


@pytest.fixture(scope="module")
def slow_server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0.2")


@pytest.fixture
def client(url: str, description_of: Callable[[str], Description]) -> Iterator[httpx.Client]:
    with open_client(url) as client:
        check_responses(client, description_of(url))
        yield client


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


class TestReplyContract(ReplyContract):
    pass


class TestChangeContract(ChangeContract):
    pass


class TestExportContract(ExportContract):
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

    def test_preflights_have_the_security_headers_and_refusals_the_form_of_errors(
        self, client: httpx.Client
    ) -> None:
        asked = {"Access-Control-Request-Method": "POST"}
        allowed = client.options("/chat", headers=asked)
        refused = [
            client.options("/chat", headers=asked | {"Origin": "https://eve.example"}),
            client.options("/chat", headers={"Access-Control-Request-Method": "TRACE"}),
        ]
        assert (allowed.status_code, allowed.content) == (204, b"")
        for response in refused:
            assert expect_error(response, 400)["code"] == "cors_refused"
        assert "Access-Control-Allow-Origin" not in refused[0].headers
        for response in (allowed, *refused):
            for name, value in SECURITY_HEADERS.items():
                assert response.headers[name] == value


def test_no_response_names_the_server_software(client: httpx.Client) -> None:
    assert "Server" not in client.get("/health").headers


@pytest.mark.parametrize("path", ["/chat", "/chat/stream", "/conversations"])
def test_a_body_of_unknown_length_has_the_same_limit(client: httpx.Client, path: str) -> None:
    body = json.dumps({"message": MARKER, "user_id": new_user()}).encode()

    def in_chunks() -> Iterator[bytes]:
        yield body
        for _ in range(MAX_BODY_BYTES // 1024):
            yield b" " * 1024

    expect_error(client.post(path, content=in_chunks(), headers=JSON), 413)


def test_a_reply_ends_when_a_client_that_asked_for_it_no_longer_waits(
    client: httpx.Client, slow_url: str
) -> None:
    message = "Hi, I am Bob and I would like to hear all that you can do"
    reply = send_message(client, message, user_id=new_user())["response"]
    with open_client(slow_url) as slow:
        user = new_user()
        conversation_id = create_conversation(slow, user_id=user)
        turn = {"user_id": user, "conversation_id": conversation_id}
        fields = {"message": message, "on_disconnect": "stop"} | turn
        with pytest.raises(httpx.ReadTimeout):
            slow.post("/chat", json=fields, timeout=1)

        def answer() -> Fields | None:
            response = slow.post("/chat", json={"message": "What is my name?"} | turn)
            # Until the server notices the disconnect, the first turn is still running.
            return success_body(response) if response.status_code != 409 else None

        assert "Bob" in wait_until(answer)["response"]
        first, *_, last = transcript(read_conversation(slow, conversation_id))
        assert first == ("user", message)
        assert last[0] == "assistant"
        assert ("assistant", reply) not in transcript(read_conversation(slow, conversation_id))


def test_one_off_messages_are_not_in_the_database_file(client: httpx.Client, quick: Server) -> None:
    def stored(text: str) -> bool:
        return any(text.encode() in file.read_bytes() for file in quick.folder.glob("*.db*"))

    send_message(client, "a secret of mine: halibut")
    send_message(client, "a secret of mine: halibut", user_id=new_user(), save_history=False)
    send_message(client, "no secret: mackerel", save_history=True)
    assert stored("mackerel")
    assert not stored("halibut")


@pytest.fixture(scope="module")
def failing_server(start_server: StartServer, bedrock: BedrockServer) -> Server:
    return start_server(CHATLEDGER_MODEL=MODEL, **bedrock.environment)


class TestFailureContract(FailureContract):
    @pytest.fixture
    def url(self, failing_server: Server) -> str:
        return failing_server.url


@pytest.mark.anyio
async def test_an_unexpected_error_names_the_conversation_of_the_stored_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: object, **named: object) -> AsyncGenerator[str, None]:
        yield "Well, "
        raise ZeroDivisionError(MARKER)

    monkeypatch.setattr(OfflineModel, "stream", fail)
    models = Models(["offline"])
    async with AsyncSQLiteStore(tmp_path / "chatledger.db") as store:
        transport = httpx.ASGITransport(app=create_app(Chat(store, models.get(None)), models))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            conversation = await store.create(owner="bob")
            body = {"message": MARKER, "conversation_id": conversation.id}
            answer = await client.post("/chat", json=body)
    expect_error(answer, 500, conversation_id=conversation.id)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_a_reply_that_cannot_be_stored_is_not_the_clients_mistake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    half = MARKER * (9 * 1024 * 1024 // len(MARKER))
    model: Any = ScriptedModel(half, half, DONE)
    models = Models(["offline"], open=lambda _: model)
    async with AsyncSQLiteStore(tmp_path / "chatledger.db") as store:
        transport = httpx.ASGITransport(app=create_app(Chat(store, model), models))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            conversation = await store.create(owner="bob")
            body = {"message": MARKER, "conversation_id": conversation.id}
            answer = await client.post(path, json=body)
    error = f'"code":"reply_not_stored","conversation_id":"{conversation.id}"'
    assert error in answer.text
    if path == "/chat":
        expect_error(answer, 502, conversation_id=conversation.id)
    [line] = [each.message for each in caplog.records if each.name == "chatledger.http"]
    assert f"ReplyNotStored: The model's reply in conversation '{conversation.id}'" in line
    assert MARKER not in line
