"""Plans that delete conversations."""

from collections.abc import Callable

from chatledger.errors import Conflict, NotFound
from chatledger.stores.dynamodb import heads
from chatledger.stores.dynamodb.calls import Call, Plan, try_write
from chatledger.stores.dynamodb.cleanup import free_range
from chatledger.stores.dynamodb.entries import free_all, owner_entries
from chatledger.stores.dynamodb.log import InconsistentRead, Log, LostRace, best_effort
from chatledger.stores.dynamodb.plans.read import query_heads
from chatledger.stores.dynamodb.records import Record, record_sort
from chatledger.stores.dynamodb.table import TOMBSTONE_LIFETIME, RaceRetries, Table, ttl_at
from chatledger.stores.operations import Delete, DeleteOwner

PAGE = 100
IDLE_WALKS = 3
"""The passes in a row over an owner's list that must delete nothing until the owner is done: the
index lags, and may still show deleted conversations."""


def delete(table: Table, operation: Delete) -> Plan[None]:
    """Delete a conversation as ``Store.delete`` promises."""
    log, revision = Log(table, operation.conversation_id), operation.revision

    def is_meant(last: Record) -> bool:
        if not last.is_live(table.time()):
            return False
        if revision is not None and revision != last.revision:
            raise Conflict(log.id, expected=revision, revision=last.revision)
        return True

    if not (yield from close_log(log, operation.owner, is_meant)):
        raise NotFound(log.id)


def close_log(log: Log, owner: str | None, wanted: Callable[[Record], bool]) -> Plan[bool]:
    """Close a conversation and free its storage; return whether it was live.

    A closing record follows the last one. A writer elsewhere that has cached the position meets it
    there, instead of writing to a conversation that nobody sees.

    Args:
        log: The conversation's log.
        owner: Close it only if it belongs to this owner; None for any owner.
        wanted: Close it only if this returns True for its last record.
    """
    table, token = log.table, log.table.token()
    retries = RaceRetries(table)
    while True:
        log_end, _ = yield from log.read_end()
        record = log_end.record
        if record is None and log_end.head is not None:
            # TTL has deleted the log before the head.
            yield from heads.delete_head(log, log_end.head)
        if record is None or owner not in (None, record.owner):
            return False
        was_live = record.is_live(table.time())
        if record.closed:
            if record.ttl is None:  # a deletion that was not finished
                yield from best_effort(
                    log, free_closed_log(log, record, read_at=log_end.read_at), "free the storage"
                )
            return False
        if not wanted(record):
            return False
        closing = Record(
            position=log_end.next,
            token=token,
            generation=record.generation,
            owner=record.owner,
            created_at=record.created_at,
            updated_at=table.time(),
            closed=True,
        )
        # It gets no TTL until all else is freed, or else deleted records might be the last again.
        try:
            yield from log.put(closing, log_end)
            break
        except (InconsistentRead, LostRace):
            yield from retries.back_off()
    table.log_end_cache.forget(log.id)
    yield from best_effort(
        log, free_closed_log(log, closing, read_at=log_end.read_at), "free the storage"
    )
    return was_live


def free_closed_log(log: Log, closing: Record, *, read_at: tuple[int, float]) -> Plan[None]:
    """Free the storage of a closed conversation, for at most ``Table.cleanup_seconds``.

    The closing record gets its TTL only when all else is freed. Until then, a later call or
    ``sweep`` continues here.

    Args:
        log: The conversation's log.
        closing: Its last record.
        read_at: When it was read, or a time before it was put.
    """
    table = log.table
    if table.has_slept(read_at):
        # By now, head and positions may be those of a later conversation.
        log_end, _ = yield from log.read_end()
        if log_end.record is None or log_end.record.token != closing.token:
            return
        read_at = log_end.read_at
        if table.has_slept(read_at):
            raise InconsistentRead
    deadline = table.monotonic() + table.cleanup_seconds
    ttl = {"N": str(ttl_at(table.time() + TOMBSTONE_LIFETIME))}
    yield from heads.close_head(log, closing, ttl)
    if not table.cleanup_seconds:
        return
    if (
        yield from free_range(log, 1, closing.position - 1, deadline, read_at=read_at)
    ) < closing.position:
        return
    if not (
        yield from free_all(
            log,
            lambda entry: entry.generation <= closing.generation,
            deadline=deadline,
            read_at=read_at,
        )
    ):
        return
    ttl = {"N": str(ttl_at(table.time() + TOMBSTONE_LIFETIME))}
    update = log.update_params(
        record_sort(closing.position), {"expires_at": ttl}, "#k = :k", k={"S": closing.token}
    )
    yield from try_write(Call("UpdateItem", update))


def delete_owner(
    table: Table, operation: DeleteOwner, *, progress: Callable[[int], None] | None = None
) -> Plan[int]:
    """Delete every conversation and entry of an owner as ``Store.delete_owner`` promises.

    ``progress`` is called after each page with the number of conversations deleted so far.
    """
    owner = operation.owner
    deleted = idle = 0
    while idle < IDLE_WALKS:
        before, met = deleted, False
        cursor: tuple[int, str] | None = None
        while True:
            # The oldest first: one that gets a message meanwhile moves ahead, and is met again.
            found = yield from query_heads(
                table, owner, PAGE, cursor, forward=True, include_hidden=True
            )
            for conversation_id, _ in found:
                deleted += yield from close_log(Log(table, conversation_id), owner, lambda _: True)
            if progress is not None:
                progress(deleted)
            met = met or bool(found)
            if len(found) < PAGE:
                break
            last_id, last = found[-1]
            cursor = (last.updated_at, last_id)
        if not met:
            break
        # Conversations may have started, or moved within the same millisecond, and the index lags.
        idle = idle + 1 if deleted == before else 0
    yield from free_all(owner_entries(table, owner), lambda _: True)
    return deleted
