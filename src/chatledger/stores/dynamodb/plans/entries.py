"""Plans that put, read, list and delete entries.

A write reads the item first and then the log's end: if the conversation is live at that time, what
was seen is not of a later conversation with its id. The write is conditional on exactly what was
seen. A deletion of the conversation in between is concurrent with the write, whose result nobody
sees afterwards.

A read does it in the other order: whoever may see the conversation may see every value that it has
from then on. A value of a conversation that was deleted in between was current when it was deleted.
"""

from typing import NamedTuple

from chatledger.conversations import MAX_READ_BYTES
from chatledger.entries import Entries, Entry
from chatledger.errors import Conflict, NotFound, StoreUnavailable
from chatledger.stores.cursors import encode_cursor
from chatledger.stores.dynamodb.bodies import PreparedBody, StoredBody
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.entries import (
    PAGE,
    Overtaken,
    discard_parts,
    owner_entries,
    read_item,
    read_items,
    read_visible,
    write,
    write_if,
)
from chatledger.stores.dynamodb.entry_items import EntryItem, decode_entry, sort_range
from chatledger.stores.dynamodb.log import Log, require_live
from chatledger.stores.dynamodb.records import Record
from chatledger.stores.dynamodb.table import Partition, RaceRetries, Table
from chatledger.stores.dynamodb.ttl import ttl_of_entry
from chatledger.stores.operations import DeleteEntry, GetEntry, ListEntries, PutEntry
from chatledger.values import milliseconds


def entry(table: Table, operation: GetEntry) -> Plan[Entry]:
    """Return an entry as ``Store.entry`` promises."""
    key = operation.key
    place = _place(table, key.conversation_id, key.owner)
    last = yield from _last_record(place, key.owner)
    item = yield from read_item(place, key.name)
    found = yield from read_visible(place, last, item)
    if found is None:
        raise key.not_found()
    return found.item.as_entry(found.value)


def entries(table: Table, operation: ListEntries) -> Plan[Entries]:
    """Return entries as ``Store.entries`` promises."""
    limit = operation.limit
    place = _place(table, operation.conversation_id, operation.owner)
    last = yield from _last_record(place, operation.owner)
    low, high = sort_range(operation.prefix, operation.after)
    following: str | None = low
    found: list[Entry] = []
    hidden, most_bytes = 0, MAX_READ_BYTES
    while following is not None:
        # One more entry than is returned shows whether there are further ones. After many that
        # readers do not see, as many are read at once.
        wanted = max(limit + 1 - len(found), min(hidden, PAGE))
        page, following = yield from read_items(place, following, high, limit=wanted)
        for item in page:
            if not item.is_visible(last, table.time()):
                hidden += 1
                continue
            if len(found) == limit or (found and most_bytes < 0):
                return Entries(found, encode_cursor(0, found[-1].name))
            visible = yield from read_visible(place, last, item)
            if visible is None:
                continue
            found.append(visible.item.as_entry(visible.value))
            most_bytes -= visible.size
    return Entries(found, None)


def put_entry(table: Table, operation: PutEntry) -> Plan[Entry]:
    """Put an entry as ``Store.put_entry`` promises."""
    put = _Put(table, operation)
    try:
        return (yield from put.run())
    except (Conflict, NotFound):
        yield from put.discard()
        raise


class _Seen(NamedTuple):
    """The entry that was found under the name, and when it was read."""

    item: EntryItem | None
    at: tuple[int, float]


