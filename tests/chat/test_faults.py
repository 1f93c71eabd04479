"""Faults at every step of a turn: the stored messages, the caller's result, and the next turn."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest

from chatledger.chat import Chat, Event, Started
from chatledger.errors import (
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    StoreUnavailable,
    TurnInProgress,
)
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from chatledger.stores.urls import open_async_store
from chatledger.values import now
from tests.chat.scripted_models import DONE, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Caller, Talk, collect_events

pytestmark = pytest.mark.anyio

EARLIER = [("user", "I am Bob"), ("assistant", "Hello, Bob")]
QUESTION = ("user", "Hi")


class StoreClock:
    """A clock of the store that a test advances."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return now() + self.offset


@pytest.fixture
def clock() -> StoreClock:
    return StoreClock()


@pytest.fixture
async def store(url: str, clock: StoreClock) -> AsyncIterator[AsyncStore]:
    """A store with a conversation that expires an hour after its last change."""
    async with open_async_store(url, clock=clock) as store:
        await store.create("talk", owner="bob", expires_in=timedelta(hours=1))
        await store.append("talk", [Message.user("I am Bob"), Message.assistant("Hello, Bob")])
        yield store


async def run_turn(chat: Chat, events: list[Event]) -> None:
    """Run a turn and add its events to ``events``. Raises the turn's error."""
    async with (
        asyncio.timeout(20),
        aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn,
    ):
        async for event in turn:
            events.append(event)  # noqa: PERF401 - keeps the events before an error


# The model


class ModelCase(NamedTuple):
    script: tuple[str | Finished | Exception, ...]
    raises: type[Exception] | None
    stored: str | None
    stop_reason_stored: str | None


ERRORS = [
    ModelUnavailable("It is down."),
    ModelThrottled("Too many calls.", retry_after=3),
    ModelTimeout("It took too long."),
    ModelRefused("No right."),
    RuntimeError("A bug."),
]
MODEL_CASES = {
    "fails at once": [ModelCase((error,), type(error), None, None) for error in ERRORS],
    "fails in mid-reply": [
        ModelCase(("Well, ", "I ", error), type(error), "Well, I ", "failed") for error in ERRORS
    ],
    "ends without output": [ModelCase((), ModelUnavailable, None, None)],
    "ends in mid-reply": [ModelCase(("Well, ",), ModelUnavailable, "Well, ", "failed")],
    "finishes without text": [ModelCase((DONE,), None, "", "end_turn")],
    "is silent": [ModelCase((), ModelTimeout, None, None)],
}


@pytest.mark.parametrize("fault", MODEL_CASES)
async def test_however_the_model_fails_the_partial_reply_is_saved_and_the_next_turn_works(
    talk: Talk, fault: str
) -> None:
    for script, raises, stored, stop_reason_stored in MODEL_CASES[fault]:
        before = await talk.transcript()
        silence, limit = ((Gate(),), 0.1) if fault == "is silent" else ((), 60)
        events: list[Event] = []
        caught: Exception | None = None
        try:
            model = ScriptedModel(*script, *silence)
            await run_turn(talk.chat(model, time_limit=timedelta(seconds=limit)), events)
        except Exception as error:
            caught = error
        assert type(caught) is (raises or type(None))
        if isinstance(script[-1] if script else None, Exception):
            assert caught is script[-1]
        pieces = [piece for piece in script if isinstance(piece, str)]
        ended = (
            []
            if raises
            else [DONE if stop_reason_stored == "end_turn" else Finished(str(stop_reason_stored))]
        )
        assert events == [Started("talk"), *pieces, *ended]
        replies = [] if stored is None else [("assistant", stored)]
        assert await talk.transcript() == [*before, QUESTION, *replies]
        if stored is not None:
            assert await talk.stop_reason() == stop_reason_stored
        await talk.assert_next_turn_works()


# The caller


@pytest.mark.chat_only
@pytest.mark.parametrize("how", ["closes", "is cancelled"])
@pytest.mark.parametrize("when", ["at once", "in mid-reply", "while the reply is stored"])
async def test_whenever_the_caller_leaves_the_reply_so_far_is_saved_and_the_next_turn_works(
    talk: Talk, when: str, how: str
) -> None:
    gate = Gate()
    talk.watched.before("append", 2, gate.wait)
    gate.opened.set()
    script: dict[str, tuple[str | Gate | Finished, ...]] = {
        "at once": (Gate(),),
        "in mid-reply": ("Well, ", Gate()),
        "while the reply is stored": ("Well, ", "yes.", DONE),
    }
    model = ScriptedModel(*script[when])
    chat = talk.watched_chat(model)
    lasts: dict[str, Event] = {"at once": Started("talk"), "in mid-reply": "Well, "}
    last = lasts.get(when, "yes.")
    if how == "closes" and when != "while the reply is stored":
        async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn:
            async for event in turn:
                if event == last:
                    break
    else:
        if when == "while the reply is stored":
            gate.opened.clear()
        caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
        await caller.wait_for(last)
        if when == "while the reply is stored":
            await gate.reached.wait()
        await caller.leave()
        gate.opened.set()
    await chat.close()
    assert model.ended_calls == 1
    reply_text = {"at once": None, "in mid-reply": "Well, "}.get(when, "Well, yes.")
    replies = [] if reply_text is None else [("assistant", reply_text)]
    assert await talk.transcript() == [*EARLIER, QUESTION, *replies]
    if reply_text:
        complete = when == "while the reply is stored"
        assert await talk.stop_reason() == ("end_turn" if complete else "stopped")
    await talk.assert_next_turn_works()


