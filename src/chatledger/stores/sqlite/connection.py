"""Connections to an SQLite file: how it is opened, and SQLite's errors as Chatledger's own."""

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from chatledger.errors import DiskFull, StoreMismatch, StoreUnavailable
from chatledger.stores.sqlite.layout import is_current, migrate

MEMORY = ":memory:"
LOG_SUFFIXES = ("-wal", "-shm")
"""The endings of the paths of a file's write-ahead log and of the index of that log."""
MAX_LOG_BYTES = 64 * 1024 * 1024
"""The size to which SQLite cuts the write-ahead log once its content is in the file."""

LOG_CHECK_SECONDS = 1.0
"""The seconds between two checks that the log is still there. What is written without it is lost
only if the process crashes."""

Identity = tuple[int, int]
"""The device and inode of a file."""

creating = Lock()
"""Held while a file is created: closing a file gives up all locks that this process has on it
(https://www.sqlite.org/howtocorrupt.html, section 2.2), so nobody may open it meanwhile."""


class File:
    """A path, and the file that was there when it was last opened to write.

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
        self.identity: Identity | None = None
        self._next_log_check = 0.0
        self._log: list[Identity | None] | None = None

    def connect(self, *, writable: bool = False) -> sqlite3.Connection:
        """Open the file; if ``writable``, first create or migrate it where that is needed.

        Only a connection that is ``writable`` opens a file that has replaced the earlier one, once
        ``release_log`` has made sure that the earlier one's log is not applied to it.
        """
        if self.identity is None and not self.is_memory:
            _create(self.path)
        found = self._read_identity()
        is_replacement = writable and found is not None and self._log is None
        if self.identity not in (None, found) and not is_replacement:
            raise self._removed()  # SQLite would create a file that was removed
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
                db.execute("PRAGMA user_version").fetchone()  # the first read makes the log
            if self._read_identity() != found:
                raise self._removed()
            if writable and not self.is_memory:
                self.identity = found
                self._log = self._read_log()
        except BaseException:
            db.close()
            raise
        return db

    def has_replacement(self) -> bool:
        """Return whether the path names another file than the one that was opened."""
        return self.identity is not None and self._read_identity() not in (None, self.identity)

    def check_identity(self, opened: Identity | None) -> None:
        """Raise ``StoreUnavailable`` if the path no longer names the file that was ``opened``.

        It is also raised if the file has lost its log.
        """
        if opened is None:
            return
        if self._read_identity() != opened:
            raise self._removed()
        log, now = self._log, time.monotonic()
        if log is None or now < self._next_log_check:
            return
        if self._read_log() != log:
            raise StoreUnavailable(
                f"{self.label} has lost its -wal or -shm file while the store was open; nothing "
                "was written. Open the store again."
            )
        self._next_log_check = now + LOG_CHECK_SECONDS

    def release_log(self, db: sqlite3.Connection) -> None:
        """Keep the log of a file that was removed or replaced from being applied to another one.

        SQLite finds a log by its path. What the log contains is first written to the file, which
        may have been renamed. If the file has not moved, closing it does all this.

        Args:
            db: A connection that writes to the file. As long as it is open, no other file can have
                the identity of the log.
        """
        if self._log is not None and self._read_identity() != self.identity:
            with self.translate_errors():
                self._write_log_to_file(db)
            try:
                with _locked_folder(self.path):
                    for suffix, identity in zip(LOG_SUFFIXES, self._log, strict=True):
                        if self._read_identity(suffix) == identity is not None:
                            os.unlink(self.path + suffix)
            except OSError as failed:
                raise StoreUnavailable(
                    f"{self.label} was replaced, but its -wal and -shm files cannot be removed "
                    f"({failed.strerror}); stop all programs that use it, and remove them."
                ) from failed
        self._log = None

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
            if has_code(failed, sqlite3.SQLITE_FULL):
                return DiskFull(
                    f"{self.label} cannot grow: the disk is full. Nothing was written; free some "
                    "space."
                )
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

    def _write_log_to_file(self, db: sqlite3.Connection) -> None:
        # Other processes may be doing the same; SQLite does not apply the timeout to that.
        deadline = time.monotonic() + self._timeout
        while db.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]:  # it is busy
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"{self.label} {_REASON_BY_CODE[sqlite3.SQLITE_BUSY]}")
            time.sleep(0.01)

    def _removed(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.label} was removed or replaced while the store was open; nothing was written. "
            "Restore it from a backup, or open the store again."
        )

    def _read_identity(self, suffix: str = "") -> Identity | None:
        try:
            status = os.stat(self.path + suffix)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _read_log(self) -> list[Identity | None]:
        return [self._read_identity(suffix) for suffix in LOG_SUFFIXES]

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


@contextmanager
def _locked_folder(path: str) -> Iterator[None]:
    """Hold the lock with which one process at a time removes the log of an earlier file."""
    if sys.platform == "win32":  # open files cannot be replaced there
        yield
        return
    import fcntl

    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _primary_code(failed: sqlite3.Error) -> int:
    # An extended result code carries its primary one in the low byte.
    return getattr(failed, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
