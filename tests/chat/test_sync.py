"""Turns for callers without an event loop: the same laws."""

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chatledger.chat import Chat, Event, Reply, Started, SyncChat, whole_sync
from chatledger.errors import (
    InvalidArgument,
    KeyReused,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    TurnInProgress,
)
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.stores.contract import Store
from chatledger.stores.urls import open_store
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    SyncEcho,
    SyncScripted,
    SyncWaits,
    Time,
    kept_sync,
    timed,
)

STOPPED = Finished("stopped")


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[Store]:
    """For what has nothing to do with the store."""
    with open_store(f"sqlite:///{path}") as store:
        yield store


@pytest.fixture
def again(url: str) -> Iterator[Store]:
    """The same store, as another process opens it."""
    with open_store(url) as store:
        yield store


@pytest.fixture
def waits() -> Iterator[SyncWaits]:
    """Its model's thread ends with the test."""
    waits = SyncWaits()
    yield waits
    waits.over.set()


def works(store: Store, text: str = "And now?") -> None:
    reply = SyncChat(store, SyncEcho()).send(text, conversation_id="talk", owner="bob")
    assert reply.finished == DONE
    assert kept_sync(store)[-2:] == [("user", text), ("assistant", reply.text)]


def stop_reason(store: Store) -> object:
    return store.tail("talk", 1).messages[0].extra["stop_reason"]


# A turn


def test_a_turn_keeps_the_question_before_it_says_so_and_the_reply_before_its_end(
    sync_store: Store,
) -> None:
    chat = SyncChat(sync_store, SyncScripted("Hello, ", "Bob!", DONE), system_prompt="Be kind.")
    events: list[Event] = []
    for event in chat.stream("Hi, I am Bob", conversation_id="talk", owner="bob"):
        events.append(event)
        both = [("user", "Hi, I am Bob"), ("assistant", "Hello, Bob!")]
        assert kept_sync(sync_store) == (both if event == DONE else both[:1])
    assert events == [Started("talk"), "Hello, ", "Bob!", DONE]
    assert chat.usage("talk", owner="bob") == Usage(3, 5)
    works(sync_store)


def test_a_turn_without_an_id_starts_a_conversation(sync_store: Store) -> None:
    reply = SyncChat(sync_store, SyncEcho()).send("Hi", owner="bob", title="Greetings")
    [conversation] = sync_store.list("bob").conversations
    assert (conversation.id, conversation.title) == (reply.conversation_id, "Greetings")


def test_another_reply_and_another_message(sync_store: Store) -> None:
    chat = SyncChat(sync_store, SyncEcho())
    chat.send("Hi", conversation_id="talk", owner="bob")
    chat.send("Ho", conversation_id="talk")
    other = SyncScripted("Well.", DONE)
    assert whole_sync(chat.regenerate("talk", model=other)).text == "Well."
    assert other.asked == [[("user", "Hi"), ("assistant", "You said: Hi"), ("user", "Ho")]]
    seq = sync_store.page("talk").messages[0].seq
    assert seq is not None
    assert whole_sync(chat.edit("talk", seq, "Hello")).text == "You said: Hello"
    assert kept_sync(sync_store) == [("user", "Hello"), ("assistant", "You said: Hello")]
    with pytest.raises(NotFound):
        whole_sync(chat.edit("talk", 100, "Hello"))
    sync_store.clear("talk")
    with pytest.raises(InvalidArgument):
        whole_sync(chat.regenerate("talk"))


def test_a_turn_that_is_not_kept_stores_nothing(sqlite_store: Store) -> None:
    chat = SyncChat(sqlite_store, SyncEcho())
    assert list(chat.stream_unkept("Hi", owner="bob")) == [Started(None), "You said: Hi", DONE]
    assert sqlite_store.list("bob").conversations == []


def test_hooks_see_and_change_and_what_they_raise_ends_the_turn(sqlite_store: Store) -> None:
    class Hook:
        def __init__(self) -> None:
            self.replies: list[Reply] = []

        def before_model(self, window: list[Message]) -> list[Message]:
            if window[-1].text == "Bad":
                raise ValueError("bad")
            return [Message.system("It is May."), *window]

        def after_reply(self, reply: Reply) -> None:
            self.replies.append(reply)
            raise ValueError("secret")

    hook, model = Hook(), SyncEcho()
    chat = SyncChat(sqlite_store, model, hooks=[hook])
    reply = chat.send("Hi", conversation_id="talk", owner="bob")
    assert model.asked == [[("system", "It is May."), ("user", "Hi")]]
    assert hook.replies == [reply]
    with pytest.raises(ValueError, match="bad"):
        chat.send("Bad", conversation_id="talk")
    assert kept_sync(sqlite_store)[-1] == ("user", "Bad")
    works(sqlite_store)