@pytest.mark.chat_only
@pytest.mark.parametrize("when", ["reads", "stores the question"])
async def test_the_next_turn_works_after_a_caller_leaves_before_the_turn_has_started(
    talk: Talk, when: str
) -> None:
    gate = Gate()
    talk.watched.before("tail" if when == "reads" else "append", 1, gate.wait)
    chat = talk.watched_chat(ScriptedModel("Well, ", Gate()))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await gate.reached.wait()
    await caller.leave()
    gate.opened.set()
    await chat.close()
    assert await talk.transcript() == [*EARLIER, *([] if when == "reads" else [QUESTION])]
    await talk.assert_next_turn_works()


# The store


class StoreFault(NamedTuple):
    operation: str
    n: int
    landed: bool
    stored: tuple[tuple[str, str], ...]
    is_released: bool
    """True if the next turn can start at once, before the lease has ended."""


REPLY = ("assistant", "Well, yes.")
STORE_FAULTS = {
    "at the read": StoreFault("tail", 1, False, (), True),
    "at the question": StoreFault("append", 1, False, (), True),
    "after the question": StoreFault("append", 1, True, (QUESTION,), False),
    "at the reply": StoreFault("append", 2, False, (QUESTION,), False),
    "after the reply": StoreFault("append", 2, True, (QUESTION, REPLY), True),
}


@pytest.mark.parametrize("fault", STORE_FAULTS)
@pytest.mark.parametrize("failing", [False, True], ids=["", "and the model failed"])
async def test_whenever_the_store_fails_the_caller_gets_the_error_and_the_next_turn_works(
    talk: Talk, fault: str, failing: bool
) -> None:
    operation, n, landed, stored, is_released = STORE_FAULTS[fault]
    (talk.watched.lose_response if landed else talk.watched.fail)(operation, n)
    script = ("Well, ", "yes.", RuntimeError("A bug.") if failing else DONE)
    chat = talk.watched_chat(ScriptedModel(*script), time=talk.time)
    events: list[Event] = []
    # The model's error takes precedence over the store's.
    error = RuntimeError if failing and "reply" in fault else StoreUnavailable
    with pytest.raises(error):
        await run_turn(chat, events)
    assert DONE not in events
    assert (Started("talk") in events) is ("reply" in fault)
    assert await talk.transcript() == [*EARLIER, *stored]
    talk.watched.clear_actions()
    if not is_released:
        talk.time.advance(60)
    await talk.assert_next_turn_works(time=talk.time)


@pytest.mark.parametrize("landed", [False, True], ids=["before the write", "after the write"])
async def test_after_a_failed_release_the_next_turn_works_when_the_lease_ends(
    talk: Talk, landed: bool
) -> None:
    if landed:
        talk.watched.lose_response("replace", 1)
    else:
        talk.watched.fail("replace", 1)
    error = ModelUnavailable("It is down.")
    chat = talk.watched_chat(ScriptedModel(error), time=talk.time)
    with pytest.raises(ModelUnavailable) as caught:
        await run_turn(chat, [])
    assert caught.value is error
    assert await talk.transcript() == [*EARLIER, QUESTION]
    talk.watched.clear_actions()
    if not landed:
        with pytest.raises(TurnInProgress):
            await talk.assert_next_turn_works(time=talk.time)
        talk.time.advance(60)
    await talk.assert_next_turn_works(time=talk.time)


