"""What every store promises. ``chatledger.testing.store_contract`` tests it, law by law."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol, Self

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.json_values import Json
from chatledger.messages import Message


class Store(Protocol):
    """Where conversations live: durable, totally ordered, never losing what it acknowledged.

    Wherever ``owner`` is given, somebody else's conversation (and an anonymous one) does not
    exist: reading, writing and deleting it raise ``NotFound`` and change nothing. Without
    ``owner`` the caller is trusted with every conversation.

    Every method may raise ``InvalidArgument`` before anything is read or written, and
    ``StoreUnavailable``. A store is safe for any number of threads and processes.
    """

    def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Conversation:
        """Start a conversation without messages, under a new UUIDv7 where no id is given.

        ``expires_in`` is how long it lives after each change of its messages; None leaves that
        to the store. Raises ``AlreadyExists`` where the id is taken, whoever owns it.
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
    ) -> Appended:
        """Add ``messages`` behind the last one, all of them or none.

        Without ``after`` it waits its turn behind other writers, and starts the conversation for
        ``owner`` where there is none. With ``after``, raises ``Conflict`` unless the conversation
        stands at exactly that revision, and ``NotFound`` where there is none; ``after=0`` starts
        one.

        The same ``idempotency_key`` on the same conversation appends once, and answers the same
        for at least 24 hours, whatever else was passed or has happened to the messages since.

        With ``truncate_after`` every message whose seq is over it is removed in the same write: a
        reader sees the old ones or the new ones, never neither and never both.

        ``reply_follows`` says that another append is about to follow, so that ``list`` may show
        this one only with that: a store that pays for every write then saves one.

        Raises ``MessageTooLarge`` over the limits of ``chatledger.messages`` and
        ``chatledger.conversations``.
        """
        ...

    def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        """The conversation. Raises ``NotFound``."""
        ...

    def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail:
        """The conversation and its last ``n`` messages (1 to 1,000), oldest first, at one moment.

        It holds every write that was acknowledged before. Raises ``NotFound``.
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
        """At most ``limit`` messages (1 to 1,000) whose seq is over ``after`` or under ``before``.

        With ``before`` alone it walks back, newest first; else it walks on, oldest first, from
        the start or from behind ``after``. ``Page.next`` is the value for the next call, as
        ``after`` or as ``before``; None says that nothing lies beyond. Raises ``NotFound``.
        """
        ...

    def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing:
        """At most ``limit`` (1 to 1,000) conversations of ``owner``, newest activity first.

        ``Listing.cursor`` asks for those behind them and stays good whatever changes meanwhile;
        while nothing changes, none is skipped and none comes twice. Anonymous conversations are
        in nobody's list.
        """
        ...

    def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing:
        """At most ``limit`` (1 to 1,000) conversations of the store, whoever's, in its own order.

        Anonymous ones too. It may be fewer, but never none where there is a cursor, which asks for
        those behind them and stays good whatever changes meanwhile; while nothing changes, none is
        skipped and none comes twice. As in a list, what is said of each may lag behind ``get``.
        """
        ...

    def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation:
        """Put messages back at the seqs they bear, all of them or none: what ``copy`` is made of.

        They bear the seqs from ``after + 1`` on, without a gap, and there may be none. Afterwards
        the conversation stands at ``conversation.revision``; what lies between the last message
        and there is a gap that no message will ever fill. With ``after=0`` it is started, with the
        id, owner, title, metadata and ``created_at`` of ``conversation``; one that is there already
        keeps its own.

        Its ``updated_at`` becomes that of ``conversation``, unless it is later already. Where
        ``conversation`` expires, it will expire at the same moment, and from then on live as long
        after each change as ``conversation`` did; where not, the store's own lifetime counts from
        now on.

        Raises ``Conflict`` unless the conversation stands at exactly ``after`` (0: there is none),
        or where the numbers are still taken by a former one of that id; ``NotFound`` where there
        is none, or ``conversation`` has expired; ``AlreadyExists`` where it has another owner; and
        ``MessageTooLarge``.
        """
        ...

    def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        """Give it another title, other metadata (the whole dict), or both; None leaves as it is.

        An empty title removes the title, an empty dict the metadata. With ``revision``, raises
        ``Conflict`` unless its messages stand exactly there. It is no activity: neither the
        revision, nor ``updated_at``, nor the expiry moves. Raises ``NotFound``.
        """
        ...

    def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        """Remove every message whose seq is over ``after``; a reader sees all of it or nothing.

        The revision moves up and no seq is given out again; where nothing lies behind ``after``,
        nothing changes. Raises ``NotFound``.
        """
        ...

    def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> Sequence[Message]:
        """Remove the last ``n`` messages (1 to 1,000), or all where there are fewer.

        Answers with what was removed, oldest first; otherwise as ``truncate``.
        """
        ...

    def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        """Remove every message and keep the conversation; otherwise as ``truncate``."""
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
        """Put ``message`` in the place of the one at ``seq``; the revision moves up.

        With ``revision``, raises ``Conflict`` unless the conversation stands exactly there. Raises
        ``NotFound`` where no message is there, and ``MessageTooLarge``.
        """
        ...

    def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        owner: str | None = None,
    ) -> Conversation:
        """Copy it, with its messages up to and with seq ``at`` (None: all), to a new conversation.

        Owner, title, metadata and lifetime go along, and the messages with their ids and times in
        their order; their seqs may be others. The copy is visible whole or not at all. Raises
        ``NotFound``, and ``AlreadyExists`` where ``new_id`` is taken.
        """
        ...

    def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        """Remove it, gone for readers at once. Raises ``NotFound``.

        A conversation that later starts under the same id goes on with higher revisions for at
        least 24 hours, so that a revision remembered from before matches nothing.
        """
        ...

    def delete_owner(self, owner: str) -> int:
        """Delete every conversation of ``owner``; answers how many there were.

        After an error call it again: those already deleted stay deleted.
        """
        ...

    def sweep(self) -> int:
        """Free what no reader can see any more: leftovers of the deleted, and what expired over an
        hour ago (clocks differ).

        Answers how many entries it freed. Needed for the space alone: expiry and deletion hold
        for readers without it.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; closing again does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class AsyncStore(Protocol):
    """The same promises to async callers: each method is its namesake of ``Store``, awaited.

    A call that is cancelled may have landed, whole, or not at all.
    """

    async def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
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
        owner: str | None = None,
    ) -> Conversation: ...

    async def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation: ...

    async def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> Sequence[Message]: ...

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

    async def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        owner: str | None = None,
    ) -> Conversation: ...

    async def delete(self, conversation_id: str, *, owner: str | None = None) -> None: ...

    async def delete_owner(self, owner: str) -> int: ...

    async def sweep(self) -> int: ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exception: object) -> None: ...


# One text for both, so that help(AsyncStore.append) says what it promises and neither can drift.
for _name, _method in vars(AsyncStore).items():
    if not _name.startswith("_") and hasattr(Store, _name):
        _method.__doc__ = getattr(Store, _name).__doc__
