"""Conversations, the other values that stores return, and the checks that all stores share."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid5

from chatledger.errors import InvalidArgument, KeyReused, MessageTooLarge
from chatledger.ids import new_id
from chatledger.json_values import Json, checked_object, checked_text
from chatledger.messages import Message, encode, normalize_time

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
MAX_REVISION = 2**53 - 1
"""The highest revision and seq: the largest integer that JSON parsers in every language represent
exactly (RFC 8259, section 6)."""
REVISIONS_TAKEN = (
    "it was deleted or has expired, and its revisions stay reserved for a day or more; wait, or "
    "restore into another store"
)
"""The advice of a ``Conflict`` with an earlier conversation of the same id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
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
            Pass it as ``after`` to append only if nobody else has changed the messages.
        expires_at: When it expires, or None if it lives until it is deleted.
        metadata_revision: A number that every change of its title or metadata increases. Pass it to
            ``update`` to change them only if nobody else has. Comparisons ignore it, because a copy
            in another store has another one.
    """

    id: str
    owner: str | None
    title: str | None
    metadata: dict[str, Json]
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
    """A conversation and its last messages, oldest first, as they were at one moment."""

    conversation: Conversation
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive messages of a conversation.

    Attributes:
        messages: The messages, in the order in which the caller pages.
        next: The ``after`` or ``before`` that reads the next page, or None if this is the last.
    """

    messages: list[Message]
    next: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Consecutive conversations of a list or scan.

    Attributes:
        conversations: The conversations.
        cursor: The cursor that reads the next ones, or None if these are the last.
    """

    conversations: list[Conversation]
    cursor: str | None


def check_id(value: object, name: str = "conversation_id") -> None:
    """Raise ``InvalidArgument`` unless ``value`` is a valid id of a conversation or an owner."""
    _check_key(value, name, MAX_ID_BYTES)


def check_ids(conversation_id: object, owner: object) -> None:
    """Raise ``InvalidArgument`` unless both are valid ids; ``owner`` may be None."""
    check_id(conversation_id)
    if owner is not None:
        check_id(owner, "owner")


def check_idempotency_key(value: object) -> None:
    """Raise ``InvalidArgument`` unless ``value`` is a valid idempotency key, or None."""
    if value is not None:
        _check_key(value, "idempotency_key", MAX_IDEMPOTENCY_KEY_BYTES)


def uuid_from_key(*parts: str) -> str:
    """Return a UUID derived from an idempotency key; the same parts always give the same one."""
    return str(uuid5(NAMESPACE_URL, ":".join(("chatledger", *parts))))


def fingerprint(*values: object) -> str:
    """Return a short text that is the same for equal values, which must be JSON or timedelta."""
    text = json.dumps(values, sort_keys=True, default=str)
    return urlsafe_b64encode(sha256(text.encode()).digest()[:15]).decode()


def fingerprint_of_messages(messages: Sequence[Message]) -> str:
    """Return the fingerprint of the messages of an append.

    It leaves out ids, times and metadata: a caller that repeats an append may make the messages
    anew.
    """
    return fingerprint(*([m.role, m.content, m.extra] for m in messages))


def check_key_use(first: str, repeated: str, *, seqs: range | None = None) -> None:
    """Raise ``KeyReused`` unless two calls with one idempotency key have the same fingerprint.

    Args:
        first: The fingerprint of the first call; empty if that was made before there were any.
        repeated: The fingerprint of the other call.
        seqs: The seqs of the messages that the first call appended, if it was an append.
    """
    if first and first != repeated:
        raise KeyReused(
            "The idempotency key was used for another call; use a new key for each call, and the "
            "same key only to repeat it.",
            seqs=seqs,
        )


class Creation(NamedTuple):
    """Fingerprints of the call that created a conversation with an idempotency key."""

    key: str
    call: str

    @classmethod
    def of(cls, idempotency_key: str | None, *arguments: object) -> "Creation | None":
        """Return the fingerprints of a call with these arguments; None if it has no key."""
        check_idempotency_key(idempotency_key)
        if idempotency_key is None:
            return None
        return cls(fingerprint(idempotency_key), fingerprint(*arguments))

    def is_repeated_by(self, other: "Creation | None") -> bool:
        """Return whether the other call repeats this one.

        Raises:
            KeyReused: It has the same key, but other arguments.
        """
        if other is None or other.key != self.key:
            return False
        check_key_use(self.call, other.call)
        return True


def new_id_for(creation: Creation | None, *scope: str | None) -> str:
    """Return an id for a new conversation; with a key, it depends on scope and key alone."""
    return new_id() if creation is None else uuid_from_key(json.dumps([*scope, creation.key]))


def check_title(value: object) -> None:
    """Raise ``InvalidArgument`` unless ``value`` is a valid title, or None."""
    if value is not None:
        text = checked_text(value, "title", error=InvalidArgument)
        if len(text) > MAX_TITLE_CHARACTERS:
            raise InvalidArgument(
                f"title has {len(text):,} characters, over the limit of {MAX_TITLE_CHARACTERS:,}."
            )


def checked_metadata(value: object) -> dict[str, Json]:
    """Return a checked copy of a conversation's metadata; an empty one if ``value`` is None.

    Raises:
        InvalidArgument: ``value`` is not a dict of JSON, or is larger than ``MAX_METADATA_BYTES``.
    """
    if value is None:
        return {}
    return checked_object(value, "metadata", limit=MAX_METADATA_BYTES, error=InvalidArgument)


def check_beginning(title: object, metadata: object, expires_in: object) -> dict[str, Json]:
    """Check the fields with which a conversation begins; return a checked copy of the metadata."""
    check_title(title)
    check_lifetime(expires_in)
    return checked_metadata(metadata)


def encode_batch(messages: object) -> list[str]:
    """Return the messages of one append as JSON texts, the form in which stores keep them.

    Raises:
        InvalidArgument: ``messages`` is not a sequence of 1 to ``MAX_BATCH_MESSAGES`` messages.
        MessageTooLarge: A message is larger than ``MAX_MESSAGE_BYTES``, or all of them together
            are larger than ``MAX_BATCH_BYTES``.
    """
    if isinstance(messages, Message | str) or not isinstance(messages, Sequence):
        raise InvalidArgument("messages must be a list of Message; for one message pass [message].")
    if not messages:
        raise InvalidArgument("messages is empty; pass at least one message.")
    if len(messages) > MAX_BATCH_MESSAGES:
        raise InvalidArgument(
            f"messages has {len(messages):,} items; append at most {MAX_BATCH_MESSAGES:,} at once."
        )
    bodies = [encode_message(message, f"messages[{n}]") for n, message in enumerate(messages)]
    # A character takes at most 4 bytes, so only large batches need to be measured.
    if sum(map(len, bodies)) * 4 > MAX_BATCH_BYTES:
        size = sum(len(body.encode()) for body in bodies)
        if size > MAX_BATCH_BYTES:
            raise MessageTooLarge("The batch", size=size, limit=MAX_BATCH_BYTES)
    return bodies


def prepare_restore(
    conversation: object, messages: object, after: object
) -> tuple[Conversation, list[str]]:
    """Check the arguments of ``Store.restore``.

    Returns:
        The conversation as stores keep it (times in UTC to the millisecond, an empty title as
        None), and the messages as JSON texts.

    Raises:
        InvalidArgument: The conversation is invalid, the messages do not have the seqs from
            ``after + 1`` on, or the revision is lower than the last of them.
        MessageTooLarge: As for ``encode_batch``.
    """
    if not isinstance(conversation, Conversation):
        raise InvalidArgument(
            f"conversation is of type {type(conversation).__name__}; pass one that get, list or "
            "scan of another store returned."
        )
    check_ids(conversation.id, conversation.owner)
    check_title(conversation.title)
    check_number(after, "after", least=0)
    assert isinstance(after, int)
    is_empty = isinstance(messages, list | tuple) and not messages
    bodies = [] if is_empty else encode_batch(messages)
    check_number(conversation.revision, "conversation.revision", least=after + max(len(bodies), 1))
    if bodies:
        assert isinstance(messages, Sequence)
        for seq, message in enumerate(messages, after + 1):
            if message.seq != seq:
                raise InvalidArgument(
                    f"messages[{seq - after - 1}] has the seq {message.seq}, not {seq}; one call "
                    "restores messages with consecutive seqs, starting at after + 1."
                )
    created_at = _checked_time(conversation.created_at, "created_at")
    expires_at = conversation.expires_at
    return (
        replace(
            conversation,
            title=conversation.title or None,
            metadata=checked_metadata(conversation.metadata),
            created_at=created_at,
            updated_at=max(created_at, _checked_time(conversation.updated_at, "updated_at")),
            expires_at=None if expires_at is None else _checked_time(expires_at, "expires_at"),
        ),
        bodies,
    )


def lifetime_of(conversation: Conversation) -> timedelta | None:
    """Return the conversation's lifetime, computed from its times; None if it does not expire."""
    if conversation.expires_at is None:
        return None
    # If the clock was set back before the last change, the difference is too small, or negative.
    return max(conversation.expires_at - conversation.updated_at, timedelta(seconds=1))


