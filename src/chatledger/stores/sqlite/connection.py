"""Connections to an SQLite file: how it is opened, and SQLite's errors as Chatledger's own."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from chatledger.errors import StoreMismatch, StoreUnavailable
from chatledger.stores.sqlite.layout import is_current, migrate

MEMORY = ":memory:"
MAX_LOG_BYTES = 64 * 1024 * 1024
"""The size to which SQLite cuts the write-ahead log once its content is in the file."""

creating = Lock()
"""Held while a file is created: closing a file gives up all locks that this process has on it
(https://www.sqlite.org/howtocorrupt.html, section 2.2), so nobody may open it meanwhile."""


class File:
    """A path, and the file that was there when it was first opened.

    Args:
        path: The path; ``:memory:`` is a database in memory.
        timeout: The seconds that a connection waits for another process.
    """

    def __init__(self, path: str, *, timeout: float) -> None:
        self.is_memory = path == MEMORY
        # Absolute, because the file is opened again after a fork, and daemons change their working
        # directory.
        self.path = path if self.is_memory else os.path.abspath(path)
        self.label = "The in-memory store" if self.is_memory else f"The file {path!r}"
        self._timeout = timeout
        self._identity: tuple[int, int] | None = None

    def connect(self, *, writable: bool = False) -> sqlite3.Connection:
        """Open the file; if ``writable``, first create or migrate it where that is needed."""
        if self._identity is not None:
            self.check_identity()  # SQLite would create a file that was deleted
        elif not self.is_memory:
            _create(self.path)
        with self.translate_errors():
            db = sqlite3.connect(
                self.path,
                timeout=self._timeout,
                isolation_level=None,  # the module starts no transactions of its own
                check_same_thread=False,
            )
        try:
            with self.translate_errors():
                db.row_factory = sqlite3.Row
                if writable:
                    self._prepare(db)
                self._configure(db, writable=writable)
            if self._identity is None and not self.is_memory:
                self._identity = self._read_identity()
            self.check_identity()
        except BaseException:
            db.close()
            raise
        return db

    def check_identity(self) -> None:
        """Raise ``StoreUnavailable`` if the path no longer names the file that was opened."""
        if self._identity is not None and self._read_identity() != self._identity:
            raise StoreUnavailable(
                f"{self.label} was replaced or deleted while the store was open; nothing was "
                "written. Open the store again."
            )

    @contextmanager
    def translate_errors(self, *, committing: bool = False) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as failed:
            translated = self.translate(failed, committing=committing)
            if translated is None:
                raise
            raise translated from failed

    def translate(
        self, failed: sqlite3.Error, *, committing: bool = False
    ) -> StoreUnavailable | StoreMismatch | None:
        """Return the error as one of Chatledger's, or None if it is a mistake in Chatledger."""
        if isinstance(failed, sqlite3.OperationalError):
            reason = _REASON_BY_CODE.get(_primary_code(failed))
            if reason is not None:
                return StoreUnavailable(f"{self.label} {reason}")
            # A commit that failed for an unknown reason may still be on the disk.
            return StoreUnavailable(
                f"{self.label} could not be used: {failed}.", may_have_landed=committing
            )
        if has_code(failed, sqlite3.SQLITE_NOTADB):
            return StoreMismatch(f"{self.label} is not an SQLite database; name another file.")
        if has_code(failed, sqlite3.SQLITE_CORRUPT):
            return StoreUnavailable(
                f"{self.label} is damaged; restore it from a backup, "
                "or recover what is readable with the sqlite3 shell's .recover command."
            )
        return None

    def _read_identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _prepare(self, db: sqlite3.Connection) -> None:
        # In a transaction, because another process may be creating the file at this moment.
        with _transaction(db, "BEGIN"):
            current = is_current(db, self.label)
        self._use_write_ahead_log(db)
        if not current:
            with _transaction(db, "BEGIN IMMEDIATE"):
                migrate(db, self.label)

    def _configure(self, db: sqlite3.Connection, *, writable: bool) -> None:
        for pragma in (
            # An acknowledged write survives a power failure, not only the end of the process.
            "synchronous = FULL",
            # On macOS, a plain fsync does not reach the disk; elsewhere these have no effect.
            "fullfsync = ON",
            "checkpoint_fullfsync = ON",
            # Deleted text is overwritten. Builds of SQLite differ in the default.
            "secure_delete = ON",
            f"journal_size_limit = {MAX_LOG_BYTES}",
            f"query_only = {'OFF' if writable else 'ON'}",
            # The writer tries again by itself, so that a fork meanwhile need not wait for it.
            f"busy_timeout = {0 if writable else int(self._timeout * 1_000)}",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()

    def _use_write_ahead_log(self, db: sqlite3.Connection) -> None:
        # If two processes open a new file at once, one fails here: for this statement, SQLite does
        # not apply the timeout.
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as failed:
                if not has_code(failed, sqlite3.SQLITE_BUSY) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal" and not self.is_memory:
                raise StoreMismatch(
                    f"{self.label} cannot have a write-ahead log, because its file system has no "
                    f"shared memory (SQLite stayed in journal mode {mode!r}); use a local disk."
                )
            return


_REASON_BY_CODE = {
    sqlite3.SQLITE_BUSY: "stayed locked by another process; nothing was written. Try again.",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full. Nothing was written; free some space.",
    sqlite3.SQLITE_READONLY: "is not writable; nothing was written. Give write permission to "
    "the file and its folder (SQLite keeps two more files there).",
    sqlite3.SQLITE_CANTOPEN: "could not be opened; its folder must exist and be writable.",
}


def has_code(failed: sqlite3.Error, code: int) -> bool:
    """Return whether this is the error's primary result code."""
    return _primary_code(failed) == code


def roll_back(db: sqlite3.Connection) -> None:
    # Some errors, such as a full disk, have already rolled the transaction back.
    if db.in_transaction:
        db.execute("ROLLBACK")


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    try:
        db.execute(begin)
        yield
        db.execute("COMMIT")
    finally:
        roll_back(db)


def _create(path: str) -> None:
    """Create the file for its owner alone if there is none; SQLite's other files follow its mode.

    Errors are left to SQLite, which meets them again.
    """
    with creating, suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _primary_code(failed: sqlite3.Error) -> int:
    # An extended result code carries its primary one in the low byte.
    return getattr(failed, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
