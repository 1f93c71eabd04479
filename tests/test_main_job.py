"""The main job as a user sees it: a conversation survives the crash of its server."""

import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.http.client import (
    expect_error,
    new_user,
    open_client,
    open_stream,
    read_conversation,
    read_events,
    send_message,
    success_body,
    transcript,
    wait_until,
)
from tests.serving import Server, StartServer


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with open_client(server.url) as client:
        yield client


def test_a_name_is_remembered_after_the_server_was_killed(server: Server) -> None:
    with open_client(server.url) as client:
        conversation_id = send_message(client, "Hi, I am Bob", user_id="bob")["conversation_id"]

    server.restart()

    with open_client(server.url) as client:
        question = {"user_id": "bob", "conversation_id": conversation_id}
        answer = send_message(client, "What is my name?", **question)
        assert answer["conversation_id"] == conversation_id
        assert "Bob" in answer["response"]
        # The name comes from this conversation and from no other.
        assert "Bob" not in send_message(client, "What is my name?", user_id="eve")["response"]


@pytest.mark.parametrize(
    ("question", "known"),
    [
        ("What did I tell you first?", ["My cat is called Minka"]),
        ("What did I say last?", ["I live in Bergen"]),
        # Counted with or without the question: both are true.
        ("How often have I written?", ["3", "4"]),
    ],
)
def test_earlier_messages_are_remembered_after_the_server_was_killed(
    server: Server, question: str, known: list[str]
) -> None:
    fields = {"user_id": new_user()}
    with open_client(server.url) as client:
        for message in ("My cat is called Minka", "I like rain", "I live in Bergen"):
            fields["conversation_id"] = send_message(client, message, **fields)["conversation_id"]

    server.restart()

    with open_client(server.url) as client:
        answer = send_message(client, question, **fields)["response"]
    assert any(text in answer for text in known), answer


def test_the_users_message_survives_a_server_killed_during_the_reply(
    start_server: StartServer,
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.2", CHATLEDGER_LEASE="2s")
    with (
        open_client(server.url) as client,
        open_stream(client, message="Hi, I am Bob", user_id="bob") as response,
    ):
        stream = read_events(response)
        conversation_id = next(stream)[1]["conversation_id"]
        assert next(stream)[0] == "piece"
        server.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)

    server.restart()

    with open_client(server.url) as client:
        assert transcript(read_conversation(client, conversation_id))[0] == ("user", "Hi, I am Bob")
        question = {
            "message": "What is my name?",
            "user_id": "bob",
            "conversation_id": conversation_id,
        }
        # Without /proc, the interrupted turn blocks the conversation until its lease ends.

        def answer_when_free() -> str | None:
            answer = client.post("/chat", json=question)
            if answer.status_code == 409:
                assert 1 <= int(answer.headers["Retry-After"]) <= 2
                return None
            return str(success_body(answer)["response"])

        assert "Bob" in wait_until(answer_when_free)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_restarted_server_answers_at_once_in_the_conversation_of_a_killed_one(
    start_server: StartServer,
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.2", CHATLEDGER_LEASE="1h")
    body = {"message": "Hi, I am Bob", "user_id": "bob"}
    with open_client(server.url) as client, open_stream(client, **body) as response:
        stream = read_events(response)
        body["conversation_id"] = next(stream)[1]["conversation_id"]
        assert expect_error(client.post("/chat", json=body), 409)["code"] == "turn_in_progress"
        server.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)

    server.restart()

    with open_client(server.url) as client:
        reply = success_body(client.post("/chat", json=body))["response"]
        conversation = read_conversation(client, body["conversation_id"])
    assert transcript(conversation) == [("user", body["message"]), ("assistant", reply)]
