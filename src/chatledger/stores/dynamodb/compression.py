"""Compression of message bodies, so that they take few capacity units."""

import zlib
from collections.abc import Sequence
from math import ceil
from typing import Any

from chatledger.errors import StoreMismatch

UNIT = 1024
"""The bytes of an item that one write unit covers (AWS: read/write capacity mode)."""
MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024
"""The limit on decompressed data: no valid body is larger, so larger data is damaged."""


def compress(text: str, *, other_bytes: int) -> dict[str, Any]:
    """Return the text as an attribute, compressed if that saves a whole write unit.

    Args:
        text: The text.
        other_bytes: The size of the item's other attributes.
    """
    plain = text.encode()
    short = zlib.compress(plain)
    if ceil((other_bytes + len(short)) / UNIT) < ceil((other_bytes + len(plain)) / UNIT):
        return {"B": short}
    return {"S": text}


def decompress_attribute(attribute: dict[str, Any]) -> str:
    """Return the text that ``compress`` turned into ``attribute``."""
    if "S" in attribute:
        text: str = attribute["S"]
        return text
    return decompress(attribute["B"])


def decompress(data: bytes) -> str:
    """Return the text that was compressed to ``data``.

    The size of the result is limited, since 48 KB may decompress to 50 MB.

    Raises:
        StoreMismatch: The data is damaged.
    """
    decompressor = zlib.decompressobj()
    try:
        plain = decompressor.decompress(bytes(data), MAX_DECOMPRESSED_BYTES)
    except zlib.error as failed:
        raise StoreMismatch("An item of the table is damaged: its body cannot be read.") from failed
    if not decompressor.eof:
        raise StoreMismatch("An item of the table is damaged: its body is incomplete.")
    return plain.decode()


def json_list(bodies: Sequence[str]) -> str:
    """Return messages, each as JSON, as one JSON list."""
    return f"[{','.join(bodies)}]"
