"""Plans of a history in a LangChain table; ``stored_history`` explains why they are safe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatledger.backoff import backoff
from chatledger.errors import MessageTooLarge, StoreMismatch, StoreUnavailable
from chatledger.langchain.stored_history import (
    ARCHIVES,
    BYTES,
    CLEARED_SEGMENTS,
    FIRST_ITEM_KEY,
    LARGEST_ARCHIVE,
    REPEAT_SECONDS,
    SEGMENT_EXPIRES_AT,
    SEGMENT_MIN_TTL,
    SEGMENTS,
    TTL_MARGIN,
    Archives,
    HistoryTable,
    WriteToken,
    bytes_of,
    is_item_full,
    min_of,
    number_attribute,
    number_in,
    split,
)
from chatledger.stores.dynamodb.calls import (
    CONDITION_FAILED,
    Attribute,
    Call,
    CallFailed,
    Item,
    Plan,
    Wait,
)

MAX_APPEND_BYTES = 3 * 1024 * 1024
"""Limit on one append, because it may have to fit in one transaction, of at most 4 MB."""
BATCH_KEYS = 100  # the limit of one BatchGetItem
RACES = 100
"""Limit on how often an append or a clear tries again after a rival changed the history."""
READ_TRIES = 12
BATCH_TRIES = 12


# Appends ------------------------------------------------------------------------------------------


def append_messages(
    table: HistoryTable, elements: Sequence[Attribute], *, keep: int | None = None
) -> Plan[None]:
    """Append ``elements`` to a history, all of them or none.

    Usually this is one request. If the first item is full, a transaction appends them and moves the
    oldest messages to an archive.

    Args:
        table: The history.
        elements: The messages.
        keep: Number of last messages to keep; the others are deleted with a second request.

    Raises:
        MessageTooLarge: A message does not fit in an item, or all together are over the limit.
        StoreMismatch: The item does not contain a LangChain history, or other software filled it.
        StoreUnavailable: Rivals won every race.
    """
    first, has_moved = yield from _append(table, elements, return_item=bool(keep))
    if keep:
        yield from _trim(table, first, keep, has_moved=has_moved)


def _append(
    table: HistoryTable, elements: Sequence[Attribute], *, return_item: bool
) -> Plan[tuple[Item | None, bool]]:
    """Append, and return the first item afterwards and whether messages moved to an archive."""
    size = _checked_size(elements)
    started = table.clock()
    token = WriteToken.at(started)
    for race in range(RACES):
        if race > 1:
            yield from _back_off(table, race)
        if table.clock() - started > REPEAT_SECONDS:  # the first item may have forgotten the token
            raise StoreUnavailable(
                "The append was interrupted for minutes; try again.", may_have_landed=True
            )
        first, item_full = None, False
        try:
            if size <= table.capacity:
                reply = yield _append_call(table, elements, size, token, return_item=return_item)
                return reply.get("Attributes"), False
        except CallFailed as failed:
            first, item_full = failed.item, is_item_full(failed)
            if failed.code != CONDITION_FAILED and not item_full:
                raise
        if first is None:
            first = (yield table.get()).get("Item")
        if token.is_in(first):
            return first, False  # an earlier try succeeded
        _check_is_history(table, first)
        if (yield from _prepare(table, first)):
            continue
        stored = bytes_of(table.messages_in(first))
        if item_full or stored + size > table.capacity:
            changed = yield from _append_and_move(table, first, elements, token)
            if changed is not None:
                return changed, True
        elif (number_in(first, BYTES) or 0) + size > table.capacity:
            # The old class removed messages, which it does not count.
            count = {BYTES: number_attribute(stored)}
            yield from _holds(table.swap(first, (table.messages_attribute,), count))
    raise _rivals_error(table)


def _append_call(
    table: HistoryTable,
    elements: Sequence[Attribute],
    size: int,
    token: WriteToken,
    *,
    return_item: bool,
) -> Call:
    now = table.now()
    settings = ["#h = list_append(if_not_exists(#h, :none), :new)"]
    conditions = [
        "NOT contains(#p, :token)",
        "attribute_not_exists(#s)",
        "(attribute_not_exists(#b) OR #b <= :room)",
        "(attribute_not_exists(#t) OR NOT attribute_type(#t, :number) OR #t > :now)",
        # Do not mix messages with data that other software stores in this attribute.
        "(attribute_not_exists(#h[0]) OR attribute_type(#h[0].#d, :map))",
    ]
    names = {
        "#h": table.messages_attribute,
        "#t": table.ttl_attribute,
        "#b": BYTES,
        "#s": SEGMENTS,
        "#p": token.set,
        "#q": token.stale_set,
        "#d": "data",
    }
    values: dict[str, Attribute] = {
        ":new": {"L": [*elements]},
        ":none": {"L": []},
        ":token": {"S": token.text},
        ":tokens": {"SS": [token.text]},
        ":size": number_attribute(size),
        ":room": number_attribute(table.capacity - size),
        ":now": number_attribute(now),
        ":number": {"S": "N"},
        ":map": {"S": "M"},
    }
    if table.lifetime is not None:
        settings.append("#t = :expires")
        conditions.append("(attribute_not_exists(#a) OR #a.#m >= :expires)")
        names |= {"#a": ARCHIVES, "#m": "min_ttl"}
        values[":expires"] = number_attribute(now + table.lifetime)
    params = {
        "TableName": table.name,
        "Key": table.key,
        "UpdateExpression": f"SET {', '.join(settings)} ADD #p :tokens, #b :size REMOVE #q",
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    return Call("UpdateItem", params | ({"ReturnValues": "ALL_NEW"} if return_item else {}))


def _checked_size(elements: Sequence[Attribute]) -> int:
    for n, element in enumerate(elements):
        if (size := bytes_of([element])) > LARGEST_ARCHIVE:
            raise MessageTooLarge(f"messages[{n}]", size=size, limit=LARGEST_ARCHIVE)
    if (size := bytes_of(elements)) > MAX_APPEND_BYTES:
        raise MessageTooLarge("messages", size=size, limit=MAX_APPEND_BYTES)
    return size


def _check_is_history(table: HistoryTable, first: Item | None) -> None:
    elements = table.messages_in(first)
    if elements and "M" not in elements[0].get("M", {}).get("data", {}):
        raise table.not_a_history_error()


def _prepare(table: HistoryTable, first: Item | None) -> Plan[bool]:
    """Remove what keeps the history from taking appends; return whether anything did."""
    archives = Archives.in_item(first)
    expires_at = number_in(first, table.ttl_attribute)
    if SEGMENTS in (first or {}):
        yield from _convert_segments(table, first)
    elif expires_at is not None and expires_at <= table.now():
        unchanged = (*table.archive_attributes, table.ttl_attribute)
        yield from _remove_all(table, first, unchanged)
    elif archives is None:
        return False
    elif archives.removed_names:
        yield from _finish_removal(table, first)
    elif archives.have_expired(table.now()):
        yield from _swap_archives(table, first, archives.removed_before(archives.end))
    elif table.lifetime is not None and not archives.outlive(table.now() + table.lifetime):
        yield from _extend_archives(table, first, archives)
    else:
        return False
    return True


def _append_and_move(
    table: HistoryTable, first: Item | None, elements: Sequence[Attribute], token: WriteToken
) -> Plan[Item | None]:
    """Append to a full first item, and move its oldest messages to archives.

    Returns the first item afterwards, or None if a rival changed it first.

    Args:
        table: The history.
        first: The first item as it was read.
        elements: The new messages.
        token: The token of the append.
    """
    everything = [*table.messages_in(first), *elements]
    kept = _last(everything, min(table.capacity // 4, bytes_of(everything) // 2))
    parts = split(everything[: len(everything) - len(kept)], LARGEST_ARCHIVE)
    changes: dict[str, Attribute | None] = {
        table.messages_attribute: {"L": kept},
        BYTES: number_attribute(bytes_of(kept)),
        token.set: {"SS": [*(first or {}).get(token.set, {}).get("SS", ()), token.text]},
        token.stale_set: None,
    }
    min_ttl = number_in(first, table.ttl_attribute)
    if table.lifetime is not None:
        changes[table.ttl_attribute] = number_attribute(table.now() + table.lifetime)
        min_ttl = table.now() + 2 * table.lifetime
    archives = Archives.in_item(first) or Archives()
    if parts:
        changes[ARCHIVES] = archives.extended(len(parts), min_ttl).attribute
    ttl = None if min_ttl is None else min_ttl + TTL_MARGIN
    puts = [
        table.put_archive(archives.name(number), part, ttl)
        for number, part in enumerate(parts, archives.end)
    ]
    unchanged = (table.messages_attribute, table.ttl_attribute, *table.archive_attributes)
    swap = table.swap(first, unchanged, changes)
    if not (yield from _committed(table, [*puts, {"Update": swap.params}])):
        return None
    after = (first or {}) | changes
    return {name: value for name, value in after.items() if value is not None}


def _last(elements: Sequence[Attribute], size: int) -> list[Attribute]:
    """Return the last element, and as many of those before it as ``size`` bytes hold."""
    start = len(elements) - 1
    size -= bytes_of(elements[start:])
    while start and (size := size - bytes_of([elements[start - 1]])) >= 0:
        start -= 1
    return [*elements[start:]]


def _committed(table: HistoryTable, parts: Sequence[Item]) -> Plan[bool]:
    """Make a transaction and return whether its conditions held.

    False is also the answer if it succeeded, and was repeated because the response was lost.
    """
    try:
        yield Call("TransactWriteItems", {"TransactItems": [*parts]})
    except CallFailed as failed:
        codes = {code for code, _ in failed.reasons}
        if "ValidationError" in codes:
            raise StoreMismatch(
                f"Item {table.key} in table {table.name!r} is full, but not of messages, and has "
                "no room for another message; remove attributes that you added to it."
            ) from failed
        if "ConditionalCheckFailed" not in codes:
            raise
        return False
    return True


def _extend_archives(table: HistoryTable, first: Item | None, archives: Archives) -> Plan[None]:
    """Extend the TTLs of the archives, so that they outlive an append made now."""
    assert table.lifetime is not None
    if number_in(first, table.ttl_attribute) is None:
        # The archives of a history that never expires must not expire, should this writer die now.
        changes = {table.ttl_attribute: number_attribute(table.now() + table.lifetime)}
        unchanged = (table.ttl_attribute, *table.archive_attributes)
        if not (yield from _holds(table.swap(first, unchanged, changes))):
            return
    min_ttl = table.now() + 2 * table.lifetime
    for name in archives.names:
        params = {
            "TableName": table.name,
            "Key": table.archive_key(name),
            "UpdateExpression": "SET #t = :ttl",
            "ConditionExpression": "attribute_exists(#o) AND "
            "(attribute_not_exists(#t) OR #t < :ttl)",
            "ExpressionAttributeNames": {"#t": table.ttl_attribute, "#o": FIRST_ITEM_KEY},
            "ExpressionAttributeValues": {":ttl": number_attribute(min_ttl + TTL_MARGIN)},
        }
        yield from _holds(Call("UpdateItem", params))
    yield from _swap_archives(table, first, replace(archives, min_ttl=min_ttl))


def _swap_archives(table: HistoryTable, first: Item | None, archives: Archives) -> Plan[bool]:
    """Record ``archives`` in the first item, unless it has others now than in ``first``."""
    changes = {ARCHIVES: archives.attribute, SEGMENTS: None, CLEARED_SEGMENTS: None}
    return (yield from _holds(table.swap(first, table.archive_attributes, changes)))


def _convert_segments(table: HistoryTable, first: Item | None) -> Plan[None]:
    """Turn the segments of an earlier version into archives, unless the history has changed.

    The messages of the first item came before those of the segments, and move to an archive, too.
    """
    assert first is not None
    archives = Archives.in_item(first)
    assert archives is not None
    last = (yield table.get(archives.names[-1])).get("Item")
    expires_at = number_in(last, SEGMENT_EXPIRES_AT)
    ttl = number_in(first, table.ttl_attribute)
    if last is None:
        if ttl is None:
            raise _missing_archive_error(table, archives.names[-1])
        expires_at = 0  # TTL deleted the segment
    last_ttl = number_in(last, table.ttl_attribute)
    bounds = [number_in(last, SEGMENT_MIN_TTL), None if last_ttl is None else last_ttl - TTL_MARGIN]
    archives = archives.with_segment_at_start(f"{archives.id}#first", min_of(bounds))
    put = table.put_archive(archives.names[0], table.messages_in(first), ttl)
    changes: dict[str, Attribute | None] = {
        table.messages_attribute: {"L": []},
        table.ttl_attribute: None if expires_at is None else number_attribute(expires_at),
        BYTES: None,
        ARCHIVES: archives.attribute,
        SEGMENTS: None,
        CLEARED_SEGMENTS: None,
    }
    unchanged = (table.messages_attribute, table.ttl_attribute, *table.archive_attributes)
    update = {"Update": table.swap(first, unchanged, changes).params}
    yield from _committed(table, [put, update])


# Removals -----------------------------------------------------------------------------------------


def clear_history(table: HistoryTable) -> Plan[None]:
    """Remove every message that the history has when this plan starts."""
    for race in range(RACES):
        if race > 1:
            yield from _back_off(table, race)
        try:
            yield table.delete(None, table.archive_attributes)
            return
        except CallFailed as failed:
            if failed.code != CONDITION_FAILED:
                raise
            first = failed.item
        if (yield from _remove_all(table, first, table.archive_attributes)):
            return
    raise _rivals_error(table)


def _remove_all(table: HistoryTable, first: Item | None, unchanged: Sequence[str]) -> Plan[bool]:
    """Empty the history, unless one of the attributes ``unchanged`` is no longer as in ``first``.

    Returns whether the history was emptied.
    """
    archives = Archives.in_item(first)
    cleared = None if archives is None else archives.removed_before(archives.end)
    changes: dict[str, Attribute | None] = {
        table.messages_attribute: {"L": []},
        ARCHIVES: None if cleared is None else cleared.attribute,
        **dict.fromkeys((table.ttl_attribute, BYTES, SEGMENTS, CLEARED_SEGMENTS)),
    }
    if not (yield from _holds(table.swap(first, unchanged, changes))):
        return False
    if cleared is not None:
        yield from _finish_removal(table, {ARCHIVES: cleared.attribute})
    return True


def _finish_removal(table: HistoryTable, first: Item | None) -> Plan[None]:
    """Delete archives that are removed from the history, and the first item if nothing is left."""
    archives = Archives.in_item(first)
    assert archives is not None
    for name in archives.removed_names:
        yield Call("DeleteItem", {"TableName": table.name, "Key": table.archive_key(name)})
    if archives.names:
        yield from _swap_archives(table, first, replace(archives, deleted=archives.start))
        return
    empty = (first or {}) | {table.messages_attribute: {"L": []}}
    unchanged = table.archive_attributes
    if not (yield from _holds(table.delete(empty, (table.messages_attribute, *unchanged)))):
        # The first item has messages again, or a rival has already deleted it.
        changes = dict.fromkeys((ARCHIVES, CLEARED_SEGMENTS))
        yield from _holds(table.swap(first, unchanged, changes))


def _trim(table: HistoryTable, first: Item | None, keep: int, *, has_moved: bool) -> Plan[None]:
    """Remove all but the last ``keep`` messages, unless a rival changed the history: it trims too.

    Archives are removed as a whole. If messages have just moved to one, all are read, to find out
    which are no longer needed.
    """
    elements = table.messages_in(first)
    archives = Archives.in_item(first)
    trimmed = archives
    if archives is not None and len(elements) >= keep:
        trimmed = archives.removed_before(archives.end)
    elif archives is not None and has_moved:
        found = yield from _read_archives(table, archives.names, consistent=True)
        count, start = len(elements), archives.end
        while start > archives.start and count < keep:
            start -= 1
            count += len(table.messages_in(found.get(archives.name(start))))
        trimmed = archives.removed_before(start)
    if trimmed == archives and len(elements) <= keep:
        return
    kept = elements[-keep:]
    changes: dict[str, Attribute | None] = {
        table.messages_attribute: {"L": kept},
        BYTES: number_attribute(bytes_of(kept)),
    }
    if trimmed is not None:
        changes[ARCHIVES] = trimmed.attribute
    unchanged = (table.messages_attribute, ARCHIVES)
    is_trimmed = yield from _holds(table.swap(first, unchanged, changes))
    if is_trimmed and trimmed is not None and trimmed.removed_names:
        yield from _finish_removal(table, {ARCHIVES: trimmed.attribute})


# Reads --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """The messages of a history as they are stored.

    Attributes:
        elements: The messages, oldest first.
        expires_at: Seconds since 1970, or None if the history does not expire.
        has_expired: True if it has expired; then there are no messages.
    """

    elements: list[Attribute]
    expires_at: int | None
    has_expired: bool = False


def read_history(
    table: HistoryTable, *, first: Item | None = None, finish_removal: bool = True
) -> Plan[StoredHistory]:
    """Read a history.

    With consistent reads, the result includes every append acknowledged before. A history without
    archives takes one request. One with archives takes two, plus one for each further 16 MB.

    Args:
        table: The history.
        first: The first item, if it has just been read.
        finish_removal: Whether to finish a clearing or trimming that was interrupted.

    Raises:
        StoreMismatch: An archive was deleted by other software.
        StoreUnavailable: The history was cleared again during each try.
    """
    consistent = table.consistent
    incomplete: Archives | None = None
    for attempt in range(READ_TRIES):
        if attempt:
            yield from _back_off(table, attempt)
        if first is None:
            first = (yield table.get(consistent=consistent)).get("Item")
        elements = table.messages_in(first)
        expires_at = number_in(first, table.ttl_attribute)
        archives = Archives.in_item(first)
        has_segments = SEGMENTS in (first or {})
        if expires_at is not None and expires_at <= table.now() and not has_segments:
            return StoredHistory([], expires_at, has_expired=True)
        if archives is None:
            return StoredHistory(elements, expires_at)
        if finish_removal and archives.removed_names and not has_segments:
            yield from _finish_removal(table, first)
        names = [] if archives.have_expired(table.now()) else archives.names
        found = yield from _read_archives(table, names, consistent=consistent)
        archived = [each for name in names for each in table.messages_in(found.get(name))]
        if has_segments:
            last = found.get(names[-1])
            is_deleted = last is None and expires_at is not None  # by TTL
            expires_at = 0 if is_deleted else number_in(last, SEGMENT_EXPIRES_AT)
            if expires_at is not None and expires_at <= table.now():
                return StoredHistory([], expires_at, has_expired=True)
        if len(found) == len(names):
            # The messages of an earlier version's first item came before those of its segments.
            whole = elements + archived if has_segments else archived + elements
            return StoredHistory(whole, expires_at)
        if consistent and archives == incomplete:
            raise _missing_archive_error(table, next(name for name in names if name not in found))
        # The history may have been cleared between the two reads, or a replica may lag.
        incomplete = archives if consistent else None
        first, consistent = None, True
    raise StoreUnavailable("The history was cleared repeatedly while it was read; try again.")


def _read_archives(
    table: HistoryTable, names: Sequence[str], *, consistent: bool
) -> Plan[dict[str, Item]]:
    """Return those of the archives that exist, by name."""
    keys = [table.archive_key(name) for name in names]
    names_by_key = {_key_text(key): name for key, name in zip(keys, names, strict=True)}
    found: dict[str, Item] = {}
    empty_replies = 0
    while keys:
        batch, keys = keys[:BATCH_KEYS], keys[BATCH_KEYS:]
        request: dict[str, Any] = {table.name: {"Keys": batch, "ConsistentRead": consistent}}
        reply = yield Call("BatchGetItem", {"RequestItems": request})
        items = reply.get("Responses", {}).get(table.name, [])
        for item in items:
            found[names_by_key[_key_text({name: item[name] for name in table.key})]] = item
        unprocessed = reply.get("UnprocessedKeys", {}).get(table.name, {}).get("Keys", [])
        keys = unprocessed + keys  # the reply reached 16 MB, or DynamoDB throttles
        empty_replies = 0 if items or not unprocessed else empty_replies + 1
        if empty_replies == BATCH_TRIES:
            raise StoreUnavailable("DynamoDB did not return the whole history in time; try again.")
        if empty_replies:
            yield from _back_off(table, empty_replies)
    return found


def _key_text(key: Item) -> str:
    return repr(sorted((name, sorted(value.items())) for name, value in key.items()))


# Both ---------------------------------------------------------------------------------------------


def _holds(call: Call) -> Plan[bool]:
    """Make a conditional call and return whether its condition held."""
    try:
        yield call
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        return False
    return True


def _back_off(table: HistoryTable, attempt: int) -> Plan[None]:
    yield Wait(backoff(table.random, attempt, first=0.02, longest=1.0))


def _rivals_error(table: HistoryTable) -> StoreUnavailable:
    return StoreUnavailable(
        f"Other writers kept changing this history of table {table.name!r}; try again later."
    )


def _missing_archive_error(table: HistoryTable, name: str) -> StoreMismatch:
    return StoreMismatch(
        f"Item {table.key} in table {table.name!r} says that some of its messages are in item "
        f"{table.archive_key(name)}, which does not exist; other software seems to have deleted "
        "it. Restore it from a backup, or clear the history."
    )
