"""Event-stream messages, as AWS frames them: prelude, headers, payload, and a CRC32 on both.

https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import json
from binascii import crc32
from collections.abc import Mapping
from struct import pack
from typing import Any

STRING = 7
"""The type of header value that the service uses."""


def event(name: str, payload: Mapping[str, Any]) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, encoded(payload))


def exception(name: str, text: str) -> bytes:
    """What ends a stream that has begun; a status code came long before."""
    headers = {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return message(headers, encoded({"message": text}))


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    head = b"".join(
        pack("!B", len(name)) + name.encode() + pack("!BH", STRING, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = pack("!II", 12 + len(head) + len(payload) + 4, len(head))
    body = prelude + pack("!I", crc32(prelude)) + head + payload
    return body + pack("!I", crc32(body))


def corrupted(frame: bytes, *, prelude: bool = False) -> bytes:
    """``frame`` with one CRC that does not fit: the prelude's, or else the message's."""
    wrong = 11 if prelude else len(frame) - 1
    return frame[:wrong] + bytes([frame[wrong] ^ 0xFF]) + frame[wrong + 1 :]


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
