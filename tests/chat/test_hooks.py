"""What others add to a turn."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from chatledger.chat import Chat, Hook, Reply, Started
from chatledger.errors import InvalidArgument, ModelUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from chatledger.windows import last
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    Caller,
    Echo,
    Scripted,
    Waits,
    begin,
    events_of,
    kept,
    talk,
)

pytestmark = pytest.mark.anyio

Change = Callable[[list[Message]], list[Message]]


class Noted:
    """A hook that notes what it sees, and may change it."""

    def __init__(self, change: Change = list) -> None:
        self.windows: list[list[tuple[str, str]]] = []
        self.replies: list[Reply] = []
        self._change = change

    def before_model(self, window: list[Message]) -> list[Message]:
        self.windows.append(talk(window))
        return self._change(window)

    def after_reply(self, reply: Reply) -> None:
        self.replies.append(reply)


class Awaited(Noted):
    """The same, of which each method is async."""

    def before_model(self, window: list[Message]) -> Awaitable[list[Message]]:  # type: ignore[override]
        async def later() -> list[Message]:
            await asyncio.sleep(0)
            return Noted.before_model(self, window)

        return later()

    def after_reply(self, reply: Reply) -> Awaitable[None]:  # type: ignore[override]
        async def later() -> None:
            await asyncio.sleep(0)
            Noted.after_reply(self, reply)

        return later()


KINDS = pytest.mark.parametrize("kind", [Noted, Awaited], ids=["sync", "async"])


@KINDS
async def test_a_hook_sees_what_the_model_would_and_what_it_said(
    store: AsyncStore, kind: type[Noted]
) -> None:
    await begin(store, "I am Bob", "Hi")
    hook, model = kind(), Echo()
    chat = Chat(store, model, window=last(2), hooks=[hook])
    reply = await chat.send("Who am I?", conversation_id="talk")
    assert hook.windows == model.asked == [[("user", "Hi\n\nWho am I?")]]
    assert hook.replies == [reply] == [Reply("talk", "You said: Hi\n\nWho am I?", DONE)]


@KINDS
async def test_a_hook_may_change_what_the_model_sees_and_nothing_of_it_is_stored(
    store: AsyncStore, kind: type[Noted]
) -> None:
    hook = kind(lambda window: [Message.system("It is May."), *window])
    model = Echo()
    await Chat(store, model, hooks=[hook]).send("Hi", conversation_id="talk", owner="bob")
    assert model.asked == [[("system", "It is May."), ("user", "Hi")]]
    assert await kept(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_what_a_hook_makes_of_it_is_made_valid_for_models(sqlite: AsyncStore) -> None:
    def change(window: list[Message]) -> list[Message]:
        return [Message.assistant("Before all."), Message.user("Note: May."), *window]

    model = Echo()
    chat = Chat(sqlite, model, hooks=[Noted(change)])
    await chat.send("Hi", conversation_id="talk", owner="bob")
    assert model.asked == [[("user", "Note: May.\n\nHi")]]


async def test_hooks_are_called_in_their_order_each_with_what_the_one_before_made(
    sqlite: AsyncStore,
) -> None:
    def adding(text: str) -> Change:
        return lambda window: [*window, Message.user(text)]

    hooks = [Noted(adding("one")), Awaited(adding("two")), Noted(adding("three"))]
    model = Echo()
    await Chat(sqlite, model, hooks=hooks).send("Hi", conversation_id="talk", owner="bob")
    texts = [hook.windows[0][0][1].split("\n\n") for hook in hooks]
    assert texts == [["Hi"], ["Hi", "one"], ["Hi", "one", "two"]]
    assert model.asked[0][0][1].split("\n\n") == ["Hi", "one", "two", "three"]


async def test_the_users_message_is_stored_before_a_hook_is_asked_and_the_reply_before_it_is_told(
    store: AsyncStore,
) -> None:
    class Reads:
        def __init__(self) -> None:
            self.seen: list[list[tuple[str, str]]] = []

        async def before_model(self, window: list[Message]) -> list[Message]:
            self.seen.append(await kept(store))
            return window

        async def after_reply(self, reply: Reply) -> None:
            self.seen.append(await kept(store))

    hook = Reads()
    await Chat(store, Echo(), hooks=[hook]).send("Hi", conversation_id="talk", owner="bob")
    assert hook.seen == [[("user", "Hi")], [("user", "Hi"), ("assistant", "You said: Hi")]]


class Blocked(Exception):
    """What a moderator raises."""


class Raises(Noted):
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
async def test_what_a_hook_raises_ends_the_turn_and_the_next_one_works(
    store: AsyncStore, error: Exception
) -> None:
    model = Echo()
    behind = Noted()
    chat = Chat(store, model, hooks=[Raises(before=error), behind])
    with pytest.raises(type(error), match="no"):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert (model.asked, behind.windows, behind.replies) == ([], [], [])
    assert await kept(store) == [("user", "Hi")]
    # And sent again it is there once.
    await Chat(store, model).send("Hi", conversation_id="talk")
    assert await kept(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_what_is_no_list_of_messages_ends_the_turn_and_the_next_one_works(
    sqlite: AsyncStore,
) -> None:
    chat = Chat(sqlite, Echo(), hooks=[Noted(lambda window: None)])  # type: ignore[arg-type, return-value]
    with pytest.raises((TypeError, InvalidArgument)):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert (await Chat(sqlite, Echo()).send("Hi", conversation_id="talk")).finished == DONE


async def test_what_a_hook_raises_behind_the_reply_is_logged_by_its_kind_and_changes_nothing(
    store: AsyncStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    behind = Noted()
    hooks: list[Hook] = [Raises(after=Blocked("Hi, I am a secret")), behind]
    events = Chat(store, Echo(), hooks=hooks).stream("Hi", conversation_id="talk", owner="bob")
    assert await events_of(events) == [Started("talk"), "You said: Hi", DONE]
    assert await kept(store) == [("user", "Hi"), ("assistant", "You said: Hi")]
    assert len(behind.replies) == 1
    [record] = [each for each in caplog.records if each.name.startswith("chatledger.chat")]
    assert "Blocked" in record.getMessage()
    assert "secret" not in caplog.text
    assert record.exc_info is None
    assert (await Chat(store, Echo()).send("And now?", conversation_id="talk")).finished == DONE


@pytest.mark.parametrize(
    ("script", "text", "how"),
    [(("Well, ", OVERLOADED), "Well, ", "failed"), (("Well, ", Waits()), "Well, ", "stopped")],
)
async def test_hooks_are_told_of_replies_that_broke_off_as_such(
    sqlite: AsyncStore, script: tuple[str | Waits | Exception, ...], text: str, how: str
) -> None:
    hook = Noted()
    chat = Chat(sqlite, Scripted(*script), hooks=[hook])
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.until("Well, ")
    if how == "stopped":
        await chat.stop("talk")
    await asyncio.wait({caller.task}, timeout=20)
    assert [(reply.text, reply.finished.stop_reason) for reply in hook.replies] == [(text, how)]
    if how == "failed":
        assert isinstance(caller.task.exception(), ModelUnavailable)


async def test_hooks_are_not_told_of_what_is_not_stored(sqlite: AsyncStore) -> None:
    hook = Noted()
    chat = Chat(sqlite, Scripted(OVERLOADED), hooks=[hook])
    with pytest.raises(ModelUnavailable):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    await events_of(Chat(sqlite, Echo(), hooks=[hook]).stream_unkept("Hi"))
    assert hook.replies == []
    assert len(hook.windows) == 1


async def test_a_reply_that_is_answered_again_calls_no_hook(sqlite: AsyncStore) -> None:
    hook = Noted()
    chat = Chat(sqlite, Echo(), hooks=[hook])
    for _ in range(2):
        await chat.send("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    assert (len(hook.windows), len(hook.replies)) == (1, 1)


async def test_a_caller_who_leaves_while_a_hook_works_leaves_the_question_and_the_next_turn_works(
    store: AsyncStore,
) -> None:
    reached, over = asyncio.Event(), asyncio.Event()

    class Slow(Noted):
        def before_model(self, window: list[Message]) -> Awaitable[list[Message]]:  # type: ignore[override]
            async def later() -> list[Message]:
                reached.set()
                await over.wait()
                return window

            return later()

    model = Echo()
    chat = Chat(store, model, hooks=[Slow()])
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await reached.wait()
    caller.task.cancel()
    await asyncio.wait({caller.task}, timeout=20)
    over.set()
    await chat.close()
    assert model.asked == []
    assert await kept(store) == [("user", "Hi")]
    assert (await Chat(store, Echo()).send("Hi", conversation_id="talk")).finished == DONE


async def test_edits_and_other_replies_call_hooks_too(sqlite: AsyncStore) -> None:
    hook = Noted()
    chat = Chat(sqlite, Echo(), hooks=[hook])
    await chat.send("Hi", conversation_id="talk", owner="bob")
    await events_of(chat.regenerate("talk"))
    seq = (await sqlite.page("talk")).messages[0].seq
    assert seq is not None
    await events_of(chat.edit("talk", seq, "Ho"))
    assert hook.windows == [[("user", "Hi")], [("user", "Hi")], [("user", "Ho")]]
    assert [reply.text for reply in hook.replies] == [
        "You said: Hi",
        "You said: Hi",
        "You said: Ho",
    ]


async def test_a_hook_is_told_how_a_reply_ended(sqlite: AsyncStore) -> None:
    limit = Finished("max_tokens")
    hook = Noted()
    await Chat(sqlite, Scripted("Well", limit), hooks=[hook]).send("Hi", owner="bob")
    assert [reply.finished for reply in hook.replies] == [limit]
