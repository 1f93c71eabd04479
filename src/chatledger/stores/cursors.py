"""Cursors of lists: the place after the last conversation returned, even if that one has moved."""

import base64
import binascii
import json

from chatledger.conversations import MAX_ID_BYTES
from chatledger.errors import InvalidArgument
from chatledger.values import dumps


def encode_cursor(updated_at: int, conversation_id: str) -> str:
    """Return the cursor for the place after this conversation: opaque text that is safe in URLs.

    Args:
        updated_at: The conversation's ``updated_at``, in milliseconds since 1970.
        conversation_id: Its id.
    """
    place = dumps([updated_at, conversation_id]).encode()
    return base64.urlsafe_b64encode(place).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> tuple[int, str]:
    """Return the ``updated_at`` and the id from which ``encode_cursor`` made the cursor.

    Raises:
        InvalidArgument: ``encode_cursor`` did not make this cursor.
    """
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        updated_at, conversation_id = place
        is_valid = (
            type(updated_at) is int
            and abs(updated_at) < 2**53
            and type(conversation_id) is str
            and len(conversation_id.encode()) <= MAX_ID_BYTES
        )
    except (AttributeError, TypeError, ValueError, RecursionError, binascii.Error):
        is_valid = False
    if not is_valid:
        raise InvalidArgument("cursor does not come from a list; list again without a cursor.")
    return updated_at, conversation_id
