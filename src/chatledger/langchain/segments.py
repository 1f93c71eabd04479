"""Layout of a history in a LangChain table: one item, continued in further items when it is full.

The table's layout was chosen by ``langchain_community``'s class, the old class below.

The **first item** has the user's key and is an item of the old class: a list of messages under the
history's attribute name, and a TTL. Chatledger adds attributes of its own to it, which the old
class ignores. When the item is full, the history continues in **segments**: items of the same table
whose key contains a random id, so that it cannot collide with a user's key or be guessed.
``chatledger_segments`` in the first item lists the segment ids in order, so a reader needs the
first item and then all segments in one batch.

**One item takes appends:** the last segment in the list, or the first item while there is no list.
An append is one ``UpdateItem`` with ``list_append``. Its condition checks that the item is still
the active one: the first item has no list, or the segment exists and is not closed. A writer caches
which segment was active. If the cache is out of date the condition fails, and the writer reads the
current state.

**Adding an item**, when the active one is full (either its counted bytes say so in the same
condition, or DynamoDB does for an item that other software filled):

1. The last segment is *closed* for good, so that nothing can be appended to it after the new
   segment exists.
2. The new messages are put as a new segment, or several if they are many. No reader sees them yet.
3. One update of the first item appends their ids to the list, provided that the last id is still
   the last one. This commits the append. A writer that loses the race deletes the segments that it
   put and starts again.

For the first item, steps 1 and 3 are one update. If a writer dies after step 1, the next writer
finds the closed segment and continues with step 2. Segment ids are never reused, so a put that
arrives late only creates an item that no list names and no writer appends to. If the first item has
no room for the list, its last messages are moved out: they are put as a segment, and the update
that lists this segment also removes them from the first item.

**Clearing** a history of one item is one ``DeleteItem``, on the condition that the item has no
list. Otherwise the last segment is closed first. Then one update of the first item, provided that
the list is unchanged, empties the item and moves the list to ``chatledger_ended``. This commits the
clearing: segments no longer take appends, and the first item takes those of the new history.
Finally, the segments and the emptied item are deleted. If that is interrupted, the next reader or
writer that reads the first item finishes it.

**Each append is stored exactly once.** It carries a write token that it adds to a set in the item,
on the condition that the set does not contain it yet. If a response is lost and the append is
retried, the item that failed the condition shows the token. There are three sets, used in turn for
a minute each: an append adds its token to the set of the current minute and removes the set of the
next minute, whose tokens are two minutes old. So a token is kept for at least a minute, and an
append is retried for less than half a minute.

**TTL.** DynamoDB deletes items one by one, and an append can write only one item. So
``chatledger_expires`` in the last segment says when the history expires, and each item's TTL is set
two lifetimes and an hour ahead. The last segment also records ``chatledger_floor``, a lower bound
on the TTLs of all other items. When an append would extend the history beyond that bound, the TTLs
of the other items are extended first, at most once per lifetime. A history of one item has just the
TTL that the old class would give it. The next append to an expired history clears it, if it is
still expired.

**Together with the old class:** that class reads and writes the first item. While there is no list,
this is the whole history, but its appends are not atomic and may lose those of other writers. Once
there is a list, it sees only the messages in the first item, and what it appends is read before the
messages of the segments. If it, or other software, *deletes* the first item of such a history, the
segments are lost. A writer with a cached segment may go on appending there for at most
``CACHE_SECONDS``.
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

FIRST_ITEM_KEY = "chatledger_of"
"""Key of the first item that a segment belongs to, as a map."""
SEGMENTS = "chatledger_segments"
CLEARED_SEGMENTS = "chatledger_ended"
"""Ids of the segments of a cleared history, until they are deleted."""
CLOSED = "chatledger_closed"
BYTES = "chatledger_bytes"
EXPIRES_AT = "chatledger_expires"
MIN_TTL = "chatledger_floor"
"""Lower bound on the TTLs of all items but the last, less ``TTL_MARGIN``."""
TOKEN_SETS = ("chatledger_tokens_0", "chatledger_tokens_1", "chatledger_tokens_2")
RESERVED_ATTRIBUTES = frozenset(
    {FIRST_ITEM_KEY, SEGMENTS, CLEARED_SEGMENTS, CLOSED, BYTES, EXPIRES_AT, MIN_TTL, *TOKEN_SETS}
)

ITEM_BYTES = 400 * 1024  # the largest item that DynamoDB stores
FIRST_ITEM_RESERVE = 2 * 1024
"""Bytes that the first item keeps free for the segment list and the tokens."""
SEGMENT_RESERVE = 8 * 1024
LARGEST_SEGMENT = ITEM_BYTES - SEGMENT_RESERVE
TTL_MARGIN = 3600
"""Seconds by which an item's TTL exceeds the expiry of its history, because clocks differ."""
KEY_CHARACTERS = 400
"""Characters of the user's key that a segment's key repeats. Each takes at most 4 bytes, and
DynamoDB allows 2,048 bytes for a partition key.
"""
TOKEN_PERIOD = 60.0
CONDITION_FAILED = "ConditionalCheckFailedException"

JITTER = Random()  # noqa: S311  not used for anything secret
_PLACEHOLDER = re.compile(r"[#:][a-z0-9]+")


