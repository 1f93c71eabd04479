"""Hooks: they see and change the window, and see the reply."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from chatledger.chat import Hook, Reply, Started
from chatledger.errors import InvalidArgument, ModelUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.windows import last
from tests.chat.scripted_models import DONE, OVERLOADED, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Caller, Talk, collect_events

pytestmark = pytest.mark.anyio

Change = Callable[[list[Message]], list[Message]]


class RecordingHook:
    """A hook that records what it gets, and may change the window."""

    def __init__(self, change: Change = list) -> None:
        self.windows: list[list[tuple[str, str]]] = []
        self.replies: list[Reply] = []
        self._change = change

    def before_model(self, window: list[Message]) -> list[Message]:
        self.windows.append([(message.role, message.text) for message in window])
        return self._change(window)

    def after_reply(self, reply: Reply) -> None:
        self.replies.append(reply)


class AsyncRecordingHook(RecordingHook):
    """A ``RecordingHook`` with async methods."""

    async def before_model(self, window: list[Message]) -> list[Message]:  # type: ignore[override]
        await asyncio.sleep(0)
        return RecordingHook.before_model(self, window)

    async def after_reply(self, reply: Reply) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        RecordingHook.after_reply(self, reply)


HOOK_TYPES = pytest.mark.parametrize(
    "hook_type",
    [RecordingHook, pytest.param(AsyncRecordingHook, marks=pytest.mark.chat_only)],
    ids=["sync", "async"],
)


@HOOK_TYPES
async def test_a_hook_gets_the_models_window_and_its_reply(
    talk: Talk, hook_type: type[RecordingHook]
) -> None:
    await talk.create("I am Bob", "Hi")
    hook, model = hook_type(), EchoModel()
    chat = talk.chat(model, window=last(2), hooks=[hook])
    reply = await chat.send("Who am I?", conversation_id="talk")
    assert hook.windows == model.windows == [[("user", "Hi\n\nWho am I?")]]
    assert hook.replies == [reply] == [Reply("talk", "You said: Hi\n\nWho am I?", DONE)]


@HOOK_TYPES
async def test_a_hook_may_change_the_window_and_its_changes_are_not_stored(
    talk: Talk, hook_type: type[RecordingHook]
) -> None:
    hook = hook_type(lambda window: [Message.system("It is May."), *window])
    model = EchoModel()
    await talk.chat(model, hooks=[hook]).send("Hi", conversation_id="talk", owner="bob")
    assert model.windows == [[("system", "It is May."), ("user", "Hi")]]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_the_window_that_a_hook_returns_is_made_valid_for_models(sqlite: Talk) -> None:
    def change(window: list[Message]) -> list[Message]:
        return [Message.assistant("Before all."), Message.user("Note: May."), *window]

    model = EchoModel()
    chat = sqlite.chat(model, hooks=[RecordingHook(change)])
    await chat.send("Hi", conversation_id="talk", owner="bob")
    assert model.windows == [[("user", "Note: May.\n\nHi")]]


@pytest.mark.chat_only
async def test_hooks_are_called_in_order_each_with_the_window_of_the_previous_one(
    sqlite: Talk,
) -> None:
    def append_text(text: str) -> Change:
        return lambda window: [*window, Message.user(text)]

    hooks = [
        RecordingHook(append_text("one")),
        AsyncRecordingHook(append_text("two")),
        RecordingHook(append_text("three")),
    ]
    model = EchoModel()
    await sqlite.chat(model, hooks=hooks).send("Hi", conversation_id="talk", owner="bob")
    texts = [hook.windows[0][0][1].split("\n\n") for hook in hooks]
    assert texts == [["Hi"], ["Hi", "one"], ["Hi", "one", "two"]]
    assert model.windows[0][0][1].split("\n\n") == ["Hi", "one", "two", "three"]


@pytest.mark.chat_only
async def test_messages_are_stored_before_hooks_see_them(talk: Talk) -> None:
    class ReadingHook:
        def __init__(self) -> None:
            self.seen: list[list[tuple[str, str]]] = []

        async def before_model(self, window: list[Message]) -> list[Message]:
            self.seen.append(await talk.transcript())
            return window

        async def after_reply(self, reply: Reply) -> None:
            self.seen.append(await talk.transcript())

    hook = ReadingHook()
    await talk.chat(EchoModel(), hooks=[hook]).send("Hi", conversation_id="talk", owner="bob")
    assert hook.seen == [[("user", "Hi")], [("user", "Hi"), ("assistant", "You said: Hi")]]


class Blocked(Exception):
    """An error that a moderation hook raises."""


class RaisingHook(RecordingHook):
    def __init__(self, before: Exception | None = None, after: Exception | None = None) -> None:
        super().__init__()
        self._before, self._after = before, after

    def before_model(self, window: list[Message]) -> list[Message]:
        if self._before is not None:
            raise self._before
        return super().before_model(window)

    def after_reply(self, reply: Reply) -> None:
        super().after_reply(reply)
        if self._after is not None:
            raise self._after


@pytest.mark.parametrize("error", [Blocked("no"), InvalidArgument("no"), ModelUnavailable("no")])
async def test_an_error_in_before_model_ends_the_turn_and_the_next_one_works(
    talk: Talk, error: Exception
) -> None:
    model = EchoModel()
    next_hook = RecordingHook()
    chat = talk.chat(model, hooks=[RaisingHook(before=error), next_hook])
    with pytest.raises(type(error), match="no"):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert (model.windows, next_hook.windows, next_hook.replies) == ([], [], [])
    assert await talk.transcript() == [("user", "Hi")]
    # Sent again, the message is stored once.
    await talk.chat(model).send("Hi", conversation_id="talk")
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_hook_that_returns_no_list_of_messages_ends_the_turn_and_the_next_one_works(
    sqlite: Talk,
) -> None:
    chat = sqlite.chat(EchoModel(), hooks=[RecordingHook(lambda window: None)])  # type: ignore[arg-type, return-value]
    with pytest.raises((TypeError, InvalidArgument)):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert (await sqlite.chat(EchoModel()).send("Hi", conversation_id="talk")).finished == DONE


async def test_a_hook_that_leaves_nothing_to_answer_ends_the_turn(sqlite: Talk) -> None:
    hook, model = RecordingHook(lambda window: [Message.system("Be brief.")]), EchoModel()
    with pytest.raises(InvalidArgument, match="nothing for the model"):
        await sqlite.chat(model, hooks=[hook]).send("Hi", conversation_id="talk", owner="bob")
    assert model.windows == []


async def test_an_error_in_after_reply_is_logged_by_its_type_and_changes_nothing(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    next_hook = RecordingHook()
    hooks: list[Hook] = [RaisingHook(after=Blocked("Hi, I am a secret")), next_hook]
    events = talk.chat(EchoModel(), hooks=hooks).stream("Hi", conversation_id="talk", owner="bob")
    assert await collect_events(events) == [Started("talk"), "You said: Hi", DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]
    assert len(next_hook.replies) == 1
    [record] = [each for each in caplog.records if each.name.startswith("chatledger.chat")]
    assert "Blocked" in record.getMessage()
    assert "secret" not in caplog.text
    assert record.exc_info is None
    assert (await talk.chat(EchoModel()).send("And now?", conversation_id="talk")).finished == DONE


@pytest.mark.parametrize("how", ["failed", "stopped"])
async def test_hooks_get_partial_replies_with_their_stop_reason(sqlite: Talk, how: str) -> None:
    hook = RecordingHook()
    model = ScriptedModel("Well, ", OVERLOADED if how == "failed" else Gate())
    chat = sqlite.chat(model, hooks=[hook])
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, ")
    if how == "stopped":
        await chat.stop("talk")
    await asyncio.wait({caller.task}, timeout=20)
    assert [(reply.text, reply.finished.stop_reason) for reply in hook.replies] == [("Well, ", how)]
    if how == "failed":
        assert isinstance(caller.task.exception(), ModelUnavailable)


async def test_hooks_do_not_get_replies_that_are_not_stored(sqlite: Talk) -> None:
    hook = RecordingHook()
    chat = sqlite.chat(ScriptedModel(OVERLOADED), hooks=[hook])
    with pytest.raises(ModelUnavailable):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    await collect_events(sqlite.chat(EchoModel(), hooks=[hook]).stream_without_saving("Hi"))
    assert hook.replies == []
    assert len(hook.windows) == 1


async def test_a_replayed_reply_calls_no_hook(sqlite: Talk) -> None:
    hook = RecordingHook()
    chat = sqlite.chat(EchoModel(), hooks=[hook])
    for _ in range(2):
        await chat.send("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    assert (len(hook.windows), len(hook.replies)) == (1, 1)


@pytest.mark.chat_only
async def test_if_the_caller_leaves_during_a_hook_the_question_stays_and_the_next_turn_works(
    talk: Talk,
) -> None:
    class SlowHook(RecordingHook):
        async def before_model(self, window: list[Message]) -> list[Message]:  # type: ignore[override]
            await gate.wait()
            return window

    gate, model = Gate(), EchoModel()
    chat = talk.chat(model, hooks=[SlowHook()])
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await gate.reached.wait()
    await caller.leave()
    gate.opened.set()
    await chat.close()
    assert model.windows == []
    assert await talk.transcript() == [("user", "Hi")]
    assert (await talk.chat(EchoModel()).send("Hi", conversation_id="talk")).finished == DONE


async def test_edit_and_regenerate_call_hooks_too(sqlite: Talk) -> None:
    hook = RecordingHook()
    chat = sqlite.chat(EchoModel(), hooks=[hook])
    await chat.send("Hi", conversation_id="talk", owner="bob")
    await collect_events(chat.regenerate("talk"))
    seq = await sqlite.seq_of("Hi")
    await collect_events(chat.edit("talk", seq, "Ho"))
    assert hook.windows == [[("user", "Hi")], [("user", "Hi")], [("user", "Ho")]]
    assert [reply.text for reply in hook.replies] == [
        "You said: Hi",
        "You said: Hi",
        "You said: Ho",
    ]


async def test_a_hook_gets_the_stop_reason_of_a_reply(sqlite: Talk) -> None:
    limit = Finished("max_tokens")
    hook = RecordingHook()
    await sqlite.chat(ScriptedModel("Well", limit), hooks=[hook]).send("Hi", owner="bob")
    assert [reply.finished for reply in hook.replies] == [limit]
