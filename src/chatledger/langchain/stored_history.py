"""Layout of a history in a LangChain table: a first item, and archives of its oldest messages.

The table's layout was chosen by ``langchain_community``'s class, the old class below.

The **first item** has the user's key and is an item of the old class: a list of messages under the
history's attribute name, and a TTL. Every append goes to it: one ``UpdateItem`` with
``list_append``. Chatledger adds attributes of its own to the item, which the old class keeps.

When the first item is full, one transaction moves its oldest messages to new items, the
**archives**, and counts these in ``chatledger_archives`` of the first item. An archive never
changes, except for its TTL. Its key contains a random id of the history, so that it cannot collide
with a user's key or be guessed, and its number. So whoever has read the first item knows all
archives, and the messages in them and in the first item are the history as it was at that moment,
whatever rivals do meanwhile.

**All other changes compare and swap.** Whoever moves, trims or clears messages reads the first item
and changes it on the condition that what it read is still there. A writer that loses the race reads
again. A transaction that is repeated, or arrives late, finds another first item and does nothing.

**Clearing** a history without archives deletes its item. Otherwise one update empties the first
item and declares the archives removed (``start`` becomes ``end``); from then on nobody reads them.
Then the archives and the first item are deleted. If that is interrupted, the next reader or writer
that meets the first item finishes it. Trimming does the same with only the oldest archives.

**Each append is stored exactly once.** It adds a token to a set in the first item, on the condition
that the set does not contain it yet. If a response is lost and the append is repeated, the item
that fails the condition shows the token. There are four sets, used in turn for ``TOKEN_PERIOD``
each: an append removes the set whose turn is two periods away. So a token is kept for at least one
period, less the difference between two writers' clocks. AWS refuses requests from clocks that are
more than five minutes wrong, and nobody repeats an append for more than ten minutes.

**TTL.** DynamoDB deletes items one by one, and an append writes only the first item. So the TTL of
an archive is set two lifetimes ahead, and ``chatledger_archives`` holds a lower bound of all their
TTLs. If an append would extend the history beyond that bound, it extends the archives' TTLs first,
at most once per lifetime. The first item has just the TTL that the old class would give it. The
next append to an expired history clears it.

**Together with the old class:** that class reads the first item, and so the newest messages. It
replaces the list with the one it read and its own messages: it loses what others appended between
its two requests. If messages moved to an archive at just that moment, it puts them back, so that
they are read twice. If it, or other software, *deletes* the first item, nothing refers to the
archives any more; without a TTL they remain in the table, unread.

**Earlier versions** continued a history in *segments*, listed in ``chatledger_segments``, after the
first item; the last segment took appends and had the history's expiry. Such a history is read as it
is. The first append turns the segments into archives, with the first item's messages moved to one
before them. If such a version continues a history that has archives, it can no longer be read or
appended to, only cleared: nothing says in which order its messages were written.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from chatledger.errors import StoreMismatch
from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import LONGEST_RETRY, Attribute, Call, CallFailed, Item

FIRST_ITEM_KEY: Final = "chatledger_of"
"""Key of the first item that an archive belongs to, as a map."""
ARCHIVES: Final = "chatledger_archives"
BYTES: Final = "chatledger_bytes"
"""Bytes of the messages that were appended to the first item since the last move."""
SEGMENTS: Final = "chatledger_segments"
"""Ids of the segments of an earlier version."""
CLEARED_SEGMENTS: Final = "chatledger_ended"
"""Ids of cleared segments of an earlier version that are not deleted yet."""
SEGMENT_EXPIRES_AT: Final = "chatledger_expires"
SEGMENT_MIN_TTL: Final = "chatledger_floor"
TOKEN_SETS: Final = tuple(f"chatledger_tokens_{n}" for n in range(4))
RESERVED_ATTRIBUTES: Final = frozenset(
    {FIRST_ITEM_KEY, ARCHIVES, BYTES, SEGMENTS, CLEARED_SEGMENTS, SEGMENT_EXPIRES_AT}
    | {SEGMENT_MIN_TTL, "chatledger_closed", *TOKEN_SETS}
)

ITEM_BYTES: Final = 400 * 1024  # the largest item that DynamoDB stores
FIRST_ITEM_RESERVE: Final = 2 * 1024
"""Bytes that the first item keeps free for tokens and the archives' numbers."""
LARGEST_ARCHIVE: Final = ITEM_BYTES - 8 * 1024
TTL_MARGIN: Final = 3600
"""Seconds by which an archive's TTL exceeds the bound in the first item, because clocks differ."""
KEY_CHARACTERS: Final = 400
"""Characters of the user's key that an archive's key repeats. Each takes at most 4 bytes, and
DynamoDB allows 2,048 bytes for a partition key.
"""
TOKEN_PERIOD: Final = 900.0
REPEAT_SECONDS: Final = LONGEST_RETRY / 1000

