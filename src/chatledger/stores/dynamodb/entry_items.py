"""The items of entries: named values in the partition of a conversation or of an owner.

An entry names the generation of its conversation. Those of earlier generations, which may not have
been freed yet, do not exist for readers. A deleted entry leaves a **tombstone** for a day: it keeps
the entry's revision, and keeps off writes that arrive late.
"""

from typing import NamedTuple

from chatledger.entries import MAX_ENTRY_NAME_BYTES, Entry
from chatledger.stores.dynamodb.calls import Attribute, Item
from chatledger.stores.dynamodb.records import (
    ENTRY_LAYOUT,
    FIRST_ENTRY,
    LAST_ENTRY,
    Record,
    check_layout,
    compress,
    decompress_attribute,
    number_in,
    size_of,
)
from chatledger.stores.dynamodb.table import TOMBSTONE_LIFETIME, Partition, ttl_at
from chatledger.values import Json, to_datetime

NAMES = (
    *("sk", "v", "k", "revision", "u", "life", "created_at", "copy"),
    *("x", "deleted", "y", "s", "expires_at"),
)
"""The attributes of an entry without its value."""


class EntryItem(NamedTuple):
    """An entry, or the tombstone of one.

    Times are in ms since 1970, but TTLs in s, as DynamoDB requires.
    """

    name: str
    token: str
    """The write token of the put or deletion, by which a writer recognises its own."""
    revision: int
    updated_at: int
    generation: int = 0
    """The generation of the conversation; 0 if the entry belongs to an owner."""
    created_at: int = 0
    """When that generation was created; positions may start at 1 again, and generations with
    them."""
    copy_mark: str = ""
    """If a fork copied the entry: its ``Record.copied_entries``."""
    expiry: int | None = None
    """When the entry expires by itself."""
    is_deleted: bool = False
    """True for a tombstone."""
    body: str | None = None
    """The value in a JSON list, if it is to be stored in the item."""
    stored_body: Attribute | None = None
    """The same as an item has it, if it was read: many values need not be in memory at once, each
    of which may be 1,000 times as long when it is decompressed."""
    body_token: str = ""
    """The token of the body parts that hold the value, if it does not fit."""
    part_count: int = 0
    ttl: int | None = None

    @property
    def sort(self) -> str:
        return entry_sort(self.name)

    @property
    def record(self) -> Record:
        """A record with the same body, of one message.

        Raises:
            StoreMismatch: The body is damaged.
        """
        body = self.body
        if self.stored_body is not None:
            body = decompress_attribute(self.stored_body)
        return Record(
            position=0,
            token=self.token,
            generation=0,
            owner=None,
            created_at=0,
            updated_at=0,
            messages=1,
            body=body,
            body_token=self.body_token,
            part_count=self.part_count,
        )

    def belongs_to(self, last: Record | None) -> bool:
        """Return whether the entry is of the generation of ``last``; None stands for an owner."""
        if last is None:
            return True
        return (self.generation, self.created_at) == (last.generation, last.created_at) and (
            self.copy_mark in ("", last.copied_entries)
        )

    def is_visible(self, last: Record | None, time: int) -> bool:
        """Return whether readers see the entry at ``time``, given the last record of the
        conversation, which is live, or None if it belongs to an owner."""
        is_live = not self.is_deleted and (self.expiry is None or self.expiry > time)
        return is_live and self.belongs_to(last)

    def tombstone(self, token: str, time: int) -> "EntryItem":
        """Return what is left of the entry after a deletion at ``time``."""
        return self._replace(
            token=token,
            revision=self.revision + 1,
            updated_at=time,
            expiry=None,
            is_deleted=True,
            body=None,
            stored_body=None,
            body_token="",
            part_count=0,
            ttl=ttl_at(time + TOMBSTONE_LIFETIME),
        )

    def as_entry(self, value: Json) -> Entry:
        """Return what the caller is given."""
        return Entry(
            name=self.name,
            value=value,
            revision=self.revision,
            updated_at=to_datetime(self.updated_at),
            expires_at=None if self.expiry is None else to_datetime(self.expiry),
        )


def entry_sort(name: str) -> str:
    return f"{FIRST_ENTRY}{name}"


def sort_range(prefix: str, after: str | None) -> tuple[str, str]:
    """Return the first and last sort key of names that begin with ``prefix``, after a name."""
    low = entry_sort(prefix)
    if after is not None:
        low = max(low, next_sort(entry_sort(after)))
    # Longer than any name: nothing that begins with the prefix comes after it.
    room = MAX_ENTRY_NAME_BYTES - len(prefix.encode())
    high = entry_sort(prefix + "\U0010ffff" * (room // 4 + 1)) if prefix else LAST_ENTRY
    return low, high


def next_sort(sort: str) -> str:
    """Return the sort key that directly follows ``sort``."""
    return f"{sort}\x00"


def ttl_of_own_life(expiry: int, updated_at: int) -> int:
    """Return the TTL (s) of an entry that expires by itself.

    Like a tombstone, it keeps off late writes for a day.
    """
    return ttl_at(max(expiry, updated_at) + TOMBSTONE_LIFETIME)


def encode_entry(place: Partition, entry: EntryItem) -> Item:
    """Return the entry as an item."""
    item = place.key(entry.sort)
    item |= {
        "v": {"N": str(ENTRY_LAYOUT)},
        "k": {"S": entry.token},
        "revision": {"N": str(entry.revision)},
        "u": {"N": str(entry.updated_at)},
    }
    numbers = {
        "life": entry.generation or None,
        "created_at": entry.created_at if entry.generation else None,
        "x": entry.expiry,
        "s": entry.part_count or None,
        "expires_at": entry.ttl,
    }
    item |= {name: {"N": str(value)} for name, value in numbers.items() if value is not None}
    if entry.copy_mark:
        item["copy"] = {"S": entry.copy_mark}
    if entry.body_token:
        item["y"] = {"S": entry.body_token}
    if entry.is_deleted:
        item["deleted"] = {"BOOL": True}
    if entry.body is not None:
        item["b"] = compress(entry.body, other_bytes=size_of(item))
    return item


def decode_entry(item: Item) -> EntryItem:
    """Return the entry in an item, whose value need not have been read.

    Raises:
        StoreMismatch: A later version wrote the item.
    """
    check_layout(item)
    return EntryItem(
        name=item["sk"]["S"].removeprefix(FIRST_ENTRY),
        token=item["k"]["S"],
        revision=number_in(item, "revision", 0),
        updated_at=number_in(item, "u", 0),
        generation=number_in(item, "life", 0),
        created_at=number_in(item, "created_at", 0),
        copy_mark=item["copy"]["S"] if "copy" in item else "",
        expiry=number_in(item, "x", None),
        is_deleted="deleted" in item,
        stored_body=item.get("b"),
        body_token=item["y"]["S"] if "y" in item else "",
        part_count=number_in(item, "s", 0),
        ttl=number_in(item, "expires_at", None),
    )


def seen_condition(seen: EntryItem | None) -> tuple[str, dict[str, Attribute]]:
    """Return the condition that the item is exactly as it was seen, and its values.

    A tombstone may have the token of the entry that it replaced, but not its revision.
    """
    if seen is None:
        return "attribute_not_exists(#pk)", {}
    values: dict[str, Attribute] = {"k": {"S": seen.token}, "seen": {"N": str(seen.revision)}}
    return "#k = :k AND #revision = :seen", values
