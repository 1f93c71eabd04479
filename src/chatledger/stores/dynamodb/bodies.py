"""What costs only storage: bodies in parts, and fences in place of the dead."""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from chatledger.errors import StoreUnavailable
from chatledger.json_values import dumps
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan, Wait
from chatledger.stores.dynamodb.compression import listed, packed
from chatledger.stores.dynamodb.log import CONDITION_FAILED, Log, Torn
from chatledger.stores.dynamodb.reading import Stretch, bodies
from chatledger.stores.dynamodb.records import (
    LAYOUT,
    Chunk,
    Record,
    decode_record,
    encode_fence,
    encode_record,
    key,
    part_sort,
    record_sort,
)
from chatledger.stores.dynamodb.table import FENCED, Table, stamp_at

INLINE_BYTES = 64 * 1024
"""How large a body may be within its record; a larger one lies in parts beside it."""
CHUNK_CHARACTERS = 64 * 1024
"""About how much text of whole messages is compressed together, to be read together."""
PART_BYTES = 380 * 1024
"""How much of a chunk one item takes; DynamoDB's limit is 400 KB with keys and names."""
BATCH_ITEMS = 25  # of one BatchWriteItem (AWS)
BATCH_BYTES = 8 * 1024 * 1024  # of the 16 MB that one takes
PAGE = 100
TRIES = 12
TOKENS = 3
"""How often parts are written whose arrival is unknown, each time under another token."""


# Bodies -------------------------------------------------------------------------------------------


class Kept(NamedTuple):
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
        return record._replace(body=self.body, parts=self.parts, chunks=self.chunks, floor=floor)


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
    for _ in range(TOKENS):
        parts = Parts(log, stamp)
        try:
            yield from parts.add(texts)
            return (yield from parts.kept())
        except Torn:
            continue
    raise StoreUnavailable("DynamoDB did not take a long message in time; try again later.")


class Parts:
    """Writes messages to parts, chunk by chunk, in bounded memory.

    Raises ``Torn`` where parts with a stamp may still arrive: long after they were taken for
    written they could bring back a stamp that was taken away since, for TTL to eat them.
    """

    def __init__(self, log: Log, stamp: int | None) -> None:
        self._log = log
        self._stamp = stamp
        self._token = log.table.new_token()
        self._texts: list[str] = []
        self._characters = 0
        self._chunks: list[Chunk] = []
        self._items = 0
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, texts: Sequence[str]) -> Plan[None]:
        for text in texts:
            if self._texts and self._characters + len(text) > CHUNK_CHARACTERS:
                yield from self._end_chunk()
            self._texts.append(text)
            self._characters += len(text)

    def kept(self) -> Plan[Kept]:
        if self._texts:
            yield from self._end_chunk()
        yield from self._flush()
        return Kept(None, self._token, tuple(self._chunks), self._stamp)

    def discard(self) -> Plan[None]:
        """Delete what was written; no record has named it."""
        self._texts, self._waiting = [], []
        yield from delete_parts(self._log, self._token, self._items)

    def _end_chunk(self) -> Plan[None]:
        texts, self._texts, self._characters = self._texts, [], 0
        data = zlib.compress(listed(texts).encode())
        stretches = [data[n : n + PART_BYTES] for n in range(0, len(data), PART_BYTES)]
        self._chunks.append(Chunk(messages=len(texts), items=len(stretches)))
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

    def _flush(self) -> Plan[None]:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        try:
            yield from _write(self._log.table, waiting, once=self._stamp is not None)
        except CallFailed as failed:
            if not failed.unknown:
                raise
            raise Torn from failed


def delete_parts(log: Log, token: str, items: int) -> Plan[None]:
    """Delete the first ``items`` parts of that token."""
    # A token is never used again, so that this can meet nobody else's.
    requests = [{"DeleteRequest": {"Key": key(log.id, part_sort(token, n))}} for n in range(items)]
    for start in range(0, items, BATCH_ITEMS):
        yield from _write(log.table, requests[start : start + BATCH_ITEMS])


def _write(table: Table, requests: list[dict[str, Any]], *, once: bool = False) -> Plan[None]:
    for tried in range(TRIES):
        if not requests:
            return
        if tried:
            yield Wait(table.random.uniform(0, min(0.05 * 2**tried, 2.0)))
        reply = yield Call("BatchWriteItem", {"RequestItems": {table.name: requests}}, once)
        requests = reply.get("UnprocessedItems", {}).get(table.name, [])
    if requests:
        raise StoreUnavailable("DynamoDB did not take all parts of a long message; try again.")


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
    # Its parts first: a record that is there still names them to whoever finishes this.
    yield from discard_parts(log, record)
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


def shorten(log: Log, part: Stretch, cut: Record) -> Plan[None]:
    """Rewrite a record of which ``cut`` left but the messages of ``part`` and those before.

    Raises ``Torn`` where another has rewritten it meanwhile, and maybe left more.
    """
    record = part.record
    values = yield from bodies(log, Stretch(record, record.position, part.last))
    # Its own stamp, not the cut's: all may have lost theirs since, or been given later ones.
    kept = yield from keep(log, [dumps(value) for value in values], record.stamp)
    shorter = kept.within(record)._replace(
        messages=len(values),
        message_count=record.message_count - (record.messages - len(values)),
        rewritten=cut.position,
    )
    try:
        yield Call("PutItem", rewriting(log, record, shorter))
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        raise Torn from failed
    yield from discard_parts(log, record)


def rewriting(log: Log, record: Record, changed: Record) -> dict[str, Any]:
    """The parameters of a put that changes the record only if nobody else did."""
    seen = {"r": record.rewritten or None, "expires_at": record.stamp}
    conditions = [
        f"attribute_not_exists(#{name})" if value is None else f"#{name} = :{name}"
        for name, value in seen.items()
    ]
    return log.guarded_put(
        encode_record(log.id, changed),
        # A fence bears the token too.
        " AND ".join(["#k = :k", "attribute_exists(#l)", *conditions]),
        k={"S": record.token},
        **{name: {"N": str(value)} for name, value in seen.items() if value is not None},
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
