"""Any store, for async callers: whole operations in a worker thread."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.errors import StoreUnavailable
from chatledger.json_values import Json
from chatledger.messages import Message
from chatledger.stores.contract import AsyncStore, Store

T = TypeVar("T")


class ThreadedStore(AsyncStore):
    """An ``AsyncStore`` over ``store``, which it closes with itself.

    ``threads`` is how many operations run at once; further ones wait their turn without a thread.
    A cancelled operation that has begun runs to its end.
    """

    def __init__(self, store: Store, *, threads: int = 1) -> None:
        self._store = store
        self._most = threads
        self._closed = False
        self._start()

    async def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Conversation:
        return await self._run(
            self._store.create,
            conversation_id,
            owner=owner,
            title=title,
            metadata=metadata,
            expires_in=expires_in,
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
    ) -> Appended:
        return await self._run(
            self._store.append,
            conversation_id,
            messages,
            owner=owner,
            after=after,
            idempotency_key=idempotency_key,
            truncate_after=truncate_after,
            reply_follows=reply_follows,
        )

    async def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return await self._run(self._store.get, conversation_id, owner=owner)

    async def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail:
        return await self._run(self._store.tail, conversation_id, n, owner=owner)

    async def page(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> Page:
        return await self._run(
            self._store.page, conversation_id, after=after, before=before, limit=limit, owner=owner
        )

    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing:
        return await self._run(self._store.list, owner, limit=limit, cursor=cursor)

    async def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing:
        return await self._run(self._store.scan, limit=limit, cursor=cursor)

    async def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation:
        return await self._run(self._store.restore, conversation, messages, after=after)

    async def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return await self._run(
            self._store.update,
            conversation_id,
            title=title,
            metadata=metadata,
            revision=revision,
            owner=owner,
        )

    async def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        return await self._run(self._store.truncate, conversation_id, after=after, owner=owner)

    async def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> Sequence[Message]:
        return await self._run(self._store.pop, conversation_id, n, owner=owner)

    async def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return await self._run(self._store.clear, conversation_id, owner=owner)

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
            self._store.replace, conversation_id, seq, message, revision=revision, owner=owner
        )

    async def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return await self._run(self._store.fork, conversation_id, at=at, new_id=new_id, owner=owner)

    async def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        await self._run(self._store.delete, conversation_id, owner=owner)

    async def delete_owner(self, owner: str) -> int:
        return await self._run(self._store.delete_owner, owner)

    async def sweep(self) -> int:
        return await self._run(self._store.sweep)

    async def close(self) -> None:
        self._closed = True
        # Not in a thread of ours: after the first close there is none left to run in.
        await asyncio.to_thread(self._threads.shutdown)
        self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _start(self) -> None:
        self._process = os.getpid()
        self._threads = ThreadPoolExecutor(self._most, thread_name_prefix="chatledger-store")

    async def _run(self, operation: Callable[..., T], *args: Any, **options: Any) -> T:
        if self._closed:
            raise StoreUnavailable("The store was closed; open it again.")
        if os.getpid() != self._process:
            self._start()  # a child process has none of its parent's threads
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(operation, *args, **options))
