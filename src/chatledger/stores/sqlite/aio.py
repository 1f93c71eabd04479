"""The SQLite store for async callers."""

import asyncio
import builtins
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self, TypeVar

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.json_values import Json
from chatledger.messages import Message, now
from chatledger.stores.contract import AsyncStore
from chatledger.stores.sqlite import plans
from chatledger.stores.sqlite.database import MAX_READERS, Database
from chatledger.stores.sqlite.plans import CLEANUP_SECONDS, Pause, Plan, Settings, Transaction
from chatledger.stores.sqlite.rows import Rows
from chatledger.stores.sqlite.writer import GRACE_SECONDS, Operation, Write
from chatledger.stores.times import milliseconds_since_epoch

T = TypeVar("T")

LONG_BATCH = 100
"""An append of more messages is encoded in a thread, so that other tasks can run meanwhile."""


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
    ) -> None:
        self._settings = Settings.checked(expire_after, cleanup)
        self._clock = clock
        self._database = Database(os.fspath(path), timeout=timeout)
        self._start_threads()

    async def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.create(
                self._settings,
                conversation_id,
                owner=owner,
                title=title,
                metadata=metadata,
                expires_in=expires_in,
                idempotency_key=idempotency_key,
            )
        )

    async def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        owner: str | None = None,
        after: int | None = None,
        idempotency_key: str | None = None,
        truncate_after: int | None = None,
        reply_follows: bool = False,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Appended:
        return await self._run(
            plans.append(
                self._settings,
                conversation_id,
                messages,
                owner=owner,
                after=after,
                idempotency_key=idempotency_key,
                truncate_after=truncate_after,
                title=title,
                metadata=metadata,
                expires_in=expires_in,
            ),
            messages=messages,
        )

    async def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return await self._read(plans.get(conversation_id, owner=owner))

    async def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail:
        return await self._read(plans.tail(conversation_id, n, owner=owner))

    async def page(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> Page:
        return await self._read(
            plans.page(conversation_id, after=after, before=before, limit=limit, owner=owner)
        )

    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing:
        return await self._read(plans.list_owned(owner, limit=limit, cursor=cursor))

    async def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing:
        return await self._read(plans.scan(limit=limit, cursor=cursor))

    async def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation:
        return await self._run(
            plans.restore(self._settings, conversation, messages, after=after), messages=messages
        )

    async def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        metadata_revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.update(
                self._settings,
                conversation_id,
                title=title,
                metadata=metadata,
                revision=revision,
                metadata_revision=metadata_revision,
                owner=owner,
            )
        )

    async def claim(self, conversation_id: str, owner: str) -> Conversation:
        return await self._run(plans.claim(self._settings, conversation_id, owner))

    async def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        return await self._run(
            plans.truncate(self._settings, conversation_id, after=after, owner=owner)
        )

    async def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> builtins.list[Message]:
        return await self._run(plans.pop(self._settings, conversation_id, n, owner=owner))

    async def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return await self.truncate(conversation_id, after=0, owner=owner)

    async def replace(
        self,
        conversation_id: str,
        seq: int,
        message: Message,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.replace(
                self._settings, conversation_id, seq, message, revision=revision, owner=owner
            )
        )

    async def remove(
        self,
        conversation_id: str,
        seq: int,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.remove(self._settings, conversation_id, seq, revision=revision, owner=owner)
        )

    async def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        expires_in: timedelta | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.fork(
                self._settings,
                conversation_id,
                at=at,
                new_id=new_id,
                expires_in=expires_in,
                owner=owner,
                idempotency_key=idempotency_key,
            )
        )

    async def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        await self._run(plans.delete(self._settings, conversation_id, owner=owner))

    async def delete_owner(self, owner: str) -> int:
        return await self._run(plans.delete_owner(self._settings, owner))

    async def sweep(self) -> int:
        return await self._run(plans.sweep())

    async def close(self) -> None:
        # Not in the executor: from the first close on, it accepts no work.
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

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
            raise self._database.closed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _read(self, transaction: Transaction[T]) -> T:
        return await self._in_thread(
            partial(self._database.read, partial(self._perform, transaction))
        )

    async def _run(self, plan: Plan[T], *, messages: object = ()) -> T:
        """Run the plan to its result; ``messages`` are those that it encodes first."""
        result: Any = None
        failed: Exception | None = None
        is_long = isinstance(messages, Sequence) and len(messages) > LONG_BATCH
        step = await self._in_thread(partial(next, plan)) if is_long else None
        while True:
            try:
                if step is None:
                    step = plan.throw(failed) if failed else plan.send(result)
            except StopIteration as end:
                returned: T = end.value
                return returned
            result, failed = None, None
            try:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                else:
                    result = await self._write(partial(self._perform, step))
            except Exception as error:
                failed = error
            step = None

    async def _write(self, operation: Operation[T]) -> T:
        """Return the operation's result once its changes are on the disk."""
        loop = asyncio.get_running_loop()
        finished = loop.create_future()

        def notify() -> None:
            with suppress(RuntimeError):  # the loop was closed; nobody waits
                loop.call_soon_threadsafe(_finish, finished)

        writer = self._database.writer
        write = Write(operation, timeout=writer.timeout, notify=notify)
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

    def _perform(self, transaction: Transaction[T], db: sqlite3.Connection) -> T:
        return transaction(Rows(db, milliseconds_since_epoch(self._clock())))


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
