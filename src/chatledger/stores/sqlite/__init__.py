"""Conversations in one local SQLite file."""

from chatledger.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
