"""TTL attributes, such that DynamoDB never deletes an item of a live conversation.

A conversation's lifetime is fixed when it starts. If it has one, each of its items has a TTL from
its first write on; otherwise none ever has. Activity moves the conversation's expiry ahead, so the
TTLs must be renewed now and then. No append should have to renew them all at once, however long the
conversation is: an append renews at most ``RENEWED_ITEMS``.

That suffices because later items of a generation have later TTLs. The TTL of item ``i`` is
``ttl_base`` plus ``i / 25`` lifetimes, with a ``ttl_base`` about three lifetimes after the write.
Once the base is less than two lifetimes ahead, appends renew the items in order, 25 each. Two
appends to a live conversation are less than a lifetime apart, so the n-th of them comes less than n
lifetimes later, and has renewed the first 25 n items by then: each item is renewed before its TTL.
A renewed item gets the TTL of the generation's last item, which lasts until the next renewal
reaches it.

``least_ttl`` computes from the records themselves how long all items last. An append that would
move the expiry beyond that renews more items until it would not. Only conversations of layout 1
need this: their TTLs do not grow with the number of items.

Entries have no place in that order, and nobody knows their number. They are renewed by themselves,
in the order of their names, 25 an append too, from two lifetimes ahead on (``Record.entry_ttls``).
That usually takes less than a lifetime. If it does not, an append renews more of them until it may
move the expiry: at most one write for an entry in a lifetime, as for any other item. An entry that
is put meanwhile has a TTL that suits the renewal (``ttl_of_entry``).
"""

from chatledger.errors import StoreUnavailable
from chatledger.stores.dynamodb.calls import Attribute, Call, Item, Plan, try_write
from chatledger.stores.dynamodb.entry_items import (
    NAMES,
    EntryItem,
    decode_entry,
    next_sort,
    ttl_of_own_life,
)
from chatledger.stores.dynamodb.log import InconsistentRead, Log
from chatledger.stores.dynamodb.records import (
    FIRST_ENTRY,
    HEAD,
    LAST_ENTRY,
    EntryTTLs,
    Record,
    Renewal,
    Tombstone,
    decode_record,
    part_prefix,
    record_sort,
)
from chatledger.stores.dynamodb.table import DAY, HOUR, SECOND, LogEnd, Table, ttl_at

RENEWED_ITEMS = 25
"""The most items that one append renews, except in a conversation of layout 1."""
READ_RECORDS = 100
"""The number of records that a renewal reads at once; those that need no renewal are skipped."""
RENEWAL_SLACK = HOUR // SECOND
"""How much later (s) than necessary a renewed TTL is, so that a retry renews nothing twice."""
CLOCK_SKEW = HOUR
"""The least time (ms) between the expiry and any TTL, since clocks differ."""
ENTRY_SLACK = 4 * HOUR // SECOND
"""How much later (s) than necessary the TTL of a new entry is: a renewal that begins while it is
written may miss it. Its writer relies on what it read for an hour, the call may be under way for
another, and its clock may be an hour behind."""
_NAMES = ("sk", "v", "k", "l", "c", "u", "w", "m", "y", "j", "r", "expires_at")
"""The attributes of records that a renewal reads."""
_SEEN: tuple[str, ...] = ("k", "l", "r")
"""The attributes that must not have changed since they were read when a record is renewed."""


def ttl_for(time: int, lifetime: int, items: int) -> int:
    """Return the TTL of an item.

    It is more than a day after the conversation's expiry, so that a writer that has cached the
    log's end finds the positions after it still taken.

    Args:
        time: The time of the write (ms).
        lifetime: The lifetime of the conversation (ms).
        items: The number of items of the generation, up to and including this one.
    """
    return base_at(time, lifetime) + growth(lifetime, items)


def base_at(time: int, lifetime: int) -> int:
    """Return the ``ttl_base`` (s) of items that are written at ``time``."""
    return ttl_at(time + max(3 * lifetime + 2 * CLOCK_SKEW, lifetime + DAY + 2 * HOUR))


def least_ttl(last: Record) -> int:
    """Return a lower bound (s) on the TTLs of all items of the generation of ``last``."""
    assert last.lifetime is not None
    if last.renewal is None:
        return last.min_ttl or 0 if last.ttl_base is None else last.ttl_base
    done = last.renewal.base + growth(last.lifetime, last.renewal.items)
    if last.ttl_base is None:
        return min(last.min_ttl or 0, done)
    return min(last.ttl_base + growth(last.lifetime, last.renewal.item_index), done)


