"""A conversation of any store as LangChain's chat message history."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, cast

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec

from chatledger.conversations import LIMIT, Conversation, Tail, check_id, check_number
from chatledger.errors import InvalidArgument, NotFound
from chatledger.langchain_messages import from_chatledger, to_chatledger
from chatledger.messages import Message
from chatledger.sansio import Steps, arun, run
from chatledger.stores.contract import AsyncStore, Store
from chatledger.windows import starting_with_user

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MessagePage:
    """A stretch of messages; ``next`` is the ``after`` or ``before`` of the next one, or None."""

    messages: list[BaseMessage]
    next: int | None


class ChatMessageHistory(BaseChatMessageHistory):
    """The messages of the conversation ``session_id``, which the first message starts.

    ``store`` is a ``Store`` or an ``AsyncStore``. With a ``Store`` all methods work, the async ones
    in a thread; with an ``AsyncStore`` the async ones work, without threads, and the others raise
    ``InvalidArgument``.

    ``window`` is how many of the last messages ``messages`` holds (1 to 1,000), in one request;
    where that cuts the conversation, it starts with a message of the user's, as models refuse a
    reply to nothing. Without it ``messages`` is the whole conversation, read page by page.

    With ``owner`` the conversation is theirs. Where it is somebody else's, every method raises
    ``NotFound``, ``messages`` too: an empty history would have the model answer as if nothing had
    been said, and the answer could not be kept. Only a conversation that is nobody's yet has no
    messages. Without ``owner`` the caller is trusted with every conversation, and those that it
    starts are in nobody's list.

    Nothing is asked of the store until a method is called. Each may raise what the store's own
    raise.
    """

    def __init__(
        self,
        store: Store | AsyncStore,
        session_id: str,
        *,
        owner: str | None = None,
        window: int | None = None,
    ) -> None:
        check_id(session_id, "session_id")
        if owner is not None:
            check_id(owner, "owner")
        if window is not None:
            check_number(window, "window", least=1, most=LIMIT)
        self.store = store
        self.session_id = session_id
        self.owner = owner
        self.window = window
        self._is_async = hasattr(type(store), "__aenter__")
        # The same names and signatures: only who drives the steps must know which are awaited.
        self._store = cast(Store, store)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # LangChain's is a variable
        """The messages, oldest first: all, or the window. None of a conversation not started."""
        return self._run(self._read())

    async def aget_messages(self) -> list[BaseMessage]:
        """As ``messages``."""
        return await self._arun(self._read())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add ``messages`` behind the last one, all of them or none; where there are none, nothing.

        Raises ``InvalidMessage``, before anything is written, for what JSON cannot hold.
        """
        self._run(self._add(messages))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """As ``add_messages``."""
        await self._arun(self._add(messages))

    def clear(self) -> None:
        """Remove every message and keep the conversation; where there is none, do nothing."""
        self._run(self._clear())

    async def aclear(self) -> None:
        """As ``clear``."""
        await self._arun(self._clear())

    def page(
        self, *, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> MessagePage:
        """At most ``limit`` messages (1 to 1,000), as ``Store.page`` finds them.

        With ``before`` alone newest first, else oldest first; ``MessagePage.next`` goes on.
        """
        return self._run(self._page(after=after, before=before, limit=limit))

    async def apage(
        self, *, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> MessagePage:
        """As ``page``."""
        return await self._arun(self._page(after=after, before=before, limit=limit))

    @property
    def conversation(self) -> Conversation:
        """What the store knows of it beside its messages. Raises ``NotFound`` before the first."""
        return self._run(self._asked(self._store.get))

    async def aget_conversation(self) -> Conversation:
        """As ``conversation``."""
        return await self._arun(self._asked(self._store.get))

    def _read(self) -> Steps[list[BaseMessage]]:
        if self.window is not None:
            tail = yield from self._if_started(self._asked(self._store.tail, self.window))
            return [] if tail is None else [*map(from_chatledger, _seen(tail))]
        messages: list[BaseMessage] = []
        after: int | None = None
        while True:
            page = yield from self._page(after=after, before=None, limit=LIMIT)
            messages += page.messages
            if page.next is None:
                return messages
            after = page.next

    def _page(self, *, after: int | None, before: int | None, limit: int) -> Steps[MessagePage]:
        asked = self._asked(self._store.page, after=after, before=before, limit=limit)
        page = yield from self._if_started(asked)
        if page is None:
            return MessagePage([], None)
        return MessagePage([*map(from_chatledger, page.messages)], page.next)

    def _add(self, messages: Sequence[BaseMessage]) -> Steps[None]:
        if made := [to_chatledger(message) for message in messages]:
            yield from self._asked(self._store.append, made)

    def _clear(self) -> Steps[None]:
        yield from self._if_started(self._asked(self._store.clear))

    def _asked(self, operation: Callable[..., T], *arguments: Any, **options: Any) -> Steps[T]:
        return cast(
            T, (yield partial(operation, self.session_id, *arguments, owner=self.owner, **options))
        )

    def _if_started(self, asked: Steps[T]) -> Steps[T | None]:
        """What was asked for, or None where the conversation is nobody's yet."""
        try:
            return (yield from asked)
        except NotFound as refused:
            if self.owner is not None:
                try:
                    found = yield partial(self._store.get, self.session_id)
                except NotFound:
                    return None
                if found.owner != self.owner:
                    raise refused from None
                # Ours: started just now, behind what was asked.
            return None

    def _run(self, steps: Steps[T]) -> T:
        if self._is_async:
            raise InvalidArgument(
                "This history is over an AsyncStore: await aget_messages, aadd_messages, aclear, "
                "apage or aget_conversation (in a chain: ainvoke, astream or abatch), or give it a "
                "Store, which open_store answers with."
            )
        return run(steps)

    async def _arun(self, steps: Steps[T]) -> T:
        if self._is_async:
            return await arun(steps)
        return await asyncio.to_thread(run, steps)


def session_factory(
    store: Store | AsyncStore, *, owner: str | None = None, window: int | None = None
) -> Callable[[str], ChatMessageHistory]:
    """The histories of ``store`` by session id, for ``RunnableWithMessageHistory``.

    All of them are of the same ``owner``; see ``owned_session_factory`` for one a call.
    """

    def history(session_id: str) -> ChatMessageHistory:
        return ChatMessageHistory(store, session_id, owner=owner, window=window)

    return history


OWNED_SESSION: Final = [
    ConfigurableFieldSpec(id="user_id", annotation=str, name="User ID", is_shared=True),
    ConfigurableFieldSpec(
        id="conversation_id", annotation=str, name="Conversation ID", is_shared=True
    ),
]
"""The ``history_factory_config`` for ``owned_session_factory``."""


def owned_session_factory(
    store: Store | AsyncStore, *, window: int | None = None
) -> Callable[[str, str], ChatMessageHistory]:
    """The histories of ``store`` by owner and session id, both from the config of the call.

    Hand ``OWNED_SESSION`` to ``RunnableWithMessageHistory`` with it, and ``user_id`` and
    ``conversation_id`` as ``configurable`` to each call.
    """

    # LangChain passes them by these names.
    def history(user_id: str, conversation_id: str) -> ChatMessageHistory:
        return ChatMessageHistory(store, conversation_id, owner=user_id, window=window)

    return history


def _seen(tail: Tail) -> Sequence[Message]:
    """The window as a model can take it: one that cuts starts with the user."""
    if tail.conversation.message_count == len(tail.messages):
        return tail.messages
    return starting_with_user(tail.messages)
