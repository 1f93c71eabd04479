"""Cleanup: frees the storage of removed messages, in batches and within a time limit.

A removed record is replaced by a tombstone if another writer may still aim at its position, and
deleted if not.
"""

from math import inf
from typing import Any

from chatledger.stores.dynamodb import bodies
from chatledger.stores.dynamodb.bodies import BATCH_ITEMS, PreparedBody
from chatledger.stores.dynamodb.calls import Call, Plan, try_write
from chatledger.stores.dynamodb.log import InconsistentRead, Log, LostRace
from chatledger.stores.dynamodb.plans.read import Span, follow_chain, read_span
from chatledger.stores.dynamodb.records import (
    Record,
    decode_record,
    encode_record,
    encode_tombstone,
    record_sort,
)
from chatledger.stores.dynamodb.table import HOUR, TOMBSTONE_LIFETIME, ttl_at
from chatledger.values import dumps, time_of_id

PAGE = 1_000
"""The number of records that are read at once."""
DELETED_AFTER = 3 * HOUR
"""The age (ms) of a record from which no writer can aim at its position any longer.

A log end is used for at most an hour, and a record is put with a token that is at most an hour old.
The third hour allows for clocks that differ.
"""
_NAMES = ("sk", "v", "k", "l", "c", "u", "w", "n", "y", "j", "p")


def free_range(
    log: Log, first: int, last: int, deadline: float, *, read_at: tuple[int, float]
) -> Plan[int]:
    """Free the records at the positions from ``first`` to ``last``, all of which were removed.

    Args:
        log: The conversation's log.
        first: The first position.
        last: The last position.
        deadline: The time, by the monotonic clock, after which no further batch is started.
        read_at: When the log's end was read that says that they were removed.

    Returns:
        The position to continue at, or ``last + 1`` if all are freed.

    Raises:
        InconsistentRead: The process was frozen for so long that the positions may be in use again.
    """
    while first <= last:
        items = yield from log.query(
            record_sort(first), record_sort(last), limit=PAGE, forward=True, names=_NAMES
        )
        _check_fresh(log, read_at)
        batch: list[dict[str, Any]] = []
        for record in map(decode_record, items):
            if isinstance(record, Record):
                if len(batch) == BATCH_ITEMS:
                    yield from _write(log, batch, read_at)
                    batch, first = [], record.position
                    if log.table.monotonic() > deadline:
                        return first
                # The parts first: as long as the record exists, it names them to a later cleanup.
                if not (yield from bodies.delete_body(log, record, deadline)):
                    yield from _write(log, batch, read_at)
                    return record.position
                batch.append(_removal(log, record))
        yield from _write(log, batch, read_at)
        if len(items) < PAGE:
            break
        first = decode_record(items[-1]).revision + 1
        if log.table.monotonic() > deadline:
            return first
    return last + 1


def _check_fresh(log: Log, read_at: tuple[int, float]) -> None:
    """Raise ``InconsistentRead`` if what was just read may be of a later conversation."""
    if not log.table.is_fresh(read_at):
        raise InconsistentRead


def _removal(log: Log, record: Record) -> dict[str, Any]:
    time = log.table.time()
    if time - time_of_id(record.token) > DELETED_AFTER:
        return {"DeleteRequest": {"Key": log.key(record_sort(record.position))}}
    tombstone = encode_tombstone(log.id, record, ttl_at(time + TOMBSTONE_LIFETIME))
    return {"PutRequest": {"Item": tombstone}}


def _write(log: Log, batch: list[dict[str, Any]], read_at: tuple[int, float]) -> Plan[None]:
    # No conditions are needed: what was removed stays removed. These positions are used again only
    # if the whole log is deleted, and another one starts a day later.
    yield from bodies.write_batch(log.table, batch, what="free removed messages", read_at=read_at)


