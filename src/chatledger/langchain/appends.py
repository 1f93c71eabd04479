"""Plan of an append; ``segments`` explains why it is safe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatledger.errors import MessageTooLarge, StoreMismatch, StoreUnavailable
from chatledger.langchain.clearing import clear_expired
from chatledger.langchain.segment_cache import CachedSegment
from chatledger.langchain.segments import (
    CONDITION_FAILED,
    LARGEST_SEGMENT,
    HistoryTable,
    WriteToken,
    is_item_full,
    number_attribute,
)
from chatledger.langchain.spill import add_item
from chatledger.langchain.state import extend_ttls, read_state
from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan, Wait

APPEND_TRIES = 100
MAX_WAIT = 0.5


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Outcome of an append."""

    added_item: bool
    """True if the append continued the history in a further item."""
    elements: list[Attribute]
    """All elements of the item, if they were requested and no item was added; otherwise empty."""


def append_elements(
    table: HistoryTable,
    elements: Sequence[Attribute],
    cached: CachedSegment,
    *,
    return_values: str = "NONE",
) -> Plan[AppendResult]:
    """Append ``elements`` to a history, all of them or none.

    Tries the cached active segment first. If its condition fails, reads the state of the history
    and then either tries the segment that is active now, extends TTLs, adds an item, or clears an
    expired history, until the append succeeds.

    Args:
        return_values: DynamoDB's ``ReturnValues`` for the update.

    Raises:
        MessageTooLarge: A message does not fit in any item.
        StoreMismatch: The item does not contain a LangChain history.
        StoreUnavailable: Rivals won every race.
    """
    size = elements_size(elements)
    token = WriteToken.at(table.clock())
    active_segment = cached.get()
    for tries in range(APPEND_TRIES):
        if tries > 1:
            yield Wait(table.random.uniform(0, min(0.01 * 2 ** min(tries, 10), MAX_WAIT)))
        full = size > table.capacity(first=active_segment is None)
        if size <= LARGEST_SEGMENT:
            try:
                reply = yield _append_call(
                    table, active_segment, elements, size, token, return_values
                )
                cached.set(active_segment)
                return AppendResult(False, _returned_elements(reply, table))
            except CallFailed as failed:
                full = is_item_full(failed)
                if failed.code == CONDITION_FAILED:
                    if token.is_in(failed.item):  # an earlier try succeeded
                        cached.set(active_segment)
                        stored = _returned_elements({"Attributes": failed.item}, table)
                        return AppendResult(False, stored)
                    check_is_history(table, failed.item)
                elif not full:
                    raise
        cached.forget()
        state = yield from read_state(table)
        if state.has_expired(table.now()):
            yield from clear_expired(table, state)
            active_segment = None
            continue
        full = (full and active_segment == state.active_segment) or size > LARGEST_SEGMENT
        active_segment = state.active_segment
        if active_segment is not None and table.lifetime is not None:
            needed = table.now() + table.lifetime
            if state.min_ttl is None or state.min_ttl < needed:
                yield from extend_ttls(table, state)
                continue
        first = active_segment is None
        over_capacity = state.bytes > 0 and state.bytes + size > table.capacity(first=first)
        if full or over_capacity or state.closed:
            new_segment = yield from add_item(table, state, elements, token)
            if new_segment is not None:
                cached.set(new_segment)
                return AppendResult(True, [])
    raise StoreUnavailable(
        f"Other writers kept changing this history of table {table.name!r}; try again later."
    )


def elements_size(elements: Sequence[Attribute]) -> int:
    """Return the bytes of all elements together.

    Raises:
        MessageTooLarge: One of the elements does not fit in any item.
    """
    sizes = [1 + size_of(element) for element in elements]
    for n, size in enumerate(sizes):
        if size > LARGEST_SEGMENT:
            raise MessageTooLarge(f"messages[{n}]", size=size, limit=LARGEST_SEGMENT)
    return sum(sizes)


def check_is_history(table: HistoryTable, item: Item | None) -> None:
    """Raise ``StoreMismatch`` if the item's messages attribute is not a LangChain history."""
    history = (item or {}).get(table.messages_attribute)
    if history is None:
        return
    elements = history.get("L")
    if elements is None or (elements and "M" not in elements[0].get("M", {}).get("data", {})):
        raise not_a_history_error(table)


def not_a_history_error(table: HistoryTable) -> StoreMismatch:
    return StoreMismatch(
        f"Attribute {table.messages_attribute!r} of item {table.key} in table {table.name!r} is "
        "not a list of LangChain messages; other software seems to have written it, and it was "
        "left as it is. Name another attribute with history_messages_key, or use another table."
    )


def _append_call(
    table: HistoryTable,
    active_segment: str | None,
    elements: Sequence[Attribute],
    size: int,
    token: WriteToken,
    return_values: str,
) -> Call:
    first = active_segment is None
    now = table.now()
    values: dict[str, Attribute] = {
        ":new": {"L": [*elements]},
        ":token": {"S": token.text},
        ":tokenset": {"SS": [token.text]},
        ":size": number_attribute(size),
        ":room": number_attribute(table.capacity(first=first) - size),
        ":now": number_attribute(now),
    }
    conditions = ["NOT contains(#p, :token)", "(attribute_not_exists(#b) OR #b <= :room)"]
    if first:
        settings = ["#h = list_append(if_not_exists(#h, :none), :new)"]
        conditions += [
            "attribute_not_exists(#s)",
            "(attribute_not_exists(#t) OR NOT attribute_type(#t, :number) OR #t > :now)",
            # Do not mix messages with data that other software stores in this attribute.
            "(attribute_not_exists(#h[0]) OR attribute_type(#h[0].#d, :map))",
        ]
    else:
        settings = ["#h = list_append(#h, :new)"]
        conditions += [
            "attribute_exists(#o)",
            "attribute_not_exists(#c)",
            "(attribute_not_exists(#x) OR #x > :now)",
        ]
    if table.lifetime is not None:
        expires_at = number_attribute(now + table.lifetime)
        values[":expires"] = expires_at
        if first:
            settings.append("#t = :expires")
        else:
            settings += ["#x = :expires", "#t = :ttl"]
            conditions.append("#f >= :expires")
            values[":ttl"] = number_attribute(table.ttl_at(now))
    return table.update(
        active_segment,
        f"SET {', '.join(settings)} ADD #p :tokenset, #b :size REMOVE #q",
        condition=" AND ".join(conditions),
        values=values,
        names=token.sets,
        return_values=return_values,
    )


def _returned_elements(reply: Any, table: HistoryTable) -> list[Attribute]:
    elements: list[Attribute] = (
        reply.get("Attributes", {}).get(table.messages_attribute, {}).get("L", [])
    )
    return elements
