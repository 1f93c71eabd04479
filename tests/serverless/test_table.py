"""The table of the template passes the laws of the contract suite that depend on a table."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from chatledger.stores.contract import Store
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract import Clock
from chatledger.testing.store_contract.lifecycle import LifecycleLaws
from chatledger.testing.store_contract.listing import ListingLaws
from chatledger.testing.store_contract.operation_rules import HistoryLaws
from chatledger.testing.store_contract.scanning import ScanningLaws
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


class TestTable(LifecycleLaws, ListingLaws, ScanningLaws, HistoryLaws):
    """The store's own tests run all laws, on a table with the same keys and index."""

    examples = 2

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def subject(self, client: "DynamoDBClient", table: str, clock: Clock) -> Store:
        return DynamoDBStore(client, table, clock=clock)
