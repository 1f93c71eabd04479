"""Conversations and the other values that stores return, and their limits."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, NamedTuple

from chatledger.messages import Role, StoredMessage
from chatledger.values import Json

MAX_ID_BYTES = 2_000
"""The longest id of a conversation or an owner, in bytes of UTF-8; DynamoDB's limit for a partition
key is 2,048."""
MAX_IDEMPOTENCY_KEY_BYTES = 1_000
"""The longest idempotency key, in bytes of UTF-8; DynamoDB's limit for a sort key is 1,024."""
MAX_TITLE_CHARACTERS = 1_000
MAX_METADATA_BYTES = 4 * 1024
"""The largest ``metadata`` of a conversation, in bytes of JSON; kept small, as lists include it."""
MAX_BATCH_MESSAGES = 10_000
"""The most messages in one append."""
MAX_BATCH_BYTES = 64 * 1024 * 1024
"""The largest total size of the messages in one append, in bytes of JSON."""
MAX_LIMIT = 1_000
"""The most messages or conversations that one read returns."""
MAX_READ_BYTES = 32 * 1024 * 1024
"""The approximate limit on the messages that one read returns, in bytes of JSON; a single message
may exceed it."""
MAX_QUERY_CHARACTERS = 400
"""The longest query of a search."""
RESERVED_PREFIX = "chatledger:"
"""The beginning of the ids of conversations in which parts of Chatledger keep data of their own,
such as the state of LangGraph's threads: ``list`` and the HTTP APIs do not show them."""
MAX_REVISION = 2**53 - 1
"""The highest revision and seq: the largest integer that JSON parsers in every language represent
exactly (RFC 8259, section 6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The part of a conversation that ``create`` and ``append`` may set, and ``update`` changes.

    Every field has a default: a conversation that was stored before a field was added has that.

    Attributes:
        title: The title, or None.
        metadata: The application's own data, at most ``MAX_METADATA_BYTES`` as JSON.
    """

    title: str | None = None
    metadata: dict[str, Json] = field(default_factory=dict)


DESCRIPTION_FIELDS = tuple(each.name for each in fields(Description))
DEFAULT_DESCRIPTION = Description()


def fields_of(description: Description) -> dict[str, Any]:
    """Return the fields of the description, or of a conversation's description, by their names."""
    return {name: getattr(description, name) for name in DESCRIPTION_FIELDS}


def given_fields_of(description: Description) -> dict[str, Any]:
    """Return those fields of the description that are not at their defaults."""
    return {
        name: value
        for name, value in fields_of(description).items()
        if value != getattr(DEFAULT_DESCRIPTION, name)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Description):
    """A conversation without its messages.

    Attributes:
        id: Its id.
        owner: The id of its owner, or None if it is anonymous.
        title: Its title, or None.
        metadata: The application's own data, at most ``MAX_METADATA_BYTES`` as JSON.
        created_at: When it was created, in UTC to the millisecond.
        updated_at: When its messages last changed.
        message_count: The number of its messages.
        revision: A number that every change of its messages increases and that is never reused.
            Pass it to ``append`` to append only if nobody else has changed the messages.
        expires_at: When it expires, or None if it lives until it is deleted.
        metadata_revision: A number that every change of its description increases. Pass it to
            ``update`` to change that only if nobody else has. Comparisons ignore it, because a copy
            in another store has another one.
    """

    id: str
    owner: str | None
    created_at: datetime
    updated_at: datetime
    message_count: int
    revision: int
    expires_at: datetime | None
    metadata_revision: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of an append.

    Attributes:
        seqs: The seqs of the new messages, in their order.
        revision: The revision of the conversation after the append.
    """

    seqs: range
    revision: int


@dataclass(frozen=True, slots=True)
class Tail:
    """A conversation and its last messages, oldest first, as they were at one moment.

    Iterating over it yields the messages.
    """

    conversation: Conversation
    messages: list[StoredMessage]

    def __iter__(self) -> Iterator[StoredMessage]:
        return iter(self.messages)


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive messages of a conversation; iterating over it yields them.

    Attributes:
        messages: The messages, in the order in which the caller pages.
        next: The ``after`` or ``before`` that reads the next page, or None if this is the last.
    """

    messages: list[StoredMessage]
    next: int | None

    def __iter__(self) -> Iterator[StoredMessage]:
        return iter(self.messages)


@dataclass(frozen=True, slots=True)
class Listing:
    """Consecutive conversations of a list or scan; iterating over it yields them.

    Attributes:
        conversations: The conversations.
        cursor: The cursor that reads the next ones, or None if these are the last.
    """

    conversations: list[Conversation]
    cursor: str | None

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self.conversations)


class Span(NamedTuple):
    """A part of a text, from the code point ``start`` up to but not including ``end``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Match:
    """A message, or the title of a conversation, in which every word of a query occurs.

    Attributes:
        conversation_id: The id of the conversation.
        title: Its title, or None.
        seq: The seq of the message; None if the words occur in the title.
        role: The role of the message; None if the words occur in the title.
        excerpt: About 160 characters around one of the words, with … where the text is cut and
            single spaces instead of line breaks.
        spans: The places of the words in the excerpt, in order, at least one.
    """

    conversation_id: str
    title: str | None
    seq: int | None
    role: Role | None
    excerpt: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The matches that one call of a search has found; iterating over it yields them.

    Attributes:
        matches: The matches.
        cursor: The cursor that continues the search, or None if everything was searched.
        complete: False if the call has ended before it found as many matches as it may return,
            although there is more to search; continue with the cursor.
    """

    matches: tuple[Match, ...]
    cursor: str | None
    complete: bool

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches)
