"""The project in serverless/ on what AWS has: DynamoDB and Bedrock, by configuration alone."""

from collections.abc import Iterator

import httpx
import pytest

from chatledger.testing.bedrock_server import BedrockServer, Says
from tests.http.client import deleted, ids, listed, refused, said, shown, someone, talk
from tests.serverless.gateway import Gateway


@pytest.fixture
def client(on_aws: Gateway) -> Iterator[httpx.Client]:
    with on_aws.client() as client:
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


def test_another_container_knows_the_conversation(on_aws: Gateway, bedrock: BedrockServer) -> None:
    bedrock.script(Says("Hello, Bob!"), Says("Bob."))
    with on_aws.client() as one:
        place = said(one, "Hi, I am Bob", user_id=someone())["conversation_id"]
    with Gateway(on_aws.make, stage="prod").client() as other:
        said(other, "What is my name?", conversation_id=place)
        assert len(shown(other, place)["messages"]) == 4
