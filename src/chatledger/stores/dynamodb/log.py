"""One conversation's log: how its end is read, records are put after it, and attempts repeated."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from chatledger.backoff import backoff
from chatledger.errors import ChatledgerError, ConversationDamaged, NotFound, StoreUnavailable
from chatledger.stores.dynamodb.calls import (
    CANCELLED,
    CONDITION_FAILED,
    Attribute,
    Call,
    CallFailed,
    Plan,
    Wait,
    through,
)
from chatledger.stores.dynamodb.records import (
    FIRST_RECORD,
    HEAD,
    Record,
    Tombstone,
    decode_head,
    decode_record,
    encode_record,
    partition,
    record_sort,
)
from chatledger.stores.dynamodb.table import (
    CACHED_FOR,
    HOUR,
    LogEnd,
    Partition,
    RaceRetries,
    Table,
    ttl_at,
)
from chatledger.values import time_of_id

T = TypeVar("T")

logger = logging.getLogger("chatledger.stores")

READINGS_OF_DAMAGE = 3
"""How many further reads in a row must miss the same message until it counts as missing."""
FIRST_WAIT, LONGEST_WAIT = 0.01, 0.5
"""Bounds (s) of the waits between these reads."""
FOLLOW_UP_PATIENCE = 1.5
"""How long (s) a call of follow-up work is retried; the write itself has taken effect already."""


class InconsistentRead(Exception):
    """The items that were read do not belong to one moment, or some are missing; read again.

    Attributes:
        seq: The seq at which a message was expected and not found; None if the reason is another.
        end: The write token of the last record from which the read started, if ``seq`` is given.
    """

    def __init__(self, seq: int | None = None, end: str | None = None) -> None:
        super().__init__(seq, end)
        self.seq = seq
        self.end = end


class LostRace(Exception):
    """Another writer was first; nothing was written.

    Attributes:
        by: The item at the position that the record was to take, if it is known.
        extra_failed: True if a condition of the extra writes failed.
    """

    def __init__(self, by: Record | Tombstone | None = None, *, extra_failed: bool = False) -> None:
        super().__init__(by, extra_failed)
        self.by = by
        self.extra_failed = extra_failed


class Log(Partition):
    """The log of one conversation in ``table``."""

    def __init__(self, table: Table, conversation_id: str, *, consistent: bool = True) -> None:
        pk = partition(conversation_id)
        super().__init__(table, pk, f"conversation {conversation_id!r}", consistent=consistent)
        self.id = conversation_id

    def read_end(self, n: int = 1) -> Plan[tuple[LogEnd, list[Record | Tombstone]]]:
        """Read the log's end with its head, and the log's last ``n`` items, newest first."""
        read_at = self.table.now()
        items = yield from self.query(FIRST_RECORD, HEAD, limit=n + 1, forward=False)
        head = None
        if items and items[0]["sk"]["S"] == HEAD:
            head = decode_head(items.pop(0))
        records = [decode_record(item) for item in items]
        return LogEnd(records[0] if records else None, head, read_at), records

    def record_at(self, position: int) -> Plan[Record | Tombstone | None]:
        """Read the item that begins at ``position``."""
        item = yield from self.get(record_sort(position))
        return None if item is None else decode_record(item)

    def put(self, record: Record, after: LogEnd, *extra_writes: dict[str, Any]) -> Plan[None]:
        """Put the record at the next position after the log end ``after``.

        Args:
            record: The record, with this position.
            after: The log end, as it was read or cached.
            extra_writes: Further parts of the same transaction.

        Raises:
            LostRace: The position is taken, or a condition of the extra writes failed.
            InconsistentRead: The log end was read too long ago: later records may have been removed
                since, with their tombstones, so that a free position proves nothing.
            StoreUnavailable: The write token is too old, for example because the process was
                frozen. Cleanup takes the token's age for the record's age.
        """
        if not self.table.is_fresh(after.read_at):
            raise InconsistentRead
        if self.table.time() - time_of_id(record.token) > CACHED_FOR:
            raise StoreUnavailable(
                "The write took longer than an hour; read the conversation, and write again if "
                "necessary.",
                may_have_landed=True,
            )
        put = self.put_params(encode_record(self.id, record), "attribute_not_exists(#pk)")
        guards = self._guards_of_end(after.last)
        if not extra_writes and not guards:
            try:
                yield Call("PutItem", put)
            except CallFailed as failed:
                if failed.code != CONDITION_FAILED:
                    raise
                self._check_own(record, decode_record(failed.item) if failed.item else None)
            return
        parts = [{"Put": put}, *extra_writes, *guards]
        try:
            yield Call("TransactWriteItems", {"TransactItems": parts})
        except CallFailed as failed:
            if failed.code != CANCELLED:
                raise
            (_, item), *others = failed.reasons
            by = decode_record(item) if item else None
            if by is None and failed.unknown:
                # An earlier attempt may have landed and now makes these conditions fail, and AWS
                # need not report every part that failed.
                by = yield from self._read_after_unknown_outcome(record.position)
            extra_failed = any(code for code, _ in others[: len(extra_writes)])
            self._check_own(record, by, extra_failed=extra_failed)

    def _read_after_unknown_outcome(self, position: int) -> Plan[Record | Tombstone | None]:
        try:
            return (yield from self.record_at(position))
        except StoreUnavailable as unavailable:
            raise StoreUnavailable(str(unavailable), may_have_landed=True) from unavailable

    def _check_own(
        self, record: Record, by: Record | Tombstone | None, *, extra_failed: bool = False
    ) -> None:
        """Raise ``LostRace`` unless ``by``, the item at the record's position, has the same token.

        With the same token, even on a tombstone, an earlier attempt landed and its reply was lost.
        """
        if by is None or by.token != record.token:
            raise LostRace(by, extra_failed=extra_failed)

    def _guards_of_end(self, last: Record | Tombstone | None) -> list[dict[str, Any]]:
        """Return a condition check that the last item still exists, if TTL may delete it soon.

        Without it, of two writers that start a generation, one might read the log before that item
        is deleted and the other after. They would aim at different positions, and both succeed.
        """
        if last is None or last.ttl is None:
            return []
        if last.ttl > ttl_at(self.table.time() + 2 * HOUR):
            return []
        return [self.condition_check(last.position, "#k = :k", k={"S": last.token})]

    def position_free(self, position: int) -> dict[str, Any]:
        """Return a part of a transaction that fails unless the position is free."""
        return self.condition_check(position, "attribute_not_exists(#pk)")

    def condition_check(self, position: int, condition: str, **values: Attribute) -> dict[str, Any]:
        """Return a part of a transaction that fails unless the item there meets the condition."""
        where = {"Key": self.key(record_sort(position))}
        return {"ConditionCheck": self.conditional_params(condition, **values) | where}


# Attempts -----------------------------------------------------------------------------------------


def require_live(log: Log, log_end: LogEnd, owner: str | None) -> Record:
    """Return the last record of the conversation.

    Raises:
        NotFound: There is no live conversation for ``owner``.
    """
    last = log_end.live_record(log.table.time())
    if last is None or owner not in (None, last.owner):
        raise NotFound(log.id)
    return last


class MissedMessages:
    """Tells missing messages apart from messages that a read missed because of a rival."""

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


def best_effort(place: Partition, plan: Plan[object], what: str) -> Plan[bool]:
    """Run ``plan``, whose failure must not fail the operation; return whether it succeeded.

    The next writer or reader of the conversation, or ``sweep``, does the work that is left.

    Args:
        place: Where the work is done.
        plan: The follow-up work.
        what: The work, for a warning: "Could not ... of conversation 'x'".
    """
    try:
        yield from through(plan, _take_briefly)
    except (CallFailed, ChatledgerError, InconsistentRead, LostRace) as failed:
        if place.table.may_warn():
            reason = failed.code if isinstance(failed, CallFailed) else type(failed).__name__
            logger.warning("Could not %s of %s: %s", what, place.label, reason)
        return False
    return True


def _take_briefly(step: Call | Wait) -> Plan[object]:
    if isinstance(step, Call):
        step = step._replace(patience=FOLLOW_UP_PATIENCE)
    return (yield step)
