"""The parts that only ``SyncChat`` has: threads, interrupts, and sync stores and models of its own.

All other tests of turns hold it too, through ``threaded_chat``.
"""

import inspect
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chatledger.chat import Chat, Event, Reply, Started, SyncChat
from chatledger.errors import ModelUnavailable, TurnInProgress
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage
from chatledger.stores.contract import Store
from chatledger.stores.urls import open_store
from tests.chat.scripted_models import DONE, OVERLOADED


class Gate:
    """A point at which a model sets ``reached`` and waits until ``opened`` is set."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()


class ScriptedModel:
    """A model that follows its script: yields texts, raises errors, waits."""

    id = "scripted"

    def __init__(self, *script: object) -> None:
        self._script = script
        self.calls = 0
        self.ended = threading.Event()

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        self.calls += 1
        try:
            for step in self._script:
                match step:
                    case Gate():
                        step.reached.set()
                        step.opened.wait(10)
                    case BaseException():
                        raise step
                    case str() | Finished():
                        yield step
        finally:
            self.ended.set()


class RecordingHook:
    """A hook that records the replies that it gets, and may raise an error then."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.replies: list[Reply] = []
        self._error = error

    def before_model(self, window: list[Message]) -> list[Message]:
        return window

    def after_reply(self, reply: Reply) -> None:
        self.replies.append(reply)
        if self._error is not None:
            raise self._error


class InterruptedStore:
    """A store whose ``n``-th append is interrupted, before or after it lands."""

    def __init__(self, store: Store, n: int, *, lands: bool) -> None:
        self._store, self._n, self._lands, self._appends = store, n, lands, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, *arguments: Any, **options: Any) -> Any:
        self._appends += 1
        if self._appends != self._n:
            return self._store.append(*arguments, **options)
        if self._lands:
            self._store.append(*arguments, **options)
        raise KeyboardInterrupt


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{path}") as store:
        yield store


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that opens at the end of the test, so that the model's thread ends."""
    gate = Gate()
    yield gate
    gate.opened.set()


def texts(store: Store) -> list[str]:
    return [message.text for message in store.tail("talk", 50).messages]


def send(store: Store, *script: object, text: str = "Hi", **options: Any) -> Reply:
    chat = SyncChat(store, ScriptedModel(*script), **options)
    return chat.send(text, conversation_id="talk", owner="bob")


def test_turns_over_stores_and_models_without_an_event_loop(sync_store: Store) -> None:
    model = ScriptedModel("Well, ", "yes.", DONE)
    chat = SyncChat(sync_store, model)
    events: list[Event] = []
    for event in chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"):
        events.append(event)
        assert texts(sync_store) == (["Hi", "Well, yes."] if event == DONE else ["Hi"])
    assert events == [Started("talk"), "Well, ", "yes.", DONE]
    reply = chat.send("Hi", conversation_id="talk", idempotency_key="key 1")
    assert reply == Reply("talk", "Well, yes.", DONE)
    assert model.calls == 1
    assert [*chat.regenerate("talk")] == events
    seq = sync_store.tail("talk", 2).messages[0].seq
    assert seq is not None
    assert [*chat.edit("talk", seq, "Ho")] == events
    assert texts(sync_store) == ["Ho", "Well, yes."]
    assert chat.usage("talk", owner="bob") == Usage(9, 15)
    assert chat.stop("talk", owner="bob") is False


# The caller is interrupted


def test_the_partial_reply_is_saved_when_the_caller_is_interrupted(sqlite_store: Store) -> None:
    chat = SyncChat(sqlite_store, ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert [next(events), next(events)] == [Started("talk"), "Well, "]
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt())
    assert texts(sqlite_store) == ["Hi", "Well, "]
    assert send(sqlite_store, "Yes.", DONE, text="And now?").text == "Yes."


@pytest.mark.parametrize("lands", [False, True])
def test_an_interrupted_write_of_the_question_does_not_block_the_next_turn(
    sqlite_store: Store, lands: bool
) -> None:
    sqlite_store.create("talk", owner="bob")
    interrupted: Any = InterruptedStore(sqlite_store, 1, lands=lands)
    with pytest.raises(KeyboardInterrupt):
        send(interrupted, "Well.", DONE)
    assert texts(sqlite_store) == (["Hi"] if lands else [])
    send(sqlite_store, "Yes.", DONE)
    assert texts(sqlite_store) == ["Hi", "Yes."]


