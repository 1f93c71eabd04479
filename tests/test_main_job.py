"""The main job, as seen by a user: talk, lose the server, come back, be remembered."""

from collections.abc import Iterator

import httpx
import pytest

from tests.http.client import (
    answer_of,
    connected,
    events,
    eventually,
    said,
    shown,
    someone,
    streamed,
    talk,
)
from tests.serving import Server, StartServer


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with connected(server.url) as client:
        yield client


def test_a_name_is_known_after_the_server_was_killed(server: Server) -> None:
    with connected(server.url) as client:
        place = said(client, "Hi, I am Bob", user_id="bob")["conversation_id"]

    server.restart()

    with connected(server.url) as client:
        question = {"user_id": "bob", "conversation_id": place}
        answer = said(client, "What is my name?", **question)
        assert answer["conversation_id"] == place
        assert "Bob" in answer["response"]
        # It knows from this conversation, and from no other.
        assert "Bob" not in said(client, "What is my name?", user_id="eve")["response"]


@pytest.mark.parametrize(
    ("question", "known"),
    [
        ("What did I tell you first?", ["My cat is called Minka"]),
        ("What did I say last?", ["I live in Bergen"]),
        # Before the question, or with it: both are true.
        ("How often have I written?", ["3", "4"]),
    ],
)
def test_what_was_said_is_known_after_the_server_was_killed(
    server: Server, question: str, known: list[str]
) -> None:
    told = {"user_id": someone()}
    with connected(server.url) as client:
        for message in ("My cat is called Minka", "I like rain", "I live in Bergen"):
            told["conversation_id"] = said(client, message, **told)["conversation_id"]

    server.restart()

    with connected(server.url) as client:
        answer = said(client, question, **told)["response"]
    assert any(text in answer for text in known), answer


def test_a_server_killed_in_the_middle_of_a_reply_keeps_what_the_user_said(
    start_server: StartServer,
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.2", CHATLEDGER_LEASE="2s")
    with (
        connected(server.url) as client,
        streamed(client, message="Hi, I am Bob", user_id="bob") as response,
    ):
        stream = events(response)
        place = next(stream)[1]["conversation_id"]
        assert next(stream)[0] == "piece"
        server.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)

    server.restart()

    with connected(server.url) as client:
        assert talk(shown(client, place))[0] == ("user", "Hi, I am Bob")
        question = {"message": "What is my name?", "user_id": "bob", "conversation_id": place}
        # The turn that died holds it for what was left of its lease.

        def answered() -> str | None:
            answer = client.post("/chat", json=question)
            if answer.status_code == 409:
                assert 1 <= int(answer.headers["Retry-After"]) <= 2
                return None
            return str(answer_of(answer)["response"])

        assert "Bob" in eventually(answered)
