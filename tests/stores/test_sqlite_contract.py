"""The contract suite for SQLite: called directly, from async code, and from two processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.urls import open_async_store, open_store
from chatledger.testing.store_contract import (
    AsyncStoreContract,
    Clock,
    ProcessesContract,
    StoreContract,
)


class TestSQLite(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path, clock: Clock) -> Iterator[Store]:
        with open_store(f"sqlite:///{tmp_path}/c.db", clock=clock) as store:
            yield store


class TestSQLiteAsync(AsyncStoreContract):
    examples = 25  # each call changes the thread four times, and TestSQLite tries 100

    @pytest.fixture
    def store(self, tmp_path: Path, clock: Clock) -> AsyncStore:
        return open_async_store(f"sqlite:///{tmp_path}/c.db", clock=clock)


class TestSQLiteProcesses(ProcessesContract):
    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/c.db"
