"""The contract of every store: ``Store``, and ``AsyncStore`` with the same operations.

``chatledger.testing.store_contract`` tests it, promise by promise, for any store.
"""

import builtins
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Protocol, Self

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.json_values import Json
from chatledger.messages import Message

PAGE_SIZE = 100
"""The number of messages or conversations that ``iter_messages`` and ``iter_conversations`` read at
once."""


class Store(Protocol):
    """A durable store of conversations.

    The messages of a conversation are totally ordered, and no acknowledged write is ever lost. A
    store may be used by any number of threads and processes at once.

    **Owners.** A caller that passes ``owner`` sees only that owner's conversations: for every
    other conversation, including an anonymous one, the operation raises ``NotFound`` and changes
    nothing. A caller that does not pass ``owner`` may use every conversation.

    **Revisions and seqs.** A conversation has one number line. Each message has a place on it,
    its ``seq``; each change of the messages moves the ``revision`` up, to the ``seq`` of the last
    new message or beyond. No number is used twice, even after messages were removed.

    **Expiry.** A conversation's lifetime is fixed when it begins: its own, else that of the store,
    else it does not expire. It expires that long after the last change of its messages, and from
    that moment on does not exist for any operation. A store that is opened with another lifetime
    gives it to new conversations only. ``fork`` makes a copy with another lifetime.

    **Errors.** Every operation may raise ``InvalidArgument``, before it reads or writes anything,
    and ``StoreUnavailable``.
    """

    def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        """Create a conversation without messages.

        Args:
            conversation_id: Its id; None creates a new UUIDv7, or, with an ``idempotency_key``, a
                UUID that depends on ``owner`` and the key alone.
            owner: Its owner; None makes it anonymous.
            title: Its title; an empty one counts as none.
            metadata: Its metadata.
            expires_in: Its lifetime, from 1 second to 36,500 days; None gives it the store's.
            idempotency_key: A name for this call, such as a random UUID. Repeated with the same
                key, the call creates nothing and returns the conversation as it now is, as long as
                that exists.

        Returns:
            The new conversation. Its revision is at least 1.

        Raises:
            AlreadyExists: A live conversation has this id, whoever owns it.
            KeyReused: It was created with this ``idempotency_key``, but with other arguments.
        """
        ...

    def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        owner: str | None = None,
        after: int | None = None,
        idempotency_key: str | None = None,
        truncate_after: int | None = None,
        reply_follows: bool = False,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Appended:
        """Append ``messages`` to the conversation, all of them or none.

        Args:
            conversation_id: The conversation. If it does not exist, it is created for ``owner``,
                unless ``after`` is 1 or more.
            messages: 1 to 10,000 messages.
            owner: The conversation's owner, or None for a caller that may use every conversation.
            after: Append only if the conversation's revision is exactly this; 0 means that it
                must not exist. Without it, an append never conflicts with another writer: its
                messages follow that writer's.
            idempotency_key: A name for this append. Repeated with the same key on the same
                conversation, the append is made once and returns the same result, for at least 24
                hours, whatever has happened to the messages. Their ids, times and metadata may
                differ from those of the first call, and so may the other arguments.
            truncate_after: Remove every message whose seq is higher than this, in the same write:
                a reader sees the old messages or the new ones, never both and never neither.
            reply_follows: True if another append will follow shortly. ``list`` may then show this
                append only together with that one, which saves one write in stores that bill
                each write.
            title: The title, as for ``create``, if this append creates the conversation; otherwise
                it changes nothing. The same applies to ``metadata`` and ``expires_in``.
            metadata: The metadata.
            expires_in: The lifetime.

        Returns:
            The seqs of the messages and the new revision.

        Raises:
            Conflict: The revision is not ``after``.
            KeyReused: ``idempotency_key`` was used for other messages, which differ in role,
                content or ``extra``.
            NotFound: ``after`` is 1 or more and there is no conversation, or ``owner`` does not
                own the one with this id.
            MessageTooLarge: A message, or all of them together, exceed the limits in
                ``chatledger.messages`` and ``chatledger.conversations``.
        """
        ...

    def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        """Return the conversation without its messages.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        ...

    def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail:
        """Return the conversation and its last messages, both as of one moment.

        The result includes every write that was acknowledged before the call.

        Args:
            conversation_id: The conversation.
            n: The number of messages, 1 to 1,000.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Returns:
            The conversation, and at most ``n`` messages, oldest first. They are fewer than there
            are if they would exceed about 32 MiB of JSON, but at least one.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        ...

    def page(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> Page:
        """Return consecutive messages of the conversation, forwards or backwards.

        With ``before`` alone, the page holds the messages before it, newest first. Otherwise it
        holds the messages after ``after``, or from the first one on, oldest first. It holds fewer
        than ``limit`` if they would exceed about 32 MiB of JSON, but at least one.

        Args:
            conversation_id: The conversation.
            after: Only messages with a higher seq; no message needs to have this one.
            before: Only messages with a lower seq; no message needs to have this one.
            limit: The most messages to return, 1 to 1,000.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Returns:
            The messages, and in ``next`` the ``after`` (or, backwards, the ``before``) that reads
            the next page, or None if there are no more.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        ...

    def iter_messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        owner: str | None = None,
    ) -> Iterator[Message]:
        """Yield the messages in the range, however many they are, in the order of ``page``.

        They are read a page at a time. Each page shows the conversation as of one moment, and later
        pages also show what was written meanwhile: no message is repeated, and none is missed that
        was there from beginning to end.

        Args:
            conversation_id: The conversation.
            after: Only messages with a higher seq; no message needs to have this one.
            before: Only messages with a lower seq. Without ``after``, the newest comes first.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Raises:
            NotFound: There is no such conversation for ``owner``, or it was deleted meanwhile. If
                another one has begun with its id, the messages are that one's from then on.
        """
        backward = after is None and before is not None
        while True:
            page = self.page(
                conversation_id, after=after, before=before, limit=PAGE_SIZE, owner=owner
            )
            yield from page.messages
            if page.next is None:
                return
            after, before = (None, page.next) if backward else (page.next, before)

    def iter_conversations(self, owner: str | None = None) -> Iterator[Conversation]:
        """Yield every conversation of ``owner`` as ``list`` does, or of everybody as ``scan`` does.

        They are read a page at a time. A conversation that becomes active meanwhile moves to the
        top of its owner's list, and may then be missed.

        Args:
            owner: The owner. None yields every conversation of the store, anonymous ones too.
        """
        cursor: str | None = None
        while True:
            if owner is None:
                listing = self.scan(limit=PAGE_SIZE, cursor=cursor)
            else:
                listing = self.list(owner, limit=PAGE_SIZE, cursor=cursor)
            yield from listing.conversations
            cursor = listing.cursor
            if cursor is None:
                return

    def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing:
        """Return conversations of ``owner``, the most recently active first.

        Anonymous conversations are in nobody's list.

        Args:
            owner: The owner.
            limit: The most conversations to return, 1 to 1,000.
            cursor: The cursor of an earlier listing, to continue after it. It stays valid
                whatever changes in between; while nothing changes, no conversation is skipped or
                repeated.

        Returns:
            The conversations, and a cursor for the next ones, or None if there are no more.
        """
        ...

    def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing:
        """Return conversations of every owner, and anonymous ones, in an order the store chooses.

        As in ``list``, a conversation's fields may lag behind those that ``get`` returns.

        Args:
            limit: The most conversations to return, 1 to 1,000.
            cursor: The cursor of an earlier scan, to continue after it. It stays valid whatever
                changes in between; while nothing changes, no conversation is skipped or repeated.

        Returns:
            The conversations, possibly fewer than ``limit``, and a cursor for the next ones, or
            None if there are no more. A listing with a cursor is never empty.
        """
        ...

    def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation:
        """Write messages at the seqs they have, all of them or none; ``copy`` is built on this.

        Afterwards the conversation's revision is ``conversation.revision``. Numbers between the
        last message and that revision are never given to a message.

        ``updated_at`` becomes that of ``conversation``, unless it is later already. If ``after`` is
        0, the restored conversation has the lifetime of ``conversation``, or the store's if that
        one does not expire; otherwise it keeps its own. If both expire, it expires at the same
        moment as ``conversation``.

        Args:
            conversation: The conversation as another store returned it. If ``after`` is 0, its
                id, owner, title, metadata and ``created_at`` are used; an existing conversation
                keeps its own.
            messages: Messages with consecutive seqs, the first being ``after + 1``; may be empty.
            after: The revision that the conversation must have; 0 means that it must not exist.

        Returns:
            The conversation as restored.

        Raises:
            Conflict: The revision is not ``after``, or the numbers are still taken by an earlier
                conversation with this id.
            NotFound: ``after`` is 1 or more and there is no conversation, or ``conversation`` has
                expired.
            AlreadyExists: The conversation has another owner.
            MessageTooLarge: As for ``append``.
        """
        ...

    def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        metadata_revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        """Change the title, the metadata, or both.

        This does not count as activity: the revision, ``updated_at`` and the expiry stay as they
        are. The ``metadata_revision`` moves up, also if the new values equal the old ones. If
        neither a title nor metadata are given, nothing changes.

        Args:
            conversation_id: The conversation.
            title: The new title; an empty one removes it, None leaves it unchanged.
            metadata: The new metadata, which replaces the old one entirely; an empty dict removes
                it, None leaves it unchanged.
            revision: Update only if the conversation's revision is exactly this: its messages have
                not changed.
            metadata_revision: Update only if the conversation's ``metadata_revision`` is exactly
                this: neither title nor metadata have changed.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Returns:
            The conversation as updated.

        Raises:
            Conflict: The revision is not ``revision``, or the other one not ``metadata_revision``.
            NotFound: There is no such conversation for ``owner``.
        """
        ...

    def claim(self, conversation_id: str, owner: str) -> Conversation:
        """Give an anonymous conversation to ``owner``, for example when its user has signed in.

        It has that owner from this moment on. This counts as activity, and the revision moves up.
        If it has that owner already, nothing changes.

        Args:
            conversation_id: The conversation. Anyone who knows the id of an anonymous conversation
                can claim it, so only its user must know the id.
            owner: The new owner.

        Returns:
            The conversation.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
        """
        ...

    def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        """Remove every message whose seq is higher than ``after``.

        Readers see all of these messages or none. The revision moves up, and the removed seqs are
        not used again. If there is nothing to remove, nothing changes.

        Returns:
            The conversation without these messages.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        ...

    def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> builtins.list[Message]:
        """Remove and return the last ``n`` messages (1 to 1,000), or all if there are fewer.

        Otherwise the same as ``truncate``.

        Returns:
            The removed messages, oldest first.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        ...

    def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        """Remove every message but keep the conversation; the same as ``truncate`` at 0.

        Returns:
            The conversation without messages.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        ...

    def replace(
        self,
        conversation_id: str,
        seq: int,
        message: Message,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        """Replace the message at ``seq`` with ``message``; the revision moves up.

        Args:
            conversation_id: The conversation.
            seq: The place of the message to replace.
            message: The new message.
            revision: Replace only if the conversation's revision is exactly this.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Returns:
            The conversation as changed.

        Raises:
            Conflict: The revision is not ``revision``.
            NotFound: There is no such conversation for ``owner``, or no message at ``seq``.
            MessageTooLarge: As for ``append``.
        """
        ...

    def remove(
        self,
        conversation_id: str,
        seq: int,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        """Remove the message at ``seq``; all others stay. The revision moves up.

        The removed message's seq is not used again. To remove the last messages, ``truncate`` and
        ``pop`` do more at once.

        Args:
            conversation_id: The conversation.
            seq: The place of the message to remove.
            revision: Remove only if the conversation's revision is exactly this.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Returns:
            The conversation as changed.

        Raises:
            Conflict: The revision is not ``revision``.
            NotFound: There is no such conversation for ``owner``, or no message at ``seq``.
        """
        ...

    def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        expires_in: timedelta | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        """Copy the conversation to a new one, which readers see complete or not at all.

        The copy has the same owner, title and metadata. Its messages have the same ids, times and
        order, but may have other seqs.

        Args:
            conversation_id: The conversation to copy.
            at: The seq of the last message to copy; None copies all.
            new_id: The id of the copy; None creates a new UUIDv7, or, with an ``idempotency_key``,
                a UUID that depends on ``conversation_id`` and the key alone.
            expires_in: The lifetime of the copy, from 1 second to 36,500 days; None gives it that
                of the original, which may be none.
            owner: The conversation's owner, or None for a caller that may use every conversation.
            idempotency_key: A name for this call, as for ``create``. Repeated with the same key,
                the call copies nothing and returns the copy as it now is, as long as that exists.

        Returns:
            The copy.

        Raises:
            NotFound: There is no such conversation for ``owner``.
            AlreadyExists: A live conversation has the id ``new_id``, whoever owns it.
            KeyReused: It was created with this ``idempotency_key``, but with other arguments.
        """
        ...

    def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        """Delete the conversation; from this moment on, readers no longer see it.

        For at least 24 hours, a new conversation with the same id continues with higher
        revisions, so that a revision remembered from before matches nothing.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        ...

    def delete_owner(self, owner: str) -> int:
        """Delete every conversation of ``owner``.

        After an error, call it again: the conversations already deleted stay deleted. To delete
        everything for certain, call ``sweep`` first, and this again a minute later: a store may
        learn only from a sweep of a conversation whose writer crashed while it began, and a
        DynamoDB index lags.

        Returns:
            The number of conversations deleted; expired ones do not count.
        """
        ...

    def sweep(self) -> int:
        """Free the space of deleted conversations, and of those that expired over an hour ago.

        The hour allows for clocks that differ. Sweeping only frees space: readers never see a
        deleted or expired conversation, whether it was swept or not.

        Returns:
            The number of entries freed.
        """
        ...

    def close(self) -> None:
        """Close the files and connections of the store; closing it again does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class AsyncStore(Protocol):
    """The contract of ``Store`` for async callers: the same operations, as coroutines.

    An operation that is cancelled takes effect entirely or not at all.
    """

    async def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation: ...

    async def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        owner: str | None = None,
        after: int | None = None,
        idempotency_key: str | None = None,
        truncate_after: int | None = None,
        reply_follows: bool = False,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Appended: ...

    async def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation: ...

    async def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail: ...

    async def page(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> Page: ...

    async def iter_messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        owner: str | None = None,
    ) -> AsyncIterator[Message]:
        backward = after is None and before is not None
        while True:
            page = await self.page(
                conversation_id, after=after, before=before, limit=PAGE_SIZE, owner=owner
            )
            for message in page.messages:
                yield message
            if page.next is None:
                return
            after, before = (None, page.next) if backward else (page.next, before)

    async def iter_conversations(self, owner: str | None = None) -> AsyncIterator[Conversation]:
        cursor: str | None = None
        while True:
            if owner is None:
                listing = await self.scan(limit=PAGE_SIZE, cursor=cursor)
            else:
                listing = await self.list(owner, limit=PAGE_SIZE, cursor=cursor)
            for conversation in listing.conversations:
                yield conversation
            cursor = listing.cursor
            if cursor is None:
                return

    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing: ...

    async def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing: ...

    async def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation: ...

    async def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        metadata_revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation: ...

    async def claim(self, conversation_id: str, owner: str) -> Conversation: ...

    async def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation: ...

    async def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> builtins.list[Message]: ...

    async def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation: ...

    async def replace(
        self,
        conversation_id: str,
        seq: int,
        message: Message,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation: ...

    async def remove(
        self,
        conversation_id: str,
        seq: int,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation: ...

    async def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        expires_in: timedelta | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation: ...

    async def delete(self, conversation_id: str, *, owner: str | None = None) -> None: ...

    async def delete_owner(self, owner: str) -> int: ...

    async def sweep(self) -> int: ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exception: object) -> None: ...


# AsyncStore takes its docstrings from Store, so that the two cannot drift apart.
for _name, _method in vars(AsyncStore).items():
    if not _name.startswith("_") and hasattr(Store, _name):
        _method.__doc__ = getattr(Store, _name).__doc__
