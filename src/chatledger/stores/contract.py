"""The contract of every store: ``Store``, and ``AsyncStore`` with the same operations.

``chatledger.testing.store_contract`` tests it, promise by promise, for any store.
"""

import builtins
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeAlias, TypeVar, cast

from chatledger.conversations import (
    RESERVED_PREFIX,
    Appended,
    Conversation,
    Found,
    Listing,
    Page,
    Tail,
)
from chatledger.entries import Entries, Entry
from chatledger.errors import NotFound
from chatledger.messages import Message, StoredMessage
from chatledger.stores.arguments import (
    checked_changes,
    checked_conversation,
    checked_description,
    checked_entry_cursor,
    checked_entry_key,
    checked_entry_value,
    checked_id,
    checked_idempotency_key,
    checked_lifetime,
    checked_limit,
    checked_number,
    checked_owner,
    checked_place,
    checked_prefix,
    checked_query,
    checked_revision,
    checked_search_place,
    encode_batch,
    encode_message,
    encode_restored,
)
from chatledger.stores.idempotency import Creation, fingerprint_of_messages, new_id_for
from chatledger.stores.operations import (
    Append,
    Beginning,
    Claim,
    Create,
    Delete,
    DeleteEntry,
    DeleteOwner,
    Fork,
    Get,
    GetEntry,
    ListEntries,
    ListOwned,
    Operation,
    Pop,
    PutEntry,
    ReadPage,
    ReadTail,
    Restore,
    Rewrite,
    Scan,
    Search,
    Sweep,
    Truncate,
    Update,
)
from chatledger.values import Json

P = ParamSpec("P")
T = TypeVar("T")

PAGE_SIZE = 100
"""The number of messages or conversations that ``iter_messages`` and ``iter_conversations`` read at
once."""
MISSING = f"{RESERVED_PREFIX}missing"
"""The id of a conversation that does not exist, for reads that only test the store."""
LONG_BATCH = 100
"""The number of messages above which an async store encodes them in a thread."""


