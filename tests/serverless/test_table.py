"""The table of the template keeps the store's contract."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from chatledger.stores.contract import Store
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract import Clock, StoreContract
from tests.serverless.tables import RESOURCES, made, table_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(scope="module")
def client(dynamodb_local: DynamoDBLocal) -> Iterator["DynamoDBClient"]:
    client = dynamodb_local.client()
    yield client
    client.close()


@pytest.fixture
def table(client: "DynamoDBClient") -> Iterator[str]:
    """That of prod, without TTL: DynamoDB Local would eat what laws date by clocks of their own."""
    with made(client, table_of(RESOURCES, "prod"), ttl=False) as name:
        yield name


class TestTable(StoreContract):
    examples = 2  # more of them are tried on the table that the store itself makes

    @pytest.fixture
    def store(self, client: "DynamoDBClient", table: str, clock: Clock) -> Store:
        return DynamoDBStore(client, table, clock=clock)
