"""Fixtures: empty stores of both kinds, with one clock."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatledger import Store
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.sqlite import SQLiteStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract.clock import Clock
from tests.stores.dynamodb.tables import new_table

OPENERS = ("SQLite", "DynamoDB")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def tables(dynamodb_local: DynamoDBLocal) -> Iterator[Callable[[], str]]:
    """A function that creates an empty table and returns its name."""
    client = dynamodb_local.client()
    made: list[str] = []

    def make() -> str:
        made.append(new_table(client))
        return made[-1]

    yield make
    for name in made:
        client.delete_table(TableName=name)


class Stores:
    """Opens empty stores, all with one clock."""

    def __init__(
        self, folder: Path, dynamodb: DynamoDBLocal, tables: Callable[[], str], clock: Clock
    ) -> None:
        self._folder = folder
        self._dynamodb = dynamodb
        self._new_table = tables
        self.tables: list[str] = []
        self._clock = clock
        self._opened: list[Store] = []

    def sqlite(self, **options: Any) -> SQLiteStore:
        path = self._folder / f"{len(self._opened)}.db"
        store = SQLiteStore(path, clock=self._clock, **options)
        self._opened.append(store)
        return store

    def dynamodb(self, **options: Any) -> DynamoDBStore:
        client = self._dynamodb.client()
        self.tables.append(self._new_table())
        return DynamoDBStore(client, self.tables[-1], clock=self._clock, **options)

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture
def stores(
    tmp_path: Path, dynamodb_local: DynamoDBLocal, tables: Callable[[], str], clock: Clock
) -> Iterator[Stores]:
    stores = Stores(tmp_path, dynamodb_local, tables, clock)
    yield stores
    stores.close()
