"""The operator's system prompt stays the operator's, on both servers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest

from chatledger.testing.bedrock_server import BedrockServer, Says
from tests.http.client import (
    MARKER,
    checked_error,
    conversation_ids,
    expect_error,
    list_conversations,
    new_user,
    open_client,
    send_message,
    success_body,
)
from tests.serverless.gateway import Gateway, app_factory
from tests.serving import StartServer

OPERATORS = "You are the support bot of ACME."

StartChatbot: TypeAlias = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def bedrock_server() -> Iterator[BedrockServer]:
    with BedrockServer() as server:
        yield server


@pytest.fixture
def bedrock(bedrock_server: BedrockServer) -> BedrockServer:
    bedrock_server.reset()
    return bedrock_server


@pytest.fixture(scope="module")
def shared_server(start_server: StartServer) -> StartServer:
    """Start a server, or return the one that has the same variables."""
    return cache(start_server)


@pytest.fixture(params=["FastAPI", "Chalice"])
def start_chatbot(
    request: pytest.FixtureRequest,
    bedrock: BedrockServer,
    tmp_path: Path,
    shared_server: StartServer,
) -> Iterator[StartChatbot]:
    """Return a client of a server with these variables, whose model is the fake of Bedrock."""
    with ExitStack() as stack:

        def start(**variables: str) -> httpx.Client:
            variables |= bedrock.environment
            variables |= {"CHATLEDGER_MODEL": "bedrock:amazon.nova-lite-v1:0"}
            if request.param == "Chalice":
                variables["CHATLEDGER_STORE"] = f"sqlite:///{tmp_path / 'chatledger.db'}"
                new_app = stack.enter_context(app_factory(**variables))
                return stack.enter_context(Gateway(new_app).client())
            return stack.enter_context(open_client(shared_server(**variables).url))

        yield start


def seen_by_the_model(bedrock: BedrockServer) -> list[object]:
    return [request.body.get("system") for request in bedrock.requests]


def test_a_request_cannot_replace_or_remove_it(
    start_chatbot: StartChatbot, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello!"))
    client, user = start_chatbot(CHATLEDGER_SYSTEM_PROMPT=OPERATORS), new_user()
    assert success_body(client.get("/models"))["allows_system_prompt"] is False
    for prompt in (MARKER, "", OPERATORS):
        for fields in ({"user_id": user}, {}):
            body = {"message": "Hi", "system_prompt": prompt} | fields
            error = expect_error(client.post("/chat", json=body), 403)
            assert error["code"] == "system_prompt_fixed"
    streamed = client.post("/chat/stream", json={"message": "Hi", "system_prompt": MARKER})
    assert streamed.status_code in (403, 501)  # Chalice does not stream
    checked_error(streamed.json())
    assert conversation_ids(list_conversations(client, user)) == []
    send_message(client, "Hi", user_id=user, system_prompt=None)
    assert seen_by_the_model(bedrock) == [[{"text": OPERATORS}]]


@pytest.mark.parametrize(
    ("requested", "seen"),
    [
        ("Be brief.", f"{OPERATORS}\n\nBe brief."),
        ("", OPERATORS),
        (" \n", OPERATORS),
        (None, OPERATORS),
    ],
)
def test_a_request_may_add_to_it_if_that_is_allowed(
    start_chatbot: StartChatbot, bedrock: BedrockServer, requested: str | None, seen: str
) -> None:
    bedrock.script(Says("Hello!"))
    client = start_chatbot(
        CHATLEDGER_SYSTEM_PROMPT=OPERATORS, CHATLEDGER_ALLOW_SYSTEM_PROMPT="true"
    )
    assert success_body(client.get("/models"))["allows_system_prompt"] is True
    send_message(client, "Hi", user_id=new_user(), system_prompt=requested)
    assert seen_by_the_model(bedrock) == [[{"text": seen}]]


def test_without_one_a_request_has_its_own(
    start_chatbot: StartChatbot, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello!"))
    send_message(start_chatbot(), "Hi", user_id=new_user(), system_prompt="Be brief.")
    assert seen_by_the_model(bedrock) == [[{"text": "Be brief."}]]


def test_an_imported_message_cannot_add_to_it(start_chatbot: StartChatbot) -> None:
    user = new_user()
    file = {
        "format": "chatledger-conversation",
        "version": 1,
        "messages": [{"role": "user", "content": "Hi"}, {"role": "system", "content": MARKER}],
    }
    client = start_chatbot(CHATLEDGER_SYSTEM_PROMPT=OPERATORS)
    error = expect_error(
        client.post("/conversations/import", json=file, params={"user_id": user}), 403
    )
    assert error["code"] == "system_prompt_fixed"
    assert "messages[1]" in error["error"]
    assert conversation_ids(list_conversations(client, user)) == []


def test_an_imported_system_message_follows_it_if_that_is_allowed(
    start_chatbot: StartChatbot, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello!"))
    user = new_user()
    file = {
        "format": "chatledger-conversation",
        "version": 1,
        "messages": [{"role": "system", "content": "Be brief."}],
    }
    client = start_chatbot(
        CHATLEDGER_SYSTEM_PROMPT=OPERATORS, CHATLEDGER_ALLOW_SYSTEM_PROMPT="true"
    )
    response = client.post("/conversations/import", json=file, params={"user_id": user})
    conversation_id = success_body(response)["conversation"]["conversation_id"]
    send_message(client, "Hi", user_id=user, conversation_id=conversation_id)
    assert seen_by_the_model(bedrock) == [[{"text": OPERATORS}, {"text": "Be brief."}]]
