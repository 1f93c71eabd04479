"""DynamoDB keeps the contract: over boto3, over aiodynamo, and from two processes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from recollect.messages import new_id
from recollect.stores.contract import AsyncStore, Store
from recollect.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore, create_table
from recollect.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from recollect.testing.store_contract import (
    AsyncStoreContract,
    Clock,
    ProcessesContract,
    StoreContract,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

EXAMPLES = 15


@pytest.fixture(scope="module")
def table(client: "DynamoDBClient") -> Iterator[str]:
    """One for the whole module, as ``create_table`` makes it."""
    name = f"contract-{new_id()}"
    create_table(client, name)
    yield name
    client.delete_table(TableName=name)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of DynamoDB Local, by the way that any others come."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")


class TestDynamoDB(StoreContract):
    examples = EXAMPLES

    @pytest.fixture
    def store(self, client: "DynamoDBClient", table: str, clock: Clock) -> Store:
        return DynamoDBStore(client, table, clock=clock)


class TestDynamoDBAsync(AsyncStoreContract):
    examples = EXAMPLES

    @pytest.fixture
    def store(self, dynamodb_local: DynamoDBLocal, table: str, clock: Clock) -> AsyncStore:
        return AsyncDynamoDBStore(
            table, region=REGION, endpoint=dynamodb_local.endpoint, clock=clock
        )


class TestDynamoDBProcesses(ProcessesContract):
    @pytest.fixture
    def store_url(self, dynamodb_local: DynamoDBLocal, table: str) -> str:
        return f"dynamodb://{table}?region={REGION}&endpoint={dynamodb_local.endpoint}"
