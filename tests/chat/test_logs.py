"""No log line contains the content of a message, a prompt or a key."""

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
    FakeTime,
    Gate,
    ScriptedModel,
    SyncScriptedModel,
    WatchedStore,
    collect_events,
    take_until,
    with_time,
)

pytestmark = pytest.mark.anyio

NAMES = ("prompt", "reply", "system", "title", "key", "error", "tool", "owner", "hook", "edited")
SECRETS = {name: f"SECRET-{name}-7f3a" for name in NAMES}


class LeakyHook:
    """A hook whose errors quote messages."""

    def __init__(self, *, before: bool = False) -> None:
        self._before = before

    def before_model(self, window: list[Message]) -> list[Message]:
        if self._before:
            raise ValueError(SECRETS["hook"], window[-1].text)
        return window

    def after_reply(self, reply: Reply) -> None:
        raise ValueError(SECRETS["hook"], reply.text)


async def raise_leaky_error() -> None:
    raise StoreUnavailable(SECRETS["error"])


def make_chat(store: AsyncStore, *script: str | Gate | Exception, hooks: bool = False) -> Chat:
    model = ScriptedModel(*script, DONE)
    return Chat(store, model, system_prompt=SECRETS["system"], hooks=[LeakyHook()] if hooks else [])


def start_turn(chat: Chat, n: object, *, key: bool = False) -> AsyncGenerator[Event, None]:
    return chat.stream(
        SECRETS["prompt"],
        conversation_id=f"talk {n}",
        owner=SECRETS["owner"],
        title=SECRETS["title"],
        system_prompt=SECRETS["system"],
        idempotency_key=SECRETS["key"] if key else None,
    )


async def run_to_end(events: AsyncGenerator[Event, None]) -> None:
    with suppress(ChatledgerError, ValueError, RuntimeError):
        await collect_events(events)


async def test_no_turn_logs_the_content_of_messages(
    store: AsyncStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("chatledger").setLevel(logging.DEBUG)
    reply, error = SECRETS["reply"], ModelUnavailable(SECRETS["error"])
    bug = RuntimeError(SECRETS["error"])

    await run_to_end(start_turn(make_chat(store, reply), 1))
    for n, script in enumerate([(error,), (reply, error), (bug,), (reply, bug), ("\ud83d",)]):
        await run_to_end(start_turn(make_chat(store, *script), f"fails {n}"))
        await run_to_end(start_turn(make_chat(store, *script, hooks=True), f"fails {n}", key=True))
    # Replayed and reused keys, with hooks.
    for text in (SECRETS["prompt"], SECRETS["edited"]):
        chat = make_chat(store, reply, hooks=True)
        await run_to_end(
            chat.stream(
                text,
                conversation_id="talk 2",
                owner=SECRETS["owner"],
                idempotency_key=SECRETS["key"],
            )
        )
        await run_to_end(chat.stream(text, owner=SECRETS["owner"], idempotency_key=SECRETS["key"]))
    blocked = Chat(store, ScriptedModel(reply, DONE), hooks=[LeakyHook(before=True)])
    await run_to_end(start_turn(blocked, 3))
    # Edited, regenerated, stopped, timed out, left, cancelled and rejected turns.
    page = await store.page("talk 1")
    assert page.messages[0].seq is not None
    await run_to_end(
        make_chat(store, reply).edit("talk 1", page.messages[0].seq, SECRETS["edited"])
    )
    await run_to_end(make_chat(store, reply).regenerate("talk 1", system_prompt=SECRETS["system"]))
    await run_to_end(
        make_chat(store, reply).stream(
            Message.tool(SECRETS["tool"], tool_call_id=SECRETS["tool"]), conversation_id="talk 1"
        )
    )
    chat = make_chat(store, reply, Gate())
    async with aclosing(start_turn(chat, 4)) as events:
        await take_until(events, reply)
        await run_to_end(start_turn(make_chat(store, reply), 4))
        await chat.stop("talk 4")
        await run_to_end(events)
    slow = Chat(store, ScriptedModel(reply, Gate()), time_limit=timedelta(seconds=0.05))
    await run_to_end(start_turn(slow, 5))
    async with aclosing(start_turn(chat, 6)) as events:
        await take_until(events, reply)
    caller = Caller(start_turn(chat, 7))
    await caller.wait_for(reply)
    caller.task.cancel()
    await asyncio.wait({caller.task})
    await chat.close()
    # Failures of the store, also after the caller has left.
    for operation, n in (("tail", 1), ("append", 1), ("append", 2), ("replace", 1)):
        for is_left in (True, False):
            watched, time = WatchedStore(store), FakeTime()
            watched.before(operation, n, raise_leaky_error)
            failing_chat = with_time(make_chat(watched.store, reply, error), time)
            events = start_turn(failing_chat, f"{operation} {n} {is_left}")
            with suppress(ChatledgerError):
                async with aclosing(events):
                    if is_left:
                        assert isinstance(await anext(events), Started)
                    else:
                        await collect_events(events)
            await failing_chat.close()
    assert_no_secret_logged(caplog)


def test_no_sync_turn_logs_the_content_of_messages(
    sync_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reply = SECRETS["reply"]
    scripts: list[list[str | Exception]] = [
        [reply],
        [reply, ModelUnavailable(SECRETS["error"])],
        [RuntimeError(SECRETS["error"])],
    ]
    for n, script in enumerate(scripts):
        chat = SyncChat(
            sync_store,
            SyncScriptedModel(*script, DONE),
            system_prompt=SECRETS["system"],
            hooks=[LeakyHook()],
        )
        for key in (None, SECRETS["key"]):
            with suppress(ModelUnavailable, RuntimeError):
                chat.send(
                    SECRETS["prompt"],
                    conversation_id=f"talk {n}",
                    owner=SECRETS["owner"],
                    title=SECRETS["title"],
                    idempotency_key=key,
                )
        events = chat.stream(SECRETS["prompt"], conversation_id=f"talk {n}")
        next(events)
        events.close()
    assert_no_secret_logged(caplog)


def assert_no_secret_logged(caplog: pytest.LogCaptureFixture) -> None:
    formatter = logging.Formatter()
    own_records = [each for each in caplog.records if each.name.split(".")[0] == "chatledger"]
    lines = [formatter.format(each) + repr(each.__dict__) for each in own_records]
    assert [(line, secret) for line in lines for secret in SECRETS.values() if secret in line] == []
    # Without any log line this test would prove nothing.
    assert any("after_reply" in line for line in lines)
