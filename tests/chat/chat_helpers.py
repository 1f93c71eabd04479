"""Helpers of the chat tests: scripted models, a store with faults, a clock that tests advance."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from chatledger.chat import Chat, Event, Started, SyncChat
from chatledger.chat.effects import CallModel, Turn, TurnStepper
from chatledger.errors import ChatledgerError, ModelUnavailable, StoreUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage
from chatledger.stores.contract import AsyncStore, Store

DONE = Finished("end_turn", Usage(input_tokens=3, output_tokens=5))
OVERLOADED = ModelUnavailable("The model is overloaded.")


class Gate:
    """A point at which a model sets ``reached`` and waits until a test sets ``opened``."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()


class ScriptedModel:
    """A model that follows its script in every call: yields texts, raises errors, waits."""

    id = "scripted"

    def __init__(self, *script: Piece | Finished | Exception | Gate) -> None:
        self._script = script
        self.windows: list[list[tuple[str, str]]] = []
        """The messages of each call."""
        self.prompts: list[str | None] = []
        self.ended_calls = 0

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        self.windows.append(transcript_of(messages))
        self.prompts.append(system_prompt)
        try:
            for step in self._script:
                match step:
                    case Gate():
                        step.reached.set()
                        await step.opened.wait()
                    case Exception():
                        raise step
                    case _:
                        yield step
        finally:
            self.ended_calls += 1


class Caller:
    """Takes a turn's events as they come, in a task of its own."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._take(events))

    async def wait_for(self, event: Event) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: event in self.events), 10)

    async def _take(self, events: AsyncGenerator[Event, None]) -> None:
        async for event in events:
            async with self._changed:
                self.events.append(event)
                self._changed.notify_all()


class EchoModel(ScriptedModel):
    """A model that repeats the last message."""

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        self.windows.append(transcript_of(messages))
        await asyncio.sleep(0)
        yield f"You said: {messages[-1].text}"
        yield DONE


def transcript_of(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Return the role and the text of each message."""
    return [(message.role, message.text) for message in messages]


async def transcript(store: AsyncStore, conversation_id: str = "talk") -> list[tuple[str, str]]:
    """Return the role and the text of each stored message."""
    return transcript_of((await store.page(conversation_id, limit=1_000)).messages)


async def last_reply(store: AsyncStore, conversation_id: str = "talk") -> Message:
    """Return the last message, which must be a reply."""
    [message] = (await store.tail(conversation_id, 1)).messages
    assert message.role == "assistant"
    return message


async def create_conversation(store: AsyncStore, *texts: str, owner: str | None = "bob") -> str:
    """Create the conversation "talk" with these messages of the user's."""
    await store.create("talk", owner=owner)
    if texts:
        await store.append("talk", [Message.user(text) for text in texts])
    return "talk"


# Models for callers without an event loop


