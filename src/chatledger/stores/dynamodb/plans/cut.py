"""Cutting messages off: the record that does it, and what it leaves to do."""

from collections.abc import Sequence
from typing import NamedTuple

from chatledger.stores.dynamodb import bodies, reading
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.log import Log
from chatledger.stores.dynamodb.plans.common import afterwards, lives_for, remember, settle
from chatledger.stores.dynamodb.records import Fence, Record


class Cut(NamedTuple):
    """What a record says that cuts off every message behind a seq."""

    below: int
    """The last seq that is left."""
    message_count: int
    dead: tuple[tuple[int, int], ...]

    def by(self, record: Record) -> Record:
        """``record``, which goes behind all that is cut off, as the one that does it."""
        return record._replace(after=self.below, message_count=self.message_count, dead=self.dead)


def cut(log: Log, last: Record, after: int, read: Sequence[Record | Fence] = ()) -> Plan[Cut]:
    """What cuts off every message of ``last``'s conversation behind seq ``after``.

    ``read`` are the log's last records, newest first, where they have been read already.
    """
    left = yield from reading.back(log, last, 1, start=after, read=read)
    below = left[0].last if left else 0
    count = left[0].record.message_count - (left[0].record.last_seq - below) if left else 0
    before = tuple(gone for gone in last.dead if gone[0] <= below)
    return Cut(below, count, (*before, (below + 1, last.revision)))


def cut_off(log: Log, record: Record, *, since: int) -> Plan[None]:
    """Do what a record that is in, and cut messages off, leaves to do."""
    settled = yield from settle(log, record, lives_for(log.table, record), since=since)
    if settled is not None and (yield from afterwards(bury(log, settled))):
        remember(log, settled._replace(dead=()), since=since)


def bury(log: Log, cut: Record) -> Plan[None]:
    """Free what ``cut``, and cuts before it that were not finished, left dead.

    The conversation must have its head: one that is missing is made of a record that may be dead.
    """
    for first, last in cut.dead:
        yield from bodies.fence(log, max(first, cut.life), last)
        left = yield from reading.back(log, cut, 1, start=first - 1)
        if left and left[0].last < left[0].record.last_seq:
            yield from bodies.shorten(log, left[0], cut)
