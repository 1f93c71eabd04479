"""The event-stream encoding of AWS: prelude, headers, payload, and a CRC32 of each part.

https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import json
from binascii import crc32
from collections.abc import Mapping
from struct import pack
from typing import Any

STRING = 7
"""The type code of string header values, the only type the service uses."""


def encode_event(name: str, payload: Mapping[str, Any]) -> bytes:
    """Return the frame of a regular event."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, compact_json(payload))


def encode_exception(name: str, text: str) -> bytes:
    """Return the frame of an error that ends a stream after the HTTP status was already sent."""
    headers = {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode_message(headers, compact_json({"message": text}))


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one frame: prelude, prelude CRC, headers, payload, message CRC."""
    encoded_headers = b"".join(
        pack("!B", len(name)) + name.encode() + pack("!BH", STRING, len(value)) + value.encode()
        for name, value in headers.items()
    )
    total_length = 12 + len(encoded_headers) + len(payload) + 4
    prelude = pack("!II", total_length, len(encoded_headers))
    message = prelude + pack("!I", crc32(prelude)) + encoded_headers + payload
    return message + pack("!I", crc32(message))


def corrupt_checksum(frame: bytes, *, prelude: bool = False) -> bytes:
    """Return ``frame`` with one wrong CRC: the prelude's, or else the message's."""
    index = 11 if prelude else len(frame) - 1
    return frame[:index] + bytes([frame[index] ^ 0xFF]) + frame[index + 1 :]


def compact_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
