"""Steps that several plans share."""

import logging
from collections.abc import Callable
from typing import TypeVar

from chatledger.backoff import backoff
from chatledger.conversations import Conversation
from chatledger.errors import ChatledgerError, ConversationDamaged, NotFound, StoreUnavailable
from chatledger.stores.dynamodb import heads
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan, Wait, through
from chatledger.stores.dynamodb.log import InconsistentRead, Log, LostRace
from chatledger.stores.dynamodb.records import Record
from chatledger.stores.dynamodb.table import LogEnd, RaceRetries, Table
from chatledger.stores.dynamodb.ttl import base_at, ttl_for
from chatledger.values import to_datetime

T = TypeVar("T")

logger = logging.getLogger("chatledger.stores")

FOLLOW_UP_PATIENCE = 1.5
"""How long (s) a call of follow-up work is retried; the write itself has taken effect already."""
READINGS_OF_DAMAGE = 3
"""How many further reads in a row must miss the same message until it counts as missing."""
FIRST_WAIT, LONGEST_WAIT = 0.01, 0.5
"""Bounds (s) of the waits between these reads."""


# Reading ------------------------------------------------------------------------------------------


def require_live(log: Log, log_end: LogEnd, owner: str | None) -> Record:
    """Return the last record of the conversation.

    Raises:
        NotFound: There is no live conversation for ``owner``.
    """
    last = log_end.live_record(log.table.time())
    if last is None or owner not in (None, last.owner):
        raise NotFound(log.id)
    return last


def conversation(log: Log, last: Record, description: heads.Description) -> Conversation:
    """Return the conversation as it is after its record ``last``."""
    metadata_revision = description.metadata_revision
    return Conversation(
        id=log.id,
        owner=last.owner,
        title=description.title,
        metadata=description.metadata,
        created_at=to_datetime(last.created_at),
        updated_at=to_datetime(last.updated_at),
        message_count=last.message_count,
        revision=last.revision,
        expires_at=None if last.expiry is None else to_datetime(last.expiry),
        metadata_revision=(
            max(last.created_at, 0) if metadata_revision is None else metadata_revision
        ),
    )


def describe(
    log: Log, last: Record, log_end: LogEnd, *, at_once: bool = False
) -> Plan[heads.Description]:
    """Return the description; update the head if its writer died before doing so.

    With ``at_once``, every head that lags is updated: an operation that has nothing left to do
    because of an earlier call, which may have failed, must be seen in lists like any other.

    Raises:
        InconsistentRead: The conversation was written to meanwhile.
    """
    description = yield from heads.read_description(log, last, log_end.head)
    if heads.is_abandoned(log, last, log_end.head) or (
        at_once and heads.is_stale(last, log_end.head)
    ):
        yield from best_effort(log, heads.rebuild_head(log), "update the head")
    return description


class MissedMessages:
    """Tells a message that is missing from one that a read missed because of a rival."""

    def __init__(self) -> None:
        self._last = InconsistentRead()
        self._same = 0

    def add(self, log: Log, read: InconsistentRead) -> None:
        """Add a read; raise ``ConversationDamaged`` if several in a row missed the same message."""
        # An eventually consistent read may miss items that exist.
        self._same = self._same + 1 if log.consistent and read.args == self._last.args else 0
        self._last = read
        if read.seq is not None and self._same >= READINGS_OF_DAMAGE:
            raise ConversationDamaged(log.id, seq=read.seq)


def retry_inconsistent(log: Log, attempt: Callable[[], Plan[T]]) -> Plan[T]:
    """Repeat ``attempt`` until it reads the log as of one moment.

    Raises:
        ConversationDamaged: A message is missing, although nobody writes to the conversation.
        StoreUnavailable: The conversation keeps changing.
    """
    table = log.table
    deadline = table.monotonic() + table.patience
    missed, count = MissedMessages(), 0
    while True:
        try:
            return (yield from attempt())
        except InconsistentRead as inconsistent:
            missed.add(log, inconsistent)
            log.consistent, count = True, count + 1
        if table.monotonic() > deadline:
            raise StoreUnavailable("The conversation kept changing while it was read; try again.")
        yield Wait(backoff(table.random, count, first=FIRST_WAIT, longest=LONGEST_WAIT))


def retry_until_won(log: Log, attempt: Callable[[], Plan[T]]) -> Plan[T]:
    """Repeat ``attempt`` until no other writer is faster.

    Raises:
        ConversationDamaged: A message is missing, although nobody writes to the conversation.
        StoreUnavailable: Other writers were faster for ``RACE_PATIENCE`` times ``Table.patience``,
            or the conversation kept changing; nothing was written.
    """
    retries = RaceRetries(log.table)
    while True:
        try:
            return (yield from retry_inconsistent(log, attempt))
        except LostRace:
            yield from retries.back_off()


# Writing ------------------------------------------------------------------------------------------


