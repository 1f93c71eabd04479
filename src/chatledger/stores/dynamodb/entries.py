"""Entries in the table: how they are read, written, freed and copied by several plans."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from chatledger.errors import StoreMismatch
from chatledger.stores.dynamodb import bodies
from chatledger.stores.dynamodb.bodies import PreparedBody
from chatledger.stores.dynamodb.calls import CONDITION_FAILED, Call, CallFailed, Plan
from chatledger.stores.dynamodb.cleanup import DELETED_AFTER
from chatledger.stores.dynamodb.entry_items import (
    NAMES,
    EntryItem,
    decode_entry,
    encode_entry,
    entry_sort,
    next_sort,
    seen_condition,
)
from chatledger.stores.dynamodb.log import InconsistentRead, Log, LostRace, best_effort
from chatledger.stores.dynamodb.records import FIRST_ENTRY, LAST_ENTRY, Record, owner_partition
from chatledger.stores.dynamodb.table import LogEnd, Partition, Table
from chatledger.stores.dynamodb.ttl import ttl_of_entry
from chatledger.values import Json, dumps, time_of_id

PAGE = 200
"""The number of entries that are read at once to be freed, copied or skipped."""
TAKEN_OVER_AFTER = 5_000
"""A fork that has copied nothing for so long (ms) is taken to be dead by another to the same id."""


def owner_entries(table: Table, owner: str) -> Partition:
    """Return the place of an owner's entries."""
    return Partition(table, owner_partition(owner), f"owner {owner!r}")


# Reading ------------------------------------------------------------------------------------------


def read_item(place: Partition, name: str) -> Plan[EntryItem | None]:
    """Return the entry's item, by a consistent read; None if there is none."""
    item = yield from place.get(entry_sort(name))
    return None if item is None else decode_entry(item)


class ReadEntry(NamedTuple):
    """An entry with its value."""

    item: EntryItem
    value: Json
    size: int
    """The approximate size of the value, in characters of JSON."""


def read_value(place: Partition, entry: EntryItem) -> Plan[ReadEntry]:
    """Return an entry that is no tombstone with its value.

    Raises:
        InconsistentRead: Its body parts are gone: the entry has been changed since it was read.
    """
    read = yield from bodies.read_body(place, entry.record, 0, 1, most_bytes=inf)
    if not read.values:
        raise InconsistentRead
    return ReadEntry(entry, read.values[0], read.sizes[0])


def read_visible(
    place: Partition, last: Record | None, entry: EntryItem | None
) -> Plan[ReadEntry | None]:
    """Return an entry that was read with its value; None if readers do not see it.

    If it is put again meanwhile, its new value is returned.

    Args:
        place: Where the entry was read.
        last: The last record of the conversation, which is live; None for an owner.
        entry: The entry as it was read; None if there was none.

    Raises:
        StoreMismatch: A part of the value is missing from the table.
    """
    while entry is not None and entry.is_visible(last, place.table.time()):
        try:
            return (yield from read_value(place, entry))
        except InconsistentRead:
            missed, entry = entry, (yield from read_item(place, entry.name))
        # The parts of an entry are deleted after the item that names them has changed.
        if entry is not None and entry.body_token == missed.body_token:
            if not entry.is_visible(last, place.table.time()):
                return None
            raise StoreMismatch(
                f"A part of entry {entry.name!r} of {place.label} is missing from the table; put "
                "the entry again."
            )
    return None


def read_items(
    place: Partition, low: str, high: str = LAST_ENTRY, *, limit: int, names: tuple[str, ...] = ()
) -> Plan[tuple[list[EntryItem], str | None]]:
    """Return entries in the range of sort keys, and the sort key to continue at, or None."""
    items = yield from place.query(low, high, limit=limit, forward=True, names=names)
    found = [decode_entry(item) for item in items]
    return found, next_sort(found[-1].sort) if len(items) == limit else None


def all_items(place: Partition) -> Plan[dict[str, EntryItem]]:
    """Return all entries of any generation by their names, without their values."""
    found: dict[str, EntryItem] = {}
    following: str | None = FIRST_ENTRY
    while following is not None:
        page, following = yield from read_items(place, following, limit=PAGE, names=NAMES)
        found |= {entry.name: entry for entry in page}
    return found


