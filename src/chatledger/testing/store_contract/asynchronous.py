"""Laws of async stores alone: cancellation, and an event loop that is never blocked."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from inspect import isasyncgenfunction
from typing import Any, TypeVar, cast

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from chatledger.stores.contract import AsyncStore, Store
from chatledger.testing.store_contract.helpers import (
    ids_of,
    list_all,
    numbers_by_writer,
    read_all,
    snapshot,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.values import new_id

WRITERS = 50
APPENDS = 20
BATCH = 50

T = TypeVar("T")


class BlockingStore:
    """An async store as a sync one: each call runs as a task in the event loop of the store.

    Its async iterators become iterators, which read each item in a task of its own.
    """

    def __init__(self, store: AsyncStore, portal: BlockingPortal) -> None:
        self._store = store
        # The portal itself takes two changes of the thread to start a task.
        self._loop = portal.call(asyncio.get_running_loop)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)
        if isasyncgenfunction(method):
            return lambda *arguments, **options: self._iterate(method(*arguments, **options))
        return lambda *arguments, **options: self._run(method(*arguments, **options))

    def _iterate(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        end = object()

        async def next_item() -> Any:
            return await anext(items, end)

        try:
            while (item := self._run(next_item())) is not end:
                yield item
        finally:
            self._run(items.aclose())

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


async def cancel(call: Coroutine[Any, Any, Any], *, iterations: int) -> None:
    """Run the call as a task, and cancel it after so many iterations of the event loop."""
    task = asyncio.create_task(call)
    for _ in range(iterations):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class AsynchronousLaws:
    """Tasks, cancellation, and an event loop that is shared with other code."""

    @pytest.fixture
    def portal(self) -> Iterator[BlockingPortal]:
        with start_blocking_portal("asyncio") as portal:
            yield portal

    @pytest.fixture
    def opened(
        self, portal: BlockingPortal, store: AbstractAsyncContextManager[AsyncStore]
    ) -> Iterator[AsyncStore]:
        with portal.wrap_async_context_manager(store) as opened:
            yield opened

    @pytest.fixture
    def subject(self, portal: BlockingPortal, opened: AsyncStore) -> Store:
        return cast(Store, BlockingStore(opened, portal))

    def test_messages_of_many_tasks_are_neither_lost_nor_duplicated_nor_reordered(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store
    ) -> None:
        conversation_id = new_id()

        async def write(writer: int) -> None:
            for number in range(APPENDS):
                await opened.append(conversation_id, user_messages(f"{writer} {number}"))

        async def write_all() -> None:
            await asyncio.gather(*map(write, range(WRITERS)))

        portal.call(write_all)
        messages = read_all(subject, conversation_id)
        assert numbers_by_writer(messages) == {
            str(writer): list(range(APPENDS)) for writer in range(WRITERS)
        }

    @pytest.mark.parametrize("iterations", [0, 1, 2, 3, 5, 10, 100, 1_000])
    def test_a_cancelled_append_is_made_entirely_or_not_at_all(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store, iterations: int
    ) -> None:
        conversation_id = subject.create().id
        batch = [str(number) for number in range(BATCH)]

        async def append_and_cancel() -> None:
            append = opened.append(conversation_id, user_messages(*batch))
            await cancel(append, iterations=iterations)

        for _ in range(5):
            portal.call(append_and_cancel)
        subject.append(conversation_id, user_messages("the store still works"))
        texts = texts_of(snapshot(subject, conversation_id).messages)
        # A cancelled append may land late, so before or after the append that followed.
        texts.remove("the store still works")
        assert texts == batch * (len(texts) // BATCH)

    @pytest.mark.parametrize("iterations", [0, 1, 2, 3, 5, 10, 100, 1_000])
    def test_a_cancelled_append_can_be_repeated_with_its_key(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store, iterations: int
    ) -> None:
        conversation_id = subject.create().id
        batch = [str(number) for number in range(BATCH)]

        async def append_cancel_and_append() -> None:
            append = partial(
                opened.append, conversation_id, user_messages(*batch), idempotency_key="the same"
            )
            await cancel(append(), iterations=iterations)
            await append()

        portal.call(append_cancel_and_append)
        assert texts_of(read_all(subject, conversation_id)) == batch

    @pytest.mark.parametrize("iterations", [0, 1, 2, 3, 5, 10, 100, 1_000])
    def test_a_cancelled_create_or_fork_can_be_repeated_with_its_key(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store, iterations: int
    ) -> None:
        owner = new_id()
        source = start_conversation(subject, "1", "2", owner=owner)
        create = partial(opened.create, owner=owner, idempotency_key="the same")
        fork = partial(opened.fork, source.id, idempotency_key="the same")

        async def cancel_and_repeat(call: Callable[[], Coroutine[Any, Any, Any]]) -> str:
            await cancel(call(), iterations=iterations)
            return cast(str, (await call()).id)

        ids = {portal.call(cancel_and_repeat, call) for call in (create, fork)}
        assert len(ids) == 2
        assert {source.id, *ids} == set(ids_of(list_all(subject, owner)))

    def test_an_iteration_can_be_given_up_and_others_run_meanwhile(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store
    ) -> None:
        texts = [str(number) for number in range(250)]
        conversation = start_conversation(subject, *texts)

        async def read(count: int) -> list[str]:
            read: list[str] = []
            async for message in opened.iter_messages(conversation.id):
                if len(read) == count:
                    break
                read.append(message.text)
                await asyncio.sleep(0)
            return read

        async def read_all_at_once() -> list[list[str]]:
            return list(await asyncio.gather(*map(read, (0, 1, 99, 100, 101, 200, 300))))

        for read_texts, count in zip(
            portal.call(read_all_at_once), (0, 1, 99, 100, 101, 200, 300), strict=True
        ):
            assert read_texts == texts[:count]
        assert texts_of(subject.pop(conversation.id)) == ["249"]

    def test_the_store_still_works_after_cancelled_reads_and_writes(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store
    ) -> None:
        conversation_id = subject.create().id

        async def cancel_many() -> None:
            tasks = [
                asyncio.ensure_future(call)
                for _ in range(20)
                for call in (
                    opened.append(conversation_id, user_messages("1", "2", "3")),
                    opened.tail(conversation_id, 10),
                    opened.get(conversation_id),
                )
            ]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        portal.call(cancel_many)
        subject.clear(conversation_id)
        subject.append(conversation_id, user_messages("the store still works"))
        assert texts_of(read_all(subject, conversation_id)) == ["the store still works"]

    def test_the_event_loop_keeps_running_while_an_append_waits(
        self, portal: BlockingPortal, opened: AsyncStore
    ) -> None:
        batch = user_messages(*map(str, range(5_000)))

        async def iterations_meanwhile() -> int:
            iterations = 0
            appending = asyncio.create_task(opened.append(new_id(), batch))
            while not appending.done():
                iterations += 1
                await asyncio.sleep(0)
            await appending
            return iterations

        # A blocked loop would run two or three iterations, however long the append took.
        assert portal.call(iterations_meanwhile) > 10