JITTER = Random()  # noqa: S311  not used for anything secret


@dataclass(frozen=True, slots=True)
class WriteToken:
    """Identifies one append, so that a repetition can tell whether it was stored."""

    text: str
    token_set: str
    """The attribute with the set that the token is added to."""
    stale_set: str
    """The attribute whose tokens are old enough to be removed."""

    @classmethod
    def at(cls, now: float) -> "WriteToken":
        """Return a new token for an append at the time ``now``, in seconds since 1970."""
        period = int(now // TOKEN_PERIOD)
        return cls(secrets.token_urlsafe(6), TOKEN_SETS[period % 4], TOKEN_SETS[(period + 2) % 4])

    def is_in(self, item: Item | None) -> bool:
        """Return whether ``item`` contains the append of this token."""
        return self.text in (item or {}).get(self.token_set, {}).get("SS", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Archives:
    """The archives of a history, as its first item describes them."""

    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    """Random part of their keys."""
    deleted: int = 0
    """Those with lower numbers are deleted."""
    start: int = 0
    """Those with lower numbers are removed from the history."""
    end: int = 0
    """The number of the next archive."""
    min_ttl: int | None = None
    """Lower bound on their TTLs, less ``TTL_MARGIN``; None if one of them may have no TTL."""
    segments: tuple[str, ...] = ()
    """Ids of the first archives, which an earlier version wrote as segments."""

    @classmethod
    def in_item(cls, first: Item | None) -> "Archives | None":
        """Return the archives of the history with this first item, or None if it has none."""
        first = first or {}
        if ARCHIVES in first:
            fields = first[ARCHIVES]["M"]
            return cls(
                id=fields["id"]["S"],
                deleted=int(fields["deleted"]["N"]),
                start=int(fields["start"]["N"]),
                end=int(fields["end"]["N"]),
                min_ttl=number_in(fields, "min_ttl"),
                segments=texts_in(fields, "segments"),
            )
        cleared, segments = texts_in(first, CLEARED_SEGMENTS), texts_in(first, SEGMENTS)
        if not cleared and not segments:
            return None
        ids = cleared + segments
        return cls(id=ids[0], start=len(cleared), end=len(ids), segments=ids)

    @property
    def attribute(self) -> Attribute:
        """These archives as the value of ``ARCHIVES``."""
        numbers = {"deleted": self.deleted, "start": self.start, "end": self.end}
        fields: Item = {"id": {"S": self.id}}
        fields |= {name: number_attribute(number) for name, number in numbers.items()}
        if self.min_ttl is not None:
            fields["min_ttl"] = number_attribute(self.min_ttl)
        if self.segments:
            fields["segments"] = {"L": [{"S": id} for id in self.segments]}
        return {"M": fields}

    @property
    def names(self) -> list[str]:
        """Names of the archives that belong to the history, oldest first."""
        return self._names(self.start, self.end)

    @property
    def removed_names(self) -> list[str]:
        """Names of the archives that are removed from the history, and perhaps not deleted."""
        return self._names(self.deleted, self.start)

    def name(self, number: int) -> str:
        return self.segments[number] if number < len(self.segments) else f"{self.id}#{number}"

    def _names(self, start: int, end: int) -> list[str]:
        return [self.name(number) for number in range(start, end)]

    def removed_before(self, number: int) -> "Archives":
        """Return these archives with those before ``number`` removed from the history."""
        return replace(self, start=number)

    def extended(self, count: int, min_ttl: int | None) -> "Archives":
        """Return these archives and ``count`` new ones, which have at least that TTL."""
        bounds = (min_ttl, self.min_ttl) if self.names else (min_ttl,)
        return replace(self, end=self.end + count, min_ttl=min_of(bounds))

    def with_segment_at_start(self, id: str, min_ttl: int | None) -> "Archives":
        """Return these archives, which are segments, and another one before them."""
        segments = (*self.segments[: self.start], id, *self.segments[self.start :])
        return replace(self, segments=segments, end=self.end + 1, min_ttl=min_ttl)

    def outlive(self, time: int) -> bool:
        """Return whether TTL keeps all archives until ``time``, in seconds since 1970."""
        return not self.names or (self.min_ttl is not None and self.min_ttl >= time)

    def have_expired(self, now: int) -> bool:
        """Return whether TTL may have deleted archives.

        That happens only if the old class alone extended the history, for longer than a lifetime.
        """
        return bool(self.names) and self.min_ttl is not None and self.min_ttl <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One history in a DynamoDB table: its key, its settings, and the calls for its items.

    Args:
        table_name: The table.
        key: Key of the history's first item.
        messages_attribute: Attribute that holds the list of messages.
        ttl_attribute: The table's TTL attribute.
        lifetime: Seconds from each append until the history expires. None leaves a TTL that an
            item already has as it is.
        first_item_bytes: Bytes of messages that the first item may hold before the oldest move to
            an archive. None fills the item.
        consistent: Whether reads are strongly consistent.
    """

    table_name: str
    key: Item
    messages_attribute: str
    ttl_attribute: str
    lifetime: int | None = None
    first_item_bytes: int | None = None
    consistent: bool = True
    clock: Callable[[], float] = time.time
    random: Random = JITTER

    @property
    def capacity(self) -> int:
        """The bytes of messages that the first item may hold."""
        most = ITEM_BYTES - FIRST_ITEM_RESERVE - size_of({"M": self.key})
        return min(most, self.first_item_bytes or most)

    def now(self) -> int:
        return int(self.clock())

    def archive_key(self, name: str) -> Item:
        """Return the key of the archive with that name."""
        # The last text attribute. With a sort key this is usually the sort key, so that the
        # archives stay in the user's partition.
        attribute = [each for each, value in self.key.items() if "S" in value][-1]
        # A lone partition key shows whose archive it is. A sort key must not begin like the user's
        # own, because users list theirs by prefix.
        user = f"{self.key[attribute]['S'][:KEY_CHARACTERS]}#" if len(self.key) == 1 else ""
        return self.key | {attribute: {"S": f"{user}chatledger#{name}"}}

    def messages_in(self, item: Item | None) -> list[Attribute]:
        """Return the elements of the item's list of messages.

        Raises:
            StoreMismatch: The attribute is not a list.
        """
        attribute = (item or {}).get(self.messages_attribute, {"L": []})
        if "L" not in attribute:
            raise self.not_a_history_error()
        elements: list[Attribute] = attribute["L"]
        return elements

    def check_layout(self, first: Item | None) -> None:
        """Raise ``StoreMismatch`` if an earlier version has continued the history, too."""
        if first is not None and ARCHIVES in first and SEGMENTS in first:
            raise StoreMismatch(
                f"Item {self.key} in table {self.table_name!r}: an earlier version of Chatledger "
                "has continued this history beside this one, in a layout of its own; stop that "
                "version, and clear the history."
            )

    def not_a_history_error(self) -> StoreMismatch:
        return StoreMismatch(
            f"Attribute {self.messages_attribute!r} of item {self.key} in table "
            f"{self.table_name!r} is not a list of LangChain messages; other software seems to "
            "have written it, and it was left as it is. Name another attribute with "
            "history_messages_key, or use another table."
        )

    @property
    def archive_attributes(self) -> tuple[str, ...]:
        """The attributes of the first item that say which archives there are."""
        return (ARCHIVES, SEGMENTS, CLEARED_SEGMENTS)

    # Calls ---------------------------------------------------------------------------------------

    def get(self, name: str | None = None, *, consistent: bool = True) -> Call:
        """Return a call that reads the first item, or an archive."""
        key = self.key if name is None else self.archive_key(name)
        params = {"TableName": self.table_name, "Key": key, "ConsistentRead": consistent}
        return Call("GetItem", params)

    def delete(self, first: Item | None, unchanged: Sequence[str]) -> Call:
        """Return a call that deletes the first item, if the attributes are as in ``first``."""
        return Call("DeleteItem", self._compare(first, unchanged) | {"Key": self.key})

    def swap(
        self, first: Item | None, unchanged: Sequence[str], changes: Mapping[str, Attribute | None]
    ) -> Call:
        """Return a call that changes the first item, if it is still as it was read.

        Args:
            first: The first item as it was read, or None if there was none.
            unchanged: The attributes that must be as they were.
            changes: New values of attributes; None removes an attribute.
        """
        params = self._compare(first, unchanged)
        settings: list[str] = []
        removals: list[str] = []
        for n, (name, value) in enumerate(changes.items()):
            params["ExpressionAttributeNames"][f"#c{n}"] = name
            if value is None:
                removals.append(f"#c{n}")
            else:
                settings.append(f"#c{n} = :c{n}")
                params.setdefault("ExpressionAttributeValues", {})[f":c{n}"] = value
        expression = f"SET {', '.join(settings)}" if settings else ""
        if removals:
            expression += f" REMOVE {', '.join(removals)}"
        return Call(
            "UpdateItem", params | {"Key": self.key, "UpdateExpression": expression.strip()}
        )

    def _compare(self, first: Item | None, unchanged: Sequence[str]) -> dict[str, Any]:
        """Return the parameters of a write that requires the attributes to be as in ``first``.

        If the condition fails, the error contains the item.
        """
        found = {name: (first or {}).get(name) for name in unchanged}
        conditions = [
            f"attribute_not_exists(#u{n})" if value is None else f"#u{n} = :u{n}"
            for n, value in enumerate(found.values())
        ]
        params: dict[str, Any] = {
            "TableName": self.table_name,
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": {f"#u{n}": name for n, name in enumerate(found)},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        values = {f":u{n}": each for n, each in enumerate(found.values()) if each is not None}
        # DynamoDB rejects an empty map.
        return params | ({"ExpressionAttributeValues": values} if values else {})

    def put_archive(self, name: str, elements: Sequence[Attribute], ttl: int | None) -> Item:
        """Return the part of a transaction that puts a new archive."""
        item = self.archive_key(name) | {
            FIRST_ITEM_KEY: {"M": self.key},
            self.messages_attribute: {"L": [*elements]},
        }
        if ttl is not None:
            item[self.ttl_attribute] = number_attribute(ttl)
        return {
            "Put": {
                "TableName": self.table_name,
                "Item": item,
                "ConditionExpression": "attribute_not_exists(#o)",
                "ExpressionAttributeNames": {"#o": FIRST_ITEM_KEY},
            }
        }


def is_cleared(first: Item, messages_attribute: str) -> bool:
    """Return whether the history was cleared, so that its first item only remains to be deleted."""
    archives = Archives.in_item(first)
    is_empty = not first.get(messages_attribute, {}).get("L")
    return archives is not None and not archives.names and is_empty


def bytes_of(elements: Iterable[Attribute]) -> int:
    """Return the bytes that the elements take in a list."""
    return sum(1 + size_of(element) for element in elements)


def split(elements: Sequence[Attribute], capacity: int) -> list[list[Attribute]]:
    """Split the elements into lists of at most ``capacity`` bytes, or of one element."""
    parts: list[list[Attribute]] = []
    left = 0
    for element in elements:
        size = bytes_of([element])
        if not parts or size > left:
            parts.append([])
            left = capacity
        parts[-1].append(element)
        left -= size
    return parts


def min_of(bounds: Sequence[int | None]) -> int | None:
    """Return the least of the lower bounds; None if one of them is None, which is no bound."""
    known = [bound for bound in bounds if bound is not None]
    return min(known) if len(known) == len(bounds) else None


def number_attribute(value: int) -> Attribute:
    return {"N": str(value)}


def number_in(item: Item | None, name: str) -> int | None:
    """Return the whole number in an attribute, or None if it is missing or not a number.

    DynamoDB ignores a TTL that is not a number in the same way.
    """
    text = (item or {}).get(name, {}).get("N")
    return None if text is None else int(float(text))


def texts_in(item: Item, name: str) -> tuple[str, ...]:
    """Return the texts of the list ``name``; none if the item has no such list."""
    return tuple(each["S"] for each in item.get(name, {}).get("L", ()))


def is_item_full(failed: CallFailed) -> bool:
    """Return whether the call failed because the item would exceed DynamoDB's size limit."""
    text = failed.message.lower()
    return failed.code == "ValidationException" and "item size" in text and "exceeded" in text
