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
    History,
    WriteToken,
    bytes_of,
    is_item_full,
    min_of,
    number_attribute,
    number_in,
    split,
    texts_in,
)
from chatledger.stores.dynamodb.calls import (
    CONDITION_FAILED,
    Attribute,
    Call,
    CallFailed,
    Item,
    Plan,
    Wait,
    try_write,
)

MAX_APPEND_BYTES = 3 * 1024 * 1024
"""Limit on one append, because it may have to fit in one transaction, of at most 4 MB."""
BATCH_KEYS = 100  # the limit of one BatchGetItem
MAX_RACES = 100
"""Limit on how often an append or a clear is attempted, after rivals changed the history."""
TRIM_ATTEMPTS = 4
"""The most attempts to trim a history while rivals append to it."""
READ_ATTEMPTS = 12
BATCH_ATTEMPTS = 12


# Appends ------------------------------------------------------------------------------------------


def append_messages(
    history: History, elements: Sequence[Attribute], *, keep: int | None = None
) -> Plan[None]:
    """Append ``elements`` to a history, all of them or none.

    Usually this is one request. If the first item is full, a transaction appends them and moves the
    oldest messages to an archive.

    Args:
        history: The history.
        elements: The messages.
        keep: Number of last messages to keep; the others are deleted with a second request.

    Raises:
        MessageTooLarge: A message does not fit in an item, or all together are over the limit.
        StoreMismatch: The item does not contain a LangChain history, or other software filled it.
        StoreUnavailable: Rivals won every race.
    """
    first, has_moved = yield from _append(history, elements, return_item=bool(keep))
    if keep:
        yield from _trim(history, first, keep, has_moved=has_moved)


def _append(
    history: History, elements: Sequence[Attribute], *, return_item: bool
) -> Plan[tuple[Item | None, bool]]:
    """Append, and return the first item afterwards and whether messages moved to an archive."""
    size = _checked_size(elements)
    started = history.clock()
    token = WriteToken.at(started)
    for race in range(MAX_RACES):
        if race > 1:
            yield from _back_off(history, race)
        # After that time, the first item may have forgotten the token.
        if history.clock() - started > REPEAT_SECONDS:
            raise StoreUnavailable(
                "The append was interrupted for minutes; try again.", may_have_landed=True
            )
        first, item_full = None, False
        try:
            if size <= history.capacity:
                reply = yield _append_call(history, elements, size, token, return_item=return_item)
                return reply.get("Attributes"), False
        except CallFailed as failed:
            first, item_full = failed.item, is_item_full(failed)
            if failed.code != CONDITION_FAILED and not item_full:
                raise
        if first is None:
            first = (yield history.get()).get("Item")
        if token.is_in(first):
            return first, False  # an earlier attempt succeeded
        _check_is_history(history, first)
        if (yield from _prepare(history, first)):
            continue
        stored = bytes_of(history.messages_in(first))
        if item_full or stored + size > history.capacity:
            changed = yield from _append_and_move(history, first, elements, token)
            if changed is not None:
                return changed, True
        elif (number_in(first, BYTES) or 0) + size > history.capacity:
            # The old class removed messages, which it does not count.
            count = {BYTES: number_attribute(stored)}
            yield from try_write(history.swap(first, (history.messages_attribute,), count))
    raise _rivals_error(history)


