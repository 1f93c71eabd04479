"""The table of the template passes the store's contract suite."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from chatledger.stores.contract import Store
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract import Clock, StoreContract
from tests.serverless.tables import RESOURCES, created_table, stage_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(scope="module")
def client(dynamodb_local: DynamoDBLocal) -> Iterator["DynamoDBClient"]:
    client = dynamodb_local.client()
    yield client
    client.close()


@pytest.fixture
def table(client: "DynamoDBClient") -> Iterator[str]:
    """Create prod's table without TTL, since DynamoDB Local deletes items by the real clock."""
    with created_table(client, stage_table(RESOURCES, "prod"), ttl=False) as name:
        yield name


class TestTable(StoreContract):
    examples = 2  # the store's own tests try more, on the table that the store creates

    @pytest.fixture
    def store(self, client: "DynamoDBClient", table: str, clock: Clock) -> Store:
        return DynamoDBStore(client, table, clock=clock)
