"""The SQLite store for async callers."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from chatledger.sansio import arun
from chatledger.stores.contract import AsyncStore
from chatledger.stores.operations import OnCall, Operation
from chatledger.stores.sqlite import plans
from chatledger.stores.sqlite.database import MAX_READERS, Database
from chatledger.stores.sqlite.plans import CLEANUP_SECONDS, Pause, Read, Settings, Step, Transaction
from chatledger.stores.sqlite.rows import Rows
from chatledger.stores.sqlite.store import timed
from chatledger.stores.sqlite.writer import GRACE_SECONDS, Write
from chatledger.values import now

T = TypeVar("T")


class AsyncSQLiteStore(AsyncStore):
    """A store in an SQLite file for async callers; otherwise the same as ``SQLiteStore``.

    Writes go from the event loop to the thread that writes, which commits together what many tasks
    have queued. Reads run in threads of their own.
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
        self._start_threads()

    async def perform(self, operation: Operation[T]) -> T:
        take_step = partial(self._take_step, type(operation).__name__)
        return await arun(plans.plan_for(operation, self._settings), take_step, catch=Exception)

    async def check_writable(self) -> None:
        await self._take_step("CheckWritable", Rows.rewrite_header)

    async def close(self) -> None:
        # In another thread than the store's own: after the first close, those accept no work.
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._database.close()
        self._threads.shutdown()

    def _start_threads(self) -> None:
        self._process = os.getpid()
        self._threads = ThreadPoolExecutor(MAX_READERS, thread_name_prefix="chatledger-sqlite")

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if os.getpid() != self._process:
            self._start_threads()  # this is a forked child, which does not inherit threads
        if self._database.is_closed:
            raise self._database.writer.closed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _take_step(self, operation: str, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        with timed(self._on_call, operation):
            if isinstance(step, Read):
                read = partial(plans.perform, self._settings, step.transaction)
                return await self._in_thread(partial(self._database.read, read))
            return await self._write(step)

    async def _write(self, transaction: Transaction[T]) -> T:
        """Return the transaction's result once its changes are on the disk."""
        loop = asyncio.get_running_loop()
        finished = loop.create_future()

        def notify() -> None:
            with suppress(RuntimeError):  # the loop was closed; nobody waits
                loop.call_soon_threadsafe(_finish, finished)

        writer = self._database.writer
        write = Write(
            partial(plans.perform, self._settings, transaction),
            timeout=writer.timeout,
            notify=notify,
        )
        writer.submit(write)
        try:
            await asyncio.wait([finished], timeout=writer.timeout + GRACE_SECONDS)
            if not finished.done():
                if write.cancel():
                    raise writer.not_begun()
                await asyncio.wait([finished], timeout=writer.timeout + GRACE_SECONDS)
                if not finished.done():
                    raise writer.unfinished()
        except BaseException:
            write.cancel()  # such as CancelledError: nobody waits for it any longer
            raise
        result: T = write.outcome()
        return result


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