class SyncGate:
    """A ``Gate`` for sync models."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()


class SyncScriptedModel:
    """A ``ScriptedModel`` for callers without an event loop."""

    id = "scripted"

    def __init__(self, *script: Piece | Finished | Exception | SyncGate) -> None:
        self._script = script
        self.windows: list[list[tuple[str, str]]] = []
        self.prompts: list[str | None] = []
        self.ended = threading.Event()

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        self.windows.append(transcript_of(messages))
        self.prompts.append(system_prompt)
        try:
            for step in self._script:
                match step:
                    case SyncGate():
                        step.reached.set()
                        step.opened.wait(10)
                    case Exception():
                        raise step
                    case _:
                        yield step
        finally:
            self.ended.set()


class SyncEchoModel(SyncScriptedModel):
    """A model that repeats the last message."""

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        self.windows.append(transcript_of(messages))
        yield f"You said: {messages[-1].text}"
        yield DONE


def transcript_sync(store: Store, conversation_id: str = "talk") -> list[tuple[str, str]]:
    """Return the role and the text of each stored message."""
    return transcript_of(store.page(conversation_id, limit=1_000).messages)


# Stores with faults

Action = Callable[[], Awaitable[None]]


class WatchedStore:
    """A store that counts its calls and may run an action before or after any of them.

    An action's error is raised by the call; after the call it stands for a lost response.
    """

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._actions: dict[tuple[str, int, bool], Action] = {}
        self.calls: list[str] = []
        """The calls that returned."""
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """The calls that were made, with their keyword arguments."""
        self._returned = asyncio.Condition()

    @property
    def store(self) -> AsyncStore:
        return cast(AsyncStore, self)

    def before(self, operation: str, n: int, action: Action) -> None:
        """Run the action before the ``n``-th call of the operation, or before each if 0."""
        self._actions[operation, n, True] = action

    def after(self, operation: str, n: int, action: Action) -> None:
        """Run the action after the ``n``-th call of the operation, or after each if 0."""
        self._actions[operation, n, False] = action

    def clear_actions(self) -> None:
        self._actions.clear()

    async def wait_for_calls(self, operation: str, count: int) -> None:
        """Wait until that many calls of the operation have returned."""
        async with self._returned:
            enough = self._returned.wait_for(lambda: self.calls.count(operation) >= count)
            await asyncio.wait_for(enough, 20)

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            self.requests.append((name, options))
            n = [requested for requested, _ in self.requests].count(name)
            await self._run_action(name, n, before=True)
            result = await operation(*args, **options)
            await self._run_action(name, n, before=False)
            async with self._returned:
                self.calls.append(name)
                self._returned.notify_all()
            return result

        return call

    async def _run_action(self, name: str, n: int, *, before: bool) -> None:
        action = self._actions.get((name, n, before)) or self._actions.get((name, 0, before))
        if action is not None:
            await action()


async def raise_unavailable() -> None:
    raise StoreUnavailable("The store is down.", may_have_landed=False)


async def lose_response() -> None:
    raise StoreUnavailable("The response was lost.", may_have_landed=True)


# Time


class FakeTime:
    """A clock and a timer that a test advances."""

    def __init__(self) -> None:
        self._start = datetime.now(UTC).timestamp()
        self._passed = 0.0

    def advance(self, seconds: float) -> None:
        self._passed += seconds

    def clock(self) -> int:
        return round((self._start + self._passed) * 1000)

    def timer(self) -> float:
        return self._passed


AnyChat = TypeVar("AnyChat", Chat, SyncChat)


def with_time(chat: AnyChat, time: FakeTime) -> AnyChat:
    """Make the chat use that time and leases of a minute, and return it."""
    chat._options = replace(
        chat._options, lease=timedelta(minutes=1), clock=time.clock, timer=time.timer
    )

    return chat


# Turns run by hand


def turn_for(chat: Chat, text: str, *, owner: str | None = "bob", key: str | None = None) -> Turn:
    """Return the turn that ``chat.stream(text, conversation_id="talk")`` would run."""
    return chat._turns.send_turn(
        text,
        conversation_id="talk",
        owner=owner,
        system_prompt=None,
        title=None,
        model=chat.model.id,
        idempotency_key=key,
    )


async def run_until_started(turn: Turn) -> None:
    """Run the turn until it has started and then abandon it, as if its process had died."""
    stepper = TurnStepper(turn)
    while not isinstance(effect := stepper.next_effect(), Started):
        if isinstance(effect, CallModel):
            continue
        assert callable(effect)
        try:
            stepper.set_result(await effect())
        except ChatledgerError as error:
            stepper.set_error(error)


# Events


async def collect_events(events: AsyncGenerator[Event, None]) -> list[Event]:
    """Return all events; fail after 20 seconds."""

    async def collected() -> list[Event]:
        return [event async for event in events]

    return await asyncio.wait_for(collected(), 20)


async def take_until(events: AsyncGenerator[Event, None], piece: str) -> None:
    """Take events up to that piece of the reply."""
    while await anext(events) != piece:
        pass


async def append_messages(
    store: AsyncStore, *messages: Message, conversation_id: str = "talk"
) -> None:
    await store.append(conversation_id, messages)
