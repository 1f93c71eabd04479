"""Leases: one turn of a conversation runs at a time, and however it ends, the next one works."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from chatledger.chat import DEFAULT_LEASE, Started
from chatledger.errors import (
    ClockSkewed,
    ModelTimeout,
    ModelUnavailable,
    ReplyNotStored,
    TurnInProgress,
)
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from chatledger.stores.urls import open_async_store
from chatledger.values import Json, new_id
from chatledger.windows import last
from tests.chat.scripted_models import DONE, OVERLOADED, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Caller, Talk, collect_events, take_until
from tests.chat.watched_store import FakeTime

pytestmark = pytest.mark.anyio

ROUNDS = 10


def model_saying(*script: str) -> ScriptedModel:
    return ScriptedModel(*script, DONE)


async def assert_turn_in_progress(
    talk: Talk, time: FakeTime | None = None, text: str = "Me too"
) -> float:
    """Assert that another turn is rejected; return its ``retry_after``."""
    rival = talk.chat(EchoModel(), time=time or FakeTime())
    before = await talk.transcript()
    with pytest.raises(TurnInProgress) as rejected:
        await rival.send(text, conversation_id="talk", owner="bob")
    assert await talk.transcript() == before
    return rejected.value.retry_after


# Simultaneous turns


@pytest.mark.parametrize("exists", [True, False], ids=["existing conversation", "new conversation"])
async def test_only_one_of_two_simultaneous_turns_runs_and_nothing_of_the_other_is_stored(
    talk: Talk, reopened: AsyncStore, exists: bool
) -> None:
    for n in range(ROUNDS):
        id = f"talk {n}"
        if exists:
            await talk.store.create(id, owner="bob")
        gate = Gate()
        model = ScriptedModel("Hello", gate, DONE)
        turns = [
            asyncio.create_task(chat.send(f"from {which}", conversation_id=id, owner="bob"))
            for which, chat in enumerate([talk.chat(model), talk.chat(model, store=reopened)])
        ]
        ended, running = await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        assert (len(ended), len(running)) == (1, 1)
        with pytest.raises(TurnInProgress):
            await ended.pop()
        gate.opened.set()
        [winner] = running
        assert (await winner).text == "Hello"
        question = f"from {turns.index(winner)}"
        assert await talk.transcript(id) == [("user", question), ("assistant", "Hello")]


async def test_retry_after_is_two_seconds_or_what_remains_of_the_lease(sqlite: Talk) -> None:
    chat = sqlite.chat(model_saying("Well, ", "yes."), time=sqlite.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        for passed, remaining in ((0, 2), (59, 1), (0.999, 0.001)):
            sqlite.time.advance(passed)
            assert await assert_turn_in_progress(sqlite, time=sqlite.time) == pytest.approx(
                remaining, abs=0.0005
            )


async def test_only_one_of_many_simultaneous_turns_gets_a_reply(
    talk: Talk, reopened: AsyncStore
) -> None:
    await talk.create()
    gate = Gate()
    model = ScriptedModel("Hello", gate, DONE)
    chats = [talk.chat(model), talk.chat(model, store=reopened)]
    turns = [
        asyncio.create_task(chats[n % 2].send(f"{n}", conversation_id="talk")) for n in range(12)
    ]
    running = set(turns)
    while len(running) > 1:
        ended, running = await asyncio.wait(
            running, return_when=asyncio.FIRST_COMPLETED, timeout=20
        )
        for turn in ended:
            with pytest.raises(TurnInProgress):
                await turn
    gate.opened.set()
    [winner] = running
    await winner
    question = f"{turns.index(winner)}"
    assert await talk.transcript() == [("user", question), ("assistant", "Hello")]


# The process of a turn dies


async def test_an_abandoned_turn_blocks_others_only_until_its_lease_ends(talk: Talk) -> None:
    abandoned = talk.chat(EchoModel(), time=talk.time)
    events = abandoned.stream("Hi", conversation_id="talk", owner="bob")
    assert await anext(events) == Started("talk")  # and takes no more events until the end
    talk.time.advance(59.9)
    assert await assert_turn_in_progress(talk, time=talk.time) == pytest.approx(0.1)
    talk.time.advance(0.1)
    rival = talk.chat(EchoModel(), time=talk.time)
    assert (await rival.send("Me too", conversation_id="talk")).text == "You said: Hi\n\nMe too"
    await events.aclose()


async def run_turn_until_mid_reply(url: str) -> asyncio.subprocess.Process:
    """Start a process that runs a turn, and return it once the turn is in mid-reply."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.chat.crash_process", url]
    process = await asyncio.create_subprocess_exec(*command, cwd=root, stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = [await asyncio.wait_for(process.stdout.readline(), 20) for _ in range(2)]
    assert lines[0].startswith(b"Started(conversation_id='talk'")
    assert lines[1] == b"'Well, '\n"
    return process


async def kill(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.chat_only
async def test_the_turn_of_a_killed_process_of_this_machine_blocks_nobody(
    url: str, talk: Talk
) -> None:
    process = await run_turn_until_mid_reply(url)
    try:
        await assert_turn_in_progress(talk)
    finally:
        await kill(process)
    assert await talk.transcript() == [("user", "Hi")]
    assert not await talk.chat(EchoModel()).stop("talk")
    model = EchoModel()
    # The user sends the same message again: it is stored once.
    await talk.chat(model).send("Hi", conversation_id="talk", owner="bob")
    assert model.windows == [[("user", "Hi")]]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


HOLDERS: dict[str, dict[str, Json]] = {
    "of another machine": {"by": "0123456789ab-1-1"},
    "of an earlier turn": {"reply": new_id()},  # versions without "by" leave it when they ask again
    "not named": {"by": None},
    "malformed": {"by": "x"},
}


@pytest.mark.chat_only
@pytest.mark.parametrize("changes", HOLDERS.values(), ids=HOLDERS)
async def test_the_turn_of_an_unknown_process_blocks_others_until_its_lease_ends(
    url: str, talk: Talk, changes: dict[str, Json]
) -> None:
    await kill(await run_turn_until_mid_reply(url))
    [question] = await talk.messages()
    turn = question.extra["turn"]
    assert isinstance(turn, dict)
    changed = replace(question, extra={"turn": {**turn, **changes}})
    await talk.store.replace("talk", question.seq, changed)
    await assert_turn_in_progress(talk)
    later = FakeTime()
    async with open_async_store(url) as store:
        lease = DEFAULT_LEASE + store.clock_difference
    later.advance(lease.total_seconds() + 1)
    await talk.chat(EchoModel(), time=later).send("Hi", conversation_id="talk", owner="bob")
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_renewed_lease_still_names_its_process_and_an_ended_one_does_not(
    sqlite: Talk,
) -> None:
    chat = sqlite.chat(ScriptedModel("Well, ", "I ", OVERLOADED), time=sqlite.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        [question] = await sqlite.messages()
        sqlite.time.advance(35)
        await take_until(events, "I ")
        [renewed] = await sqlite.messages()
        before, after = question.extra["turn"], renewed.extra["turn"]
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        assert {**before, "until": after["until"]} == after
        assert before["until"] != after["until"]
    with pytest.raises(ModelUnavailable):
        await sqlite.send(OVERLOADED, text="And now?")
    assert (await sqlite.messages())[-1].extra["turn"].keys() == {"reply", "ended"}  # type: ignore[union-attr]


# Renewals


async def test_a_turn_that_takes_longer_than_its_lease_renews_it(talk: Talk) -> None:
    pieces = [f"{n} " for n in range(6)]
    chat = talk.chat(model_saying(*pieces), time=talk.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        for piece in pieces:
            await take_until(events, piece)
            assert await assert_turn_in_progress(talk, time=talk.time) > 0
            talk.time.advance(35)
        assert await collect_events(events) == [DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "".join(pieces))]
    await talk.assert_next_turn_works()


async def test_a_rival_whose_clock_is_ahead_by_all_that_passes_waits_for_the_renewal(
    url: str, talk: Talk
) -> None:
    async with open_async_store(url) as store:
        difference = store.clock_difference.total_seconds()
        assert difference == (10 if url.startswith("dynamodb:") else 0)
        ahead = FakeTime()
        ahead.advance(difference)
        chat = talk.chat(model_saying("Well, ", "yes."), store=store, time=talk.time)
        async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
            await take_until(events, "Well, ")
            for time in (talk.time, ahead):
                time.advance(59)  # all of the lease but a second
            await assert_turn_in_progress(talk, time=ahead)
            assert await collect_events(events) == ["yes.", DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, yes.")]


async def test_no_turn_begins_on_a_skewed_clock_and_a_running_one_saves_its_reply(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> timedelta:
        raise ClockSkewed(20)

    chat = talk.chat(model_saying("Well, ", "yes."))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")  # the question and its lease are stored
        monkeypatch.setattr(type(talk.store), "clock_difference", property(refuse))
        with pytest.raises(ClockSkewed):
            await talk.chat(EchoModel()).send("Hi", conversation_id="other", owner="bob")
        assert await collect_events(events) == ["yes.", DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, yes.")]
    assert await talk.transcript("other") == []


async def test_a_turn_whose_model_is_silent_for_longer_than_the_lease_renews_it(talk: Talk) -> None:
    gate, start = Gate(), FakeTime()
    chat = talk.watched_chat(
        ScriptedModel("Well, ", gate, "yes.", DONE), lease=timedelta(seconds=0.6)
    )
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await gate.reached.wait()
    await talk.watched.wait_for_calls("replace", 4)
    # With a renewal at each half, the first lease (0.6 s) has ended and this one ends at 1.8 s.
    start.advance(1)
    fixed = start.clock()
    start.clock = lambda: fixed  # type: ignore[method-assign]
    await assert_turn_in_progress(talk, time=start)
    gate.opened.set()
    await caller.task
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, yes.")]


async def test_a_renewal_that_fails_does_not_end_the_turn(talk: Talk) -> None:
    talk.watched.fail("replace", 0)
    chat = talk.watched_chat(model_saying("Well, ", "I ", "say ", "yes."), time=talk.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        talk.time.advance(35)
        await take_until(events, "I ")
        assert "replace" in talk.watched.requests
        talk.watched.clear_actions()
        talk.time.advance(15)
        await take_until(events, "say ")
        talk.time.advance(25)  # the first lease has ended, the renewed one has not
        await assert_turn_in_progress(talk, time=talk.time)
        assert await collect_events(events) == ["yes.", DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, I say yes.")]
    await talk.assert_next_turn_works()


async def test_a_renewal_whose_response_is_lost_does_not_end_the_turn(talk: Talk) -> None:
    talk.watched.lose_response("replace", 1)
    chat = talk.watched_chat(model_saying("Well, ", "I ", "say ", "yes."), time=talk.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        for piece in ("Well, ", "I ", "say "):
            await take_until(events, piece)
            talk.time.advance(35)
        assert await collect_events(events) == ["yes.", DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, I say yes.")]
    await talk.assert_next_turn_works()


# All endings of a turn


async def finish(talk: Talk) -> None:
    await talk.chat(EchoModel()).send("Hi", conversation_id="talk")


async def fail_at_once(talk: Talk) -> None:
    with pytest.raises(ModelUnavailable):
        await talk.chat(ScriptedModel(OVERLOADED)).send("Hi", conversation_id="talk")


async def fail_in_mid_reply(talk: Talk) -> None:
    with pytest.raises(ModelUnavailable):
        await talk.chat(ScriptedModel("Well, ", OVERLOADED)).send("Hi", conversation_id="talk")


async def stop_at_once(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel(Gate()))
    events = chat.stream("Hi", conversation_id="talk")
    assert await anext(events) == Started("talk")
    assert await chat.stop("talk")
    assert await collect_events(events) == [Finished("stopped")]


async def stop_in_mid_reply(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Well, ", Gate()))
    events = chat.stream("Hi", conversation_id="talk")
    await take_until(events, "Well, ")
    assert await chat.stop("talk")
    assert await collect_events(events) == [Finished("stopped")]


async def leave_at_once(talk: Talk) -> None:
    async with aclosing(
        talk.chat(ScriptedModel(Gate())).stream("Hi", conversation_id="talk")
    ) as events:
        assert await anext(events) == Started("talk")


async def leave_in_mid_reply(talk: Talk) -> None:
    async with aclosing(
        talk.chat(ScriptedModel("Well, ", Gate())).stream("Hi", conversation_id="talk")
    ) as events:
        await take_until(events, "Well, ")


async def cancel(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Well, ", Gate()))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await caller.wait_for("Well, ")
    await caller.leave()
    await chat.close()


async def time_out_at_once(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel(Gate()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk")


async def time_out_in_mid_reply(talk: Talk) -> None:
    time = FakeTime()
    chat = talk.chat(ScriptedModel("Well, ", Gate()), time_limit=timedelta(seconds=5), time=time)
    events = chat.stream("Hi", conversation_id="talk")
    await take_until(events, "Well, ")
    time.advance(5)
    assert await collect_events(events) == [Finished("timed_out")]


async def reply_with_what_cannot_be_stored(talk: Talk) -> None:
    calls: list[dict[str, Json]] = [{"name": "x", "args": {"n": float("nan")}, "id": "1"}]
    model = ScriptedModel("Well, ", Finished("tool_use", tool_calls=calls))
    with pytest.raises(ReplyNotStored):
        await talk.chat(model).send("Hi", conversation_id="talk")


ENDINGS = [
    finish,
    fail_at_once,
    fail_in_mid_reply,
    stop_at_once,
    stop_in_mid_reply,
    leave_at_once,
    leave_in_mid_reply,
    pytest.param(cancel, marks=pytest.mark.chat_only),
    time_out_at_once,
    time_out_in_mid_reply,
    reply_with_what_cannot_be_stored,
]


@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
async def test_however_a_turn_ends_the_next_one_works_at_once(
    talk: Talk, end: Callable[[Talk], Awaitable[None]]
) -> None:
    await talk.create()
    await end(talk)
    await talk.assert_next_turn_works()
    await talk.assert_next_turn_works()


# Other writers during a turn


@pytest.mark.parametrize(
    "other_message",
    [
        Message.user("Are you there?"),
        Message.assistant("I am another bot."),
        Message.assistant("A bot of another framework.", extra={"turn": 7}),
    ],
    ids=["user message", "reply", "own turn in extra"],
)
@pytest.mark.parametrize("window", [1, 20])
async def test_messages_appended_after_the_question_do_not_end_the_lease(
    talk: Talk, other_message: Message, window: int
) -> None:
    chat = talk.chat(model_saying("Well, ", "yes."))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        await talk.append(other_message)
        rival = talk.chat(EchoModel(), window=last(window))
        with pytest.raises(TurnInProgress):
            await rival.send("Me too", conversation_id="talk")
        assert await collect_events(events) == ["yes.", DONE]
    await talk.assert_next_turn_works()


async def test_a_turn_whose_lease_ended_still_saves_its_reply_after_another_turn(
    talk: Talk,
) -> None:
    slow = talk.chat(model_saying("Well, ", "yes."), time=talk.time)
    async with aclosing(slow.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        talk.time.advance(61)
        fast = talk.chat(EchoModel(), time=talk.time)
        await fast.send("Are you there?", conversation_id="talk")
        assert await collect_events(events) == ["yes.", DONE]
    assert await talk.transcript() == [
        ("user", "Hi"),
        ("user", "Are you there?"),
        ("assistant", "You said: Hi\n\nAre you there?"),
        ("assistant", "Well, yes."),
    ]
    await talk.assert_next_turn_works()


@pytest.mark.parametrize("first", ["the lapsed one", "the other"])
async def test_the_next_turn_works_after_a_turn_without_a_lease_and_a_retry_of_its_message(
    talk: Talk, first: str
) -> None:
    slow = talk.chat(model_saying("Well, ", "yes."), time=talk.time)
    fast = talk.chat(model_saying("Oh, ", "no."), time=talk.time)
    async with (
        aclosing(slow.stream("Hi", conversation_id="talk", owner="bob")) as lapsed,
        aclosing(fast.stream("Hi", conversation_id="talk", owner="bob")) as other,
    ):
        await take_until(lapsed, "Well, ")
        talk.time.advance(61)
        await take_until(other, "Oh, ")
        turns = [lapsed, other] if first == "the lapsed one" else [other, lapsed]
        for turn in turns:
            await collect_events(turn)
    reply = await talk.chat(EchoModel(), time=talk.time).send("And now?", conversation_id="talk")
    assert reply.finished == DONE


async def test_the_failure_of_a_turn_whose_lease_ended_does_not_release_a_newer_lease(
    talk: Talk,
) -> None:
    failing = talk.chat(ScriptedModel(OVERLOADED), time=talk.time)
    fast = talk.chat(model_saying("Oh, ", "no."), time=talk.time)
    async with (
        aclosing(failing.stream("Hi", conversation_id="talk", owner="bob")) as lapsed,
        aclosing(fast.stream("Hi", conversation_id="talk", owner="bob")) as other,
    ):
        assert await anext(lapsed) == Started("talk")
        talk.time.advance(61)
        await take_until(other, "Oh, ")
        # It may end as stopped or with the model's error.
        with suppress(ModelUnavailable):
            assert await collect_events(lapsed) == [Finished("stopped")]
        await assert_turn_in_progress(talk, time=talk.time)
        assert await collect_events(other) == ["no.", DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Oh, no.")]


@pytest.mark.parametrize("how", ["renewed", "failed"])
async def test_a_turn_does_not_restore_text_that_was_redacted_from_its_question(
    talk: Talk, how: str
) -> None:
    script = ("Well, ", "yes.", DONE) if how == "renewed" else (OVERLOADED,)
    chat = talk.chat(ScriptedModel(*script), time=talk.time)
    async with aclosing(chat.stream("I am Bob", conversation_id="talk", owner="bob")) as events:
        assert await anext(events) == Started("talk")
        [question] = await talk.messages()
        assert question.seq is not None
        await talk.store.replace("talk", question.seq, replace(question, content="I am [redacted]"))
        talk.time.advance(35)
        if how == "renewed":
            await collect_events(events)
        else:
            with pytest.raises(ModelUnavailable):
                await collect_events(events)
    assert (await talk.transcript())[0] == ("user", "I am [redacted]")


async def test_each_reply_is_stored_once_over_several_turns(talk: Talk) -> None:
    chat = talk.chat(EchoModel())
    for n in range(3):
        await chat.send(f"{n}", conversation_id="talk", owner="bob")
    assert [role for role, _ in await talk.transcript()] == ["user", "assistant"] * 3
    assert (await talk.last_reply()).text == "You said: 2"
