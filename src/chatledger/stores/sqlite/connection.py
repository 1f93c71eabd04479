"""One connection to one file: transactions, and SQLite's errors in our words."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from weakref import WeakSet

from chatledger.errors import StoreMismatch, StoreUnavailable
from chatledger.stores.sqlite.layout import is_current, migrate

MEMORY = ":memory:"


class Connection:
    """A file opened for reading and writing by any number of threads, one at a time."""

    def __init__(self, path: str, *, timeout: float) -> None:
        # A file is opened again after a fork, and daemons change their folder behind one.
        self._path = path if path == MEMORY else os.path.abspath(path)
        self._timeout = timeout
        self._place = "The in-memory store" if path == MEMORY else f"The file {path!r}"
        self._closed = False
        self._lock = Lock()
        self._db: sqlite3.Connection | None = None
        _connections.add(self)
        with self._lock:
            self._db = self._open()

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
            self._closed = True
            if self._db is not None:
                self._db.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody uses the file, and it is not open; the next use opens it again."""
        with self._lock:
            if self._db is not None and self._path != MEMORY:
                self._db.close()
                self._db = None
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise StoreUnavailable(f"{self._place} was closed; open the store again.")
            if self._db is None:
                self._db = self._open()
            with self._running(self._db, begin):
                yield self._db

    @contextmanager
    def _running(self, db: sqlite3.Connection, begin: str) -> Iterator[None]:
        try:
            with self._translated():
                db.execute(begin)
                yield
            with self._translated(committing=True):
                db.execute("COMMIT")
        finally:
            # Some errors, a full disk among them, have rolled back already.
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        with self._translated():
            db = sqlite3.connect(
                self._path,
                timeout=self._timeout,
                isolation_level=None,  # transactions are begun and ended here, by name
                check_same_thread=False,
            )
        try:
            with self._translated():
                self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.row_factory = sqlite3.Row
        # One state of the file: another process may be making it at this moment.
        with self._running(db, "BEGIN"):
            current = is_current(db, self._place)
        self._use_write_ahead_log(db)
        # FULL: what was acknowledged survives a loss of power, not only of the process.
        db.execute("PRAGMA synchronous = FULL")
        if not current:
            with self._running(db, "BEGIN IMMEDIATE"):
                migrate(db, self._place)

    def _use_write_ahead_log(self, db: sqlite3.Connection) -> None:
        # Two processes that open a new file at once collide here, and SQLite does not wait.
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
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


# SQLite keeps its locks in the memory of the process too. A child that inherited an open file would
# believe it held its parent's, and what it wrote would be gone with the log that the parent removes
# when it closes (https://www.sqlite.org/howtocorrupt.html, 2.6). So no file is open during a fork.
_connections: WeakSet[Connection] = WeakSet()
_one_fork_at_a_time = Lock()
_paused = ExitStack()


def _before_fork() -> None:
    _one_fork_at_a_time.acquire()
    for connection in list(_connections):
        _paused.enter_context(connection.paused())


def _after_fork() -> None:
    _paused.close()
    _one_fork_at_a_time.release()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