class Store(ABC):
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
        owner, key = checked_owner(owner), checked_idempotency_key(idempotency_key)
        beginning = Beginning(
            checked_description(title=title, metadata=metadata), checked_lifetime(expires_in)
        )
        creation = Creation.of(key, "create", owner, *beginning.identity)
        id_is_new = conversation_id is None and creation is None
        if conversation_id is None:
            conversation_id = new_id_for(creation, "create", owner)
        return self.perform(
            Create(checked_id(conversation_id), owner, beginning, creation, id_is_new)
        )

    def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        owner: str | None = None,
        revision: int | None = None,
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
                unless ``revision`` is 1 or more.
            messages: 1 to 10,000 messages.
            owner: The conversation's owner, or None for a caller that may use every conversation.
            revision: Append only if the conversation's revision is exactly this; 0 means that it
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
            Conflict: The revision is not ``revision``.
            KeyReused: ``idempotency_key`` was used for other messages, which differ in role,
                content or ``extra``.
            NotFound: ``revision`` is 1 or more and there is no conversation, or ``owner`` does not
                own the one with this id.
            MessageTooLarge: A message, or all of them together, exceed the limits in
                ``chatledger.messages`` and ``chatledger.conversations``.
        """
        key = checked_idempotency_key(idempotency_key)
        return self.perform(
            Append(
                checked_id(conversation_id),
                encode_batch(messages),
                owner=checked_owner(owner),
                revision=checked_revision(revision),
                idempotency_key=key,
                fingerprint="" if key is None else fingerprint_of_messages(messages),
                truncate_after=checked_revision(truncate_after, "truncate_after"),
                reply_follows=reply_follows,
                beginning=Beginning(
                    checked_description(title=title, metadata=metadata),
                    checked_lifetime(expires_in),
                ),
            )
        )

    def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        """Return the conversation without its messages.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        return self.perform(Get(checked_id(conversation_id), checked_owner(owner)))

    def tail(self, conversation_id: str, limit: int = 20, *, owner: str | None = None) -> Tail:
        """Return the conversation and its last messages, both as of one moment.

        The result includes every write that was acknowledged before the call.

        Args:
            conversation_id: The conversation.
            limit: The most messages to return, 1 to 1,000.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Returns:
            The conversation, and at most ``limit`` messages, oldest first. They are fewer than
            there are if they would exceed about 32 MiB of JSON, but at least one.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        return self.perform(
            ReadTail(checked_id(conversation_id), checked_limit(limit), checked_owner(owner))
        )

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
        return self.perform(
            ReadPage(
                checked_id(conversation_id),
                after=checked_revision(after, "after"),
                before=checked_revision(before, "before"),
                limit=checked_limit(limit),
                owner=checked_owner(owner),
            )
        )

    def iter_messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        owner: str | None = None,
    ) -> Iterator[StoredMessage]:
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
        while True:
            page = self.page(
                conversation_id, after=after, before=before, limit=PAGE_SIZE, owner=owner
            )
            yield from page.messages
            if page.next is None:
                return
            after, before = _next_range(after, before, page.next)

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

        Anonymous conversations are in nobody's list, and neither are those whose ids begin with
        ``chatledger:``, in which parts of Chatledger keep data of their own.

        Args:
            owner: The owner.
            limit: The most conversations to return, 1 to 1,000.
            cursor: The cursor of an earlier listing, to continue after it. It stays valid
                whatever changes in between; while nothing changes, no conversation is skipped or
                repeated.

        Returns:
            The conversations, and a cursor for the next ones, or None if there are no more.
        """
        return self.perform(ListOwned(checked_id(owner, "owner"), checked_limit(limit), cursor))

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
        return self.perform(Scan(checked_limit(limit), cursor))

    def search(
        self, owner: str, query: str, *, limit: int = 20, cursor: str | None = None
    ) -> Found:
        """Return messages and titles of ``owner`` in which every word of ``query`` occurs.

        The conversations come in the order of ``list``, and those that it does not show, or not
        yet, are not searched. The messages of the user and of the assistant are searched, the
        newest first, after the title. A message that was removed or replaced, or whose conversation
        was deleted or has expired, is never found.

        Upper and lower case, and accents, make no difference. The last word of the query is also
        found as the beginning of a longer word. In scripts without spaces between words, such as
        Chinese, Japanese and Thai, any part of a text is found.

        Args:
            owner: The owner.
            query: One or more words, at most 400 characters.
            limit: The most matches to return, 1 to 1,000.
            cursor: The cursor of an earlier search with the same query, to continue after it. It
                stays valid whatever changes in between; while nothing changes, no match is skipped
                or repeated. A conversation that becomes active meanwhile moves to the top, and may
                then be missed.

        Returns:
            The matches, possibly fewer than ``limit`` or none, and a cursor, or None if everything
            was searched. A call does a bounded amount of work and says how far it came:
            ``complete`` is False if it ended for that reason.
        """
        return self.perform(
            Search(
                checked_id(owner, "owner"),
                checked_query(query),
                checked_limit(limit),
                checked_search_place(cursor),
            )
        )

    def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, revision: int
    ) -> Conversation:
        """Write messages at the seqs they have, all of them or none; ``copy`` is built on this.

        Afterwards the conversation's revision is ``conversation.revision``. Numbers between the
        last message and that revision are never given to a message.

        ``updated_at`` becomes that of ``conversation``, unless it is later already. If ``revision``
        is 0, the restored conversation has the lifetime of ``conversation``, or the store's if that
        one does not expire; otherwise it keeps its own. If both expire, it expires at the same
        moment as ``conversation``.

        Args:
            conversation: The conversation as another store returned it. If ``revision`` is 0, its
                id, owner, title, metadata and ``created_at`` are used; an existing conversation
                keeps its own.
            messages: Messages with consecutive seqs, the first being ``revision + 1``, or none.
            revision: The revision that the conversation must have; 0 means that it must not exist.

        Returns:
            The conversation as restored.

        Raises:
            Conflict: The revision is not ``revision``, or the numbers are still taken by an earlier
                conversation with this id.
            NotFound: ``revision`` is 1 or more and there is no conversation, or ``conversation``
                has expired.
            AlreadyExists: The conversation has another owner.
            MessageTooLarge: As for ``append``.
        """
        revision = checked_number(revision, "revision", least=0)
        texts = encode_restored(messages, revision)
        least = revision + max(len(texts), 1)
        conversation = checked_conversation(conversation, least_revision=least)
        return self.perform(Restore(conversation, texts, revision))

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
            Conflict: The revision is not ``revision``, or the metadata revision is not
                ``metadata_revision``.
            NotFound: There is no such conversation for ``owner``.
        """
        return self.perform(
            Update(
                checked_id(conversation_id),
                checked_changes(title=title, metadata=metadata),
                revision=checked_revision(revision),
                metadata_revision=checked_revision(metadata_revision, "metadata_revision"),
                owner=checked_owner(owner),
            )
        )

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
        return self.perform(Claim(checked_id(conversation_id), checked_id(owner, "owner")))

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
        after = checked_number(after, "after", least=0)
        return self.perform(Truncate(checked_id(conversation_id), after, checked_owner(owner)))

    def pop(
        self, conversation_id: str, limit: int = 1, *, owner: str | None = None
    ) -> builtins.list[StoredMessage]:
        """Remove and return the last ``limit`` messages (1 to 1,000), or all if there are fewer.

        Readers see all of these removals or none, as with ``truncate``.

        Returns:
            The removed messages, oldest first.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        return self.perform(
            Pop(checked_id(conversation_id), checked_limit(limit), checked_owner(owner))
        )

    def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        """Remove every message but keep the conversation; the same as ``truncate(after=0)``.

        Returns:
            The conversation without messages.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        return self.perform(Truncate(checked_id(conversation_id), 0, checked_owner(owner)))

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
        return self.perform(
            Rewrite(
                checked_id(conversation_id),
                checked_number(seq, "seq", least=1),
                encode_message(message),
                revision=checked_revision(revision),
                owner=checked_owner(owner),
            )
        )

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
        return self.perform(
            Rewrite(
                checked_id(conversation_id),
                checked_number(seq, "seq", least=1),
                None,
                revision=checked_revision(revision),
                owner=checked_owner(owner),
            )
        )

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

        The copy has the same owner, title, metadata and entries. Its messages have the same ids,
        times and order, but may have other seqs, and its entries have other revisions.

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
        source, at = checked_id(conversation_id), checked_revision(at, "at")
        key, expires_in = checked_idempotency_key(idempotency_key), checked_lifetime(expires_in)
        creation = Creation.of(key, "fork", source, at, expires_in)
        if new_id is None:
            new_id = new_id_for(creation, "fork", source)
        return self.perform(
            Fork(
                source, at, checked_id(new_id, "new_id"), expires_in, checked_owner(owner), creation
            )
        )

    def delete(
        self, conversation_id: str, *, revision: int | None = None, owner: str | None = None
    ) -> None:
        """Delete the conversation with its entries; from this moment on, readers no longer see it.

        For at least 24 hours, a new conversation with the same id continues with higher
        revisions, so that a revision remembered from before matches nothing.

        Args:
            conversation_id: The conversation.
            revision: Delete only if the conversation's revision is exactly this.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Raises:
            Conflict: The revision is not ``revision``.
            NotFound: There is no such conversation for ``owner``.
        """
        return self.perform(
            Delete(checked_id(conversation_id), checked_revision(revision), checked_owner(owner))
        )

    def delete_owner(self, owner: str) -> int:
        """Delete every conversation of ``owner``, and the owner's entries.

        After an error, call it again: the conversations already deleted stay deleted. To delete
        everything for certain, call ``sweep`` first, and this again a minute later: a store may
        learn only from a sweep of a conversation whose writer crashed while it began, and a
        DynamoDB index lags.

        Returns:
            The number of conversations deleted; expired ones and entries do not count.
        """
        return self.perform(DeleteOwner(checked_id(owner, "owner")))

    def sweep(self) -> int:
        """Free the space of deleted conversations, and of those that expired over an hour ago.

        The same applies to entries, but an expired one may be kept for a day longer. The hour
        allows for clocks that differ. Sweeping only frees space: readers never see what was deleted
        or has expired, whether it was swept or not.

        Returns:
            The number of things freed.
        """
        return self.perform(Sweep())

    # Entries: named values beside the messages ---------------------------------------------------

    def put_entry(
        self,
        conversation_id: str | None,
        name: str,
        value: Json,
        *,
        revision: int | None = None,
        expires_in: timedelta | None = None,
        owner: str | None = None,
    ) -> Entry:
        """Set the entry ``name`` to ``value``, whether it exists or not.

        This is no activity of the conversation, which stays as it is. The entry lives, expires, is
        forked and is deleted with its conversation, or is deleted by ``delete_owner``.

        Args:
            conversation_id: The conversation, which must exist. None means that the entry belongs
                to ``owner``, who needs no conversation.
            name: The entry's name, at most 512 bytes of UTF-8.
            value: Its value, at most 16 MiB of JSON.
            revision: Put only if the entry's revision is exactly this; 0 means that there must be
                no such entry.
            expires_in: The entry's own lifetime from now on, from 1 second to 36,500 days; None
                lets it live as long as its conversation or owner.
            owner: The conversation's owner, or None for a caller that may use every conversation.
                Without a conversation, the owner of the entry, which must be given.

        Returns:
            The entry. A new entry begins with a revision from the clock, higher than any that the
            name has had; each change moves it up by one.

        Raises:
            Conflict: The revision is not ``revision``.
            NotFound: There is no such conversation for ``owner``.
        """
        key = checked_entry_key(conversation_id, name, owner)
        checked, text = checked_entry_value(value)
        revision, expires_in = checked_revision(revision), checked_lifetime(expires_in)
        return self.perform(PutEntry(key, checked, text, revision, expires_in))

    def entry(self, conversation_id: str | None, name: str, *, owner: str | None = None) -> Entry:
        """Return the entry ``name`` of the conversation, or of ``owner`` if that is None.

        It includes every put that was acknowledged before the call, in every store.

        Raises:
            NotFound: There is no such entry, or no such conversation for ``owner``.
        """
        return self.perform(GetEntry(checked_entry_key(conversation_id, name, owner)))

    def entries(
        self,
        conversation_id: str | None,
        *,
        prefix: str = "",
        limit: int = 100,
        cursor: str | None = None,
        owner: str | None = None,
    ) -> Entries:
        """Return entries of the conversation, or of ``owner`` if that is None, by their names.

        Each entry is shown as it was at some moment during the call; those of a conversation need
        not be of the same moment. Puts acknowledged before the call are included.

        Args:
            conversation_id: The conversation, or None for the entries of ``owner``.
            prefix: Only entries whose names begin with this.
            limit: The most entries to return, 1 to 1,000.
            cursor: The cursor of an earlier result, to continue after it. It stays valid whatever
                changes in between.
            owner: As for ``put_entry``.

        Returns:
            The entries in the order of their names as UTF-8 bytes, and a cursor for the next ones,
            or None if there are no more. They may be fewer than ``limit``, but a result with a
            cursor is never empty.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        conversation_id, owner = checked_place(conversation_id, owner)
        prefix, limit = checked_prefix(prefix), checked_limit(limit)
        after = checked_entry_cursor(cursor)
        return self.perform(ListEntries(conversation_id, owner, prefix, limit, after))

    def delete_entry(
        self,
        conversation_id: str | None,
        name: str,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> None:
        """Delete the entry ``name``; from this moment on, readers no longer see it.

        To repeat a call whose outcome is unknown (``StoreUnavailable``), call it again;
        ``NotFound`` then says that the entry is gone.

        Args:
            conversation_id: The conversation, or None for an entry of ``owner``.
            name: The entry's name.
            revision: Delete only if the entry's revision is exactly this.
            owner: As for ``put_entry``.

        Raises:
            Conflict: The revision is not ``revision``.
            NotFound: There is no such entry, or no such conversation for ``owner``.
        """
        key = checked_entry_key(conversation_id, name, owner)
        return self.perform(DeleteEntry(key, checked_revision(revision)))

    def check_writable(self) -> None:
        """Raise the error that a write would raise now; whatever is stored stays as it is.

        A store of your own may replace this method; the inherited one only reads.
        """
        with suppress(NotFound):
            self.get(MISSING)

    @property
    def clock_difference(self) -> timedelta:
        """The most by which the clocks of two processes that use the store may differ.

        It is 0 if they share one clock. Whoever stores a time for others to compare with their
        clocks must allow for it. Reading it makes no request.

        Raises:
            ClockSkewed: The clock of this process is known to differ by more.
        """
        return timedelta(0)

    # ---------------------------------------------------------------------------------------------

    @abstractmethod
    def perform(self, operation: Operation[T]) -> T:
        """Perform an operation, whose arguments have been checked, and return its result.

        The other methods call this. A store of your own implements it and ``close``.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the files and connections of the store; closing it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Checks:
    """Stands in for a store, to check an operation's arguments without performing it."""

    def perform(self, operation: Operation[T]) -> Operation[T]:
        return operation


def awaited(
    operation: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Return a method of a sync store as a coroutine method, with the same arguments and docstring.

    It awaits the method's result, because an async store's ``perform`` and ``run`` return
    coroutines. Long batches are encoded in a thread, so that other tasks can run meanwhile.
    """

    @wraps(operation)
    async def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: Any
        if any(map(_is_long_batch, args)) or any(map(_is_long_batch, kwargs.values())):
            import asyncio  # here, because programs without an event loop need not load it

            checked = await asyncio.to_thread(operation, _Checks(), *args, **kwargs)
            result = self.perform(checked)
        else:
            result = operation(self, *args, **kwargs)
        return cast(T, await result)

    return run


def _is_long_batch(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > LONG_BATCH


class AsyncStore(ABC):
    """The contract of ``Store`` for async callers: the same operations, as coroutines.

    An operation that is cancelled takes effect entirely or not at all.
    """

    create = awaited(Store.create)
    append = awaited(Store.append)
    get = awaited(Store.get)
    tail = awaited(Store.tail)
    page = awaited(Store.page)
    list = awaited(Store.list)
    scan = awaited(Store.scan)
    search = awaited(Store.search)
    restore = awaited(Store.restore)
    update = awaited(Store.update)
    claim = awaited(Store.claim)
    truncate = awaited(Store.truncate)
    pop = awaited(Store.pop)
    clear = awaited(Store.clear)
    replace = awaited(Store.replace)
    remove = awaited(Store.remove)
    fork = awaited(Store.fork)
    delete = awaited(Store.delete)
    delete_owner = awaited(Store.delete_owner)
    sweep = awaited(Store.sweep)
    put_entry = awaited(Store.put_entry)
    entry = awaited(Store.entry)
    entries = awaited(Store.entries)
    delete_entry = awaited(Store.delete_entry)

    async def iter_messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        owner: str | None = None,
    ) -> AsyncIterator[StoredMessage]:
        while True:
            page = await self.page(
                conversation_id, after=after, before=before, limit=PAGE_SIZE, owner=owner
            )
            for message in page.messages:
                yield message
            if page.next is None:
                return
            after, before = _next_range(after, before, page.next)

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

    iter_messages.__doc__ = Store.iter_messages.__doc__
    iter_conversations.__doc__ = Store.iter_conversations.__doc__

    async def check_writable(self) -> None:
        with suppress(NotFound):
            await self.get(MISSING)

    check_writable.__doc__ = Store.check_writable.__doc__

    @property
    def clock_difference(self) -> timedelta:
        """The same as ``Store.clock_difference``."""
        return timedelta(0)

    @abstractmethod
    async def perform(self, operation: Operation[T]) -> T:
        """Perform an operation as ``Store.perform`` does."""

    @abstractmethod
    async def close(self) -> None:
        """Close the files and connections of the store; closing it again does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


AnyStore: TypeAlias = Store | AsyncStore


def _next_range(
    after: int | None, before: int | None, following: int
) -> tuple[int | None, int | None]:
    """Return the ``after`` and ``before`` of the page that follows, from ``Page.next``."""
    if after is None and before is not None:  # backwards
        return None, following
    return following, before
