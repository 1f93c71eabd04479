"""What is kept with a reply: what it took, the tools it called; and how long it may take."""

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
    Echo,
    Scripted,
    Time,
    Waits,
    add,
    begin,
    events_of,
    kept,
    reply_to,
    timed,
    until_piece,
)

pytestmark = pytest.mark.anyio


def took(*counts: int) -> Scripted:
    return Scripted("Well.", Finished("end_turn", Usage(*counts)))


# What it took


async def test_what_replies_took_is_added_up(store: AsyncStore) -> None:
    chat = Chat(store, took(3, 5, 1, 2))
    await begin(store)
    assert await chat.usage("talk", owner="bob") == Usage(0, 0)
    for n in range(1, 4):
        await chat.send(f"{n}", conversation_id="talk")
        assert await chat.usage("talk", owner="bob") == Usage(3 * n, 5 * n, n, 2 * n)
    assert (await reply_to(store)).extra["usage"] == {
        "input_tokens": 3,
        "output_tokens": 5,
        "cached_tokens": 1,
        "cache_write_tokens": 2,
    }


async def test_what_models_do_not_say_counts_nothing_and_loses_nothing(store: AsyncStore) -> None:
    await begin(store)
    silent = Chat(store, Scripted("Well.", Finished("end_turn")))
    await silent.send("Hi", conversation_id="talk")
    assert await silent.usage("talk") == Usage(0, 0)
    assert "usage" not in (await reply_to(store)).extra
    await Chat(store, took(3, 5)).send("Hi", conversation_id="talk")
    await silent.send("Hi", conversation_id="talk")
    with pytest.raises(ModelUnavailable):
        await Chat(store, Scripted("Well, ", OVERLOADED)).send("Hi", conversation_id="talk")
    await Chat(store, took(30, 50)).send("Hi", conversation_id="talk")
    assert await silent.usage("talk") == Usage(33, 55)


async def test_what_a_reply_took_that_was_made_anew_counts_too(store: AsyncStore) -> None:
    await Chat(store, took(1, 1)).send("Hi", conversation_id="talk", owner="bob")
    await Chat(store, took(3, 5)).send("Hi", conversation_id="talk")
    for _ in range(2):
        await events_of(Chat(store, took(30, 50)).regenerate("talk"))
    assert await Chat(store, Echo()).usage("talk") == Usage(64, 106)


async def test_what_replies_took_that_were_edited_away_counts_too(store: AsyncStore) -> None:
    await Chat(store, took(3, 5)).send("Hi", conversation_id="talk", owner="bob")
    await Chat(store, took(30, 50)).send("Ho", conversation_id="talk")
    seq = (await store.page("talk")).messages[0].seq
    assert seq is not None
    await events_of(Chat(store, took(300, 500)).edit("talk", seq, "Hello"))
    assert await Chat(store, Echo()).usage("talk") == Usage(333, 555)


async def test_what_a_reply_took_counts_though_the_one_made_anew_fails(store: AsyncStore) -> None:
    await Chat(store, took(3, 5)).send("Hi", conversation_id="talk", owner="bob")
    with pytest.raises(ModelUnavailable):
        await events_of(Chat(store, Scripted(OVERLOADED)).regenerate("talk"))
    await Chat(store, took(30, 50)).send("Ho", conversation_id="talk")
    assert await Chat(store, Echo()).usage("talk") == Usage(33, 55)


async def test_nobody_sees_what_somebody_elses_replies_took(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, took(3, 5))
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


class Sees(Scripted):
    """A model that notes what it is told whole."""

    def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
        self.messages = list(messages)
        return super().stream(messages, system_prompt=system_prompt)