def encode_message(value: object, name: str = "message") -> str:
    """Return one message as JSON text; raise the errors of ``encode_batch``."""
    if not isinstance(value, Message):
        raise InvalidArgument(
            f"{name} is of type {type(value).__name__}; make it with Message.user(...), "
            ".assistant(...), .system(...) or .tool(...)."
        )
    return encode(value)


def check_number(value: object, name: str, *, least: int, most: int = MAX_REVISION) -> None:
    """Raise ``InvalidArgument`` unless ``value`` is an int from ``least`` to ``most``."""
    # bool is a subclass of int, but True as a number is always a mistake.
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name} is of type {type(value).__name__}; it must be an int.")
    if not least <= value <= most:
        raise InvalidArgument(f"{name} must be {least:,} to {most:,}.")


def check_revision(value: object, name: str) -> None:
    """Raise ``InvalidArgument`` unless ``value`` is a revision or a seq, 0 or None.

    Revisions and seqs are numbers on the same line; 0 is before the first.
    """
    if value is not None:
        check_number(value, name, least=0)


def check_lifetime(value: object, name: str = "expires_in") -> None:
    """Raise ``InvalidArgument`` unless ``value`` is from 1 second to 36,500 days, or None."""
    if value is None:
        return
    if not isinstance(value, timedelta):
        raise InvalidArgument(f"{name} is of type {type(value).__name__}; it must be a timedelta.")
    if not timedelta(seconds=1) <= value <= timedelta(days=36_500):
        raise InvalidArgument(f"{name} is {value}; it must be from 1 second to 36,500 days.")


def _checked_time(value: object, name: str) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidArgument(
            f"conversation.{name} must be an aware datetime, such as datetime.now(UTC)."
        )
    return normalize_time(value)


def _check_key(value: object, name: str, limit: int) -> None:
    text = checked_text(value, name, error=InvalidArgument)
    if not text:
        raise InvalidArgument(f"{name} is empty.")
    if (size := len(text.encode())) > limit:
        raise InvalidArgument(f"{name} has {size:,} bytes in UTF-8, over the limit of {limit:,}.")