def test_results_of_tools_go_on(sqlite_store: Store) -> None:
    calls: Any = [{"id": "a", "name": "weather", "args": {}, "type": "tool_call"}]
    wants = Finished("tool_use", tool_calls=calls)
    SyncChat(sqlite_store, SyncScripted(wants)).send("Hi", conversation_id="talk", owner="bob")
    model = SyncEcho()
    SyncChat(sqlite_store, model).send(
        Message.tool("sunny", tool_call_id="a"), conversation_id="talk"
    )
    assert model.asked == [[("user", "Hi"), ("assistant", ""), ("tool", "sunny")]]


# When it goes wrong


@pytest.mark.parametrize("error", [OVERLOADED, RuntimeError("a bug"), TimeoutError("the socket")])
@pytest.mark.parametrize("said", ["", "Well, "], ids=["at once", "in mid-reply"])
def test_what_a_model_said_before_it_failed_is_kept_and_the_next_turn_works(
    sqlite_store: Store, said: str, error: Exception
) -> None:
    model = SyncScripted(*([said] if said else []), error)
    with pytest.raises(type(error), match=str(error)):
        SyncChat(sqlite_store, model).send("Hi", conversation_id="talk", owner="bob")
    assert kept_sync(sqlite_store)[1:] == ([("assistant", said)] if said else [])
    if said:
        assert stop_reason(sqlite_store) == "failed"
        works(sqlite_store)
    else:
        SyncChat(sqlite_store, SyncEcho()).send("Hi", conversation_id="talk")
        assert kept_sync(sqlite_store) == [("user", "Hi"), ("assistant", "You said: Hi")]


def test_a_model_that_just_ends_has_failed(sqlite_store: Store) -> None:
    with pytest.raises(ModelUnavailable, match="ended without saying that it had finished"):
        SyncChat(sqlite_store, SyncScripted("Well, ")).send("Hi", conversation_id="talk", owner="b")
    assert stop_reason(sqlite_store) == "failed"


@pytest.mark.parametrize("said", [True, False], ids=["in mid-reply", "before the first piece"])
def test_a_caller_who_leaves_keeps_what_was_said(
    sync_store: Store, waits: SyncWaits, said: bool
) -> None:
    model = SyncScripted(*(["Well, "] if said else []), waits, DONE)
    events = SyncChat(sync_store, model).stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    if said:
        assert next(events) == "Well, "
    events.close()
    assert kept_sync(sync_store)[1:] == ([("assistant", "Well, ")] if said else [])
    if said:
        assert stop_reason(sync_store) == "stopped"
    works(sync_store)
    waits.over.set()
    assert model.ended.wait(10)


