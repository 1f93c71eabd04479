"""Store locations: the parsed form of a store's URL, and how to open the store there."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from chatledger.errors import InvalidArgument
from chatledger.extras import missing_package_error
from chatledger.stores.contract import AsyncStore, Store

Clock = Callable[[], datetime]


class Location(Protocol):
    """A place where a store can be opened.

    The argument ``expire_after`` applies only if the location itself does not set a lifetime.
    """

    def open(self, *, expire_after: timedelta | None, clock: Clock) -> Store: ...

    def open_async(self, *, expire_after: timedelta | None, clock: Clock) -> AsyncStore: ...


@dataclass(frozen=True, slots=True)
class SQLiteLocation:
    """The path of an SQLite file, or ``:memory:``."""

    path: str
    expire_after: timedelta | None = None

    # Imports are within the methods: users of DynamoDB need neither sqlite3 nor asyncio.
    def open(self, *, expire_after: timedelta | None, clock: Clock) -> Store:
        from chatledger.stores.sqlite import SQLiteStore

        return SQLiteStore(self.path, expire_after=self.expire_after or expire_after, clock=clock)

    def open_async(self, *, expire_after: timedelta | None, clock: Clock) -> AsyncStore:
        from chatledger.stores.sqlite import AsyncSQLiteStore

        return AsyncSQLiteStore(
            self.path, expire_after=self.expire_after or expire_after, clock=clock
        )


@dataclass(frozen=True, slots=True)
class DynamoDBLocation:
    """A DynamoDB table, with the options of its URL."""

    table: str
    region: str | None = None
    endpoint: str | None = None
    expire_after: timedelta | None = None
    consistent: bool = True
    patience: timedelta | None = None
    cleanup: timedelta | None = None

    def open(self, *, expire_after: timedelta | None, clock: Clock) -> Store:
        try:
            from chatledger.stores.dynamodb.factory import open_dynamodb_store
        except ModuleNotFoundError as missing:
            raise _not_installed(missing, "dynamodb") from missing
        return open_dynamodb_store(self.table, **self._options(expire_after, clock))

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
        if self.cleanup is not None:
            options["cleanup"] = self.cleanup.total_seconds()
        return options


def _not_installed(missing: ModuleNotFoundError, extra: str) -> InvalidArgument:
    return InvalidArgument(missing_package_error("A store in DynamoDB", missing, extra))
