"""The plan that makes a damaged conversation usable again."""

from math import inf
from typing import Any

from chatledger.conversations import Conversation, Description
from chatledger.stores.dynamodb import bodies, heads
from chatledger.stores.dynamodb.bodies import BodyWriter
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.heads import conversation, finish_write
from chatledger.stores.dynamodb.log import (
    InconsistentRead,
    Log,
    LostRace,
    best_effort,
    require_live,
    retry_until_won,
)
from chatledger.stores.dynamodb.plans.read import MAX_RECORDS
from chatledger.stores.dynamodb.plans.truncate import Truncation, clean_up
from chatledger.stores.dynamodb.records import Record, StoredDescription, decode_record, record_sort
from chatledger.stores.dynamodb.table import Table
from chatledger.stores.dynamodb.ttl import next_record, renew_ttls, ttl_of_parts
from chatledger.values import dumps


def repair(table: Table, conversation_id: str, *, owner: str | None) -> Plan[Conversation]:
    """Put one record that contains the messages still readable, in place of all other records."""
    log = Log(table, conversation_id)

    def attempt() -> Plan[Conversation]:
        log_end, _ = yield from log.read_end()
        last = require_live(log, log_end, owner)
        try:
            description = yield from heads.read_description(log, last, log_end.head)
        except InconsistentRead:
            # The first record, which had it, is missing too.
            description = StoredDescription(Description())
        last = yield from renew_ttls(log, last)
        items = last.message_count
        writer = BodyWriter(log, ttl_of_parts(table, last, None, items), items=items)
        complete = yield from _rescue(log, last, writer)
        if complete and writer.messages == last.message_count:
            yield from _discard(log, writer)
            return conversation(log.id, last, description)
        try:
            stored = yield from writer.finish()
            record = next_record(
                table,
                log_end,
                last,
                table.token(),
                width=max(writer.messages, 1),
                part_items=stored.items,
            )
            everything = Truncation(0, 0, ((last.generation, last.revision),))
            record = stored.attach_to(everything.apply_to(record))
            yield from log.put(record, log_end)
        except (InconsistentRead, LostRace):
            yield from _discard(log, writer)
            raise
        if (yield from finish_write(log, record, read_at=log_end.read_at)):
            yield from clean_up(log, record, read_at=log_end.read_at)
        return conversation(log.id, record, description)

    return (yield from retry_until_won(log, attempt))


def _rescue(log: Log, last: Record, writer: BodyWriter) -> Plan[bool]:
    """Write every readable message to ``writer``; return whether no message was missing."""
    complete, position = True, last.generation
    while True:
        items = yield from log.query(
            record_sort(position), record_sort(last.revision), limit=MAX_RECORDS, forward=True
        )
        for record in map(decode_record, items):
            position = record.revision + 1
            if not isinstance(record, Record) or not record.messages:
                continue
            high = last.below_truncated(record.last_seq) - record.position + 1
            at, checked = 0, False
            while at < high:
                body = yield from bodies.read_body(log, record, at, high, most_bytes=inf)
                values: list[dict[str, Any]] = body.values if body.first == at else []
                yield from writer.add([dumps(value) for value in values if value is not None])
                at += len(values)
                if at == high:
                    break
                # A cleanup may have stored the body anew since the record was read.
                if not checked and (yield from log.record_at(record.position)) != record:
                    raise InconsistentRead
                complete, checked, at = False, True, at + 1
        if len(items) < MAX_RECORDS:
            return complete


def _discard(log: Log, writer: BodyWriter) -> Plan[None]:
    parts = bodies.delete_parts(log, writer.token)
    yield from best_effort(log, parts, "delete the parts of a repair")
