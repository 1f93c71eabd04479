"""Walks over a log, as of one moment though no query is a snapshot.

Each record says which message it follows, and when its own were last changed. So a walk that starts
from a last record, and finds the chain whole, has seen the conversation as it stood with that
record; else it is ``Torn``, and whoever walks reads the end again.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from chatledger.conversations import LAST_REVISION
from chatledger.json_values import loads
from chatledger.messages import Message, decode_body
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.compression import opened
from chatledger.stores.dynamodb.log import Log, Torn
from chatledger.stores.dynamodb.records import Fence, Record, decode_record, part_sort, record_sort

MOST_RECORDS = 1_000  # of one query


class Stretch(NamedTuple):
    """The messages of ``record`` from seq ``first`` to seq ``last``."""

    record: Record
    first: int
    last: int


def back(
    log: Log, last: Record, n: int, *, start: int, read: Iterable[Record | Fence] = ()
) -> Plan[list[Stretch]]:
    """The last ``n`` living messages up to seq ``start``, newest first.

    ``read`` are the log's last records, newest first, where they have been read already.
    """
    found: list[Stretch] = []
    seq = last.below_dead(min(start, last.last_seq))
    known = seq == last.last_seq  # that a message is there
    records = deque(read)
    lowest = records[-1].position if records else LAST_REVISION
    limit = n
    while seq > 0 and n > 0:
        if not records:
            # Dead records are jumped over; where they are many, in ever larger steps.
            items = yield from log.query(
                record_sort(last.life),
                record_sort(min(seq, lowest - 1)),
                limit=min(limit, MOST_RECORDS),
                forward=False,
            )
            if not items:
                break
            records.extend(map(decode_record, items))
            lowest, limit = records[-1].position, limit * 2
        record = records.popleft()
        if isinstance(record, Fence) or record.position > seq:
            continue
        if record.position < last.life:
            break
        _check_unchanged(record, last)
        if record.messages:
            highest = min(seq, record.last_seq)
            if known and highest < seq:
                raise Torn
            first = max(record.position, highest - n + 1)
            found.append(Stretch(record, first, highest))
            n -= highest - first + 1
        elif known:
            raise Torn
        seq, known = min(seq, record.after), True
    if known and seq > 0 and n > 0:
        raise Torn
    if not known and seq > 0:
        # Nothing was there to tell by its chain whether it was all; so the log's end must.
        standing, _ = yield from log.end()
        if standing.record is None or standing.record.token != last.token:
            raise Torn
    return found


def on(log: Log, last: Record, n: int, *, after: int, before: int) -> Plan[list[Stretch]]:
    """The first ``n`` living messages between the two seqs, oldest first."""
    found: list[Stretch] = []
    left, position = n, max(after + 1, last.life)
    while left > 0 and position <= last.revision and not (found and found[-1].last >= before):
        limit = min(left, MOST_RECORDS)
        items = yield from log.query(
            record_sort(position), record_sort(last.revision), limit=limit, forward=True
        )
        for record in map(decode_record, items):
            position = record.revision + 1
            if isinstance(record, Fence) or not record.messages:
                continue
            highest = last.below_dead(record.last_seq)
            if highest < record.position:
                continue
            _check_unchanged(record, last)
            if not found and record.after > after:
                found = yield from _between(log, last, after, record.after)
            if found and record.after != found[-1].last:
                raise Torn
            found.append(Stretch(record, record.position, highest))
        left = n - sum(part.last - part.first + 1 for part in found)
        if len(items) < limit:
            break
    if left > 0 and not (found and found[-1].last >= before):
        # The end was reached: nothing may be missing there.
        if not found and last.last_seq > after:
            found = yield from _between(log, last, after, last.last_seq)
        elif found and found[-1].last != last.last_seq:
            raise Torn
    return _first(n, found, before)


def messages(log: Log, stretches: Iterable[Stretch]) -> Plan[list[Message]]:
    """The messages of the stretches, in their order."""
    found: list[Message] = []
    for part in stretches:
        values = yield from bodies(log, part)
        found += [decode_body(value, seq=seq) for seq, value in enumerate(values, part.first)]
    return found


def bodies(log: Log, part: Stretch) -> Plan[list[dict[str, Any]]]:
    """The messages of the stretch as JSON values."""
    record = part.record
    low, high = part.first - record.position, part.last - record.position + 1
    if record.body is not None:
        return list(loads(record.body)[low:high])
    values: list[dict[str, Any]] = []
    start = item = 0
    for chunk in record.chunks:
        end = start + chunk.messages
        if start < high and end > low:
            items = yield from log.query(
                part_sort(record.parts, item),
                part_sort(record.parts, item + chunk.items - 1),
                limit=chunk.items,
                forward=True,
            )
            if len(items) < chunk.items:
                raise Torn
            text = opened(b"".join(bytes(item["b"]["B"]) for item in items))
            values += loads(text)[max(low - start, 0) : high - start]
        start, item = end, item + chunk.items
    return values


def _between(log: Log, last: Record, after: int, seq: int) -> Plan[list[Stretch]]:
    """The living messages behind ``after`` up to and with ``seq``, oldest first."""
    found = yield from back(log, last, seq - after, start=seq)
    inside = [
        Stretch(part.record, max(part.first, after + 1), part.last)
        for part in reversed(found)
        if part.last > after
    ]
    if not inside or inside[-1].last != seq:
        raise Torn
    return inside


def _first(n: int, stretches: Sequence[Stretch], before: int) -> list[Stretch]:
    kept: list[Stretch] = []
    for part in stretches:
        last = min(part.last, part.first + n - 1, before - 1)
        if last >= part.first:
            kept.append(Stretch(part.record, part.first, last))
            n -= last - part.first + 1
    return kept


def _check_unchanged(record: Record, last: Record) -> None:
    if record.rewritten > last.revision:
        raise Torn
