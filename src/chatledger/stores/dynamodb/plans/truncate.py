"""Plans that remove messages from the end of a conversation."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from chatledger.conversations import Conversation
from chatledger.messages import StoredMessage
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.cleanup import free_truncated
from chatledger.stores.dynamodb.heads import conversation, describe, finish_write
from chatledger.stores.dynamodb.log import (
    InconsistentRead,
    Log,
    best_effort,
    require_live,
    retry_until_won,
)
from chatledger.stores.dynamodb.plans.read import (
    Span,
    count_messages,
    decode_span,
    read_backward,
    read_span,
)
from chatledger.stores.dynamodb.records import Record, Tombstone
from chatledger.stores.dynamodb.table import LogEnd, Table
from chatledger.stores.dynamodb.ttl import next_record, renew_ttls
from chatledger.stores.operations import Pop, Truncate


class Truncation(NamedTuple):
    """The fields of a record that removes every message after a seq."""

    last_seq: int
    """The last seq that stays."""
    message_count: int
    truncated: tuple[tuple[int, int], ...]

    def apply_to(self, record: Record) -> Record:
        """Return ``record``, changed to remove these messages; it follows all of them."""
        return record._replace(
            previous_seq=self.last_seq, message_count=self.message_count, truncated=self.truncated
        )


def plan_truncation(
    log: Log, last: Record, after: int, read: Sequence[Record | Tombstone] = ()
) -> Plan[Truncation]:
    """Return the truncation that removes every message after seq ``after``.

    Args:
        log: The conversation's log.
        last: Its last record.
        after: The highest seq that stays.
        read: The log's last items, newest first, if they have been read already.
    """
    kept = yield from read_backward(log, last, 1, start=after, read=read)
    last_seq = kept[0].last if kept else 0
    count = 0
    if kept:
        record = kept[0].record
        if record.removals == last.removals:
            count = record.message_count - (record.last_seq - last_seq)
        else:  # messages have been removed since, so that its count is out of date
            count = yield from _count_up_to(log, last, kept[0])
    earlier = tuple(span for span in last.truncated if span[0] <= last_seq)
    return Truncation(last_seq, count, (*earlier, (last_seq + 1, last.revision)))


def _count_up_to(log: Log, last: Record, span: Span) -> Plan[int]:
    """Return the number of messages up to the end of the span: count there, or after it.

    The messages after it may include one that is missing, which the truncation removes.
    """
    if span.record.message_count * 2 > last.message_count:
        try:
            later = yield from count_messages(log, last, after=span.last)
        except InconsistentRead as inconsistent:
            if inconsistent.seq is None:
                raise
        else:
            return last.message_count - later
    return (yield from count_messages(log, last, before=span.last + 1))


def clean_up(
    log: Log, record: Record, *, read_at: tuple[int, float], seconds: float = inf
) -> Plan[None]:
    """Free the messages that truncations removed, and cache the log's end again.

    This takes at most ``seconds``, and at most ``Table.cleanup_seconds``.
    """
    if not record.truncated:
        return

    def free() -> Plan[None]:
        freed = yield from free_truncated(log, record, read_at=read_at, seconds=seconds)
        log.table.cache_end(log.id, freed, read_at=read_at)

    yield from best_effort(log, free(), "free removed messages")


def truncate(table: Table, operation: Truncate) -> Plan[Conversation]:
    """Remove messages as ``Store.truncate`` promises."""
    log = Log(table, operation.conversation_id)

    def attempt() -> Plan[Conversation]:
        log_end, read = yield from log.read_end()
        last = require_live(log, log_end, operation.owner)
        description = yield from describe(log, last, log_end)
        if operation.after < last.last_seq:
            last = yield from remove_after(log, log_end, last, operation.after, read)
        return conversation(log.id, last, description)

    return (yield from retry_until_won(log, attempt))


def pop(table: Table, operation: Pop) -> Plan[list[StoredMessage]]:
    """Remove and return the last messages as ``Store.pop`` promises."""
    log = Log(table, operation.conversation_id)

    def attempt() -> Plan[list[StoredMessage]]:
        log_end, read = yield from log.read_end(operation.limit + 1)
        last = require_live(log, log_end, operation.owner)
        wanted = min(operation.limit, last.message_count)
        spans = yield from read_backward(log, last, wanted, start=last.last_seq, read=read)
        popped = []
        for span in reversed(spans):
            values = yield from read_span(log, last, span)
            popped += decode_span(span, values)
        if spans:
            yield from remove_after(log, log_end, last, spans[-1].first - 1, read)
        return popped

    return (yield from retry_until_won(log, attempt))


def remove_after(
    log: Log, log_end: LogEnd, last: Record, after: int, read: Sequence[Record | Tombstone]
) -> Plan[Record]:
    """Remove every message after seq ``after`` from all readers' sight with a single put.

    At least one message must have a higher seq. Returns the record that removes them.

    Raises:
        LostRace: A rival was faster.
    """
    truncation = yield from plan_truncation(log, last, after, read)
    last = yield from renew_ttls(log, last)
    record = truncation.apply_to(next_record(log.table, log_end, last, log.table.token()))
    yield from log.put(record, log_end)
    if (yield from finish_write(log, record, read_at=log_end.read_at)):
        yield from clean_up(log, record, read_at=log_end.read_at)
    return record
