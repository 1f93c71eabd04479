"""Turns for async callers."""

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from chatledger.chat import turn_metadata
from chatledger.chat.any_chat import AnyChat
from chatledger.chat.events import Event, Reply, whole
from chatledger.chat.stopping import free
from chatledger.messages import Message
from chatledger.models.protocol import Model, Usage
from chatledger.sansio import arun
from chatledger.stores.contract import AsyncStore

if TYPE_CHECKING:
    from chatledger.chat.runner import Driver


class Chat(AnyChat[AsyncStore, Model, AsyncGenerator[Event, None]]):
    """Turns over any store and any model.

    A turn yields ``Started`` once the user's message is stored, then the pieces of the reply, then
    ``Finished`` once the reply is stored too. However it ends, the next one works:

    - The model fails, or takes too long: what was said so far is kept, its ``stop_reason`` in
      ``extra`` being ``failed``, and the caller gets the error. Where nothing was said the user's
      message stays, and sending the same again does not double it.
    - The caller goes away (closes the generator, is cancelled) or the turn is stopped: what was
      said so far is kept, as ``stopped``; when its time is out (``time_limit``), as ``timed_out``.
    - The process dies: the conversation is free again when the turn's ``lease`` ends.
    - The user's message is removed, or the conversation deleted, meanwhile: the reply is dropped.

    Of two turns of one conversation at a time one runs, and the other raises ``TurnInProgress``. A
    turn that takes longer than its lease renews it. The clocks of machines that share a store must
    agree to some seconds.

    The model sees what ``window`` chooses of the last messages. ``hooks`` are called in order.
    """

    _driver: "Driver"

    def _new_driver(self) -> "Driver":
        # With the first use: programs without an event loop need not wait for asyncio's import.
        from chatledger.chat.runner import Driver

        return Driver()

    async def send(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
        title: str | None = None,
        model: Model | None = None,
        idempotency_key: str | None = None,
    ) -> Reply:
        """As ``stream``, the reply as a whole."""
        return await whole(
            self.stream(
                messages,
                conversation_id=conversation_id,
                owner=owner,
                system_prompt=system_prompt,
                title=title,
                model=model,
                idempotency_key=idempotency_key,
            )
        )

    async def stop(self, conversation_id: str, *, owner: str | None = None) -> bool:
        """End the turn that runs in the conversation; whether there was one. Raises ``NotFound``.

        What was said so far is kept, and its caller gets ``Finished("stopped")``. One that runs in
        another process lets go of the conversation at once, and ends within a third of its lease.
        """
        await self.store.get(conversation_id, owner=owner)
        if self._driver.stop(conversation_id):
            return True
        return await arun(free(self.store, self._terms, conversation_id, owner))

    async def usage(self, conversation_id: str, *, owner: str | None = None) -> Usage:
        """What all replies of the conversation took. Raises ``NotFound``.

        Those that were regenerated or edited away took it too. It is kept with each reply, so it
        begins anew where none is among the last messages that a turn reads.
        """
        tail = await self.store.tail(conversation_id, self._terms.reads, owner=owner)
        return turn_metadata.spent(tail.messages) or Usage(0, 0)

    async def close(self) -> None:
        """Wait until the turns that their callers left have kept what was said."""
        await self._driver.close()
