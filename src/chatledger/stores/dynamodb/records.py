"""The items of the table and the values that they hold.

A conversation is a log of *records*. A record takes one or more positions of the conversation's
number line, and its messages, where it has any, have these positions for their seqs. It says what
it follows, and how the conversation stands with it; so the last record says how it stands.
"""

import json
from typing import Any, NamedTuple

from chatledger.errors import StoreMismatch
from chatledger.json_values import Json, dumps
from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.compression import packed, unpacked

LAYOUT = 1
DIGITS = 16

HEAD = "~head"  # sorts behind every record, so that one query finds both
FIRST_RECORD, LAST_RECORD = "m#", "m$"


class Chunk(NamedTuple):
    """Messages that are compressed together: how many they are, and in how many items."""

    messages: int
    items: int


class Record(NamedTuple):
    """What one write did to a conversation, and how the conversation stands with it.

    Times are ms since 1970; ``floor`` is in seconds, as DynamoDB's TTL is.
    """

    position: int
    token: str
    life: int
    """Where this life of the conversation began: the position of its first record."""
    owner: str | None
    created_at: int
    updated_at: int
    width: int = 1
    """How many positions it takes."""
    lifetime: int | None = None
    expiry: int | None = None
    floor: int | None = None
    """No item of this life is eaten by TTL before; None: none of them has a stamp."""
    after: int = 0
    """The last seq that lived before this record, whose messages go on from there."""
    messages: int = 0
    """How many messages it holds, from seq ``position`` on."""
    message_count: int = 0
    dead: tuple[tuple[int, int], ...] = ()
    """Stretches of seqs that were cut off and may not be fenced yet."""
    rewritten: int = 0
    """The position at which this record's messages were last changed; 0: never."""
    closed: bool = False
    """The conversation was deleted here."""
    opening: str | None = None
    """In a life's first record: title and metadata as JSON, for a head that is missing."""
    body: str | None = None
    """The messages as a JSON list, where they fit."""
    parts: str = ""
    """Where they do not: the token that their parts bear."""
    chunks: tuple[Chunk, ...] = ()
    """What the parts hold."""
    stamp: int | None = None
    """When TTL may eat its item (s); never before the record that it follows, else that would be
    the last one again."""

    @property
    def revision(self) -> int:
        return self.position + self.width - 1

    @property
    def last_seq(self) -> int:
        """The last seq that lives with this record."""
        return self.position + self.messages - 1 if self.messages else self.after

    def lives(self, time: int) -> bool:
        """Whether the conversation, of which this is the last record, exists for readers."""
        return not self.closed and (self.expiry is None or self.expiry > time)

    def below_dead(self, seq: int) -> int:
        """The highest seq up to ``seq`` that was not cut off without being fenced yet."""
        for first, last in reversed(self.dead):
            if first <= seq <= last:
                seq = first - 1
        return seq


class Fence(NamedTuple):
    """What is left of a dead record: its place stays taken for a day."""

    position: int
    width: int
    token: str
    stamp: int | None = None

    @property
    def revision(self) -> int:
        return self.position + self.width - 1


class Head(NamedTuple):
    """The summary that lists show; the log is the truth."""

    life: int
    owner: str | None
    title: str | None
    metadata: dict[str, Json]
    created_at: int
    updated_at: int
    message_count: int
    revision: int
    expiry: int | None
    deleted: bool = False
    edit: str | None = None
    """The token of the update that last set title or metadata."""

    def is_of(self, record: Record) -> bool:
        """Whether it is the head of that life of the conversation.

        By its creation too: where TTL ate all records before the head, positions begin at 1 again.
        """
        return (self.life, self.created_at) == (record.life, record.created_at)


# Keys ---------------------------------------------------------------------------------------------


def partition(conversation_id: str) -> str:
    return f"c#{conversation_id}"


def conversation_of(pk: str) -> str:
    return pk.removeprefix("c#")


def record_sort(position: int) -> str:
    return f"m#{position:0{DIGITS}d}"


def part_sort(token: str, n: int) -> str:
    return f"b#{token}#{n:06d}"


def key_sort(idempotency_key: str) -> str:
    return f"k#{idempotency_key}"


def key(conversation_id: str, sort: str) -> Item:
    return {"pk": {"S": partition(conversation_id)}, "sk": {"S": sort}}


# Records ------------------------------------------------------------------------------------------

_NUMBERS = (
    ("width", "w", 1),
    ("life", "l", None),
    ("created_at", "c", None),
    ("updated_at", "u", None),
    ("lifetime", "t", None),
    ("expiry", "x", None),
    ("floor", "f", None),
    ("after", "a", 0),
    ("messages", "n", 0),
    ("message_count", "q", 0),
    ("rewritten", "r", 0),
)
"""Of a record that are numbers: the name in the item, and what is left out there."""


