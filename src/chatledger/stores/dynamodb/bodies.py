"""The bodies of records: their messages, within the record or in further items, the body parts.

A long body is split into chunks of whole messages, each compressed by itself, so that reading or
replacing a message touches one chunk. The chunk that begins with the body's message ``first`` is
stored in the items ``b#<token>#<first>#<n>``. Parts are never changed: a chunk that replaces
another is written under a token of its own, which the record names.
"""

import zlib
from collections.abc import Iterator, Sequence
from math import ceil, inf
from typing import Any, NamedTuple

from chatledger.backoff import backoff
from chatledger.errors import StoreUnavailable
from chatledger.stores.dynamodb.calls import Call, Item, Plan, Wait
from chatledger.stores.dynamodb.log import InconsistentRead
from chatledger.stores.dynamodb.records import (
    LAYOUT,
    Record,
    ReplacedChunk,
    compress,
    decompress,
    json_list,
    old_part_sort,
    part_prefix,
    part_sort,
)
from chatledger.stores.dynamodb.table import DAY, HOUR, SECOND, Partition, Table, ttl_at
from chatledger.stores.dynamodb.ttl import growth
from chatledger.values import loads, time_of_id

INLINE_BYTES = 64 * 1024
"""The largest body (bytes) within a record; a larger one is stored in parts."""
CHUNK_CHARACTERS = 4_500
"""The most text in one chunk, unless a single message is longer: about three write units."""
PART_BYTES = 380 * 1024
"""The most bytes of a chunk in one item; DynamoDB's limit is 400 KB with keys and names."""
PARTS_AT_ONCE = 200
"""The number of body parts that are listed at once, to be deleted."""
BATCH_ITEMS = 25  # of one BatchWriteItem (AWS)
MAX_BATCH_BYTES = 1024 * 1024
"""The largest batch (bytes): a partition takes 1,000 write units a second (AWS: partition
throughput)."""
NAMED_WITHIN = DAY
"""The age (ms) up to which parts may be named by a new record; later a sweep may delete them."""
ATTEMPTS = 12
"""The number of attempts in a row without progress after which a batch is given up."""
FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Bounds (s) of the waits between these attempts."""


# Writing ------------------------------------------------------------------------------------------


class StoredBody(NamedTuple):
    """The messages of one record, ready to be attached to it."""

    messages: int = 0
    """The number of messages."""
    body: str | None = None
    """The messages as a JSON list, if they fit into the record."""
    token: str = ""
    """The token of the body parts, if the messages do not fit."""
    part_count: int = 0
    items: int = 0
    """The number of items that the parts count as for TTLs: ``part_count`` or more."""
    ttl: int | None = None
    """The TTL of the parts."""

    def outlives(self, record: Record) -> bool:
        """Return whether TTL spares the parts for as long as ``record`` needs them."""
        if not self.token:
            return True
        if self.ttl is None or record.ttl is None or record.lifetime is None:
            return self.ttl == record.ttl
        if record.ttl_base is None:
            return self.ttl >= ttl_at((record.expiry or 0) + 2 * HOUR)
        # Since the parts were written, time has passed and rivals may have added items.
        slack = record.lifetime // (4 * SECOND)
        return self.ttl >= record.ttl_base + growth(record.lifetime, record.items) - slack

    def may_be_named(self, time: int) -> bool:
        """Return whether the parts are young enough for a record to name them."""
        return not self.token or time - time_of_id(self.token) < NAMED_WITHIN

    def attach_to(self, record: Record) -> Record:
        """Return the record, which has no messages yet, with these."""
        record = record._replace(
            messages=self.messages,
            message_count=record.message_count + self.messages,
            body=self.body,
            body_token=self.token,
            part_count=self.part_count,
        )
        if self.ttl is None or record.lifetime is None:
            return record
        if record.ttl_base is None:
            return record._replace(min_ttl=min(record.min_ttl or 0, self.ttl))
        base = self.ttl - growth(record.lifetime, record.items)
        return record._replace(ttl_base=min(record.ttl_base, base))


class PreparedBody:
    """Messages that are not stored yet: a JSON list or, if that is long, compressed chunks."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.messages = len(texts)
        self.body: str | None = json_list(texts)
        self.chunks: list[tuple[int, int, bytes]] = []
        """Of each chunk: the index of its first message, its number of messages, and its bytes."""
        if len(self.body) <= INLINE_BYTES:
            return
        (inline,) = compress(self.body, other_bytes=0).values()
        if len(inline) > INLINE_BYTES:
            self.body, self.chunks = None, list(_chunked(texts, 0))

    @property
    def part_count(self) -> int:
        return sum(ceil(len(data) / PART_BYTES) for _, _, data in self.chunks)

    def store(self, place: Partition, ttl: int | None) -> Plan[StoredBody]:
        """Write the parts, if there are any, with the TTL ``ttl``, and return the stored body.

        No reader sees parts that no record names; ``sweep`` frees them.
        """
        if self.body is not None:
            return StoredBody(self.messages, self.body)
        writer = BodyWriter(place, ttl, items=self.part_count)
        for chunk in self.chunks:
            yield from writer.add_chunk(*chunk)
        return (yield from writer.finish())


