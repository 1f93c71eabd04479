"""What costs only storage: bodies in parts, fences in place of the dead, the stamps of TTL."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from recollect.errors import StoreUnavailable
from recollect.json_values import dumps
from recollect.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan, Wait
from recollect.stores.dynamodb.log import CONDITION_FAILED, Log
from recollect.stores.dynamodb.reading import Stretch, bodies
from recollect.stores.dynamodb.records import (
    FIRST_RECORD,
    HEAD,
    INLINE_BYTES,
    LAYOUT,
    Chunk,
    Record,
    chunked,
    decode_record,
    encode_fence,
    encode_record,
    key,
    listed,
    packed,
    part_sort,
    partition,
    record_sort,
)
from recollect.stores.dynamodb.table import DAY, FENCED, HOUR, SECOND, Table, stamp_at

BATCH_ITEMS = 25  # of one BatchWriteItem (AWS)
BATCH_BYTES = 8 * 1024 * 1024  # of the 16 MB that one takes
PAGE = 100
TRIES = 12


# Bodies -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the messages of one record lie: within it, or in parts."""

    body: str | None
    parts: str = ""
    chunks: tuple[Chunk, ...] = ()
    stamp: int | None = None
    """That of the parts."""

    def lasts(self, record: Record) -> bool:
        """Whether the parts live as long as ``record`` needs them."""
        return not self.parts or self.stamp is None or record.stamp is not None

    def within(self, record: Record) -> Record:
        floor = record.floor
        if floor is not None and self.stamp is not None:
            floor = min(floor, self.stamp)
        return replace(record, body=self.body, parts=self.parts, chunks=self.chunks, floor=floor)


def keep(log: Log, texts: Sequence[str], stamp: int | None) -> Plan[Kept]:
    """Have the messages, each as JSON, ready for a record; long ones are written to parts now.

    Parts without a record that names them are seen by nobody, and are freed by ``sweep``.
    """
    text = listed(texts)
    if (
        len(text) <= INLINE_BYTES
        or len(next(iter(packed(text, beside=0).values()))) <= INLINE_BYTES
    ):
        return Kept(text)
    parts = Parts(log, stamp)
    yield from parts.add(texts)
    return (yield from parts.kept())


class Parts:
    """Writes messages to parts, chunk by chunk, in bounded memory."""

    def __init__(self, log: Log, stamp: int | None) -> None:
        self._log = log
        self._stamp = stamp
        self._token = log.table.new_token()
        self._chunks: list[Chunk] = []
        self._items = 0
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, texts: Sequence[str]) -> Plan[None]:
        for messages, stretches in chunked(texts):
            self._chunks.append(Chunk(messages=messages, items=len(stretches)))
            for stretch in stretches:
                if len(self._waiting) == BATCH_ITEMS or self._bytes + len(stretch) > BATCH_BYTES:
                    yield from self._flush()
                item = key(self._log.id, part_sort(self._token, self._items))
                item |= {"v": {"N": str(LAYOUT)}, "b": {"B": stretch}}
                if self._stamp is not None:
                    item["expires_at"] = {"N": str(self._stamp)}
                self._waiting.append({"PutRequest": {"Item": item}})
                self._items += 1
                self._bytes += len(stretch)

    def kept(self) -> Plan[Kept]:
        yield from self._flush()
        return Kept(None, self._token, tuple(self._chunks), self._stamp)

    def discard(self) -> Plan[None]:
        """Delete what was written; no record has named it."""
        self._waiting = []
        yield from delete_parts(self._log, self._token, self._items)

    def _flush(self) -> Plan[None]:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        yield from _write(self._log.table, waiting)


def delete_parts(log: Log, token: str, items: int) -> Plan[None]:
    """Delete the first ``items`` parts of that token."""
    # A token is never used again, so that this can meet nobody else's.
    requests = [{"DeleteRequest": {"Key": key(log.id, part_sort(token, n))}} for n in range(items)]
    for start in range(0, items, BATCH_ITEMS):
        yield from _write(log.table, requests[start : start + BATCH_ITEMS])


def _write(table: Table, requests: list[dict[str, Any]]) -> Plan[None]:
    for tried in range(TRIES):
        if not requests:
            return
        if tried:
            yield Wait(table.random.uniform(0, min(0.05 * 2**tried, 2.0)))
        reply = yield Call("BatchWriteItem", {"RequestItems": {table.name: requests}})
        requests = reply.get("UnprocessedItems", {}).get(table.name, [])
    if requests:
        raise StoreUnavailable("DynamoDB did not take all parts of a long message; try again.")


# Stamps -------------------------------------------------------------------------------------------


def stamp_for(time: int, lifetime: int | None) -> int | None:
    """When TTL may eat an item written at ``time`` of a conversation that lives so long (ms).

    Two and a half lifetimes ahead, so that activity renews it once a lifetime at most, and a day
    and more behind the end, so that positions stay taken for those who remember them.
    """
    return None if lifetime is None else stamp_at(time + _ahead(lifetime))


