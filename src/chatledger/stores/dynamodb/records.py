"""The items of the table, and the values they hold.

A conversation is a log of records on a number line of positions:

    position   1     2     3     4     5     6     7     8
               create      append of 3       truncate    append
             +-----+-----+-----------------+-----+-----+-----+
             | m#1 | m#2 | m#3, width 3    | m#6 | m#7 | m#8 |  ~head
             +-----+-----+-----------------+-----+-----+-----+
    messages       seq 2   seq 3, 4, 5             seq 7 seq 8

Each record takes ``width`` positions. Its messages, if it has any, have these positions as their
seqs. It names the message before it (``previous_seq``) and holds the state of the conversation
after it, so the last record alone holds the current state. A truncation is a record without
messages whose ``previous_seq`` skips the messages that it removed. ``docs/dynamodb.md`` has the
table of attributes, ``docs/architecture.md`` a larger picture.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

from chatledger.conversations import DEFAULT_DESCRIPTION, Description, given_fields_of
from chatledger.errors import StoreMismatch
from chatledger.stores.dynamodb.calls import Attribute, Item
from chatledger.stores.idempotency import Creation
from chatledger.values import dumps

LAYOUT = 2
"""The layout of the items that this version writes; it reads all layouts up to this one."""
ENTRY_LAYOUT = 3
"""The layout of entries, and of the records of a fork with entries. Earlier versions refuse to
sweep a table that has any: they would take the body parts of entries for garbage. They refuse such
a fork too: the records that they append would not name the copies. All else they can read and
write."""
DIGITS = 16
UNIT = 1024
"""The bytes of an item that one write unit covers (AWS: read/write capacity mode)."""
MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024
"""The limit on decompressed data: no valid body is larger, so larger data is damaged."""

HEAD = "~head"  # sorts after every record, so that one query reads both
FIRST_RECORD, LAST_RECORD = "m#", "m$"
FIRST_ENTRY, LAST_ENTRY = "e#", "e$"


class Chunk(NamedTuple):
    """Layout 1: how many messages were compressed together, and how many parts they fill."""

    messages: int
    items: int


class ReplacedChunk(NamedTuple):
    """A chunk of a body, and the token under which its parts are stored.

    A record names only those chunks that replaced others and thus have tokens of their own.
    """

    first: int
    """The index in the body of its first message."""
    messages: int
    token: str


class Renewal(NamedTuple):
    """The progress of renewing a generation's TTLs (see ``ttl``)."""

    position: int
    """The position of the record to continue with."""
    part: str
    """The sort key of that record's last renewed body part, or an empty string."""
    item_index: int
    """A lower bound on the item numbers (``Record.items``) of all items still to be renewed."""
    until: int
    """The position at which the renewal ends."""
    base: int
    """The ``ttl_base`` (s) of the generation once the renewal is complete."""
    items: int
    """The generation's item count when the renewal began."""


class EntryTTLs(NamedTuple):
    """The known TTLs of a generation's entries, and the progress of renewing them."""

    base: int
    """Every entry that lives as long as the conversation has a TTL (s) of at least this."""
    after: str = ""
    """The sort key of the entry that the current renewal has renewed last; it begins empty."""
    next_base: int = 0
    """The ``base`` once the current renewal is complete; 0 if there is none."""