def free_truncated(
    log: Log, last: Record, *, read_at: tuple[int, float], seconds: float = inf
) -> Plan[Record]:
    """Free the messages that truncations removed, for at most ``Table.cleanup_seconds``.

    Args:
        log: The conversation's log. Its head must exist, because a missing head is rebuilt from a
            record that may be removed here.
        last: The log's last record.
        read_at: When it was read, or a time before it was put.
        seconds: A shorter time limit.

    Returns:
        ``last`` as it now is: its ``truncated`` are the ranges that are still to be freed.

    Raises:
        InconsistentRead: The conversation was changed meanwhile.
        LostRace: The conversation was changed meanwhile.
    """
    table = log.table
    if not last.truncated or not table.cleanup_seconds:
        return last
    deadline = table.monotonic() + min(table.cleanup_seconds, seconds)
    left = list(last.truncated)
    while left and table.monotonic() <= deadline:
        first, end = left[0]
        # First shorten the record that the truncation cut: only ``truncated`` hides its tail.
        before = yield from follow_chain(log, last, 1, start=first - 1)
        _check_fresh(log, read_at)
        is_cut = before and before[0].last < before[0].record.last_seq
        if is_cut and not (yield from _shorten_record(log, last, before[0], deadline)):
            break
        start = max(first, last.generation)
        at = yield from free_range(log, start, end, deadline, read_at=read_at)
        if at <= end:
            left[0] = (at if at > start else first, end)
            break
        left.pop(0)
    changed = last._replace(truncated=tuple(left))
    if changed.truncated != last.truncated:
        yield from _save_truncated(log, last, changed)
    return changed


def _save_truncated(log: Log, last: Record, changed: Record) -> Plan[None]:
    left = {"S": dumps(changed.truncated)} if changed.truncated else None
    update = log.update_params(
        record_sort(last.position),
        {"d": left},
        "#k = :k AND attribute_exists(#l)",
        k={"S": last.token},
    )
    if not (yield from try_write(Call("UpdateItem", update))):
        raise LostRace


def _shorten_record(log: Log, last: Record, span: Span, deadline: float) -> Plan[bool]:
    """Remove from a record's body the messages after ``span``; return False if time ran out.

    Raises:
        LostRace: The record was changed meanwhile.
    """
    record, kept = span.record, span.last - span.record.position + 1
    shorter = record._replace(
        messages=kept,
        message_count=record.message_count - (record.messages - kept),
        rewritten_at=last.position,
    )
    if record.body is not None or record.chunks:
        whole = Span(record, record.position, span.last)
        values = yield from read_span(log, last, whole)
        prepared = PreparedBody([dumps(value) for value in values])
        stored = yield from prepared.store(log, record.ttl)
        shorter = shorter._replace(
            body=stored.body, body_token=stored.token, part_count=stored.part_count, chunks=()
        )
        yield from rewrite_record(log, record, shorter)
        yield from bodies.delete_body(log, record)
        return True
    # First, while the record names these chunks: ``truncated`` hides them until all are deleted.
    if not (yield from bodies.delete_rest(log, record, kept, deadline)):
        return False
    chunk = yield from bodies.chunk_of(log, record, kept - 1)
    if chunk is None:
        raise InconsistentRead(span.last, last.token)
    if chunk.first + chunk.messages > kept:
        part = Span(record, record.position + chunk.first, span.last)
        values = yield from read_span(log, last, part)
        texts = [dumps(value) for value in values]
        shorter = yield from bodies.replace_chunk(log, shorter, chunk, texts)
    dropped = [old for old in record.replaced_chunks if old.first >= kept]
    remaining = tuple(old for old in shorter.replaced_chunks if old.first < kept)
    shorter = shorter._replace(replaced_chunks=remaining)
    yield from rewrite_record(log, record, shorter)
    if chunk.first + chunk.messages > kept:
        yield from bodies.delete_chunk(log, chunk)
    for old in dropped:
        yield from bodies.delete_chunk(log, old)
    return True


def rewrite_record(log: Log, record: Record, changed: Record) -> Plan[None]:
    """Replace ``record`` by ``changed`` unless another client has changed it.

    Raises:
        LostRace: Another client has changed it.
    """
    if not (yield from try_write(Call("PutItem", rewrite_params(log, record, changed)))):
        raise LostRace


def rewrite_params(log: Log, record: Record, changed: Record) -> dict[str, Any]:
    """Return the parameters of a put that replaces ``record`` if no other client has changed it."""
    seen = {"r": record.rewritten_at or None, "expires_at": record.ttl}
    conditions = [
        f"attribute_not_exists(#{name})" if value is None else f"#{name} = :{name}"
        for name, value in seen.items()
    ]
    return log.put_params(
        encode_record(log.id, changed),
        # A tombstone has the record's token too.
        " AND ".join(["#k = :k", "attribute_exists(#l)", *conditions]),
        k={"S": record.token},
        **{name: {"N": str(value)} for name, value in seen.items() if value is not None},
    )