def encode_record(conversation_id: str, record: Record) -> Item:
    """The record's item."""
    item = key(conversation_id, record_sort(record.position))
    item["v"] = {"N": str(LAYOUT)}
    item["k"] = {"S": record.token}
    for field, name, default in _NUMBERS:
        value = getattr(record, field)
        if value is not None and value != default:
            item[name] = {"N": str(value)}
    if record.owner is not None:
        item["o"] = {"S": record.owner}
    if record.dead:
        item["d"] = {"S": dumps(record.dead)}
    if record.closed:
        item["z"] = {"BOOL": True}
    if record.opening is not None:
        item["i"] = {"S": record.opening}
    if record.chunks:
        item["y"] = {"S": record.parts}
        item["p"] = {"S": dumps([[chunk.messages, chunk.items] for chunk in record.chunks])}
    if record.body is not None:
        item["b"] = packed(record.body, beside=size_of(item))
    if record.stamp is not None:
        item["expires_at"] = {"N": str(record.stamp)}
    return item


def encode_fence(conversation_id: str, fence: Record | Fence, stamp: int) -> Item:
    item = key(conversation_id, record_sort(fence.position))
    item["v"] = {"N": str(LAYOUT)}
    item["k"] = {"S": fence.token}
    if fence.width != 1:
        item["w"] = {"N": str(fence.width)}
    item["expires_at"] = {"N": str(stamp)}
    return item


def decode_record(item: Item) -> Record | Fence:
    numbers = {name: int(value["N"]) for name, value in item.items() if "N" in value}
    if numbers["v"] > LAYOUT:
        check_layout(item)
    position = int(item["sk"]["S"][len(FIRST_RECORD) :])
    token = item["k"]["S"]
    number = numbers.get
    if "l" not in item:
        return Fence(position, number("w", 1), token, number("expires_at"))
    return Record(
        position=position,
        token=token,
        life=numbers["l"],
        owner=item["o"]["S"] if "o" in item else None,
        created_at=numbers["c"],
        updated_at=numbers["u"],
        width=number("w", 1),
        lifetime=number("t"),
        expiry=number("x"),
        floor=number("f"),
        after=number("a", 0),
        messages=number("n", 0),
        message_count=number("q", 0),
        dead=tuple((first, last) for first, last in json.loads(item["d"]["S"]))
        if "d" in item
        else (),
        rewritten=number("r", 0),
        closed="z" in item,
        opening=item["i"]["S"] if "i" in item else None,
        body=unpacked(item["b"]) if "b" in item else None,
        parts=item["y"]["S"] if "y" in item else "",
        chunks=tuple(Chunk(messages=m, items=n) for m, n in json.loads(item["p"]["S"]))
        if "p" in item
        else (),
        stamp=number("expires_at"),
    )


def check_layout(item: Item) -> None:
    """Raise ``StoreMismatch`` where a later version wrote the item."""
    if (version := int(item["v"]["N"])) > LAYOUT:
        raise StoreMismatch(
            f"The table holds items of layout {version}, written by a later version of Chatledger; "
            f"this one knows layouts up to {LAYOUT}. Upgrade Chatledger."
        )


def _number(item: Item, name: str, default: Any) -> Any:
    return int(item[name]["N"]) if name in item else default


def size_of(item: Item) -> int:
    """The item's size as DynamoDB counts it, within a byte an attribute (AWS: item sizes)."""
    size = 0
    for name, attribute in item.items():
        size += len(name)
        for kind, value in attribute.items():
            if kind == "N":
                size += len(value) // 2 + 2
            elif kind == "S":
                size += len(value) if value.isascii() else len(value.encode())
            elif kind == "B":
                size += len(value)
            else:
                size += 1
    return size


# Heads --------------------------------------------------------------------------------------------


def decode_head(item: Item) -> Head:
    check_layout(item)
    return Head(
        life=_number(item, "life", 0),
        owner=item["owner"]["S"] if "owner" in item else None,
        title=item["title"]["S"] if "title" in item else None,
        metadata=json.loads(item["metadata"]["S"]) if "metadata" in item else {},
        created_at=_number(item, "created_at", 0),
        updated_at=_number(item, "updated_at", 0),
        message_count=_number(item, "message_count", 0),
        revision=_number(item, "revision", 0),
        expiry=_number(item, "expiry", None),
        deleted="deleted" in item,
        edit=item["edit"]["S"] if "edit" in item else None,
    )
