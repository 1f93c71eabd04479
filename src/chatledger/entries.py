"""Entries: small named JSON values beside the messages, of a conversation or of an owner."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from chatledger.values import Json

MAX_ENTRY_NAME_BYTES = 512
"""The longest name of an entry, in bytes of UTF-8."""
MAX_ENTRY_BYTES = 16 * 1024 * 1024
"""The largest value of an entry, in bytes of JSON; a message may be as large."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A named JSON value of a conversation or of an owner.

    Attributes:
        name: Its name, which no other entry of the conversation or owner has.
        value: Its value.
        revision: A number that every change of the entry moves up by one. No revision of a name
            comes back, not even after the entry or its conversation was deleted. Pass it to
            ``put_entry`` to change the entry only if nobody else has.
        updated_at: When the value was put, in UTC to the millisecond.
        expires_at: When the entry expires by itself, or None if it lives as long as its
            conversation or owner.
    """

    name: str
    value: Json
    revision: int
    updated_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Entries:
    """Consecutive entries in the order of their names; iterating over it yields them.

    Attributes:
        entries: The entries.
        cursor: The cursor that reads the next ones, or None if these are the last.
    """

    entries: list[Entry]
    cursor: str | None

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)
