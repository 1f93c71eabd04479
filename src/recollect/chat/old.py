"""One turn of a conversation: the user's message, the model's reply, both remembered."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import TypeAlias

from recollect.conversations import Conversation, Tail
from recollect.errors import AlreadyExists, Conflict, ModelUnavailable, NotFound
from recollect.json_values import Json
from recollect.messages import Message
from recollect.models.contract import Finished, Model, Piece
from recollect.stores.contract import AsyncStore
from recollect.windows import starting_with_user

TITLE_LENGTH = 60
_UNFINISHED = "The model ended without saying that it had finished."


@dataclass(frozen=True, slots=True)
class Started:
    """The user's message is stored, in this conversation; None where nothing is."""

    conversation_id: str | None


Event: TypeAlias = Started | Piece | Finished


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said, whole."""

    conversation_id: str | None
    text: str
    finished: Finished


class Chat:
    """Turns over any store and any model; the model sees the last ``window`` messages.

    A turn yields ``Started`` once the user's message is stored, then the pieces of the reply, then
    ``Finished`` once the reply is stored too. Where the model fails or the caller stops early
    (closes the generator, is cancelled), what was said so far is kept, its ``stop_reason`` in
    ``extra`` being ``failed`` or ``stopped``. A reply to a conversation that was deleted meanwhile
    is dropped.
    """

    def __init__(
        self,
        store: AsyncStore,
        model: Model,
        *,
        window: int = 20,
        system_prompt: str | None = None,
    ) -> None:
        self.store = store
        self.model = model
        self._window = window
        self._system_prompt = system_prompt
        self._keeping: set[asyncio.Task[None]] = set()

    async def stream(
        self,
        text: str,
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """A turn in the conversation, which starts for ``owner`` where there is none.

        Without an owner it must exist. Raises ``NotFound``, also where it is somebody else's.
        """
        question = Message.user(text)
        conversation, earlier = await self._opened(conversation_id, question, owner)
        appended = await self.store.append(
            conversation.id, [question], owner=owner, reply_follows=True
        )
        yield Started(conversation.id)
        said: list[str] = []
        finished: Finished | None = None
        stop_reason = "stopped"
        try:
            async with aclosing(self._asked([*earlier, question], system_prompt)) as reply:
                async for piece in reply:
                    if isinstance(piece, Finished):
                        finished, stop_reason = piece, piece.stop_reason
                    else:
                        said.append(piece)
                        yield piece
        except Exception:
            stop_reason = "failed"
            raise
        finally:
            if said or finished:
                extra: dict[str, Json] = {"model": self.model.id, "stop_reason": stop_reason}
                if finished:
                    extra["usage"] = asdict(finished.usage)
                message = Message.assistant("".join(said), extra=extra)
                await self._kept(conversation, message, after=appended.revision)
        if finished:
            yield finished

    async def stream_unkept(
        self,
        text: str,
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """A reply that nothing is stored of, in view of the conversation if one is named.

        Without an owner it must exist. Raises ``NotFound``, also where it is somebody else's.
        """
        tail = None if conversation_id is None else await self._seen(conversation_id, owner)
        earlier = tail.messages if tail else []
        yield Started(tail.conversation.id if tail else None)
        async with aclosing(self._asked([*earlier, Message.user(text)], system_prompt)) as reply:
            async for piece in reply:
                yield piece

    async def close(self) -> None:
        """Wait until the replies that were broken off are stored."""
        while self._keeping:
            await asyncio.wait(self._keeping)

    async def _asked(
        self, messages: Sequence[Message], system_prompt: str | None
    ) -> AsyncGenerator[Piece | Finished, None]:
        window = starting_with_user(messages[-self._window :])
        prompt = self._system_prompt if system_prompt is None else system_prompt
        finished = False
        async with aclosing(self.model.stream(window, system_prompt=prompt)) as reply:
            async for piece in reply:
                finished = finished or isinstance(piece, Finished)
                yield piece
        if not finished:
            raise ModelUnavailable(_UNFINISHED)

    async def _opened(
        self, conversation_id: str | None, question: Message, owner: str | None
    ) -> tuple[Conversation, Sequence[Message]]:
        """The conversation, started where there is none, and what was said in it before."""
        if conversation_id is not None:
            try:
                tail = await self.store.tail(conversation_id, self._window, owner=owner)
            except NotFound:
                if owner is None:
                    raise
            else:
                conversation = tail.conversation
                if conversation.title is None and not conversation.message_count:
                    await self.store.update(
                        conversation.id, title=_title(question.text), owner=owner
                    )
                return conversation, tail.messages
        try:
            started = await self.store.create(
                conversation_id, owner=owner, title=_title(question.text)
            )
        except AlreadyExists:
            assert conversation_id is not None
            # Somebody else's, which raises NotFound here, or started by a rival just now.
            tail = await self.store.tail(conversation_id, self._window, owner=owner)
            return tail.conversation, tail.messages
        return started, []

    async def _seen(self, conversation_id: str, owner: str | None) -> Tail | None:
        """The conversation's last messages, or None where ``owner`` could start it."""
        try:
            return await self.store.tail(conversation_id, self._window, owner=owner)
        except NotFound:
            if owner is None or await self._exists(conversation_id):
                raise
            return None

    async def _exists(self, conversation_id: str) -> bool:
        try:
            await self.store.get(conversation_id)
        except NotFound:
            return False
        return True

    async def _kept(self, conversation: Conversation, reply: Message, *, after: int) -> None:
        """Store the reply, even where whoever waits for it is cancelled."""
        keeping = asyncio.create_task(self._append_reply(conversation, reply, after))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        await asyncio.shield(keeping)

    async def _append_reply(self, conversation: Conversation, reply: Message, after: int) -> None:
        # With ``after``, so that a conversation deleted meanwhile is not started again by its own
        # last reply.
        while True:
            try:
                await self.store.append(conversation.id, [reply], after=after)
            except NotFound:
                return
            except Conflict as conflict:
                after = conflict.revision
                try:
                    now = await self.store.get(conversation.id)
                except NotFound:
                    return
                if now.created_at != conversation.created_at:
                    return  # another conversation, started after this one was deleted
            else:
                return


async def whole(events: AsyncIterator[Event]) -> Reply:
    """The reply that a turn streams, once it is complete."""
    conversation_id: str | None = None
    said: list[str] = []
    async for event in events:
        match event:
            case Started():
                conversation_id = event.conversation_id
            case str():
                said.append(event)
            case Finished():
                return Reply(conversation_id, "".join(said), event)
    raise ModelUnavailable(_UNFINISHED)


def _title(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0] + "…"