# Writing ------------------------------------------------------------------------------------------


class Overtaken(Exception):
    """The entry is not as it was seen; nothing was written.

    Attributes:
        by: The item that is there, or None.
        is_known: False if an earlier attempt of the call may have landed before.
    """

    def __init__(self, by: EntryItem | None, *, is_known: bool) -> None:
        super().__init__(by, is_known)
        self.by = by
        self.is_known = is_known


def write(place: Partition, entry: EntryItem, seen: EntryItem | None) -> Plan[None]:
    """Write the entry if the item is exactly as it was ``seen``.

    So a write that arrives late, when others have followed it, does nothing.

    Raises:
        Overtaken: It is not.
    """
    condition, values = seen_condition(seen)
    yield from write_if(place, entry, condition, values)


def write_if(
    place: Partition, entry: EntryItem, condition: str, values: dict[str, Any], **params: Any
) -> Plan[Any]:
    """Write the entry on a condition; return the reply, or None if an earlier attempt landed.

    Raises:
        Overtaken: The condition failed.
    """
    put = place.put_params(encode_entry(place, entry), condition, **values)
    try:
        return (yield Call("PutItem", put | params))
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise
        by = decode_entry(failed.item) if failed.item else None
        if by is not None and by.token == entry.token:
            return None  # its reply was lost
        # What follows a write has a higher revision, and is not gone for a day.
        has_not_landed = by is None or by.revision < entry.revision
        raise Overtaken(by, is_known=has_not_landed or not failed.unknown) from failed


# Freeing ------------------------------------------------------------------------------------------


def free(place: Partition, entry: EntryItem, is_dead: Callable[[EntryItem], bool]) -> Plan[int]:
    """Free an entry that no reader sees any longer, and its body parts; return 1 if it was there.

    It becomes a tombstone with its token, by which its writer still recognises it, or is deleted if
    no writer can rely any longer on there being none. A writer of an owner's entry may rely on that
    without having read it, and so at any time.

    Args:
        place: Where the entry is.
        entry: The entry as it was seen.
        is_dead: Whether the entry is to be freed if it has changed since.
    """
    table = place.table
    while not entry.is_deleted and is_dead(entry):
        seen = entry
        condition, values = seen_condition(seen)
        try:
            is_old = table.time() - time_of_id(seen.token) > DELETED_AFTER
            if is_old and isinstance(place, Log):
                params = place.conditional_params(condition, **values)
                yield Call("DeleteItem", params | {"Key": place.key(seen.sort)})
            else:
                yield from write_if(
                    place, seen.tombstone(seen.token, table.time()), condition, values
                )
        except CallFailed as failed:
            if failed.code != CONDITION_FAILED:
                raise
            by = decode_entry(failed.item) if failed.item else None
        except Overtaken as overtaken:
            by = overtaken.by
        else:
            if seen.body_token:
                yield from bodies.delete_parts(place, seen.body_token)
            return 1
        if by is None:
            return 0
        entry = by
    return 0


def discard_parts(place: Partition, token: str) -> Plan[None]:
    """Delete the body parts of a value that no entry names any longer, if it has any.

    This is follow-up work; ``sweep`` frees what is left.
    """
    if token:
        parts = bodies.delete_parts(place, token)
        yield from best_effort(place, parts, "delete the parts of an entry")


def free_all(
    place: Partition,
    is_dead: Callable[[EntryItem], bool],
    *,
    deadline: float = inf,
    read_at: tuple[int, float] | None = None,
) -> Plan[bool]:
    """Free the entries that are dead; return False if the deadline passed before the end.

    Args:
        place: Where the entries are.
        is_dead: Whether no reader sees an entry any longer.
        deadline: The time, by the monotonic clock, after which no further entry is freed.
        read_at: When the log's end was read by which they are dead; None if it does not matter.

    Raises:
        InconsistentRead: The log's end was read too long ago.
    """
    following: str | None = FIRST_ENTRY
    while following is not None:
        page, following = yield from read_items(place, following, limit=PAGE, names=NAMES)
        for entry in page:
            if entry.is_deleted or not is_dead(entry):
                continue
            if place.table.monotonic() > deadline:
                return False
            if read_at is not None and not place.table.is_fresh(read_at):
                raise InconsistentRead
            yield from free(place, entry, is_dead)
    return True