@pytest.mark.parametrize("ids", [["Bern"], ["Bern", "Rome"]], ids=["one", "several"])
async def test_a_reply_that_calls_tools_is_kept_with_the_calls_and_goes_on_with_their_results(
    store: AsyncStore, ids: list[str]
) -> None:
    wants = Finished("tool_use", Usage(3, 5), tool_calls=calls(*ids))
    reply = await Chat(store, Scripted("I look.", wants)).send(
        "Weather?", conversation_id="talk", owner="bob"
    )
    assert reply.finished == wants
    assert (await reply_to(store)).tool_calls == list(calls(*ids))

    results = [Message.tool(f"{id}: sunny", tool_call_id=id) for id in ids]
    model = Sees("Sunny.", DONE)
    await Chat(store, model).send(
        results if len(results) > 1 else results[0], conversation_id="talk"
    )
    question, call, *seen = model.messages
    assert (question.text, call.text) == ("Weather?", "I look.")
    assert [each["id"] for each in call.tool_calls] == ids
    assert [(each.role, each.tool_call_id, each.text) for each in seen] == [
        ("tool", id, f"{id}: sunny") for id in ids
    ]
    assert await kept(store) == [
        ("user", "Weather?"),
        ("assistant", "I look."),
        *(("tool", f"{id}: sunny") for id in ids),
        ("assistant", "Sunny."),
    ]


async def test_results_that_come_one_by_one_are_seen_together(sqlite: AsyncStore) -> None:
    wants = Scripted(Finished("tool_use", tool_calls=calls("Bern", "Rome")))
    await Chat(sqlite, wants).send("Weather?", conversation_id="talk", owner="bob")
    await add(sqlite, Message.tool("cold", tool_call_id="Bern"))
    model = Sees("Rome.", DONE)
    await Chat(sqlite, model).send(
        Message.tool("warm", tool_call_id="Rome"), conversation_id="talk"
    )
    assert [(each.role, each.text) for each in model.messages] == [
        ("user", "Weather?"),
        ("assistant", ""),
        ("tool", "cold"),
        ("tool", "warm"),
    ]


async def test_a_call_that_nobody_answers_is_not_shown_to_the_model(sqlite: AsyncStore) -> None:
    wants = Scripted("I look.", Finished("tool_use", tool_calls=calls("Bern")))
    await Chat(sqlite, wants).send("Weather?", conversation_id="talk", owner="bob")
    model = Sees("Well.", DONE)
    await Chat(sqlite, model).send("Never mind", conversation_id="talk")
    assert all(not each.tool_calls for each in model.messages)
    assert (await sqlite.page("talk")).messages[1].tool_calls == list(calls("Bern"))


@pytest.mark.parametrize(
    "messages",
    [[], 7, None, Message.assistant("Hi"), [Message.system("Hi")], ["Hi"], [Message.user("a"), 7]],
)
async def test_what_asks_for_no_reply_is_refused(sqlite: AsyncStore, messages: object) -> None:
    model = Echo()
    with pytest.raises(InvalidArgument):
        await Chat(sqlite, model).send(messages, conversation_id="talk", owner="bob")  # type: ignore[arg-type]
    assert model.asked == []
    assert (await sqlite.list("bob")).conversations == []


async def test_several_messages_of_the_user_are_one_turn(sqlite: AsyncStore) -> None:
    model = Echo()
    await Chat(sqlite, model).send(
        [Message.user("Hi"), Message.user("Ho")], conversation_id="talk", owner="bob"
    )
    assert await kept(sqlite) == [("user", "Hi"), ("user", "Ho"), ("assistant", model_said(model))]


def model_said(model: Scripted) -> str:
    return f"You said: {model.asked[0][-1][1]}"


# How long it may take


async def test_a_model_that_is_silent_for_too_long_has_failed_and_the_question_stays(
    store: AsyncStore,
) -> None:
    model = Scripted(Waits())
    chat = Chat(store, model, time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert model.calls_ended == 1
    assert await kept(store) == [("user", "Hi")]
    assert (await Chat(store, Echo()).send("And now?", conversation_id="talk")).finished == DONE


async def test_a_reply_that_takes_too_long_is_kept_as_far_as_it_came(store: AsyncStore) -> None:
    model = Scripted("Well, ", Waits())
    time = Time()
    chat = timed(Chat(store, model, time_limit=timedelta(seconds=0.2)), time)
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await until_piece(events, "Well, ")
    time.passes(0.2)
    assert await events_of(events) == [Finished("timed_out")]
    assert model.calls_ended == 1
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await reply_to(store)).extra["stop_reason"] == "timed_out"


