"""Histories in async code: an async store without threads, a sync one without blocking."""

import threading
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from chatledger import AsyncStore, InvalidArgument, NotFound, Store, open_async_store, open_store
from chatledger.langchain import ChatMessageHistory, MessagePage
from chatledger.messages import new_id
from tests.langchain.sample_messages import SYNC_METHODS, TALK, Watched, WatchedAsync

pytestmark = pytest.mark.anyio


async def check_async(history: ChatMessageHistory) -> None:
    assert await history.aget_messages() == []
    await history.aadd_messages([])
    await history.aclear()
    with pytest.raises(NotFound):
        await history.aget_conversation()
    await history.aadd_messages(TALK)
    assert await history.aget_messages() == TALK
    assert await history.apage(after=1, limit=2) == MessagePage(TALK[1:3], 3)
    assert (await history.aget_conversation()).message_count == len(TALK)
    stranger = ChatMessageHistory(history.store, history.session_id, owner="eve")
    reading: list[Callable[[], Awaitable[object]]] = [
        stranger.aget_messages,
        stranger.apage,
        stranger.aclear,
        stranger.aget_conversation,
        lambda: stranger.aadd_messages(TALK),
    ]
    for method in reading:
        with pytest.raises(NotFound):
            await method()
    window = ChatMessageHistory(history.store, history.session_id, owner="bob", window=3)
    assert await window.aget_messages() == TALK[3:]
    await history.aclear()
    assert await history.aget_messages() == []


async def test_an_async_store_gives_the_same_to_async_callers(async_store: AsyncStore) -> None:
    async with async_store:
        await check_async(ChatMessageHistory(async_store, new_id(), owner="bob"))


async def test_a_sync_store_works_in_async_code_too(store: Store) -> None:
    await check_async(ChatMessageHistory(store, new_id(), owner="bob"))


async def test_a_sync_store_never_blocks_the_event_loop() -> None:
    with open_store("sqlite:///:memory:") as store:
        watched = Watched(store)
        history = ChatMessageHistory(cast(Store, watched), "talk", owner="bob")
        asking: list[Callable[[], Awaitable[object]]] = [
            lambda: history.aadd_messages(TALK),
            history.aget_messages,
            history.apage,
            history.aget_conversation,
            history.aclear,
        ]
        for method in asking:
            await method()
        assert watched.asked == ["append", "page", "page", "get", "clear"]
        assert threading.get_ident() not in watched.threads


async def test_an_async_store_is_asked_in_the_event_loops_own_thread() -> None:
    async with open_async_store("sqlite:///:memory:") as store:
        watched = WatchedAsync(store)
        history = ChatMessageHistory(cast(AsyncStore, watched), "talk", owner="bob")
        await history.aadd_messages(TALK)
        assert await history.aget_messages() == TALK
        assert watched.threads == {threading.get_ident()}


@pytest.mark.parametrize("method", SYNC_METHODS, ids=range(len(SYNC_METHODS)))
async def test_a_sync_method_over_an_async_store_says_what_to_do(
    method: Callable[[ChatMessageHistory], object],
) -> None:
    async with open_async_store("sqlite:///:memory:") as store:
        with pytest.raises(InvalidArgument, match=r"await aget_messages.* or give it a\s+Store"):
            method(ChatMessageHistory(store, "talk"))
