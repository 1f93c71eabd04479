"""One connection to one file: transactions, and SQLite's errors in our words."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from recollect.errors import StoreMismatch, StoreUnavailable
from recollect.stores.sqlite.layout import is_current, migrate

MEMORY = ":memory:"

# SQLite forbids a child process to use, or even close, a connection that it inherited by fork
# (https://www.sqlite.org/howtocorrupt.html, 2.6); kept here they are never closed.
_inherited: list[sqlite3.Connection] = []


class Connection:
    """A file opened for reading and writing by any number of threads, one at a time."""

    def __init__(self, path: str, *, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._place = "The in-memory store" if path == MEMORY else f"The file {path!r}"
        self._closed = False
        self._open()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the file, whoever writes meanwhile."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk, whole, once the block has ended without an error."""
        # IMMEDIATE: a lock that is only asked for at the first write can fail for good when
        # another process wrote in between.
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._db.close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        if os.getpid() != self._process and self._path != MEMORY:
            _inherited.append(self._db)
            self._open()
        with self._lock:
            if self._closed:
                raise StoreUnavailable(f"{self._place} was closed; open the store again.")
            with self._translated():
                self._db.execute(begin)
            try:
                with self._translated():
                    yield self._db
                with self._translated(committing=True):
                    self._db.execute("COMMIT")
            finally:
                # Some errors, a full disk among them, have rolled back already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _open(self) -> None:
        self._process = os.getpid()
        self._lock = Lock()
        with self._translated():
            self._db = sqlite3.connect(
                self._path,
                timeout=self._timeout,
                isolation_level=None,  # transactions are begun and ended here, by name
                check_same_thread=False,
            )
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.row_factory = sqlite3.Row
        current = is_current(self._db, self._place)
        self._use_write_ahead_log()
        # FULL: what was acknowledged survives a loss of power, not only of the process.
        self._db.execute("PRAGMA synchronous = FULL")
        if not current:
            with self.writing() as db:
                migrate(db, self._place)

    def _use_write_ahead_log(self) -> None:
        # Two processes that open a new file at once collide here, and SQLite does not wait.
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as failed:
                if not _is(failed, sqlite3.SQLITE_BUSY) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextmanager
    def _translated(self, *, committing: bool = False) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as failed:
            reason = _REASONS.get(_primary(failed))
            if reason is None:
                # A commit that failed in an unknown way may be on the disk all the same.
                raise StoreUnavailable(
                    f"{self._place} could not be used: {failed}.", may_have_landed=committing
                ) from failed
            raise StoreUnavailable(f"{self._place} {reason}") from failed
        except sqlite3.DatabaseError as failed:
            if _is(failed, sqlite3.SQLITE_NOTADB):
                raise StoreMismatch(
                    f"{self._place} is not an SQLite database; name another file."
                ) from failed
            if _is(failed, sqlite3.SQLITE_CORRUPT):
                raise StoreUnavailable(
                    f"{self._place} is damaged; restore it from a backup, "
                    "or save what can be read with the sqlite3 shell's .recover."
                ) from failed
            raise


_REASONS = {
    sqlite3.SQLITE_BUSY: "stayed locked by another process; nothing was written. Try again.",
    sqlite3.SQLITE_FULL: "has no room: the disk is full. Nothing was written; free some space.",
    sqlite3.SQLITE_READONLY: "may not be written to; nothing was. Give write permission to the "
    "file and its folder (SQLite keeps two more files beside it).",
    sqlite3.SQLITE_CANTOPEN: "could not be opened; its folder must exist and be writable.",
}


def _primary(failed: sqlite3.Error) -> int:
    # An extended result code carries its primary one in the low byte.
    return getattr(failed, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _is(failed: sqlite3.Error, code: int) -> bool:
    return _primary(failed) == code
