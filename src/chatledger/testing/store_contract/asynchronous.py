"""What an async store promises beyond the rest: to its event loop, and to who cancels."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, cast

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from chatledger.messages import new_id
from chatledger.stores.contract import AsyncStore, Store
from chatledger.testing.store_contract.helpers import numbers_of_writers, read_all, said, say, see

WRITERS = 50
APPENDS = 20
BATCH = 50


class Blocking:
    """An async store for callers in threads: each call is one task in the store's event loop."""

    def __init__(self, store: AsyncStore, portal: BlockingPortal) -> None:
        self._store = store
        self._portal = portal

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)
        return lambda *arguments, **options: self._portal.call(
            partial(method, *arguments, **options)
        )


class AsynchronousLaws:
    """Tasks, cancellation, and an event loop that others use too."""

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
        return cast(Store, Blocking(opened, portal))

    def test_no_message_of_many_tasks_is_lost_doubled_or_out_of_its_order(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store
    ) -> None:
        conversation_id = new_id()

        async def write(writer: int) -> None:
            for number in range(APPENDS):
                await opened.append(conversation_id, say(f"{writer} {number}"))

        async def write_all() -> None:
            await asyncio.gather(*map(write, range(WRITERS)))

        portal.call(write_all)
        messages = read_all(subject, conversation_id)
        assert numbers_of_writers(messages) == {
            str(writer): list(range(APPENDS)) for writer in range(WRITERS)
        }

    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10, 100, 1_000])
    def test_an_append_that_was_cancelled_is_in_whole_or_not_at_all(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store, turns: int
    ) -> None:
        conversation_id = subject.create().id
        batch = [str(number) for number in range(BATCH)]

        async def append_and_cancel() -> None:
            appending = asyncio.create_task(opened.append(conversation_id, say(*batch)))
            for _ in range(turns):
                await asyncio.sleep(0)
            appending.cancel()
            await asyncio.gather(appending, return_exceptions=True)

        for _ in range(5):
            portal.call(append_and_cancel)
        subject.append(conversation_id, say("the store goes on"))
        texts = said(see(subject, conversation_id).messages)
        # It may land later than it was cancelled, and so before or behind what came next.
        texts.remove("the store goes on")
        assert texts == batch * (len(texts) // BATCH)

    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10, 100, 1_000])
    def test_an_append_that_was_cancelled_can_be_sent_again_with_its_key(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store, turns: int
    ) -> None:
        conversation_id = subject.create().id
        batch = [str(number) for number in range(BATCH)]

        async def append_cancel_and_append() -> None:
            append = partial(
                opened.append, conversation_id, say(*batch), idempotency_key="the same"
            )
            appending = asyncio.create_task(append())
            for _ in range(turns):
                await asyncio.sleep(0)
            appending.cancel()
            await asyncio.gather(appending, return_exceptions=True)
            await append()

        portal.call(append_cancel_and_append)
        assert said(read_all(subject, conversation_id)) == batch

    def test_cancelled_reads_and_writes_leave_a_store_that_works(
        self, portal: BlockingPortal, opened: AsyncStore, subject: Store
    ) -> None:
        conversation_id = subject.create().id

        async def cancel_many() -> None:
            tasks = [
                asyncio.ensure_future(call)
                for _ in range(20)
                for call in (
                    opened.append(conversation_id, say("1", "2", "3")),
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
        subject.append(conversation_id, say("the store goes on"))
        assert said(read_all(subject, conversation_id)) == ["the store goes on"]

    def test_the_event_loop_turns_while_an_append_waits(
        self, portal: BlockingPortal, opened: AsyncStore
    ) -> None:
        batch = say(*map(str, range(5_000)))

        async def turns_meanwhile() -> int:
            turns = 0
            appending = asyncio.create_task(opened.append(new_id(), batch))
            while not appending.done():
                turns += 1
                await asyncio.sleep(0)
            await appending
            return turns

        # A loop that was blocked would have turned two or three times, however long it took.
        assert portal.call(turns_meanwhile) > 10
