"""The project in serverless/ on what AWS has: DynamoDB and Bedrock, by configuration alone."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from recollect.stores.dynamodb import create_table
from recollect.testing.bedrock_server import BedrockServer, Says, Throttles
from recollect.testing.dynamodb_local import REGION, DynamoDBLocal
from tests.http.client import (
    MARKER,
    deleted,
    ids,
    listed,
    refused,
    said,
    shown,
    someone,
    talk,
)
from tests.serverless.gateway import Gateway, deployed


@pytest.fixture(scope="module")
def bedrock() -> Iterator[BedrockServer]:
    with BedrockServer() as bedrock:
        yield bedrock


@pytest.fixture(scope="module")
def gateway(bedrock: BedrockServer, dynamodb_local: DynamoDBLocal) -> Iterator[Gateway]:
    table = f"serverless-{uuid4()}"
    create_table(dynamodb_local.client(), table)
    variables = {
        "RECOLLECT_STORE": f"dynamodb://{table}?region={REGION}&endpoint={dynamodb_local.endpoint}",
        "RECOLLECT_MODEL": "bedrock:amazon.nova-lite-v1:0",
        **bedrock.environment,
    }
    with deployed(**variables) as make:
        yield Gateway(make, stage="prod")


@pytest.fixture
def client(gateway: Gateway, bedrock: BedrockServer) -> Iterator[httpx.Client]:
    bedrock.reset()
    with gateway.client() as client:
        yield client


def test_a_conversation_from_its_first_message_to_its_end(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    user = someone()
    bedrock.script(Says("Hello, Bob!"), Says("Bob."))
    place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
    said(client, "What is my name?", user_id=user, conversation_id=place)
    assert talk(shown(client, place)) == [
        ("user", "Hi, I am Bob"),
        ("assistant", "Hello, Bob!"),
        ("user", "What is my name?"),
        ("assistant", "Bob."),
    ]
    assert ids(listed(client, user)) == [place]
    deleted(client, place)
    refused(client.get(f"/conversations/{place}"), 404)


def test_another_container_knows_the_conversation(gateway: Gateway, bedrock: BedrockServer) -> None:
    bedrock.reset()
    bedrock.script(Says("Hello, Bob!"), Says("Bob."))
    with gateway.client() as one:
        place = said(one, "Hi, I am Bob", user_id=someone())["conversation_id"]
    with Gateway(gateway.make, stage="prod").client() as other:
        said(other, "What is my name?", conversation_id=place)
        assert len(shown(other, place)["messages"]) == 4


def test_a_failed_model_leaves_one_message_of_the_user(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    user = someone()
    bedrock.script(Says("Hello!"), Throttles(times=99))
    place = said(client, "Hi", user_id=user)["conversation_id"]
    body = {"message": MARKER, "user_id": user, "conversation_id": place}
    assert refused(client.post("/chat", json=body), 429)["code"] == "model_throttled"
    bedrock.reset()
    bedrock.script(Says("I am back."))
    said(client, MARKER, user_id=user, conversation_id=place)
    assert [role for role, _ in talk(shown(client, place))] == ["user", "assistant"] * 2
