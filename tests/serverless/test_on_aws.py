"""The project in serverless/ with DynamoDB and Bedrock, selected by configuration alone."""

from collections.abc import Iterator

import httpx
import pytest

from chatledger.testing.bedrock_server import BedrockServer, Says
from tests.http.client import (
    conversation_ids,
    delete_conversation,
    expect_error,
    list_conversations,
    new_user,
    read_conversation,
    send_message,
    transcript,
)
from tests.serverless.gateway import Gateway


@pytest.fixture
def client(on_aws: Gateway) -> Iterator[httpx.Client]:
    with on_aws.client() as client:
        yield client


def test_a_conversation_from_its_first_message_to_its_deletion(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    user = new_user()
    bedrock.script(Says("Hello, Bob!"), Says("Bob."))
    conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
    send_message(client, "What is my name?", user_id=user, conversation_id=conversation_id)
    assert transcript(read_conversation(client, conversation_id)) == [
        ("user", "Hi, I am Bob"),
        ("assistant", "Hello, Bob!"),
        ("user", "What is my name?"),
        ("assistant", "Bob."),
    ]
    assert conversation_ids(list_conversations(client, user)) == [conversation_id]
    delete_conversation(client, conversation_id)
    expect_error(client.get(f"/conversations/{conversation_id}"), 404)


def test_another_container_can_continue_the_conversation(
    on_aws: Gateway, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello, Bob!"), Says("Bob."))
    with on_aws.client() as first:
        conversation_id = send_message(first, "Hi, I am Bob", user_id=new_user())["conversation_id"]
    with Gateway(on_aws.new_app, stage="prod").client() as second:
        send_message(second, "What is my name?", conversation_id=conversation_id)
        assert len(read_conversation(second, conversation_id)["messages"]) == 4
