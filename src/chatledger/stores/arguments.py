"""The checks of the operations' arguments; each returns the value in the form that stores keep."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from chatledger.conversations import (
    MAX_BATCH_BYTES,
    MAX_BATCH_MESSAGES,
    MAX_ID_BYTES,
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_LIMIT,
    MAX_METADATA_BYTES,
    MAX_QUERY_CHARACTERS,
    MAX_REVISION,
    MAX_TITLE_CHARACTERS,
    Conversation,
    Description,
    fields_of,
)
from chatledger.entries import MAX_ENTRY_BYTES, MAX_ENTRY_NAME_BYTES
from chatledger.errors import InvalidArgument, MessageTooLarge
from chatledger.messages import Message, encode
from chatledger.stores.cursors import SearchPlace, decode_cursor, decode_search_cursor
from chatledger.stores.operations import EntryKey
from chatledger.stores.words import Query
from chatledger.values import (
    Json,
    checked_json,
    checked_object,
    checked_text,
    dumps,
    milliseconds,
    normalize_time,
)


def checked_id(value: object, name: str = "conversation_id") -> str:
    """Return the id of a conversation or an owner."""
    return _checked_key(value, name, MAX_ID_BYTES)


def checked_owner(value: object) -> str | None:
    """Return the id of an owner, or None."""
    return None if value is None else checked_id(value, "owner")


def checked_idempotency_key(value: object) -> str | None:
    """Return an idempotency key, or None."""
    if value is None:
        return None
    return _checked_key(value, "idempotency_key", MAX_IDEMPOTENCY_KEY_BYTES)


def checked_number(value: object, name: str, *, least: int, most: int = MAX_REVISION) -> int:
    """Return an int from ``least`` to ``most``."""
    # bool is a subclass of int, but True as a number is always a mistake.
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name} is of type {type(value).__name__}; it must be an int.")
    if not least <= value <= most:
        raise InvalidArgument(f"{name} must be {least:,} to {most:,}.")
    return value


def checked_limit(value: object) -> int:
    """Return a number of messages or conversations."""
    return checked_number(value, "limit", least=1, most=MAX_LIMIT)


def checked_revision(value: object, name: str = "revision") -> int | None:
    """Return a revision, a seq, 0 (which is before the first), or None."""
    return None if value is None else checked_number(value, name, least=0)


def checked_lifetime(value: object, name: str = "expires_in") -> timedelta | None:
    """Return a lifetime from 1 second to 36,500 days, or None."""
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise InvalidArgument(f"{name} is of type {type(value).__name__}; it must be a timedelta.")
    if not timedelta(seconds=1) <= value <= timedelta(days=36_500):
        raise InvalidArgument(f"{name} is {value}; it must be from 1 second to 36,500 days.")
    return value


def checked_default_lifetime(expire_after: object) -> int | None:
    """Return a store's default lifetime in milliseconds, or None."""
    lifetime = checked_lifetime(expire_after, "expire_after")
    return None if lifetime is None else milliseconds(lifetime)


def checked_cleanup(value: float) -> float:
    """Return the seconds that a write may spend on freeing storage."""
    if not value >= 0:
        raise InvalidArgument("cleanup must be a number of seconds, 0 or more.")
    return value


def checked_title(value: object) -> str | None:
    """Return a title; None if it is empty."""
    text = checked_text(value, "title", error=InvalidArgument)
    if len(text) > MAX_TITLE_CHARACTERS:
        raise InvalidArgument(
            f"title has {len(text):,} characters, over the limit of {MAX_TITLE_CHARACTERS:,}."
        )
    return text or None


def checked_metadata(value: object) -> dict[str, Json]:
    """Return a copy of a conversation's metadata."""
    return checked_object(value, "metadata", limit=MAX_METADATA_BYTES, error=InvalidArgument)


_DESCRIPTION_CHECKS: dict[str, Callable[[object], Any]] = {
    "title": checked_title,
    "metadata": checked_metadata,
}


def checked_changes(**values: object) -> dict[str, Any]:
    """Return the new values of a description's fields by name, without those that are None."""
    return {
        name: _DESCRIPTION_CHECKS[name](value)
        for name, value in values.items()
        if value is not None
    }


def checked_description(**values: object) -> Description:
    """Return the description with these values; None leaves a field at its default."""
    return Description(**checked_changes(**values))


