"""SyncChat: turns for callers without an event loop behave like those of Chat."""

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chatledger.chat import Chat, Event, Reply, Started, SyncChat, collect_sync
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
    FakeTime,
    SyncEchoModel,
    SyncGate,
    SyncScriptedModel,
    transcript_sync,
    with_time,
)

STOPPED = Finished("stopped")


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[Store]:
    """A store for tests that do not depend on its kind."""
    with open_store(f"sqlite:///{path}") as store:
        yield store


@pytest.fixture
def reopened(url: str) -> Iterator[Store]:
    """The same store, opened again as by another process."""
    with open_store(url) as store:
        yield store


@pytest.fixture
def gate() -> Iterator[SyncGate]:
    """A gate that opens at the end of the test, so that the model's thread ends."""
    gate = SyncGate()
    yield gate
    gate.opened.set()


def assert_next_turn_works(store: Store, text: str = "And now?") -> None:
    reply = SyncChat(store, SyncEchoModel()).send(text, conversation_id="talk", owner="bob")
    assert reply.finished == DONE
    assert transcript_sync(store)[-2:] == [("user", text), ("assistant", reply.text)]


def stop_reason(store: Store) -> object:
    return store.tail("talk", 1).messages[0].extra["stop_reason"]


# A turn


def test_messages_are_stored_before_their_events_are_yielded(sync_store: Store) -> None:
    chat = SyncChat(
        sync_store, SyncScriptedModel("Hello, ", "Bob!", DONE), system_prompt="Be kind."
    )
    events: list[Event] = []
    for event in chat.stream("Hi, I am Bob", conversation_id="talk", owner="bob"):
        events.append(event)
        both = [("user", "Hi, I am Bob"), ("assistant", "Hello, Bob!")]
        assert transcript_sync(sync_store) == (both if event == DONE else both[:1])
    assert events == [Started("talk"), "Hello, ", "Bob!", DONE]
    assert chat.usage("talk", owner="bob") == Usage(3, 5)
    assert_next_turn_works(sync_store)


def test_a_turn_without_an_id_starts_a_conversation(sync_store: Store) -> None:
    reply = SyncChat(sync_store, SyncEchoModel()).send("Hi", owner="bob", title="Greetings")
    [conversation] = sync_store.list("bob").conversations
    assert (conversation.id, conversation.title) == (reply.conversation_id, "Greetings")


def test_regenerate_and_edit(sync_store: Store) -> None:
    chat = SyncChat(sync_store, SyncEchoModel())
    chat.send("Hi", conversation_id="talk", owner="bob")
    chat.send("Ho", conversation_id="talk")
    other = SyncScriptedModel("Well.", DONE)
    assert collect_sync(chat.regenerate("talk", model=other)).text == "Well."
    assert other.windows == [[("user", "Hi"), ("assistant", "You said: Hi"), ("user", "Ho")]]
    seq = sync_store.page("talk").messages[0].seq
    assert seq is not None
    assert collect_sync(chat.edit("talk", seq, "Hello")).text == "You said: Hello"
    assert transcript_sync(sync_store) == [("user", "Hello"), ("assistant", "You said: Hello")]
    with pytest.raises(NotFound):
        collect_sync(chat.edit("talk", 100, "Hello"))
    sync_store.clear("talk")
    with pytest.raises(InvalidArgument):
        collect_sync(chat.regenerate("talk"))


def test_an_unsaved_turn_stores_nothing(sqlite_store: Store) -> None:
    chat = SyncChat(sqlite_store, SyncEchoModel())
    assert list(chat.stream_without_saving("Hi", owner="bob")) == [
        Started(None),
        "You said: Hi",
        DONE,
    ]
    assert sqlite_store.list("bob").conversations == []


def test_hooks_change_the_window_and_their_errors_end_the_turn(sqlite_store: Store) -> None:
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

    hook, model = Hook(), SyncEchoModel()
    chat = SyncChat(sqlite_store, model, hooks=[hook])
    reply = chat.send("Hi", conversation_id="talk", owner="bob")
    assert model.windows == [[("system", "It is May."), ("user", "Hi")]]
    assert hook.replies == [reply]
    with pytest.raises(ValueError, match="bad"):
        chat.send("Bad", conversation_id="talk")
    assert transcript_sync(sqlite_store)[-1] == ("user", "Bad")
    assert_next_turn_works(sqlite_store)


def test_tool_results_continue_the_conversation(sqlite_store: Store) -> None:
    calls: Any = [{"id": "a", "name": "weather", "args": {}, "type": "tool_call"}]
    tool_use = Finished("tool_use", tool_calls=calls)
    SyncChat(sqlite_store, SyncScriptedModel(tool_use)).send(
        "Hi", conversation_id="talk", owner="bob"
    )
    model = SyncEchoModel()
    SyncChat(sqlite_store, model).send(
        Message.tool("sunny", tool_call_id="a"), conversation_id="talk"
    )
    assert model.windows == [[("user", "Hi"), ("assistant", ""), ("tool", "sunny")]]


