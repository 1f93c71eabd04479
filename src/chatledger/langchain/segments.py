"""How a history lies in a table whose layout others chose: in one item, and further ones behind it.

The **first item** bears the user's key and is the old class's own: a list of messages under the
history's name, and a TTL. What Chatledger adds are attributes beside these, which that class does
not look at. When it is full, the history goes on in **segments**: items of the same table under a
key with a random id in it, which no user's key can meet and nobody can know who has not read it.
``chatledger_segments`` of the first item lists their ids in order. So a reader needs the first item,
and then all of the rest at once.

**One place takes appends:** the last segment of the list, or the first item while there is no list.
An append is one ``UpdateItem`` with ``list_append``, whose condition says that this is the place:
the first item has no list; a segment is there and not closed. A writer remembers the place from its
last call. If it remembers wrongly the condition fails, and it reads where to go.

**Growing**, when an item is full (its counted bytes say so in the same condition; or DynamoDB does,
for items that others filled):

1. the last segment is *closed*, for good. So nothing can get in behind what comes next;
2. the new messages are put as a new segment, which nobody sees. Several, if they are many;
3. one update of the first item appends their ids to the list, if the last one is still the last.
   This is the moment of the append. Whoever comes second deletes what it put, and starts again.

For the first item 1 and 3 are one. If a writer dies after 1, the next one finds the closed segment
and goes on with 2. Ids are never used twice, so that a put that arrives late makes an item that no
list names and no writer appends to. If the first item has no room for the list, its last messages
move: they are put as a segment, and the update that lists it takes them out.

**Clearing** a history of one item is one ``DeleteItem``, if it has no list. Otherwise the last
segment is closed; then one update of the first item, if the list is the same, empties it and moves
the list to ``chatledger_ended``. That is the moment of the clearing: no segment takes appends any
more, and the first item does, for the history that begins. Then the segments and the emptied item
are deleted. If that is broken off, the next reader or writer that reads the first item does it.

**Each append is in once.** It bears a token, which it adds to a set in the item; its condition is
that the token is not there. If an answer is lost and the append is tried again, the item that stood
in the way shows the token. There are three sets, by the minute: an append adds to the one of its
minute and removes the one of the next, which holds the tokens of two minutes ago. A token stays for
a minute at least; an append is tried for less than half of one.

**TTL.** DynamoDB deletes item by item, and an append can touch but one. So ``chatledger_expires`` of
the last segment says when the history ends, and the items' TTLs are stamped two lifetimes and an
hour ahead. The last segment knows a *floor* below all of the others' stamps; when an append would
live longer than that, the others are stamped anew, once a lifetime at most. A history of one item
has the TTL that the old class gave it. An expired history is cleared by the next append, if it is
still expired.

**Beside the old class:** it reads and writes the first item. As long as there is no list, that is
all of the history. Its appends are not atomic and may lose ours. Once there is a list it sees the
first item's messages only, and what it appends is read before the segments' messages. If it, or
other software, *deletes* the first item of such a history, the segments are lost; a writer that
remembers one of them, for ``REMEMBERED`` seconds at most, may still append there.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item

OF = "chatledger_of"
"""Which first item a segment belongs to: a map of its key's attributes."""
SEGMENTS = "chatledger_segments"
ENDED = "chatledger_ended"
CLOSED = "chatledger_closed"
BYTES = "chatledger_bytes"
EXPIRES = "chatledger_expires"
FLOOR = "chatledger_floor"
TOKENS = ("chatledger_tokens_0", "chatledger_tokens_1", "chatledger_tokens_2")
OURS = frozenset({OF, SEGMENTS, ENDED, CLOSED, BYTES, EXPIRES, FLOOR, *TOKENS})

ITEM_BYTES = 400 * 1024  # the most that an item takes (AWS)
RESERVE = 2 * 1024
"""What the first item keeps free for the list and the tokens."""
SEGMENT_RESERVE = 8 * 1024
LARGEST_SEGMENT = ITEM_BYTES - SEGMENT_RESERVE
MARGIN = 3600
"""Seconds that a stamp lies behind what it must outlive: clocks differ."""
KEY_CHARACTERS = 400
"""How much of the user's key a segment's key repeats; at most 4 bytes each, of 2,048 (AWS)."""
EPOCH = 60.0
CONDITION_FAILED = "ConditionalCheckFailedException"

