"""Conversations in one local SQLite file."""

from typing import TYPE_CHECKING

from chatledger.stores.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from chatledger.stores.sqlite.aio import AsyncSQLiteStore

__all__ = ["AsyncSQLiteStore", "SQLiteStore"]


def __getattr__(name: str) -> object:
    # Imported on first use, because callers that block need no asyncio.
    if name == "AsyncSQLiteStore":
        from chatledger.stores.sqlite.aio import AsyncSQLiteStore

        return AsyncSQLiteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
