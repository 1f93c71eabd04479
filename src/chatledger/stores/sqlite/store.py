"""The SQLite store: conversations in one local file."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter, sleep
from typing import Any, TypeVar

from chatledger.errors import AlreadyExists, ChatledgerError, Conflict, StoreUnavailable
from chatledger.sansio import run
from chatledger.stores.contract import Store
from chatledger.stores.operations import CallOutcome, OnCall, Operation, StoreCall, report
from chatledger.stores.sqlite import plans
from chatledger.stores.sqlite.database import Database
from chatledger.stores.sqlite.plans import CLEANUP_SECONDS, Pause, Read, Settings, Step
from chatledger.stores.sqlite.rows import Rows
from chatledger.values import now

T = TypeVar("T")


class SQLiteStore(Store):
    """A store in an SQLite file, which is created if it does not exist.

    Any number of threads may share one store, and any number of processes one file. A write is on
    the disk when it returns.

    Args:
        path: The file; ``:memory:`` keeps everything in this object.
        expire_after: The lifetime of conversations that begin without one of their own; None means
            that they do not expire. It does not change conversations that exist.
        timeout: The seconds to wait while others write.
        cleanup: How long a write may spend on freeing space that is no longer needed, in seconds;
            later writes free the rest.
        clock: Returns the current time; tests pass their own.
        on_call: Called with a ``StoreCall`` after each transaction.

    Raises:
        StoreMismatch: The file is not a Chatledger store, was made by a later version, or is on a
            file system that SQLite cannot share between processes.
        StoreUnavailable: The file cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        expire_after: timedelta | None = None,
        timeout: float = 10.0,
        cleanup: float = CLEANUP_SECONDS,
        clock: Callable[[], datetime] = now,
        on_call: OnCall | None = None,
    ) -> None:
        self._on_call = on_call
        self._settings = Settings.checked(expire_after, cleanup, clock)
        self._database = Database(os.fspath(path), timeout=timeout)

    def perform(self, operation: Operation[T]) -> T:
        take_step = partial(self._take_step, type(operation).__name__)
        return run(plans.plan_for(operation, self._settings), take_step, catch=Exception)

    def check_writable(self) -> None:
        self._take_step("CheckWritable", Rows.rewrite_header)

    def close(self) -> None:
        self._database.close()

    def _take_step(self, operation: str, step: Step) -> Any:
        if isinstance(step, Pause):
            return sleep(step.seconds)
        with timed(self._on_call, operation):
            if isinstance(step, Read):
                read = partial(plans.perform, self._settings, step.transaction)
                return self._database.read(read)
            return self._database.write(partial(plans.perform, self._settings, step))


def timed(on_call: OnCall | None, operation: str) -> AbstractContextManager[None]:
    """Return a context for a transaction, which is reported to ``on_call``, if any."""
    return nullcontext() if on_call is None else _Timed(on_call, operation)


class _Timed:
    def __init__(self, on_call: OnCall, operation: str) -> None:
        self._on_call = on_call
        self._operation = operation

    def __enter__(self) -> None:
        self._started_at = perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and not isinstance(error, Exception):
            return  # the caller left, and the outcome is unknown
        outcome = _outcome(error)
        call = StoreCall(
            operation=self._operation,
            outcome=outcome,
            seconds=perf_counter() - self._started_at,
            error=None if outcome == "ok" else type(error).__name__,
        )
        report(self._on_call, call)


def _outcome(error: Exception | None) -> CallOutcome:
    match error:
        case Conflict() | AlreadyExists():
            return "conflict"
        case StoreUnavailable():
            return "failed"
        case None | ChatledgerError():  # such as NotFound, which is an answer
            return "ok"
    return "failed"