class Record(NamedTuple):
    """One write to a conversation, and the state of the conversation after it.

    Times are in ms since 1970, but TTLs in s, as DynamoDB requires.
    """

    position: int
    token: str
    """The write token, by which a writer recognises its own record."""
    generation: int
    """The position of the first record of this generation."""
    owner: str | None
    created_at: int
    updated_at: int
    width: int = 1
    """The number of positions that the record takes."""
    lifetime: int | None = None
    """The conversation's lifetime (ms); None if it does not expire."""
    expiry: int | None = None
    previous_seq: int = 0
    """The seq of the last message before this record; 0 if there is none."""
    messages: int = 0
    """The number of messages in the record, from seq ``position`` on."""
    message_count: int = 0
    """The number of messages of the conversation after this record."""
    truncated: tuple[tuple[int, int], ...] = ()
    """Ranges of seqs that were removed and whose storage may not have been freed yet."""
    rewritten_at: int = 0
    """The position of the write that last changed this record's messages; 0 if none did."""
    rewrites: int = 0
    """The position of the record whose message this write replaced; 0 if it replaced none."""
    removed: tuple[tuple[int, int], ...] = ()
    """Ranges of seqs of this record's messages that were removed one by one; null in the body."""
    removals: int = 0
    """The number of messages of the generation that were removed one by one before this record."""
    closed: bool = False
    """True if this record deleted the conversation."""
    initial_description: str | None = None
    """The ``StoredDescription`` as JSON, in a generation's first record; used if the head is
    missing."""
    body: str | None = None
    """The messages as a JSON list, if they fit into the record."""
    body_token: str = ""
    """The token of the body parts that hold the messages, if they do not fit."""
    part_count: int = 0
    """The number of body parts, as the body was first written."""
    replaced_chunks: tuple[ReplacedChunk, ...] = ()
    """The chunks that have since replaced others, by their first message."""
    chunks: tuple[Chunk, ...] = ()
    """Layout 1: the chunks of the body, in order."""
    ttl: int | None = None
    """The time from which DynamoDB may delete the item; None: never."""
    items: int = 0
    """An upper bound on the items of the generation up to and including this record; 0 if they have
    no TTLs."""
    ttl_base: int | None = None
    """Item ``i`` of the generation has a TTL of at least ``ttl_base`` + ``i`` / 25 lifetimes."""
    min_ttl: int | None = None
    """Layout 1: every item of the generation has a TTL of at least this."""
    renewal: Renewal | None = None
    entry_ttls: EntryTTLs | None = None
    """The TTLs of the generation's entries; None: at least ``ttl_base``, or ``min_ttl``."""
    copied_entries: str = ""
    """In a fork: the mark of the entries that it copied. A fork that was to begin the conversation
    at the same time, and lost the race, may have left others, with another mark."""

    @property
    def revision(self) -> int:
        return self.position + self.width - 1

    @property
    def last_seq(self) -> int:
        """The seq of the conversation's last message after this record."""
        return self.position + self.messages - 1 if self.messages else self.previous_seq

    @property
    def body_tokens(self) -> list[str]:
        """The tokens of all body parts."""
        if not self.body_token:
            return []
        return [self.body_token, *(chunk.token for chunk in self.replaced_chunks)]

    def is_live(self, time: int) -> bool:
        """Return whether the conversation is live at ``time`` (ms), if this is its last record."""
        return not self.closed and (self.expiry is None or self.expiry > time)

    def without(self, seq: int) -> "Record":
        """Return the record with one more seq in ``removed``."""
        ranges: list[tuple[int, int]] = []
        for first, last in sorted((*self.removed, (seq, seq))):
            if ranges and ranges[-1][1] + 1 == first:
                first = ranges.pop()[0]
            ranges.append((first, last))
        return self._replace(removed=tuple(ranges))

    def below_truncated(self, seq: int) -> int:
        """Return the highest seq up to ``seq`` that lies in no truncated range."""
        for first, last in reversed(self.truncated):
            if first <= seq <= last:
                seq = first - 1
        return seq


class Tombstone(NamedTuple):
    """What is left of a removed record: its position, which stays taken for a day."""

    position: int
    width: int
    token: str
    ttl: int | None = None

    @property
    def revision(self) -> int:
        return self.position + self.width - 1


class StoredDescription(NamedTuple):
    """A conversation's description, and how it came about."""

    description: Description
    metadata_revision: int | None = None
    """The metadata revision; None if the description has never changed."""
    creation: Creation | None = None
    """The call that created the conversation, if it had an idempotency key."""


class Head(NamedTuple):
    """The summary of a conversation that lists read; if they differ, its log is right."""

    generation: int
    owner: str | None
    description: Description
    created_at: int
    updated_at: int
    message_count: int
    revision: int
    expiry: int | None
    deleted: bool = False
    edit: str | None = None
    """The token of the update that last changed the description."""
    metadata_revision: int | None = None
    """The metadata revision that this update set; None if there was none."""
    created_by: str | None = None
    """The fingerprints of the call that created the conversation with an idempotency key."""

    def is_live(self, time: int) -> bool:
        """Return whether the conversation is live at ``time`` (ms), as far as the head knows."""
        return not self.deleted and (self.expiry is None or self.expiry > time)

    def is_of(self, record: Record) -> bool:
        """Return whether the head belongs to the generation of ``record``.

        ``created_at`` is compared too: if TTL deletes all records before the head, positions start
        at 1 again.
        """
        return (self.generation, self.created_at) == (record.generation, record.created_at)


# Keys ---------------------------------------------------------------------------------------------


def partition(conversation_id: str) -> str:
    return f"c#{conversation_id}"


def conversation_of(pk: str) -> str:
    return pk.removeprefix("c#")


def owner_partition(owner: str) -> str:
    return f"o#{owner}"


def owner_of(pk: str) -> str | None:
    """Return the owner whose entries have this partition key; None if it is a conversation's."""
    return pk[2:] if pk.startswith("o#") else None


def record_sort(position: int) -> str:
    return f"m#{position:0{DIGITS}d}"


def part_prefix(token: str) -> str:
    return f"b#{token}#"


def part_sort(token: str, first: int, n: int) -> str:
    """Return the sort key of part ``n`` of the chunk that begins with message ``first``."""
    return f"b#{token}#{first:08d}#{n:03d}"


