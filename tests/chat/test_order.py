"""What a turn does in which order, and what it asks of its store."""

import asyncio

import pytest

from chatledger.chat import Chat, Event, Started
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from tests.chat.chat_helpers import (
    DONE,
    Caller,
    Echo,
    Scripted,
    Waits,
    Watched,
    begin,
    events_of,
    kept,
)

pytestmark = pytest.mark.anyio


async def test_the_model_is_asked_while_the_users_message_is_being_stored(
    store: AsyncStore,
) -> None:
    await begin(store)
    watched, waits = Watched(store), Waits()
    watched.before("append", 1, waits.reached.wait)  # type: ignore[arg-type]
    chat = Chat(watched.store, Scripted(waits, "Well.", DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await caller.until(Started("talk"))
    waits.over.set()
    await caller.task
    assert caller.seen == [Started("talk"), "Well.", DONE]


async def test_nothing_is_handed_on_before_the_users_message_is_stored(store: AsyncStore) -> None:
    await begin(store)
    watched, said, stored = Watched(store), Waits(), Waits()

    async def held_up() -> None:
        stored.reached.set()
        await stored.over.wait()

    watched.after("append", 1, held_up)
    chat = Chat(watched.store, Scripted("Well, ", "yes.", said, DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await said.reached.wait()
    await stored.reached.wait()
    assert caller.seen == []
    stored.over.set()
    await caller.until("yes.")
    assert caller.seen == [Started("talk"), "Well, ", "yes."]
    said.over.set()
    await caller.task
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, yes.")]


async def test_a_reply_has_not_ended_before_it_is_stored(store: AsyncStore) -> None:
    await begin(store)
    watched, stored = Watched(store), Waits()

    async def held_up() -> None:
        stored.reached.set()
        await stored.over.wait()

    watched.before("append", 2, held_up)
    caller = Caller(Chat(watched.store, Echo()).stream("Hi", conversation_id="talk"))
    await stored.reached.wait()
    await caller.until("You said: Hi")
    assert DONE not in caller.seen
    stored.over.set()
    await caller.task
    assert caller.seen[-1] == DONE


async def test_a_turn_makes_one_read_and_two_writes(store: AsyncStore) -> None:
    await begin(store, "I am Bob")
    for n in range(3):
        watched = Watched(store)
        await Chat(watched.store, Echo()).send(f"{n}", conversation_id="talk", owner="bob")
        assert watched.calls == ["tail", "append", "append"]


async def test_with_a_key_a_turn_only_reads_more_and_its_repetition_only_reads(
    store: AsyncStore,
) -> None:
    await begin(store, "I am Bob")
    watched = Watched(store)
    chat = Chat(watched.store, Echo())
    await chat.send("Hi", conversation_id="talk", idempotency_key="key 1")
    assert watched.calls.count("append") == 2
    assert sorted(set(watched.calls) - {"page"}) == ["append", "tail"]
    watched.calls.clear()
    await chat.send("Hi", conversation_id="talk", idempotency_key="key 1")
    assert watched.calls == ["tail"]


async def test_another_reply_makes_one_read_and_two_writes_and_an_edit_one_read_more(
    store: AsyncStore,
) -> None:
    await Chat(store, Echo()).send("Hi", conversation_id="talk", owner="bob")
    watched = Watched(store)
    await events_of(Chat(watched.store, Echo()).regenerate("talk"))
    assert watched.calls == ["tail", "append", "append"]
    seq = (await store.page("talk")).messages[0].seq
    assert seq is not None
    watched = Watched(store)
    await events_of(Chat(watched.store, Echo()).edit("talk", seq, "Ho"))
    assert watched.calls == ["tail", "page", "append", "append"]


async def test_a_failed_turn_says_so_with_one_write_more(store: AsyncStore) -> None:
    await begin(store, "I am Bob")
    watched = Watched(store)
    chat = Chat(watched.store, Scripted(RuntimeError("a bug")))
    with pytest.raises(RuntimeError):
        await chat.send("Hi", conversation_id="talk")
    assert watched.calls == ["tail", "append", "replace"]


async def test_a_turn_that_is_not_kept_only_reads(sqlite: AsyncStore) -> None:
    await begin(sqlite, "I am Bob")
    watched = Watched(sqlite)
    await events_of(Chat(watched.store, Echo()).stream_unkept("Hi", conversation_id="talk"))
    assert watched.calls == ["tail"]


async def test_a_turn_that_nobody_begins_does_nothing(sqlite: AsyncStore) -> None:
    model, watched = Echo(), Watched(sqlite)
    chat = Chat(watched.store, model)
    for events in (
        chat.stream("Hi", conversation_id="talk", owner="bob"),
        chat.regenerate("talk"),
        chat.edit("talk", 1, "Ho"),
        chat.stream_unkept("Hi"),
    ):
        await events.aclose()
    assert (model.asked, watched.asked) == ([], [])


async def test_pieces_are_handed_on_as_they_are_said(sqlite: AsyncStore) -> None:
    waits = [Waits() for _ in range(3)]
    script: list[str | Waits | Finished] = []
    for n, each in enumerate(waits):
        script += [each, f"{n} "]
    caller = Caller(
        Chat(sqlite, Scripted(*script, DONE)).stream("Hi", conversation_id="talk", owner="bob")
    )
    expected: list[Event] = [Started("talk")]
    for n, each in enumerate(waits):
        await each.reached.wait()
        await caller.until(expected[-1])
        assert caller.seen == expected
        each.over.set()
        expected.append(f"{n} ")
    await caller.task
    assert caller.seen == [*expected, DONE]


async def test_the_model_goes_on_while_its_caller_does_something_else(sqlite: AsyncStore) -> None:
    waits = Waits()
    model = Scripted("Well, ", "yes.", waits, DONE)
    events = Chat(sqlite, model).stream("Hi", conversation_id="talk", owner="bob")
    assert await anext(events) == Started("talk")
    await asyncio.wait_for(waits.reached.wait(), 20)
    waits.over.set()
    assert await events_of(events) == ["Well, ", "yes.", DONE]