def test_an_interrupted_caller_keeps_what_was_said(sqlite_store: Store) -> None:
    chat = SyncChat(sqlite_store, SyncScripted("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert [next(events), next(events)] == [Started("talk"), "Well, "]
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt())
    assert kept_sync(sqlite_store) == [("user", "Hi"), ("assistant", "Well, ")]
    works(sqlite_store)


@pytest.mark.parametrize("said", [True, False], ids=["in mid-reply", "before the first piece"])
def test_a_blocked_model_takes_no_longer_than_the_time_limit(
    sqlite_store: Store, waits: SyncWaits, said: bool
) -> None:
    model = SyncScripted(*(["Well, "] if said else []), waits, DONE)
    chat = SyncChat(sqlite_store, model, time_limit=timedelta(seconds=1 if said else 0.05))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    if said:
        assert list(events) == [Started("talk"), "Well, ", Finished("timed_out")]
        assert kept_sync(sqlite_store) == [("user", "Hi"), ("assistant", "Well, ")]
        assert stop_reason(sqlite_store) == "timed_out"
    else:
        with pytest.raises(ModelTimeout):
            list(events)
        assert kept_sync(sqlite_store) == [("user", "Hi")]
    works(sqlite_store)


def test_what_is_deleted_meanwhile_stays_deleted(sync_store: Store) -> None:
    chat = SyncChat(sync_store, SyncScripted("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    sync_store.delete("talk")
    assert list(events) == ["Well, ", "yes.", DONE]
    with pytest.raises(NotFound):
        sync_store.get("talk")


# Stopping


def in_thread(events: Iterator[Event]) -> tuple[threading.Thread, list[Event]]:
    seen: list[Event] = []
    thread = threading.Thread(target=lambda: seen.extend(events))
    thread.start()
    return thread, seen


@pytest.mark.parametrize("said", [True, False], ids=["in mid-reply", "before the first piece"])
def test_a_turn_is_stopped_from_another_thread(
    sqlite_store: Store, waits: SyncWaits, said: bool
) -> None:
    model = SyncScripted(*(["Well, "] if said else []), waits, DONE)
    chat = SyncChat(sqlite_store, model)
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    thread, seen = in_thread(events)
    assert waits.reached.wait(10)
    with pytest.raises(NotFound):
        chat.stop("talk", owner="eve")
    assert chat.stop("talk", owner="bob") is True
    thread.join(10)
    assert seen == (["Well, ", STOPPED] if said else [STOPPED])
    assert kept_sync(sqlite_store)[1:] == ([("assistant", "Well, ")] if said else [])
    assert chat.stop("talk", owner="bob") is False
    works(sqlite_store)


def test_a_turn_is_stopped_from_elsewhere(
    sync_store: Store, again: Store, waits: SyncWaits
) -> None:
    chat = SyncChat(sync_store, SyncScripted("Well, ", waits, DONE), lease=timedelta(seconds=1.5))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert [next(events), next(events)] == [Started("talk"), "Well, "]
    elsewhere = SyncChat(again, SyncEcho())
    assert elsewhere.stop("talk") is True
    works(again)
    assert list(events) == [STOPPED]
    assert ("assistant", "Well, ") in kept_sync(sync_store)


def test_a_turn_with_a_key_stopped_as_soon_as_it_has_started_ends(
    sqlite_store: Store, waits: SyncWaits
) -> None:
    chat = SyncChat(sqlite_store, SyncScripted(waits, "Well, ", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    assert next(events) == Started("talk")
    assert chat.stop("talk") is True
    thread, seen = in_thread(events)
    thread.join(2)
    ended = not thread.is_alive()
    waits.over.set()
    thread.join(10)
    assert ended, "the turn goes on"
    assert seen == [STOPPED]


# Keys and leases


def test_the_same_key_answers_with_the_stored_reply(sync_store: Store, again: Store) -> None:
    used = Finished("max_tokens", Usage(3, 5), latency_ms=7)
    chat = SyncChat(sync_store, SyncScripted("Well, ", "yes.", used))
    first = chat.send("Hi", owner="bob", idempotency_key="key 1")
    silent = SyncScripted()
    other = SyncChat(again, silent)
    assert other.send("Hi", owner="bob", idempotency_key="key 1") == first
    assert list(other.stream("Hi", owner="bob", idempotency_key="key 1")) == [
        Started(first.conversation_id),
        "Well, yes.",
        used,
    ]
    with pytest.raises(KeyReused):
        other.send("Ho", owner="bob", idempotency_key="key 1")
    with pytest.raises(InvalidArgument):
        other.send("Hi", idempotency_key="key 1")
    assert silent.asked == []


def test_what_failed_is_tried_again_with_its_key(sync_store: Store, again: Store) -> None:
    def send(store: Store, model: SyncScripted) -> Reply:
        return SyncChat(store, model).send(
            "Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"
        )

    with pytest.raises(ModelUnavailable):
        send(sync_store, SyncScripted(OVERLOADED))
    assert send(again, SyncEcho()).text == "You said: Hi"
    assert kept_sync(sync_store) == [("user", "Hi"), ("assistant", "You said: Hi")]


def test_of_threads_that_ask_at_the_same_moment_one_is_answered(
    sync_store: Store, again: Store, waits: SyncWaits
) -> None:
    sync_store.create("talk", owner="bob")
    chats = [SyncChat(store, SyncScripted(waits, "Well.", DONE)) for store in (sync_store, again)]
    ready, refused = threading.Barrier(6), threading.Semaphore(0)

    def ask(n: int) -> Reply | TurnInProgress:
        ready.wait(10)
        try:
            return chats[n % 2].send(f"{n}", conversation_id="talk")
        except TurnInProgress as held:
            refused.release()
            return held

    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(ask, n) for n in range(6)]
        for _ in range(5):
            assert refused.acquire(timeout=20)
        waits.over.set()
        answers = [each.result() for each in asked]
    [winner] = [n for n, answer in enumerate(answers) if isinstance(answer, Reply)]
    assert kept_sync(sync_store) == [("user", f"{winner}"), ("assistant", "Well.")]


def test_a_turn_that_takes_longer_than_its_lease_keeps_the_conversation(sync_store: Store) -> None:
    time = Time()
    pieces = [f"{n} " for n in range(5)]
    chat = timed(SyncChat(sync_store, SyncScripted(*pieces, DONE)), time)
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    rival = timed(SyncChat(sync_store, SyncEcho()), time)
    for piece in pieces:
        assert next(events) == piece
        with pytest.raises(TurnInProgress) as held:
            rival.send("Me too", conversation_id="talk")
        assert 0 < held.value.retry_after <= 60
        time.passes(25)
    assert list(events) == [DONE]
    assert kept_sync(sync_store) == [("user", "Hi"), ("assistant", "".join(pieces))]


def test_a_turn_that_nobody_drives_on_frees_the_conversation_when_its_lease_ends(
    sync_store: Store,
) -> None:
    time = Time()
    dead = timed(SyncChat(sync_store, SyncEcho()), time)
    events = dead.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    rival = timed(SyncChat(sync_store, SyncEcho()), time)
    with pytest.raises(TurnInProgress):
        rival.send("Me too", conversation_id="talk")
    time.passes(60)
    assert rival.send("Hi", conversation_id="talk").text == "You said: Hi"
    events.close()


# Threads


def test_no_thread_is_left_behind(sqlite_store: Store) -> None:
    chat = SyncChat(sqlite_store, SyncEcho())
    chat.send("Hi", conversation_id="talk", owner="bob")
    before = set(threading.enumerate())
    for n in range(5):
        chat.send(f"{n}", conversation_id="talk")
    with pytest.raises(ModelUnavailable):
        SyncChat(sqlite_store, SyncScripted(OVERLOADED)).send("Hi", conversation_id="talk")
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_a_model_nobody_hears_any_more_is_let_go_of_at_its_next_piece(sqlite_store: Store) -> None:
    model = SyncScripted("Well, ", *(f"{n}" for n in range(1_000)), DONE)
    events = SyncChat(sqlite_store, model).stream("Hi", conversation_id="talk", owner="bob")
    assert [next(events), next(events)] == [Started("talk"), "Well, "]
    events.close()
    assert model.ended.wait(10)


# One contract


def methods(chat: type) -> dict[str, Callable[..., Any]]:
    """Its own and those that it has from others."""
    return {
        name: value
        for name, value in inspect.getmembers(chat, inspect.isfunction)
        if not name.startswith("_")
    }


ASYNC_ALONE = {"close"}
"""A sync turn ends before its caller goes on."""


def said(annotation: object) -> str:
    """The annotation in sync words."""
    words = str(annotation)
    for theirs, ours in (
        ("collections.abc.AsyncGenerator", "collections.abc.Generator"),
        ("chatledger.models.protocol.SyncModel", "chatledger.models.protocol.Model"),
        ("Finished, None]", "Finished, None, None]"),
    ):
        words = words.replace(theirs, ours)
    return words.replace("None, None, None]", "None, None]")


def test_both_chats_have_the_same_methods() -> None:
    assert set(methods(SyncChat)) == set(methods(Chat)) - ASYNC_ALONE


@pytest.mark.parametrize("name", ["__init__", *methods(SyncChat)])
def test_signatures_agree(name: str) -> None:
    ours, theirs = (
        list(inspect.signature(getattr(chat, name)).parameters.values())
        for chat in (Chat, SyncChat)
    )
    assert [(each.name, each.kind, each.default) for each in ours] == [
        (each.name, each.kind, each.default) for each in theirs
    ]
    assert [
        (each.name, said(each.annotation)) for each in ours if each.name not in ("store", "model")
    ] == [
        (each.name, said(each.annotation)) for each in theirs if each.name not in ("store", "model")
    ]


@pytest.mark.parametrize("name", list(methods(SyncChat)))
def test_answers_agree(name: str) -> None:
    one, other = (
        inspect.signature(getattr(chat, name)).return_annotation for chat in (Chat, SyncChat)
    )
    streams: Sequence[str] = ("stream", "regenerate", "edit", "stream_unkept")
    if name in streams:
        assert str(one).removesuffix(", None]").replace("AsyncGenerator", "Generator") == str(
            other
        ).removesuffix(", None, None]")
    else:
        assert one == other
    assert inspect.iscoroutinefunction(getattr(Chat, name)) is (name not in streams)
    assert not inspect.iscoroutinefunction(getattr(SyncChat, name))


@pytest.mark.parametrize("name", list(methods(SyncChat)))
def test_help_says_the_same(name: str) -> None:
    promise = inspect.getdoc(getattr(Chat, name))
    assert promise
    assert inspect.getdoc(getattr(SyncChat, name)) == promise
