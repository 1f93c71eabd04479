"""Messages as text, packed into an attribute so that they take few units."""

import zlib
from collections.abc import Sequence
from math import ceil
from typing import Any

from chatledger.errors import StoreMismatch

UNIT = 1024
"""Bytes of an item that one write unit pays for (AWS: read/write capacity mode)."""
OPENED_BYTES = 256 * 1024 * 1024
"""More than any body opens to; what claims more is damaged."""


def packed(text: str, *, beside: int) -> dict[str, Any]:
    """The text as an attribute, compressed where that saves a whole unit of an item that has
    ``beside`` bytes already.
    """
    plain = text.encode()
    short = zlib.compress(plain)
    if ceil((beside + len(short)) / UNIT) < ceil((beside + len(plain)) / UNIT):
        return {"B": short}
    return {"S": text}


def unpacked(attribute: dict[str, Any]) -> str:
    if "S" in attribute:
        text: str = attribute["S"]
        return text
    return opened(attribute["B"])


def opened(data: bytes) -> str:
    """The text that ``data`` was compressed from. Bounded: 48 KB can open to 50 MB."""
    inflator = zlib.decompressobj()
    try:
        plain = inflator.decompress(bytes(data), OPENED_BYTES)
    except zlib.error as failed:
        raise StoreMismatch("An item of the table is damaged: its body cannot be read.") from failed
    if not inflator.eof:
        raise StoreMismatch("An item of the table is damaged: its body does not end.")
    return plain.decode()


def listed(bodies: Sequence[str]) -> str:
    """Messages, each as JSON, as one JSON list."""
    return f"[{','.join(bodies)}]"
