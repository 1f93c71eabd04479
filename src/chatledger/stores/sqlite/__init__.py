"""Conversations in one local SQLite file."""

from typing import TYPE_CHECKING

from chatledger.extras import import_on_first_use
from chatledger.stores.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from chatledger.stores.sqlite.aio import AsyncSQLiteStore

__all__ = ["AsyncSQLiteStore", "SQLiteStore"]


# Imported on first use, because callers that block need no asyncio.
__getattr__ = import_on_first_use(__name__, {"AsyncSQLiteStore": ".aio"}, extras={})


def __dir__() -> list[str]:
    return __all__
