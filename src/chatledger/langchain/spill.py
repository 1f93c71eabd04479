"""Plan that continues a history in a further item; ``segments`` explains why it is safe."""

from collections.abc import Sequence

from chatledger.errors import StoreMismatch
from chatledger.langchain.segments import (
    BYTES,
    CLOSED,
    CONDITION_FAILED,
    EXPIRES_AT,
    FIRST_ITEM_KEY,
    MIN_TTL,
    SEGMENTS,
    TTL_MARGIN,
    HistoryTable,
    WriteToken,
    ids_in,
    is_item_full,
    new_segment_id,
    number_attribute,
    string_list,
)
from chatledger.langchain.state import HistoryState, call_conditionally, delete_segments
from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan

SPILL_BYTES = 8 * 1024
"""Bytes of messages to move out of a first item that has no room for the segment list."""
SPILL_ELEMENTS = 100
"""Limit on the messages moved at once, because the update names each of them."""


def add_item(
    table: HistoryTable, state: HistoryState, elements: Sequence[Attribute], token: WriteToken
) -> Plan[str | None]:
    """Append ``elements`` in a new segment and return its id; it takes appends from then on.

    Returns None if a rival changed the history first, or if the first item had to be shortened to
    make room for the segment list. Then read the state again and retry.

    Raises:
        StoreMismatch: The first item is full of other attributes than messages.
    """
    last = state.active_segment
    if last is not None:
        closing = table.update(
            last,
            "SET #c = :true REMOVE #q",
            condition="attribute_exists(#o)",
            values={},
            names=token.sets,
        )
        if not (yield from call_conditionally(closing)):
            return None
    parts = _split(elements, table.capacity(first=False))
    ids = tuple(new_segment_id() for _ in parts)
    expiry = _expiry_attributes(table, state)
    for n, (id, part) in enumerate(zip(ids, parts, strict=True)):
        item = _segment_item(table, part, closed=n < len(ids) - 1) | expiry
        item[token.sets["#p"]] = {"SS": [token.text]}
        yield from call_conditionally(table.put(id, item))
    try:
        yield _list_segments_call(table, state, ids, expiry)
    except CallFailed as failed:
        if failed.code == CONDITION_FAILED and ids[0] in ids_in(failed.item, SEGMENTS):
            return ids[-1]  # an earlier try succeeded, and its response was lost
        full = is_item_full(failed)
        if failed.code != CONDITION_FAILED and not full:
            raise
        yield from delete_segments(table, ids)
        if full:
            yield from _spill_first_item(table, state)
        return None
    return ids[-1]


def _list_segments_call(
    table: HistoryTable, state: HistoryState, ids: tuple[str, ...], expiry: dict[str, Attribute]
) -> Call:
    """Return the update of the first item that appends ``ids`` to its segment list."""
    values: dict[str, Attribute] = {":ids": string_list(ids)}
    if state.active_segment is not None:
        known = len(state.ids)
        values |= {":known": number_attribute(known), ":last": {"S": state.active_segment}}
        return table.update(
            None,
            "SET #s = list_append(#s, :ids)",
            condition=f"size(#s) = :known AND #s[{known - 1}] = :last",
            values=values,
        )
    setting = "SET #s = :ids, #h = if_not_exists(#h, :none)"
    if table.lifetime is not None:
        setting += ", #t = :ttl"
        values[":ttl"] = expiry[table.ttl_attribute]
    return table.update(None, setting, condition="attribute_not_exists(#s)", values=values)


def _expiry_attributes(table: HistoryTable, state: HistoryState) -> dict[str, Attribute]:
    """Return the attributes of a new segment that concern expiry.

    These are its TTL, the expiry of the history, and the lower bound on the TTLs of other items.
    """
    ttl, expires_at, min_ttl = state.ttl, state.expires_at, state.min_ttl
    if state.active_segment is None:
        min_ttl = expires_at
    elif min_ttl is not None and ttl is not None:
        min_ttl = min(min_ttl, ttl - TTL_MARGIN)  # the last item becomes one of the others
    if table.lifetime is not None:
        now = table.now()
        ttl, expires_at = table.ttl_at(now), now + table.lifetime
        if state.active_segment is None:
            min_ttl = ttl - TTL_MARGIN  # the update that lists the segment sets the first TTL too
    numbers = {table.ttl_attribute: ttl, EXPIRES_AT: expires_at, MIN_TTL: min_ttl}
    return {name: number_attribute(value) for name, value in numbers.items() if value is not None}


def _segment_item(table: HistoryTable, elements: Sequence[Attribute], *, closed: bool) -> Item:
    size = sum(1 + size_of(element) for element in elements)
    item: Item = {
        FIRST_ITEM_KEY: {"M": table.key},
        table.messages_attribute: {"L": [*elements]},
        BYTES: number_attribute(size),
    }
    return item | {CLOSED: {"BOOL": True}} if closed else item


def _split(elements: Sequence[Attribute], capacity: int) -> list[list[Attribute]]:
    """Split the elements into lists that fit one item each."""
    parts: list[list[Attribute]] = []
    left = 0
    for element in elements:
        size = 1 + size_of(element)
        if not parts or size > left:
            parts.append([])
            left = capacity
        parts[-1].append(element)
        left -= size
    return parts


def _spill_first_item(table: HistoryTable, state: HistoryState) -> Plan[None]:
    """Move the last messages of the first item to a new segment, the first one in the list.

    Changes nothing if the history changed after ``state`` was read.
    """
    first = (yield table.get(None)).get("Item", {})
    elements: list[Attribute] = first.get(table.messages_attribute, {}).get("L", [])
    ids = ids_in(first, SEGMENTS)
    if ids != state.ids:
        return
    moved = 0
    moved_bytes = 0
    while moved < min(SPILL_ELEMENTS, len(elements)) and moved_bytes < SPILL_BYTES:
        moved += 1
        moved_bytes += 1 + size_of(elements[-moved])
    if not moved:
        raise StoreMismatch(
            f"Item {table.key} in table {table.name!r} is full, but not of messages, and has no "
            "room for another message; remove attributes that you added to it."
        )
    kept = len(elements) - moved
    id = new_segment_id()
    item = _segment_item(table, elements[kept:], closed=bool(ids))
    item |= _expiry_attributes(table, state)
    yield from call_conditionally(table.put(id, item))
    removed = ", ".join(f"#h[{n}]" for n in range(kept, len(elements)))
    values: dict[str, Attribute] = {
        ":ids": string_list([id]),
        ":known": string_list(ids),
        ":count": number_attribute(len(elements)),
        ":last": elements[-1],
    }
    same_list = "#s = :known" if ids else "attribute_not_exists(#s)"
    setting = "#s = list_append(:ids, if_not_exists(#s, :none))"
    if not ids and table.lifetime is not None:
        setting += ", #t = :ttl"
        values[":ttl"] = item[table.ttl_attribute]
    moving = table.update(
        None,
        f"SET {setting} REMOVE {removed}",
        condition=f"size(#h) = :count AND #h[{len(elements) - 1}] = :last AND {same_list}",
        values=values,
    )
    if not (yield from call_conditionally(moving)):
        listed_ids = ids_in((yield table.get(None, SEGMENTS)).get("Item"), SEGMENTS)
        if id not in listed_ids:  # otherwise an earlier try succeeded
            yield from delete_segments(table, (id,))
