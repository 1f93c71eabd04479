"""Conversations in one local SQLite file."""

from recollect.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