class BodyWriter:
    """Writes a body to parts, chunk by chunk, in bounded memory."""

    def __init__(self, place: Partition, ttl: int | None, *, items: int) -> None:
        self.token = place.table.token()
        self._place = place
        self._ttl = ttl
        self._items = items
        self._texts: list[str] = []
        self._chunked = 0  # the number of messages that are in chunks already
        self._part_count = 0
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0

    def add(self, texts: Sequence[str]) -> Plan[None]:
        """Add messages, each as JSON."""
        self._texts += texts
        if sum(map(len, self._texts)) < 8 * CHUNK_CHARACTERS:
            return
        yield from self._write_texts()

    def add_chunk(self, first: int, messages: int, data: bytes) -> Plan[None]:
        """Add a compressed chunk that begins with the body's message ``first``."""
        parts = [data[n : n + PART_BYTES] for n in range(0, len(data), PART_BYTES)]
        for n, part in enumerate(parts):
            if len(self._waiting) == BATCH_ITEMS or (
                self._waiting and self._waiting_bytes + len(part) > MAX_BATCH_BYTES
            ):
                yield from self._flush()
            item = self._place.key(part_sort(self.token, first, n))
            item |= {"v": {"N": str(LAYOUT)}, "b": {"B": part}}
            item |= {"n": {"N": str(messages)}, "s": {"N": str(len(parts))}}
            if self._ttl is not None:
                item["expires_at"] = {"N": str(self._ttl)}
            self._waiting.append({"PutRequest": {"Item": item}})
            self._waiting_bytes += len(part)
        self._part_count += len(parts)
        self._chunked = first + messages

    @property
    def messages(self) -> int:
        """The number of messages that were added."""
        return self._chunked + len(self._texts)

    def finish(self) -> Plan[StoredBody]:
        """Write the rest, and return the stored body; it contains the messages if they are few."""
        if not self._chunked:
            prepared = PreparedBody(self._texts)
            if prepared.body is not None:
                return StoredBody(self.messages, prepared.body if self._texts else None)
        if self._texts:
            yield from self._write_texts()
        yield from self._flush()
        items = max(self._items, self._part_count)
        return StoredBody(self.messages, None, self.token, self._part_count, items, self._ttl)

    def _write_texts(self) -> Plan[None]:
        texts, self._texts = self._texts, []
        for chunk in _chunked(texts, self._chunked):
            yield from self.add_chunk(*chunk)

    def _flush(self) -> Plan[None]:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        yield from write_batch(self._place.table, waiting, what="store the parts of a long message")