def old_part_sort(token: str, n: int) -> str:
    """Layout 1: return the sort key of part ``n`` of a body."""
    return f"b#{token}#{n:06d}"


def key_sort(idempotency_key: str) -> str:
    return f"k#{idempotency_key}"


def key(conversation_id: str, sort: str) -> Item:
    return {"pk": {"S": partition(conversation_id)}, "sk": {"S": sort}}


# Records ------------------------------------------------------------------------------------------

# Attribute names are short, so that the 1,024 bytes of a write unit are left for text.
_NUMBERS = (
    ("width", "w", 1),
    ("generation", "l", None),
    ("created_at", "c", None),
    ("updated_at", "u", None),
    ("lifetime", "t", None),
    ("expiry", "x", None),
    ("previous_seq", "a", 0),
    ("messages", "n", 0),
    ("message_count", "q", 0),
    ("rewritten_at", "r", 0),
    ("rewrites", "h", 0),
    ("part_count", "s", 0),
    ("items", "m", 0),
    ("ttl_base", "g", None),
    ("min_ttl", "f", None),
    ("removals", "rc", 0),
)
"""The numbers of a record: field, attribute, and the default, which is not stored."""


def encode_record(conversation_id: str, record: Record) -> Item:
    """Return the record as an item."""
    item = key(conversation_id, record_sort(record.position))
    item["v"] = {"N": str(ENTRY_LAYOUT if record.copied_entries else LAYOUT)}
    item["k"] = {"S": record.token}
    for field, name, default in _NUMBERS:
        value = getattr(record, field)
        if value is not None and value != default:
            item[name] = {"N": str(value)}
    if record.owner is not None:
        item["o"] = {"S": record.owner}
    if record.truncated:
        item["d"] = {"S": dumps(record.truncated)}
    if record.removed:
        item["rm"] = {"S": dumps(record.removed)}
    if record.closed:
        item["z"] = {"BOOL": True}
    if record.initial_description is not None:
        item["i"] = {"S": record.initial_description}
    if record.body_token:
        item["y"] = {"S": record.body_token}
    if record.replaced_chunks:
        item["j"] = {"S": dumps(record.replaced_chunks)}
    if record.chunks:
        item["p"] = {"S": dumps([[chunk.messages, chunk.items] for chunk in record.chunks])}
    if record.renewal is not None:
        item["e"] = {"S": dumps(record.renewal)}
    if record.entry_ttls is not None:
        item["et"] = {"S": dumps(record.entry_ttls)}
    if record.copied_entries:
        item["ce"] = {"S": record.copied_entries}
    if record.body is not None:
        item["b"] = compress(record.body, other_bytes=size_of(item))
    if record.ttl is not None:
        item["expires_at"] = {"N": str(record.ttl)}
    return item


def encode_tombstone(conversation_id: str, record: Record | Tombstone, ttl: int) -> Item:
    """Return the tombstone of ``record`` as an item."""
    item = key(conversation_id, record_sort(record.position))
    item["v"] = {"N": str(LAYOUT)}
    item["k"] = {"S": record.token}
    if record.width != 1:
        item["w"] = {"N": str(record.width)}
    item["expires_at"] = {"N": str(ttl)}
    return item


def decode_record(item: Item) -> Record | Tombstone:
    """Return the record or tombstone in an item.

    Raises:
        StoreMismatch: A later version wrote the item, or its body is damaged.
    """
    numbers = {name: int(value["N"]) for name, value in item.items() if "N" in value}
    if numbers["v"] > LAYOUT:
        check_layout(item)
    position = int(item["sk"]["S"][len(FIRST_RECORD) :])
    token = item["k"]["S"]
    number = numbers.get
    if "l" not in item:
        return Tombstone(position, number("w", 1), token, number("expires_at"))
    lifetime, expiry, updated_at = number("t"), number("x"), numbers["u"]
    if lifetime is None and expiry is not None:
        lifetime = expiry - updated_at  # layout 1 left out a lifetime that was the store's default
    return Record(
        position=position,
        token=token,
        generation=numbers["l"],
        owner=item["o"]["S"] if "o" in item else None,
        created_at=numbers["c"],
        updated_at=updated_at,
        width=number("w", 1),
        lifetime=lifetime,
        expiry=expiry,
        previous_seq=number("a", 0),
        messages=number("n", 0),
        message_count=number("q", 0),
        truncated=_ranges(item["d"]["S"]) if "d" in item else (),
        rewritten_at=number("r", 0),
        rewrites=number("h", 0),
        removed=_ranges(item["rm"]["S"]) if "rm" in item else (),
        removals=number("rc", 0),
        closed="z" in item,
        initial_description=item["i"]["S"] if "i" in item else None,
        body=decompress_attribute(item["b"]) if "b" in item else None,
        body_token=item["y"]["S"] if "y" in item else "",
        part_count=number("s", 0),
        replaced_chunks=_replaced(item["j"]["S"]) if "j" in item else (),
        chunks=_chunks(item["p"]["S"]) if "p" in item else (),
        ttl=number("expires_at"),
        items=number("m", 0),
        ttl_base=number("g"),
        min_ttl=number("f"),
        renewal=Renewal(*json.loads(item["e"]["S"])) if "e" in item else None,
        entry_ttls=EntryTTLs(*json.loads(item["et"]["S"])) if "et" in item else None,
        copied_entries=item["ce"]["S"] if "ce" in item else "",
    )


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    return tuple((first, last) for first, last in json.loads(text))


