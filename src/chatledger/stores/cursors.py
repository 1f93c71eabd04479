"""Where a list goes on: behind the last conversation shown, wherever that is by then."""

import base64
import binascii
import json

from chatledger.errors import InvalidArgument
from chatledger.json_values import dumps


def encode_cursor(updated_at: int, conversation_id: str) -> str:
    """An opaque text, safe in a URL, for the conversation of that id and time (ms since 1970)."""
    place = dumps([updated_at, conversation_id]).encode()
    return base64.urlsafe_b64encode(place).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> tuple[int, str]:
    """What ``encode_cursor`` was given. Raises ``InvalidArgument``."""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        updated_at, conversation_id = place
        known = type(updated_at) is int and abs(updated_at) < 2**53 and type(conversation_id) is str
        conversation_id.encode()
    except (AttributeError, TypeError, ValueError, RecursionError, binascii.Error):
        known = False
    if not known:
        raise InvalidArgument("cursor is not one that a list gave; start again without one.")
    return updated_at, conversation_id
