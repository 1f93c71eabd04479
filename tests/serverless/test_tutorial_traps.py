"""The mistakes of common tutorials; docs/serverless.md has a row for each."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from chatledger.http.api import MAX_MESSAGE_CHARACTERS
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import Call
from chatledger.testing.bedrock_server import BedrockServer, Fails, Says, Throttles
from tests.http.client import (
    MARKER,
    conversation_ids,
    conversation_path,
    create_conversation,
    expect_error,
    list_conversations,
    new_user,
    read_conversation,
    send_message,
    transcript,
    use_every_route,
)
from tests.serverless.gateway import Gateway

ITEM_BYTES = 400 * 1024
"""DynamoDB's limit for the size of an item."""
EXPRESSION_KEYWORDS = {
    *("AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE"),
    *("attribute_exists", "attribute_not_exists", "begins_with", "if_not_exists", "size"),
}


@pytest.fixture
def client(on_aws: Gateway) -> Iterator[httpx.Client]:
    with on_aws.client() as client:
        yield client


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Return a list to which every call of DynamoDB is added."""
    recorded = []
    perform = Boto3Calls.perform

    def record(self: Boto3Calls, call: Call) -> Any:
        recorded.append(call)
        return perform(self, call)

    monkeypatch.setattr(Boto3Calls, "perform", record)
    return recorded


def test_expressions_name_attributes_only_by_placeholders(
    client: httpx.Client, bedrock: BedrockServer, calls: list[Call]
) -> None:
    """A name that DynamoDB reserves, such as ``ttl``, would be a ValidationException."""
    bedrock.script(Says("Hello!"), Says("Bob."))
    user = new_user()
    conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
    use_every_route(client, conversation_id, user_id=user)
    expressions = [
        text
        for call in calls
        for part in (call.params, *_items(call))
        for name, text in part.items()
        if name.endswith("Expression")
    ]
    assert len(expressions) > 5
    for text in expressions:
        assert set(re.findall(r"(?<![#:\w])[A-Za-z_]\w*", text)) <= EXPRESSION_KEYWORDS, text


def _items(call: Call) -> list[dict[str, Any]]:
    entries = call.params.get("TransactItems", [])
    return [item for entry in entries for item in entry.values()]


def test_a_conversation_can_be_larger_than_an_item(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    user, conversation_id = new_user(), None
    sent_bytes = 0
    while sent_bytes <= ITEM_BYTES:
        bedrock.script(Says("I see."))
        text = MARKER.ljust(MAX_MESSAGE_CHARACTERS, "x")
        answer = send_message(
            client,
            text,
            user_id=user,
            **({"conversation_id": conversation_id} if conversation_id else {}),
        )
        conversation_id = answer["conversation_id"]
        sent_bytes += len(text)
    assert conversation_id is not None
    assert len(read_conversation(client, conversation_id)["messages"]) == 2 * (
        ITEM_BYTES // MAX_MESSAGE_CHARACTERS + 1
    )


def test_a_list_has_all_conversations_of_the_user_without_a_scan(
    client: httpx.Client, calls: list[Call]
) -> None:
    bob, eve = new_user(), new_user()
    created = {
        create_conversation(client, user_id=bob)
        for _ in range(5)
        if create_conversation(client, user_id=eve)
    }
    found, cursor = [], None
    while True:
        page = list_conversations(client, bob, limit=2, **({"cursor": cursor} if cursor else {}))
        found += conversation_ids(page)
        cursor = page.get("cursor")
        if cursor is None:
            break
    assert sorted(found) == sorted(created)
    assert "Scan" not in {call.operation for call in calls}


def test_a_model_that_fails_repeatedly_leaves_one_user_message(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    """Two in a row would make Bedrock, and its fake, reject every later turn."""
    user = new_user()
    bedrock.script(Says("Hello!"), Throttles(times=99))
    conversation_id = send_message(client, "Hi", user_id=user)["conversation_id"]
    body = {"message": MARKER, "user_id": user, "conversation_id": conversation_id}
    for _ in range(2):
        answer = client.post("/chat", json=body)
        error = expect_error(answer, 429, conversation_id=conversation_id)
        assert error["code"] == "model_throttled"
    bedrock.reset()
    bedrock.script(Says("I am back."))
    send_message(client, MARKER, user_id=user, conversation_id=conversation_id)
    assert [role for role, _ in transcript(read_conversation(client, conversation_id))] == [
        "user",
        "assistant",
    ] * 2


def test_no_window_starts_with_the_assistant(client: httpx.Client, bedrock: BedrockServer) -> None:
    user, conversation_id = new_user(), None
    for number in range(6):  # from the third turn on, the last four messages start with a reply
        bedrock.script(Says("Yes."))
        more: dict[str, str] = {"conversation_id": conversation_id} if conversation_id else {}
        conversation_id = send_message(client, f"Number {number}", user_id=user, **more)[
            "conversation_id"
        ]
    seen = [request.body["messages"] for request in bedrock.requests]
    assert {messages[0]["role"] for messages in seen} == {"user"}
    assert max(map(len, seen)) <= 4


def test_an_empty_conversation_is_continued_and_not_replaced(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello!"))
    user = new_user()
    conversation_id = create_conversation(client, user_id=user)
    answer = send_message(client, "Hi", user_id=user, conversation_id=conversation_id)
    assert answer["conversation_id"] == conversation_id
    assert conversation_ids(list_conversations(client, user)) == [conversation_id]


def test_no_error_shows_what_aws_said(client: httpx.Client, bedrock: BedrockServer) -> None:
    secret = "arn:aws:iam::123456789012:role/chatledger-prod"
    bedrock.script(Fails("AccessDeniedException", message=f"{secret} may not invoke it"))
    answer = client.post("/chat", json={"message": MARKER, "user_id": new_user()})
    expect_error(answer, 502, conversation_id=answer.json()["conversation_id"])
    assert "123456789012" not in answer.text
    assert MARKER not in answer.text


def test_an_unknown_id_creates_no_conversation(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    conversation_id = str(uuid4())
    expect_error(client.get(conversation_path(conversation_id)), 404)
    expect_error(client.delete(conversation_path(conversation_id)), 404)
    expect_error(
        client.post("/chat", json={"message": MARKER, "conversation_id": conversation_id}), 400
    )
    assert bedrock.requests == []
    expect_error(client.get(conversation_path(conversation_id)), 404)
