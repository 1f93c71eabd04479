"""What every plan has in common."""

from collections.abc import Callable
from typing import TypeVar

from chatledger.conversations import Conversation
from chatledger.errors import ChatledgerError, NotFound, StoreUnavailable
from chatledger.stores.dynamodb import heads, ttl
from chatledger.stores.dynamodb.calls import CallFailed, Plan, Wait
from chatledger.stores.dynamodb.log import Log, Torn
from chatledger.stores.dynamodb.records import Record
from chatledger.stores.dynamodb.table import Standing, Table, moment
from chatledger.stores.dynamodb.ttl import renewed, stamp_for

T = TypeVar("T")

LEFT_UNDONE = (CallFailed, ChatledgerError, Torn)
"""What may be raised by work that others finish."""
TORN = 100  # times that a reading is begun again


def living(log: Log, standing: Standing, owner: str | None) -> Record:
    last = standing.living(log.table.time())
    if last is None or owner not in (None, last.owner):
        raise NotFound(log.id)
    return last


def conversation(log: Log, last: Record, description: heads.Description) -> Conversation:
    title, metadata = description
    return Conversation(
        id=log.id,
        owner=last.owner,
        title=title,
        metadata=metadata,
        created_at=moment(last.created_at),
        updated_at=moment(last.updated_at),
        message_count=last.message_count,
        revision=last.revision,
        expires_at=None if last.expiry is None else moment(last.expiry),
    )


def untorn(table: Table, once: Callable[[], Plan[T]]) -> Plan[T]:
    for tried in range(TORN):
        try:
            return (yield from once())
        except Torn:
            yield Wait(table.random.uniform(0, min(0.005 * 2**tried, 0.5)))
    raise StoreUnavailable("The conversation kept changing while it was read; try again.")


def first_in(table: Table, once: Callable[[], Plan[T | None]]) -> Plan[T]:
    """What ``once`` answers when no rival is first any more."""
    times = 0
    while True:
        done = yield from untorn(table, once)
        if done is not None:
            return done
        times += 1
        yield from lost(table, times)


def follow(
    table: Table,
    standing: Standing,
    last: Record | None,
    token: str,
    *,
    width: int = 1,
    owner: str | None = None,
    lifetime: int | None = None,
) -> Record:
    """The record that goes behind ``standing`` and goes on with the life of ``last``.

    Where that is None a new life begins, with that owner and lifetime. Raises ``Torn`` where the
    conversation has expired meanwhile.
    """
    time = table.time()
    if last is not None and not last.lives(time):
        raise Torn
    # Of two lives the later one is created later, or at a higher position; and clocks differ.
    former = standing.record
    created = time if former is None else max(time, former.created_at)
    own = lifetime if last is None else last.lifetime
    ahead = table.lifetime if own is None else own
    expiry = None if ahead is None else time + ahead
    stamp = stamp_for(time, ahead)
    record = Record(
        position=standing.next,
        width=width,
        token=token,
        life=standing.next,
        owner=owner,
        created_at=created,
        updated_at=created,
        lifetime=own,
        expiry=expiry,
        floor=stamp,
        stamp=stamp,
    )
    if last is None:
        return record
    floor = stamp if last.floor is None or stamp is None else min(last.floor, stamp)
    if last.floor is None or last.stamp is None:
        stamp = None  # others have none yet, and get theirs first: ``settle``
    return record._replace(
        life=last.life,
        owner=last.owner,
        created_at=last.created_at,
        # A clock that was set back must not let activity sink in the list.
        updated_at=max(time, last.updated_at),
        floor=floor,
        stamp=None if stamp is None else max(last.stamp or stamp, stamp),
        after=last.last_seq,
        message_count=last.message_count,
        dead=last.dead,
    )


def lives_for(table: Table, last: Record | None) -> int | None:
    """How long (ms) the conversation lives after an activity; a new one, where ``last`` is None."""
    return table.lifetime if last is None or last.lifetime is None else last.lifetime


def stamp_of_parts(table: Table, last: Record | None) -> int | None:
    """That of the parts of a record which is to go behind ``last``."""
    if last is not None and last.stamp is None:
        return None
    return stamp_for(table.time(), lives_for(table, last))


def extended(log: Log, last: Record) -> Plan[Record]:
    """``last``, once its conversation can live for another lifetime from now on."""
    return (yield from renewed(log, last, lives_for(log.table, last)))


def afterwards(plan: Plan[object]) -> Plan[bool]:
    """Do what a write has left to do, and which costs only storage or a stale list if it fails.

    The write itself is in, and must not be answered with an error any more.
    """
    try:
        yield from plan
    except LEFT_UNDONE:
        return False
    return True


def settle(log: Log, record: Record, lifetime: int | None, *, since: int) -> Plan[Record | None]:
    """Do what a record that is in leaves to do. As that made it; None where it was not done."""
    remember(log, record, since=since)
    try:
        yield from heads.renew(log, record)
        settled = yield from ttl.settled(log, record, lifetime)
    except LEFT_UNDONE:
        return None
    if settled is not record:
        remember(log, settled, since=since)
    return settled


def remember(log: Log, record: Record, *, since: int) -> None:
    log.table.remember(log.id, Standing(record), since=since)


def lost(table: Table, times: int) -> Plan[None]:
    """Step aside for rivals, the longer the more often they were first."""
    if times > 1:
        yield Wait(table.random.uniform(0, min(0.002 * 2**times, 0.25)))
