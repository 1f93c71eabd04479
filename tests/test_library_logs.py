"""A program that logs everything at DEBUG logs no content of messages."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatledger.testing.bedrock_server import BedrockServer, Fails, Says, Throttles
from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from tests.stores.dynamodb.tables import new_table

SECRETS = ("quetzal-7431", "axolotl-99", "capybara-5", "narwhal-12", "a-key-of-mine")
"""The user's message, the reply, the system prompt, the service's error and the idempotency key."""

PROGRAM = """
import asyncio, logging, sys
logging.basicConfig(level=logging.DEBUG)
from chatledger import ChatledgerError, open_async_store, open_store
from chatledger.chat import Chat, SyncChat
from chatledger.models.bedrock import BedrockModel

url, message, prompt, key = sys.argv[1:]
model = BedrockModel("amazon.nova-lite-v1:0", patience=0.5)

with open_store(url) as store:
    chat = SyncChat(store, model, system_prompt=prompt)
    conversation_id = chat.send(message, owner="bob", idempotency_key=key).conversation_id
    list(chat.regenerate(conversation_id))
    for _ in range(2):
        try:
            chat.send(message, conversation_id=conversation_id)
        except ChatledgerError as error:
            logging.error("it failed: %s", error)

async def main():
    async with open_async_store(url) as store:
        chat = Chat(store, model, system_prompt=prompt)
        await chat.send(message, owner="bob")
        for _ in range(2):
            try:
                await chat.send(message, conversation_id=conversation_id)
            except ChatledgerError as error:
                logging.error("it failed: %s", error)
    await model.close()

asyncio.run(main())
"""


@pytest.fixture
def table(dynamodb_local: DynamoDBLocal) -> Iterator[str]:
    client = dynamodb_local.client()
    yield new_table(client)
    client.close()


def test_no_message_content_is_logged_at_any_level(
    dynamodb_local: DynamoDBLocal, table: str, tmp_path: Path
) -> None:
    message, reply, prompt, error_text, key = SECRETS
    with BedrockServer() as bedrock:
        bedrock.script(
            Says(reply),
            Says(reply),
            Fails("ValidationException", error_text),
            Throttles(),
            Says(reply),
        )
        url = f"dynamodb://{table}?region={REGION}&endpoint={dynamodb_local.endpoint}"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("AWS_")
        }
        environment |= bedrock.environment
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, url, message, prompt, key],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "DEBUG" in done.stderr, "nothing was logged at all"
    for word in (*SECRETS, bedrock.environment["AWS_SECRET_ACCESS_KEY"]):
        assert word not in done.stderr
