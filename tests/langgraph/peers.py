"""langgraph-checkpoint-aws's saver, to test that its threads are copied.

The package is not a dependency. It is installed in a folder of its own, without its dependencies,
because its DynamoDB saver needs no others than the tests have.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from chatledger.values import new_id

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

PEERS = Path(__file__).parents[2] / ".cache" / "langgraph-peers"
"""Installed by ``scripts/test-programs``."""


def dynamodb_saver(*arguments: Any, **options: Any) -> BaseCheckpointSaver[Any]:
    """Return a ``DynamoDBSaver``."""
    if str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))  # last, so that only the package comes from there
    module = import_module("langgraph_checkpoint_aws.checkpoint.dynamodb.saver")
    saver: BaseCheckpointSaver[Any] = module.DynamoDBSaver(*arguments, **options)
    return saver


def new_checkpoint_table(client: "DynamoDBClient") -> str:
    """Create a table as the package's documentation says, and return its name."""
    name = f"checkpoints-{new_id()}"
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "PK", "KeyType": "HASH"},
            {"AttributeName": "SK", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "PK", "AttributeType": "S"},
            {"AttributeName": "SK", "AttributeType": "S"},
        ],
    )
    return name
