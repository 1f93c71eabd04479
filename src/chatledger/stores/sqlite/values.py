"""What the rows of a file say, as callers see it."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta

from chatledger.conversations import Conversation
from chatledger.stores.cursors import encode_cursor


def conversation(row: sqlite3.Row) -> Conversation:
    """The row as callers see it."""
    return Conversation(
        id=row["id"],
        owner=row["owner"],
        title=row["title"],
        metadata=json.loads(row["metadata"]),
        created_at=_moment(row["created_at"]),
        updated_at=_moment(row["updated_at"]),
        message_count=row["message_count"],
        revision=row["revision"],
        expires_at=None if row["expires_at"] is None else _moment(row["expires_at"]),
    )


def cursor_at(row: sqlite3.Row) -> str:
    """The cursor for what lies behind the row in its owner's list."""
    return encode_cursor(row["updated_at"], row["id"])


def scan_cursor_at(row: sqlite3.Row) -> str:
    """The cursor for what lies behind the row in a scan; without an id, unlike a list's."""
    return encode_cursor(row["number"], "")


def milliseconds(time: datetime | timedelta) -> int:
    """A moment as ms since 1970, or a stretch of time as ms."""
    since = time - _EPOCH if isinstance(time, datetime) else time
    return since // timedelta(milliseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(time: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=time)