def _append_call(
    history: History,
    elements: Sequence[Attribute],
    size: int,
    token: WriteToken,
    *,
    return_item: bool,
) -> Call:
    now = history.now()
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
        "#h": history.messages_attribute,
        "#t": history.ttl_attribute,
        "#b": BYTES,
        "#s": SEGMENTS,
        "#p": token.token_set,
        "#q": token.stale_set,
        "#d": "data",
    }
    values: dict[str, Attribute] = {
        ":new": {"L": [*elements]},
        ":none": {"L": []},
        ":token": {"S": token.text},
        ":tokens": {"SS": [token.text]},
        ":size": number_attribute(size),
        ":room": number_attribute(history.capacity - size),
        ":now": number_attribute(now),
        ":number": {"S": "N"},
        ":map": {"S": "M"},
    }
    if history.lifetime is not None:
        settings.append("#t = :expires")
        conditions.append("(attribute_not_exists(#a) OR #a.#m >= :expires)")
        names |= {"#a": ARCHIVES, "#m": "min_ttl"}
        values[":expires"] = number_attribute(now + history.lifetime)
    params = {
        "TableName": history.table_name,
        "Key": history.key,
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
        raise MessageTooLarge(
            "messages", size=size, limit=MAX_APPEND_BYTES, advice="append fewer messages at once"
        )
    return size


def _check_is_history(history: History, first: Item | None) -> None:
    elements = history.messages_in(first)
    if elements and "M" not in elements[0].get("M", {}).get("data", {}):
        raise history.not_a_history_error()


def _prepare(history: History, first: Item | None) -> Plan[bool]:
    """Make the history ready for an append; return whether anything had to be done."""
    history.check_layout(first)
    archives = Archives.in_item(first)
    expires_at = number_in(first, history.ttl_attribute)
    if SEGMENTS in (first or {}):
        yield from _convert_segments(history, first)
    elif expires_at is not None and expires_at <= history.now():
        unchanged = (*history.archive_attributes, history.ttl_attribute)
        yield from _remove_all(history, first, unchanged)
    elif archives is None:
        return False
    elif archives.removed_names:
        yield from _finish_removal(history, first)
    elif archives.have_expired(history.now()):
        yield from _swap_archives(history, first, archives.removed_before(archives.end))
    elif history.lifetime is not None and not archives.outlive(history.now() + history.lifetime):
        yield from _extend_archives(history, first, archives)
    else:
        return False
    return True


def _append_and_move(
    history: History, first: Item | None, elements: Sequence[Attribute], token: WriteToken
) -> Plan[Item | None]:
    """Append to a full first item, and move its oldest messages to archives.

    Returns the first item afterwards, or None if a rival changed it first.

    Args:
        history: The history.
        first: The first item as it was read.
        elements: The new messages.
        token: The token of the append.
    """
    everything = [*history.messages_in(first), *elements]
    kept = _last(everything, min(history.capacity // 4, bytes_of(everything) // 2))
    parts = split(everything[: len(everything) - len(kept)], LARGEST_ARCHIVE)
    tokens = (first or {}).get(token.token_set, {}).get("SS", ())
    changes: dict[str, Attribute | None] = {
        history.messages_attribute: {"L": kept},
        BYTES: number_attribute(bytes_of(kept)),
        token.token_set: {"SS": [*tokens, token.text]},
        token.stale_set: None,
    }
    min_ttl = number_in(first, history.ttl_attribute)
    if history.lifetime is not None:
        changes[history.ttl_attribute] = number_attribute(history.now() + history.lifetime)
        min_ttl = history.now() + 2 * history.lifetime
    archives = Archives.in_item(first) or Archives()
    if parts:
        changes[ARCHIVES] = archives.extended(len(parts), min_ttl).attribute
    ttl = None if min_ttl is None else min_ttl + TTL_MARGIN
    puts = [
        history.put_archive(archives.name(number), part, ttl)
        for number, part in enumerate(parts, archives.end)
    ]
    unchanged = (history.messages_attribute, history.ttl_attribute, *history.archive_attributes)
    swap = history.swap(first, unchanged, changes)
    if not (yield from _try_transaction(history, [*puts, {"Update": swap.params}])):
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


def _try_transaction(history: History, parts: Sequence[Item]) -> Plan[bool]:
    """Make a transaction and return whether its conditions held.

    It also returns False if the transaction succeeded, but was repeated because its response was
    lost.
    """
    try:
        yield Call("TransactWriteItems", {"TransactItems": [*parts]})
    except CallFailed as failed:
        codes = {code for code, _ in failed.reasons}
        if "ValidationError" in codes:
            raise StoreMismatch(
                f"Item {history.key} in table {history.table_name!r} is full, but not of messages, "
                "and has no room for another message; remove attributes that you added to it."
            ) from failed
        if "ConditionalCheckFailed" not in codes:
            raise
        return False
    return True


def _extend_archives(history: History, first: Item | None, archives: Archives) -> Plan[None]:
    """Extend the TTLs of the archives, so that they outlive an append made now."""
    assert history.lifetime is not None
    if number_in(first, history.ttl_attribute) is None:
        # The archives of a history that never expires must not expire, should this writer die now.
        changes = {history.ttl_attribute: number_attribute(history.now() + history.lifetime)}
        unchanged = (history.ttl_attribute, *history.archive_attributes)
        if not (yield from try_write(history.swap(first, unchanged, changes))):
            return
    min_ttl = history.now() + 2 * history.lifetime
    for name in archives.names:
        params = {
            "TableName": history.table_name,
            "Key": history.archive_key(name),
            "UpdateExpression": "SET #t = :ttl",
            "ConditionExpression": "attribute_exists(#o) AND "
            "(attribute_not_exists(#t) OR #t < :ttl)",
            "ExpressionAttributeNames": {"#t": history.ttl_attribute, "#o": FIRST_ITEM_KEY},
            "ExpressionAttributeValues": {":ttl": number_attribute(min_ttl + TTL_MARGIN)},
        }
        yield from try_write(Call("UpdateItem", params))
    yield from _swap_archives(history, first, replace(archives, min_ttl=min_ttl))


def _swap_archives(history: History, first: Item | None, archives: Archives) -> Plan[bool]:
    """Record ``archives`` in the first item, unless it has others now than in ``first``."""
    changes = {ARCHIVES: archives.attribute, SEGMENTS: None, CLEARED_SEGMENTS: None}
    return (yield from try_write(history.swap(first, history.archive_attributes, changes)))


def _convert_segments(history: History, first: Item | None) -> Plan[None]:
    """Turn the segments of an earlier version into archives, unless the history has changed.

    The messages of the first item came before those of the segments, and move to an archive, too.
    """
    assert first is not None
    archives = Archives.in_item(first)
    assert archives is not None
    last = (yield history.get(archives.names[-1])).get("Item")
    expires_at = number_in(last, SEGMENT_EXPIRES_AT)
    ttl = number_in(first, history.ttl_attribute)
    if last is None:
        if ttl is None:
            raise _missing_archive_error(history, archives.names[-1])
        expires_at = 0  # TTL deleted the segment
    last_ttl = number_in(last, history.ttl_attribute)
    bounds = [number_in(last, SEGMENT_MIN_TTL), None if last_ttl is None else last_ttl - TTL_MARGIN]
    archives = archives.with_segment_at_start(f"{archives.id}#first", min_of(bounds))
    put = history.put_archive(archives.names[0], history.messages_in(first), ttl)
    changes: dict[str, Attribute | None] = {
        history.messages_attribute: {"L": []},
        history.ttl_attribute: None if expires_at is None else number_attribute(expires_at),
        BYTES: None,
        ARCHIVES: archives.attribute,
        SEGMENTS: None,
        CLEARED_SEGMENTS: None,
    }
    unchanged = (history.messages_attribute, history.ttl_attribute, *history.archive_attributes)
    update = {"Update": history.swap(first, unchanged, changes).params}
    yield from _try_transaction(history, [put, update])


# Removals -----------------------------------------------------------------------------------------


def clear_history(history: History) -> Plan[None]:
    """Remove every message that the history has when this plan starts."""
    for race in range(MAX_RACES):
        if race > 1:
            yield from _back_off(history, race)
        try:
            yield history.delete(None, history.archive_attributes)
            return
        except CallFailed as failed:
            if failed.code != CONDITION_FAILED:
                raise
            first = failed.item
        if (yield from _remove_all(history, first, history.archive_attributes)):
            return
    raise _rivals_error(history)


def _remove_all(history: History, first: Item | None, unchanged: Sequence[str]) -> Plan[bool]:
    """Empty the history, unless one of the attributes ``unchanged`` is no longer as in ``first``.

    Returns whether the history was emptied.
    """
    archives = Archives.in_item(first)
    cleared = None if archives is None else archives.removed_before(archives.end)
    changes: dict[str, Attribute | None] = {
        history.messages_attribute: {"L": []},
        ARCHIVES: None if cleared is None else cleared.attribute,
        **dict.fromkeys((history.ttl_attribute, BYTES, SEGMENTS, CLEARED_SEGMENTS)),
    }
    if not (yield from try_write(history.swap(first, unchanged, changes))):
        return False
    if ARCHIVES in (first or {}):
        # Of an earlier version that continued the history beside this one.
        for name in texts_in(first or {}, SEGMENTS):
            key = history.archive_key(name)
            yield Call("DeleteItem", {"TableName": history.table_name, "Key": key})
    if cleared is not None:
        yield from _finish_removal(history, {ARCHIVES: cleared.attribute})
    return True


def _finish_removal(history: History, first: Item | None) -> Plan[None]:
    """Delete archives that are removed from the history, and the first item if nothing is left."""
    archives = Archives.in_item(first)
    assert archives is not None
    for name in archives.removed_names:
        key = history.archive_key(name)
        yield Call("DeleteItem", {"TableName": history.table_name, "Key": key})
    if archives.names:
        yield from _swap_archives(history, first, replace(archives, deleted=archives.start))
        return
    empty = (first or {}) | {history.messages_attribute: {"L": []}}
    unchanged = history.archive_attributes
    if not (yield from try_write(history.delete(empty, (history.messages_attribute, *unchanged)))):
        # The first item has messages again, or a rival has already deleted it.
        changes = dict.fromkeys((ARCHIVES, CLEARED_SEGMENTS))
        yield from try_write(history.swap(first, unchanged, changes))


def _trim(history: History, first: Item | None, keep: int, *, has_moved: bool) -> Plan[None]:
    """Remove all but the last ``keep`` messages, unless rivals keep changing them: they trim too.

    Archives are removed as a whole. If messages have just moved to one, all are read, to find out
    which are no longer needed.
    """
    for attempt in range(TRIM_ATTEMPTS):
        if attempt:
            first = (yield history.get()).get("Item")
        elements = history.messages_in(first)
        archives = Archives.in_item(first)
        trimmed = archives
        if archives is not None and len(elements) >= keep:
            trimmed = archives.removed_before(archives.end)
        elif archives is not None and has_moved:
            found = yield from _read_archives(history, archives.names, consistent=True)
            count, start = len(elements), archives.end
            while start > archives.start and count < keep:
                start -= 1
                count += len(history.messages_in(found.get(archives.name(start))))
            trimmed = archives.removed_before(start)
        if trimmed == archives and len(elements) <= keep:
            return
        changes: dict[str, Attribute | None] = {}
        # Appends of rivals do not matter where only archives are removed.
        unchanged = history.archive_attributes
        if len(elements) > keep:
            kept = elements[-keep:]
            unchanged = (history.messages_attribute, *unchanged)
            changes[history.messages_attribute] = {"L": kept}
            changes[BYTES] = number_attribute(bytes_of(kept))
        if trimmed is not None:
            changes[ARCHIVES] = trimmed.attribute
        if (yield from try_write(history.swap(first, unchanged, changes))):
            if trimmed is not None and trimmed.removed_names:
                yield from _finish_removal(history, {ARCHIVES: trimmed.attribute})
            return


# Reads --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HistoryContents:
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
    history: History, *, first: Item | None = None, finish_removal: bool = True
) -> Plan[HistoryContents]:
    """Read a history.

    With consistent reads, the result includes every append acknowledged before. A history without
    archives takes one request. One with archives takes two, plus one for each further 16 MB.

    Args:
        history: The history.
        first: The first item, if it has just been read.
        finish_removal: Whether to finish a clearing or trimming that was interrupted.

    Raises:
        StoreMismatch: An archive was deleted by other software.
        StoreUnavailable: The history was cleared again during each attempt.
    """
    consistent = history.consistent
    incomplete: Archives | None = None
    for attempt in range(READ_ATTEMPTS):
        if attempt:
            yield from _back_off(history, attempt)
        if first is None:
            first = (yield history.get(consistent=consistent)).get("Item")
        history.check_layout(first)
        elements = history.messages_in(first)
        expires_at = number_in(first, history.ttl_attribute)
        archives = Archives.in_item(first)
        has_segments = SEGMENTS in (first or {})
        if expires_at is not None and expires_at <= history.now() and not has_segments:
            return HistoryContents([], expires_at, has_expired=True)
        if archives is None:
            return HistoryContents(elements, expires_at)
        if finish_removal and archives.removed_names and not has_segments:
            yield from _finish_removal(history, first)
        names = [] if archives.have_expired(history.now()) else archives.names
        found = yield from _read_archives(history, names, consistent=consistent)
        archived = [each for name in names for each in history.messages_in(found.get(name))]
        if has_segments:
            last = found.get(names[-1])
            is_deleted = last is None and expires_at is not None  # by TTL
            expires_at = 0 if is_deleted else number_in(last, SEGMENT_EXPIRES_AT)
            if expires_at is not None and expires_at <= history.now():
                return HistoryContents([], expires_at, has_expired=True)
        if len(found) == len(names):
            # The messages of an earlier version's first item came before those of its segments.
            whole = elements + archived if has_segments else archived + elements
            return HistoryContents(whole, expires_at)
        if consistent and archives == incomplete:
            raise _missing_archive_error(history, next(name for name in names if name not in found))
        # The history may have been cleared between the two reads, or a replica may lag.
        incomplete = archives if consistent else None
        first, consistent = None, True
    raise StoreUnavailable("The history was cleared repeatedly while it was read; try again.")


def _read_archives(
    history: History, names: Sequence[str], *, consistent: bool
) -> Plan[dict[str, Item]]:
    """Return those of the archives that exist, by name."""
    keys = [history.archive_key(name) for name in names]
    names_by_key = {_key_text(key): name for key, name in zip(keys, names, strict=True)}
    found: dict[str, Item] = {}
    empty_replies = 0
    while keys:
        batch, keys = keys[:BATCH_KEYS], keys[BATCH_KEYS:]
        request: dict[str, Any] = {"Keys": batch, "ConsistentRead": consistent}
        reply = yield Call("BatchGetItem", {"RequestItems": {history.table_name: request}})
        items = reply.get("Responses", {}).get(history.table_name, [])
        for item in items:
            found[names_by_key[_key_text({name: item[name] for name in history.key})]] = item
        unprocessed = reply.get("UnprocessedKeys", {}).get(history.table_name, {}).get("Keys", [])
        keys = unprocessed + keys  # the reply reached 16 MB, or DynamoDB throttles
        empty_replies = 0 if items or not unprocessed else empty_replies + 1
        if empty_replies == BATCH_ATTEMPTS:
            raise StoreUnavailable("DynamoDB did not return the whole history in time; try again.")
        if empty_replies:
            yield from _back_off(history, empty_replies)
    return found


def _key_text(key: Item) -> str:
    return repr(sorted((name, sorted(value.items())) for name, value in key.items()))


# Shared -------------------------------------------------------------------------------------------


def _back_off(history: History, attempt: int) -> Plan[None]:
    yield Wait(backoff(history.random, attempt, first=0.02, longest=1.0))


def _rivals_error(history: History) -> StoreUnavailable:
    return StoreUnavailable(
        f"Other writers kept changing this history of table {history.table_name!r}; try again "
        "later."
    )


def _missing_archive_error(history: History, name: str) -> StoreMismatch:
    return StoreMismatch(
        f"Item {history.key} in table {history.table_name!r} says that some of its messages are in "
        f"item {history.archive_key(name)}, which does not exist; other software seems to have "
        "deleted it. Restore it from a backup, or clear the history."
    )
