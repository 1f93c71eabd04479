"""Stores with entries for ``ChatledgerStore``, and what its tests share."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import pytest

from chatledger import AsyncStore, Store, open_async_store
from chatledger.langgraph.store import ChatledgerStore
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.operations import Operation, PutEntry
from chatledger.stores.sqlite import SQLiteStore
from chatledger.testing.dynamodb_local import REGION
from chatledger.values import new_id
from tests.stores.dynamodb.conftest import ManualClock

T = TypeVar("T")

BACKENDS: Final = ["sqlite", "dynamodb"]
DIMS: Final = 3


@pytest.fixture(params=BACKENDS)
def entry_store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> Iterator[Store]:
    """A store of each kind, whose clock the test sets."""
    if request.param == "sqlite":
        with SQLiteStore(tmp_path / "chatledger.db", clock=clock) as store:
            yield store
    else:
        client, table = map(request.getfixturevalue, ("client", "log_table"))
        yield DynamoDBStore(client, table, clock=clock)


@pytest.fixture(params=BACKENDS)
def async_entry_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncStore:
    """An async store that the test must enter, in its own event loop."""
    if request.param == "sqlite":
        return open_async_store(f"sqlite:///{tmp_path}/chatledger.db")
    request.getfixturevalue("aws_environment")
    local, table = map(request.getfixturevalue, ("dynamodb_local", "log_table"))
    return open_async_store(f"dynamodb://{table}?region={REGION}&endpoint={local.endpoint}")


def memory_of(store: Store | AsyncStore, **options: Any) -> ChatledgerStore:
    """Return a ``ChatledgerStore`` of an owner of its own."""
    return ChatledgerStore(store, **({"owner": new_id()} | options))


def embed(texts: Sequence[str], dims: int = DIMS) -> list[list[float]]:
    """Return a vector for each text, always the same one."""
    numbers = [Random(text) for text in texts]
    return [[random.gauss(0, 1) for _ in range(dims)] for random in numbers]


class WatchedStore(Store):
    """Another store's operations, whose names it records.

    It calls ``before_put`` before it puts an entry, so that a rival may act there.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.operations: list[str] = []
        self.before_put: Callable[[], object] | None = None

    def perform(self, operation: Operation[T]) -> T:
        self.operations.append(type(operation).__name__)
        if isinstance(operation, PutEntry) and self.before_put is not None:
            self.before_put()
        return self.store.perform(operation)

    def close(self) -> None:
        self.store.close()
