"""Conversations, and the small values that stores answer with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from chatledger.errors import InvalidArgument, MessageTooLarge
from chatledger.json_values import Json, checked_object, checked_text
from chatledger.messages import Message, encode, to_milliseconds

ID_BYTES = 2_000
"""The longest id of a conversation or an owner, in UTF-8 (DynamoDB takes 2,048 for a key)."""
IDEMPOTENCY_KEY_BYTES = 1_000
"""The longest idempotency key, in UTF-8 (DynamoDB takes 1,024 for a sort key)."""
TITLE_CHARACTERS = 1_000
METADATA_BYTES = 4 * 1024
"""The largest ``metadata`` of a conversation, as JSON in UTF-8: lists carry it along."""
BATCH_MESSAGES = 10_000
"""The most messages one append takes."""
BATCH_BYTES = 64 * 1024 * 1024
"""The most that the messages of one append may have together, as JSON in UTF-8."""
LIMIT = 1_000
"""The most messages or conversations that one read answers with."""
LAST_REVISION = 2**53 - 1
"""The highest revision and seq: all that JSON readers in other languages hold exactly."""
NUMBERS_TAKEN = (
    "that one has ended, and its numbers stay taken for a day or more; wait, or restore into "
    "another store"
)
"""What to do about a ``Conflict`` with a former conversation of the same id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is known of a conversation beside its messages.

    ``revision`` moves up with every change of its messages and is never given out twice; pass it
    as ``after`` to append only if nobody else did. ``updated_at`` is when its messages last
    changed. ``expires_at`` is None where it lives until it is deleted.
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


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the messages of an append are: their seqs, and the revision that this made."""

    seqs: range
    revision: int


@dataclass(frozen=True, slots=True)
class Tail:
    """A conversation and its last messages, oldest first, as they stood at one moment."""

    conversation: Conversation
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of messages; ``next`` is the ``after`` or ``before`` of the next one, or None."""

    messages: list[Message]
    next: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Some conversations; ``cursor`` asks for those behind them, None at the end."""

    conversations: list[Conversation]
    cursor: str | None


def check_id(value: object, name: str = "conversation_id") -> None:
    """Raise ``InvalidArgument`` unless ``value`` can name a conversation or an owner."""
    _check_key(value, name, ID_BYTES)


def check_names(conversation_id: object, owner: object) -> None:
    """Raise ``InvalidArgument`` unless both can name what they should; the owner may be None."""
    check_id(conversation_id)
    if owner is not None:
        check_id(owner, "owner")


def check_idempotency_key(value: object) -> None:
    """Raise ``InvalidArgument`` unless ``value`` is an idempotency key, or None."""
    if value is not None:
        _check_key(value, "idempotency_key", IDEMPOTENCY_KEY_BYTES)


def check_title(value: object) -> None:
    """Raise ``InvalidArgument`` unless ``value`` can be a title, or is None."""
    if value is not None:
        text = checked_text(value, "title", error=InvalidArgument)
        if len(text) > TITLE_CHARACTERS:
            raise InvalidArgument(
                f"title has {len(text):,} characters, over the limit of {TITLE_CHARACTERS:,}."
            )


def checked_metadata(value: object) -> dict[str, Json]:
    """A copy of a conversation's metadata; None is none. Raises ``InvalidArgument``."""
    if value is None:
        return {}
    return checked_object(value, "metadata", limit=METADATA_BYTES, error=InvalidArgument)


def encode_batch(messages: object) -> list[str]:
    """The messages of one append as the JSON texts that stores keep.

    Raises ``InvalidArgument`` unless they are a sequence of messages that one append takes, and
    ``MessageTooLarge``.
    """
    if isinstance(messages, Message | str) or not isinstance(messages, Sequence):
        raise InvalidArgument("messages must be a list of Message; for one message pass [message].")
    if not messages:
        raise InvalidArgument("messages is empty; there is nothing to append.")
    if len(messages) > BATCH_MESSAGES:
        raise InvalidArgument(
            f"messages holds {len(messages):,}; append at most {BATCH_MESSAGES:,} at once."
        )
    bodies = [encode_one(message, f"messages[{n}]") for n, message in enumerate(messages)]
    # A character is at most 4 bytes, so that most batches need no second look.
    if sum(map(len, bodies)) * 4 > BATCH_BYTES:
        size = sum(len(body.encode()) for body in bodies)
        if size > BATCH_BYTES:
            raise MessageTooLarge("The batch", size=size, limit=BATCH_BYTES)
    return bodies


