"""What the usual tutorials fall into; docs/serverless.md has a line for each."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chatledger.http.api import MESSAGE_CHARACTERS
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import Call
from chatledger.testing.bedrock_server import BedrockServer, Fails, Says, Throttles
from tests.http.client import (
    MARKER,
    at,
    created,
    deleted,
    ids,
    listed,
    refused,
    said,
    shown,
    someone,
    talk,
)
from tests.serverless.gateway import Gateway

ITEM_BYTES = 400 * 1024
"""The largest item that DynamoDB takes (AWS)."""
WORDS_OF_EXPRESSIONS = {
    *("AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE"),
    *("attribute_exists", "attribute_not_exists", "begins_with", "if_not_exists", "size"),
}


@pytest.fixture
def client(on_aws: Gateway) -> Iterator[httpx.Client]:
    with on_aws.client() as client:
        yield client


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What DynamoDB is asked for."""
    asked = []
    perform = Boto3Calls.perform

    def noted(self: Boto3Calls, call: Call) -> Any:
        asked.append(call)
        return perform(self, call)

    monkeypatch.setattr(Boto3Calls, "perform", noted)
    return asked


def a_life(client: httpx.Client, bedrock: BedrockServer) -> None:
    """One of each that the API does with a conversation."""
    bedrock.script(Says("Hello!"), Says("Bob."))
    user = someone()
    place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
    said(client, "Who am I?", conversation_id=place)
    shown(client, place)
    listed(client, user)
    deleted(client, place)


def test_no_expression_names_an_attribute_itself(
    client: httpx.Client, bedrock: BedrockServer, calls: list[Call]
) -> None:
    """Else one that AWS reserves, as it does ``ttl``, is a ValidationException."""
    a_life(client, bedrock)
    expressions = [
        text
        for call in calls
        for part in (call.params, *_items(call))
        for name, text in part.items()
        if name.endswith("Expression")
    ]
    assert len(expressions) > 5
    for text in expressions:
        assert set(re.findall(r"(?<![#:\w])[A-Za-z_]\w*", text)) <= WORDS_OF_EXPRESSIONS, text


def _items(call: Call) -> list[dict[str, Any]]:
    entries = call.params.get("TransactItems", [])
    return [each for entry in entries for each in entry.values()]


def test_a_conversation_outgrows_an_item(client: httpx.Client, bedrock: BedrockServer) -> None:
    user, place = someone(), None
    said_bytes = 0
    while said_bytes <= ITEM_BYTES:
        bedrock.script(Says("I see."))
        text = MARKER.ljust(MESSAGE_CHARACTERS, "x")
        answer = said(client, text, user_id=user, **({"conversation_id": place} if place else {}))
        place = answer["conversation_id"]
        said_bytes += len(text)
    assert place is not None
    assert len(shown(client, place)["messages"]) == 2 * (ITEM_BYTES // MESSAGE_CHARACTERS + 1)


def test_a_list_has_all_that_are_the_users_and_scans_nothing(
    client: httpx.Client, calls: list[Call]
) -> None:
    bob, eve = someone(), someone()
    places = {created(client, user_id=bob) for _ in range(5) if created(client, user_id=eve)}
    found, cursor = [], None
    while True:
        page = listed(client, bob, limit=2, **({"cursor": cursor} if cursor else {}))
        found += ids(page)
        cursor = page.get("cursor")
        if cursor is None:
            break
    assert sorted(found) == sorted(places)
    assert "Scan" not in {call.operation for call in calls}


def test_a_failed_model_leaves_one_message_of_the_user(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    """Two in a row is what Bedrock would refuse from then on; the one here would too."""
    user = someone()
    bedrock.script(Says("Hello!"), Throttles(times=99))
    place = said(client, "Hi", user_id=user)["conversation_id"]
    body = {"message": MARKER, "user_id": user, "conversation_id": place}
    for _ in range(2):
        assert refused(client.post("/chat", json=body), 429)["code"] == "model_throttled"
    bedrock.reset()
    bedrock.script(Says("I am back."))
    said(client, MARKER, user_id=user, conversation_id=place)
    assert [role for role, _ in talk(shown(client, place))] == ["user", "assistant"] * 2


def test_no_window_starts_with_the_assistant(client: httpx.Client, bedrock: BedrockServer) -> None:
    user, place = someone(), None
    for number in range(6):  # the window of four would begin with a reply from the third on
        bedrock.script(Says("Yes."))
        more: dict[str, str] = {"conversation_id": place} if place else {}
        place = said(client, f"Number {number}", user_id=user, **more)["conversation_id"]
    seen = [request.body["messages"] for request in bedrock.requests]
    assert {messages[0]["role"] for messages in seen} == {"user"}
    assert max(map(len, seen)) <= 4


def test_a_conversation_that_is_empty_is_the_one_that_goes_on(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello!"))
    user = someone()
    place = created(client, user_id=user)
    answer = said(client, "Hi", user_id=user, conversation_id=place)
    assert answer["conversation_id"] == place
    assert ids(listed(client, user)) == [place]


def test_no_error_shows_what_aws_said(client: httpx.Client, bedrock: BedrockServer) -> None:
    secret = "arn:aws:iam::123456789012:role/chatledger-prod"
    bedrock.script(Fails("AccessDeniedException", message=f"{secret} may not invoke it"))
    answer = client.post("/chat", json={"message": MARKER, "user_id": someone()})
    refused(answer, 502)
    assert "123456789012" not in answer.text
    assert MARKER not in answer.text


def test_an_unknown_id_is_nobodys(client: httpx.Client, bedrock: BedrockServer) -> None:
    place = someone()
    refused(client.get(at(place)), 404)
    refused(client.delete(at(place)), 404)
    refused(client.post("/chat", json={"message": MARKER, "conversation_id": place}), 400)
    assert bedrock.requests == []
    refused(client.get(at(place)), 404)
