"""Turns for callers without an event loop."""

from collections.abc import Generator, Sequence
from datetime import timedelta

from recollect.chat import marks
from recollect.chat.any_chat import AnyChat
from recollect.chat.chat import Chat
from recollect.chat.driving_sync import SyncDriver
from recollect.chat.events import Event, Reply, whole_sync
from recollect.chat.hooks import Hook
from recollect.chat.stopping import free
from recollect.chat.terms import LEASE
from recollect.messages import Message
from recollect.models.contract import SyncModel, Usage
from recollect.steps import run
from recollect.stores.contract import Store
from recollect.windows import Window


class SyncChat(AnyChat[Store, SyncModel, Generator[Event, None, None]]):
    """The turns of ``Chat``, over a sync store and model; each method is its namesake there.

    The model is heard in a thread of its own, one a turn. A caller that goes away is one that
    closes the generator, or is interrupted from the keyboard.
    """

    def __init__(
        self,
        store: Store,
        model: SyncModel,
        *,
        window: Window | None = None,
        system_prompt: str | None = None,
        lease: timedelta = LEASE,
        time_limit: timedelta | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._driver = SyncDriver()
        super().__init__(
            store,
            model,
            self._driver,
            window=window,
            system_prompt=system_prompt,
            lease=lease,
            time_limit=time_limit,
            hooks=hooks,
        )

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
        return marks.spent(tail.messages) or Usage(0, 0)


# One text for both, so that neither can drift.
for _name, _method in vars(SyncChat).items():
    if not _name.startswith("_"):
        _method.__doc__ = getattr(Chat, _name).__doc__
