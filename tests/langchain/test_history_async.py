"""``ChatMessageHistory`` in async code: async stores use no threads, sync ones never block."""

import threading
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from chatledger import AsyncStore, InvalidArgument, NotFound, Store, open_async_store, open_store
from chatledger.langchain import ChatMessageHistory, MessagePage
from chatledger.values import new_id
from tests.langchain.sample_messages import (
    CONVERSATION,
    SYNC_METHODS,
    AsyncRecordingStore,
    RecordingStore,
)

pytestmark = pytest.mark.anyio


async def check_async(history: ChatMessageHistory) -> None:
    assert await history.aget_messages() == []
    await history.aadd_messages([])
    await history.aclear()
    with pytest.raises(NotFound):
        await history.aget_conversation()
    await history.aadd_messages(CONVERSATION)
    assert await history.aget_messages() == CONVERSATION
    assert await history.apage(after=1, limit=2) == MessagePage(CONVERSATION[1:3], 3)
    assert (await history.aget_conversation()).message_count == len(CONVERSATION)
    stranger = ChatMessageHistory(history.store, history.session_id, owner="eve")
    methods: list[Callable[[], Awaitable[object]]] = [
        stranger.aget_messages,
        stranger.apage,
        stranger.aclear,
        stranger.aget_conversation,
        lambda: stranger.aadd_messages(CONVERSATION),
    ]
    for method in methods:
        with pytest.raises(NotFound):
            await method()
    window = ChatMessageHistory(history.store, history.session_id, owner="bob", window=3)
    assert await window.aget_messages() == CONVERSATION[3:]
    await history.aclear()
    assert await history.aget_messages() == []


async def test_async_methods_work_on_an_async_store(async_store: AsyncStore) -> None:
    async with async_store:
        await check_async(ChatMessageHistory(async_store, new_id(), owner="bob"))


async def test_async_methods_work_on_a_sync_store(store: Store) -> None:
    await check_async(ChatMessageHistory(store, new_id(), owner="bob"))


async def test_a_sync_store_never_blocks_the_event_loop() -> None:
    with open_store("sqlite:///:memory:") as store:
        recording_store = RecordingStore(store)
        history = ChatMessageHistory(cast(Store, recording_store), "talk", owner="bob")
        methods: list[Callable[[], Awaitable[object]]] = [
            lambda: history.aadd_messages(CONVERSATION),
            history.aget_messages,
            history.apage,
            history.aget_conversation,
            history.aclear,
        ]
        for method in methods:
            await method()
        assert recording_store.calls == ["append", "page", "page", "get", "clear"]
        assert threading.get_ident() not in recording_store.threads


async def test_an_async_store_is_called_in_the_event_loops_thread() -> None:
    async with open_async_store("sqlite:///:memory:") as store:
        recording_store = AsyncRecordingStore(store)
        history = ChatMessageHistory(cast(AsyncStore, recording_store), "talk", owner="bob")
        await history.aadd_messages(CONVERSATION)
        assert await history.aget_messages() == CONVERSATION
        assert recording_store.threads == {threading.get_ident()}


@pytest.mark.parametrize("method", SYNC_METHODS, ids=range(len(SYNC_METHODS)))
async def test_a_sync_method_on_an_async_store_says_what_to_do(
    method: Callable[[ChatMessageHistory], object],
) -> None:
    async with open_async_store("sqlite:///:memory:") as store:
        with pytest.raises(InvalidArgument, match=r"await aget_messages.* or give it a\s+Store"):
            method(ChatMessageHistory(store, "talk"))
