"""No log line contains the content of a message, a prompt or a key."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any

import pytest

from chatledger.chat import Chat, Event, Reply, Started
from chatledger.errors import ChatledgerError, ModelUnavailable, StoreUnavailable
from chatledger.messages import Message
from tests.chat.scripted_models import DONE, Gate, ScriptedModel
from tests.chat.talk import Caller, Talk, collect_events, take_until

pytestmark = pytest.mark.anyio

NAMES = ("prompt", "reply", "system", "title", "key", "error", "tool", "owner", "hook", "edited")
SECRETS = {name: f"SECRET-{name}-7f3a" for name in NAMES}
REPLY = SECRETS["reply"]


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


def start_turn(chat: Chat, id: str, *, key: str | None = None) -> AsyncGenerator[Event, None]:
    return chat.stream(
        SECRETS["prompt"],
        conversation_id=id,
        owner=SECRETS["owner"],
        title=SECRETS["title"],
        system_prompt=SECRETS["system"],
        idempotency_key=key,
    )


async def run_to_end(events: AsyncGenerator[Event, None]) -> None:
    with suppress(ChatledgerError, ValueError, RuntimeError):
        await collect_events(events)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "chatledger")
    return caplog


def assert_no_secret_in(logged: pytest.LogCaptureFixture, expected: str) -> None:
    """Assert that the log has the expected line, without which it would prove nothing."""
    formatter = logging.Formatter()
    own_records = [each for each in logged.records if each.name.split(".")[0] == "chatledger"]
    lines = [formatter.format(each) + repr(each.__dict__) for each in own_records]
    assert [(line, secret) for line in lines for secret in SECRETS.values() if secret in line] == []
    assert any(expected in line for line in lines)


async def test_no_turn_logs_the_content_of_messages(
    talk: Talk, logged: pytest.LogCaptureFixture
) -> None:
    def new_chat(*script: object, **options: Any) -> Chat:
        return talk.chat(ScriptedModel(*script, DONE), system_prompt=SECRETS["system"], **options)

    error, bug = ModelUnavailable(SECRETS["error"]), RuntimeError(SECRETS["error"])
    await run_to_end(start_turn(new_chat(REPLY), "talk 1"))
    for n, script in enumerate([(error,), (REPLY, error), (bug,), (REPLY, bug), ("\ud83d",)]):
        for key, hooks in ((None, []), (SECRETS["key"], [LeakyHook()])):
            chat = new_chat(*script, hooks=hooks)
            await run_to_end(start_turn(chat, f"fails {n}", key=key))
    # Replayed and reused keys, with hooks.
    for text in (SECRETS["prompt"], SECRETS["edited"]):
        for id in ("talk 2", None):
            chat = new_chat(REPLY, hooks=[LeakyHook()])
            owner, key = SECRETS["owner"], SECRETS["key"]
            await run_to_end(
                chat.stream(text, conversation_id=id, owner=owner, idempotency_key=key)
            )
    await run_to_end(start_turn(new_chat(REPLY, hooks=[LeakyHook(before=True)]), "talk 3"))
    # Edited, regenerated, stopped, timed out, left and rejected turns.
    [first, *_] = await talk.messages("talk 1")
    assert first.seq is not None
    await run_to_end(new_chat(REPLY).edit("talk 1", first.seq, SECRETS["edited"]))
    await run_to_end(new_chat(REPLY).regenerate("talk 1", system_prompt=SECRETS["system"]))
    result = Message.tool(SECRETS["tool"], tool_call_id=SECRETS["tool"])
    await run_to_end(new_chat(REPLY).stream(result, conversation_id="talk 1"))
    chat = new_chat(REPLY, Gate())
    async with aclosing(start_turn(chat, "talk 4")) as events:
        await take_until(events, REPLY)
        await run_to_end(start_turn(new_chat(REPLY), "talk 4"))
        await chat.stop("talk 4")
        await run_to_end(events)
    slow = new_chat(REPLY, Gate(), time_limit=timedelta(seconds=0.05))
    await run_to_end(start_turn(slow, "talk 5"))
    async with aclosing(start_turn(chat, "talk 6")) as events:
        await take_until(events, REPLY)
    assert_no_secret_in(logged, "after_reply")


@pytest.mark.parametrize("is_left", [True, False])
@pytest.mark.parametrize("fault", [("tail", 1), ("append", 1), ("append", 2), ("replace", 1)])
async def test_no_turn_whose_store_fails_logs_the_content_of_messages(
    talk: Talk, logged: pytest.LogCaptureFixture, fault: tuple[str, int], is_left: bool
) -> None:
    talk.watched.before(*fault, raise_leaky_error)
    model = ScriptedModel(REPLY, ModelUnavailable(SECRETS["error"]))
    chat = talk.watched_chat(model, hooks=[LeakyHook()], time=talk.time)
    with suppress(ChatledgerError):
        async with aclosing(start_turn(chat, "talk")) as events:
            if is_left:
                assert isinstance(await anext(events), Started)
            else:
                await collect_events(events)
    await chat.close()
    # A turn that works logs the error of its hook.
    await run_to_end(start_turn(talk.chat(ScriptedModel(DONE), hooks=[LeakyHook()]), "other"))
    assert_no_secret_in(logged, "after_reply")


@pytest.mark.chat_only
async def test_a_cancelled_turn_that_cannot_be_stored_logs_no_content_of_messages(
    sqlite: Talk, logged: pytest.LogCaptureFixture
) -> None:
    sqlite.watched.before("append", 2, raise_leaky_error)
    hook = LeakyHook(before=True)
    for hooks in ([], [hook]):
        chat = sqlite.watched_chat(ScriptedModel(REPLY, Gate()), hooks=hooks)
        caller = Caller(start_turn(chat, f"talk {len(hooks)}"))
        await caller.wait_for(Started(f"talk {len(hooks)}"))
        caller.task.cancel()
        with suppress(ValueError):
            await chat.close()
    assert_no_secret_in(logged, "could not be finished")
