"""The chat for callers without an event loop."""

from collections.abc import Generator, Sequence

from chatledger.chat import turn_metadata
from chatledger.chat.any_chat import AnyChat
from chatledger.chat.chat import Chat
from chatledger.chat.events import Event, Reply, collect_sync
from chatledger.chat.lease import force_release
from chatledger.chat.runner_sync import SyncTurnRunner
from chatledger.messages import Message
from chatledger.models.protocol import SyncModel, Usage
from chatledger.sansio import run
from chatledger.stores.contract import Store


class SyncChat(AnyChat[Store, SyncModel, Generator[Event, None, None]]):
    """A chat with a sync store and a sync model, and with the methods of ``Chat``.

    Each call to the model runs in a thread of its own. The caller leaves a turn by closing the
    generator or by a ``KeyboardInterrupt``.
    """

    _runner: SyncTurnRunner

    def _new_runner(self) -> SyncTurnRunner:
        return SyncTurnRunner()

    def send(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
        title: str | None = None,
        model: SyncModel | None = None,
        idempotency_key: str | None = None,
    ) -> Reply:
        return collect_sync(
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

    def stop(self, conversation_id: str, *, owner: str | None = None) -> bool:
        self.store.get(conversation_id, owner=owner)
        if self._runner.stop(conversation_id):
            return True
        return run(force_release(self.store, self._options, conversation_id, owner))

    def usage(self, conversation_id: str, *, owner: str | None = None) -> Usage:
        tail = self.store.tail(conversation_id, self._options.read_limit, owner=owner)
        return turn_metadata.total_usage(tail.messages) or Usage(0, 0)


# Copy the docstrings, so that the two classes cannot drift apart.
for _name, _method in vars(SyncChat).items():
    if not _name.startswith("_"):
        _method.__doc__ = getattr(Chat, _name).__doc__
