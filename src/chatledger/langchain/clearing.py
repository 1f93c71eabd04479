"""Plan that clears a history; ``segments`` explains why it is safe while others write."""

from chatledger.langchain.segments import (
    CLEARED_SEGMENTS,
    CONDITION_FAILED,
    SEGMENTS,
    TOKEN_SETS,
    HistoryTable,
    ids_in,
    number_attribute,
    string_list,
)
from chatledger.langchain.state import HistoryState, call_conditionally, delete_cleared, read_state
from chatledger.stores.dynamodb.calls import Attribute, CallFailed, Item, Plan


def clear_history(table: HistoryTable) -> Plan[None]:
    """Remove every message that the history has when this plan starts."""
    one_item = "attribute_not_exists(#s) AND attribute_not_exists(#e)"
    while True:
        try:
            yield table.delete(one_item, {})
            return
        except CallFailed as failed:
            if failed.code != CONDITION_FAILED:
                raise
            item: Item | None = failed.item
        if cleared := ids_in(item, CLEARED_SEGMENTS):
            yield from delete_cleared(table, cleared)
        if ids := ids_in(item, SEGMENTS):
            closing = table.update(
                ids[-1], "SET #c = :true", condition="attribute_exists(#o)", values={}
            )
            yield from call_conditionally(closing)  # TTL may have deleted the segment
            if (yield from _detach_segments(table, ids)):
                return


def clear_expired(table: HistoryTable, state: HistoryState) -> Plan[None]:
    """Clear a history that has expired, unless it changed after ``state`` was read."""
    now: dict[str, Attribute] = {":now": number_attribute(table.now())}
    if not state.ids:
        expired = "attribute_not_exists(#s) AND #t <= :now"
        yield from call_conditionally(table.delete(expired, now))
        return
    if state.last is not None:
        closing = table.update(
            state.ids[-1],
            "SET #c = :true",
            condition="attribute_exists(#o) AND #x <= :now",
            values=now,
        )
        if not (yield from call_conditionally(closing)):
            current = yield from read_state(table)
            if current.last is not None:
                return
    yield from _detach_segments(table, state.ids)


def _detach_segments(table: HistoryTable, ids: tuple[str, ...]) -> Plan[bool]:
    """Empty the first item and delete its segments if they are ``ids``; return whether they are."""
    removed = ", ".join(f"#r{n}" for n in range(len(TOKEN_SETS)))
    detaching = table.update(
        None,
        f"SET #h = :none, #e = list_append(if_not_exists(#e, :none), :ids) "
        f"REMOVE #s, #t, #b, {removed}",
        condition="#s = :ids",
        values={":ids": string_list(ids)},
        names={f"#r{n}": name for n, name in enumerate(TOKEN_SETS)},
    )
    if not (yield from call_conditionally(detaching)):
        return False
    yield from delete_cleared(table, ids)
    return True
