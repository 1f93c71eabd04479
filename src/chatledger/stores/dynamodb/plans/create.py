"""Plans that start a conversation: empty, or as a copy of another."""

from chatledger.conversations import MAX_REVISION, Conversation
from chatledger.errors import AlreadyExists, KeyReused, NotFound
from chatledger.stores.dynamodb import bodies
from chatledger.stores.dynamodb.bodies import BodyWriter, StoredBody
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.entries import CopiedEntries, all_items, read_items
from chatledger.stores.dynamodb.heads import conversation, describe, finish_write
from chatledger.stores.dynamodb.log import (
    InconsistentRead,
    Log,
    LostRace,
    best_effort,
    require_live,
    retry_inconsistent,
)
from chatledger.stores.dynamodb.plans.read import read_forward, read_span
from chatledger.stores.dynamodb.records import (
    FIRST_ENTRY,
    Record,
    StoredDescription,
    encode_description,
)
from chatledger.stores.dynamodb.table import LogEnd, RaceRetries, Table
from chatledger.stores.dynamodb.ttl import await_beginning, first_record, ttl_of_parts
from chatledger.stores.idempotency import Creation
from chatledger.stores.operations import Create, Fork
from chatledger.values import dumps

COPIED_AT_ONCE = 200
"""The number of messages that a fork reads at once."""


def create(table: Table, operation: Create) -> Plan[Conversation]:
    """Create a conversation as ``Store.create`` promises."""
    owner, beginning = operation.owner, operation.beginning
    log_end = LogEnd(read_at=table.now()) if operation.id_is_new else None  # nothing to read
    description = StoredDescription(beginning.description, creation=operation.creation)
    lifetime = table.lifetime_for(beginning.expires_in)
    log = Log(table, operation.conversation_id)
    created, _ = yield from _begin(
        log, owner, description, lifetime, StoredBody(), caller=owner, end=log_end
    )
    return created


def fork(table: Table, operation: Fork) -> Plan[Conversation]:
    """Copy a conversation as ``Store.fork`` promises.

    The messages are written to body parts, and the entries to items of a generation that no reader
    sees yet. Then one record shows them all.
    """
    owner, creation = operation.owner, operation.creation
    source, target = Log(table, operation.conversation_id), Log(table, operation.new_id)

    def attempt() -> Plan[Conversation]:
        # Before the log's end, so that a deletion in between is noticed.
        some_entry, _ = yield from read_items(source, FIRST_ENTRY, limit=1)
        log_end, _ = yield from source.read_end()
        last = require_live(source, log_end, owner)
        description = yield from describe(source, last, log_end)
        found, _ = yield from target.read_end()
        if found.live_record(table.time()) is not None:
            return (yield from _require_repeated(target, found, owner, creation))
        lifetime = last.lifetime
        if operation.expires_in is not None:
            lifetime = table.lifetime_for(operation.expires_in)
        items = last.message_count
        writer = BodyWriter(target, ttl_of_parts(table, None, lifetime, items), items=items)
        parts = bodies.delete_parts(target, writer.token)
        discard = best_effort(target, parts, "delete the parts of a copy")
        try:
            yield from _copy(source, last, writer, operation.at)
            stored = yield from writer.finish()
            copy, has_begun = yield from _begin(
                target,
                last.owner,
                description._replace(metadata_revision=None, creation=creation),
                lifetime,
                stored,
                caller=owner,
                entries=CopiedEntries(source, last, target) if some_entry else None,
            )
        except (InconsistentRead, AlreadyExists, KeyReused):
            yield from discard
            raise
        if not has_begun:
            yield from discard
        return copy

    try:
        return (yield from retry_inconsistent(source, attempt))
    except NotFound as not_found:
        if creation is None:
            raise
        source_missing = not_found

    def find_copy() -> Plan[Conversation]:
        # An earlier call with the key may have copied the source before it was deleted.
        found, _ = yield from target.read_end()
        if found.live_record(table.time()) is None:
            raise source_missing
        return (yield from _require_repeated(target, found, owner, creation))

    try:
        return (yield from retry_inconsistent(target, find_copy))
    except AlreadyExists:
        raise source_missing from None


def _require_repeated(
    log: Log, log_end: LogEnd, owner: str | None, creation: Creation | None
) -> Plan[Conversation]:
    """Return the live conversation if an earlier call with the same idempotency key created it.

    Raises:
        AlreadyExists: Another call created it, or it does not belong to ``owner``.
        KeyReused: The earlier call had other arguments.
        InconsistentRead: The conversation was written to meanwhile.
    """
    last = log_end.record
    assert last is not None
    if creation is None or owner not in (None, last.owner):
        raise AlreadyExists(log.id)
    description = yield from describe(log, last, log_end, at_once=True)
    if description.creation is None or not description.creation.is_repeated_by(creation):
        raise AlreadyExists(log.id)
    return conversation(log.id, last, description)


def _begin(
    log: Log,
    owner: str | None,
    description: StoredDescription,
    lifetime: int | None,
    stored: StoredBody,
    *,
    caller: str | None,
    end: LogEnd | None = None,
    entries: CopiedEntries | None = None,
) -> Plan[tuple[Conversation, bool]]:
    """Start a conversation with these messages, in one record.

    Args:
        log: Its log.
        owner: Its owner.
        description: Its description.
        lifetime: Its lifetime (ms); None if it does not expire.
        stored: Its messages.
        caller: The ``owner`` that the caller gave.
        end: The log's end, if it is known already.
        entries: The entries to copy, if there are any.

    Returns:
        The conversation, and whether this call has begun it: if not, an earlier call with the same
        idempotency key did.

    Raises:
        AlreadyExists: Another conversation has this id.
        KeyReused: An earlier call with the same key had other arguments.
        InconsistentRead: The messages were stored too long ago; store them again.
    """
    retries, token = RaceRetries(log.table), log.table.token()
    while True:
        if not stored.may_be_named(log.table.time()):
            raise InconsistentRead
        there = {} if entries is None else (yield from all_items(log))
        if end is None:
            end, _ = yield from log.read_end()
        try:
            if end.live_record(log.table.time()) is not None:
                creation = description.creation
                return (yield from _require_repeated(log, end, caller, creation)), False
            yield from await_beginning(log.table, end, lifetime)
            record = first_record(
                log.table,
                end,
                token,
                owner=owner,
                lifetime=lifetime,
                width=max(stored.messages, 1),
                part_items=stored.items,
            )
            record = stored.attach_to(record)
            record = record._replace(initial_description=encode_description(description))
            if entries is not None:
                record = yield from entries.copy(record, end, there)
            yield from log.put(record, end)
            break
        except (InconsistentRead, LostRace) as failed:
            if entries is not None:
                yield from entries.discard()
                if isinstance(failed, InconsistentRead):
                    raise  # the source may have changed
            end = None
            yield from retries.back_off()
    yield from finish_write(log, record, read_at=end.read_at)
    return conversation(log.id, record, description), True


def _copy(source: Log, last: Record, writer: BodyWriter, at: int | None) -> Plan[None]:
    """Write the messages of ``source`` up to and with seq ``at`` (None: all) to ``writer``."""
    after, until = 0, MAX_REVISION if at is None else at + 1
    while after + 1 < until:
        spans = yield from read_forward(source, last, COPIED_AT_ONCE, after=after, before=until)
        if not spans:
            return
        for span in spans:
            values = yield from read_span(source, last, span)
            yield from writer.add([dumps(value) for value in values if value is not None])
            after = span.last