CHANCE = Random()  # noqa: S311  for jitter, no secret
_PLACEHOLDER = re.compile(r"[#:][a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Token:
    """Says of one append that it is in."""

    text: str
    names: dict[str, str]
    """The sets that it is added to, and that is removed along with it."""

    @classmethod
    def at(cls, now: float) -> "Token":
        minute = int(now // EPOCH)
        names = {"#p": TOKENS[minute % 3], "#q": TOKENS[(minute + 1) % 3]}
        return cls(secrets.token_urlsafe(9), names)

    def is_in(self, item: Item | None) -> bool:
        return self.text in (item or {}).get(self.names["#p"], {}).get("SS", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A history: where it lies, and how it is to be kept."""

    table: str
    key: Item
    history: str
    ttl_name: str
    lifetime: int | None = None
    """Seconds from each append on; None leaves a TTL that is there as it is."""
    segment_bytes: int | None = None
    consistent: bool = True
    clock: Callable[[], float] = time.time
    random: Random = CHANCE

    def key_of(self, id: str | None) -> Item:
        """That of a segment, or of the first item."""
        if id is None:
            return self.key
        # The last one that is text: in tables with a sort key usually that, so that the segments
        # stay in the user's partition.
        name = [name for name, value in self.key.items() if "S" in value][-1]
        # Alone, it is shown whose it is. Beside another it begins otherwise than the user's own,
        # for whom these are listed by their beginning.
        user = f"{self.key[name]['S'][:KEY_CHARACTERS]}#" if len(self.key) == 1 else ""
        return self.key | {name: {"S": f"{user}chatledger#{id}"}}

    def room(self, first: bool) -> int:
        """How many bytes of messages an item takes."""
        most = ITEM_BYTES - RESERVE - size_of({"M": self.key}) if first else LARGEST_SEGMENT
        return min(most, self.segment_bytes or most)

    def now(self) -> int:
        return int(self.clock())

    def stamp(self, now: int) -> int:
        """The TTL of an item that lives longer than the history would without another append."""
        assert self.lifetime is not None
        return now + 2 * self.lifetime + MARGIN

    def get(self, id: str | None, *attributes: str, consistent: bool = True) -> Call:
        """A request for an item, or only for some of its attributes."""
        params: dict[str, Any] = {
            "TableName": self.table,
            "Key": self.key_of(id),
            "ConsistentRead": consistent,
        }
        if attributes:
            names = {f"#{n}": name for n, name in enumerate(attributes)}
            params["ProjectionExpression"] = ", ".join(names)
            params["ExpressionAttributeNames"] = names
        return Call("GetItem", params)

    def update(
        self,
        id: str | None,
        expression: str,
        *,
        where: str,
        values: Mapping[str, Attribute],
        names: Mapping[str, str] | None = None,
        answer: str = "NONE",
    ) -> Call:
        """An update under a condition; if that fails, the item comes along."""
        params = self._conditional(where, expression, values, names or {})
        params |= {"Key": self.key_of(id), "UpdateExpression": expression, "ReturnValues": answer}
        return Call("UpdateItem", params)

    def put(self, id: str, item: Item) -> Call:
        """A new segment; a put of it that comes late does not touch what it became since."""
        params = self._conditional("attribute_not_exists(#o)", "", {}, {})
        return Call("PutItem", params | {"Item": self.key_of(id) | item})

    def delete(self, where: str, values: Mapping[str, Attribute]) -> Call:
        """The first item, under a condition."""
        params = self._conditional(where, "", values, {})
        return Call("DeleteItem", params | {"Key": self.key})

    def _conditional(
        self, where: str, expression: str, values: Mapping[str, Attribute], names: Mapping[str, str]
    ) -> dict[str, Any]:
        used = set(_PLACEHOLDER.findall(f"{where} {expression}"))  # others DynamoDB refuses
        every = {**_NAMES, "#h": self.history, "#t": self.ttl_name, **names}
        params: dict[str, Any] = {
            "TableName": self.table,
            "ConditionExpression": where,
            "ExpressionAttributeNames": {name: every[name] for name in used if name[0] == "#"},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        given = {**_VALUES, **values}
        if wanted := {name: given[name] for name in used if name[0] == ":"}:
            params["ExpressionAttributeValues"] = wanted
        return params


_NAMES = {
    "#o": OF,
    "#s": SEGMENTS,
    "#e": ENDED,
    "#c": CLOSED,
    "#b": BYTES,
    "#x": EXPIRES,
    "#f": FLOOR,
    "#d": "data",
}
_VALUES: dict[str, Attribute] = {
    ":none": {"L": []},
    ":true": {"BOOL": True},
    ":map": {"S": "M"},
    ":number": {"S": "N"},
}


def new_segment_id() -> str:
    return secrets.token_urlsafe(12)


def number(value: int) -> Attribute:
    return {"N": str(value)}


def listed(ids: Iterable[str]) -> Attribute:
    return {"L": [{"S": id} for id in ids]}


def ids_in(item: Item | None, name: str) -> tuple[str, ...]:
    return tuple(each["S"] for each in (item or {}).get(name, {}).get("L", ()))


def integer_in(item: Item | None, name: str) -> int | None:
    """None where it is no number: DynamoDB's TTL, too, takes such an item for one without."""
    text = (item or {}).get(name, {}).get("N")
    return None if text is None else int(float(text))


def is_full(failed: CallFailed) -> bool:
    """Whether an item would have become larger than DynamoDB takes."""
    text = failed.message.lower()
    return failed.code == "ValidationException" and "item size" in text and "exceeded" in text
