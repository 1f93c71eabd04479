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

from chatledger.chat import Chat, Started
from chatledger.errors import ModelTimeout, ModelUnavailable, TurnInProgress
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from chatledger.stores.urls import open_async_store
from chatledger.windows import last
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    Caller,
    EchoModel,
    FakeTime,
    Gate,
    ScriptedModel,
    WatchedStore,
    append_messages,
    collect_events,
    create_conversation,
    last_reply,
    raise_unavailable,
    run_until_started,
    take_until,
    transcript,
    turn_for,
    with_time,
)

pytestmark = pytest.mark.anyio

ROUNDS = 10


def model_saying(*script: str) -> ScriptedModel:
    return ScriptedModel(*script, DONE)


async def assert_turn_in_progress(
    store: AsyncStore, time: FakeTime | None = None, text: str = "Me too"
) -> float:
    """Assert that another turn is rejected; return its ``retry_after``."""
    rival = with_time(Chat(store, EchoModel()), time or FakeTime())
    before = await transcript(store)
    with pytest.raises(TurnInProgress) as rejected:
        await rival.send(text, conversation_id="talk", owner="bob")
    assert await transcript(store) == before
    return rejected.value.retry_after


async def assert_next_turn_works(store: AsyncStore, text: str = "And now?") -> None:
    """Assert that another process can run a turn."""
    reply = await Chat(store, EchoModel()).send(text, conversation_id="talk", owner="bob")
    assert reply.finished == DONE
    assert (await transcript(store))[-2:] == [("user", text), ("assistant", reply.text)]


# Simultaneous turns


@pytest.mark.parametrize("exists", [True, False], ids=["existing conversation", "new conversation"])
async def test_only_one_of_two_simultaneous_turns_runs_and_nothing_of_the_other_is_stored(
    url: str, exists: bool
) -> None:
    async with open_async_store(url) as one, open_async_store(url) as other:
        for n in range(ROUNDS):
            id = f"talk {n}"
            if exists:
                await one.create(id, owner="bob")
            gate = Gate()
            chats = [Chat(store, ScriptedModel("Hello", gate, DONE)) for store in (one, other)]
            turns = [
                asyncio.create_task(chat.send(f"from {which}", conversation_id=id, owner="bob"))
                for which, chat in enumerate(chats)
            ]
            ended, running = await asyncio.wait(
                turns, return_when=asyncio.FIRST_COMPLETED, timeout=20
            )
            assert (len(ended), len(running)) == (1, 1)
            with pytest.raises(TurnInProgress):
                await ended.pop()
            gate.opened.set()
            [winner] = running
            assert (await winner).text == "Hello"
            question = f"from {turns.index(winner)}"
            assert await transcript(one, id) == [("user", question), ("assistant", "Hello")]


