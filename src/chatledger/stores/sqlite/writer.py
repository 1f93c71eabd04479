"""The thread that writes: it commits together what many callers have queued.

A commit waits for the disk, and one wait is enough for all writes that are ready. Each has a
savepoint of its own, so that an error undoes only its own changes, and each is acknowledged only
after the commit.
"""

import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from queue import Empty, SimpleQueue
from random import uniform
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any, TypeVar

from chatledger.errors import StoreMismatch, StoreUnavailable
from chatledger.stores.sqlite.connection import File, has_code, roll_back

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

MAX_TRANSACTION_SECONDS = 0.05
"""After this time, a transaction takes no further writes, so that nobody waits long for it."""
MAX_POLL_SECONDS = 0.02
"""How often the file is tried while another process writes; ``plans.PAUSE`` is longer."""
IDLE_SECONDS = 10.0
"""How long the thread stays without work. It ends after that, so that a store that was never closed
does not stay in memory; the next write starts another."""
GRACE_SECONDS = 1.0
"""How much longer than its own deadline a caller waits, so that the thread can tell the reason."""


class Write:
    """A write in the queue, and its outcome.

    Args:
        operation: What to do, within a transaction. It may be run again if the transaction was
            rolled back.
        timeout: The seconds after which it is given up if it has not begun.
        notify: Called in the writing thread when the outcome is known.
    """

    __slots__ = ("_claim", "_notify", "_result", "deadline", "error", "has_begun", "operation")

    def __init__(
        self, operation: Operation[Any], *, timeout: float, notify: Callable[[], None]
    ) -> None:
        self.operation = operation
        self.deadline = monotonic() + timeout
        self.has_begun = False
        self._notify = notify
        self._claim = Lock()
        self._result: Any = None
        self.error: BaseException | None = None

    def cancel(self) -> bool:
        """Return True if the write has not begun; then it never will."""
        return self._claim.acquire(blocking=False)

    def begin(self) -> bool:
        """Return False if the write was cancelled."""
        self.has_begun = self.has_begun or self._claim.acquire(blocking=False)
        return self.has_begun

    def run(self, db: sqlite3.Connection) -> None:
        """Run the operation; if it fails, only its own changes are undone."""
        self._result, self.error = None, None
        db.execute("SAVEPOINT one_write")
        try:
            self._result = self.operation(db)
        except BaseException as error:
            self.error = error
            if not db.in_transaction:
                return
            db.execute("ROLLBACK TO one_write")
        db.execute("RELEASE one_write")

    def finish(self, error: BaseException | None) -> None:
        """Make the outcome known: the error, or the result of the last ``run``."""
        self.error = error
        self._notify()

    def outcome(self) -> Any:
        """Return the result, or raise the error; for the caller, after ``notify``."""
        if self.error is None:
            return self._result
        try:
            raise self.error
        finally:
            self.error = None  # its traceback refers to this frame, and so to itself


