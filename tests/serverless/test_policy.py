"""The function's IAM policy allows what its routes call, and nothing else."""

import json
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest
from chalice.app import Chalice

from chatledger.chat import SyncChat
from chatledger.http.api import MAX_MESSAGE_CHARACTERS
from chatledger.http.chalice import register
from chatledger.models import Models, open_model
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.records import HEAD
from chatledger.testing.bedrock_server import BedrockServer, Says
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract import Clock
from tests.http.client import (
    conversation_ids,
    conversation_path,
    create_conversation,
    delete_conversation,
    expect_error,
    list_conversations,
    read_conversation,
    send_message,
    success_body,
    use_every_route,
)
from tests.serverless.gateway import SERVERLESS, Gateway
from tests.serverless.tables import RESOURCES, created_table, stage_table
from tests.stores.dynamodb.permissions import recorded_permissions

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

POLICY = json.loads((SERVERLESS / ".chalice" / "policy-prod.json").read_text())
TABLE = "arn:aws:dynamodb:*:*:table/chatledger-prod"
LIFETIME = timedelta(hours=1)


def allowed(service: str) -> set[tuple[str, str]]:
    """Return the actions of an AWS service that the policy allows, each with its resource."""
    return {
        (action.removeprefix(f"{service}:"), str(statement["Resource"]))
        for statement in POLICY["Statement"]
        for action in statement["Action"]
        if action.startswith(f"{service}:")
    }


@pytest.fixture(scope="module")
def dynamodb(dynamodb_local: DynamoDBLocal) -> Iterator["DynamoDBClient"]:
    client = dynamodb_local.client()
    yield client
    client.close()


@pytest.fixture
def table(dynamodb: "DynamoDBClient") -> Iterator[str]:
    """Create prod's table without TTL, since DynamoDB Local deletes items by the real clock."""
    with created_table(dynamodb, stage_table(RESOURCES, "prod"), ttl=False) as name:
        yield name


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(
    dynamodb: "DynamoDBClient", table: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    """A client of the chatbot on DynamoDB, in which conversations expire after an hour."""
    monkeypatch.setenv("AWS_EXECUTION_ENV", "")  # Chalice writes to it
    store = DynamoDBStore(dynamodb, table, expire_after=LIFETIME, clock=clock)
    models = Models(["offline"], open=partial(open_model, offline_pace=0.0))
    app = Chalice("chatbot", configure_logs=False)
    register(app, lambda: partial(SyncChat, store, models.get()), models)
    with Gateway(lambda: app).client() as client:
        yield client


def test_the_policy_allows_exactly_the_dynamodb_actions_that_the_routes_need(
    client: httpx.Client, dynamodb: "DynamoDBClient", table: str, clock: Clock
) -> None:
    without_head = send_message(client, "Hi", user_id="bob")["conversation_id"]
    delete_items(dynamodb, table, without_head, lambda sort: sort == HEAD)
    without_log = create_conversation(client, user_id="bob")
    delete_items(dynamodb, table, without_log, lambda sort: sort != HEAD)
    with recorded_permissions(dynamodb, TABLE) as used:
        success_body(client.get("/health"))
        talk(client)
        send_a_message_stored_in_parts(client)
        # A server may die before it writes a head, and TTL may delete a head last.
        read_conversation(client, without_head)
        expect_error(client.delete(conversation_path(without_log)), 404)
        continue_an_expired_conversation(client, clock)
    assert used == allowed("dynamodb")
    assert "Scan" not in {action for action, _ in used}


def talk(client: httpx.Client) -> None:
    """Use every route of a conversation, from its first message to its deletion."""
    created = create_conversation(client, user_id="ann", title="A trip")
    key = {"Idempotency-Key": str(uuid4())}
    body = {"message": "Hi, I am Ann", "user_id": "ann", "conversation_id": created}
    first = success_body(client.post("/chat", json=body, headers=key))
    assert success_body(client.post("/chat", json=body, headers=key)) == first
    send_message(client, "What is my name?", conversation_id=created)
    send_message(client, "Hi", user_id="ann", conversation_id=created, save_history=False)
    started = send_message(client, "Hi", user_id="ann")["conversation_id"]
    assert set(conversation_ids(list_conversations(client, "ann"))) == {created, started}
    read_conversation(client, created, before=3)
    use_every_route(client, created, user_id="ann")


def send_a_message_stored_in_parts(client: httpx.Client) -> None:
    """Send a message that is longer than an item's inline body, and delete it again."""
    letters = random.Random(7).choices([chr(n) for n in range(0x20000, 0x2A6D6)], k=32_000)
    assert len(letters) == MAX_MESSAGE_CHARACTERS
    long = send_message(client, "".join(letters), user_id="bob")["conversation_id"]
    delete_conversation(client, long)


def continue_an_expired_conversation(client: httpx.Client, clock: Clock) -> None:
    """Continue a conversation whose items TTL may delete at any moment."""
    body = {"user_id": "bob", "conversation_id": "an expired one"}
    send_message(client, "Hi, I am Bob", **body)
    clock.advance(timedelta(hours=50))
    expect_error(client.get(conversation_path("an expired one")), 404)
    assert "Bob" not in send_message(client, "What is my name?", **body)["response"]


def delete_items(
    dynamodb: "DynamoDBClient", table: str, conversation_id: str, chosen: Callable[[str], bool]
) -> None:
    """Delete the items of the conversation whose sort keys are ``chosen``."""
    for item in dynamodb.scan(TableName=table)["Items"]:
        if conversation_id in item["pk"]["S"] and chosen(item["sk"]["S"]):
            dynamodb.delete_item(TableName=table, Key={"pk": item["pk"], "sk": item["sk"]})


def test_the_policy_allows_exactly_the_bedrock_action_that_a_turn_needs(
    on_aws: Gateway, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello, Bob!"))
    with on_aws.client() as client:
        send_message(client, "Hi, I am Bob")
    assert {request.operation for request in bedrock.requests} == {"ConverseStream"}
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
    assert {action for action, _ in allowed("bedrock")} == {"InvokeModelWithResponseStream"}
