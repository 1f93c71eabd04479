"""LangChain chat message history on a conversation in any store."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec

from chatledger.conversations import MAX_LIMIT, Conversation, Tail
from chatledger.errors import InvalidArgument, NotFound
from chatledger.langchain_messages import from_chatledger, to_chatledger
from chatledger.messages import Message
from chatledger.sansio import Steps, arun, call, run
from chatledger.stores.arguments import checked_id, checked_number
from chatledger.stores.contract import AsyncStore, Store
from chatledger.windows import starting_with_user

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MessagePage:
    """One page of a history.

    Attributes:
        messages: The messages, in the order in which they were requested.
        next: The ``after`` or ``before`` to request the next page with, or None after the last one.
    """

    messages: list[BaseMessage]
    next: int | None


class ChatMessageHistory(BaseChatMessageHistory):
    """The messages of a conversation, which the first append creates.

    The constructor makes no request. Each method may raise the errors of the store method that it
    calls.

    Args:
        store: With a ``Store`` all methods work, the async ones in a thread. With an ``AsyncStore``
            only the async methods work, without threads; the others raise ``InvalidArgument``.
        session_id: The id of the conversation.
        owner: The owner of the conversation. If it belongs to another owner, every method and
            ``messages`` raise ``NotFound``: with an empty history the model would answer as if the
            conversation were new, and the reply could not be saved. A conversation that does not
            exist yet has no messages. Without ``owner``, every conversation can be read and
            written, and new ones are anonymous, so that no owner's list shows them.
        window: The number of last messages in ``messages`` (1 to 1,000), read in one request. If
            the window leaves out earlier messages, it starts with a user message, because models
            refuse prompts that start otherwise. By default ``messages`` is the whole conversation,
            read page by page.

    Raises:
        InvalidArgument: An argument is invalid.
    """

    def __init__(
        self,
        store: Store | AsyncStore,
        session_id: str,
        *,
        owner: str | None = None,
        window: int | None = None,
    ) -> None:
        checked_id(session_id, "session_id")
        if owner is not None:
            checked_id(owner, "owner")
        if window is not None:
            checked_number(window, "window", least=1, most=MAX_LIMIT)
        self.store = store
        self.session_id = session_id
        self.owner = owner
        self.window = window
        self._is_async = hasattr(type(store), "__aenter__")
        # An AsyncStore has the same methods; only ``_arun`` needs to know that they are awaited.
        self._store = cast(Store, store)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # LangChain's is a variable
        """All messages or those in the window, oldest first.

        Empty if the conversation does not exist.
        """
        return self._run(self._read())

    async def aget_messages(self) -> list[BaseMessage]:
        """Return ``messages``, asynchronously."""
        return await self._arun(self._read())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append ``messages``, all of them or none; an empty list makes no request.

        Raises:
            InvalidMessage: A message contains a value that JSON cannot represent. Nothing was
                written.
        """
        self._run(self._add(messages))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Do the same as ``add_messages``, asynchronously."""
        await self._arun(self._add(messages))

    def clear(self) -> None:
        """Remove every message but keep the conversation; do nothing if it does not exist."""
        self._run(self._clear())

    async def aclear(self) -> None:
        """Do the same as ``clear``, asynchronously."""
        await self._arun(self._clear())

    def page(
        self, *, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> MessagePage:
        """Return at most ``limit`` messages (1 to 1,000), as ``Store.page`` does.

        Args:
            after: Return messages with a higher seq, oldest first. This is the default, from the
                start.
            before: Return messages with a lower seq; without ``after``, newest first.
        """
        return self._run(self._page(after=after, before=before, limit=limit))

    async def apage(
        self, *, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> MessagePage:
        """Do the same as ``page``, asynchronously."""
        return await self._arun(self._page(after=after, before=before, limit=limit))

    @property
    def conversation(self) -> Conversation:
        """The conversation without its messages.

        Raises:
            NotFound: The conversation does not exist.
        """
        return self._run(self._call_store(self._store.get))

    async def aget_conversation(self) -> Conversation:
        """Return ``conversation``, asynchronously."""
        return await self._arun(self._call_store(self._store.get))

    def _read(self) -> Steps[list[BaseMessage]]:
        if self.window is not None:
            tail = yield from self._unless_missing(self._call_store(self._store.tail, self.window))
            return [] if tail is None else [*map(from_chatledger, _model_window(tail))]
        messages: list[BaseMessage] = []
        after: int | None = None
        while True:
            page = yield from self._page(after=after, before=None, limit=MAX_LIMIT)
            messages += page.messages
            if page.next is None:
                return messages
            after = page.next

    def _page(self, *, after: int | None, before: int | None, limit: int) -> Steps[MessagePage]:
        reading = self._call_store(self._store.page, after=after, before=before, limit=limit)
        page = yield from self._unless_missing(reading)
        if page is None:
            return MessagePage([], None)
        return MessagePage([*map(from_chatledger, page.messages)], page.next)

    def _add(self, messages: Sequence[BaseMessage]) -> Steps[None]:
        if converted := [to_chatledger(message) for message in messages]:
            yield from self._call_store(self._store.append, converted)

    def _clear(self) -> Steps[None]:
        yield from self._unless_missing(self._call_store(self._store.clear))

    def _call_store(self, operation: Callable[..., T], *arguments: Any, **options: Any) -> Steps[T]:
        return call(operation, self.session_id, *arguments, owner=self.owner, **options)

    def _unless_missing(self, steps: Steps[T]) -> Steps[T | None]:
        """Return the result of ``steps``, or None if the conversation does not exist.

        Raises:
            NotFound: The conversation has another owner.
        """
        try:
            return (yield from steps)
        except NotFound as not_found:
            if self.owner is not None:
                try:
                    found = yield from call(self._store.get, self.session_id)
                except NotFound:
                    return None
                if found.owner != self.owner:
                    raise not_found from None
                # The owner created it after ``steps`` ran.
            return None

    def _run(self, steps: Steps[T]) -> T:
        if self._is_async:
            raise InvalidArgument(
                "This history is over an AsyncStore: await aget_messages, aadd_messages, aclear, "
                "apage or aget_conversation (in a chain: ainvoke, astream or abatch), or give it a "
                "Store, which open_store returns."
            )
        return run(steps)

    async def _arun(self, steps: Steps[T]) -> T:
        if self._is_async:
            return await arun(steps)
        return await asyncio.to_thread(run, steps)


def session_factory(
    store: Store | AsyncStore, *, owner: str | None = None, window: int | None = None
) -> Callable[[str], ChatMessageHistory]:
    """Return a function that makes the history of a session id, for ``RunnableWithMessageHistory``.

    All histories have the same ``owner``. ``owned_session_factory`` takes the owner from each call.
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
    """Return a function that makes the history of an owner and a session id, both from each call.

    Pass the function to ``RunnableWithMessageHistory`` together with
    ``history_factory_config=OWNED_SESSION``, and ``user_id`` and ``conversation_id`` in the
    ``configurable`` of each call.
    """

    # LangChain passes the arguments by these names.
    def history(user_id: str, conversation_id: str) -> ChatMessageHistory:
        return ChatMessageHistory(store, conversation_id, owner=user_id, window=window)

    return history


def _model_window(tail: Tail) -> Sequence[Message]:
    """Return the messages, from the first user message on if the tail leaves out earlier ones."""
    if tail.conversation.message_count == len(tail.messages):
        return tail.messages
    return starting_with_user(tail.messages)
