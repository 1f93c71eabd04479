"""Usage and tool calls stored with a reply, time limits, and models that misbehave."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest

from chatledger.chat import Chat, Started
from chatledger.errors import InvalidArgument, ModelTimeout, ModelUnavailable, NotFound
from chatledger.json_values import Json
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.stores.contract import AsyncStore
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    Caller,
    EchoModel,
    FakeTime,
    Gate,
    ScriptedModel,
    append_messages,
    collect_events,
    create_conversation,
    last_reply,
    take_until,
    transcript,
    with_time,
)

pytestmark = pytest.mark.anyio


def model_using(*counts: int) -> ScriptedModel:
    return ScriptedModel("Well.", Finished("end_turn", Usage(*counts)))


# Usage


async def test_usage_is_the_sum_over_all_replies(store: AsyncStore) -> None:
    chat = Chat(store, model_using(3, 5, 1, 2))
    await create_conversation(store)
    assert await chat.usage("talk", owner="bob") == Usage(0, 0)
    for n in range(1, 4):
        await chat.send(f"{n}", conversation_id="talk")
        assert await chat.usage("talk", owner="bob") == Usage(3 * n, 5 * n, n, 2 * n)
    assert (await last_reply(store)).extra["usage"] == {
        "input_tokens": 3,
        "output_tokens": 5,
        "cached_tokens": 1,
        "cache_write_tokens": 2,
    }


async def test_replies_without_usage_add_nothing_and_keep_the_sum(store: AsyncStore) -> None:
    await create_conversation(store)
    silent = Chat(store, ScriptedModel("Well.", Finished("end_turn")))
    await silent.send("Hi", conversation_id="talk")
    assert await silent.usage("talk") == Usage(0, 0)
    assert "usage" not in (await last_reply(store)).extra
    await Chat(store, model_using(3, 5)).send("Hi", conversation_id="talk")
    await silent.send("Hi", conversation_id="talk")
    with pytest.raises(ModelUnavailable):
        await Chat(store, ScriptedModel("Well, ", OVERLOADED)).send("Hi", conversation_id="talk")
    await Chat(store, model_using(30, 50)).send("Hi", conversation_id="talk")
    assert await silent.usage("talk") == Usage(33, 55)


async def test_usage_includes_replies_that_were_regenerated(store: AsyncStore) -> None:
    await Chat(store, model_using(1, 1)).send("Hi", conversation_id="talk", owner="bob")
    await Chat(store, model_using(3, 5)).send("Hi", conversation_id="talk")
    for _ in range(2):
        await collect_events(Chat(store, model_using(30, 50)).regenerate("talk"))
    assert await Chat(store, EchoModel()).usage("talk") == Usage(64, 106)


async def test_usage_includes_replies_that_were_edited_away(store: AsyncStore) -> None:
    await Chat(store, model_using(3, 5)).send("Hi", conversation_id="talk", owner="bob")
    await Chat(store, model_using(30, 50)).send("Ho", conversation_id="talk")
    seq = (await store.page("talk")).messages[0].seq
    assert seq is not None
    await collect_events(Chat(store, model_using(300, 500)).edit("talk", seq, "Hello"))
    assert await Chat(store, EchoModel()).usage("talk") == Usage(333, 555)


async def test_usage_includes_the_old_reply_if_regenerating_fails(store: AsyncStore) -> None:
    await Chat(store, model_using(3, 5)).send("Hi", conversation_id="talk", owner="bob")
    with pytest.raises(ModelUnavailable):
        await collect_events(Chat(store, ScriptedModel(OVERLOADED)).regenerate("talk"))
    await Chat(store, model_using(30, 50)).send("Ho", conversation_id="talk")
    assert await Chat(store, EchoModel()).usage("talk") == Usage(33, 55)


async def test_usage_of_another_owners_conversation_raises_not_found(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, model_using(3, 5))
    await chat.send("Hi", conversation_id="talk", owner="bob")
    with pytest.raises(NotFound):
        await chat.usage("talk", owner="eve")
    with pytest.raises(NotFound):
        await chat.usage("elsewhere")


# Tools


def calls(*ids: str) -> Sequence[dict[str, Json]]:
    return tuple(
        {"id": id, "name": "weather", "args": {"city": id}, "type": "tool_call"} for id in ids
    )


class RecordingModel(ScriptedModel):
    """A model that records the messages that it gets."""

    def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
        self.messages = list(messages)
        return super().stream(messages, system_prompt=system_prompt)


@pytest.mark.parametrize("ids", [["Bern"], ["Bern", "Rome"]], ids=["one", "several"])
async def test_tool_calls_are_stored_with_the_reply_and_answered_in_the_next_turn(
    store: AsyncStore, ids: list[str]
) -> None:
    tool_use = Finished("tool_use", Usage(3, 5), tool_calls=calls(*ids))
    reply = await Chat(store, ScriptedModel("I look.", tool_use)).send(
        "Weather?", conversation_id="talk", owner="bob"
    )
    assert reply.finished == tool_use
    assert (await last_reply(store)).tool_calls == list(calls(*ids))

    results = [Message.tool(f"{id}: sunny", tool_call_id=id) for id in ids]
    model = RecordingModel("Sunny.", DONE)
    await Chat(store, model).send(
        results if len(results) > 1 else results[0], conversation_id="talk"
    )
    question, call, *seen = model.messages
    assert (question.text, call.text) == ("Weather?", "I look.")
    assert [each["id"] for each in call.tool_calls] == ids
    assert [(each.role, each.tool_call_id, each.text) for each in seen] == [
        ("tool", id, f"{id}: sunny") for id in ids
    ]
    assert await transcript(store) == [
        ("user", "Weather?"),
        ("assistant", "I look."),
        *(("tool", f"{id}: sunny") for id in ids),
        ("assistant", "Sunny."),
    ]


async def test_tool_results_stored_one_by_one_are_seen_together(sqlite: AsyncStore) -> None:
    tool_use = ScriptedModel(Finished("tool_use", tool_calls=calls("Bern", "Rome")))
    await Chat(sqlite, tool_use).send("Weather?", conversation_id="talk", owner="bob")
    await append_messages(sqlite, Message.tool("cold", tool_call_id="Bern"))
    model = RecordingModel("Rome.", DONE)
    await Chat(sqlite, model).send(
        Message.tool("warm", tool_call_id="Rome"), conversation_id="talk"
    )
    assert [(each.role, each.text) for each in model.messages] == [
        ("user", "Weather?"),
        ("assistant", ""),
        ("tool", "cold"),
        ("tool", "warm"),
    ]


async def test_a_tool_call_without_a_result_is_not_shown_to_the_model(sqlite: AsyncStore) -> None:
    tool_use = ScriptedModel("I look.", Finished("tool_use", tool_calls=calls("Bern")))
    await Chat(sqlite, tool_use).send("Weather?", conversation_id="talk", owner="bob")
    model = RecordingModel("Well.", DONE)
    await Chat(sqlite, model).send("Never mind", conversation_id="talk")
    assert all(not each.tool_calls for each in model.messages)
    assert (await sqlite.page("talk")).messages[1].tool_calls == list(calls("Bern"))


@pytest.mark.parametrize(
    "messages",
    [[], 7, None, Message.assistant("Hi"), [Message.system("Hi")], ["Hi"], [Message.user("a"), 7]],
)
async def test_messages_that_ask_for_no_reply_are_rejected(
    sqlite: AsyncStore, messages: object
) -> None:
    model = EchoModel()
    with pytest.raises(InvalidArgument):
        await Chat(sqlite, model).send(messages, conversation_id="talk", owner="bob")  # type: ignore[arg-type]
    assert model.windows == []
    assert (await sqlite.list("bob")).conversations == []


async def test_several_user_messages_make_one_turn(sqlite: AsyncStore) -> None:
    model = EchoModel()
    await Chat(sqlite, model).send(
        [Message.user("Hi"), Message.user("Ho")], conversation_id="talk", owner="bob"
    )
    assert await transcript(sqlite) == [
        ("user", "Hi"),
        ("user", "Ho"),
        ("assistant", echo_of(model)),
    ]


def echo_of(model: ScriptedModel) -> str:
    return f"You said: {model.windows[0][-1][1]}"


# Time limits


async def test_a_silent_model_times_out_and_the_question_stays(store: AsyncStore) -> None:
    model = ScriptedModel(Gate())
    chat = Chat(store, model, time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert model.ended_calls == 1
    assert await transcript(store) == [("user", "Hi")]
    assert (
        await Chat(store, EchoModel()).send("And now?", conversation_id="talk")
    ).finished == DONE


async def test_the_partial_reply_is_saved_when_the_time_limit_ends(store: AsyncStore) -> None:
    model = ScriptedModel("Well, ", Gate())
    time = FakeTime()
    chat = with_time(Chat(store, model, time_limit=timedelta(seconds=0.2)), time)
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_until(events, "Well, ")
    time.advance(0.2)
    assert await collect_events(events) == [Finished("timed_out")]
    assert model.ended_calls == 1
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await last_reply(store)).extra["stop_reason"] == "timed_out"


async def test_the_time_limit_ends_a_turn_whose_model_falls_silent(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, ScriptedModel("Well, ", Gate()), time_limit=timedelta(seconds=1))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.task
    assert caller.events == [Started("talk"), "Well, ", Finished("timed_out")]


async def test_a_turn_within_its_time_limit_is_not_affected(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, EchoModel(), time_limit=timedelta(minutes=1))
    assert (await chat.send("Hi", conversation_id="talk", owner="bob")).finished == DONE


async def test_the_time_limit_ends_an_unsaved_turn_too(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, ScriptedModel(Gate()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await collect_events(chat.stream_without_saving("Hi"))


@pytest.mark.parametrize("time", [timedelta(), timedelta(seconds=-1)])
async def test_a_lease_or_time_limit_of_zero_or_less_is_rejected(
    sqlite: AsyncStore, time: timedelta
) -> None:
    with pytest.raises(InvalidArgument):
        Chat(sqlite, EchoModel(), time_limit=time)
    with pytest.raises(InvalidArgument):
        Chat(sqlite, EchoModel(), lease=time)


# Models that misbehave


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("is_saved", [True, False])
async def test_a_timeout_error_of_the_model_fails_the_turn(
    sqlite: AsyncStore, at_once: bool, is_saved: bool
) -> None:
    gate = Gate()
    script: list[str | Exception | Gate]
    script = [gate, TimeoutError("the socket")] if at_once else ["Well, ", gate, TimeoutError()]
    chat = Chat(sqlite, ScriptedModel(*script))
    turn = (
        chat.stream("Hi", conversation_id="talk", owner="bob")
        if is_saved
        else chat.stream_without_saving("Hi")
    )
    caller = Caller(turn)
    await caller.wait_for(Started("talk" if is_saved else None))
    await gate.reached.wait()
    if not at_once:
        await caller.wait_for("Well, ")
    gate.opened.set()
    assert await has_ended(caller), "the turn did not end"
    assert isinstance(caller.task.exception(), TimeoutError)


async def test_a_model_call_that_is_cancelled_from_outside_fails_the_turn(
    sqlite: AsyncStore,
) -> None:
    gate = Gate()

    class CancelledModel(ScriptedModel):
        async def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
            yield "Well, "
            await gate.opened.wait()
            raise asyncio.CancelledError

    caller = Caller(
        Chat(sqlite, CancelledModel()).stream("Hi", conversation_id="talk", owner="bob")
    )
    await caller.wait_for("Well, ")
    gate.opened.set()
    assert await has_ended(caller), "the turn did not end"
    assert await transcript(sqlite) == [("user", "Hi"), ("assistant", "Well, ")]


async def test_the_reply_is_complete_if_the_caller_leaves_while_the_model_call_ends(
    store: AsyncStore,
) -> None:
    ends, ended = Gate(), Gate()

    class LingeringModel(ScriptedModel):
        async def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
            try:
                yield "Well, yes."
                yield DONE
                await asyncio.sleep(60)
            finally:
                ends.reached.set()
                await ended.opened.wait()

    chat = Chat(store, LingeringModel())
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await ends.reached.wait()
    caller.task.cancel()
    await asyncio.wait({caller.task}, timeout=20)
    ended.opened.set()
    await chat.close()
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, yes.")]
    assert (await last_reply(store)).extra["stop_reason"] == "end_turn"
    assert (
        await Chat(store, EchoModel()).send("And now?", conversation_id="talk")
    ).finished == DONE


async def has_ended(caller: Caller) -> bool:
    await asyncio.wait({caller.task}, timeout=2)
    if caller.task.done():
        return True
    caller.task.cancel()
    await asyncio.wait({caller.task}, timeout=2)
    return False


async def test_pieces_produced_at_once_are_yielded_one_by_one(sqlite: AsyncStore) -> None:
    pieces = [f"{n} " for n in range(100)]
    chat = Chat(sqlite, ScriptedModel(*pieces, DONE))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        assert await collect_events(events) == [Started("talk"), *pieces, DONE]
