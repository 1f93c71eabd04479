"""Plans that end conversations."""

from collections.abc import Callable

from chatledger.conversations import check_id, check_names
from chatledger.errors import NotFound
from chatledger.stores.dynamodb import bodies, heads
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Plan
from chatledger.stores.dynamodb.log import CONDITION_FAILED, Log
from chatledger.stores.dynamodb.plans.common import afterwards, lost
from chatledger.stores.dynamodb.plans.read import owned_heads
from chatledger.stores.dynamodb.records import Record, record_sort
from chatledger.stores.dynamodb.table import FENCED, Table, stamp_at

PAGE = 100
IDLE = 3
"""Walks without a find after which an owner has no more: the index may show the deleted still."""


def delete(table: Table, conversation_id: str, *, owner: str | None) -> Plan[None]:
    check_names(conversation_id, owner)
    log = Log(table, conversation_id)
    if not (yield from end(log, owner, lambda last: last.lives(table.time()))):
        raise NotFound(conversation_id)


def end(log: Log, owner: str | None, meant: Callable[[Record], bool]) -> Plan[bool]:
    """Close the conversation and free what it holds, if its last record tells that it is ``meant``;
    whether it lived.

    A closing record goes behind the last one: a writer elsewhere that remembers the position meets
    it there instead of writing to a ghost.
    """
    table, token = log.table, log.table.new_token()
    times = 0
    while True:
        standing, _ = yield from log.end()
        record = standing.record
        if record is None and standing.head is not None:
            # TTL ate the log first.
            yield from heads.drop(log, standing.head)
        if record is None or owner not in (None, record.owner):
            return False
        lived = record.lives(table.time())
        if record.closed:
            # A deletion that was not finished is finished here.
            if record.stamp is None:
                yield from afterwards(free(log, record))
            return False
        if not meant(record):
            return False
        closing = Record(
            position=standing.next,
            token=token,
            life=record.life,
            owner=record.owner,
            created_at=record.created_at,
            updated_at=table.time(),
            closed=True,
        )
        # Without a stamp until all else is freed: what it closes must not come back to life.
        rival = yield from log.put(closing, standing)
        if rival is None:
            break
        times += 1
        yield from lost(table, times)
    table.memory.forget(log.id)
    yield from afterwards(free(log, closing))
    return lived


def free(log: Log, closing: Record) -> Plan[None]:
    """Free what a closed conversation holds; at last the closing record gets its stamp.

    Not before: if it were eaten first, what it closes would be back.
    """
    stamp: dict[str, Attribute | None] = {
        "expires_at": {"N": str(stamp_at(log.table.time() + FENCED))}
    }
    yield from heads.close(log, closing, stamp)
    yield from bodies.fence(log, 1, closing.position - 1)
    try:
        yield Call(
            "UpdateItem",
            log.change(record_sort(closing.position), stamp, "#k = :k", k={"S": closing.token}),
        )
    except CallFailed as failed:
        if failed.code != CONDITION_FAILED:
            raise


def delete_owner(
    table: Table, owner: str, *, progress: Callable[[int], None] | None = None
) -> Plan[int]:
    check_id(owner, "owner")
    deleted = idle = 0
    while idle < IDLE:
        before, met = deleted, False
        cursor: tuple[int, str] | None = None
        while True:
            # The oldest first: one that gets a message meanwhile moves on, ahead of the walk.
            found = yield from owned_heads(
                table, owner, PAGE, cursor, forward=True, expired_too=True
            )
            for conversation_id, _ in found:
                deleted += yield from end(Log(table, conversation_id), owner, lambda _: True)
            if progress is not None:
                progress(deleted)
            met = met or bool(found)
            if len(found) < PAGE:
                break
            last_id, last = found[-1]
            cursor = (last.updated_at, last_id)
        if not met:
            break
        # Some may have begun, or moved within one and the same millisecond; and an index lags.
        idle = idle + 1 if deleted == before else 0
    return deleted