# Copying ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CopiedEntries:
    """Copies the entries of a conversation to a fork, before the record that makes them visible.

    Attributes:
        mark: Of the copies of the current attempt; empty if there are none.
    """

    source: Log
    last: Record
    """The last record of the source."""
    target: Log
    mark: str = ""

    def copy(self, record: Record, end: LogEnd, seen: dict[str, EntryItem]) -> Plan[Record]:
        """Write copies of all entries for the generation that ``record`` is to begin.

        Args:
            record: The first record of the fork, which is not put yet.
            end: The target's end, after which it is to be put.
            seen: What there was under each name before the target's end was read.

        Returns:
            The record, changed to name the copies.

        Raises:
            InconsistentRead: The source has changed too much; or it, or the target, was read too
                long ago.
            LostRace: Another client has begun the target.
        """
        table, started = self.target.table, self.target.table.now()
        yield from self._stop_rivals(record, end, seen)
        # The last digits of a token are random.
        marked = record._replace(copied_entries=table.token()[-12:])
        following: str | None = FIRST_ENTRY
        while following is not None:
            page, following = yield from read_items(self.source, following, limit=PAGE)
            for entry in page:
                read = yield from read_visible(self.source, self.last, entry)
                if read is not None:
                    self.mark = marked.copied_entries
                    yield from self._write_copy(read, marked, seen.get(entry.name))
        # Had the source been deleted meanwhile, entries might have been freed before they were
        # read.
        source_end, _ = yield from self.source.read_end()
        now = source_end.live_record(table.time())
        if now is None or now.generation != self.last.generation or not table.is_fresh(started):
            raise InconsistentRead
        return marked if self.mark else record

    def _stop_rivals(self, record: Record, end: LogEnd, seen: dict[str, EntryItem]) -> Plan[None]:
        """Let another fork finish that is to begin the same generation, or end it if it is dead.

        It is ended by a closed record at its position, where it meets that instead of beginning a
        conversation without the copies that this fork overwrites.

        Raises:
            LostRace: There is such a fork; read the target again.
        """
        table = self.target.table
        copied_at = [
            time_of_id(entry.token)
            for entry in seen.values()
            if entry.copy_mark and entry.generation == record.generation and not entry.is_deleted
        ]
        age = table.time() - max(copied_at, default=0)
        if age > DELETED_AFTER:
            return
        if age > TAKEN_OVER_AFTER:
            spacer = record._replace(
                token=table.token(),
                width=1,
                messages=0,
                message_count=0,
                closed=True,
                initial_description=None,
                body=None,
                body_token="",
                ttl=None,
            )
            yield from self.target.put(spacer, end)
        raise LostRace

    def _write_copy(self, read: ReadEntry, record: Record, seen: EntryItem | None) -> Plan[None]:
        table, entry = self.target.table, read.item
        time = table.time()
        ttl = ttl_of_entry(table, record, entry.expiry, time)
        stored = yield from PreparedBody([dumps(read.value)]).store(self.target, ttl)
        copy = EntryItem(
            name=entry.name,
            token=table.token(),
            revision=max(time, 0 if seen is None else seen.revision + 1),
            updated_at=time,
            generation=record.generation,
            created_at=record.created_at,
            copy_mark=record.copied_entries,
            expiry=entry.expiry,
            body=stored.body,
            body_token=stored.token,
            part_count=stored.part_count,
            ttl=ttl,
        )
        try:
            yield from write(self.target, copy, seen)
        except Overtaken as overtaken:
            yield from discard_parts(self.target, copy.body_token)
            raise LostRace from overtaken
        if seen is not None:
            yield from discard_parts(self.target, seen.body_token)

    def discard(self) -> Plan[None]:
        """Delete the copies of the current attempt, which no record names."""
        mark, self.mark = self.mark, ""
        if mark:
            orphans = free_all(self.target, lambda entry: entry.copy_mark == mark)
            yield from best_effort(self.target, orphans, "delete the entries of a copy")
