"""The rows of entries: the SQL of their operations, within one transaction."""

import sqlite3
from typing import NamedTuple

from chatledger.conversations import MAX_READ_BYTES
from chatledger.entries import MAX_ENTRY_NAME_BYTES, Entry
from chatledger.values import loads, to_datetime

IS_UNEXPIRED = "(expires_at IS NULL OR expires_at > :time)"
"""The SQL condition for an entry that has not expired by itself."""


class Scope(NamedTuple):
    """The conversation or owner whose entries are meant: a column, and its value."""

    column: str
    value: int | str


class EntryRows:
    """The reads and writes of entries in one transaction, whose time is ``time`` (ms)."""

    def __init__(self, db: sqlite3.Connection, time: int) -> None:
        self._db = db
        self._time = time

    def find(self, scope: Scope, name: str) -> Entry | None:
        """Return the entry, or None."""
        row = self._db.execute(
            f"SELECT * FROM entries WHERE {scope.column} = :scope AND name = :name"
            f" AND {IS_UNEXPIRED}",
            {"scope": scope.value, "name": name, "time": self._time},
        ).fetchone()
        return None if row is None else _entry_from(row)

    def between(
        self, scope: Scope, *, prefix: str, after: str | None, limit: int
    ) -> tuple[list[Entry], bool]:
        """Return entries whose names begin with ``prefix``, and whether there are more of them.

        Args:
            scope: Whose entries.
            prefix: The beginning of their names.
            after: Only names after this one.
            limit: The most entries to return; fewer if they would exceed ``MAX_READ_BYTES``.
        """
        found: list[Entry] = []
        most_bytes = MAX_READ_BYTES
        # Names are compared byte by byte: no longer name begins with the prefix.
        for row in self._db.execute(
            f"SELECT * FROM entries WHERE {scope.column} = :scope AND name BETWEEN :prefix AND :end"
            f" AND name > :after AND {IS_UNEXPIRED} ORDER BY name LIMIT :limit",
            {
                "scope": scope.value,
                "prefix": prefix,
                "end": prefix + "\U0010ffff" * (MAX_ENTRY_NAME_BYTES // 4),
                "after": after or "",
                "time": self._time,
                "limit": limit + 1,
            },
        ):
            most_bytes -= len(row["value"].encode())
            if len(found) == limit or (found and most_bytes < 0):
                return found, True
            found.append(_entry_from(row))
        return found, False

    def put(
        self, scope: Scope, name: str, value: str, *, former: Entry | None, expires_at: int | None
    ) -> Entry:
        """Set the entry to ``value`` (JSON), in place of ``former``; return it."""
        revision = self._next_revision() if former is None else former.revision + 1
        self._save_last_revision(revision)
        self.free_expired(2)  # more than was added, so that a file that nobody sweeps stays small
        row = self._db.execute(
            f"INSERT OR REPLACE INTO entries"
            f" ({scope.column}, name, value, revision, updated_at, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
            (scope.value, name, value, revision, self._time, expires_at),
        ).fetchone()
        return _entry_from(row)

    def delete(self, scope: Scope, name: str) -> None:
        """Delete the entry."""
        self._db.execute(
            f"DELETE FROM entries WHERE {scope.column} = ? AND name = ?", (scope.value, name)
        )

    def copy(self, source: Scope, target: Scope) -> None:
        """Copy all entries of ``source`` to ``target``, which has none."""
        first = self._next_revision()
        copied = self._db.execute(
            f"INSERT INTO entries ({target.column}, name, value, revision, updated_at, expires_at)"
            " SELECT :target, name, value, :first + row_number() OVER (ORDER BY name) - 1, :time,"
            f" expires_at FROM entries WHERE {source.column} = :source AND {IS_UNEXPIRED}",
            {"target": target.value, "first": first, "time": self._time, "source": source.value},
        ).rowcount
        if copied:
            self._save_last_revision(first + copied - 1)

    def free(self, scope: Scope, limit: int) -> int:
        """Delete at most ``limit`` entries; return how many."""
        return self._db.execute(
            "DELETE FROM entries WHERE rowid IN"
            f" (SELECT rowid FROM entries WHERE {scope.column} = ? LIMIT ?)",
            (scope.value, limit),
        ).rowcount

    def free_expired(self, limit: int) -> int:
        """Delete at most ``limit`` entries that have expired by themselves; return how many."""
        return self._db.execute(
            "DELETE FROM entries WHERE rowid IN"
            " (SELECT rowid FROM entries WHERE expires_at <= ? LIMIT ?)",
            (self._time, limit),
        ).rowcount

    def _next_revision(self) -> int:
        """Return the revision of a new entry: higher than any that an entry of the file has had."""
        last: int = self._db.execute("SELECT last FROM entry_revisions").fetchone()[0]
        return max(self._time, last + 1)

    def _save_last_revision(self, revision: int) -> None:
        self._db.execute("UPDATE entry_revisions SET last = max(last, ?)", (revision,))


def _entry_from(row: sqlite3.Row) -> Entry:
    expires_at = row["expires_at"]
    return Entry(
        name=row["name"],
        value=loads(row["value"]),
        revision=row["revision"],
        updated_at=to_datetime(row["updated_at"]),
        expires_at=None if expires_at is None else to_datetime(expires_at),
    )