def first_record(
    table: Table,
    log_end: LogEnd,
    token: str,
    *,
    owner: str | None,
    lifetime: int | None,
    width: int = 1,
    part_items: int = 0,
    at: int | None = None,
) -> Record:
    """Return the first record of a generation, to be put after ``log_end``.

    Args:
        table: The table.
        log_end: The log's end; its conversation, if there was one, is no longer live.
        token: The write token.
        owner: The owner of the conversation.
        lifetime: Its lifetime (ms); None if it does not expire.
        width: The number of positions that the record takes.
        part_items: The number of items that its body parts count as for TTLs.
        at: The time (ms) of the activity from which the lifetime counts; by default now.
    """
    time = table.time()
    at = time if at is None else at
    # Although clocks differ, a later generation must not have an earlier creation time.
    former = log_end.record
    created = time if former is None else max(time, former.created_at)
    record = Record(
        position=log_end.next,
        width=width,
        token=token,
        generation=log_end.next,
        owner=owner,
        created_at=created,
        updated_at=created,
    )
    if lifetime is None:
        return record
    items = 1 + part_items
    return record._replace(
        lifetime=lifetime,
        expiry=at + lifetime,
        items=items,
        ttl_base=base_at(at, lifetime),
        ttl=ttl_for(at, lifetime, items),
    )


def next_record(
    table: Table,
    log_end: LogEnd,
    last: Record,
    token: str,
    *,
    width: int = 1,
    part_items: int = 0,
    at: int | None = None,
) -> Record:
    """Return a record that continues the generation of ``last``, to be put after ``log_end``.

    ``last`` is the last record, with its TTLs renewed. The other arguments are those of
    ``first_record``.

    Raises:
        InconsistentRead: The conversation has expired meanwhile.
    """
    time = table.time()
    at = time if at is None else at
    if not last.is_live(time):
        raise InconsistentRead
    record = Record(
        position=log_end.next,
        width=width,
        token=token,
        generation=last.generation,
        owner=last.owner,
        created_at=last.created_at,
        # A clock that was set back must not make the conversation sink in its owner's list.
        updated_at=max(time, last.updated_at),
        previous_seq=last.last_seq,
        message_count=last.message_count,
        truncated=last.truncated,
        removals=last.removals,
    )
    if last.lifetime is None:
        return record
    record = record._replace(lifetime=last.lifetime, expiry=at + last.lifetime)
    if last.ttl is None:  # layout 1 has conversations that expire without TTLs
        return record
    items = last.items + 1 + part_items
    ttl = ttl_for(at, last.lifetime, items)
    base = last.ttl_base
    return record._replace(
        items=items,
        # TTL must not delete a record before the one before it, which would then be the last.
        ttl=max(last.ttl, ttl),
        ttl_base=None if base is None else min(base, base_at(at, last.lifetime)),
        min_ttl=None if last.min_ttl is None else min(last.min_ttl, ttl),
        renewal=last.renewal,
    )


def ttl_of_parts(
    table: Table, last: Record | None, lifetime: int | None, items: int, *, at: int | None = None
) -> int | None:
    """Return the TTL of the parts of a body whose record will follow ``last``.

    Args:
        table: The table.
        last: The last record of the generation; None if a new one starts.
        lifetime: The lifetime (ms) of a new generation; None if it does not expire.
        items: The number of items that the parts count as.
        at: The time (ms) of the activity from which the lifetime counts; by default now.
    """
    at = table.time() if at is None else at
    if last is None:
        return None if lifetime is None else ttl_for(at, lifetime, 1 + items)
    if last.ttl is None or last.lifetime is None:
        return None
    return ttl_for(at, last.lifetime, last.items + 1 + items)


def finish_write(log: Log, record: Record, *, read_at: tuple[int, float]) -> Plan[bool]:
    """Finish a write whose record was put: cache the log's end, and update the head.

    Return whether the head was updated. If not, it may be missing, and the generation's first
    record, from which it is created then, must not be freed.
    """
    if log.table.has_slept(read_at):
        # By now the conversation may be gone, and must not be listed again.
        return (yield from best_effort(log, heads.rebuild_head(log), "update the head"))
    log.table.cache_end(log.id, record, read_at=read_at)
    return (yield from best_effort(log, heads.update_head(log, record), "update the head"))


def best_effort(log: Log, plan: Plan[object], what: str) -> Plan[bool]:
    """Run ``plan``, whose failure must not fail the operation; return whether it succeeded.

    The next writer or reader of the conversation, or ``sweep``, does the work that is left.

    Args:
        log: The conversation's log.
        plan: The follow-up work.
        what: The work, for a warning: "Could not ... of conversation 'x'".
    """
    try:
        yield from through(plan, _take_briefly)
    except (CallFailed, ChatledgerError, InconsistentRead, LostRace) as failed:
        if log.table.may_warn():
            reason = failed.code if isinstance(failed, CallFailed) else type(failed).__name__
            logger.warning("Could not %s of conversation %r: %s", what, log.id, reason)
        return False
    return True


def _take_briefly(step: Call | Wait) -> Plan[object]:
    if isinstance(step, Call):
        step = step._replace(patience=FOLLOW_UP_PATIENCE)
    return (yield step)