def _replaced(text: str) -> tuple[ReplacedChunk, ...]:
    return tuple(ReplacedChunk(*chunk) for chunk in json.loads(text))


def _chunks(text: str) -> tuple[Chunk, ...]:
    return tuple(Chunk(messages=m, items=n) for m, n in json.loads(text))


def check_layout(item: Item) -> None:
    """Raise ``StoreMismatch`` if a later version wrote the item."""
    may_be_of_entries = item["sk"]["S"].startswith((FIRST_ENTRY, FIRST_RECORD))
    known = ENTRY_LAYOUT if may_be_of_entries else LAYOUT
    if (version := int(item["v"]["N"])) > known:
        raise StoreMismatch(
            f"The table holds items of layout {version}, written by a later version of Chatledger; "
            f"this one knows layouts up to {known}. Upgrade Chatledger."
        )


def number_in(item: Item, name: str, default: Any) -> Any:
    """Return the number in an attribute, or ``default`` if the item has none."""
    return int(item[name]["N"]) if name in item else default


def size_of(item: Item) -> int:
    """Return the item's size as DynamoDB counts it, to within a byte per attribute (AWS: item
    sizes)."""
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
    """Return the head in an item.

    Raises:
        StoreMismatch: A later version wrote the item.
    """
    check_layout(item)
    return Head(
        generation=number_in(item, "life", 0),
        owner=item["owner"]["S"] if "owner" in item else None,
        description=Description(
            **{
                name: codec.decode(item[name][codec.kind])
                for name, codec in _DESCRIPTION_CODECS.items()
                if name in item
            }
        ),
        created_at=number_in(item, "created_at", 0),
        updated_at=number_in(item, "updated_at", 0),
        message_count=number_in(item, "message_count", 0),
        revision=number_in(item, "revision", 0),
        expiry=number_in(item, "expiry", None),
        deleted="deleted" in item,
        edit=item["edit"]["S"] if "edit" in item else None,
        metadata_revision=number_in(item, "metadata_revision", None),
        created_by=item["created_by"]["S"] if "created_by" in item else None,
    )


# Descriptions -------------------------------------------------------------------------------------


class _Codec(NamedTuple):
    """How a field of the description is stored in the attribute of the head with its name."""

    kind: str
    """The type of the attribute."""
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_DESCRIPTION_CODECS = {"title": _Codec("S", str, str), "metadata": _Codec("S", dumps, json.loads)}
DESCRIPTION_ATTRIBUTES = tuple(_DESCRIPTION_CODECS)
"""The attributes of a head that hold the description."""


def description_attributes(values: Mapping[str, Any]) -> dict[str, Attribute | None]:
    """Return the head attributes of new values of fields; None removes an attribute."""
    attributes: dict[str, Attribute | None] = {}
    for name, value in values.items():
        kind, encode, _ = _DESCRIPTION_CODECS[name]
        is_default = value == getattr(DEFAULT_DESCRIPTION, name)
        attributes[name] = None if is_default else {kind: encode(value)}
    return attributes


def encode_description(stored: StoredDescription) -> str | None:
    """Return the description as ``Record.initial_description``; None if there is nothing to keep.

    That is a JSON list of the title, the metadata, the creation or null, and an object of the other
    fields; the last two are left out if empty. The metadata revision is always left out, because
    the conversation is new.
    """
    others = given_fields_of(stored.description)
    parts = [others.pop("title", None), others.pop("metadata", {}), stored.creation, others]
    if not any(parts):
        return None
    while len(parts) > 2 and not parts[-1]:
        parts.pop()
    return dumps(parts)


def decode_description(first: Record) -> StoredDescription:
    """Return the description with which a generation began, from its first record."""
    if first.initial_description is None:
        return StoredDescription(Description())
    parts = json.loads(first.initial_description)
    parts += [None, {}][len(parts) - 2 :]  # those that were left out
    title, metadata, creation, others = parts
    return StoredDescription(
        Description(title=title, metadata=metadata, **others),
        creation=Creation(*creation) if creation else None,
    )


# Compression, so that bodies take few capacity units


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