@pytest.mark.parametrize("lands", [False, True])
def test_the_reply_is_saved_once_if_its_write_is_interrupted(
    sqlite_store: Store, lands: bool
) -> None:
    interrupted: Any = InterruptedStore(sqlite_store, 2, lands=lands)
    with pytest.raises(KeyboardInterrupt):
        send(interrupted, "Well.", DONE)
    assert texts(sqlite_store) == ["Hi", "Well."]
    send(sqlite_store, "Yes.", DONE, text="And now?")


def test_a_hook_that_is_interrupted_is_not_called_again(sqlite_store: Store) -> None:
    hook = RecordingHook(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        send(sqlite_store, "Well.", DONE, hooks=[hook])
    assert (len(hook.replies), texts(sqlite_store)) == (1, ["Hi", "Well."])


# Threads


@pytest.mark.parametrize("end", [SystemExit("x"), KeyboardInterrupt()])
def test_a_model_that_would_end_the_program_ends_its_turn(
    sqlite_store: Store, end: BaseException
) -> None:
    with pytest.raises(ModelUnavailable, match="interrupted"):
        send(sqlite_store, "Well, ", end)
    assert texts(sqlite_store) == ["Hi", "Well, "]


def test_a_turn_can_be_stopped_from_another_thread(sqlite_store: Store, gate: Gate) -> None:
    chat = SyncChat(sqlite_store, ScriptedModel("Well, ", gate, DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert next(events) == Started("talk")
    with ThreadPoolExecutor(1) as threads:
        others = threads.submit(list, events)
        assert gate.reached.wait(10)
        assert chat.stop("talk", owner="bob") is True
        assert others.result(10)[-1] == Finished("stopped")
    assert chat.stop("talk", owner="bob") is False


def test_only_one_of_many_simultaneous_threads_gets_a_reply(
    sync_store: Store, url: str, gate: Gate
) -> None:
    sync_store.create("talk", owner="bob")
    ready, refused = threading.Barrier(6), threading.Semaphore(0)

    def ask(chat: SyncChat, n: int) -> Reply | None:
        ready.wait(10)
        try:
            return chat.send(f"{n}", conversation_id="talk")
        except TurnInProgress:
            refused.release()
            return None

    with open_store(url) as reopened, ThreadPoolExecutor(6) as threads:
        stores = (sync_store, reopened)
        chats = [SyncChat(store, ScriptedModel(gate, "Well.", DONE)) for store in stores]
        turns = [threads.submit(ask, chats[n % 2], n) for n in range(6)]
        for _ in range(5):
            assert refused.acquire(timeout=20)
        gate.opened.set()
        [winner] = [n for n, turn in enumerate(turns) if turn.result()]
    assert texts(sync_store) == [f"{winner}", "Well."]


def test_no_thread_outlives_its_turn(sqlite_store: Store) -> None:
    send(sqlite_store, "Well.", DONE)  # starts the threads of the store
    before = set(threading.enumerate())
    for n in range(5):
        send(sqlite_store, "Well.", DONE, text=f"{n}")
    with pytest.raises(ModelUnavailable):
        send(sqlite_store, OVERLOADED)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_a_cancelled_model_call_ends_at_its_next_piece(sqlite_store: Store) -> None:
    model = ScriptedModel("Well, ", *(f"{n}" for n in range(1_000)), DONE)
    events = SyncChat(sqlite_store, model).stream("Hi", conversation_id="talk", owner="bob")
    assert [next(events), next(events)] == [Started("talk"), "Well, "]
    events.close()
    assert model.ended.wait(10)


# The same methods as Chat


def test_async_hooks_are_rejected(sqlite_store: Store) -> None:
    class AsyncHook(RecordingHook):
        async def before_model(self, window: list[Message]) -> list[Message]:  # type: ignore[override]
            return window

    with pytest.raises(TypeError, match="async hooks"):
        send(sqlite_store, "Well.", DONE, hooks=[AsyncHook()])


def test_both_chats_have_the_same_methods_with_the_same_signatures_and_docstrings() -> None:
    def public(chat: type) -> dict[str, Any]:
        methods = inspect.getmembers(chat, inspect.isfunction)
        return {name: method for name, method in methods if not name.startswith("_")}

    of_chat, of_sync_chat = public(Chat), public(SyncChat)
    # A SyncChat needs no close: its turns end before their callers continue.
    assert of_chat.keys() - {"close"} == of_sync_chat.keys()
    for name, method in of_sync_chat.items():
        assert inspect.signature(method) == inspect.signature(of_chat[name])
        assert inspect.getdoc(method) == inspect.getdoc(of_chat[name]) is not None