def _chunked(texts: Sequence[str], first: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield compressed chunks of the messages; ``first`` is the index of the first one."""
    start = size = 0
    for n, text in enumerate(texts):
        if n > start and size + len(text) > CHUNK_CHARACTERS:
            yield first + start, n - start, zlib.compress(json_list(texts[start:n]).encode())
            start, size = n, 0
        size += len(text)
    if start < len(texts):
        data = zlib.compress(json_list(texts[start:]).encode())
        yield first + start, len(texts) - start, data


def write_batch(
    table: Table,
    requests: list[dict[str, Any]],
    *,
    what: str,
    read_at: tuple[int, float] | None = None,
) -> Plan[None]:
    """Write a batch, and write again what DynamoDB leaves unprocessed.

    Args:
        table: The table.
        requests: Puts and deletes, at most ``BATCH_ITEMS``.
        what: What the batch does, for the error: "DynamoDB did not ... in time".
        read_at: When the log's end was read that the batch relies on; None if it relies on none.

    Raises:
        InconsistentRead: The log's end was read too long ago, since the process was frozen.
        StoreUnavailable: DynamoDB processed nothing more in ``ATTEMPTS`` attempts.
    """
    attempt = 0
    while requests:
        if attempt:
            wait = backoff(table.random, attempt - 1, first=FIRST_WAIT, longest=LONGEST_WAIT)
            yield Wait(wait)
        if read_at is not None and not table.is_fresh(read_at):
            raise InconsistentRead
        reply = yield Call("BatchWriteItem", {"RequestItems": {table.name: requests}})
        left = reply.get("UnprocessedItems", {}).get(table.name, [])
        attempt = 1 if len(left) < len(requests) else attempt + 1
        requests = left
        if attempt == ATTEMPTS:
            raise StoreUnavailable(f"DynamoDB did not {what} in time; try again later.")


# Reading ------------------------------------------------------------------------------------------


class _Chunk(NamedTuple):
    first: int
    values: list[Any]
    size: int

    @property
    def end(self) -> int:
        return self.first + len(self.values)


class Values(NamedTuple):
    """Consecutive messages of a body, as JSON values."""

    first: int
    """The index of the first one."""
    values: list[Any]
    sizes: list[int]
    """The approximate size of each, in characters of JSON."""
    stopped: bool = False
    """True if reading may have stopped early because of the size of the messages."""


def read_body(
    place: Partition,
    record: Record,
    low: int,
    high: int,
    *,
    most_bytes: float,
    backward: bool = False,
) -> Plan[Values]:
    """Return the body's messages from index ``low`` up to, but not including, ``high``.

    The result ends early after ``most_bytes``, or where a part is missing. If ``backward``, chunks
    are read from the last one on, so that ``most_bytes`` leaves out the first messages.
    """
    if record.body is not None:
        values = list(loads(record.body))
        size = len(record.body) // max(len(values), 1)
        return Values(low, values[low:high], [size] * len(values[low:high]))
    if record.chunks:
        chunks = yield from _read_old_chunks(place, record, low, high)
    else:
        chunks = yield from _read_chunks(place, record, low, high, most_bytes, backward)
    kept: list[_Chunk] = []
    at = high if backward else low
    for chunk in reversed(chunks) if backward else chunks:
        if not (chunk.first < at <= chunk.end if backward else chunk.first <= at < chunk.end):
            break
        kept.append(chunk)
        at = chunk.first if backward else chunk.end
    if backward:
        kept.reverse()
    first = kept[0].first if kept else at
    values, sizes = [], []
    for chunk in kept:
        values += chunk.values
        sizes += [chunk.size // len(chunk.values)] * len(chunk.values)
    skip, end = max(low - first, 0), high - first
    stopped = sum(chunk.size for chunk in kept) > most_bytes
    return Values(max(first, low), values[skip:end], sizes[skip:end], stopped)


def _read_chunks(
    place: Partition, record: Record, low: int, high: int, most_bytes: float, backward: bool
) -> Plan[list[_Chunk]]:
    """Return the chunks that contain the messages from ``low`` up to ``high``, in order."""
    found: list[_Chunk] = []
    segments = list(_segments(record, low, high))
    size = 0
    for start, end, token in reversed(segments) if backward else segments:
        read = yield from _read_segment(
            place, record, token, start, end, most_bytes - size, backward
        )
        found = [*read, *found] if backward else [*found, *read]
        size += sum(chunk.size for chunk in read)
        if size > most_bytes:
            break
    return found


def _segments(record: Record, low: int, high: int) -> Iterator[tuple[int, int, str]]:
    """Split the messages from ``low`` up to ``high`` by the token of their chunks."""
    at = low
    for chunk in record.replaced_chunks:
        end = chunk.first + chunk.messages
        if end <= low or chunk.first >= high:
            continue
        if at < chunk.first:
            yield at, chunk.first, record.body_token
        yield chunk.first, end, chunk.token
        at = end
    if at < high:
        yield at, high, record.body_token


def _read_segment(
    place: Partition,
    record: Record,
    token: str,
    start: int,
    end: int,
    most_bytes: float,
    backward: bool,
) -> Plan[list[_Chunk]]:
    if not backward and start > 0:
        # The chunk that holds ``start`` may begin before it.
        items = yield from place.query(
            part_prefix(token), part_sort(token, start, 999), limit=1, forward=False, names=("sk",)
        )
        start = _first_message(items[0]) if items else start
    low = part_prefix(token) if backward else part_sort(token, start, 0)
    high = part_sort(token, end - 1, 999)
    chunks: list[_Chunk] = []
    pending: list[Item] = []
    size = 0
    limit = 1 + ceil((end - start) * max(record.part_count, 1) / max(record.messages, 1))
    while True:
        items = yield from place.query(low, high, limit=limit, forward=not backward)
        for item in items:
            if pending and _first_message(pending[0]) != _first_message(item):
                pending = []
            pending.append(item)
            if len(pending) == int(item["s"]["N"]):
                parts = pending[::-1] if backward else pending
                chunk = _decode_chunk(_first_message(item), parts)
                chunks.append(chunk)
                size += chunk.size
                pending = []
        reached = chunks and (chunks[-1].first <= start if backward else chunks[-1].end >= end)
        if len(items) < limit or reached or size > most_bytes:
            break
        last = items[-1]["sk"]["S"]
        low, high = (low, _before(last)) if backward else (last + " ", high)
        limit = 100
    # Backward, earlier chunks may have been read than those from ``start`` on.
    return [chunk for chunk in reversed(chunks) if chunk.end > start] if backward else chunks


def _before(sort: str) -> str:
    """Return a sort key before that of a part, and after those of all earlier parts."""
    return sort[:-1] + chr(ord(sort[-1]) - 1) + "~"


def _first_message(part: Item) -> int:
    """Return the index of the first message of the part's chunk, from its sort key."""
    return int(part["sk"]["S"].split("#")[2])


def _decode_chunk(first: int, parts: Sequence[Item]) -> _Chunk:
    text = decompress(b"".join(bytes(part["b"]["B"]) for part in parts))
    return _Chunk(first, list(loads(text)), len(text))


def _read_old_chunks(place: Partition, record: Record, low: int, high: int) -> Plan[list[_Chunk]]:
    """Layout 1: return the chunks that hold the messages from ``low`` up to ``high``."""
    found: list[_Chunk] = []
    start = item = 0
    for chunk in record.chunks:
        end = start + chunk.messages
        if start < high and end > low:
            items = yield from place.query(
                old_part_sort(record.body_token, item),
                old_part_sort(record.body_token, item + chunk.items - 1),
                limit=chunk.items,
                forward=True,
            )
            if len(items) == chunk.items:
                found.append(_decode_chunk(start, items))
        start, item = end, item + chunk.items
    return found


# Replacing and removing ---------------------------------------------------------------------------


def chunk_of(place: Partition, record: Record, index: int) -> Plan[ReplacedChunk | None]:
    """Return the chunk that contains the body's message ``index``; None if it is missing."""
    for chunk in record.replaced_chunks:
        if chunk.first <= index < chunk.first + chunk.messages:
            return chunk
    items = yield from place.query(
        part_prefix(record.body_token),
        part_sort(record.body_token, index, 999),
        limit=1,
        forward=False,
        names=("sk", "n"),
    )
    if not items:
        return None
    first, messages = _first_message(items[0]), int(items[0]["n"]["N"])
    if index >= first + messages:
        return None
    return ReplacedChunk(first, messages, record.body_token)


def replace_chunk(
    place: Partition, record: Record, old: ReplacedChunk, texts: Sequence[str]
) -> Plan[Record]:
    """Write a chunk in place of ``old``, under a new token; return ``record``, changed to name it.

    Args:
        place: The conversation's items.
        record: The record whose body contains the chunk.
        old: The chunk to replace.
        texts: The messages of the new chunk, each as JSON.
    """
    writer = BodyWriter(place, record.ttl, items=0)
    data = zlib.compress(json_list(texts).encode())
    yield from writer.add_chunk(old.first, len(texts), data)
    yield from writer.finish()
    others = [chunk for chunk in record.replaced_chunks if chunk.first != old.first]
    chunks = sorted([*others, ReplacedChunk(old.first, len(texts), writer.token)])
    return record._replace(replaced_chunks=tuple(chunks))


def delete_chunk(place: Partition, chunk: ReplacedChunk) -> Plan[None]:
    """Delete the parts of a chunk, which no record names any longer."""
    low, high = part_sort(chunk.token, chunk.first, 0), part_sort(chunk.token, chunk.first, 999)
    yield from _delete_range(place, low, high)


def delete_rest(place: Partition, record: Record, first: int, deadline: float = inf) -> Plan[bool]:
    """Delete the chunks of a body that begin with message ``first`` or later.

    Return whether all are deleted; not if the deadline, by the monotonic clock, passed before.
    """
    token = record.body_token
    low, high = part_sort(token, first, 0), part_prefix(token) + "~"
    return (yield from _delete_range(place, low, high, deadline))


def delete_body(place: Partition, record: Record, deadline: float = inf) -> Plan[bool]:
    """Delete all parts of a record's body, which no record needs any longer.

    Return whether all are deleted; not if the deadline, by the monotonic clock, passed before.
    """
    for token in record.body_tokens:
        if not (yield from delete_parts(place, token, deadline)):
            return False
    return True


def delete_parts(place: Partition, token: str, deadline: float = inf) -> Plan[bool]:
    """Delete the body parts with this token, which no record or entry names any longer.

    Return whether all are deleted; not if the deadline, by the monotonic clock, passed before.
    """
    prefix = part_prefix(token)
    return (yield from _delete_range(place, prefix, f"{prefix}~", deadline))


def _delete_range(place: Partition, low: str, high: str, deadline: float = inf) -> Plan[bool]:
    while True:
        items = yield from place.query(
            low, high, limit=PARTS_AT_ONCE, forward=True, names=("pk", "sk")
        )
        requests = [{"DeleteRequest": {"Key": item}} for item in items]
        while requests:
            batch, requests = requests[:BATCH_ITEMS], requests[BATCH_ITEMS:]
            yield from write_batch(place.table, batch, what="delete the parts of a long message")
            if place.table.monotonic() > deadline:
                return not requests and len(items) < PARTS_AT_ONCE
        if len(items) < PARTS_AT_ONCE:
            return True
        low = items[-1]["sk"]["S"] + " "
