"""State of a stored history: its items, the one that takes appends, and when it expires."""

from dataclasses import dataclass
from typing import Any

from chatledger.errors import StoreMismatch
from chatledger.langchain.segments import (
    BYTES,
    CLEARED_SEGMENTS,
    CLOSED,
    CONDITION_FAILED,
    EXPIRES_AT,
    FIRST_ITEM_KEY,
    MIN_TTL,
    SEGMENTS,
    TTL_MARGIN,
    HistoryTable,
    ids_in,
    integer_in,
    number_attribute,
    string_list,
)
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item, Plan, Wait

BATCH_DELETES = 25  # the limit of one BatchWriteItem
DELETE_TRIES = 12


@dataclass(frozen=True, slots=True)
class HistoryState:
    """State of a history, as an append needs it."""

    ids: tuple[str, ...]
    """Ids of the segments, in order."""
    last: Item | None
    """The item that takes appends, without its messages, or None if it does not exist."""
    ttl_attribute: str

    @property
    def active_segment(self) -> str | None:
        """Id of the segment that takes appends; None is the first item."""
        return self.ids[-1] if self.ids else None

    @property
    def closed(self) -> bool:
        return CLOSED in (self.last or {})

    @property
    def bytes(self) -> int:
        return integer_in(self.last, BYTES) or 0

    @property
    def expires_at(self) -> int | None:
        """Seconds since 1970, or None if the history does not expire."""
        return integer_in(self.last, EXPIRES_AT if self.ids else self.ttl_attribute)

    @property
    def min_ttl(self) -> int | None:
        """Lower bound on the TTLs of all items but the last."""
        return integer_in(self.last, MIN_TTL)

    @property
    def ttl(self) -> int | None:
        """TTL of the last item."""
        return integer_in(self.last, self.ttl_attribute)

    def has_expired(self, now: int) -> bool:
        """Return whether the history has expired, even if TTL already deleted its last segment."""
        if self.ids and self.last is None:
            return True
        return self.expires_at is not None and self.expires_at <= now


def read_state(table: HistoryTable) -> Plan[HistoryState]:
    """Read the state of a history, and finish a clearing that was interrupted.

    Raises:
        StoreMismatch: The last segment was deleted by other software.
    """
    previous_ids: tuple[str, ...] = ()
    while True:
        of_first = (SEGMENTS, CLEARED_SEGMENTS, BYTES, table.ttl_attribute)
        first = (yield table.get(None, *of_first)).get("Item")
        if cleared := ids_in(first, CLEARED_SEGMENTS):
            yield from delete_cleared(table, cleared)
        ids = ids_in(first, SEGMENTS)
        if not ids:
            return HistoryState((), first, table.ttl_attribute)
        of_last = (FIRST_ITEM_KEY, CLOSED, EXPIRES_AT, MIN_TTL, BYTES, table.ttl_attribute)
        last = (yield table.get(ids[-1], *of_last)).get("Item")
        if last is not None or integer_in(first, table.ttl_attribute) is not None:
            return HistoryState(ids, last, table.ttl_attribute)
        if ids == previous_ids:
            raise missing_segment_error(table, ids[-1])
        previous_ids = ids  # the history may have been cleared between the two reads


def missing_segment_error(table: HistoryTable, id: str) -> StoreMismatch:
    return StoreMismatch(
        f"Item {table.key} in table {table.name!r} says that its messages continue in item "
        f"{table.key_of(id)}, which does not exist; other software seems to have deleted it. "
        "Restore it from a backup, or clear the history."
    )


def extend_ttls(table: HistoryTable, state: HistoryState) -> Plan[None]:
    """Extend the TTLs of all items but the last, so that they outlive an append made now."""
    assert table.lifetime is not None
    now = table.now()
    values = {
        ":ttl": number_attribute(table.ttl_at(now)),
        # Half a lifetime below the new TTLs, so that TTLs set recently need no update.
        ":bound": number_attribute(now + table.lifetime * 3 // 2),
        ":enough": number_attribute(now + table.lifetime * 3 // 2 + TTL_MARGIN),
    }
    for id in (None, *state.ids[:-1]):
        exists = "attribute_exists(#s)" if id is None else "attribute_exists(#o)"
        condition = f"{exists} AND (attribute_not_exists(#t) OR #t < :enough)"
        extension = table.update(id, "SET #t = :ttl", condition=condition, values=values)
        yield from call_conditionally(extension)
    bound = table.update(
        state.active_segment, "SET #f = :bound", condition="attribute_exists(#o)", values=values
    )
    yield from call_conditionally(bound)


def delete_cleared(table: HistoryTable, ids: tuple[str, ...]) -> Plan[None]:
    """Delete the segments ``ids`` of a cleared history, and its first item if that is empty."""
    if not (yield from delete_segments(table, ids)):
        return
    values = {":ended": string_list(ids)}
    empty = "(attribute_not_exists(#h) OR #h = :none)"
    condition = f"#e = :ended AND attribute_not_exists(#s) AND {empty}"
    if not (yield from call_conditionally(table.delete(condition, values))):
        # The first item has messages again, or a rival has already deleted it.
        unlisting = table.update(None, "REMOVE #e", condition="#e = :ended", values=values)
        yield from call_conditionally(unlisting)


def delete_segments(table: HistoryTable, ids: tuple[str, ...]) -> Plan[bool]:
    """Delete segments and return whether all are deleted; False if DynamoDB kept throttling."""
    requests: list[dict[str, Any]] = [{"DeleteRequest": {"Key": table.key_of(id)}} for id in ids]
    tries = 0
    while requests:
        batch, requests = requests[:BATCH_DELETES], requests[BATCH_DELETES:]
        reply = yield Call("BatchWriteItem", {"RequestItems": {table.name: batch}})
        unprocessed = reply.get("UnprocessedItems", {}).get(table.name, [])
        requests += unprocessed
        tries = tries + 1 if unprocessed else 0
        if unprocessed:
            if tries == DELETE_TRIES:
                return False
            yield Wait(table.random.uniform(0, min(0.05 * 2**tries, 2.0)))
    return True


def call_conditionally(call: Call) -> Plan[bool]:
    """Make a conditional call and return whether its condition held."""
    try:
        yield call
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        return False
    return True
