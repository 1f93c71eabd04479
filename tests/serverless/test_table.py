"""The table of the template keeps the store's contract."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from recollect.stores.contract import Store
from recollect.stores.dynamodb import DynamoDBStore
from recollect.testing.dynamodb_local import DynamoDBLocal
from recollect.testing.store_contract import Clock
from recollect.testing.store_contract.listing import ListingLaws
from recollect.testing.store_contract.starting import StartingLaws
from tests.serverless.tables import RESOURCES, made, table_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture(scope="module")
def client(dynamodb_local: DynamoDBLocal) -> Iterator["DynamoDBClient"]:
    client = dynamodb_local.client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def table(client: "DynamoDBClient") -> Iterator[str]:
    """That of prod, without TTL: DynamoDB Local would eat what laws date by clocks of their own."""
    with made(client, table_of(RESOURCES, "prod"), ttl=False) as name:
        yield name


class TestTable(ListingLaws, StartingLaws):
    """A store over the table of the template: the laws that its keys and its index carry."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def subject(self, client: "DynamoDBClient", table: str, clock: Clock) -> Store:
        return DynamoDBStore(client, table, clock=clock)