# Failures


@pytest.mark.parametrize("error", [OVERLOADED, RuntimeError("a bug"), TimeoutError("the socket")])
@pytest.mark.parametrize("partial_text", ["", "Well, "], ids=["at once", "in mid-reply"])
def test_a_failed_models_partial_reply_is_saved_and_the_next_turn_works(
    sqlite_store: Store, partial_text: str, error: Exception
) -> None:
    model = SyncScriptedModel(*([partial_text] if partial_text else []), error)
    with pytest.raises(type(error), match=str(error)):
        SyncChat(sqlite_store, model).send("Hi", conversation_id="talk", owner="bob")
    assert transcript_sync(sqlite_store)[1:] == (
        [("assistant", partial_text)] if partial_text else []
    )
    if partial_text:
        assert stop_reason(sqlite_store) == "failed"
        assert_next_turn_works(sqlite_store)
    else:
        SyncChat(sqlite_store, SyncEchoModel()).send("Hi", conversation_id="talk")
        assert transcript_sync(sqlite_store) == [("user", "Hi"), ("assistant", "You said: Hi")]


def test_a_model_that_ends_without_finished_has_failed(sqlite_store: Store) -> None:
    with pytest.raises(ModelUnavailable, match="ended its reply without Finished"):
        SyncChat(sqlite_store, SyncScriptedModel("Well, ")).send(
            "Hi", conversation_id="talk", owner="b"
        )
    assert stop_reason(sqlite_store) == "failed"


@pytest.mark.parametrize(
    "is_mid_reply", [True, False], ids=["in mid-reply", "before the first piece"]
)
def test_the_partial_reply_is_saved_when_the_caller_leaves(
    sync_store: Store, gate: SyncGate, is_mid_reply: bool
) -> None:
    model = SyncScriptedModel(*(["Well, "] if is_mid_reply else []), gate, DONE)
    events = SyncChat(sync_store, model).stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    if is_mid_reply:
        assert next(events) == "Well, "
    events.close()
    assert transcript_sync(sync_store)[1:] == ([("assistant", "Well, ")] if is_mid_reply else [])
    if is_mid_reply:
        assert stop_reason(sync_store) == "stopped"
    assert_next_turn_works(sync_store)
    gate.opened.set()
    assert model.ended.wait(10)


def test_the_partial_reply_is_saved_when_the_caller_is_interrupted(sqlite_store: Store) -> None:
    chat = SyncChat(sqlite_store, SyncScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert [next(events), next(events)] == [Started("talk"), "Well, "]
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt())
    assert transcript_sync(sqlite_store) == [("user", "Hi"), ("assistant", "Well, ")]
    assert_next_turn_works(sqlite_store)


@pytest.mark.parametrize(
    "is_mid_reply", [True, False], ids=["in mid-reply", "before the first piece"]
)
def test_the_time_limit_ends_the_turn_of_a_blocked_model(
    sqlite_store: Store, gate: SyncGate, is_mid_reply: bool
) -> None:
    model = SyncScriptedModel(*(["Well, "] if is_mid_reply else []), gate, DONE)
    chat = SyncChat(sqlite_store, model, time_limit=timedelta(seconds=1 if is_mid_reply else 0.05))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    if is_mid_reply:
        assert list(events) == [Started("talk"), "Well, ", Finished("timed_out")]
        assert transcript_sync(sqlite_store) == [("user", "Hi"), ("assistant", "Well, ")]
        assert stop_reason(sqlite_store) == "timed_out"
    else:
        with pytest.raises(ModelTimeout):
            list(events)
        assert transcript_sync(sqlite_store) == [("user", "Hi")]
    assert_next_turn_works(sqlite_store)


