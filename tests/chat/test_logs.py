"""What users write, and what models say, is in no log."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta

import pytest

from chatledger.chat import Chat, Event, Reply, Started, SyncChat
from chatledger.errors import ChatledgerError, ModelUnavailable, StoreUnavailable
from chatledger.messages import Message
from chatledger.stores.contract import AsyncStore, Store
from tests.chat.chat_helpers import (
    DONE,
    Caller,
    Scripted,
    SyncScripted,
    Time,
    Waits,
    Watched,
    events_of,
    timed,
    until_piece,
)

pytestmark = pytest.mark.anyio

NAMES = ("prompt", "reply", "system", "title", "key", "error", "tool", "owner", "hook", "edited")
MARKS = {name: f"SECRET-{name}-7f3a" for name in NAMES}


class Leaks:
    """A hook whose errors say what they should not."""

    def __init__(self, *, before: bool = False) -> None:
        self._before = before

    def before_model(self, window: list[Message]) -> list[Message]:
        if self._before:
            raise ValueError(MARKS["hook"], window[-1].text)
        return window

    def after_reply(self, reply: Reply) -> None:
        raise ValueError(MARKS["hook"], reply.text)


async def fails() -> None:
    raise StoreUnavailable(MARKS["error"])


def chatting(store: AsyncStore, *script: str | Waits | Exception, hooks: bool = False) -> Chat:
    model = Scripted(*script, DONE)
    return Chat(store, model, system_prompt=MARKS["system"], hooks=[Leaks()] if hooks else [])


def asked(chat: Chat, n: object, *, key: bool = False) -> AsyncGenerator[Event, None]:
    return chat.stream(
        MARKS["prompt"],
        conversation_id=f"talk {n}",
        owner=MARKS["owner"],
        title=MARKS["title"],
        system_prompt=MARKS["system"],
        idempotency_key=MARKS["key"] if key else None,
    )


async def ends(events: AsyncGenerator[Event, None]) -> None:
    with suppress(ChatledgerError, ValueError, RuntimeError):
        await events_of(events)


async def test_no_turn_logs_what_was_said(
    store: AsyncStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("chatledger").setLevel(logging.DEBUG)
    reply, error = MARKS["reply"], ModelUnavailable(MARKS["error"])
    bug = RuntimeError(MARKS["error"])

    await ends(asked(chatting(store, reply), 1))
    for n, script in enumerate([(error,), (reply, error), (bug,), (reply, bug), ("\ud83d",)]):
        await ends(asked(chatting(store, *script), f"fails {n}"))
        await ends(asked(chatting(store, *script, hooks=True), f"fails {n}", key=True))
    # With a key, again, reused; with hooks.
    for text in (MARKS["prompt"], MARKS["edited"]):
        chat = chatting(store, reply, hooks=True)
        await ends(
            chat.stream(
                text, conversation_id="talk 2", owner=MARKS["owner"], idempotency_key=MARKS["key"]
            )
        )
        await ends(chat.stream(text, owner=MARKS["owner"], idempotency_key=MARKS["key"]))
    blocked = Chat(store, Scripted(reply, DONE), hooks=[Leaks(before=True)])
    await ends(asked(blocked, 3))
    # Edited, made anew, stopped, timed out, left, cancelled, refused.
    page = await store.page("talk 1")
    assert page.messages[0].seq is not None
    await ends(chatting(store, reply).edit("talk 1", page.messages[0].seq, MARKS["edited"]))
    await ends(chatting(store, reply).regenerate("talk 1", system_prompt=MARKS["system"]))
    await ends(
        chatting(store, reply).stream(
            Message.tool(MARKS["tool"], tool_call_id=MARKS["tool"]), conversation_id="talk 1"
        )
    )
    chat = chatting(store, reply, Waits())
    async with aclosing(asked(chat, 4)) as events:
        await until_piece(events, reply)
        await ends(asked(chatting(store, reply), 4))
        await chat.stop("talk 4")
        await ends(events)
    slow = Chat(store, Scripted(reply, Waits()), time_limit=timedelta(seconds=0.05))
    await ends(asked(slow, 5))
    async with aclosing(asked(chat, 6)) as events:
        await until_piece(events, reply)
    caller = Caller(asked(chat, 7))
    await caller.until(reply)
    caller.task.cancel()
    await asyncio.wait({caller.task})
    await chat.close()
    # The store fails, also where the caller has left.
    for operation, n in (("tail", 1), ("append", 1), ("append", 2), ("replace", 1)):
        for left in (True, False):
            watched, time = Watched(store), Time()
            watched.before(operation, n, fails)
            failing = timed(chatting(watched.store, reply, error), time)
            events = asked(failing, f"{operation} {n} {left}")
            with suppress(ChatledgerError):
                async with aclosing(events):
                    if left:
                        assert isinstance(await anext(events), Started)
                    else:
                        await events_of(events)
            await failing.close()
    assert_silent(caplog)


def test_no_sync_turn_logs_what_was_said(
    sync_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reply = MARKS["reply"]
    scripts: list[list[str | Exception]] = [
        [reply],
        [reply, ModelUnavailable(MARKS["error"])],
        [RuntimeError(MARKS["error"])],
    ]
    for n, script in enumerate(scripts):
        chat = SyncChat(
            sync_store, SyncScripted(*script, DONE), system_prompt=MARKS["system"], hooks=[Leaks()]
        )
        for key in (None, MARKS["key"]):
            with suppress(ModelUnavailable, RuntimeError):
                chat.send(
                    MARKS["prompt"],
                    conversation_id=f"talk {n}",
                    owner=MARKS["owner"],
                    title=MARKS["title"],
                    idempotency_key=key,
                )
        events = chat.stream(MARKS["prompt"], conversation_id=f"talk {n}")
        next(events)
        events.close()
    assert_silent(caplog)


def assert_silent(caplog: pytest.LogCaptureFixture) -> None:
    formatter = logging.Formatter()
    ours = [each for each in caplog.records if each.name.split(".")[0] == "chatledger"]
    lines = [formatter.format(each) + repr(each.__dict__) for each in ours]
    assert [(line, mark) for line in lines for mark in MARKS.values() if mark in line] == []
    # Else nothing was logged, and this test shows nothing.
    assert any("after_reply" in line for line in lines)
