"""Rows of the file as the values that callers see."""

import json
import sqlite3

from chatledger.conversations import Conversation
from chatledger.stores.cursors import encode_cursor
from chatledger.stores.idempotency import Creation
from chatledger.stores.times import to_datetime


def conversation_from(row: sqlite3.Row) -> Conversation:
    """Return the conversation in the row."""
    return Conversation(
        id=row["id"],
        owner=row["owner"],
        title=row["title"],
        metadata=json.loads(row["metadata"]),
        created_at=to_datetime(row["created_at"]),
        updated_at=to_datetime(row["updated_at"]),
        message_count=row["message_count"],
        revision=row["revision"],
        expires_at=None if row["expires_at"] is None else to_datetime(row["expires_at"]),
        metadata_revision=row["metadata_revision"],
    )


def creation_of(row: sqlite3.Row) -> Creation | None:
    """Return the creation of the conversation in the row, if it was created with a key."""
    return None if row["created_by"] is None else Creation(*json.loads(row["created_by"]))


def list_cursor(row: sqlite3.Row) -> str:
    """Return the cursor that continues after the row in its owner's list."""
    return encode_cursor(row["updated_at"], row["id"])


def scan_cursor(row: sqlite3.Row) -> str:
    """Return the cursor that continues after the row in a scan; unlike a list's, it has no id."""
    return encode_cursor(row["number"], "")