@dataclass(frozen=True, slots=True)
class WriteToken:
    """Identifies one append, so that a retry can tell whether it was stored."""

    text: str
    sets: dict[str, str]
    """Expression names of the token set to add to (``#p``) and the one to remove (``#q``)."""

    @classmethod
    def at(cls, now: float) -> "WriteToken":
        """Return a new token for an append at the time ``now``, in seconds since 1970."""
        minute = int(now // TOKEN_PERIOD)
        sets = {"#p": TOKEN_SETS[minute % 3], "#q": TOKEN_SETS[(minute + 1) % 3]}
        return cls(secrets.token_urlsafe(9), sets)

    def is_in(self, item: Item | None) -> bool:
        """Return whether ``item`` contains the append of this token."""
        return self.text in (item or {}).get(self.sets["#p"], {}).get("SS", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryTable:
    """One history in a DynamoDB table: its key, its settings, and the calls for its items.

    Args:
        name: The table.
        key: Key of the history's first item.
        messages_attribute: Attribute that holds the list of messages.
        ttl_attribute: The table's TTL attribute.
        lifetime: Seconds from each append until the history expires. None leaves a TTL that an
            item already has as it is.
        segment_bytes: Bytes of messages after which a further item is added. None fills items.
        consistent: Whether reads are strongly consistent.
    """

    name: str
    key: Item
    messages_attribute: str
    ttl_attribute: str
    lifetime: int | None = None
    segment_bytes: int | None = None
    consistent: bool = True
    clock: Callable[[], float] = time.time
    random: Random = JITTER

    def key_of(self, id: str | None) -> Item:
        """Return the key of the segment ``id``, or of the first item for None."""
        if id is None:
            return self.key
        # The last text attribute. With a sort key this is usually the sort key, so that the
        # segments stay in the user's partition.
        name = [name for name, value in self.key.items() if "S" in value][-1]
        # A lone partition key shows whose segment it is. A sort key must not begin like the user's
        # own, because users list theirs by prefix.
        user = f"{self.key[name]['S'][:KEY_CHARACTERS]}#" if len(self.key) == 1 else ""
        return self.key | {name: {"S": f"{user}chatledger#{id}"}}

    def capacity(self, first: bool) -> int:
        """Return how many bytes of messages the first item, or a segment, may hold."""
        most = LARGEST_SEGMENT
        if first:
            most = ITEM_BYTES - FIRST_ITEM_RESERVE - size_of({"M": self.key})
        return min(most, self.segment_bytes or most)

    def now(self) -> int:
        return int(self.clock())

    def ttl_at(self, now: int) -> int:
        """Return a TTL later than the expiry of the history, even after further appends."""
        assert self.lifetime is not None
        return now + 2 * self.lifetime + TTL_MARGIN

    def get(self, id: str | None, *attributes: str, consistent: bool = True) -> Call:
        """Return a call that reads an item, or only some of its attributes."""
        params: dict[str, Any] = {
            "TableName": self.name,
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
        condition: str,
        values: Mapping[str, Attribute],
        names: Mapping[str, str] | None = None,
        return_values: str = "NONE",
    ) -> Call:
        """Return a conditional update; if the condition fails, the error contains the item."""
        params = self._conditional_params(condition, expression, values, names or {})
        params |= {
            "Key": self.key_of(id),
            "UpdateExpression": expression,
            "ReturnValues": return_values,
        }
        return Call("UpdateItem", params)

    def put(self, id: str, item: Item) -> Call:
        """Return a put of a new segment, which never overwrites an existing one."""
        params = self._conditional_params("attribute_not_exists(#o)", "", {}, {})
        return Call("PutItem", params | {"Item": self.key_of(id) | item})

    def delete(self, condition: str, values: Mapping[str, Attribute]) -> Call:
        """Return a conditional delete of the first item."""
        params = self._conditional_params(condition, "", values, {})
        return Call("DeleteItem", params | {"Key": self.key})

    def _conditional_params(
        self,
        condition: str,
        expression: str,
        values: Mapping[str, Attribute],
        names: Mapping[str, str],
    ) -> dict[str, Any]:
        # DynamoDB rejects names and values that no expression uses.
        used = set(_PLACEHOLDER.findall(f"{condition} {expression}"))
        all_names = {**_NAMES, "#h": self.messages_attribute, "#t": self.ttl_attribute, **names}
        params: dict[str, Any] = {
            "TableName": self.name,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {name: all_names[name] for name in used if name[0] == "#"},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        all_values = {**_VALUES, **values}
        if used_values := {name: all_values[name] for name in used if name[0] == ":"}:
            params["ExpressionAttributeValues"] = used_values
        return params


_NAMES = {
    "#o": FIRST_ITEM_KEY,
    "#s": SEGMENTS,
    "#e": CLEARED_SEGMENTS,
    "#c": CLOSED,
    "#b": BYTES,
    "#x": EXPIRES_AT,
    "#f": MIN_TTL,
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


def number_attribute(value: int) -> Attribute:
    return {"N": str(value)}


def string_list(ids: Iterable[str]) -> Attribute:
    return {"L": [{"S": id} for id in ids]}


def ids_in(item: Item | None, name: str) -> tuple[str, ...]:
    return tuple(each["S"] for each in (item or {}).get(name, {}).get("L", ()))


def integer_in(item: Item | None, name: str) -> int | None:
    """Return the number in an attribute, or None if it is missing or not a number.

    DynamoDB ignores a TTL that is not a number in the same way.
    """
    text = (item or {}).get(name, {}).get("N")
    return None if text is None else int(float(text))


def is_item_full(failed: CallFailed) -> bool:
    """Return whether the call failed because the item would exceed DynamoDB's size limit."""
    text = failed.message.lower()
    return failed.code == "ValidationException" and "item size" in text and "exceeded" in text
