"""Stores that fail, for tests of what the saver makes of it."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from chatledger import Store
from chatledger.conversations import Tail
from chatledger.errors import StoreUnavailable
from chatledger.stores.operations import Operation, ReadTail

T = TypeVar("T")


class Killed(BaseException):
    """The process ended."""


class FailingStore(Store):
    """Another store, of which one operation fails.

    Args:
        store: The other store.
        at: The number of the operation that fails, from 0 on.
        error: Makes the error that it raises.
        performs: Whether it is performed nevertheless.
        goes_on: Whether later operations succeed.
    """

    def __init__(
        self,
        store: Store,
        at: int,
        *,
        error: Callable[[], BaseException] = Killed,
        performs: bool,
        goes_on: bool = False,
    ) -> None:
        self._store, self._at, self._error = store, at, error
        self._performs, self._goes_on = performs, goes_on
        self.performed = 0

    @property
    def has_failed(self) -> bool:
        return self.performed > self._at

    def perform(self, operation: Operation[T]) -> T:
        number = self.performed
        self.performed += 1
        if number == self._at or (number > self._at and not self._goes_on):
            if self._performs and number == self._at:
                self._store.perform(operation)
            raise self._error()
        return self._store.perform(operation)

    def close(self) -> None:
        pass


def lost_reply() -> StoreUnavailable:
    return StoreUnavailable("No reply came.", may_have_landed=True)


class LaggingStore(Store):
    """Another store, whose reads of the end of a conversation lag behind by one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before: dict[str, Tail] = {}

    def perform(self, operation: Operation[T]) -> T:
        result = self._store.perform(operation)
        if isinstance(operation, ReadTail):
            tail = cast(Tail, result)
            before = self._before.get(operation.conversation_id, tail)
            self._before[operation.conversation_id] = tail
            return cast(T, before)
        return result

    def close(self) -> None:
        pass


class ReplacedStore(Store):
    """Another store, which may be replaced: TTL and a day can leave an empty one."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def perform(self, operation: Operation[T]) -> T:
        return self.store.perform(operation)

    def close(self) -> None:
        pass


class InterruptedStore(Store):
    """Another store, during which something else happens once.

    Args:
        store: The other store.
        before: The types of operations; it happens before the first of these.
        interrupt: Does it.
    """

    def __init__(
        self,
        store: Store,
        before: type[Operation[Any]] | tuple[type[Operation[Any]], ...],
        interrupt: Callable[[], object],
    ) -> None:
        self._store, self._before = store, before
        self._interrupt: Callable[[], object] | None = interrupt

    def perform(self, operation: Operation[T]) -> T:
        if self._interrupt is not None and isinstance(operation, self._before):
            interrupt, self._interrupt = self._interrupt, None
            interrupt()
        return self._store.perform(operation)

    def close(self) -> None:
        pass