def renew_ttls(log: Log, last: Record, *, at: int | None = None) -> Plan[Record]:
    """Renew the TTLs that are due before an activity; return ``last`` with the progress made.

    Makes no call unless a renewal is due.

    Args:
        log: The conversation's log.
        last: Its last record.
        at: The time (ms) of the activity, which moves the expiry; by default now.

    Raises:
        InconsistentRead: The conversation was written to meanwhile.
        ClockSkewed: The conversation has a lifetime, and this clock is too far off to extend it.
        StoreUnavailable: A conversation of layout 1 has more items, or one of any layout more
            entries, than could be renewed within ``Table.patience``. Those that were renewed need
            no renewal in the next attempt.
    """
    if last.lifetime is None:
        return last
    table = log.table
    table.require_clock()
    if last.ttl is None:
        return last
    at = table.time() if at is None else at
    needed = ttl_at(at + last.lifetime + CLOCK_SKEW)
    due = ttl_at(at + 2 * last.lifetime + 2 * CLOCK_SKEW)
    last = yield from _renew_entries(log, last, needed=needed, due=due)
    if last.renewal is None and least_ttl(last) >= max(needed, due):
        return last
    deadline = table.monotonic() + table.patience
    last = yield from _renew_some(log, last, at)
    while least_ttl(last) < needed:
        _require_time(table, deadline)
        last = yield from _renew_some(log, last, at)
    return last


def _require_time(table: Table, deadline: float) -> None:
    if table.monotonic() > deadline:
        raise StoreUnavailable(
            "The conversation's items could not all be renewed in time; try again.",
            may_have_landed=False,
        )


def _renew_some(log: Log, last: Record, at: int) -> Plan[Record]:
    """Renew up to ``RENEWED_ITEMS`` items, continuing where the last append stopped."""
    assert last.lifetime is not None
    renewal = last.renewal
    if renewal is None:
        base = base_at(at, last.lifetime)
        renewal = Renewal(last.generation, "", 0, last.position, base, last.items)
        yield from _renew_head(log, last, _target(last, renewal))
    ttl, renewed = _target(last, renewal), 0
    items = yield from log.query(
        record_sort(renewal.position),
        record_sort(renewal.until),
        limit=READ_RECORDS,
        forward=True,
        names=_NAMES,
    )
    for item in items:
        record = decode_record(item)
        if isinstance(record, Tombstone) or record.generation != last.generation:
            continue
        if renewed >= RENEWED_ITEMS:
            return last._replace(renewal=renewal._replace(position=record.position, part=""))
        index = max(renewal.item_index, record.items)
        part = renewal.part if record.position == renewal.position else ""
        renewal = renewal._replace(position=record.position, item_index=index, part=part)
        while record.body_token:
            parts = yield from _renew_parts(log, record, ttl, part, RENEWED_ITEMS - renewed)
            renewed, part = renewed + parts.renewed, parts.last
            if renewed >= RENEWED_ITEMS:
                return last._replace(renewal=renewal._replace(part=part))
            if parts.complete:
                break
        if record.ttl is not None and record.ttl < ttl:
            yield from _renew_record(log, item, ttl)
            renewed += 1
        renewal = renewal._replace(item_index=index + 1)
        if record.position == last.position:
            last = last._replace(ttl=max(ttl + RENEWAL_SLACK, last.ttl or 0))
    if len(items) < READ_RECORDS:
        return last._replace(ttl_base=renewal.base, min_ttl=None, renewal=None)
    position = decode_record(items[-1]).revision + 1
    return last._replace(renewal=renewal._replace(position=position, part=""))


def _renew_entries(log: Log, last: Record, *, needed: int, due: int) -> Plan[Record]:
    """Renew the TTLs of entries if that is due: some, or as many as are ``needed`` (s)."""
    assert last.lifetime is not None
    table, ttls = log.table, _entry_ttls(last)
    if not ttls.next_base:
        if ttls.base >= max(needed, due):
            return last
        # Not by the time of the activity, which may be far ahead: entries are put by the clock.
        ttls = ttls._replace(next_base=max(base_at(table.time(), last.lifetime), needed))
    deadline = table.monotonic() + table.patience
    while True:
        ttls = yield from _renew_some_entries(log, last, ttls)
        if not ttls.next_base or ttls.base >= needed:
            return last._replace(entry_ttls=ttls)
        _require_time(table, deadline)


def _renew_some_entries(log: Log, last: Record, ttls: EntryTTLs) -> Plan[EntryTTLs]:
    """Renew up to ``RENEWED_ITEMS`` entries after ``ttls.after``; return the progress made."""
    low = next_sort(ttls.after) if ttls.after else FIRST_ENTRY
    items = yield from log.query(low, LAST_ENTRY, limit=READ_RECORDS, forward=True, names=NAMES)
    renewed = 0
    for entry in map(decode_entry, items):
        if renewed >= RENEWED_ITEMS:
            return ttls
        ttls = ttls._replace(after=entry.sort)
        if entry.is_deleted or not entry.belongs_to(last):
            continue
        until = ttls.next_base
        if entry.expiry is not None:
            until = min(until, ttl_of_own_life(entry.expiry, entry.updated_at))
        renewed += yield from _renew_entry(log, entry, until)
    if len(items) == READ_RECORDS:
        return ttls
    return EntryTTLs(ttls.next_base)