def _ahead(lifetime: int) -> int:
    return max(5 * lifetime // 2, lifetime + DAY + 2 * HOUR)


def renewed(log: Log, last: Record, lifetime: int | None) -> Plan[Record]:
    """``last`` with a floor that lets the conversation live for ``lifetime`` from now on.

    All items whose stamps lie too low are given later ones first: at no moment may an item of a
    conversation that lives be eaten. Where nothing must be renewed there is no call.
    """
    time = log.table.time()
    if lifetime is None:
        if last.floor is None:
            return last
        least = None
    else:
        # No stamp lies less than an hour behind the expiry, for clocks differ.
        if last.floor is not None and stamp_at(time + lifetime + HOUR) <= last.floor:
            return last
        # So low that an item is renewed once a lifetime at most.
        least = stamp_at(time + _ahead(lifetime) - lifetime)
    stamp = stamp_for(time, lifetime)
    for low, high in (("b#", "b$"), (FIRST_RECORD, HEAD)):
        start: Item | None = None
        while True:
            reply = yield Call("Query", _stamped_below(log, low, high, least, start))
            for item in reply["Items"]:
                yield from _restamp(log, item, stamp)
            start = reply.get("LastEvaluatedKey")
            if start is None:
                break
    if stamp is not None:
        stamp = max(stamp, last.stamp or 0)
    return replace(last, floor=least, stamp=stamp)


def _stamped_below(
    log: Log, low: str, high: str, least: int | None, start: Item | None
) -> dict[str, Any]:
    names = {"#pk": "pk", "#sk": "sk", "#expires_at": "expires_at"}
    values: dict[str, Any] = {
        ":pk": {"S": partition(log.id)},
        ":low": {"S": low},
        ":high": {"S": high},
    }
    below = "attribute_exists(#expires_at)"
    if least is not None:
        below = "attribute_not_exists(#expires_at) OR #expires_at < :least"
        values[":least"] = {"N": str(least)}
    return {
        "TableName": log.table.name,
        "KeyConditionExpression": "#pk = :pk AND #sk BETWEEN :low AND :high",
        "FilterExpression": below,
        "ProjectionExpression": "#pk, #sk, #l, #x",
        "ExpressionAttributeNames": names | {"#l": "l", "#x": "x"},
        "ExpressionAttributeValues": values,
        "ConsistentRead": True,
    } | ({"ExclusiveStartKey": start} if start else {})


def _restamp(log: Log, item: Item, stamp: int | None) -> Plan[None]:
    sort = item["sk"]["S"]
    record = sort.startswith(FIRST_RECORD)
    if record and "l" not in item:
        return  # a fence keeps its own
    changed: dict[str, Attribute | None] = {
        "expires_at": None if stamp is None else {"N": str(stamp)}
    }
    if record and stamp is not None and "x" not in item:
        # It was to live for ever. Were the later ones eaten first, it would.
        changed["x"] = {"N": str(stamp * SECOND)}
    try:
        yield Call(
            "UpdateItem",
            log.change(
                sort,
                changed,
                # What was fenced or deleted meanwhile stays so.
                "attribute_exists(#l)" if record else "attribute_exists(#pk)",
            ),
        )
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise


# Fences -------------------------------------------------------------------------------------------


def fence(log: Log, first: int, last: int) -> Plan[int]:
    """Fence every record that begins at a position from ``first`` to ``last``; how many there were.

    They must be dead: a fence keeps the place taken for a day, and none of the messages.
    """
    fenced = 0
    while first <= last:
        items = yield from log.query(
            record_sort(first), record_sort(last), limit=PAGE, forward=True
        )
        for record in map(decode_record, items):
            first = record.revision + 1
            if isinstance(record, Record):
                yield from _fence_one(log, record)
                fenced += 1
        if len(items) < PAGE:
            break
    return fenced


def _fence_one(log: Log, record: Record) -> Plan[None]:
    stamp = stamp_at(log.table.time() + FENCED)
    try:
        yield Call(
            "PutItem",
            # With its token: after days of sleep another record may stand there.
            log.guarded_put(encode_fence(log.id, record, stamp), "#k = :k", k={"S": record.token}),
        )
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
    yield from discard_parts(log, record)


def shorten(log: Log, part: Stretch, cut: Record) -> Plan[None]:
    """Rewrite a record of which ``cut`` left but the messages of ``part`` and those before."""
    record = part.record
    values = yield from bodies(log, Stretch(record, record.position, part.last))
    kept = yield from keep(log, [dumps(value) for value in values], cut.stamp)
    shorter = replace(
        kept.within(record),
        messages=len(values),
        message_count=record.message_count - (record.messages - len(values)),
        rewritten=cut.position,
        stamp=cut.stamp,
    )
    try:
        yield Call("PutItem", rewriting(log, record, shorter))
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
    else:
        yield from discard_parts(log, record)


def rewriting(log: Log, record: Record, changed: Record) -> dict[str, Any]:
    """The parameters of a put that changes the record only if nobody else did."""
    same = "attribute_not_exists(#r)" if not record.rewritten else "#r = :r"
    return log.guarded_put(
        encode_record(log.id, changed),
        f"#k = :k AND attribute_exists(#l) AND {same}",  # a fence bears the token too
        k={"S": record.token},
        **({"r": {"N": str(record.rewritten)}} if record.rewritten else {}),
    )


def discard_parts(log: Log, record: Record) -> Plan[None]:
    """Delete the parts that ``record`` names and no record needs any more."""
    yield from delete_parts(log, record.parts, sum(chunk.items for chunk in record.chunks))


def eat(log: Log, sort: str, until: int) -> Plan[int]:
    """Delete an item whose stamp lies before ``until``, as TTL does; how many that were."""
    params = log.guarded("#expires_at < :until", until={"N": str(until)})
    try:
        yield Call("DeleteItem", params | {"Key": key(log.id, sort)})
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        return 0
    return 1
