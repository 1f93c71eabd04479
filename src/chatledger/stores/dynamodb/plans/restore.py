"""The plan that writes messages at the seqs that they have in another store."""

from functools import partial

from chatledger.conversations import Conversation
from chatledger.errors import REVISIONS_TAKEN, AlreadyExists, Conflict, NotFound
from chatledger.stores.dynamodb import heads
from chatledger.stores.dynamodb.bodies import PreparedBody, StoredBody
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.entries import free_all
from chatledger.stores.dynamodb.entry_items import EntryItem
from chatledger.stores.dynamodb.heads import conversation, finish_write
from chatledger.stores.dynamodb.log import InconsistentRead, Log, LostRace
from chatledger.stores.dynamodb.records import Record, StoredDescription, encode_description
from chatledger.stores.dynamodb.table import LogEnd, RaceRetries, Table
from chatledger.stores.dynamodb.ttl import (
    await_beginning,
    first_record,
    next_record,
    renew_ttls,
    ttl_of_parts,
)
from chatledger.stores.operations import Restore
from chatledger.values import milliseconds_since_epoch


def restore(table: Table, operation: Restore) -> Plan[Conversation]:
    """Restore messages as ``Store.restore`` promises.

    One record holds them, and its width includes the gap after them: no position stays free that a
    late writer in another process could take.
    """
    given, texts = operation.conversation, operation.texts
    lifetime = table.lifetime_for(operation.lifetime)
    expiry = None if given.expires_at is None else milliseconds_since_epoch(given.expires_at)
    updated_at = milliseconds_since_epoch(given.updated_at)
    log, token = Log(table, given.id), table.token()
    prepared = PreparedBody(texts)
    stored: StoredBody | None = None
    retries = RaceRetries(table)
    while True:
        log_end, _ = yield from log.read_end()
        time = table.time()
        if expiry is not None and expiry <= time:
            raise NotFound(given.id)
        last = log_end.live_record(time)
        _check_revision(log_end, last, operation)
        description = StoredDescription(given)
        # The source's clock may be days ahead, and with it the expiry.
        lifetime_kept = lifetime if last is None else last.lifetime
        at = time if expiry is None or lifetime_kept is None else max(time, expiry - lifetime_kept)
        try:
            if last is None:
                yield from await_beginning(table, log_end, lifetime)
            if last is None and log_end.last is None and log_end.head is not None:
                # TTL left the head of an earlier conversation. It may have the creation time of
                # this one, and would then be taken for its head.
                yield from heads.delete_head(log, log_end.head)
            if last is None and log_end.last is None:
                yield from free_all(log, partial(_may_be_mistaken, operation))
            if last is not None:
                description = yield from heads.read_description(log, last, log_end.head)
                if last.lifetime is not None:
                    last = yield from renew_ttls(log, last, at=at)
            if stored is None:
                ttl = ttl_of_parts(table, last, lifetime, prepared.part_count, at=at)
                stored = (yield from prepared.store(log, ttl)) if texts else StoredBody()
            width = given.revision - log_end.next + 1
            if last is None:
                record = first_record(
                    table,
                    log_end,
                    token,
                    owner=given.owner,
                    lifetime=lifetime,
                    width=width,
                    part_items=stored.items,
                    at=at,
                )
                record = record._replace(
                    created_at=milliseconds_since_epoch(given.created_at),
                    updated_at=updated_at,
                    initial_description=encode_description(description),
                )
            else:
                record = next_record(
                    table, log_end, last, token, width=width, part_items=stored.items, at=at
                )
                record = record._replace(updated_at=max(updated_at, last.updated_at))
            if expiry is not None and record.expiry is not None:
                record = record._replace(expiry=expiry)
            if not stored.outlives(record):
                stored = None
                raise InconsistentRead
            record = stored.attach_to(record)
            yield from log.put(record, log_end)
            break
        except (InconsistentRead, LostRace):
            yield from retries.back_off()
    yield from finish_write(log, record, read_at=log_end.read_at)
    return conversation(log.id, record, description)


def _may_be_mistaken(operation: Restore, entry: EntryItem) -> bool:
    """Return whether an entry that TTL left of an earlier conversation would be taken for one of
    this conversation, which begins at position 1 too."""
    created_at = milliseconds_since_epoch(operation.conversation.created_at)
    return (entry.generation, entry.created_at, entry.copy_mark) == (1, created_at, "")


def _check_revision(log_end: LogEnd, last: Record | None, operation: Restore) -> None:
    """Raise the errors of ``Store.restore`` unless the conversation has the right revision."""
    given, revision = operation.conversation, operation.revision
    if last is None:
        if revision:
            raise NotFound(given.id)
        # Revisions of an earlier conversation, which a client may remember, are not used again.
        if log_end.next > (1 if operation.texts else given.revision):
            raise Conflict(given.id, expected=0, revision=log_end.next - 1, advice=REVISIONS_TAKEN)
    elif last.owner != given.owner:
        raise AlreadyExists(given.id)
    elif last.revision != revision:
        raise Conflict(given.id, expected=revision, revision=last.revision)
