"""Where a store can be: what a URL names, and how to open what is there."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from chatledger.errors import InvalidArgument
from chatledger.stores.contract import AsyncStore, Store

Clock = Callable[[], datetime]


class Place(Protocol):
    """``expire_after`` is for where the place itself does not say."""

    def open(self, *, expire_after: timedelta | None, clock: Clock) -> Store: ...

    def open_async(self, *, expire_after: timedelta | None, clock: Clock) -> AsyncStore: ...


@dataclass(frozen=True, slots=True)
class SQLitePlace:
    path: str
    expire_after: timedelta | None = None

    # Only now: whoever uses another place needs neither sqlite3 nor asyncio.
    def open(self, *, expire_after: timedelta | None, clock: Clock) -> Store:
        from chatledger.stores.sqlite import SQLiteStore

        return SQLiteStore(self.path, expire_after=self.expire_after or expire_after, clock=clock)

    def open_async(self, *, expire_after: timedelta | None, clock: Clock) -> AsyncStore:
        from chatledger.stores.threads import ThreadedStore

        # More threads than one, so that readers need not wait for writers.
        return ThreadedStore(self.open(expire_after=expire_after, clock=clock), threads=8)


@dataclass(frozen=True, slots=True)
class DynamoDBPlace:
    table: str
    region: str | None = None
    endpoint: str | None = None
    expire_after: timedelta | None = None
    consistent: bool = True
    patience: timedelta | None = None

    def open(self, *, expire_after: timedelta | None, clock: Clock) -> Store:
        try:
            from chatledger.stores.dynamodb.factory import open_store
        except ModuleNotFoundError as missing:
            raise _not_installed(missing, "dynamodb") from missing
        return open_store(self.table, **self._options(expire_after, clock))

    def open_async(self, *, expire_after: timedelta | None, clock: Clock) -> AsyncStore:
        try:
            from chatledger.stores.dynamodb.aio import AsyncDynamoDBStore
        except ModuleNotFoundError as missing:
            raise _not_installed(missing, "async") from missing
        return AsyncDynamoDBStore(self.table, **self._options(expire_after, clock))

    def _options(self, expire_after: timedelta | None, clock: Clock) -> dict[str, Any]:
        options: dict[str, Any] = {
            "region": self.region,
            "endpoint": self.endpoint,
            "expire_after": self.expire_after or expire_after,
            "consistent": self.consistent,
            "clock": clock,
        }
        if self.patience is not None:
            options["patience"] = self.patience.total_seconds()
        return options


def _not_installed(missing: ModuleNotFoundError, extra: str) -> InvalidArgument:
    return InvalidArgument(
        f"A store in DynamoDB needs {missing.name}; install it with "
        f"pip install 'chatledger[{extra}]'."
    )
