"""Every law of turns holds over SQLite and over DynamoDB, and so is tried over both."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from recollect.stores.contract import AsyncStore, Store
from recollect.stores.urls import open_async_store, open_store
from recollect.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.tables import new_table


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recollect.db"


@pytest.fixture(params=["sqlite", "dynamodb"])
def url(
    request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of a store of the test's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{path}"
        return
    local: DynamoDBLocal = request.getfixturevalue("dynamodb_local")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    client = local.client()
    table = new_table(client)
    yield f"dynamodb://{table}?region={REGION}&endpoint={local.endpoint}"
    client.delete_table(TableName=table)
    client.close()


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
