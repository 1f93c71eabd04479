"""Whatever fails, and whenever: what is kept, what the caller gets, and the next turn works."""

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
    Echo,
    Scripted,
    Time,
    Waits,
    Watched,
    answer_lost,
    events_of,
    kept,
    talk,
    timed,
    unavailable,
)

pytestmark = pytest.mark.anyio

EARLIER = [("user", "I am Bob"), ("assistant", "Hello, Bob")]
QUESTION = ("user", "Hi")


class Clock:
    """The store's, which a test sets forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return now() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(url: str, clock: Clock) -> AsyncIterator[AsyncStore]:
    """With a conversation that lives for an hour after each change."""
    async with open_async_store(url, clock=clock) as store:
        await store.create("talk", owner="bob", expires_in=timedelta(hours=1))
        await store.append("talk", [Message.user("I am Bob"), Message.assistant("Hello, Bob")])
        yield store


async def taken(chat: Chat, events: list[Event]) -> None:
    """A turn, whose events are noted; raises what it ends with."""
    async with (
        asyncio.timeout(20),
        aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn,
    ):
        async for event in turn:
            events.append(event)  # noqa: PERF401 - what came before an error counts


async def works(store: AsyncStore, time: Time | None = None) -> None:
    before = await kept(store)
    chat = timed(Chat(store, Echo()), time or Time())
    reply = await chat.send("And now?", conversation_id="talk", owner="bob")
    assert reply.finished == DONE
    assert await kept(store) == [*before, ("user", "And now?"), ("assistant", reply.text)]


async def stop_reason(store: AsyncStore) -> object:
    return (await store.tail("talk", 1)).messages[0].extra.get("stop_reason")


# The model


class Model(NamedTuple):
    says: tuple[str | Finished | Exception, ...]
    raises: type[Exception] | None
    keeps: str | None
    as_: str | None


ERRORS = [
    ModelUnavailable("It is down."),
    ModelThrottled("Too many calls.", retry_after=3),
    ModelTimeout("It took too long."),
    ModelRefused("No right."),
    RuntimeError("A bug."),
]
MODELS = {
    "fails at once": [Model((error,), type(error), None, None) for error in ERRORS],
    "fails in mid-reply": [
        Model(("Well, ", "I ", error), type(error), "Well, I ", "failed") for error in ERRORS
    ],
    "ends without a word": [Model((), ModelUnavailable, None, None)],
    "ends in mid-reply": [Model(("Well, ",), ModelUnavailable, "Well, ", "failed")],
    "says nothing and finishes": [Model((DONE,), None, "", "end_turn")],
    "is silent": [Model((), ModelTimeout, None, None)],
}


@pytest.mark.parametrize("fault", MODELS)
async def test_whatever_the_model_does_what_it_said_is_kept_and_the_next_turn_works(
    store: AsyncStore, fault: str
) -> None:
    for says, raises, keeps, as_ in MODELS[fault]:
        before = await kept(store)
        silence, limit = ((Waits(),), 0.1) if fault == "is silent" else ((), 60)
        events: list[Event] = []
        caught: Exception | None = None
        try:
            model = Scripted(*says, *silence)
            await taken(Chat(store, model, time_limit=timedelta(seconds=limit)), events)
        except Exception as error:
            caught = error
        assert type(caught) is (raises or type(None))
        if isinstance(says[-1] if says else None, Exception):
            assert caught is says[-1]
        pieces = [piece for piece in says if isinstance(piece, str)]
        ended = [] if raises else [DONE if as_ == "end_turn" else Finished(str(as_))]
        assert events == [Started("talk"), *pieces, *ended]
        replies = [] if keeps is None else [("assistant", keeps)]
        assert await kept(store) == [*before, QUESTION, *replies]
        if keeps is not None:
            assert await stop_reason(store) == as_
        await works(store)


# The caller


@pytest.mark.parametrize("how", ["closes", "is cancelled"])
@pytest.mark.parametrize("when", ["at once", "in mid-reply", "while the reply is stored"])
async def test_whenever_the_caller_goes_away_what_was_said_is_kept_and_the_next_turn_works(
    store: AsyncStore, when: str, how: str
) -> None:
    watched, storing = Watched(store), Waits()

    async def held_up() -> None:
        storing.reached.set()
        await storing.over.wait()

    watched.before("append", 2, held_up)
    storing.over.set()
    script: dict[str, tuple[str | Waits | Finished, ...]] = {
        "at once": (Waits(),),
        "in mid-reply": ("Well, ", Waits()),
        "while the reply is stored": ("Well, ", "yes.", DONE),
    }
    model = Scripted(*script[when])
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
            storing.over.clear()
        caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
        await caller.until(last)
        if when == "while the reply is stored":
            await storing.reached.wait()
        caller.task.cancel()
        await asyncio.wait({caller.task}, timeout=20)
        assert caller.task.cancelled()
        storing.over.set()
    await chat.close()
    assert model.calls_ended == 1
    said = {"at once": None, "in mid-reply": "Well, "}.get(when, "Well, yes.")
    replies = [] if said is None else [("assistant", said)]
    assert await kept(store) == [*EARLIER, QUESTION, *replies]
    if said:
        complete = when == "while the reply is stored"
        assert await stop_reason(store) == ("end_turn" if complete else "stopped")
    await works(store)


@pytest.mark.parametrize("when", ["reads", "stores the question"])
async def test_a_caller_who_goes_away_before_the_turn_has_started_leaves_the_conversation_free(
    store: AsyncStore, when: str
) -> None:
    watched, doing = Watched(store), Waits()

    async def held_up() -> None:
        doing.reached.set()
        await doing.over.wait()

    watched.before("tail" if when == "reads" else "append", 1, held_up)
    chat = Chat(watched.store, Scripted("Well, ", Waits()))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await doing.reached.wait()
    caller.task.cancel()
    await asyncio.wait({caller.task}, timeout=20)
    doing.over.set()
    await chat.close()
    assert await kept(store) == [*EARLIER, *([] if when == "reads" else [QUESTION])]
    await works(store)


# The store


class Fault(NamedTuple):
    operation: str
    n: int
    landed: bool
    keeps: tuple[tuple[str, str], ...]
    free: bool
    """At once, and not only when the lease has ended."""


REPLY = ("assistant", "Well, yes.")
STORES = {
    "at the read": Fault("tail", 1, False, (), True),
    "at the question": Fault("append", 1, False, (), True),
    "behind the question": Fault("append", 1, True, (QUESTION,), False),
    "at the reply": Fault("append", 2, False, (QUESTION,), False),
    "behind the reply": Fault("append", 2, True, (QUESTION, REPLY), True),
}


@pytest.mark.parametrize("fault", STORES)
@pytest.mark.parametrize("failing", [False, True], ids=["", "and the model failed"])
async def test_whenever_the_store_fails_the_caller_is_told_and_the_next_turn_works(
    store: AsyncStore, fault: str, failing: bool
) -> None:
    operation, n, landed, keeps, free = STORES[fault]
    watched, time = Watched(store), Time()
    (watched.after if landed else watched.before)(
        operation, n, answer_lost if landed else unavailable
    )
    script = ("Well, ", "yes.", RuntimeError("A bug.") if failing else DONE)
    chat = timed(Chat(watched.store, Scripted(*script)), time)
    events: list[Event] = []
    # What the model raised says more than what came of it.
    error = RuntimeError if failing and "reply" in fault else StoreUnavailable
    with pytest.raises(error):
        await taken(chat, events)
    assert DONE not in events
    assert (Started("talk") in events) is ("reply" in fault)
    assert await kept(store) == [*EARLIER, *keeps]
    watched.mend()
    if not free:
        time.passes(60)
    await works(store, time)


@pytest.mark.parametrize("landed", [False, True], ids=["at it", "behind it"])
async def test_a_release_that_fails_leaves_the_conversation_to_its_lease(
    store: AsyncStore, landed: bool
) -> None:
    watched, time = Watched(store), Time()
    if landed:
        watched.after("replace", 1, answer_lost)
    else:
        watched.before("replace", 1, unavailable)
    error = ModelUnavailable("It is down.")
    chat = timed(Chat(watched.store, Scripted(error)), time)
    with pytest.raises(ModelUnavailable) as caught:
        await taken(chat, [])
    assert caught.value is error
    assert await kept(store) == [*EARLIER, QUESTION]
    watched.mend()
    if not landed:
        with pytest.raises(TurnInProgress):
            await works(store, time)
        time.passes(60)
    await works(store, time)


async def test_a_caller_who_leaves_while_the_store_is_down_gets_no_error(store: AsyncStore) -> None:
    watched, time = Watched(store), Time()
    chat = timed(Chat(watched.store, Scripted("Well, ", Waits())), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn:
        async for event in turn:
            if event == "Well, ":
                break
        watched.before("append", 0, unavailable)
    assert await kept(store) == [*EARLIER, QUESTION]
    watched.mend()
    time.passes(60)
    await works(store, time)


@pytest.mark.parametrize("operation", ["tail", "append", "replace"])
async def test_what_was_asked_when_the_store_failed_may_be_asked_again(
    store: AsyncStore, operation: str
) -> None:
    watched, time = Watched(store), Time()
    watched.after(operation, 1, answer_lost)
    script = ("yes.", DONE) if operation != "replace" else (RuntimeError("A bug."),)
    with pytest.raises((StoreUnavailable, RuntimeError)):
        await taken(timed(Chat(watched.store, Scripted(*script)), time), [])
    time.passes(60)
    await timed(Chat(store, Scripted("Well, ", DONE)), time).send("Hi", conversation_id="talk")
    assert await kept(store) == [*EARLIER, QUESTION, ("assistant", "Well, ")]


# What becomes of the conversation meanwhile


class Meanwhile(NamedTuple):
    does: Callable[[AsyncStore, Clock], Awaitable[None]]
    leaves: list[tuple[str, str]] | None
    """Of what was said before; None: no conversation."""


async def delete(store: AsyncStore, clock: Clock) -> None:
    await store.delete("talk")


async def clear(store: AsyncStore, clock: Clock) -> None:
    await store.clear("talk")


async def truncate(store: AsyncStore, clock: Clock) -> None:
    first = (await store.page("talk", limit=1)).messages[0].seq
    assert first is not None
    await store.truncate("talk", after=first)


async def expire(store: AsyncStore, clock: Clock) -> None:
    clock.ahead += timedelta(hours=2)


async def start_anew(store: AsyncStore, clock: Clock) -> None:
    await store.delete("talk")
    await store.create("talk", owner="bob")


MEANWHILE = {
    "is deleted": Meanwhile(delete, None),
    "is cleared": Meanwhile(clear, []),
    "is truncated": Meanwhile(truncate, EARLIER[:1]),
    "expires": Meanwhile(expire, None),
    "starts anew": Meanwhile(start_anew, []),
}
MOMENTS = [
    "before the question is stored",
    "behind the question",
    "in mid-reply",
    "before the reply is stored",
]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", MEANWHILE)
async def test_whatever_becomes_of_the_conversation_meanwhile_stays_so_and_the_next_turn_works(
    store: AsyncStore, clock: Clock, what: str, moment: str
) -> None:
    does, leaves = MEANWHILE[what]
    watched = Watched(store)

    async def act() -> None:
        await does(store, clock)

    at = MOMENTS.index(moment)
    if at == 0:
        watched.before("append", 1, act)
    elif at == 1:
        watched.after("append", 1, act)
    elif at == 3:
        watched.before("append", 2, act)
    model = Scripted("Well, ", "yes.", DONE)
    events: list[Event] = []
    async with aclosing(
        Chat(watched.store, model).stream("Hi", conversation_id="talk", owner="bob")
    ) as turn:
        async for event in turn:
            events.append(event)
            if at == 2 and event == "Well, ":
                await act()
    # Who asked gets the answer all the same.
    assert events == [Started("talk"), "Well, ", "yes.", DONE]
    if at == 0:
        # It was not stored before that happened: it is asked behind what is left.
        left = leaves or []
        assert await kept(store) == [*left, QUESTION, REPLY]
        assert model.asked[-1][-1][1].split("\n\n") == [text for _, text in [*left, QUESTION]]
        assert len(model.asked[-1]) == 1
    elif leaves is None:
        with pytest.raises(NotFound):
            await store.get("talk")
        await Chat(store, Echo()).send("And now?", conversation_id="talk", owner="bob")
        assert await kept(store) == [("user", "And now?"), ("assistant", "You said: And now?")]
        return
    else:
        assert await kept(store) == leaves
    await works(store)


@pytest.mark.parametrize("what", ["is deleted", "expires"])
async def test_without_an_owner_a_conversation_that_has_gone_meanwhile_does_not_start_anew(
    store: AsyncStore, clock: Clock, what: str
) -> None:
    watched, model = Watched(store), Scripted("Well, ", DONE)

    async def act() -> None:
        await MEANWHILE[what].does(store, clock)

    watched.before("append", 1, act)
    with pytest.raises(NotFound):
        await Chat(watched.store, model).send("Hi", conversation_id="talk")
    with pytest.raises(NotFound):
        await store.get("talk")


@pytest.mark.parametrize("what", ["is deleted", "is cleared", "is truncated"])
async def test_a_turn_whose_question_has_gone_ends_when_it_would_renew(
    store: AsyncStore, clock: Clock, what: str
) -> None:
    time = Time()
    chat = timed(Chat(store, Scripted("Well, ", Waits(), DONE)), time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as turn:
        assert [await anext(turn), await anext(turn)] == [Started("talk"), "Well, "]
        await MEANWHILE[what].does(store, clock)
        time.passes(25)
        assert await events_of(turn) == [Finished("stopped")]
    if MEANWHILE[what].leaves is not None:
        assert await kept(store) == MEANWHILE[what].leaves
    reply = await Chat(store, Echo()).send("And now?", conversation_id="talk", owner="bob")
    assert reply.finished == DONE


async def test_what_others_append_between_the_read_and_the_question_is_seen(
    store: AsyncStore,
) -> None:
    watched, model = Watched(store), Echo()

    async def others() -> None:
        await store.append("talk", [Message.user("Are you there?")])

    watched.before("append", 1, others)
    await Chat(watched.store, model).send("Hi", conversation_id="talk")
    assert model.asked[-1] == [*EARLIER, ("user", "Are you there?\n\nHi")]
    assert talk((await store.page("talk")).messages)[2:4] == [("user", "Are you there?"), QUESTION]
