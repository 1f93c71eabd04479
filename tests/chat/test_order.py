"""The order of a turn's steps, and the calls that it makes to its store."""

import asyncio

import pytest

from chatledger.chat import Chat, Event, Started
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from tests.chat.chat_helpers import (
    DONE,
    Caller,
    EchoModel,
    Gate,
    ScriptedModel,
    WatchedStore,
    collect_events,
    create_conversation,
    transcript,
)

pytestmark = pytest.mark.anyio


async def test_the_model_is_called_while_the_users_message_is_being_stored(
    store: AsyncStore,
) -> None:
    await create_conversation(store)
    watched, gate = WatchedStore(store), Gate()
    watched.before("append", 1, gate.reached.wait)  # type: ignore[arg-type]
    chat = Chat(watched.store, ScriptedModel(gate, "Well.", DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await caller.wait_for(Started("talk"))
    gate.opened.set()
    await caller.task
    assert caller.events == [Started("talk"), "Well.", DONE]


async def test_no_event_is_yielded_before_the_users_message_is_stored(store: AsyncStore) -> None:
    await create_conversation(store)
    watched, text_gate, store_gate = WatchedStore(store), Gate(), Gate()

    async def wait_at_gate() -> None:
        store_gate.reached.set()
        await store_gate.opened.wait()

    watched.after("append", 1, wait_at_gate)
    chat = Chat(watched.store, ScriptedModel("Well, ", "yes.", text_gate, DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await text_gate.reached.wait()
    await store_gate.reached.wait()
    assert caller.events == []
    store_gate.opened.set()
    await caller.wait_for("yes.")
    assert caller.events == [Started("talk"), "Well, ", "yes."]
    text_gate.opened.set()
    await caller.task
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, yes.")]


async def test_finished_is_not_yielded_before_the_reply_is_stored(store: AsyncStore) -> None:
    await create_conversation(store)
    watched, store_gate = WatchedStore(store), Gate()

    async def wait_at_gate() -> None:
        store_gate.reached.set()
        await store_gate.opened.wait()

    watched.before("append", 2, wait_at_gate)
    caller = Caller(Chat(watched.store, EchoModel()).stream("Hi", conversation_id="talk"))
    await store_gate.reached.wait()
    await caller.wait_for("You said: Hi")
    assert DONE not in caller.events
    store_gate.opened.set()
    await caller.task
    assert caller.events[-1] == DONE


async def test_a_turn_makes_one_read_and_two_writes(store: AsyncStore) -> None:
    await create_conversation(store, "I am Bob")
    for n in range(3):
        watched = WatchedStore(store)
        await Chat(watched.store, EchoModel()).send(f"{n}", conversation_id="talk", owner="bob")
        assert watched.calls == ["tail", "append", "append"]


async def test_a_key_costs_one_more_read_and_its_repetition_only_reads(store: AsyncStore) -> None:
    await create_conversation(store, "I am Bob")
    watched = WatchedStore(store)
    chat = Chat(watched.store, EchoModel())
    await chat.send("Hi", conversation_id="talk", idempotency_key="key 1")
    assert watched.calls.count("append") == 2
    assert sorted(set(watched.calls) - {"page"}) == ["append", "tail"]
    watched.calls.clear()
    await chat.send("Hi", conversation_id="talk", idempotency_key="key 1")
    assert watched.calls == ["tail"]


async def test_regenerate_makes_one_read_and_two_writes_and_edit_one_more_read(
    store: AsyncStore,
) -> None:
    await Chat(store, EchoModel()).send("Hi", conversation_id="talk", owner="bob")
    watched = WatchedStore(store)
    await collect_events(Chat(watched.store, EchoModel()).regenerate("talk"))
    assert watched.calls == ["tail", "append", "append"]
    seq = (await store.page("talk")).messages[0].seq
    assert seq is not None
    watched = WatchedStore(store)
    await collect_events(Chat(watched.store, EchoModel()).edit("talk", seq, "Ho"))
    assert watched.calls == ["tail", "page", "append", "append"]


async def test_a_failed_turn_releases_its_lease_with_one_write(store: AsyncStore) -> None:
    await create_conversation(store, "I am Bob")
    watched = WatchedStore(store)
    chat = Chat(watched.store, ScriptedModel(RuntimeError("a bug")))
    with pytest.raises(RuntimeError):
        await chat.send("Hi", conversation_id="talk")
    assert watched.calls == ["tail", "append", "replace"]


async def test_an_unsaved_turn_only_reads(sqlite: AsyncStore) -> None:
    await create_conversation(sqlite, "I am Bob")
    watched = WatchedStore(sqlite)
    await collect_events(
        Chat(watched.store, EchoModel()).stream_without_saving("Hi", conversation_id="talk")
    )
    assert watched.calls == ["tail"]


async def test_a_turn_whose_events_nobody_takes_does_nothing(sqlite: AsyncStore) -> None:
    model, watched = EchoModel(), WatchedStore(sqlite)
    chat = Chat(watched.store, model)
    for events in (
        chat.stream("Hi", conversation_id="talk", owner="bob"),
        chat.regenerate("talk"),
        chat.edit("talk", 1, "Ho"),
        chat.stream_without_saving("Hi"),
    ):
        await events.aclose()
    assert (model.windows, watched.requests) == ([], [])


async def test_pieces_are_yielded_as_the_model_produces_them(sqlite: AsyncStore) -> None:
    gate = [Gate() for _ in range(3)]
    script: list[str | Gate | Finished] = []
    for n, each_gate in enumerate(gate):
        script += [each_gate, f"{n} "]
    caller = Caller(
        Chat(sqlite, ScriptedModel(*script, DONE)).stream("Hi", conversation_id="talk", owner="bob")
    )
    expected: list[Event] = [Started("talk")]
    for n, each_gate in enumerate(gate):
        await each_gate.reached.wait()
        await caller.wait_for(expected[-1])
        assert caller.events == expected
        each_gate.opened.set()
        expected.append(f"{n} ")
    await caller.task
    assert caller.events == [*expected, DONE]


async def test_the_model_continues_while_the_caller_does_something_else(sqlite: AsyncStore) -> None:
    gate = Gate()
    model = ScriptedModel("Well, ", "yes.", gate, DONE)
    events = Chat(sqlite, model).stream("Hi", conversation_id="talk", owner="bob")
    assert await anext(events) == Started("talk")
    await asyncio.wait_for(gate.reached.wait(), 20)
    gate.opened.set()
    assert await collect_events(events) == ["Well, ", "yes.", DONE]