async def test_the_time_of_a_turn_ends_while_its_model_is_silent(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, Scripted("Well, ", Waits()), time_limit=timedelta(seconds=1))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.task
    assert caller.seen == [Started("talk"), "Well, ", Finished("timed_out")]


async def test_a_turn_in_time_is_not_touched_by_its_limit(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, Echo(), time_limit=timedelta(minutes=1))
    assert (await chat.send("Hi", conversation_id="talk", owner="bob")).finished == DONE


async def test_a_turn_that_is_not_kept_ends_in_time_too(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, Scripted(Waits()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await events_of(chat.stream_unkept("Hi"))


@pytest.mark.parametrize("time", [timedelta(), timedelta(seconds=-1)])
async def test_no_time_at_all_is_refused(sqlite: AsyncStore, time: timedelta) -> None:
    with pytest.raises(InvalidArgument):
        Chat(sqlite, Echo(), time_limit=time)
    with pytest.raises(InvalidArgument):
        Chat(sqlite, Echo(), lease=time)


# A model that misbehaves


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("kept_turn", [True, False])
async def test_a_models_own_timeout_is_its_failure(
    sqlite: AsyncStore, at_once: bool, kept_turn: bool
) -> None:
    waits = Waits()
    script: list[str | Exception | Waits]
    script = [waits, TimeoutError("the socket")] if at_once else ["Well, ", waits, TimeoutError()]
    chat = Chat(sqlite, Scripted(*script))
    turn = (
        chat.stream("Hi", conversation_id="talk", owner="bob")
        if kept_turn
        else chat.stream_unkept("Hi")
    )
    caller = Caller(turn)
    await caller.until(Started("talk" if kept_turn else None))
    await waits.reached.wait()
    if not at_once:
        await caller.until("Well, ")
    waits.over.set()
    assert await ends_by_itself(caller), "the turn goes on for ever"
    assert isinstance(caller.task.exception(), TimeoutError)


async def test_a_model_whose_call_is_cancelled_by_others_has_failed(sqlite: AsyncStore) -> None:
    waits = Waits()

    class Cancelled(Scripted):
        async def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
            yield "Well, "
            await waits.over.wait()
            raise asyncio.CancelledError

    caller = Caller(Chat(sqlite, Cancelled()).stream("Hi", conversation_id="talk", owner="bob"))
    await caller.until("Well, ")
    waits.over.set()
    assert await ends_by_itself(caller), "the turn goes on for ever"
    assert await kept(sqlite) == [("user", "Hi"), ("assistant", "Well, ")]


async def test_a_caller_who_leaves_while_the_call_to_the_model_ends_loses_nothing(
    store: AsyncStore,
) -> None:
    ends, ended = Waits(), Waits()

    class Lingers(Scripted):
        async def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
            try:
                yield "Well, yes."
                yield DONE
                await asyncio.sleep(60)
            finally:
                ends.reached.set()
                await ended.over.wait()

    chat = Chat(store, Lingers())
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await ends.reached.wait()
    caller.task.cancel()
    await asyncio.wait({caller.task}, timeout=20)
    ended.over.set()
    await chat.close()
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, yes.")]
    assert (await reply_to(store)).extra["stop_reason"] == "end_turn"
    assert (await Chat(store, Echo()).send("And now?", conversation_id="talk")).finished == DONE


async def ends_by_itself(caller: Caller) -> bool:
    await asyncio.wait({caller.task}, timeout=2)
    if caller.task.done():
        return True
    caller.task.cancel()
    await asyncio.wait({caller.task}, timeout=2)
    return False


async def test_pieces_that_are_said_at_once_come_one_by_one(sqlite: AsyncStore) -> None:
    pieces = [f"{n} " for n in range(100)]
    chat = Chat(sqlite, Scripted(*pieces, DONE))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        assert await events_of(events) == [Started("talk"), *pieces, DONE]