async def test_retry_after_is_the_remaining_time_of_the_lease(sqlite: AsyncStore) -> None:
    time = FakeTime()
    chat = with_time(Chat(sqlite, model_saying("Well, ", "yes.")), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        for passed, remaining in ((0, 60), (59, 1), (0.999, 0.001)):
            time.advance(passed)
            assert await assert_turn_in_progress(sqlite, time) == pytest.approx(
                remaining, abs=0.0005
            )


async def test_only_one_of_many_simultaneous_turns_gets_a_reply(url: str) -> None:
    async with open_async_store(url) as one, open_async_store(url) as other:
        await create_conversation(one)
        gate = Gate()
        chats = [Chat(store, ScriptedModel("Hello", gate, DONE)) for store in (one, other)]
        turns = [
            asyncio.create_task(chats[n % 2].send(f"{n}", conversation_id="talk"))
            for n in range(12)
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
        assert await transcript(one) == [("user", f"{turns.index(winner)}"), ("assistant", "Hello")]


# The process of a turn dies


async def test_an_abandoned_turn_blocks_others_only_until_its_lease_ends(store: AsyncStore) -> None:
    time = FakeTime()
    turn = turn_for(with_time(Chat(store, EchoModel()), time), "Hi")
    await run_until_started(turn)
    del turn
    time.advance(59.9)
    assert await assert_turn_in_progress(store, time) == pytest.approx(0.1)
    time.advance(0.1)
    rival = with_time(Chat(store, EchoModel()), time)
    assert (await rival.send("Me too", conversation_id="talk")).text == "You said: Hi\n\nMe too"


async def test_the_turn_of_a_killed_process_blocks_others_only_until_its_lease_ends(
    url: str, store: AsyncStore
) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.chat.crash_process", url]
    process = await asyncio.create_subprocess_exec(*command, cwd=root, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        lines = [await asyncio.wait_for(process.stdout.readline(), 20) for _ in range(2)]
    finally:
        process.kill()
        await process.wait()
    assert lines == [b"Started(conversation_id='talk')\n", b"'Well, '\n"]
    assert await transcript(store) == [("user", "Hi")]
    await assert_turn_in_progress(store)
    later = FakeTime()
    later.advance(61)
    model = EchoModel()
    # The user sends the same message again: it is stored once.
    await with_time(Chat(store, model), later).send("Hi", conversation_id="talk", owner="bob")
    assert model.windows == [[("user", "Hi")]]
    assert await transcript(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


# Renewals


async def test_a_turn_that_takes_longer_than_its_lease_renews_it(store: AsyncStore) -> None:
    time = FakeTime()
    pieces = [f"{n} " for n in range(6)]
    chat = with_time(Chat(store, model_saying(*pieces)), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        for piece in pieces:
            await take_until(events, piece)
            assert await assert_turn_in_progress(store, time) > 0
            time.advance(25)
        assert await collect_events(events) == [DONE]
    assert await transcript(store) == [("user", "Hi"), ("assistant", "".join(pieces))]
    await assert_next_turn_works(store)


async def test_a_turn_whose_model_is_silent_for_longer_than_the_lease_renews_it(
    store: AsyncStore,
) -> None:
    watched, gate, start = WatchedStore(store), Gate(), FakeTime()
    chat = Chat(
        watched.store, ScriptedModel("Well, ", gate, "yes.", DONE), lease=timedelta(seconds=0.6)
    )
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await gate.reached.wait()
    await watched.wait_for_calls("replace", 4)
    # With a renewal at each third, the first lease (0.6 s) has ended and this one ends at 1.4 s.
    start.advance(1)
    fixed = start.clock()
    start.clock = lambda: fixed  # type: ignore[method-assign]
    await assert_turn_in_progress(store, start)
    gate.opened.set()
    await caller.task
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, yes.")]


async def test_a_renewal_that_fails_does_not_end_the_turn(store: AsyncStore) -> None:
    time, watched = FakeTime(), WatchedStore(store)
    watched.before("replace", 0, raise_unavailable)
    chat = with_time(Chat(watched.store, model_saying("Well, ", "I ", "say ", "yes.")), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        time.advance(25)
        await take_until(events, "I ")
        assert "replace" in [name for name, _ in watched.requests]
        watched.clear_actions()
        time.advance(25)
        await take_until(events, "say ")
        time.advance(25)  # the first lease has ended, the renewed one has not
        await assert_turn_in_progress(store, time)
        assert await collect_events(events) == ["yes.", DONE]
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, I say yes.")]
    await assert_next_turn_works(store)


async def test_a_renewal_whose_response_is_lost_does_not_end_the_turn(store: AsyncStore) -> None:
    time, watched = FakeTime(), WatchedStore(store)
    watched.after("replace", 1, raise_unavailable)
    chat = with_time(Chat(watched.store, model_saying("Well, ", "I ", "say ", "yes.")), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        for piece in ("Well, ", "I ", "say "):
            await take_until(events, piece)
            time.advance(25)
        assert await collect_events(events) == ["yes.", DONE]
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, I say yes.")]
    await assert_next_turn_works(store)


# All endings of a turn


async def finish(store: AsyncStore) -> None:
    await Chat(store, EchoModel()).send("Hi", conversation_id="talk")


async def fail_at_once(store: AsyncStore) -> None:
    with pytest.raises(ModelUnavailable):
        await Chat(store, ScriptedModel(OVERLOADED)).send("Hi", conversation_id="talk")


async def fail_in_mid_reply(store: AsyncStore) -> None:
    with pytest.raises(ModelUnavailable):
        await Chat(store, ScriptedModel("Well, ", OVERLOADED)).send("Hi", conversation_id="talk")


async def stop_at_once(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel(Gate()))
    events = chat.stream("Hi", conversation_id="talk")
    assert await anext(events) == Started("talk")
    assert await chat.stop("talk")
    assert await collect_events(events) == [Finished("stopped")]


async def stop_in_mid_reply(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel("Well, ", Gate()))
    events = chat.stream("Hi", conversation_id="talk")
    await take_until(events, "Well, ")
    assert await chat.stop("talk")
    assert await collect_events(events) == [Finished("stopped")]


async def leave_at_once(store: AsyncStore) -> None:
    async with aclosing(
        Chat(store, ScriptedModel(Gate())).stream("Hi", conversation_id="talk")
    ) as events:
        assert await anext(events) == Started("talk")


async def leave_in_mid_reply(store: AsyncStore) -> None:
    async with aclosing(
        Chat(store, ScriptedModel("Well, ", Gate())).stream("Hi", conversation_id="talk")
    ) as events:
        await take_until(events, "Well, ")


async def cancel(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel("Well, ", Gate()))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await caller.wait_for("Well, ")
    caller.task.cancel()
    await asyncio.wait({caller.task})
    await chat.close()


async def time_out_at_once(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel(Gate()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk")


async def time_out_in_mid_reply(store: AsyncStore) -> None:
    time = FakeTime()
    chat = with_time(
        Chat(store, ScriptedModel("Well, ", Gate()), time_limit=timedelta(seconds=5)), time
    )
    events = chat.stream("Hi", conversation_id="talk")
    await take_until(events, "Well, ")
    time.advance(5)
    assert await collect_events(events) == [Finished("timed_out")]


async def yield_text_that_cannot_be_stored(store: AsyncStore) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - any error will do
        await Chat(store, ScriptedModel("\ud83d", DONE)).send("Hi", conversation_id="talk")


ENDINGS = [
    finish,
    fail_at_once,
    fail_in_mid_reply,
    stop_at_once,
    stop_in_mid_reply,
    leave_at_once,
    leave_in_mid_reply,
    cancel,
    time_out_at_once,
    time_out_in_mid_reply,
    yield_text_that_cannot_be_stored,
]


@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
async def test_however_a_turn_ends_the_next_one_works_at_once(
    store: AsyncStore, end: Callable[[AsyncStore], Awaitable[None]]
) -> None:
    await create_conversation(store)
    await end(store)
    await assert_next_turn_works(store)
    await assert_next_turn_works(store)


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
    store: AsyncStore, other_message: Message, window: int
) -> None:
    chat = Chat(store, model_saying("Well, ", "yes."))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        await append_messages(store, other_message)
        rival = Chat(store, EchoModel(), window=last(window))
        with pytest.raises(TurnInProgress):
            await rival.send("Me too", conversation_id="talk")
        assert await collect_events(events) == ["yes.", DONE]
    await assert_next_turn_works(store)


async def test_a_turn_whose_lease_ended_still_saves_its_reply_after_another_turn(
    store: AsyncStore,
) -> None:
    time = FakeTime()
    slow = with_time(Chat(store, model_saying("Well, ", "yes.")), time)
    async with aclosing(slow.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        time.advance(61)
        fast = with_time(Chat(store, EchoModel()), time)
        await fast.send("Are you there?", conversation_id="talk")
        assert await collect_events(events) == ["yes.", DONE]
    assert await transcript(store) == [
        ("user", "Hi"),
        ("user", "Are you there?"),
        ("assistant", "You said: Hi\n\nAre you there?"),
        ("assistant", "Well, yes."),
    ]
    await assert_next_turn_works(store)


@pytest.mark.parametrize("first", ["the lapsed one", "the other"])
async def test_the_next_turn_works_after_a_turn_without_a_lease_and_a_retry_of_its_message(
    store: AsyncStore, first: str
) -> None:
    time = FakeTime()
    slow = with_time(Chat(store, model_saying("Well, ", "yes.")), time)
    fast = with_time(Chat(store, model_saying("Oh, ", "no.")), time)
    async with (
        aclosing(slow.stream("Hi", conversation_id="talk", owner="bob")) as lapsed,
        aclosing(fast.stream("Hi", conversation_id="talk", owner="bob")) as other,
    ):
        await take_until(lapsed, "Well, ")
        time.advance(61)
        await take_until(other, "Oh, ")
        turns = [lapsed, other] if first == "the lapsed one" else [other, lapsed]
        for turn in turns:
            await collect_events(turn)
    reply = await with_time(Chat(store, EchoModel()), time).send("And now?", conversation_id="talk")
    assert reply.finished == DONE


async def test_the_failure_of_a_turn_whose_lease_ended_does_not_release_a_newer_lease(
    store: AsyncStore,
) -> None:
    time = FakeTime()
    failing = with_time(Chat(store, ScriptedModel(OVERLOADED)), time)
    fast = with_time(Chat(store, model_saying("Oh, ", "no.")), time)
    async with (
        aclosing(failing.stream("Hi", conversation_id="talk", owner="bob")) as lapsed,
        aclosing(fast.stream("Hi", conversation_id="talk", owner="bob")) as other,
    ):
        assert await anext(lapsed) == Started("talk")
        time.advance(61)
        await take_until(other, "Oh, ")
        # It may end as stopped or with the model's error.
        with suppress(ModelUnavailable):
            assert await collect_events(lapsed) == [Finished("stopped")]
        await assert_turn_in_progress(store, time)
        assert await collect_events(other) == ["no.", DONE]
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Oh, no.")]


@pytest.mark.parametrize("how", ["renewed", "failed"])
async def test_a_turn_does_not_restore_text_that_was_redacted_from_its_question(
    store: AsyncStore, how: str
) -> None:
    time = FakeTime()
    script = ("Well, ", "yes.", DONE) if how == "renewed" else (OVERLOADED,)
    chat = with_time(Chat(store, ScriptedModel(*script)), time)
    async with aclosing(chat.stream("I am Bob", conversation_id="talk", owner="bob")) as events:
        assert await anext(events) == Started("talk")
        [question] = (await store.page("talk")).messages
        assert question.seq is not None
        await store.replace("talk", question.seq, replace(question, content="I am [redacted]"))
        time.advance(25)
        if how == "renewed":
            await collect_events(events)
        else:
            with pytest.raises(ModelUnavailable):
                await collect_events(events)
    assert (await transcript(store))[0] == ("user", "I am [redacted]")


async def test_each_reply_is_stored_once_over_several_turns(store: AsyncStore) -> None:
    chat = Chat(store, EchoModel())
    for n in range(3):
        await chat.send(f"{n}", conversation_id="talk", owner="bob")
    assert [role for role, _ in await transcript(store)] == ["user", "assistant"] * 3
    assert (await last_reply(store)).text == "You said: 2"
