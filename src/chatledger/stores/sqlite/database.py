"""An SQLite file that many threads use: one writes, several read, and a fork leaves it intact."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Semaphore
from typing import TypeVar
from weakref import WeakSet

from chatledger.errors import StoreUnavailable
from chatledger.stores.sqlite.connection import File, Identity, creating, roll_back
from chatledger.stores.sqlite.writer import Operation, Writer

T = TypeVar("T")

MAX_READERS = 8
"""How many reads run at once; further ones wait."""


class Database:
    """A file, its connection that writes, and those that read.

    A read sees one state of the file, with every write that was acknowledged before it, and waits
    for no writer.

    Args:
        path: The file; ``:memory:`` keeps everything in this object.
        timeout: The seconds that an operation waits for its turn.
    """

    def __init__(self, path: str, *, timeout: float) -> None:
        self._file = File(path, timeout=timeout)
        self._timeout = timeout
        self.is_closed = False
        self.writer = Writer(self._file, timeout=timeout)
        self._reset_readers()
        _databases.add(self)

    def write(self, operation: Operation[T]) -> T:
        """Return the operation's result once its changes are on the disk."""
        return self.writer.run(operation)

    def read(self, operation: Operation[T]) -> T:
        """Return the operation's result; it must not write."""
        if self._file.is_memory:
            return self.writer.run(operation)  # a database in memory has but one connection
        opened = self._file.identity
        try:
            return self._read(operation)
        except StoreUnavailable:
            if self._file.identity == opened and not self._file.has_replacement():
                raise
        self.writer.run(_do_nothing)  # unless it has done so, the writer opens the other file
        return self._read(operation)

    def _read(self, operation: Operation[T]) -> T:
        with self._reader() as db, self._file.translate_errors():
            try:
                db.execute("BEGIN")
                return operation(db)
            finally:
                roll_back(db)

    def close(self) -> None:
        """Finish the queued writes, and close the file."""
        self.is_closed = True
        self._close_idle()
        self.writer.close()

    def pause(self) -> None:
        """Close the file, and keep it closed until ``resume``."""
        self.writer.in_use.acquire()
        for _ in range(MAX_READERS):
            self._free.acquire()
        if not self._file.is_memory:
            self._close_idle()
            self.writer.disconnect()

    def resume(self) -> None:
        """Allow the file to be used after ``pause``; the next use opens it again."""
        self._free.release(MAX_READERS)
        self.writer.in_use.release()

    def restart(self) -> None:
        """Allow the file to be used after ``pause`` in a child of a fork.

        The parent's threads do not exist there, but locks that they held are still locked.
        """
        self._reset_readers()
        self.writer.restart()

    def _reset_readers(self) -> None:
        self._free = Semaphore(MAX_READERS)
        self._idle: list[tuple[Identity | None, sqlite3.Connection]] = []

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        if not self._free.acquire(timeout=self._timeout):
            raise StoreUnavailable(
                f"{self._file.label} was busy with other reads for too long; try again."
            )
        try:
            if self.is_closed:
                raise self.writer.closed()
            identity, db = self._take_reader()
            try:
                self._file.check_identity(identity)
                yield db
            finally:
                self._idle.append((identity, db))
                if self.is_closed:  # meanwhile
                    self._close_idle()
        finally:
            self._free.release()

    def _take_reader(self) -> tuple[Identity | None, sqlite3.Connection]:
        """Return a connection that reads, and the identity of its file."""
        with suppress(IndexError):
            while True:
                identity, db = self._idle.pop()
                if identity == self._file.identity:
                    return identity, db
                db.close()  # its file was replaced
        return self._file.identity, self._file.connect()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop()[1].close()


def _do_nothing(db: sqlite3.Connection) -> None:
    """Change nothing, in a transaction."""


# SQLite also keeps its locks in the memory of the process. A child that inherited an open file
# would believe that it holds its parent's locks, and its writes would be lost together with the
# log, which the parent removes when it closes the file
# (https://www.sqlite.org/howtocorrupt.html, section 2.6). So every file is closed during a fork.
_databases: WeakSet[Database] = WeakSet()
_fork_lock = Lock()
_paused: list[Database] = []


def _before_fork() -> None:
    _fork_lock.acquire()
    creating.acquire()
    _paused.extend(_databases)
    for database in _paused:
        database.pause()


def _after_fork_in_parent() -> None:
    for database in _paused:
        database.resume()
    _end_fork()


def _after_fork_in_child() -> None:
    for database in _paused:
        database.restart()
    _end_fork()


def _end_fork() -> None:
    _paused.clear()
    creating.release()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
