"""A store with faults, and a clock that tests advance."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from chatledger.errors import StoreUnavailable
from chatledger.stores.contract import AsyncStore

Action: TypeAlias = Callable[[], Awaitable[object]]


class WatchedStore:
    """A store that counts its calls and may run an action before or after any of them.

    An action's error is raised by the call; after the call it stands for a lost response.
    """

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._actions: dict[tuple[str, int, bool], Action] = {}
        self.calls: list[str] = []
        """The calls that returned."""
        self.requests: list[str] = []
        """The calls that were made."""
        self._returned = asyncio.Condition()

    def before(self, operation: str, n: int, action: Action) -> None:
        """Run the action before the ``n``-th call of the operation, or before each if 0."""
        self._actions[operation, n, True] = action

    def after(self, operation: str, n: int, action: Action) -> None:
        """Run the action after the ``n``-th call of the operation, or after each if 0."""
        self._actions[operation, n, False] = action

    def fail(self, operation: str, n: int) -> None:
        """Let the ``n``-th call of the operation fail, or each if 0."""
        self.before(operation, n, _raise_unavailable)

    def lose_response(self, operation: str, n: int) -> None:
        """Lose the response to the ``n``-th call of the operation."""
        self.after(operation, n, _lose_response)

    def clear_actions(self) -> None:
        self._actions.clear()

    async def wait_for_calls(self, operation: str, count: int) -> None:
        """Wait until that many calls of the operation have returned."""
        async with self._returned:
            enough = self._returned.wait_for(lambda: self.calls.count(operation) >= count)
            await asyncio.wait_for(enough, 20)

    @property
    def clock_difference(self) -> timedelta:
        return self._store.clock_difference

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            self.requests.append(name)
            n = self.requests.count(name)
            await self._run_action(name, n, before=True)
            result = await operation(*args, **options)
            await self._run_action(name, n, before=False)
            async with self._returned:
                self.calls.append(name)
                self._returned.notify_all()
            return result

        return call

    async def _run_action(self, name: str, n: int, *, before: bool) -> None:
        action = self._actions.get((name, n, before)) or self._actions.get((name, 0, before))
        if action is not None:
            await action()


async def _raise_unavailable() -> None:
    raise StoreUnavailable("The store is down.", may_have_landed=False)


async def _lose_response() -> None:
    raise StoreUnavailable("The response was lost.", may_have_landed=True)


class FakeTime:
    """A clock and a timer that a test advances."""

    def __init__(self) -> None:
        self._start = datetime.now(UTC).timestamp()
        self._passed = 0.0

    def advance(self, seconds: float) -> None:
        self._passed += seconds

    def clock(self) -> int:
        return round((self._start + self._passed) * 1000)

    def timer(self) -> float:
        return self._passed