class Writer:
    """The connection that writes, and the thread that uses it while there is something to write.

    Args:
        file: The file.
        timeout: The seconds that a write waits for its turn.
    """

    def __init__(self, file: File, *, timeout: float) -> None:
        self.in_use = Lock()
        """Held while the connection is used; never for longer than a transaction."""
        self.timeout = timeout
        self._file = file
        self._db: sqlite3.Connection | None = file.connect(writable=True)
        self._is_closed = False
        self._reset()

    def _reset(self) -> None:
        self._guard = Lock()  # of the queue, the thread and the flag
        self._queue: SimpleQueue[Write | None] = SimpleQueue()
        self._thread: Thread | None = None

    def run(self, operation: Operation[T]) -> T:
        """Return the operation's result once it is committed.

        Raises:
            StoreUnavailable: It was not committed, or not in time.
        """
        finished = Lock()
        finished.acquire()
        write = Write(operation, timeout=self.timeout, notify=finished.release)
        self.submit(write)
        try:
            if not finished.acquire(timeout=self.timeout + GRACE_SECONDS):
                if write.cancel():
                    raise self.not_begun()
                if not finished.acquire(timeout=self.timeout + GRACE_SECONDS):
                    raise self.unfinished()
        except BaseException:
            write.cancel()  # such as KeyboardInterrupt: nobody waits for it any longer
            raise
        result: T = write.outcome()
        return result

    def submit(self, write: Write) -> None:
        """Put the write in the queue."""
        with self._guard:
            if self._is_closed:
                raise self.closed()
            self._queue.put(write)
            if self._thread is not None:
                return
            self._thread = Thread(target=self._work, name="chatledger-sqlite", daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:  # the interpreter is ending, and starts no more threads
                self._thread = None
        self._work(idle=0)

    def close(self) -> None:
        """Finish the queued writes, and close the connection; nothing can be written afterwards."""
        with self._guard:
            self._is_closed = True
            thread = self._thread
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join(self.timeout + GRACE_SECONDS)
        if self.in_use.acquire(timeout=GRACE_SECONDS):
            self.disconnect()
            self.in_use.release()

    def disconnect(self) -> None:
        """Close the connection; the next write opens another. ``in_use`` must be held."""
        if self._db is not None:
            with suppress(StoreUnavailable):  # the next connection then refuses another file
                self._file.release_log(self._db)
            self._db.close()
            self._db = None

    def restart(self) -> None:
        """Begin without a thread and without a queue, in a child of a fork.

        The child has a copy of the queue but none of the parent's threads.
        """
        self.in_use = Lock()
        self._reset()

    def closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._file.label} was closed; open the store again.")

    def not_begun(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._file.label} was busy with other writes for too long; nothing was written. "
            "Try again."
        )

    def unfinished(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._file.label} did not finish the write in time; its disk may be stuck.",
            may_have_landed=True,
        )

    def _work(self, idle: float = IDLE_SECONDS) -> None:
        """Write what is queued until the store is closed, or nothing is queued for ``idle``."""
        waiting: deque[Write] = deque()
        while True:
            try:
                write = self._queue.get(timeout=idle)
            except Empty:
                with self._guard:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            if write is None:
                return
            waiting.append(write)
            del write  # nothing of it stays in memory while the thread waits
            delay = 0.001
            while waiting:
                if not self._write(waiting):
                    sleep(uniform(delay / 2, delay))  # noqa: S311
                    delay = min(delay * 2, MAX_POLL_SECONDS)

    def _write(self, waiting: deque[Write]) -> bool:
        """Write what waits and what is queued, in one transaction; False if the file is locked."""
        with self.in_use:
            try:
                if self._db is None:
                    self._db = self._file.connect(writable=True)
                self._db.execute("BEGIN IMMEDIATE")
            except Exception as failed:
                is_locked = isinstance(failed, sqlite3.Error) and has_code(
                    failed, sqlite3.SQLITE_BUSY
                )
                self._give_up(waiting, failed, only_late=is_locked)
                return not is_locked
            self._write_within(self._db, waiting)
            return True

    def _write_within(self, db: sqlite3.Connection, waiting: deque[Write]) -> None:
        written: list[Write] = []
        end = monotonic() + MAX_TRANSACTION_SECONDS
        try:
            while monotonic() < end and self._take(waiting):
                write = waiting.popleft()
                if not write.begin():
                    continue
                written.append(write)
                write.run(db)
                if not db.in_transaction:
                    # SQLite has rolled back everything. The others are written again without it.
                    written.pop()
                    write.finish(self._translate(write.error))
                    waiting.extendleft(reversed(written))
                    return
            self._file.check_identity(self._file.identity)
        except BaseException as failed:
            roll_back(db)
            if not self._file.has_replacement():
                self._fail(written, failed)
            elif self._release_log(db, written):
                self.disconnect()
                waiting.extendleft(reversed(written))  # they are written to the other file
            return
        try:
            db.execute("COMMIT")
        except sqlite3.Error as failed:
            roll_back(db)
            self._fail(written, failed, committing=True)
            return
        for write in written:
            write.finish(self._translate(write.error))

    def _release_log(self, db: sqlite3.Connection, written: list[Write]) -> bool:
        """Release the log of a file that was replaced; if that fails, fail the writes."""
        try:
            self._file.release_log(db)
        except StoreUnavailable as unavailable:
            self._fail(written, unavailable)
            return False
        return True

    def _take(self, waiting: deque[Write]) -> bool:
        """Move the next write from the queue if none waits; return False if there is none."""
        if waiting:
            return True
        try:
            write = self._queue.get_nowait()
        except Empty:
            return False
        if write is None:
            self._queue.put(None)  # nothing follows the end
            return False
        waiting.append(write)
        return True

    def _give_up(self, waiting: deque[Write], failed: Exception, *, only_late: bool) -> None:
        """Fail what waits and what is queued; if ``only_late``, what is past its deadline."""
        queued: list[Write | None] = []
        while not self._queue.empty():
            queued.append(self._queue.get())
        for write in queued:
            if write is None:
                self._queue.put(None)
            else:
                waiting.append(write)
        now = monotonic()
        given_up = [write for write in waiting if not only_late or write.deadline <= now]
        left = [write for write in waiting if only_late and write.deadline > now]
        waiting.clear()
        waiting.extend(left)
        self._fail([write for write in given_up if write.begin()], failed)

    def _fail(
        self, writes: list[Write], failed: BaseException, *, committing: bool = False
    ) -> None:
        for write in writes:
            write.finish(self._translate(failed, committing=committing))

    def _translate(
        self, failed: BaseException | None, *, committing: bool = False
    ) -> BaseException | None:
        """Return the error as one of Chatledger's; each call returns a new one.

        Raising an error changes it, so callers must not share one.
        """
        if isinstance(failed, sqlite3.Error):
            translated = self._file.translate(failed, committing=committing)
            if translated is not None:
                translated.__cause__ = failed
                return translated
        return copy(failed) if isinstance(failed, StoreUnavailable | StoreMismatch) else failed
