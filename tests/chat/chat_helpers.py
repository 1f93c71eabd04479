"""What the tests of turns have in common: models that follow a script, and what is kept."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from chatledger.chat import Chat, Event, Started, SyncChat
from chatledger.chat.effects import Ask, Course, Turn
from chatledger.chat.requests import Requests
from chatledger.errors import ChatledgerError, ModelUnavailable, StoreUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage
from chatledger.stores.contract import AsyncStore, Store

DONE = Finished("end_turn", Usage(input_tokens=3, output_tokens=5))
OVERLOADED = ModelUnavailable("The model is overloaded.")


class Waits:
    """Where a model waits until it is let go on; ``reached`` once it does."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.over = asyncio.Event()


class Scripted:
    """A model that follows its script in every turn: says texts, raises errors, waits."""

    id = "scripted"

    def __init__(self, *script: Piece | Finished | Exception | Waits) -> None:
        self._script = script
        self.asked: list[list[tuple[str, str]]] = []
        self.prompts: list[str | None] = []
        self.calls_ended = 0

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        self.asked.append(talk(messages))
        self.prompts.append(system_prompt)
        try:
            for step in self._script:
                match step:
                    case Waits():
                        step.reached.set()
                        await step.over.wait()
                    case Exception():
                        raise step
                    case _:
                        yield step
        finally:
            self.calls_ended += 1


class Caller:
    """Takes a turn's events as they come, in a task of its own."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self.seen: list[Event] = []
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._take(events))

    async def until(self, event: Event) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: event in self.seen), 10)

    async def _take(self, events: AsyncGenerator[Event, None]) -> None:
        async for event in events:
            async with self._changed:
                self.seen.append(event)
                self._changed.notify_all()


class Echo(Scripted):
    """A model that says what it was told last."""

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        self.asked.append(talk(messages))
        await asyncio.sleep(0)
        yield f"You said: {messages[-1].text}"
        yield DONE


def talk(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


async def kept(store: AsyncStore, conversation_id: str = "talk") -> list[tuple[str, str]]:
    return talk((await store.page(conversation_id, limit=1_000)).messages)


async def reply_to(store: AsyncStore, conversation_id: str = "talk") -> Message:
    """The last message, which is the model's."""
    [message] = (await store.tail(conversation_id, 1)).messages
    assert message.role == "assistant"
    return message


async def begin(store: AsyncStore, *texts: str, owner: str | None = "bob") -> str:
    await store.create("talk", owner=owner)
    if texts:
        await store.append("talk", [Message.user(text) for text in texts])
    return "talk"


# Models for callers without an event loop


class SyncWaits:
    """Where a sync model waits until it is let go on; ``reached`` once it does."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.over = threading.Event()


class SyncScripted:
    """As ``Scripted``, for callers without an event loop."""

    id = "scripted"

    def __init__(self, *script: Piece | Finished | Exception | SyncWaits) -> None:
        self._script = script
        self.asked: list[list[tuple[str, str]]] = []
        self.prompts: list[str | None] = []
        self.ended = threading.Event()

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        self.asked.append(talk(messages))
        self.prompts.append(system_prompt)
        try:
            for step in self._script:
                match step:
                    case SyncWaits():
                        step.reached.set()
                        step.over.wait(10)
                    case Exception():
                        raise step
                    case _:
                        yield step
        finally:
            self.ended.set()


class SyncEcho(SyncScripted):
    """A model that says what it was told last."""

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        self.asked.append(talk(messages))
        yield f"You said: {messages[-1].text}"
        yield DONE


def kept_sync(store: Store, conversation_id: str = "talk") -> list[tuple[str, str]]:
    return talk(store.page(conversation_id, limit=1_000).messages)


# Stores that fail, and are watched

Act = Callable[[], Awaitable[None]]


class Watched:
    """A store whose calls are counted, and of which any may be preceded or followed by an act.

    What an act raises the call raises; behind the call, that is an answer which was lost.
    """

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._acts: dict[tuple[str, int, bool], Act] = {}
        self.calls: list[str] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._called = asyncio.Condition()

    @property
    def store(self) -> AsyncStore:
        return cast(AsyncStore, self)

    def before(self, operation: str, n: int, act: Act) -> None:
        """Act before its ``n``-th call (0: each) is made."""
        self._acts[operation, n, True] = act

    def after(self, operation: str, n: int, act: Act) -> None:
        self._acts[operation, n, False] = act

    def mend(self) -> None:
        self._acts.clear()

    async def until(self, operation: str, calls: int) -> None:
        """Wait until it has been called so often, and has answered."""
        async with self._called:
            enough = self._called.wait_for(lambda: self.calls.count(operation) >= calls)
            await asyncio.wait_for(enough, 20)

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            self.asked.append((name, options))
            n = [asked for asked, _ in self.asked].count(name)
            await self._act(name, n, before=True)
            answer = await operation(*args, **options)
            await self._act(name, n, before=False)
            async with self._called:
                self.calls.append(name)
                self._called.notify_all()
            return answer

        return call

    async def _act(self, name: str, n: int, *, before: bool) -> None:
        act = self._acts.get((name, n, before)) or self._acts.get((name, 0, before))
        if act is not None:
            await act()


async def unavailable() -> None:
    raise StoreUnavailable("The store is down.", may_have_landed=False)


async def answer_lost() -> None:
    raise StoreUnavailable("The answer was lost.", may_have_landed=True)


# Time


class Time:
    """A clock and a timer that a test sets forward."""

    def __init__(self) -> None:
        self._start = datetime.now(UTC).timestamp()
        self._passed = 0.0

    def passes(self, seconds: float) -> None:
        self._passed += seconds

    def clock(self) -> int:
        return round((self._start + self._passed) * 1000)

    def timer(self) -> float:
        return self._passed


AnyChat = TypeVar("AnyChat", Chat, SyncChat)


def timed(chat: AnyChat, time: Time) -> AnyChat:
    """The chat, whose turns go by that time, and have leases of a minute."""
    chat._terms = replace(
        chat._terms, lease=timedelta(minutes=1), clock=time.clock, timer=time.timer
    )
    chat._requests = Requests(chat.store, chat._terms)
    return chat


# Turns driven by hand


def turn_of(chat: Chat, text: str, *, owner: str | None = "bob", key: str | None = None) -> Turn:
    """What ``chat.stream(text, conversation_id="talk")`` would drive."""
    return chat._requests.send(
        text,
        conversation_id="talk",
        owner=owner,
        system_prompt=None,
        title=None,
        model=chat.model.id,
        idempotency_key=key,
    )


async def drive_until_started(turn: Turn) -> None:
    """As far as its process came before it died: nobody drives it on, and nothing tidies up."""
    course = Course(turn)
    while not isinstance(effect := course.next(), Started):
        if isinstance(effect, Ask):
            continue
        assert callable(effect)
        try:
            course.answer(await effect())
        except ChatledgerError as error:
            course.throw(error)


# Events


async def events_of(events: AsyncGenerator[Event, None]) -> list[Event]:
    """All of them, in time."""

    async def gathered() -> list[Event]:
        return [event async for event in events]

    return await asyncio.wait_for(gathered(), 20)


async def until_piece(events: AsyncGenerator[Event, None], piece: str) -> None:
    """Take events up to that piece of the reply."""
    while await anext(events) != piece:
        pass


async def add(store: AsyncStore, *messages: Message, conversation_id: str = "talk") -> None:
    await store.append(conversation_id, messages)
