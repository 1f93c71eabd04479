"""Fixtures: the turn tests run over a SQLite store and a DynamoDB store."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.urls import open_async_store, open_store
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.tables import clear_table, new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Table(NamedTuple):
    client: "DynamoDBClient"
    name: str
    endpoint: str


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chatledger.db"


@pytest.fixture(scope="session")
def table(dynamodb_local: DynamoDBLocal) -> Iterator["Table"]:
    client = dynamodb_local.client()
    yield Table(client, new_table(client), dynamodb_local.endpoint)
    client.close()


@pytest.fixture(params=["sqlite", "dynamodb"])
def url(
    request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of an empty store for one test."""
    if request.param == "sqlite":
        yield f"sqlite:///{path}"
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    table: Table = request.getfixturevalue("table")
    yield f"dynamodb://{table.name}?region={REGION}&endpoint={table.endpoint}"
    # Emptying the table is faster than creating a new one for each test.
    clear_table(table.client, table.name)


@pytest.fixture
async def store(url: str) -> AsyncIterator[AsyncStore]:
    async with open_async_store(url) as store:
        yield store


@pytest.fixture
async def sqlite(path: Path) -> AsyncIterator[AsyncStore]:
    async with open_async_store(f"sqlite:///{path}") as store:
        yield store


@pytest.fixture
def sync_store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store
