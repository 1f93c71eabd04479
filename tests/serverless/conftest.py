"""The project in serverless/ with DynamoDB Local and a fake of Amazon Bedrock."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from chatledger.stores.dynamodb import create_table
from chatledger.testing.bedrock_server import BedrockServer
from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from tests.serverless.gateway import Gateway, app_factory


@pytest.fixture(scope="module")
def bedrock_server() -> Iterator[BedrockServer]:
    with BedrockServer() as server:
        yield server


@pytest.fixture
def bedrock(bedrock_server: BedrockServer) -> BedrockServer:
    bedrock_server.reset()
    return bedrock_server


@pytest.fixture(scope="module")
def on_aws(bedrock_server: BedrockServer, dynamodb_local: DynamoDBLocal) -> Iterator[Gateway]:
    """Yield the function behind API Gateway; its window is the last four messages."""
    table = f"serverless-{uuid4()}"
    client = dynamodb_local.client()
    create_table(client, table)
    client.close()
    variables = {
        "CHATLEDGER_STORE": f"dynamodb://{table}?region={REGION}&endpoint={dynamodb_local.endpoint}",
        "CHATLEDGER_MODEL": "bedrock:amazon.nova-lite-v1:0",
        "CHATLEDGER_EXPIRE_AFTER": "30d",
        "CHATLEDGER_WINDOW": "4",
        **bedrock_server.environment,
    }
    with app_factory(**variables) as new_app:
        yield Gateway(new_app, stage="prod")