def encode_batch(messages: object) -> list[str]:
    """Return the messages of one append as JSON texts.

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
    texts = [encode_message(message, f"messages[{n}]") for n, message in enumerate(messages)]
    # A character takes at most 4 bytes, so only large batches need to be measured.
    if sum(map(len, texts)) * 4 > MAX_BATCH_BYTES:
        size = sum(len(text.encode()) for text in texts)
        if size > MAX_BATCH_BYTES:
            raise MessageTooLarge(
                "The batch",
                size=size,
                limit=MAX_BATCH_BYTES,
                advice="append fewer messages at once",
            )
    return texts


def encode_message(value: object, name: str = "message") -> str:
    """Return one message as JSON text; raise the errors of ``encode_batch``."""
    if not isinstance(value, Message):
        raise InvalidArgument(
            f"{name} is of type {type(value).__name__}; make it with Message.user(...), "
            ".assistant(...), .system(...) or .tool(...)."
        )
    return encode(value)


def encode_restored(messages: object, revision: int) -> list[str]:
    """Return the messages of one ``restore`` as JSON texts; there may be none.

    Raises:
        InvalidArgument: They do not have the seqs from ``revision + 1`` on.
        MessageTooLarge: As for ``encode_batch``.
    """
    if isinstance(messages, list | tuple) and not messages:
        return []
    texts = encode_batch(messages)
    assert isinstance(messages, Sequence)
    for seq, message in enumerate(messages, revision + 1):
        if message.seq != seq:
            raise InvalidArgument(
                f"messages[{seq - revision - 1}] has the seq {message.seq}, not {seq}; one call "
                "restores messages with consecutive seqs, starting at revision + 1."
            )
    return texts


def checked_conversation(value: object, *, least_revision: int) -> Conversation:
    """Return the conversation that ``restore`` is given, as stores keep it.

    Its times are in UTC to the millisecond, and an empty title is None.

    Raises:
        InvalidArgument: The conversation is invalid, or its revision is lower than
            ``least_revision``.
    """
    if not isinstance(value, Conversation):
        raise InvalidArgument(
            f"conversation is of type {type(value).__name__}; pass one that get, list or "
            "scan of another store returned."
        )
    created_at = _checked_time(value.created_at, "created_at")
    expires_at = value.expires_at
    return replace(
        value,
        id=checked_id(value.id),
        owner=checked_owner(value.owner),
        **fields_of(checked_description(**fields_of(value))),
        created_at=created_at,
        updated_at=max(created_at, _checked_time(value.updated_at, "updated_at")),
        expires_at=None if expires_at is None else _checked_time(expires_at, "expires_at"),
        revision=checked_number(value.revision, "conversation.revision", least=least_revision),
    )


def checked_entry_key(conversation_id: object, name: object, owner: object) -> EntryKey:
    """Return the key of an entry, of a conversation or of an owner."""
    name = _checked_key(name, "name", MAX_ENTRY_NAME_BYTES)
    return EntryKey(*checked_place(conversation_id, owner), name)


def checked_place(conversation_id: object, owner: object) -> tuple[str | None, str | None]:
    """Return a conversation and the caller's owner, or None and the owner that has the entries."""
    if conversation_id is not None:
        return checked_id(conversation_id), checked_owner(owner)
    if owner is None:
        raise InvalidArgument(
            "conversation_id and owner are both None; pass the conversation, or the owner, to "
            "which the entries belong."
        )
    return None, checked_owner(owner)


def checked_entry_value(value: object) -> tuple[Json, str]:
    """Return a copy of an entry's value, and its JSON text."""
    copy = checked_json(value, "value", error=InvalidArgument)
    text = dumps(copy)
    # A character takes at most 4 bytes, so only long texts need to be measured.
    if len(text) * 4 > MAX_ENTRY_BYTES and (size := len(text.encode())) > MAX_ENTRY_BYTES:
        raise InvalidArgument(
            f"value is {size:,} bytes as JSON, over the limit of {MAX_ENTRY_BYTES:,}; keep large "
            "content elsewhere and store a link to it."
        )
    return copy, text


def checked_prefix(value: object) -> str:
    """Return the beginning of the names of entries; it may be empty."""
    return value if value == "" else _checked_key(value, "prefix", MAX_ENTRY_NAME_BYTES)


def checked_entry_cursor(cursor: str | None) -> str | None:
    """Return the name of the entry after which a cursor continues, or None."""
    if cursor is None:
        return None
    number, name = decode_cursor(cursor)
    if number or not name or len(name.encode()) > MAX_ENTRY_NAME_BYTES:
        raise InvalidArgument("cursor does not come from entries; list them again without one.")
    return name


def checked_query(value: object, name: str = "query") -> Query:
    """Return a query with at least one word."""
    text = checked_text(value, name, error=InvalidArgument)
    if len(text) > MAX_QUERY_CHARACTERS:
        raise InvalidArgument(
            f"{name} has {len(text):,} characters, over the limit of {MAX_QUERY_CHARACTERS:,}."
        )
    query = Query.of(text)
    if not query.terms:
        raise InvalidArgument(f"{name} has no words; name a word to search for.")
    return query


def checked_search_place(cursor: str | None) -> SearchPlace:
    """Return the place at which a search with this cursor begins."""
    return SearchPlace() if cursor is None else decode_search_cursor(cursor)


def _checked_time(value: object, name: str) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidArgument(
            f"conversation.{name} must be an aware datetime, such as datetime.now(UTC)."
        )
    try:
        return normalize_time(value)
    except OverflowError:
        raise InvalidArgument(
            f"conversation.{name} is outside the years 1 to 9999 in UTC."
        ) from None


def _checked_key(value: object, name: str, limit: int) -> str:
    text = checked_text(value, name, error=InvalidArgument)
    if not text:
        raise InvalidArgument(f"{name} is empty.")
    if (size := len(text.encode())) > limit:
        raise InvalidArgument(f"{name} has {size:,} bytes in UTF-8, over the limit of {limit:,}.")
    return text
