"""Turns for callers without an event loop."""

from collections.abc import Generator, Sequence

from chatledger.chat import turn_metadata
from chatledger.chat.any_chat import AnyChat
from chatledger.chat.chat import Chat
from chatledger.chat.events import Event, Reply, whole_sync
from chatledger.chat.runner_sync import SyncDriver
from chatledger.chat.stopping import free
from chatledger.messages import Message
from chatledger.models.protocol import SyncModel, Usage
from chatledger.sansio import run
from chatledger.stores.contract import Store


class SyncChat(AnyChat[Store, SyncModel, Generator[Event, None, None]]):
    """The turns of ``Chat``, over a sync store and model; each method is its namesake there.

    The model is heard in a thread of its own, one a turn. A caller that goes away is one that
    closes the generator, or is interrupted from the keyboard.
    """

    _driver: SyncDriver

    def _new_driver(self) -> SyncDriver:
        return SyncDriver()

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
        return whole_sync(
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
        if self._driver.stop(conversation_id):
            return True
        return run(free(self.store, self._terms, conversation_id, owner))

    def usage(self, conversation_id: str, *, owner: str | None = None) -> Usage:
        tail = self.store.tail(conversation_id, self._terms.reads, owner=owner)
        return turn_metadata.spent(tail.messages) or Usage(0, 0)


# One text for both, so that neither can drift.
for _name, _method in vars(SyncChat).items():
    if not _name.startswith("_"):
        _method.__doc__ = getattr(Chat, _name).__doc__
