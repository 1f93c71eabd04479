"""A ``SyncChat`` with the interface of ``Chat``, so that the same tests hold both."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar, cast

from chatledger.chat import Event, SyncChat
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Model, Piece
from chatledger.stores.contract import AsyncStore, Store

T = TypeVar("T")
MAX_THREADS = 50


class LoopThread:
    """The event loop of a test, as threads use it: each waits for what runs in the loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.threads = ThreadPoolExecutor(MAX_THREADS)
        self.model_threads: set[threading.Thread] = set()
        self._pending: set[Future[Any]] = set()

    def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Run ``awaitable`` in the event loop and return its result; called in a thread."""

        async def awaited() -> T:
            return await awaitable

        future = asyncio.run_coroutine_threadsafe(awaited(), self.loop)
        self._pending.add(future)
        try:
            return future.result()
        finally:
            self._pending.discard(future)

    async def close(self) -> None:
        """Cancel what threads still wait for, such as models at gates, and end the threads."""
        for future in [*self._pending]:
            future.cancel()
        for thread in self.model_threads:
            await asyncio.to_thread(thread.join, 20)
            assert not thread.is_alive()
        await asyncio.to_thread(self.threads.shutdown)


class BlockingStore:
    """An async store as a sync one."""

    def __init__(self, store: AsyncStore, loop: LoopThread) -> None:
        self._store = store
        self._loop = loop

    @property
    def clock_difference(self) -> timedelta:
        return self._store.clock_difference

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._store, name)
        return lambda *arguments, **options: self._loop.wait_for(operation(*arguments, **options))


class BlockingModel:
    """An async model as a sync one."""

    def __init__(self, model: Model, loop: LoopThread) -> None:
        self.id = model.id
        self._model = model
        self._loop = loop

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        self._loop.model_threads.add(threading.current_thread())
        pieces = self._model.stream(messages, system_prompt=system_prompt)
        try:
            while (piece := self._loop.wait_for(anext(pieces, None))) is not None:
                yield piece
        except GeneratorExit:
            self._loop.wait_for(pieces.aclose())
            raise


class ThreadedChat:
    """A ``SyncChat`` whose methods run in threads and are awaited, like those of ``Chat``."""

    def __init__(self, store: AsyncStore, model: Model, loop: LoopThread, **options: Any) -> None:
        self._loop = loop
        blocking_store = cast(Store, BlockingStore(store, loop))
        self.chat = SyncChat(blocking_store, BlockingModel(model, loop), **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.chat, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if "model" in options:
                options["model"] = BlockingModel(options["model"], self._loop)
            if name in ("send", "stop", "fork", "usage", "last_turn"):
                return self._in_thread(lambda: method(*arguments, **options))
            return self._events(method(*arguments, **options))

        return call

    async def close(self) -> None:
        """Do nothing: a turn of a ``SyncChat`` ends before its caller continues."""

    async def _events(self, events: Generator[Event, None, None]) -> AsyncGenerator[Event, None]:
        try:
            while (event := await self._in_thread(lambda: next(events, None))) is not None:
                yield event
        finally:
            await self._in_thread(events.close)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await self._loop.loop.run_in_executor(self._loop.threads, function)
