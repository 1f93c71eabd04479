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
from chatledger.messages import Message, now
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from chatledger.stores.urls import open_async_store
from tests.chat.chat_helpers import (
    DONE,
    Caller,
    EchoModel,
    FakeTime,
    Gate,
    ScriptedModel,
    WatchedStore,
    collect_events,
    lose_response,
    raise_unavailable,
    transcript,
    transcript_of,
    with_time,
)

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


async def assert_next_turn_works(store: AsyncStore, time: FakeTime | None = None) -> None:
    before = await transcript(store)
    chat = with_time(Chat(store, EchoModel()), time or FakeTime())
    reply = await chat.send("And now?", conversation_id="talk", owner="bob")
    assert reply.finished == DONE
    assert await transcript(store) == [*before, ("user", "And now?"), ("assistant", reply.text)]


async def stop_reason(store: AsyncStore) -> object:
    return (await store.tail("talk", 1)).messages[0].extra.get("stop_reason")


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
    store: AsyncStore, fault: str
) -> None:
    for script, raises, stored, stop_reason_stored in MODEL_CASES[fault]:
        before = await transcript(store)
        silence, limit = ((Gate(),), 0.1) if fault == "is silent" else ((), 60)
        events: list[Event] = []
        caught: Exception | None = None
        try:
            model = ScriptedModel(*script, *silence)
            await run_turn(Chat(store, model, time_limit=timedelta(seconds=limit)), events)
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
        assert await transcript(store) == [*before, QUESTION, *replies]
        if stored is not None:
            assert await stop_reason(store) == stop_reason_stored
        await assert_next_turn_works(store)


# The caller


@pytest.mark.parametrize("how", ["closes", "is cancelled"])
@pytest.mark.parametrize("when", ["at once", "in mid-reply", "while the reply is stored"])
async def test_whenever_the_caller_leaves_the_reply_so_far_is_saved_and_the_next_turn_works(
    store: AsyncStore, when: str, how: str
) -> None:
    watched, gate = WatchedStore(store), Gate()

    async def wait_at_gate() -> None:
        gate.reached.set()
        await gate.opened.wait()

    watched.before("append", 2, wait_at_gate)
    gate.opened.set()
    script: dict[str, tuple[str | Gate | Finished, ...]] = {
        "at once": (Gate(),),
        "in mid-reply": ("Well, ", Gate()),
        "while the reply is stored": ("Well, ", "yes.", DONE),
    }
    model = ScriptedModel(*script[when])
    chat = Chat(watched.store, model)
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
        caller.task.cancel()
        await asyncio.wait({caller.task}, timeout=20)
        assert caller.task.cancelled()
        gate.opened.set()
    await chat.close()
    assert model.ended_calls == 1
    reply_text = {"at once": None, "in mid-reply": "Well, "}.get(when, "Well, yes.")
    replies = [] if reply_text is None else [("assistant", reply_text)]
    assert await transcript(store) == [*EARLIER, QUESTION, *replies]
    if reply_text:
        complete = when == "while the reply is stored"
        assert await stop_reason(store) == ("end_turn" if complete else "stopped")
    await assert_next_turn_works(store)


@pytest.mark.parametrize("when", ["reads", "stores the question"])
async def test_the_next_turn_works_after_a_caller_leaves_before_the_turn_has_started(
    store: AsyncStore, when: str
) -> None:
    watched, gate = WatchedStore(store), Gate()

    async def wait_at_gate() -> None:
        gate.reached.set()
        await gate.opened.wait()

    watched.before("tail" if when == "reads" else "append", 1, wait_at_gate)
    chat = Chat(watched.store, ScriptedModel("Well, ", Gate()))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await gate.reached.wait()
    caller.task.cancel()
    await asyncio.wait({caller.task}, timeout=20)
    gate.opened.set()
    await chat.close()
    assert await transcript(store) == [*EARLIER, *([] if when == "reads" else [QUESTION])]
    await assert_next_turn_works(store)


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
    store: AsyncStore, fault: str, failing: bool
) -> None:
    operation, n, landed, stored, is_released = STORE_FAULTS[fault]
    watched, time = WatchedStore(store), FakeTime()
    (watched.after if landed else watched.before)(
        operation, n, lose_response if landed else raise_unavailable
    )
    script = ("Well, ", "yes.", RuntimeError("A bug.") if failing else DONE)
    chat = with_time(Chat(watched.store, ScriptedModel(*script)), time)
    events: list[Event] = []
    # The model's error takes precedence over the store's.
    error = RuntimeError if failing and "reply" in fault else StoreUnavailable
    with pytest.raises(error):
        await run_turn(chat, events)
    assert DONE not in events
    assert (Started("talk") in events) is ("reply" in fault)
    assert await transcript(store) == [*EARLIER, *stored]
    watched.clear_actions()
    if not is_released:
        time.advance(60)
    await assert_next_turn_works(store, time)


@pytest.mark.parametrize("landed", [False, True], ids=["before the write", "after the write"])
async def test_after_a_failed_release_the_next_turn_works_when_the_lease_ends(
    store: AsyncStore, landed: bool
) -> None:
    watched, time = WatchedStore(store), FakeTime()
    if landed:
        watched.after("replace", 1, lose_response)
    else:
        watched.before("replace", 1, raise_unavailable)
    error = ModelUnavailable("It is down.")
    chat = with_time(Chat(watched.store, ScriptedModel(error)), time)
    with pytest.raises(ModelUnavailable) as caught:
        await run_turn(chat, [])
    assert caught.value is error
    assert await transcript(store) == [*EARLIER, QUESTION]
    watched.clear_actions()
    if not landed:
        with pytest.raises(TurnInProgress):
            await assert_next_turn_works(store, time)
        time.advance(60)
    await assert_next_turn_works(store, time)


