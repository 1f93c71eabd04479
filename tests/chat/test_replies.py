"""Usage and tool calls stored with a reply, time limits, and models that misbehave."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest

from chatledger.chat import Started
from chatledger.errors import (
    InvalidArgument,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    ReplyNotStored,
)
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.values import Json
from tests.chat.scripted_models import DONE, OVERLOADED, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Caller, Talk, collect_events, take_until

pytestmark = pytest.mark.anyio


def model_using(*counts: int) -> ScriptedModel:
    return ScriptedModel("Well.", Finished("end_turn", Usage(*counts)))


# Usage


async def test_usage_is_the_sum_over_all_replies(talk: Talk) -> None:
    chat = talk.chat(model_using(3, 5, 1, 2))
    await talk.create()
    assert await chat.usage("talk", owner="bob") == Usage(0, 0)
    for n in range(1, 4):
        await chat.send(f"{n}", conversation_id="talk")
        assert await chat.usage("talk", owner="bob") == Usage(3 * n, 5 * n, n, 2 * n)
    assert (await talk.last_reply()).extra["usage"] == {
        "input_tokens": 3,
        "output_tokens": 5,
        "cached_tokens": 1,
        "cache_write_tokens": 2,
    }


async def test_replies_without_usage_add_nothing_and_keep_the_sum(talk: Talk) -> None:
    await talk.create()
    silent = talk.chat(ScriptedModel("Well.", Finished("end_turn")))
    await silent.send("Hi", conversation_id="talk")
    assert await silent.usage("talk") == Usage(0, 0)
    assert "usage" not in (await talk.last_reply()).extra
    await talk.chat(model_using(3, 5)).send("Hi", conversation_id="talk")
    await silent.send("Hi", conversation_id="talk")
    with pytest.raises(ModelUnavailable):
        await talk.chat(ScriptedModel("Well, ", OVERLOADED)).send("Hi", conversation_id="talk")
    await talk.chat(model_using(30, 50)).send("Hi", conversation_id="talk")
    assert await silent.usage("talk") == Usage(33, 55)


async def test_usage_includes_replies_that_were_regenerated(talk: Talk) -> None:
    await talk.chat(model_using(1, 1)).send("Hi", conversation_id="talk", owner="bob")
    await talk.chat(model_using(3, 5)).send("Hi", conversation_id="talk")
    for _ in range(2):
        await collect_events(talk.chat(model_using(30, 50)).regenerate("talk"))
    assert await talk.chat(EchoModel()).usage("talk") == Usage(64, 106)


async def test_usage_includes_replies_that_were_edited_away(talk: Talk) -> None:
    await talk.chat(model_using(3, 5)).send("Hi", conversation_id="talk", owner="bob")
    await talk.chat(model_using(30, 50)).send("Ho", conversation_id="talk")
    seq = await talk.seq_of("Hi")
    await collect_events(talk.chat(model_using(300, 500)).edit("talk", seq, "Hello"))
    assert await talk.chat(EchoModel()).usage("talk") == Usage(333, 555)


async def test_usage_includes_the_old_reply_if_regenerating_fails(talk: Talk) -> None:
    await talk.chat(model_using(3, 5)).send("Hi", conversation_id="talk", owner="bob")
    with pytest.raises(ModelUnavailable):
        await collect_events(talk.chat(ScriptedModel(OVERLOADED)).regenerate("talk"))
    await talk.chat(model_using(30, 50)).send("Ho", conversation_id="talk")
    assert await talk.chat(EchoModel()).usage("talk") == Usage(33, 55)


async def test_usage_includes_what_came_before_a_turn_that_another_process_stopped(
    sqlite: Talk,
) -> None:
    there = sqlite.chat(EchoModel(), time=sqlite.time)
    await there.send("One", conversation_id="talk", owner="bob")
    here = sqlite.chat(ScriptedModel("Well, ", Gate()), time=sqlite.time)
    async with aclosing(here.stream("Two", conversation_id="talk")) as events:
        await take_until(events, "Well, ")
        assert await there.stop("talk")
        await there.send("Three", conversation_id="talk")
        sqlite.time.advance(35)
        assert await collect_events(events) == [Finished("stopped")]
    await there.send("Four", conversation_id="talk")
    assert await there.usage("talk") == Usage(9, 15)


async def test_usage_of_another_owners_conversation_raises_not_found(sqlite: Talk) -> None:
    chat = sqlite.chat(model_using(3, 5))
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


@pytest.mark.parametrize("ids", [["Bern"], ["Bern", "Rome"]], ids=["one", "several"])
async def test_tool_calls_are_stored_with_the_reply_and_answered_in_the_next_turn(
    talk: Talk, ids: list[str]
) -> None:
    tool_use = Finished("tool_use", Usage(3, 5), tool_calls=calls(*ids))
    reply = await talk.chat(ScriptedModel("I look.", tool_use)).send(
        "Weather?", conversation_id="talk", owner="bob"
    )
    assert reply.finished == tool_use
    assert (await talk.last_reply()).tool_calls == list(calls(*ids))

    results = [Message.tool(f"{id}: sunny", tool_call_id=id) for id in ids]
    model = ScriptedModel("Sunny.", DONE)
    await talk.chat(model).send(results if len(results) > 1 else results[0], conversation_id="talk")
    question, call, *seen = model.messages
    assert (question.text, call.text) == ("Weather?", "I look.")
    assert [each["id"] for each in call.tool_calls] == ids
    assert [(each.role, each.tool_call_id, each.text) for each in seen] == [
        ("tool", id, f"{id}: sunny") for id in ids
    ]
    assert await talk.transcript() == [
        ("user", "Weather?"),
        ("assistant", "I look."),
        *(("tool", f"{id}: sunny") for id in ids),
        ("assistant", "Sunny."),
    ]


async def test_tool_results_stored_one_by_one_are_seen_together(sqlite: Talk) -> None:
    tool_use = ScriptedModel(Finished("tool_use", tool_calls=calls("Bern", "Rome")))
    await sqlite.chat(tool_use).send("Weather?", conversation_id="talk", owner="bob")
    await sqlite.append(Message.tool("cold", tool_call_id="Bern"))
    model = ScriptedModel("Rome.", DONE)
    await sqlite.chat(model).send(Message.tool("warm", tool_call_id="Rome"), conversation_id="talk")
    assert [(each.role, each.text) for each in model.messages] == [
        ("user", "Weather?"),
        ("assistant", ""),
        ("tool", "cold"),
        ("tool", "warm"),
    ]


async def test_a_tool_call_without_a_result_is_not_shown_to_the_model(sqlite: Talk) -> None:
    tool_use = ScriptedModel("I look.", Finished("tool_use", tool_calls=calls("Bern")))
    await sqlite.chat(tool_use).send("Weather?", conversation_id="talk", owner="bob")
    model = ScriptedModel("Well.", DONE)
    await sqlite.chat(model).send("Never mind", conversation_id="talk")
    assert all(not each.tool_calls for each in model.messages)
    assert (await sqlite.messages())[1].tool_calls == list(calls("Bern"))


@pytest.mark.parametrize(
    "messages",
    [[], 7, None, Message.assistant("Hi"), [Message.system("Hi")], ["Hi"], [Message.user("a"), 7]],
)
async def test_messages_that_ask_for_no_reply_are_rejected(sqlite: Talk, messages: object) -> None:
    model = EchoModel()
    with pytest.raises(InvalidArgument):
        await sqlite.chat(model).send(messages, conversation_id="talk", owner="bob")  # type: ignore[arg-type]
    assert model.windows == []
    assert (await sqlite.store.list("bob")).conversations == []


async def test_several_user_messages_make_one_turn(sqlite: Talk) -> None:
    model = EchoModel()
    await sqlite.chat(model).send(
        [Message.user("Hi"), Message.user("Ho")], conversation_id="talk", owner="bob"
    )
    assert model.windows == [[("user", "Hi\n\nHo")]]
    assert await sqlite.transcript() == [
        ("user", "Hi"),
        ("user", "Ho"),
        ("assistant", "You said: Hi\n\nHo"),
    ]


# Time limits


async def test_a_silent_model_times_out_and_the_question_stays(talk: Talk) -> None:
    model = ScriptedModel(Gate())
    chat = talk.chat(model, time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert await talk.transcript() == [("user", "Hi")]
    assert (await talk.chat(EchoModel()).send("And now?", conversation_id="talk")).finished == DONE


async def test_the_partial_reply_is_saved_when_the_time_limit_ends(talk: Talk) -> None:
    model = ScriptedModel("Well, ", Gate())
    chat = talk.chat(model, time_limit=timedelta(seconds=0.2), time=talk.time)
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_until(events, "Well, ")
    talk.time.advance(0.2)
    assert await collect_events(events) == [Finished("timed_out")]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, ")]
    assert await talk.stop_reason() == "timed_out"


async def test_the_time_limit_ends_a_turn_whose_model_falls_silent(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel("Well, ", Gate()), time_limit=timedelta(seconds=1))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.task
    assert caller.events == [Started("talk"), "Well, ", Finished("timed_out")]


async def test_a_turn_within_its_time_limit_is_not_affected(sqlite: Talk) -> None:
    chat = sqlite.chat(EchoModel(), time_limit=timedelta(minutes=1))
    assert (await chat.send("Hi", conversation_id="talk", owner="bob")).finished == DONE


async def test_the_time_limit_ends_an_unsaved_turn_too(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel(Gate()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await collect_events(chat.stream_without_saving("Hi"))


@pytest.mark.parametrize("time", [timedelta(), timedelta(seconds=-1)])
async def test_a_lease_or_time_limit_of_zero_or_less_is_rejected(
    sqlite: Talk, time: timedelta
) -> None:
    with pytest.raises(InvalidArgument):
        sqlite.chat(EchoModel(), time_limit=time)
    with pytest.raises(InvalidArgument):
        sqlite.chat(EchoModel(), lease=time)


# Models that misbehave


UNSTORABLE = {
    "too large": ["x" * (9 << 20), "y" * (9 << 20), DONE],
    "a tool call that is not JSON": [
        Finished(
            "tool_use", tool_calls=({"name": "time", "args": {"at": float("nan")}, "id": "1"},)
        )
    ],
}


@pytest.mark.parametrize("script", UNSTORABLE.values(), ids=UNSTORABLE)
async def test_a_reply_that_cannot_be_stored_is_the_models_fault_and_frees_the_conversation(
    talk: Talk, script: list[str | Finished]
) -> None:
    with pytest.raises(ReplyNotStored, match="'talk' cannot be stored") as raised:
        await talk.send(*script)
    assert raised.value.conversation_id == "talk"
    reply = await talk.chat(EchoModel()).send("Hi", conversation_id="talk", owner="bob")
    assert await talk.transcript() == [("user", "Hi"), ("assistant", reply.text)]


async def test_every_text_of_a_model_is_sent_and_stored_without_lone_surrogates(talk: Talk) -> None:
    script = ["half \ud83d of one, ", "and a whole 😀", DONE]
    pieces = ["half � of one, ", "and a whole 😀"]
    events = talk.chat(ScriptedModel(*script)).stream("Hi", conversation_id="talk", owner="bob")
    assert await collect_events(events) == [Started("talk"), *pieces, DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "".join(pieces))]
    unsaved = talk.chat(ScriptedModel(*script)).stream_without_saving("Hi")
    assert await collect_events(unsaved) == [Started(None), *pieces, DONE]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("is_saved", [True, False])
async def test_a_timeout_error_of_the_model_fails_the_turn(
    sqlite: Talk, at_once: bool, is_saved: bool
) -> None:
    gate = Gate()
    script: list[str | Exception | Gate]
    script = [gate, TimeoutError("the socket")] if at_once else ["Well, ", gate, TimeoutError()]
    chat = sqlite.chat(ScriptedModel(*script))
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
    await asyncio.wait({caller.task}, timeout=5)
    assert isinstance(caller.task.exception(), TimeoutError)


@pytest.mark.chat_only
async def test_a_model_call_that_is_cancelled_from_outside_fails_the_turn(sqlite: Talk) -> None:
    gate = Gate()

    class CancelledModel(ScriptedModel):
        async def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
            yield "Well, "
            await gate.opened.wait()
            raise asyncio.CancelledError

    caller = Caller(sqlite.chat(CancelledModel()).stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, ")
    gate.opened.set()
    await asyncio.wait({caller.task}, timeout=5)
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "Well, ")]


@pytest.mark.chat_only
async def test_a_model_that_would_end_the_program_ends_its_turn(talk: Talk) -> None:
    class EndingModel(ScriptedModel):
        async def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
            yield "Well, "
            raise SystemExit(3)

    with pytest.raises(ModelUnavailable, match="interrupted"):
        await talk.chat(EndingModel()).send("Hi", conversation_id="talk", owner="bob")
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, ")]


@pytest.mark.chat_only
async def test_the_reply_is_complete_if_the_caller_leaves_while_the_model_call_ends(
    talk: Talk,
) -> None:
    ending = Gate()

    class LingeringModel(ScriptedModel):
        async def stream(self, messages, *, system_prompt=None):  # type: ignore[no-untyped-def]
            try:
                yield "Well, yes."
                yield DONE
                await asyncio.sleep(60)
            finally:
                await ending.wait()

    chat = talk.chat(LingeringModel())
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await ending.reached.wait()
    await caller.leave()
    ending.opened.set()
    await chat.close()
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, yes.")]
    assert await talk.stop_reason() == "end_turn"
    assert (await talk.chat(EchoModel()).send("And now?", conversation_id="talk")).finished == DONE


@pytest.mark.parametrize(
    "output",
    [b"x", 7, {"text": "x"}, print, Finished("end_turn", {"input_tokens": 1})],  # type: ignore[arg-type]
)
async def test_an_output_of_the_wrong_type_ends_the_turn_and_the_next_one_works(
    sqlite: Talk, output: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TypeError, match="pieces of text"):
        await sqlite.send("Well, ", output, DONE)
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "Well, ")]
    await sqlite.assert_next_turn_works()
    assert capsys.readouterr().out == ""


async def test_an_empty_piece_does_not_count_as_output(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel("", Gate()), time_limit=timedelta(seconds=0.2))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert await sqlite.transcript() == [("user", "Hi")]


@pytest.mark.chat_only
@pytest.mark.parametrize("how", ["closed", "cancelled", "stopped", "timed out"])
async def test_the_call_to_the_model_ends_with_its_turn(sqlite: Talk, how: str) -> None:
    model = ScriptedModel("Well, ", Gate())
    chat = sqlite.chat(model, time_limit=timedelta(seconds=5), time=sqlite.time)
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    if how == "cancelled":
        caller = Caller(events)
        await caller.wait_for("Well, ")
        await caller.leave()
        await chat.close()
    else:
        await take_until(events, "Well, ")
        if how == "stopped":
            await chat.stop("talk")
        sqlite.time.advance(5 if how == "timed out" else 0)
        await (events.aclose() if how == "closed" else collect_events(events))
    assert model.ended_calls == 1


async def test_pieces_produced_at_once_are_yielded_one_by_one(sqlite: Talk) -> None:
    pieces = [f"{n} " for n in range(100)]
    chat = sqlite.chat(ScriptedModel(*pieces, DONE))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        assert await collect_events(events) == [Started("talk"), *pieces, DONE]
