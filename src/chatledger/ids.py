"""Identifiers that sort by time and are unique even across copies of a process's memory."""

import os
import time
from uuid import NAMESPACE_URL, uuid5


def new_id(at: int | None = None) -> str:
    """Return a new UUIDv7 (RFC 9562): unique, and sorting after the ids made before it.

    Its random bits come from the operating system with every call. State kept in the process would
    be copied with it: by ``fork()``, and by restored images such as AWS Lambda SnapStart, whose
    copies would then make the same ids.

    Args:
        at: The time that the id carries, in milliseconds since 1970; by default now. The default
            also fills the 12 bits after the milliseconds with the fraction of the millisecond
            (RFC 9562, section 6.2, method 3), so that ids of one process sort in order.
    """
    random = int.from_bytes(os.urandom(10), "big")
    if at is None:
        milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
        fraction = nanoseconds * 4096 // 1_000_000
    else:
        milliseconds, fraction = at, random >> 64 & 0xFFF
    value = milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def time_of_id(id: str) -> int:
    """Return when a UUIDv7 was made, in milliseconds since 1970."""
    return int(id.replace("-", "")[:12], 16)


def uuid_from_key(*parts: str) -> str:
    """Return a UUID derived from an idempotency key; the same parts always give the same one."""
    return str(uuid5(NAMESPACE_URL, ":".join(("chatledger", *parts))))