def checked_restored(
    conversation: object, messages: object, after: object
) -> tuple[Conversation, list[str]]:
    """The conversation as stores keep it, and the messages to be put back as JSON texts.

    Raises ``InvalidArgument`` unless the messages bear the seqs from behind ``after`` on and the
    revision has room for them, and raises as ``encode_batch``.
    """
    if not isinstance(conversation, Conversation):
        raise InvalidArgument(
            f"conversation is of type {type(conversation).__name__}; pass one that get, list or "
            "scan of another store answered with."
        )
    check_names(conversation.id, conversation.owner)
    check_title(conversation.title)
    check_number(after, "after", least=0)
    assert isinstance(after, int)
    nothing = isinstance(messages, list | tuple) and not messages
    bodies = [] if nothing else encode_batch(messages)
    check_number(conversation.revision, "conversation.revision", least=after + max(len(bodies), 1))
    if bodies:
        assert isinstance(messages, Sequence)
        for seq, message in enumerate(messages, after + 1):
            if message.seq != seq:
                raise InvalidArgument(
                    f"messages[{seq - after - 1}] bears the seq {message.seq}, not {seq}; one call "
                    "restores messages that follow each other without a gap, from after + 1 on."
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
    """How long it lives after each change of its messages, as its times tell."""
    if conversation.expires_at is None:
        return None
    # A clock that was set back at the last change makes them tell too little.
    return max(conversation.expires_at - conversation.updated_at, timedelta(seconds=1))


def encode_one(value: object, name: str = "message") -> str:
    """The ``Message`` as the JSON text that stores keep; raises as ``encode_batch``."""
    if not isinstance(value, Message):
        raise InvalidArgument(
            f"{name} is of type {type(value).__name__}; make it with Message.user(...), "
            ".assistant(...), .system(...) or .tool(...)."
        )
    return encode(value)


def check_number(value: object, name: str, *, least: int, most: int = LAST_REVISION) -> None:
    """Raise ``InvalidArgument`` unless ``value`` is an int from ``least`` to ``most``."""
    # True is an int too, and never what was meant.
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name} is of type {type(value).__name__}; it must be an int.")
    if not least <= value <= most:
        raise InvalidArgument(f"{name} must be {least:,} to {most:,}.")


def check_place(value: object, name: str) -> None:
    """Raise ``InvalidArgument`` unless ``value`` is a seq or a revision, 0 for none, or None."""
    if value is not None:
        check_number(value, name, least=0)


def check_lifetime(value: object, name: str = "expires_in") -> None:
    """Raise ``InvalidArgument`` unless ``value`` is a time of a second to 100 years, or None."""
    if value is None:
        return
    if not isinstance(value, timedelta):
        raise InvalidArgument(f"{name} is of type {type(value).__name__}; it must be a timedelta.")
    if not timedelta(seconds=1) <= value <= timedelta(days=36_500):
        raise InvalidArgument(f"{name} is {value}; it must be a second to 36,500 days.")


def _checked_time(value: object, name: str) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidArgument(
            f"conversation.{name} must be an aware datetime, such as datetime.now(UTC)."
        )
    return to_milliseconds(value)


def _check_key(value: object, name: str, limit: int) -> None:
    text = checked_text(value, name, error=InvalidArgument)
    if not text:
        raise InvalidArgument(f"{name} is empty.")
    if (size := len(text.encode())) > limit:
        raise InvalidArgument(f"{name} has {size:,} bytes in UTF-8, over the limit of {limit:,}.")
