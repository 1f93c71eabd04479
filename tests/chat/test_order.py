"""The order of a turn's steps, and the calls that it makes to its store."""

import asyncio

import pytest

from chatledger.chat import Event, Started
from chatledger.models.protocol import Finished
from tests.chat.scripted_models import DONE, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Caller, Talk, collect_events

pytestmark = pytest.mark.anyio


async def test_the_model_is_called_while_the_users_message_is_being_stored(talk: Talk) -> None:
    await talk.create()
    gate = Gate()
    talk.watched.before("append", 1, gate.reached.wait)
    chat = talk.watched_chat(ScriptedModel(gate, "Well.", DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await caller.wait_for(Started("talk"))
    gate.opened.set()
    await caller.task
    assert caller.events == [Started("talk"), "Well.", DONE]


async def test_no_event_is_yielded_before_the_users_message_is_stored(talk: Talk) -> None:
    await talk.create()
    text_gate, store_gate = Gate(), Gate()
    talk.watched.after("append", 1, store_gate.wait)
    chat = talk.watched_chat(ScriptedModel("Well, ", "yes.", text_gate, DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await text_gate.reached.wait()
    await store_gate.reached.wait()
    assert caller.events == []
    store_gate.opened.set()
    await caller.wait_for("yes.")
    assert caller.events == [Started("talk"), "Well, ", "yes."]
    text_gate.opened.set()
    await caller.task
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, yes.")]


async def test_finished_is_not_yielded_before_the_reply_is_stored(talk: Talk) -> None:
    await talk.create()
    store_gate = Gate()
    talk.watched.before("append", 2, store_gate.wait)
    caller = Caller(talk.watched_chat(EchoModel()).stream("Hi", conversation_id="talk"))
    await store_gate.reached.wait()
    await caller.wait_for("You said: Hi")
    assert DONE not in caller.events
    store_gate.opened.set()
    await caller.task
    assert caller.events[-1] == DONE


async def test_a_turn_makes_one_read_and_two_writes(talk: Talk) -> None:
    await talk.create("I am Bob")
    for n in range(3):
        talk.watched.calls.clear()
        await talk.watched_chat(EchoModel()).send(f"{n}", conversation_id="talk", owner="bob")
        assert talk.watched.calls == ["tail", "append", "append"]


async def test_a_key_costs_one_more_read_and_its_repetition_only_reads(talk: Talk) -> None:
    await talk.create("I am Bob")
    chat = talk.watched_chat(EchoModel())
    await chat.send("Hi", conversation_id="talk", idempotency_key="key 1")
    assert talk.watched.calls.count("append") == 2
    assert sorted(set(talk.watched.calls) - {"page"}) == ["append", "tail"]
    talk.watched.calls.clear()
    await chat.send("Hi", conversation_id="talk", idempotency_key="key 1")
    assert talk.watched.calls == ["tail"]


async def test_regenerate_makes_one_read_and_two_writes_and_edit_one_more_read(talk: Talk) -> None:
    await talk.chat(EchoModel()).send("Hi", conversation_id="talk", owner="bob")
    await collect_events(talk.watched_chat(EchoModel()).regenerate("talk"))
    assert talk.watched.calls == ["tail", "append", "append"]
    talk.watched.calls.clear()
    seq = await talk.seq_of("Hi")
    await collect_events(talk.watched_chat(EchoModel()).edit("talk", seq, "Ho"))
    assert talk.watched.calls == ["tail", "page", "append", "append"]


async def test_a_failed_turn_releases_its_lease_with_one_write(talk: Talk) -> None:
    await talk.create("I am Bob")
    chat = talk.watched_chat(ScriptedModel(RuntimeError("a bug")))
    with pytest.raises(RuntimeError):
        await chat.send("Hi", conversation_id="talk")
    assert talk.watched.calls == ["tail", "append", "replace"]


async def test_an_unsaved_turn_only_reads(sqlite: Talk) -> None:
    await sqlite.create("I am Bob")
    await collect_events(
        sqlite.watched_chat(EchoModel()).stream_without_saving("Hi", conversation_id="talk")
    )
    assert sqlite.watched.calls == ["tail"]


async def test_a_turn_whose_events_nobody_takes_does_nothing(sqlite: Talk) -> None:
    model = EchoModel()
    chat = sqlite.watched_chat(model)
    for events in (
        chat.stream("Hi", conversation_id="talk", owner="bob"),
        chat.regenerate("talk"),
        chat.edit("talk", 1, "Ho"),
        chat.stream_without_saving("Hi"),
    ):
        await events.aclose()
    assert (model.windows, sqlite.watched.requests) == ([], [])


async def test_pieces_are_yielded_as_the_model_produces_them(sqlite: Talk) -> None:
    gate = [Gate() for _ in range(3)]
    script: list[str | Gate | Finished] = []
    for n, each_gate in enumerate(gate):
        script += [each_gate, f"{n} "]
    caller = Caller(
        sqlite.chat(ScriptedModel(*script, DONE)).stream("Hi", conversation_id="talk", owner="bob")
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


async def test_the_model_continues_while_the_caller_does_something_else(sqlite: Talk) -> None:
    gate = Gate()
    model = ScriptedModel("Well, ", "yes.", gate, DONE)
    events = sqlite.chat(model).stream("Hi", conversation_id="talk", owner="bob")
    assert await anext(events) == Started("talk")
    await asyncio.wait_for(gate.reached.wait(), 20)
    gate.opened.set()
    assert await collect_events(events) == ["Well, ", "yes.", DONE]
