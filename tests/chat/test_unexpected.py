"""Turns whose model, caller or other processes behave unexpectedly."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chatledger.chat import Chat, SyncChat, collect_sync
from chatledger.errors import (
    InvalidArgument,
    KeyReused,
    MessageTooLarge,
    ModelTimeout,
    ModelUnavailable,
    TurnInProgress,
)
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage
from chatledger.stores.contract import Store
from chatledger.stores.urls import open_async_store, open_store
from chatledger.windows import last

DONE = Finished("end_turn", Usage(10, 10))


class FakeModel:
    """A model that yields ``items``; it raises errors, and sleeps for floats."""

    id = "says"

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.call_count = 0

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        self.call_count += 1
        for item in self.items:
            if isinstance(item, float):
                time.sleep(item)
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        self.call_count += 1
        for item in self.items:
            await asyncio.sleep(item if isinstance(item, float) else 0)
            if isinstance(item, BaseException):
                raise item
            if not isinstance(item, float):
                yield item

    async def close(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'r.db'}")


def texts(store: Store, id: str = "talk") -> list[str]:
    return [message.text for message in store.tail(id, 50).messages]


# Keys ---------------------------------------------------------------------------------------------


def test_a_message_sent_again_with_its_key_is_answered_once_however_far_back(store: Store) -> None:
    model, question = FakeModel("reply", DONE), Message.user("Q")
    chat = SyncChat(store, model, window=last(2))
    first = chat.send(question, conversation_id="talk", owner="bob", idempotency_key="k")
    for n in range(3):
        chat.send(f"x{n}", conversation_id="talk")
    before = texts(store)
    again = chat.send(question, conversation_id="talk", owner="bob", idempotency_key="k")
    assert again == first
    assert (model.call_count, texts(store)) == (4, before)


@pytest.mark.anyio
async def test_one_message_object_sent_three_times_at_once_is_answered_once(tmp_path: Path) -> None:
    async with open_async_store(f"sqlite:///{tmp_path / 'r.db'}") as store:
        made = await store.create(owner="bob")
        chat, question = Chat(store, FakeModel("reply", 0.05, DONE)), Message.user("Q")
        sends = [
            chat.send(question, conversation_id=made.id, owner="bob", idempotency_key="k")
            for _ in range(3)
        ]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert {type(each).__name__ for each in outcomes} <= {"Reply", "TurnInProgress"}
        messages = (await store.tail(made.id, 9)).messages
        assert [message.text for message in messages] == ["Q", "reply"]


def test_a_failed_turn_is_not_tried_again_after_another_writers_reply(store: Store) -> None:
    def ask(*items: Any) -> None:
        SyncChat(store, FakeModel(*items)).send(
            "q", conversation_id="talk", owner="bob", idempotency_key="k"
        )

    with pytest.raises(ModelUnavailable):
        ask(ModelUnavailable("down"))
    store.append("talk", [Message.user("theirs"), Message.assistant("answered by others")])
    with pytest.raises(KeyReused):
        ask("late", DONE)


def test_a_message_read_from_the_store_starts_a_new_turn(store: Store) -> None:
    chat = SyncChat(store, FakeModel("one", DONE))
    chat.send("Q one", conversation_id="talk", owner="bob", idempotency_key="k")
    read = store.tail("talk", 5).messages[0]
    assert read.seq is not None
    collect_sync(chat.edit("talk", read.seq, replace(read, content="Q two")))
    with pytest.raises(KeyReused):
        chat.send("Q one", conversation_id="talk", idempotency_key="k")
    other = SyncChat(store, FakeModel("ok", Finished("end_turn")))
    other.send(store.tail("talk", 5).messages[0], conversation_id="other", owner="bob")
    assert other.usage("other") == Usage(0, 0)


# Models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [SystemExit("x"), asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_model_that_would_end_the_program_ends_its_turn(store: Store, end: BaseException) -> None:
    raised: list[BaseException] = []

    def send() -> None:
        try:
            SyncChat(store, FakeModel("a", end)).send("q", conversation_id="talk", owner="bob")
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(10)
    assert [type(error) for error in raised] == [ModelUnavailable]
    assert texts(store) == ["q", "a"]


@pytest.mark.parametrize(
    "output",
    [b"x", 7, {"text": "x"}, print, Finished("end_turn", {"input_tokens": 1})],  # type: ignore[arg-type]
)
def test_an_output_of_the_wrong_type_ends_the_turn_and_the_next_one_works(
    store: Store, output: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TypeError, match="pieces of text"):
        SyncChat(store, FakeModel("hello ", output, DONE)).send(
            "q", conversation_id="talk", owner="bob"
        )
    assert texts(store) == ["q", "hello "]
    SyncChat(store, FakeModel("ok", DONE)).send("q2", conversation_id="talk")
    assert capsys.readouterr().out == ""


def test_an_empty_piece_does_not_count_as_output(store: Store) -> None:
    chat = SyncChat(store, FakeModel("", 1.0, DONE), time_limit=timedelta(seconds=0.2))
    with pytest.raises(ModelTimeout):
        chat.send("q", conversation_id="talk", owner="bob")
    assert texts(store) == ["q"]


# Callers ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_close_waits_for_turns_whose_callers_left_with_break(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    async with open_async_store(url) as store:
        chat = Chat(store, FakeModel(*(f"p{n} " for n in range(100)), DONE))
        async for event in chat.stream("q", conversation_id="talk", owner="bob"):
            if event == "p3 ":
                break
        await chat.close()
    async with open_async_store(url) as store:
        messages = (await store.tail("talk", 5)).messages
        assert [message.text for message in messages] == ["q", "p0 p1 p2 p3 "]
        await Chat(store, FakeModel("ok", DONE)).send("q2", conversation_id="talk")


@pytest.mark.anyio
async def test_a_stop_takes_effect_before_pieces_that_were_not_taken_yet(tmp_path: Path) -> None:
    async with open_async_store(f"sqlite:///{tmp_path / 'r.db'}") as store:
        chat = Chat(store, FakeModel(*(f"p{n} " for n in range(6)), DONE))
        events = chat.stream("q", conversation_id="talk", owner="bob")
        await anext(events)
        assert await anext(events) == "p0 "
        await asyncio.sleep(0.1)
        assert await chat.stop("talk")
        assert [event async for event in events] == [Finished("stopped")]
        assert [m.text for m in (await store.tail("talk", 5)).messages] == ["q", "p0 "]


class InterruptedStore:
    """A store whose ``number``-th append is interrupted, before or after it lands."""

    def __init__(self, store: Store, number: int, *, lands: bool) -> None:
        self._store, self._number, self._lands, self._seen = store, number, lands, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, *arguments: Any, **options: Any) -> Any:
        self._seen += 1
        if self._seen != self._number:
            return self._store.append(*arguments, **options)
        if self._lands:
            self._store.append(*arguments, **options)
        raise KeyboardInterrupt


@pytest.mark.parametrize("lands", [False, True])
def test_an_interrupted_write_of_the_question_does_not_block_the_next_turn(
    store: Store, lands: bool
) -> None:
    store.create("talk", owner="bob")
    interrupted: Any = InterruptedStore(store, 1, lands=lands)
    with pytest.raises(KeyboardInterrupt):
        SyncChat(interrupted, FakeModel("hello", DONE)).send("q", conversation_id="talk")
    assert texts(store) == (["q"] if lands else [])
    SyncChat(store, FakeModel("ok", DONE)).send("q", conversation_id="talk")
    assert texts(store) == ["q", "ok"]


def test_a_hook_that_is_interrupted_is_not_called_again(store: Store) -> None:
    class Hook:
        calls = 0

        def before_model(self, window: list[Message]) -> list[Message]:
            return window

        def after_reply(self, reply: object) -> None:
            self.calls += 1
            raise KeyboardInterrupt

    hook = Hook()
    with pytest.raises(KeyboardInterrupt):
        SyncChat(store, FakeModel("hello", DONE), hooks=[hook]).send(
            "q", conversation_id="talk", owner="bob"
        )
    assert (hook.calls, texts(store)) == (1, ["q", "hello"])


@pytest.mark.parametrize("lands", [False, True])
def test_the_reply_is_saved_once_if_its_write_is_interrupted(store: Store, lands: bool) -> None:
    interrupted: Any = InterruptedStore(store, 2, lands=lands)
    with pytest.raises(KeyboardInterrupt):
        SyncChat(interrupted, FakeModel("hello", DONE)).send(
            "q", conversation_id="talk", owner="bob"
        )
    assert texts(store) == ["q", "hello"]
    SyncChat(store, FakeModel("ok", DONE)).send("q2", conversation_id="talk")


def test_a_sync_chat_rejects_async_hooks(store: Store) -> None:
    class Hook:
        async def before_model(self, window: list[Message]) -> list[Message]:
            return window

        async def after_reply(self, reply: object) -> None:
            pass

    with pytest.raises(TypeError, match="async hooks"):
        SyncChat(store, FakeModel("x", DONE), hooks=[Hook()]).send("q", owner="bob")


def test_a_hook_that_leaves_nothing_to_answer_ends_the_turn(store: Store) -> None:
    class Hook:
        def before_model(self, window: list[Message]) -> list[Message]:
            return [Message.system("be brief")]

        def after_reply(self, reply: object) -> None:
            pass

    model = FakeModel("x", DONE)
    with pytest.raises(InvalidArgument, match="nothing for the model"):
        SyncChat(store, model, hooks=[Hook()]).send("q", conversation_id="talk", owner="bob")
    assert model.call_count == 0


# First messages and options -----------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "k"])
def test_a_first_message_that_is_rejected_creates_no_conversation(
    store: Store, key: str | None
) -> None:
    chat = SyncChat(store, FakeModel("x", DONE))
    with pytest.raises(InvalidArgument):
        chat.send([Message.tool("x", tool_call_id="c")], owner="bob", idempotency_key=key)
    with pytest.raises(MessageTooLarge):
        chat.send("x" * (17 << 20), owner="bob", idempotency_key=key)
    assert store.list("bob").conversations == []


@pytest.mark.parametrize(
    "wrong", [{"lease": 30}, {"lease": None}, {"time_limit": 30}, {"window": 20}], ids=str
)
def test_invalid_options_are_rejected_at_once(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        SyncChat(store, FakeModel("x", DONE), **wrong)


# Two processes ------------------------------------------------------------------------------------


def test_the_usage_of_a_stopped_turn_is_added_to_that_of_later_turns(store: Store) -> None:
    here = SyncChat(store, FakeModel("part", 0.4, "x", DONE), lease=timedelta(seconds=0.9))
    there = SyncChat(store, FakeModel("ok", DONE))
    there.send("one", conversation_id="talk", owner="bob")
    events = here.stream("two", conversation_id="talk")
    next(events)
    assert next(events) == "part"
    assert there.stop("talk")
    there.send("three", conversation_id="talk")
    for _ in events:
        pass
    there.send("four", conversation_id="talk")
    assert there.usage("talk") == Usage(30, 30)


def test_a_question_asked_again_does_not_get_the_stopped_turns_partial_reply(store: Store) -> None:
    here = SyncChat(store, FakeModel("part", 0.4, "x", DONE), lease=timedelta(seconds=0.9))
    there = SyncChat(store, FakeModel("ok", DONE))
    events = here.stream("q", conversation_id="talk", owner="bob")
    next(events)
    assert next(events) == "part"
    assert there.stop("talk")
    there.send("q", conversation_id="talk")
    for _ in events:
        pass
    assert texts(store) == ["q", "ok"]
    with pytest.raises(StopIteration):
        next(events)


def test_the_second_of_two_turns_raises_turn_in_progress(store: Store) -> None:
    chat = SyncChat(store, FakeModel("x", DONE))
    events = chat.stream("q", conversation_id="talk", owner="bob")
    next(events)
    with pytest.raises(TurnInProgress):
        SyncChat(store, FakeModel("x", DONE)).send("q2", conversation_id="talk")
    events.close()