async def test_a_caller_who_leaves_while_the_store_is_down_gets_no_error(store: AsyncStore) -> None:
    watched, time = WatchedStore(store), FakeTime()
    chat = with_time(Chat(watched.store, ScriptedModel("Well, ", Gate())), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn:
        async for event in turn:
            if event == "Well, ":
                break
        watched.before("append", 0, raise_unavailable)
    assert await transcript(store) == [*EARLIER, QUESTION]
    watched.clear_actions()
    time.advance(60)
    await assert_next_turn_works(store, time)


@pytest.mark.parametrize("operation", ["tail", "append", "replace"])
async def test_a_message_sent_while_the_store_failed_can_be_sent_again(
    store: AsyncStore, operation: str
) -> None:
    watched, time = WatchedStore(store), FakeTime()
    watched.after(operation, 1, lose_response)
    script = ("yes.", DONE) if operation != "replace" else (RuntimeError("A bug."),)
    with pytest.raises((StoreUnavailable, RuntimeError)):
        await run_turn(with_time(Chat(watched.store, ScriptedModel(*script)), time), [])
    time.advance(60)
    await with_time(Chat(store, ScriptedModel("Well, ", DONE)), time).send(
        "Hi", conversation_id="talk"
    )
    assert await transcript(store) == [*EARLIER, QUESTION, ("assistant", "Well, ")]


# Changes to the conversation during a turn


class Change(NamedTuple):
    apply: Callable[[AsyncStore, StoreClock], Awaitable[None]]
    remaining: list[tuple[str, str]] | None
    """The earlier messages that remain, or None if there is no conversation."""


async def delete(store: AsyncStore, clock: StoreClock) -> None:
    await store.delete("talk")


async def clear(store: AsyncStore, clock: StoreClock) -> None:
    await store.clear("talk")


async def truncate(store: AsyncStore, clock: StoreClock) -> None:
    first = (await store.page("talk", limit=1)).messages[0].seq
    assert first is not None
    await store.truncate("talk", after=first)


async def expire(store: AsyncStore, clock: StoreClock) -> None:
    clock.offset += timedelta(hours=2)


async def recreate(store: AsyncStore, clock: StoreClock) -> None:
    await store.delete("talk")
    await store.create("talk", owner="bob")


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
    store: AsyncStore, clock: StoreClock, what: str, moment: str
) -> None:
    apply, remaining = CHANGES[what]
    watched = WatchedStore(store)

    async def act() -> None:
        await apply(store, clock)

    at = MOMENTS.index(moment)
    if at == 0:
        watched.before("append", 1, act)
    elif at == 1:
        watched.after("append", 1, act)
    elif at == 3:
        watched.before("append", 2, act)
    model = ScriptedModel("Well, ", "yes.", DONE)
    events: list[Event] = []
    async with aclosing(
        Chat(watched.store, model).stream("Hi", conversation_id="talk", owner="bob")
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
        assert await transcript(store) == [*kept_messages, QUESTION, REPLY]
        assert model.windows[-1][-1][1].split("\n\n") == [
            text for _, text in [*kept_messages, QUESTION]
        ]
        assert len(model.windows[-1]) == 1
    elif remaining is None:
        with pytest.raises(NotFound):
            await store.get("talk")
        await Chat(store, EchoModel()).send("And now?", conversation_id="talk", owner="bob")
        assert await transcript(store) == [
            ("user", "And now?"),
            ("assistant", "You said: And now?"),
        ]
        return
    else:
        assert await transcript(store) == remaining
    await assert_next_turn_works(store)


@pytest.mark.parametrize("what", ["is deleted", "expires"])
async def test_without_an_owner_a_conversation_deleted_meanwhile_is_not_created_again(
    store: AsyncStore, clock: StoreClock, what: str
) -> None:
    watched, model = WatchedStore(store), ScriptedModel("Well, ", DONE)

    async def act() -> None:
        await CHANGES[what].apply(store, clock)

    watched.before("append", 1, act)
    with pytest.raises(NotFound):
        await Chat(watched.store, model).send("Hi", conversation_id="talk")
    with pytest.raises(NotFound):
        await store.get("talk")


@pytest.mark.parametrize("what", ["is deleted", "is cleared", "is truncated"])
async def test_a_turn_whose_question_was_removed_ends_at_its_next_renewal(
    store: AsyncStore, clock: StoreClock, what: str
) -> None:
    time = FakeTime()
    chat = with_time(Chat(store, ScriptedModel("Well, ", Gate(), DONE)), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn:
        assert [await anext(turn), await anext(turn)] == [Started("talk"), "Well, "]
        await CHANGES[what].apply(store, clock)
        time.advance(25)
        assert await collect_events(turn) == [Finished("stopped")]
    if CHANGES[what].remaining is not None:
        assert await transcript(store) == CHANGES[what].remaining
    reply = await Chat(store, EchoModel()).send("And now?", conversation_id="talk", owner="bob")
    assert reply.finished == DONE


async def test_the_model_sees_messages_appended_between_the_read_and_the_question(
    store: AsyncStore,
) -> None:
    watched, model = WatchedStore(store), EchoModel()

    async def append_other() -> None:
        await store.append("talk", [Message.user("Are you there?")])

    watched.before("append", 1, append_other)
    await Chat(watched.store, model).send("Hi", conversation_id="talk")
    assert model.windows[-1] == [*EARLIER, ("user", "Are you there?\n\nHi")]
    assert transcript_of((await store.page("talk")).messages)[2:4] == [
        ("user", "Are you there?"),
        QUESTION,
    ]