def _renew_entry(log: Log, entry: EntryItem, ttl: int) -> Plan[int]:
    """Renew the TTLs of the entry and its body parts; return how many items were renewed."""
    renewed = 0
    parts = _Parts()
    while entry.body_token and not parts.complete:
        parts = yield from _renew_parts(log, entry.record, ttl, parts.last, READ_RECORDS)
        renewed += parts.renewed
    if entry.ttl is not None and entry.ttl < ttl:
        # If the entry was put again meanwhile, that put has given it its TTL.
        seen: dict[str, Attribute] = {"k": {"S": entry.token}}
        condition = "#k = :k AND attribute_exists(#expires_at) AND attribute_not_exists(#deleted)"
        renewed += yield from _set_ttl(log, entry.sort, ttl, condition, seen)
    return renewed


def _entry_ttls(last: Record) -> EntryTTLs:
    """Return the least TTL of the entries, and how far their renewal has come."""
    if last.entry_ttls is not None:
        return last.entry_ttls
    assert last.lifetime is not None
    # Not later than at the creation: a version that knows no entries may have renewed all else.
    base = last.min_ttl or 0 if last.ttl_base is None else last.ttl_base
    return EntryTTLs(min(base, base_at(last.created_at, last.lifetime)))


def ttl_of_entry(
    table: Table, last: Record | None, expiry: int | None, updated_at: int
) -> int | None:
    """Return the TTL of an entry that is put now.

    Args:
        table: The table.
        last: The last record of the conversation; None if the entry belongs to an owner.
        expiry: When the entry expires by itself (ms); None if it does not.
        updated_at: The time of the put (ms).
    """
    own = None if expiry is None else ttl_of_own_life(expiry, updated_at)
    if last is None or last.ttl is None or last.lifetime is None:
        return own
    ttls = _entry_ttls(last)
    base = max(base_at(table.time(), last.lifetime), last.ttl_base or 0, ttls.base, ttls.next_base)
    return base + ENTRY_SLACK if own is None else min(own, base + ENTRY_SLACK)


def _target(last: Record, renewal: Renewal) -> int:
    assert last.lifetime is not None
    return renewal.base + growth(last.lifetime, renewal.items)


def growth(lifetime: int, items: int) -> int:
    """Return how many seconds after ``ttl_base`` the TTL of item number ``items`` is."""
    return items * lifetime // (RENEWED_ITEMS * SECOND)


class _Parts:
    """The outcome of renewing some parts of a body."""

    def __init__(self) -> None:
        self.renewed = 0
        self.last = ""
        self.complete = False


def _renew_parts(log: Log, record: Record, ttl: int, after: str, most: int) -> Plan[_Parts]:
    """Renew up to ``most`` parts of the record's body whose sort keys come after ``after``."""
    done = _Parts()
    done.last = after
    for token in sorted(record.body_tokens):
        low, high = part_prefix(token), part_prefix(token) + "~"
        if done.last >= high:
            continue
        items = yield from log.query(
            max(low, done.last + " ") if done.last else low,
            high,
            limit=READ_RECORDS,
            forward=True,
            names=("sk", "expires_at"),
        )
        for item in items:
            if done.renewed >= most:
                return done
            if "expires_at" in item and int(item["expires_at"]["N"]) < ttl:
                yield from _set_ttl(log, item["sk"]["S"], ttl, "attribute_exists(#expires_at)", {})
                done.renewed += 1
            done.last = item["sk"]["S"]
        if len(items) == READ_RECORDS:
            return done
        done.last = high
    done.complete = True
    return done


def _renew_record(log: Log, item: Item, ttl: int) -> Plan[None]:
    # A record that was rewritten meanwhile has other parts, and a tombstone keeps its own TTL.
    seen: dict[str, Attribute] = {name: item[name] for name in _SEEN if name in item}
    condition = " AND ".join([f"#{name} = :{name}" for name in seen])
    if "r" not in seen:
        condition += " AND attribute_not_exists(#r)"
    if not (yield from _set_ttl(log, item["sk"]["S"], ttl, condition, seen)):
        raise InconsistentRead


def _renew_head(log: Log, last: Record, ttl: int) -> Plan[None]:
    of_generation: dict[str, Attribute] = {
        "life": {"N": str(last.generation)},
        "created_at": {"N": str(last.created_at)},
    }
    condition = (
        "#life = :life AND #created_at = :created_at AND attribute_exists(#expires_at) "
        "AND attribute_not_exists(#deleted)"
    )
    yield from _set_ttl(log, HEAD, ttl, condition, of_generation)


