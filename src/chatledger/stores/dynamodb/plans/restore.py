"""The plan that puts messages back where they were in another store."""

from collections.abc import Sequence

from chatledger.conversations import NUMBERS_TAKEN, Conversation, checked_restored, lifetime_of
from chatledger.errors import AlreadyExists, Conflict, NotFound
from chatledger.messages import Message
from chatledger.stores.dynamodb import heads
from chatledger.stores.dynamodb.bodies import Kept, keep
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.log import Log, Torn
from chatledger.stores.dynamodb.plans.common import conversation, follow, lost, settle
from chatledger.stores.dynamodb.records import Record
from chatledger.stores.dynamodb.table import Standing, Table, milliseconds, since_epoch
from chatledger.stores.dynamodb.ttl import renewed


def restore(
    table: Table, restored: Conversation, messages: Sequence[Message], *, after: int
) -> Plan[Conversation]:
    """One record holds the messages, and is as wide as the gap behind them needs it to be.

    So no position is left free that a writer elsewhere could still aim at.
    """
    given, texts = checked_restored(restored, messages, after)
    own = lifetime_of(given)
    lifetime = None if own is None else milliseconds(own)
    expiry = None if given.expires_at is None else since_epoch(given.expires_at)
    log, token = Log(table, given.id), table.new_token()
    kept: Kept | None = None
    times = 0
    while True:
        since = time = table.time()
        standing, _ = yield from log.end()
        if expiry is not None and expiry <= time:
            raise NotFound(given.id)
        last = standing.living(time)
        _check_stands(standing, last, given, after, len(texts))
        # The source's clock may be ahead of ours, and with it what it calls its expiry.
        lives_for = table.lifetime if lifetime is None else lifetime
        if expiry is not None:
            lives_for = max(lives_for or 0, expiry - time)
        description: heads.Description = (given.title, given.metadata)
        try:
            if last is not None:
                description = yield from heads.described(log, last, standing.head)
                last = yield from renewed(log, last, lives_for)
                last = last._replace(lifetime=lives_for)
            record = follow(
                table,
                standing,
                last,
                token,
                width=given.revision - standing.next + 1,
                owner=given.owner,
                lifetime=lives_for,
            )
        except Torn:
            continue
        if kept is None:
            kept = (yield from keep(log, texts, record.stamp)) if texts else Kept(None)
        record = kept.within(record)._replace(
            messages=len(texts),
            message_count=record.message_count + len(texts),
            updated_at=since_epoch(given.updated_at),
            lifetime=lifetime,
            expiry=record.expiry if expiry is None else expiry,
        )
        if last is None:
            record = record._replace(
                created_at=since_epoch(given.created_at), opening=heads.encode_opening(*description)
            )
        else:
            record = record._replace(updated_at=max(record.updated_at, last.updated_at))
        rival = yield from log.put(record, standing)
        if rival is None:
            break
        times += 1
        yield from lost(table, times)
    yield from settle(log, record, lives_for, since=since)
    return conversation(log, record, description)


def _check_stands(
    standing: Standing, last: Record | None, given: Conversation, after: int, messages: int
) -> None:
    if last is None:
        if after:
            raise NotFound(given.id)
        # Numbers of a former conversation, for whoever remembers them, are not given out again.
        if standing.next > (1 if messages else given.revision):
            raise Conflict(given.id, expected=0, revision=standing.next - 1, advice=NUMBERS_TAKEN)
    elif last.owner != given.owner:
        raise AlreadyExists(given.id)
    elif last.revision != after:
        raise Conflict(given.id, expected=after, revision=last.revision)