class _Put:
    """The attempts at one put, and the state that they share."""

    def __init__(self, table: Table, operation: PutEntry) -> None:
        self._table = table
        self._operation = operation
        self._key = operation.key
        self._place = _place(table, self._key.conversation_id, self._key.owner)
        self._prepared = PreparedBody([operation.text])
        self._stored: StoredBody | None = None
        self._stored_for: tuple[int, int] | None = None
        """The generation and creation time of the conversation for which the parts are stored."""
        self._stored_at: tuple[int, float] = (0, 0.0)

    def run(self) -> Plan[Entry]:
        table, operation, place = self._table, self._operation, self._place
        retries = RaceRetries(table)
        seen: _Seen | None = None
        # The condition of the write alone can check the revision of an owner's entry.
        trusts_revision = self._key.conversation_id is None and operation.revision is not None
        while True:
            written_at = table.now()
            try:
                if trusts_revision:
                    entry, replaced = yield from self._write_at_revision()
                    break
                found = yield from _find(place, operation, seen)
                if found.before is None and found.seen.item and operation.revision is not None:
                    yield from table.wait_until_expired(found.seen.item.expiry)
                yield from self._store_parts(found.last)
                if table.is_fresh(found.seen.at):
                    written_at = table.now()
                    entry = yield from self._write_after(found)
                    replaced = found.seen.item
                    break
                seen = None
            except Overtaken as overtaken:
                _require_known(overtaken)
                seen, trusts_revision = _Seen(overtaken.by, written_at), False
            yield from retries.back_off()
        if replaced is not None:
            yield from discard_parts(place, replaced.body_token)
        return entry.as_entry(operation.value)

    def discard(self) -> Plan[None]:
        """Delete the parts of a value that no entry names."""
        if self._stored is not None:
            yield from discard_parts(self._place, self._stored.token)
            self._stored = None

    def _write_after(self, found: "_Found") -> Plan[EntryItem]:
        time, seen = self._table.time(), found.seen.item
        if found.before is not None:
            revision = found.before.revision + 1
        else:
            # Higher than all that the name has had: what it had a day ago is below the time.
            revision = max(time, 0 if seen is None else seen.revision + 1)
        entry = self._new_item(revision, found.last, time)
        yield from write(self._place, entry, seen)
        return entry

    def _write_at_revision(self) -> Plan[tuple[EntryItem, EntryItem | None]]:
        """Write an owner's entry at the revision that the caller gave, unread.

        Returns:
            The entry, and what it has replaced.
        """
        time, expected = self._table.time(), self._operation.revision
        yield from self._store_parts(None)
        if not expected:
            entry = self._new_item(time, None, time)
            yield from write(self._place, entry, None)
            return entry, None
        entry = self._new_item(expected + 1, None, time)
        condition = (
            "#revision = :seen AND attribute_not_exists(#deleted) AND "
            "(attribute_not_exists(#x) OR #x > :now)"
        )
        values = {"seen": {"N": str(expected)}, "now": {"N": str(time)}}
        reply = yield from write_if(self._place, entry, condition, values, ReturnValues="ALL_OLD")
        return entry, None if reply is None else decode_entry(reply["Attributes"])

    def _new_item(self, revision: int, last: Record | None, time: int) -> EntryItem:
        expires_in, stored = self._operation.expires_in, self._stored
        assert stored is not None
        expiry = None if expires_in is None else time + milliseconds(expires_in)
        return EntryItem(
            name=self._key.name,
            token=self._table.token(),
            revision=revision,
            updated_at=time,
            generation=0 if last is None else last.generation,
            created_at=0 if last is None else last.created_at,
            expiry=expiry,
            body=stored.body,
            body_token=stored.token,
            part_count=stored.part_count,
            ttl=ttl_of_entry(self._table, last, expiry, time),
        )

    def _store_parts(self, last: Record | None) -> Plan[None]:
        """Store the value's body parts, unless an earlier attempt has, for this generation.

        Parts that are an hour old are stored anew: TTL would delete them before the entry if the
        others have been renewed since.
        """
        table, expires_in = self._table, self._operation.expires_in
        if expires_in is not None:
            table.require_clock()
        generation = None if last is None else (last.generation, last.created_at)
        if self._stored is not None:
            if not self._stored.token or (
                generation == self._stored_for and table.is_fresh(self._stored_at)
            ):
                return
            yield from self.discard()
        self._stored_at = table.now()
        time = table.time()
        expiry = None if expires_in is None else time + milliseconds(expires_in)
        ttl = ttl_of_entry(table, last, expiry, time)
        self._stored = yield from self._prepared.store(self._place, ttl)
        self._stored_for = generation


def delete_entry(table: Table, operation: DeleteEntry) -> Plan[None]:
    """Delete an entry as ``Store.delete_entry`` promises, by a tombstone."""
    key, retries = operation.key, RaceRetries(table)
    place = _place(table, key.conversation_id, key.owner)
    seen: _Seen | None = None
    while True:
        found = yield from _find(place, operation, seen)
        before, written_at = found.before, table.now()
        assert before is not None
        try:
            yield from write(place, before.tombstone(table.token(), table.time()), before)
            break
        except Overtaken as overtaken:
            _require_known(overtaken)
            seen = _Seen(overtaken.by, written_at)
        yield from retries.back_off()
    yield from discard_parts(place, before.body_token)


class _Found(NamedTuple):
    """The state on which a change of an entry is based."""

    seen: _Seen
    last: Record | None
    """The last record of the conversation, read after the item; None for an owner."""
    before: EntryItem | None
    """The entry, if readers see it."""


def _find(place: Partition, operation: PutEntry | DeleteEntry, seen: _Seen | None) -> Plan[_Found]:
    """Return the entry that is to be changed.

    Args:
        place: Where the entry is.
        operation: The change.
        seen: The item as a failed write has returned it; None to read it.

    Raises:
        Conflict: The entry has another revision than the change demands.
        NotFound: There is no entry to delete, or no live conversation for the owner.
    """
    table, key = place.table, operation.key
    while True:
        if seen is None or not table.is_fresh(seen.at):
            seen = yield from _read_seen(place, key.name)
        last = yield from _last_record(place, key.owner)
        before = _visible(seen.item, last, table.time())
        try:
            operation.check(None if before is None else before.revision)
        except (Conflict, NotFound):
            if last is None:
                raise
        else:
            if table.is_fresh(seen.at):
                return _Found(seen, last, before)
            continue
        # The item was seen before the log's end, perhaps before the conversation began.
        seen = yield from _read_seen(place, key.name)
        now = _visible(seen.item, last, table.time())
        operation.check(None if now is None else now.revision)


def _place(table: Table, conversation_id: str | None, owner: str | None) -> Partition:
    if conversation_id is not None:
        return Log(table, conversation_id)
    assert owner is not None
    return owner_entries(table, owner)


def _read_seen(place: Partition, name: str) -> Plan[_Seen]:
    at = place.table.now()
    return _Seen((yield from read_item(place, name)), at)


def _last_record(place: Partition, owner: str | None) -> Plan[Record | None]:
    """Return the last record of the conversation, or None if the entries are an owner's.

    Raises:
        NotFound: There is no live conversation for ``owner``.
    """
    if not isinstance(place, Log):
        return None
    log_end, _ = yield from place.read_end()
    return require_live(place, log_end, owner)


def _visible(seen: EntryItem | None, last: Record | None, time: int) -> EntryItem | None:
    return seen if seen is not None and seen.is_visible(last, time) else None


def _require_known(overtaken: Overtaken) -> None:
    """Raise ``StoreUnavailable`` if an earlier attempt may have landed, and others followed it."""
    if not overtaken.is_known:
        raise StoreUnavailable(
            "A reply was lost, and the entry has changed since; read it, and change it again if "
            "necessary.",
            may_have_landed=True,
        ) from overtaken