async def test_a_caller_who_leaves_while_the_store_is_down_gets_no_error(talk: Talk) -> None:
    chat = talk.watched_chat(ScriptedModel("Well, ", Gate()), time=talk.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn:
        async for event in turn:
            if event == "Well, ":
                break
        talk.watched.fail("append", 0)
    assert await talk.transcript() == [*EARLIER, QUESTION]
    talk.watched.clear_actions()
    talk.time.advance(60)
    await talk.assert_next_turn_works(time=talk.time)


@pytest.mark.parametrize("operation", ["tail", "append", "replace"])
async def test_a_message_sent_while_the_store_failed_can_be_sent_again(
    talk: Talk, operation: str
) -> None:
    talk.watched.lose_response(operation, 1)
    script = ("yes.", DONE) if operation != "replace" else (RuntimeError("A bug."),)
    with pytest.raises((StoreUnavailable, RuntimeError)):
        await run_turn(talk.watched_chat(ScriptedModel(*script), time=talk.time), [])
    talk.time.advance(60)
    await talk.chat(ScriptedModel("Well, ", DONE), time=talk.time).send(
        "Hi", conversation_id="talk"
    )
    assert await talk.transcript() == [*EARLIER, QUESTION, ("assistant", "Well, ")]


# Changes to the conversation during a turn


class Change(NamedTuple):
    apply: Callable[[Talk, StoreClock], Awaitable[None]]
    remaining: list[tuple[str, str]] | None
    """The earlier messages that remain, or None if there is no conversation."""


async def delete(talk: Talk, clock: StoreClock) -> None:
    await talk.store.delete("talk")


async def clear(talk: Talk, clock: StoreClock) -> None:
    await talk.store.clear("talk")


async def truncate(talk: Talk, clock: StoreClock) -> None:
    await talk.store.truncate("talk", after=await talk.seq_of("I am Bob"))


async def expire(talk: Talk, clock: StoreClock) -> None:
    clock.offset += timedelta(hours=2)


async def recreate(talk: Talk, clock: StoreClock) -> None:
    await talk.store.delete("talk")
    await talk.store.create("talk", owner="bob")


CHANGES = {
    "is deleted": Change(delete, None),
    "is cleared": Change(clear, []),
    "is truncated": Change(truncate, EARLIER[:1]),
    "expires": Change(expire, None),
    "is recreated": Change(recreate, []),
}
MOMENTS = [
    "before the question is stored",
    "after the question is stored",
    "in mid-reply",
    "before the reply is stored",
]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", CHANGES)
async def test_a_turn_does_not_undo_changes_to_the_conversation_made_meanwhile(
    talk: Talk, clock: StoreClock, what: str, moment: str
) -> None:
    apply, remaining = CHANGES[what]

    async def act() -> None:
        await apply(talk, clock)

    at = MOMENTS.index(moment)
    if at == 0:
        talk.watched.before("append", 1, act)
    elif at == 1:
        talk.watched.after("append", 1, act)
    elif at == 3:
        talk.watched.before("append", 2, act)
    model = ScriptedModel("Well, ", "yes.", DONE)
    events: list[Event] = []
    async with aclosing(
        talk.watched_chat(model).stream("Hi", conversation_id="talk", owner="bob")
    ) as turn:
        async for event in turn:
            events.append(event)
            if at == 2 and event == "Well, ":
                await act()
    # The caller gets the reply in any case.
    assert events == [Started("talk"), "Well, ", "yes.", DONE]
    if at == 0:
        # The question was not stored yet: it is appended to the messages that remain.
        kept_messages = remaining or []
        assert await talk.transcript() == [*kept_messages, QUESTION, REPLY]
        assert model.windows[-1][-1][1].split("\n\n") == [
            text for _, text in [*kept_messages, QUESTION]
        ]
        assert len(model.windows[-1]) == 1
    elif remaining is None:
        with pytest.raises(NotFound):
            await talk.store.get("talk")
        await talk.chat(EchoModel()).send("And now?", conversation_id="talk", owner="bob")
        assert await talk.transcript() == [
            ("user", "And now?"),
            ("assistant", "You said: And now?"),
        ]
        return
    else:
        assert await talk.transcript() == remaining
    await talk.assert_next_turn_works()


@pytest.mark.parametrize("what", ["is deleted", "expires"])
async def test_without_an_owner_a_conversation_deleted_meanwhile_is_not_created_again(
    talk: Talk, clock: StoreClock, what: str
) -> None:
    model = ScriptedModel("Well, ", DONE)

    async def act() -> None:
        await CHANGES[what].apply(talk, clock)

    talk.watched.before("append", 1, act)
    with pytest.raises(NotFound):
        await talk.watched_chat(model).send("Hi", conversation_id="talk")
    with pytest.raises(NotFound):
        await talk.store.get("talk")


@pytest.mark.parametrize("what", ["is deleted", "is cleared", "is truncated"])
async def test_a_turn_whose_question_was_removed_ends_at_its_next_renewal(
    talk: Talk, clock: StoreClock, what: str
) -> None:
    chat = talk.chat(ScriptedModel("Well, ", Gate(), DONE), time=talk.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn:
        assert [await anext(turn), await anext(turn)] == [Started("talk"), "Well, "]
        await CHANGES[what].apply(talk, clock)
        talk.time.advance(35)
        assert await collect_events(turn) == [Finished("stopped")]
    if CHANGES[what].remaining is not None:
        assert await talk.transcript() == CHANGES[what].remaining
    reply = await talk.chat(EchoModel()).send("And now?", conversation_id="talk", owner="bob")
    assert reply.finished == DONE


async def test_the_model_sees_messages_appended_between_the_read_and_the_question(
    talk: Talk,
) -> None:
    model = EchoModel()

    async def append_other() -> None:
        await talk.append(Message.user("Are you there?"))

    talk.watched.before("append", 1, append_other)
    await talk.watched_chat(model).send("Hi", conversation_id="talk")
    assert model.windows[-1] == [*EARLIER, ("user", "Are you there?\n\nHi")]
    assert (await talk.transcript())[2:4] == [("user", "Are you there?"), QUESTION]
