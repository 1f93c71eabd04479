"""The conversation of a test, and callers who take the events of its turns."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, cast

from chatledger.chat import Chat, Event, Reply
from chatledger.messages import Message, StoredMessage
from chatledger.models.protocol import Model
from chatledger.stores.contract import AsyncStore
from tests.chat.scripted_models import DONE, EchoModel, ScriptedModel
from tests.chat.watched_store import FakeTime, WatchedStore


class Talk:
    """The conversation "talk" in the store of a test, and chats over that store."""

    def __init__(self, store: AsyncStore, new_chat: Callable[..., Chat]) -> None:
        self.store = store
        self.watched = WatchedStore(store)
        """The same store, watched."""
        self.time = FakeTime()
        """A clock and a timer, for chats that get it as ``time``."""
        self._new_chat = new_chat

    def chat(self, model: Model, *, store: AsyncStore | None = None, **options: Any) -> Chat:
        """Return a chat: a ``Chat``, or a ``SyncChat`` with the interface of ``Chat``.

        With a ``time``, it uses that time, and leases of a minute.
        """
        return self._new_chat(store or self.store, model, **options)

    def watched_chat(self, model: Model, **options: Any) -> Chat:
        return self.chat(model, store=cast(AsyncStore, self.watched), **options)

    async def create(self, *texts: str, owner: str | None = "bob") -> None:
        """Create the conversation with these messages of the user's."""
        await self.store.create("talk", owner=owner)
        await self.append(*map(Message.user, texts))

    async def append(self, *messages: Message) -> None:
        if messages:
            await self.store.append("talk", messages)

    async def send(self, *script: object, text: str | Message | Sequence[Message] = "Hi") -> Reply:
        """Run a turn of Bob's with a model that follows the script."""
        chat = self.chat(ScriptedModel(*script))
        return await chat.send(text, conversation_id="talk", owner="bob")

    async def append_numbers(self, count: int) -> None:
        """Append messages of the user's whose texts are the numbers from 0 on."""
        await self.append(*(Message.user(f"{n}") for n in range(count)))

    async def messages(self, conversation_id: str = "talk") -> list[StoredMessage]:
        return (await self.store.page(conversation_id, limit=1_000)).messages

    async def transcript(self, conversation_id: str = "talk") -> list[tuple[str, str]]:
        """Return the role and the text of each stored message."""
        return [(each.role, each.text) for each in await self.messages(conversation_id)]

    async def last_reply(self) -> Message:
        """Return the last message, which must be a reply."""
        message = (await self.messages())[-1]
        assert message.role == "assistant"
        return message

    async def stop_reason(self) -> object:
        return (await self.last_reply()).extra["stop_reason"]

    async def seq_of(self, text: str) -> int:
        [seq] = [each.seq for each in await self.messages() if each.text == text]
        assert seq is not None
        return seq

    async def assert_next_turn_works(
        self, text: str = "And now?", *, time: FakeTime | None = None
    ) -> None:
        before = await self.transcript()
        chat = self.chat(EchoModel(), time=time or FakeTime())
        reply = await chat.send(text, conversation_id="talk", owner="bob")
        assert reply.finished == DONE
        assert await self.transcript() == [*before, ("user", text), ("assistant", reply.text)]


async def collect_events(events: AsyncGenerator[Event, None]) -> list[Event]:
    """Return all events; fail after 20 seconds."""
    async with asyncio.timeout(20):
        return [event async for event in events]


async def take_until(events: AsyncGenerator[Event, None], last: Event) -> None:
    """Take events up to that one."""
    while await anext(events) != last:
        pass


class Caller:
    """Takes a turn's events as they come, in a task of its own."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._take(events))

    async def wait_for(self, event: Event) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: event in self.events), 10)

    async def leave(self) -> None:
        """Cancel the task, as a caller who leaves."""
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=20)
        assert self.task.cancelled()

    async def _take(self, events: AsyncGenerator[Event, None]) -> None:
        async for event in events:
            async with self._changed:
                self.events.append(event)
                self._changed.notify_all()
