"""Plan that reads a whole history; ``segments`` explains why the result is consistent."""

from dataclasses import dataclass
from typing import Any

from chatledger.errors import StoreUnavailable
from chatledger.langchain.segments import (
    CLEARED_SEGMENTS,
    CLOSED,
    EXPIRES_AT,
    SEGMENTS,
    HistoryTable,
    ids_in,
    integer_in,
)
from chatledger.langchain.state import delete_cleared, missing_segment_error
from chatledger.stores.dynamodb.calls import Attribute, Call, Item, Plan, Wait

BATCH_KEYS = 100  # the limit of one BatchGetItem
READ_TRIES = 12


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """All items of a history, as they were read."""

    first: Item | None
    segments: tuple[tuple[str, Item], ...]
    """Ids and items of the segments, in order."""
    expires_at: int | None
    """Seconds since 1970, or None if the history does not expire."""

    @property
    def active_segment(self) -> str | None:
        """Id of the segment that takes appends, or None if no segment does."""
        if not self.segments or CLOSED in self.segments[-1][1]:
            return None
        return self.segments[-1][0]

    @property
    def items(self) -> tuple[Item, ...]:
        """The first item and the segments, in order."""
        first = () if self.first is None else (self.first,)
        return (*first, *(item for _, item in self.segments))


EMPTY_HISTORY = StoredHistory(None, (), None)


def read_history(table: HistoryTable, *, finish_clearing: bool = True) -> Plan[StoredHistory]:
    """Read all items of a history; an expired history is empty.

    With consistent reads, the result includes every append acknowledged before. A history of one
    item takes one request. One with segments takes two, plus one for each further 100 segments or
    16 MB.

    Args:
        finish_clearing: Whether to finish a clearing that was interrupted.

    Raises:
        StoreMismatch: A segment was deleted by other software.
        StoreUnavailable: The history was cleared again during each try.
    """
    consistent = table.consistent
    previous_ids: tuple[str, ...] = ()
    for tries in range(READ_TRIES):
        first = (yield table.get(None, consistent=consistent)).get("Item")
        if finish_clearing and (cleared := ids_in(first, CLEARED_SEGMENTS)):
            yield from delete_cleared(table, cleared)
        ids = ids_in(first, SEGMENTS)
        if not ids:
            expires_at = integer_in(first, table.ttl_attribute)
            if _has_expired(table, expires_at):
                return EMPTY_HISTORY
            return StoredHistory(first, (), expires_at)
        segments = yield from _read_segments(table, ids, consistent=consistent)
        if len(segments) == len(ids):
            expires_at = integer_in(segments[ids[-1]], EXPIRES_AT)
            if _has_expired(table, expires_at):
                return EMPTY_HISTORY
            return StoredHistory(first, tuple((id, segments[id]) for id in ids), expires_at)
        if ids == previous_ids:
            if ids[-1] not in segments and table.ttl_attribute in (first or {}):
                return EMPTY_HISTORY  # TTL deleted the last segment
            if _has_expired(table, integer_in(segments.get(ids[-1]), EXPIRES_AT)):
                return EMPTY_HISTORY
            missing_id = next(id for id in ids if id not in segments)
            raise missing_segment_error(table, missing_id)
        # The history may have been cleared between the two reads, or a replica may lag.
        consistent = True
        previous_ids = ids if tries else ()
    raise StoreUnavailable("The history was cleared repeatedly while it was read; try again.")


def _has_expired(table: HistoryTable, expires_at: int | None) -> bool:
    return expires_at is not None and expires_at <= table.now()


def _read_segments(
    table: HistoryTable, ids: tuple[str, ...], *, consistent: bool
) -> Plan[dict[str, Item]]:
    """Return the segments that exist, by id."""
    ids_by_key = {_key_text(table.key_of(id)): id for id in ids}
    keys = [table.key_of(id) for id in ids]
    segments: dict[str, Item] = {}
    empty_replies = 0
    while keys:
        batch, keys = keys[:BATCH_KEYS], keys[BATCH_KEYS:]
        request: dict[str, Any] = {table.name: {"Keys": batch, "ConsistentRead": consistent}}
        reply = yield Call("BatchGetItem", {"RequestItems": request})
        items = reply.get("Responses", {}).get(table.name, [])
        for item in items:
            segments[ids_by_key[_key_text({name: item[name] for name in table.key})]] = item
        unprocessed = reply.get("UnprocessedKeys", {}).get(table.name, {}).get("Keys", [])
        keys = unprocessed + keys  # the reply reached 16 MB, or DynamoDB throttles
        empty_replies = 0 if items or not unprocessed else empty_replies + 1
        if empty_replies == READ_TRIES:
            raise StoreUnavailable("DynamoDB did not return the whole history in time; try again.")
        if empty_replies:
            yield Wait(table.random.uniform(0, min(0.05 * 2**empty_replies, 2.0)))
    return segments


def _key_text(key: dict[str, Attribute]) -> str:
    return repr(sorted((name, sorted(value.items())) for name, value in key.items()))