def test_a_conversation_deleted_during_a_turn_stays_deleted(sync_store: Store) -> None:
    chat = SyncChat(sync_store, SyncScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    sync_store.delete("talk")
    assert list(events) == ["Well, ", "yes.", DONE]
    with pytest.raises(NotFound):
        sync_store.get("talk")


# Stopping


def collect_in_thread(events: Iterator[Event]) -> tuple[threading.Thread, list[Event]]:
    seen: list[Event] = []
    thread = threading.Thread(target=lambda: seen.extend(events))
    thread.start()
    return thread, seen


@pytest.mark.parametrize(
    "is_mid_reply", [True, False], ids=["in mid-reply", "before the first piece"]
)
def test_a_turn_can_be_stopped_from_another_thread(
    sqlite_store: Store, gate: SyncGate, is_mid_reply: bool
) -> None:
    model = SyncScriptedModel(*(["Well, "] if is_mid_reply else []), gate, DONE)
    chat = SyncChat(sqlite_store, model)
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    thread, seen = collect_in_thread(events)
    assert gate.reached.wait(10)
    with pytest.raises(NotFound):
        chat.stop("talk", owner="eve")
    assert chat.stop("talk", owner="bob") is True
    thread.join(10)
    assert seen == (["Well, ", STOPPED] if is_mid_reply else [STOPPED])
    assert transcript_sync(sqlite_store)[1:] == ([("assistant", "Well, ")] if is_mid_reply else [])
    assert chat.stop("talk", owner="bob") is False
    assert_next_turn_works(sqlite_store)


def test_a_turn_can_be_stopped_from_another_process(
    sync_store: Store, reopened: Store, gate: SyncGate
) -> None:
    chat = SyncChat(
        sync_store, SyncScriptedModel("Well, ", gate, DONE), lease=timedelta(seconds=1.5)
    )
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert [next(events), next(events)] == [Started("talk"), "Well, "]
    other_chat = SyncChat(reopened, SyncEchoModel())
    assert other_chat.stop("talk") is True
    assert_next_turn_works(reopened)
    assert list(events) == [STOPPED]
    assert ("assistant", "Well, ") in transcript_sync(sync_store)


def test_a_turn_with_a_key_stopped_as_soon_as_it_has_started_ends(
    sqlite_store: Store, gate: SyncGate
) -> None:
    chat = SyncChat(sqlite_store, SyncScriptedModel(gate, "Well, ", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    assert next(events) == Started("talk")
    assert chat.stop("talk") is True
    thread, seen = collect_in_thread(events)
    thread.join(2)
    ended = not thread.is_alive()
    gate.opened.set()
    thread.join(10)
    assert ended, "the turn goes on"
    assert seen == [STOPPED]


# Keys and leases


def test_the_same_key_returns_the_stored_reply(sync_store: Store, reopened: Store) -> None:
    finished = Finished("max_tokens", Usage(3, 5), latency_ms=7)
    chat = SyncChat(sync_store, SyncScriptedModel("Well, ", "yes.", finished))
    first = chat.send("Hi", owner="bob", idempotency_key="key 1")
    unused_model = SyncScriptedModel()
    other = SyncChat(reopened, unused_model)
    assert other.send("Hi", owner="bob", idempotency_key="key 1") == first
    assert list(other.stream("Hi", owner="bob", idempotency_key="key 1")) == [
        Started(first.conversation_id),
        "Well, yes.",
        finished,
    ]
    with pytest.raises(KeyReused):
        other.send("Ho", owner="bob", idempotency_key="key 1")
    with pytest.raises(InvalidArgument):
        other.send("Hi", idempotency_key="key 1")
    assert unused_model.windows == []


def test_a_failed_turn_is_tried_again_with_its_key(sync_store: Store, reopened: Store) -> None:
    def send(store: Store, model: SyncScriptedModel) -> Reply:
        return SyncChat(store, model).send(
            "Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"
        )

    with pytest.raises(ModelUnavailable):
        send(sync_store, SyncScriptedModel(OVERLOADED))
    assert send(reopened, SyncEchoModel()).text == "You said: Hi"
    assert transcript_sync(sync_store) == [("user", "Hi"), ("assistant", "You said: Hi")]


def test_only_one_of_many_simultaneous_threads_gets_a_reply(
    sync_store: Store, reopened: Store, gate: SyncGate
) -> None:
    sync_store.create("talk", owner="bob")
    chats = [
        SyncChat(store, SyncScriptedModel(gate, "Well.", DONE)) for store in (sync_store, reopened)
    ]
    ready, refused = threading.Barrier(6), threading.Semaphore(0)

    def ask(n: int) -> Reply | TurnInProgress:
        ready.wait(10)
        try:
            return chats[n % 2].send(f"{n}", conversation_id="talk")
        except TurnInProgress as rejected:
            refused.release()
            return rejected

    with ThreadPoolExecutor(6) as threads:
        futures = [threads.submit(ask, n) for n in range(6)]
        for _ in range(5):
            assert refused.acquire(timeout=20)
        gate.opened.set()
        answers = [each.result() for each in futures]
    [winner] = [n for n, answer in enumerate(answers) if isinstance(answer, Reply)]
    assert transcript_sync(sync_store) == [("user", f"{winner}"), ("assistant", "Well.")]


def test_a_turn_that_takes_longer_than_its_lease_renews_it(sync_store: Store) -> None:
    time = FakeTime()
    pieces = [f"{n} " for n in range(5)]
    chat = with_time(SyncChat(sync_store, SyncScriptedModel(*pieces, DONE)), time)
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    rival = with_time(SyncChat(sync_store, SyncEchoModel()), time)
    for piece in pieces:
        assert next(events) == piece
        with pytest.raises(TurnInProgress) as rejected:
            rival.send("Me too", conversation_id="talk")
        assert 0 < rejected.value.retry_after <= 60
        time.advance(25)
    assert list(events) == [DONE]
    assert transcript_sync(sync_store) == [("user", "Hi"), ("assistant", "".join(pieces))]


def test_an_abandoned_turn_blocks_others_only_until_its_lease_ends(sync_store: Store) -> None:
    time = FakeTime()
    abandoned = with_time(SyncChat(sync_store, SyncEchoModel()), time)
    events = abandoned.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    rival = with_time(SyncChat(sync_store, SyncEchoModel()), time)
    with pytest.raises(TurnInProgress):
        rival.send("Me too", conversation_id="talk")
    time.advance(60)
    assert rival.send("Hi", conversation_id="talk").text == "You said: Hi"
    events.close()


# Threads


def test_no_thread_outlives_its_turn(sqlite_store: Store) -> None:
    chat = SyncChat(sqlite_store, SyncEchoModel())
    chat.send("Hi", conversation_id="talk", owner="bob")
    before = set(threading.enumerate())
    for n in range(5):
        chat.send(f"{n}", conversation_id="talk")
    with pytest.raises(ModelUnavailable):
        SyncChat(sqlite_store, SyncScriptedModel(OVERLOADED)).send("Hi", conversation_id="talk")
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_a_cancelled_model_call_ends_at_its_next_piece(sqlite_store: Store) -> None:
    model = SyncScriptedModel("Well, ", *(f"{n}" for n in range(1_000)), DONE)
    events = SyncChat(sqlite_store, model).stream("Hi", conversation_id="talk", owner="bob")
    assert [next(events), next(events)] == [Started("talk"), "Well, "]
    events.close()
    assert model.ended.wait(10)


# The same methods as Chat


def methods(chat: type) -> dict[str, Callable[..., Any]]:
    """Return the public methods, inherited ones too."""
    return {
        name: value
        for name, value in inspect.getmembers(chat, inspect.isfunction)
        if not name.startswith("_")
    }


ASYNC_ONLY = {"close"}
"""Not needed in a SyncChat: its turns end before their callers continue."""


def sync_annotation(annotation: object) -> str:
    """Return the annotation with sync types in place of async ones."""
    words = str(annotation)
    for async_name, sync_name in (
        ("collections.abc.AsyncGenerator", "collections.abc.Generator"),
        ("chatledger.models.protocol.SyncModel", "chatledger.models.protocol.Model"),
        ("Finished, None]", "Finished, None, None]"),
    ):
        words = words.replace(async_name, sync_name)
    return words.replace("None, None, None]", "None, None]")


def test_both_chats_have_the_same_methods() -> None:
    assert set(methods(SyncChat)) == set(methods(Chat)) - ASYNC_ONLY


@pytest.mark.parametrize("name", ["__init__", *methods(SyncChat)])
def test_signatures_agree(name: str) -> None:
    sync_name, async_name = (
        list(inspect.signature(getattr(chat, name)).parameters.values())
        for chat in (Chat, SyncChat)
    )
    assert [(each.name, each.kind, each.default) for each in sync_name] == [
        (each.name, each.kind, each.default) for each in async_name
    ]
    assert [
        (each.name, sync_annotation(each.annotation))
        for each in sync_name
        if each.name not in ("store", "model")
    ] == [
        (each.name, sync_annotation(each.annotation))
        for each in async_name
        if each.name not in ("store", "model")
    ]


@pytest.mark.parametrize("name", list(methods(SyncChat)))
def test_return_types_agree(name: str) -> None:
    one, other = (
        inspect.signature(getattr(chat, name)).return_annotation for chat in (Chat, SyncChat)
    )
    streams: Sequence[str] = ("stream", "regenerate", "edit", "stream_without_saving")
    if name in streams:
        assert str(one).removesuffix(", None]").replace("AsyncGenerator", "Generator") == str(
            other
        ).removesuffix(", None, None]")
    else:
        assert one == other
    assert inspect.iscoroutinefunction(getattr(Chat, name)) is (name not in streams)
    assert not inspect.iscoroutinefunction(getattr(SyncChat, name))


@pytest.mark.parametrize("name", list(methods(SyncChat)))
def test_docstrings_agree(name: str) -> None:
    promise = inspect.getdoc(getattr(Chat, name))
    assert promise
    assert inspect.getdoc(getattr(SyncChat, name)) == promise
