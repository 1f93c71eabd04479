"""Cursors of lists and searches: the place after the last result, even if that one has moved."""

import base64
import binascii
import json
from typing import Any, NamedTuple

from chatledger.conversations import MAX_ID_BYTES, MAX_REVISION
from chatledger.errors import InvalidArgument
from chatledger.values import dumps


def encode_cursor(updated_at: int, conversation_id: str) -> str:
    """Return the cursor for the place after this conversation: opaque text that is safe in URLs.

    Args:
        updated_at: The conversation's ``updated_at``, in milliseconds since 1970.
        conversation_id: Its id.
    """
    return _encode([updated_at, conversation_id])


def decode_cursor(cursor: str) -> tuple[int, str]:
    """Return the ``updated_at`` and the id from which ``encode_cursor`` made the cursor.

    Raises:
        InvalidArgument: ``encode_cursor`` did not make this cursor.
    """
    try:
        updated_at, conversation_id = _decode(cursor)
        is_valid = _is_place(updated_at, conversation_id)
    except _UNREADABLE:
        is_valid = False
    if not is_valid:
        raise InvalidArgument("cursor does not come from a list; list again without a cursor.")
    return updated_at, conversation_id


class SearchPlace(NamedTuple):
    """The place after a conversation, or within it, at which a search continues."""

    updated_at: int = MAX_REVISION
    """The conversation's ``updated_at``, in milliseconds since 1970."""
    conversation_id: str = ""
    before: int | None = None
    """The search continues with those messages of the conversation whose seqs are lower than this;
    None if it continues after the conversation."""

    def encode(self) -> str:
        """Return the cursor for this place."""
        return _encode(self)


def decode_search_cursor(cursor: str) -> SearchPlace:
    """Return the place from which ``SearchPlace.encode`` made the cursor.

    Raises:
        InvalidArgument: It did not make this cursor.
    """
    try:
        updated_at, conversation_id, before = _decode(cursor)
        is_valid = _is_place(updated_at, conversation_id) and (
            before is None or (type(before) is int and 0 < before <= MAX_REVISION)
        )
    except _UNREADABLE:
        is_valid = False
    if not is_valid:
        raise InvalidArgument("cursor does not come from a search; search again without a cursor.")
    return SearchPlace(updated_at, conversation_id, before)


_UNREADABLE = (AttributeError, TypeError, ValueError, RecursionError, binascii.Error)


def _encode(place: object) -> str:
    return base64.urlsafe_b64encode(dumps(place).encode()).rstrip(b"=").decode()


def _decode(cursor: str) -> Any:
    padded = cursor.encode() + b"=" * (-len(cursor) % 4)
    return json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))


def _is_place(updated_at: object, conversation_id: object) -> bool:
    return (
        type(updated_at) is int
        and abs(updated_at) < 2**53
        and type(conversation_id) is str
        and len(conversation_id.encode()) <= MAX_ID_BYTES
    )
