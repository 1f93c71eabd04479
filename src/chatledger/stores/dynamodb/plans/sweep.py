"""The plan that frees what no reader can see any more, conversation by conversation."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from chatledger.errors import InvalidArgument
from chatledger.json_values import dumps
from chatledger.stores.dynamodb import bodies, heads
from chatledger.stores.dynamodb.calls import Call, Item, Plan
from chatledger.stores.dynamodb.log import Log, Torn
from chatledger.stores.dynamodb.plans.common import afterwards
from chatledger.stores.dynamodb.plans.cut import bury
from chatledger.stores.dynamodb.plans.delete import end, free
from chatledger.stores.dynamodb.records import Record, check_layout, conversation_of
from chatledger.stores.dynamodb.table import DAY, HOUR, Table, stamp_at

LATE = HOUR
"""How far (ms) an end or a stamp must lie back until it is acted upon here, for clocks differ."""
LOOKED_AT = ("pk", "sk", "v", "l", "y", "expires_at")


@dataclass(frozen=True, slots=True)
class Swept:
    """How far a sweep has come; ``cursor`` starts another there."""

    looked_at: int
    freed: int
    cursor: str | None


def sweep(
    table: Table, *, progress: Callable[[Swept], None] | None = None, cursor: str | None = None
) -> Plan[int]:
    """A scan of the whole table, in memory for one conversation at a time."""
    params: dict[str, Any] = {
        "TableName": table.name,
        "ConsistentRead": True,
        "ProjectionExpression": ", ".join(f"#{name}" for name in LOOKED_AT),
        "ExpressionAttributeNames": {f"#{name}": name for name in LOOKED_AT},
    }
    if cursor is not None:
        params["ExclusiveStartKey"] = _start(cursor)
    looked_at = freed = 0
    seen: _Seen | None = None
    while True:
        reply = yield Call("Scan", params)
        # The items of a conversation come one behind the other, in their order.
        for item in reply["Items"]:
            if seen is None or seen.pk != item["pk"]["S"]:
                if seen is not None:
                    freed += yield from _tidied(table, seen)
                seen = _Seen(item["pk"]["S"])
            seen.add(item, table.time())
        looked_at += len(reply["Items"])
        last = reply.get("LastEvaluatedKey")
        if last is None:
            if seen is not None:
                freed += yield from _tidied(table, seen)
            if progress is not None:
                progress(Swept(looked_at, freed, None))
            return freed
        params["ExclusiveStartKey"] = last
        if progress is not None:
            # From the start of the conversation that is under way: it is tidied as a whole.
            begun = {"pk": {"S": seen.pk}, "sk": {"S": " "}} if seen else last
            progress(Swept(looked_at, freed, dumps([begun["pk"]["S"], begun["sk"]["S"]])))


@dataclass(slots=True)
class _Seen:
    """What a scan has seen of one conversation, and that may be of no use any more."""

    pk: str
    overdue: list[str] = field(default_factory=list)
    """Sort keys of items that TTL should have eaten."""
    parts: dict[str, int] = field(default_factory=dict)
    """How many parts, older than a day, bear a token that no record was seen to name."""
    first_record: int | None = None

    def add(self, item: Item, time: int) -> None:
        check_layout(item)
        sort = item["sk"]["S"]
        stamp = int(item["expires_at"]["N"]) if "expires_at" in item else None
        if stamp is not None and stamp < stamp_at(time - LATE):
            self.overdue.append(sort)
        elif sort.startswith("b#"):
            token, _, n = sort.removeprefix("b#").rpartition("#")
            if _age(token, time) > DAY + HOUR:
                self.parts[token] = int(n) + 1
        elif "l" in item and self.first_record is None:
            self.first_record = int(sort.removeprefix("m#"))
        if "y" in item:
            self.parts.pop(item["y"]["S"], None)


def _tidied(table: Table, seen: _Seen) -> Plan[int]:
    log = Log(table, conversation_of(seen.pk))
    freed = 0
    for sort in seen.overdue:
        freed += yield from bodies.eat(log, sort, stamp_at(table.time() - LATE))
    for token, items in seen.parts.items():
        yield from bodies.delete_parts(log, token, items)
        freed += items
    standing, _ = yield from log.end()
    last, head = standing.record, standing.head
    if last is None:
        if head is not None and standing.last is None and not head.deleted:
            yield from heads.drop(log, head)
            freed += 1
        return freed
    if last.closed:
        if last.stamp is None:
            yield from free(log, last)
            freed += 1
        return freed
    if _is_over(table, last):
        # TTL would come to it in a lifetime or two. It may live again by now.
        yield from end(log, None, partial(_is_over, table))
        return freed + 1
    if seen.first_record is not None and seen.first_record < last.life:
        freed += yield from bodies.fence(log, 1, last.life - 1)
    if last.lives(table.time()):
        if head is None or not head.is_of(last) or head.revision < last.revision:
            try:
                yield from heads.mend(log)
            except Torn:
                return freed  # whoever goes on with it mends it
        if last.dead:
            yield from afterwards(bury(log, last))
    return freed


def _is_over(table: Table, last: Record) -> bool:
    return not last.lives(table.time() - LATE)


def _age(token: str, time: int) -> int:
    """How many ms ago the token was made: a UUIDv7 begins with its time (RFC 9562)."""
    return time - int(token.replace("-", "")[:12], 16)


def _start(cursor: str) -> Item:
    try:
        pk, sk = json.loads(cursor)
        return {"pk": {"S": pk}, "sk": {"S": sk}}
    except (TypeError, ValueError):
        raise InvalidArgument("cursor is not one that a sweep gave; start without one.") from None
