"""Of two turns of a conversation one runs, and however it ends, the next one works."""

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
    Echo,
    Scripted,
    Time,
    Waits,
    Watched,
    add,
    begin,
    drive_until_started,
    events_of,
    kept,
    reply_to,
    timed,
    turn_of,
    unavailable,
    until_piece,
)

pytestmark = pytest.mark.anyio

ROUNDS = 10


def talking(*script: str) -> Scripted:
    return Scripted(*script, DONE)


async def refused(store: AsyncStore, time: Time | None = None, text: str = "Me too") -> float:
    """The rival's turn must not run; how long it is told to wait."""
    rival = timed(Chat(store, Echo()), time or Time())
    before = await kept(store)
    with pytest.raises(TurnInProgress) as held:
        await rival.send(text, conversation_id="talk", owner="bob")
    assert await kept(store) == before
    return held.value.retry_after


async def works(store: AsyncStore, text: str = "And now?") -> None:
    """A turn of another process runs, and is kept."""
    reply = await Chat(store, Echo()).send(text, conversation_id="talk", owner="bob")
    assert reply.finished == DONE
    assert (await kept(store))[-2:] == [("user", text), ("assistant", reply.text)]


# Two at once


@pytest.mark.parametrize("there", [True, False], ids=["in one that is there", "in a new one"])
async def test_of_two_turns_that_start_at_the_same_moment_one_runs_and_nothing_is_kept_of_the_other(
    url: str, there: bool
) -> None:
    async with open_async_store(url) as one, open_async_store(url) as other:
        for n in range(ROUNDS):
            id = f"talk {n}"
            if there:
                await one.create(id, owner="bob")
            waits = Waits()
            chats = [Chat(store, Scripted("Hello", waits, DONE)) for store in (one, other)]
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
            waits.over.set()
            [winner] = running
            assert (await winner).text == "Hello"
            asked = f"from {turns.index(winner)}"
            assert await kept(one, id) == [("user", asked), ("assistant", "Hello")]


