"""The plan that frees everything that no reader can see, conversation by conversation."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

from chatledger.errors import InvalidArgument
from chatledger.stores.dynamodb import bodies, heads
from chatledger.stores.dynamodb.calls import Call, Item, Plan, try_write
from chatledger.stores.dynamodb.cleanup import free_range, free_truncated
from chatledger.stores.dynamodb.entries import all_items, free, owner_entries
from chatledger.stores.dynamodb.entry_items import EntryItem, decode_entry
from chatledger.stores.dynamodb.log import Log, best_effort
from chatledger.stores.dynamodb.plans.delete import close_log, free_closed_log
from chatledger.stores.dynamodb.records import (
    FIRST_ENTRY,
    HEAD,
    Head,
    Record,
    ReplacedChunk,
    Tombstone,
    check_layout,
    conversation_of,
    decode_head,
    decode_record,
    owner_of,
)
from chatledger.stores.dynamodb.table import DAY, HOUR, Partition, Table, ttl_at
from chatledger.stores.operations import Sweep
from chatledger.values import dumps, time_of_id

CLOCK_SKEW = HOUR
"""The time (ms) after an expiry or a TTL from which a sweep acts on it."""
ORPHANED_AFTER = DAY + HOUR
"""The age (ms) from which a body part that no record names is an orphan."""
RECORD_NAMES = (
    *("pk", "sk", "v", "k", "l", "c", "u", "w", "n", "x"),
    *("d", "z", "y", "j", "p", "expires_at", "ce", "copy"),
)
HEAD_NAMES = ("life", "created_at", "revision", "deleted", "expiry")


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """The progress of a sweep.

    Attributes:
        examined: The number of items it has examined.
        freed: The number of things it has freed.
        cursor: The cursor with which another sweep continues here; None at the end.
    """

    examined: int
    freed: int
    cursor: str | None


def sweep(
    table: Table,
    operation: Sweep,
    *,
    progress: Callable[[SweepProgress], None] | None = None,
    cursor: str | None = None,
    segment: tuple[int, int] | None = None,
) -> Plan[int]:
    """Scan the table, and free everything that no reader can see.

    The scan is eventually consistent, which halves its price. So its findings are checked with
    consistent reads or conditions, unless later writes cannot change them. A conversation without
    garbage takes no further request.

    Args:
        table: The table.
        operation: The operation, which has no arguments of its own.
        progress: Called after each page.
        cursor: The start, from an earlier ``SweepProgress``.
        segment: The segment of the table to sweep: its number, from 0, and the number of segments.

    Raises:
        InvalidArgument: ``cursor`` or ``segment`` is invalid.
    """
    if segment is not None and not 0 <= segment[0] < segment[1]:
        raise InvalidArgument(
            "segment must be the number of a segment, from 0, and the number of segments."
        )
    # No caller waits for a sweep, and it may be paced: it frees everything, however long it takes.
    table = replace(table, cleanup_seconds=inf)
    names = (*RECORD_NAMES, *HEAD_NAMES)
    params: dict[str, Any] = {
        "TableName": table.name,
        "ProjectionExpression": ", ".join(f"#{name}" for name in names),
        "ExpressionAttributeNames": {f"#{name}": name for name in names},
    }
    if segment is not None:
        params |= {"Segment": segment[0], "TotalSegments": segment[1]}
    if cursor is not None:
        params["ExclusiveStartKey"] = _start(cursor)
    examined = freed = 0
    seen: _Seen | None = None
    while True:
        reply = yield Call("Scan", params)
        table.require_clock()
        # The items of a conversation are neighbours, in the order of their sort keys.
        for item in reply["Items"]:
            if seen is None or seen.pk != item["pk"]["S"]:
                if seen is not None:
                    freed += yield from _free_garbage(table, seen)
                seen = _Seen(item["pk"]["S"])
            seen.add(item, table.time())
        examined += len(reply["Items"])
        last = reply.get("LastEvaluatedKey")
        if last is None:
            if seen is not None:
                freed += yield from _free_garbage(table, seen)
            if progress is not None:
                progress(SweepProgress(examined, freed, None))
            return freed
        params["ExclusiveStartKey"] = last
        if progress is not None:
            # From the start of the current conversation, which is examined as a whole.
            at = {"pk": {"S": seen.pk}, "sk": {"S": " "}} if seen else last
            progress(SweepProgress(examined, freed, dumps([at["pk"]["S"], at["sk"]["S"]])))


@dataclass(slots=True)
class _Seen:
    """One conversation as a scan has seen it so far."""

    pk: str
    overdue: list[str] = field(default_factory=list)
    """Sort keys of items that TTL should have deleted."""
    parts: set[tuple[str, int]] = field(default_factory=set)
    """Old body parts that no record was seen to name: their tokens, and the indices of the first
    messages of their chunks."""
    stale: list[ReplacedChunk] = field(default_factory=list)
    """Chunks that a record has replaced or cut off."""
    entries: list[EntryItem] = field(default_factory=list)
    """The entries of a conversation, without their values."""
    first: Record | None = None
    last: Record | Tombstone | None = None
    head: Head | None = None

    def add(self, item: Item, time: int) -> None:
        check_layout(item)
        sort = item["sk"]["S"]
        ttl = int(item["expires_at"]["N"]) if "expires_at" in item else None
        if ttl is not None and ttl < ttl_at(time - CLOCK_SKEW):
            self.overdue.append(sort)
        elif sort.startswith("b#"):
            token, first = sort.split("#")[1:3]
            if time - time_of_id(token) > ORPHANED_AFTER:
                self.parts.add((token, int(first)))
        if sort == HEAD:
            self.head = decode_head(item)
        elif sort.startswith("m#"):
            record = decode_record(item)
            self.last = record
            if isinstance(record, Record):
                self.first = self.first or record
                self._name_parts(record)
        elif sort.startswith(FIRST_ENTRY):
            entry = decode_entry(item)
            # An owner's entries never lose the one to whom they belong.
            if not entry.is_deleted and owner_of(self.pk) is None:
                self.entries.append(entry)
            if entry.body_token:
                self.parts = {part for part in self.parts if part[0] != entry.body_token}

    def _name_parts(self, record: Record) -> None:
        """Remove the parts that the record names from ``parts``, and add its stale chunks."""
        if not record.body_token or not self.parts:
            return
        tokens = set(record.body_tokens)
        replaced = {chunk.first for chunk in record.replaced_chunks}
        named = {part for part in self.parts if part[0] in tokens}
        self.parts -= named
        if record.chunks:
            return
        self.stale += [
            ReplacedChunk(first, 0, token)
            for token, first in sorted(named)
            if token == record.body_token and (first in replaced or first >= record.messages)
        ]

    @property
    def orphans(self) -> set[str]:
        """The tokens of old body parts that no record was seen to name."""
        return {token for token, _ in self.parts}

    def needs_nothing(self, time: int) -> bool:
        """Return whether the conversation is live and there is nothing to free or to update."""
        last, head = self.last, self.head
        return (
            isinstance(last, Record)
            and last.is_live(time - CLOCK_SKEW)
            and not last.truncated
            and not self.overdue
            and not self.parts
            and not self.stale
            and not heads.is_stale(last, head)
            and self.first is not None
            and self.first.position >= last.generation
            and all(entry.belongs_to(last) for entry in self.entries)
        )


def _free_garbage(table: Table, seen: _Seen) -> Plan[int]:
    """Free the garbage in one partition; return how many things were freed."""
    owner = owner_of(seen.pk)
    if owner is not None:
        return (yield from _free_unnamed(owner_entries(table, owner), seen))
    if seen.needs_nothing(table.time()):
        return 0
    log = Log(table, conversation_of(seen.pk))
    freed = yield from _free_unnamed(log, seen)
    for chunk in seen.stale:
        # A chunk is never named again once it is replaced or cut off.
        yield from bodies.delete_chunk(log, chunk)
        freed += 1
    log_end, _ = yield from log.read_end()
    last, head = log_end.record, log_end.head
    for entry in seen.entries:
        if _is_dead(entry, last, table.time()):
            freed += yield from free(log, entry, lambda entry: _is_dead(entry, last, table.time()))
    if last is None:
        if head is not None and log_end.last is None:
            freed += yield from heads.delete_head(log, head)
        return freed
    if last.closed:
        if last.ttl is None:
            yield from best_effort(
                log, free_closed_log(log, last, read_at=log_end.read_at), "free the storage"
            )
            freed += 1
        return freed
    if _has_ended(table, last):
        # TTL would delete it only some lifetimes later. A new conversation may have started with
        # this id by now, so close_log checks again.
        yield from close_log(log, None, partial(_has_ended, table))
        return freed + 1
    if seen.first is not None and seen.first.position < last.generation:
        deadline = table.monotonic() + table.cleanup_seconds
        rest = free_range(log, 1, last.generation - 1, deadline, read_at=log_end.read_at)
        yield from best_effort(log, rest, "free an earlier generation")
        freed += 1
    if last.is_live(table.time()):
        if heads.is_stale(last, head) and not (
            yield from best_effort(log, heads.rebuild_head(log), "update the head")
        ):
            return freed
        if last.truncated:
            yield from best_effort(
                log, free_truncated(log, last, read_at=log_end.read_at), "free removed messages"
            )
            freed += 1
    return freed


def _is_dead(entry: EntryItem, last: Record | None, time: int) -> bool:
    """Return whether no reader will ever see the entry of a conversation with this last record.

    A fork writes entries before its record, of a generation that has yet to begin.
    """
    if last is not None and not last.closed and entry.belongs_to(last):
        return False
    if last is not None and entry.generation < last.generation:
        return True
    return time - time_of_id(entry.token) > ORPHANED_AFTER


def _free_unnamed(place: Partition, seen: _Seen) -> Plan[int]:
    """Free what TTL should have deleted, and old body parts that nothing names."""
    freed = 0
    for sort in seen.overdue:
        freed += yield from _delete_if_overdue(place, sort)
    named: set[str] = set()
    if seen.orphans:
        named = yield from _named_tokens(place)
    for token in sorted(seen.orphans - named):
        yield from bodies.delete_parts(place, token)
        freed += 1
    return freed


def _named_tokens(place: Partition) -> Plan[set[str]]:
    """Return the tokens of all bodies that records and entries name, by consistent reads."""
    named = {entry.body_token for entry in (yield from all_items(place)).values()}
    low = "m#"
    while True:
        items = yield from place.query(
            low, "m$", limit=1_000, forward=True, names=("sk", "v", "k", "l", "c", "u", "y", "j")
        )
        for record in map(decode_record, items):
            if isinstance(record, Record):
                named |= set(record.body_tokens)
        if len(items) < 1_000:
            return named
        low = items[-1]["sk"]["S"] + " "


def _delete_if_overdue(place: Partition, sort: str) -> Plan[bool]:
    """Delete an item whose TTL has passed; return False if it has been renewed meanwhile."""
    until = ttl_at(place.table.time() - CLOCK_SKEW)
    params = place.conditional_params("#expires_at < :until", until={"N": str(until)})
    return (yield from try_write(Call("DeleteItem", params | {"Key": place.key(sort)})))


def _has_ended(table: Table, last: Record) -> bool:
    return not last.is_live(table.time() - CLOCK_SKEW)


def _start(cursor: str) -> Item:
    try:
        pk, sk = json.loads(cursor)
        return {"pk": {"S": pk}, "sk": {"S": sk}}
    except (TypeError, ValueError):
        raise InvalidArgument("cursor does not come from a sweep; start without one.") from None