def _set_ttl(
    log: Log, sort: str, ttl: int, condition: str, values: dict[str, Attribute]
) -> Plan[bool]:
    """Set the item's TTL if the condition holds; return whether it did."""
    later = {"N": str(ttl + RENEWAL_SLACK)}
    change = log.update_params(sort, {"expires_at": later}, condition, **values)
    return (yield from try_write(Call("UpdateItem", change)))


# New records --------------------------------------------------------------------------------------


def await_beginning(table: Table, log_end: LogEnd, lifetime: int | None) -> Plan[None]:
    """Wait until a generation with ``lifetime`` (ms) may begin after ``log_end``.

    That is at once, unless the former one expired seconds ago.

    Raises:
        ClockSkewed: Either has a lifetime, and this clock is too far off.
    """
    former = log_end.record
    if lifetime is not None:
        table.require_clock()
    if former is not None and not former.closed:
        yield from table.wait_until_expired(former.expiry)


def first_record(
    table: Table,
    log_end: LogEnd,
    token: str,
    *,
    owner: str | None,
    lifetime: int | None,
    width: int = 1,
    part_items: int = 0,
    at: int | None = None,
) -> Record:
    """Return the first record of a generation, to be put after ``log_end``.

    Args:
        table: The table.
        log_end: The log's end; its conversation, if there was one, is no longer live.
        token: The write token.
        owner: The owner of the conversation.
        lifetime: Its lifetime (ms); None if it does not expire.
        width: The number of positions that the record takes.
        part_items: The number of items that its body parts count as for TTLs.
        at: The time (ms) of the activity from which the lifetime counts; by default now.
    """
    time = table.time()
    at = time if at is None else at
    # Although clocks differ, a later generation must not have an earlier creation time.
    former = log_end.record
    created = time if former is None else max(time, former.created_at)
    record = Record(
        position=log_end.next,
        width=width,
        token=token,
        generation=log_end.next,
        owner=owner,
        created_at=created,
        updated_at=created,
    )
    if lifetime is None:
        return record
    items = 1 + part_items
    return record._replace(
        lifetime=lifetime,
        expiry=at + lifetime,
        items=items,
        ttl_base=base_at(at, lifetime),
        ttl=ttl_for(at, lifetime, items),
    )


def next_record(
    table: Table,
    log_end: LogEnd,
    last: Record,
    token: str,
    *,
    width: int = 1,
    part_items: int = 0,
    at: int | None = None,
) -> Record:
    """Return a record that continues the generation of ``last``, to be put after ``log_end``.

    ``last`` is the last record, with its TTLs renewed. The other arguments are those of
    ``first_record``.

    Raises:
        InconsistentRead: The conversation has expired meanwhile.
    """
    time = table.time()
    at = time if at is None else at
    if not last.is_live(time):
        raise InconsistentRead
    record = Record(
        position=log_end.next,
        width=width,
        token=token,
        generation=last.generation,
        owner=last.owner,
        created_at=last.created_at,
        # A clock that was set back must not make the conversation sink in its owner's list.
        updated_at=max(time, last.updated_at),
        previous_seq=last.last_seq,
        message_count=last.message_count,
        truncated=last.truncated,
        removals=last.removals,
        copied_entries=last.copied_entries,
    )
    if last.lifetime is None:
        return record
    record = record._replace(lifetime=last.lifetime, expiry=at + last.lifetime)
    if last.ttl is None:  # layout 1 has conversations that expire without TTLs
        return record
    items = last.items + 1 + part_items
    ttl = ttl_for(at, last.lifetime, items)
    base = last.ttl_base
    return record._replace(
        items=items,
        # TTL must not delete a record before the one before it, which would then be the last.
        ttl=max(last.ttl, ttl),
        ttl_base=None if base is None else min(base, base_at(at, last.lifetime)),
        min_ttl=None if last.min_ttl is None else min(last.min_ttl, ttl),
        renewal=last.renewal,
        entry_ttls=last.entry_ttls,
    )


def ttl_of_parts(
    table: Table, last: Record | None, lifetime: int | None, items: int, *, at: int | None = None
) -> int | None:
    """Return the TTL of the parts of a body whose record will follow ``last``.

    Args:
        table: The table.
        last: The last record of the generation; None if a new one starts.
        lifetime: The lifetime (ms) of a new generation; None if it does not expire.
        items: The number of items that the parts count as.
        at: The time (ms) of the activity from which the lifetime counts; by default now.
    """
    at = table.time() if at is None else at
    if last is None:
        return None if lifetime is None else ttl_for(at, lifetime, 1 + items)
    if last.ttl is None or last.lifetime is None:
        return None
    return ttl_for(at, last.lifetime, last.items + 1 + items)
