"""The chat for async callers."""

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from chatledger.chat import turn_metadata
from chatledger.chat.any_chat import AnyChat
from chatledger.chat.events import Event, Reply, collect
from chatledger.chat.lease import force_release
from chatledger.messages import Message
from chatledger.models.protocol import Model, Usage
from chatledger.sansio import arun
from chatledger.stores.contract import AsyncStore

if TYPE_CHECKING:
    from chatledger.chat.runner import TurnRunner


class Chat(AnyChat[AsyncStore, Model, AsyncGenerator[Event, None]]):
    """A chat, which runs turns with any async store and any model.

    A turn yields ``Started`` once the user's message is stored, then the pieces of the reply, then
    ``Finished`` once the reply is stored too. However a turn ends, the next one works:

    - The model fails: the part of the reply received so far is stored with the ``stop_reason``
      ``failed`` in ``extra``, and the caller gets the error. If there is no part yet, only the
      user's message stays; sending the same message again does not store it twice.
    - The caller leaves (closes the generator or is cancelled), or the turn is stopped: the part
      received so far is stored with the ``stop_reason`` ``stopped``.
    - The turn reaches its ``time_limit``: the part received so far is stored with ``timed_out``. If
      there is no part yet, the caller gets ``ModelTimeout``.
    - The process dies: the conversation accepts a new turn once the turn's ``lease`` has ended.
    - The user's message is removed, or the conversation deleted, meanwhile: the reply is dropped.

    Only one turn of a conversation runs at a time; a second one raises ``TurnInProgress``. A turn
    that takes longer than its lease renews it. The clocks of machines that share a store must agree
    to within a few seconds.

    Args:
        store: Any async store.
        model: The model that turns call unless they name another.
        window: The part of the conversation that the model sees; by default the last 20 messages.
        system_prompt: The system prompt of every turn that is not given its own.
        lease: The time for which a turn may run without renewing its lease.
        time_limit: The longest that a turn may take; by default there is no limit.
        hooks: The hooks to call, in this order, in every turn that is stored.

    Raises:
        InvalidArgument: An argument is not valid.
    """

    _runner: "TurnRunner"

    def _new_runner(self) -> "TurnRunner":
        # Imported late: programs without an event loop should not pay for importing asyncio.
        from chatledger.chat.runner import TurnRunner

        return TurnRunner()

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
        """Run a turn as ``stream`` does, and return the complete reply."""
        return await collect(
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
        """Stop the turn that is running in the conversation; return whether there was one.

        The part of the reply received so far is stored, and the turn's caller gets
        ``Finished("stopped")``. A turn in another process loses its lease at once, so that the next
        turn can start; it ends within a third of its lease.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
        """
        await self.store.get(conversation_id, owner=owner)
        if self._runner.stop(conversation_id):
            return True
        return await arun(force_release(self.store, self._options, conversation_id, owner))

    async def usage(self, conversation_id: str, *, owner: str | None = None) -> Usage:
        """Return the tokens that all replies of the conversation used.

        Replies that were regenerated or edited away are included. The sum is stored with each
        reply. It starts again at zero if none of the last messages that a turn reads has a sum.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
        """
        tail = await self.store.tail(conversation_id, self._options.read_limit, owner=owner)
        return turn_metadata.total_usage(tail.messages) or Usage(0, 0)

    async def close(self) -> None:
        """Wait until the turns whose callers left have stored their replies."""
        await self._runner.close()