async def test_who_is_refused_is_told_how_long_to_wait_which_is_no_longer_than_the_lease(
    sqlite: AsyncStore,
) -> None:
    time = Time()
    chat = timed(Chat(sqlite, talking("Well, ", "yes.")), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await until_piece(events, "Well, ")
        for passed, left in ((0, 60), (59, 1), (0.999, 0.001)):
            time.passes(passed)
            assert await refused(sqlite, time) == pytest.approx(left, abs=0.0005)


async def test_many_who_ask_at_once_are_answered_once(url: str) -> None:
    async with open_async_store(url) as one, open_async_store(url) as other:
        await begin(one)
        waits = Waits()
        chats = [Chat(store, Scripted("Hello", waits, DONE)) for store in (one, other)]
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
        waits.over.set()
        [winner] = running
        await winner
        assert await kept(one) == [("user", f"{turns.index(winner)}"), ("assistant", "Hello")]


# Its process dies


async def test_a_turn_that_nobody_drives_on_frees_the_conversation_when_its_lease_ends(
    store: AsyncStore,
) -> None:
    time = Time()
    turn = turn_of(timed(Chat(store, Echo()), time), "Hi")
    await drive_until_started(turn)
    del turn
    time.passes(59.9)
    assert await refused(store, time) == pytest.approx(0.1)
    time.passes(0.1)
    rival = timed(Chat(store, Echo()), time)
    assert (await rival.send("Me too", conversation_id="talk")).text == "You said: Hi\n\nMe too"


async def test_a_killed_process_frees_the_conversation_when_its_lease_ends(
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
    assert await kept(store) == [("user", "Hi")]
    await refused(store)
    later = Time()
    later.passes(61)
    model = Echo()
    # The same again, as a user would: it is not there twice.
    await timed(Chat(store, model), later).send("Hi", conversation_id="talk", owner="bob")
    assert model.asked == [[("user", "Hi")]]
    assert await kept(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


# It takes longer than its lease


async def test_a_turn_that_takes_longer_than_its_lease_keeps_the_conversation(
    store: AsyncStore,
) -> None:
    time = Time()
    pieces = [f"{n} " for n in range(6)]
    chat = timed(Chat(store, talking(*pieces)), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        for piece in pieces:
            await until_piece(events, piece)
            assert await refused(store, time) > 0
            time.passes(25)
        assert await events_of(events) == [DONE]
    assert await kept(store) == [("user", "Hi"), ("assistant", "".join(pieces))]
    await works(store)


async def test_a_turn_whose_model_is_silent_for_longer_than_its_lease_keeps_the_conversation(
    store: AsyncStore,
) -> None:
    watched, waits, start = Watched(store), Waits(), Time()
    chat = Chat(
        watched.store, Scripted("Well, ", waits, "yes.", DONE), lease=timedelta(seconds=0.6)
    )
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await waits.reached.wait()
    await watched.until("replace", 4)
    # Each at a third of the lease: the first lease is over, and this one holds until 1.4 s.
    start.passes(1)
    fixed = start.clock()
    start.clock = lambda: fixed  # type: ignore[method-assign]
    await refused(store, start)
    waits.over.set()
    await caller.task
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, yes.")]


async def test_a_renewal_that_fails_does_not_end_the_turn(store: AsyncStore) -> None:
    time, watched = Time(), Watched(store)
    watched.before("replace", 0, unavailable)
    chat = timed(Chat(watched.store, talking("Well, ", "I ", "say ", "yes.")), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await until_piece(events, "Well, ")
        time.passes(25)
        await until_piece(events, "I ")
        assert "replace" in [name for name, _ in watched.asked]
        watched.mend()
        time.passes(25)
        await until_piece(events, "say ")
        time.passes(25)  # the first lease is over, the renewed one is not
        await refused(store, time)
        assert await events_of(events) == ["yes.", DONE]
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, I say yes.")]
    await works(store)


async def test_a_renewal_whose_answer_is_lost_does_not_end_the_turn_and_the_next_one_works(
    store: AsyncStore,
) -> None:
    time, watched = Time(), Watched(store)
    watched.after("replace", 1, unavailable)
    chat = timed(Chat(watched.store, talking("Well, ", "I ", "say ", "yes.")), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        for piece in ("Well, ", "I ", "say "):
            await until_piece(events, piece)
            time.passes(25)
        assert await events_of(events) == ["yes.", DONE]
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, I say yes.")]
    await works(store)


# However it ends


async def finished(store: AsyncStore) -> None:
    await Chat(store, Echo()).send("Hi", conversation_id="talk")


async def failed_at_once(store: AsyncStore) -> None:
    with pytest.raises(ModelUnavailable):
        await Chat(store, Scripted(OVERLOADED)).send("Hi", conversation_id="talk")


async def failed_in_mid_reply(store: AsyncStore) -> None:
    with pytest.raises(ModelUnavailable):
        await Chat(store, Scripted("Well, ", OVERLOADED)).send("Hi", conversation_id="talk")


async def stopped_at_once(store: AsyncStore) -> None:
    chat = Chat(store, Scripted(Waits()))
    events = chat.stream("Hi", conversation_id="talk")
    assert await anext(events) == Started("talk")
    assert await chat.stop("talk")
    assert await events_of(events) == [Finished("stopped")]


async def stopped_in_mid_reply(store: AsyncStore) -> None:
    chat = Chat(store, Scripted("Well, ", Waits()))
    events = chat.stream("Hi", conversation_id="talk")
    await until_piece(events, "Well, ")
    assert await chat.stop("talk")
    assert await events_of(events) == [Finished("stopped")]


async def left_at_once(store: AsyncStore) -> None:
    async with aclosing(
        Chat(store, Scripted(Waits())).stream("Hi", conversation_id="talk")
    ) as events:
        assert await anext(events) == Started("talk")


async def left_in_mid_reply(store: AsyncStore) -> None:
    async with aclosing(
        Chat(store, Scripted("Well, ", Waits())).stream("Hi", conversation_id="talk")
    ) as events:
        await until_piece(events, "Well, ")


async def cancelled(store: AsyncStore) -> None:
    chat = Chat(store, Scripted("Well, ", Waits()))
    caller = Caller(chat.stream("Hi", conversation_id="talk"))
    await caller.until("Well, ")
    caller.task.cancel()
    await asyncio.wait({caller.task})
    await chat.close()


async def timed_out_at_once(store: AsyncStore) -> None:
    chat = Chat(store, Scripted(Waits()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk")


async def timed_out_in_mid_reply(store: AsyncStore) -> None:
    time = Time()
    chat = timed(Chat(store, Scripted("Well, ", Waits()), time_limit=timedelta(seconds=5)), time)
    events = chat.stream("Hi", conversation_id="talk")
    await until_piece(events, "Well, ")
    time.passes(5)
    assert await events_of(events) == [Finished("timed_out")]


async def said_what_cannot_be_stored(store: AsyncStore) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever: the next turn is what counts
        await Chat(store, Scripted("\ud83d", DONE)).send("Hi", conversation_id="talk")


ENDS = [
    finished,
    failed_at_once,
    failed_in_mid_reply,
    stopped_at_once,
    stopped_in_mid_reply,
    left_at_once,
    left_in_mid_reply,
    cancelled,
    timed_out_at_once,
    timed_out_in_mid_reply,
    said_what_cannot_be_stored,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_however_a_turn_ends_the_next_one_works_at_once(
    store: AsyncStore, end: Callable[[AsyncStore], Awaitable[None]]
) -> None:
    await begin(store)
    await end(store)
    await works(store)
    await works(store)


# What others do meanwhile


@pytest.mark.parametrize(
    "foreign",
    [
        Message.user("Are you there?"),
        Message.assistant("I am another bot."),
        Message.assistant("A bot of another framework.", extra={"turn": 7}),
    ],
    ids=["the user's", "a reply", "with an extra of its own"],
)
@pytest.mark.parametrize("window", [1, 20])
async def test_what_others_append_behind_the_question_does_not_free_the_conversation(
    store: AsyncStore, foreign: Message, window: int
) -> None:
    chat = Chat(store, talking("Well, ", "yes."))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await until_piece(events, "Well, ")
        await add(store, foreign)
        rival = Chat(store, Echo(), window=last(window))
        with pytest.raises(TurnInProgress):
            await rival.send("Me too", conversation_id="talk")
        assert await events_of(events) == ["yes.", DONE]
    await works(store)


async def test_a_lapsed_turn_that_another_overtook_still_keeps_its_reply(store: AsyncStore) -> None:
    time = Time()
    slow = timed(Chat(store, talking("Well, ", "yes.")), time)
    async with aclosing(slow.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await until_piece(events, "Well, ")
        time.passes(61)
        quick = timed(Chat(store, Echo()), time)
        await quick.send("Are you there?", conversation_id="talk")
        assert await events_of(events) == ["yes.", DONE]
    assert await kept(store) == [
        ("user", "Hi"),
        ("user", "Are you there?"),
        ("assistant", "You said: Hi\n\nAre you there?"),
        ("assistant", "Well, yes."),
    ]
    await works(store)


@pytest.mark.parametrize("first", ["the lapsed one", "the other"])
async def test_when_a_lapsed_turn_and_another_try_at_its_message_have_ended_the_next_turn_works(
    store: AsyncStore, first: str
) -> None:
    time = Time()
    slow = timed(Chat(store, talking("Well, ", "yes.")), time)
    quick = timed(Chat(store, talking("Oh, ", "no.")), time)
    async with (
        aclosing(slow.stream("Hi", conversation_id="talk", owner="bob")) as lapsed,
        aclosing(quick.stream("Hi", conversation_id="talk", owner="bob")) as other,
    ):
        await until_piece(lapsed, "Well, ")
        time.passes(61)
        await until_piece(other, "Oh, ")
        turns = [lapsed, other] if first == "the lapsed one" else [other, lapsed]
        for turn in turns:
            await events_of(turn)
    reply = await timed(Chat(store, Echo()), time).send("And now?", conversation_id="talk")
    assert reply.finished == DONE


async def test_the_failure_of_a_lapsed_turn_does_not_free_the_conversation_from_the_one_that_runs(
    store: AsyncStore,
) -> None:
    time = Time()
    failing = timed(Chat(store, Scripted(OVERLOADED)), time)
    quick = timed(Chat(store, talking("Oh, ", "no.")), time)
    async with (
        aclosing(failing.stream("Hi", conversation_id="talk", owner="bob")) as lapsed,
        aclosing(quick.stream("Hi", conversation_id="talk", owner="bob")) as other,
    ):
        assert await anext(lapsed) == Started("talk")
        time.passes(61)
        await until_piece(other, "Oh, ")
        # It may say that it was stopped, or why it failed.
        with suppress(ModelUnavailable):
            assert await events_of(lapsed) == [Finished("stopped")]
        await refused(store, time)
        assert await events_of(other) == ["no.", DONE]
    assert await kept(store) == [("user", "Hi"), ("assistant", "Oh, no.")]


@pytest.mark.parametrize("how", ["renewed", "failed"])
async def test_a_turn_does_not_bring_back_what_somebody_took_out_of_its_question(
    store: AsyncStore, how: str
) -> None:
    time = Time()
    script = ("Well, ", "yes.", DONE) if how == "renewed" else (OVERLOADED,)
    chat = timed(Chat(store, Scripted(*script)), time)
    async with aclosing(chat.stream("I am Bob", conversation_id="talk", owner="bob")) as events:
        assert await anext(events) == Started("talk")
        [question] = (await store.page("talk")).messages
        assert question.seq is not None
        await store.replace("talk", question.seq, replace(question, content="I am [redacted]"))
        time.passes(25)
        if how == "renewed":
            await events_of(events)
        else:
            with pytest.raises(ModelUnavailable):
                await events_of(events)
    assert (await kept(store))[0] == ("user", "I am [redacted]")


async def test_the_reply_of_a_turn_is_kept_once_though_its_answer_comes_late(
    store: AsyncStore,
) -> None:
    chat = Chat(store, Echo())
    for n in range(3):
        await chat.send(f"{n}", conversation_id="talk", owner="bob")
    assert [role for role, _ in await kept(store)] == ["user", "assistant"] * 3
    assert (await reply_to(store)).text == "You said: 2"
