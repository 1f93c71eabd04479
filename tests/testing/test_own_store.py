"""A store of your own, as the docs show it, passes the contract suite with one fixture."""

import logging
from collections.abc import Iterator
from inspect import getsource
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import pytest

from chatledger import AsyncStore, Message, NotFound, Store, open_async_store, open_store
from chatledger.stores.operations import Operation
from chatledger.testing.store_contract import Clock
from chatledger.testing.store_contract.asynchronous import AsynchronousLaws
from chatledger.testing.store_contract.invalid_arguments import InvalidArgumentLaws
from chatledger.testing.store_contract.operation_rules import HistoryLaws
from chatledger.testing.store_contract.ownership import OwnershipLaws

T = TypeVar("T")

log = logging.getLogger("timed_store")


class TimedStore(Store):
    """Another store, with the time that each of its operations took in the log."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def perform(self, operation: Operation[T]) -> T:
        start = perf_counter()
        try:
            return self._store.perform(operation)
        finally:
            log.info("%s %.1f ms", type(operation).__name__, (perf_counter() - start) * 1_000)

    def close(self) -> None:
        self._store.close()


class AsyncTimedStore(AsyncStore):
    """``TimedStore`` for an async store."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    async def perform(self, operation: Operation[T]) -> T:
        start = perf_counter()
        try:
            return await self._store.perform(operation)
        finally:
            log.info("%s %.1f ms", type(operation).__name__, (perf_counter() - start) * 1_000)

    async def close(self) -> None:
        await self._store.close()


class EveryOperationLaws(HistoryLaws, InvalidArgumentLaws, OwnershipLaws):
    """The laws of ``StoreContract`` that call every operation.

    All of them would take a minute, and test only the store inside again, as its own tests do.
    """

    examples = 10

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()


class TestTimedStore(EveryOperationLaws):
    @pytest.fixture
    def subject(self, clock: Clock) -> Iterator[Store]:
        with TimedStore(open_store("sqlite:///:memory:", clock=clock)) as store:
            yield store


class TestAsyncTimedStore(AsynchronousLaws, EveryOperationLaws):
    @pytest.fixture
    def store(self, clock: Clock) -> AsyncStore:
        return AsyncTimedStore(open_async_store("sqlite:///:memory:", clock=clock))


def test_the_log_tells_each_operation_and_its_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), TimedStore(open_store("sqlite:///:memory:")) as store:
        conversation = store.create()
        store.append(conversation.id, [Message.user("secret")])
        with pytest.raises(NotFound):
            store.tail("missing")
    operations = [message.split()[0] for message in caplog.messages]
    assert operations == ["Create", "Append", "ReadTail"]
    assert "secret" not in caplog.text


def test_the_docs_show_the_store_that_is_tested_here() -> None:
    page = Path(__file__).parents[2] / "docs" / "contract-suite.md"
    assert getsource(TimedStore) in page.read_text(encoding="utf-8")
