"""Plans that start a conversation: empty, or as a copy of another."""

from datetime import timedelta

from chatledger.conversations import (
    MAX_REVISION,
    Conversation,
    check_id,
    check_ids,
    check_lifetime,
    check_revision,
    check_title,
    checked_metadata,
)
from chatledger.errors import AlreadyExists
from chatledger.ids import new_id as a_new_id
from chatledger.json_values import Json, dumps
from chatledger.stores.dynamodb import bodies, heads, reading
from chatledger.stores.dynamodb.bodies import BodyWriter, StoredBody
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.log import InconsistentRead, Log, LostRace
from chatledger.stores.dynamodb.plans.common import (
    best_effort,
    conversation,
    describe,
    finish_write,
    first_record,
    require_live,
    retry_inconsistent,
    ttl_of_parts,
)
from chatledger.stores.dynamodb.records import Record
from chatledger.stores.dynamodb.table import LogEnd, RaceRetries, Table
from chatledger.stores.times import milliseconds

COPIED_AT_ONCE = 200
"""The number of messages that a fork reads at once."""


def create(
    table: Table,
    conversation_id: str | None,
    *,
    owner: str | None,
    title: str | None,
    metadata: dict[str, Json] | None,
    expires_in: timedelta | None,
) -> Plan[Conversation]:
    """Create a conversation as ``Store.create`` promises."""
    # No conversation can have a new id already, so nothing is read first.
    log_end = LogEnd(read_at=table.now()) if conversation_id is None else None
    conversation_id = a_new_id() if conversation_id is None else conversation_id
    check_ids(conversation_id, owner)
    check_title(title)
    check_lifetime(expires_in)
    description = (title or None, checked_metadata(metadata))
    lifetime = table.lifetime if expires_in is None else milliseconds(expires_in)
    log = Log(table, conversation_id)
    return (
        yield from _begin(log, owner, description, lifetime, StoredBody(), messages=0, end=log_end)
    )


def fork(
    table: Table,
    conversation_id: str,
    *,
    at: int | None,
    new_id: str,
    owner: str | None,
    expires_in: timedelta | None = None,
) -> Plan[Conversation]:
    """Copy a conversation as ``Store.fork`` promises.

    The messages are written to body parts that no reader sees yet. Then one record shows them all.
    """
    check_ids(conversation_id, owner)
    check_id(new_id, "new_id")
    check_revision(at, "at")
    check_lifetime(expires_in)
    source, target = Log(table, conversation_id), Log(table, new_id)

    def attempt() -> Plan[Conversation]:
        log_end, _ = yield from source.read_end()
        last = require_live(source, log_end, owner)
        description = yield from describe(source, last, log_end)
        found, _ = yield from target.read_end()
        if found.live_record(table.time()) is not None:
            raise AlreadyExists(new_id)
        lifetime = last.lifetime if expires_in is None else milliseconds(expires_in)
        items = last.message_count
        writer = BodyWriter(target, ttl_of_parts(table, None, lifetime, items), items=items)
        try:
            yield from _copy(source, last, writer, at)
            stored = yield from writer.finish()
            return (
                yield from _begin(
                    target, last.owner, description, lifetime, stored, messages=writer.messages
                )
            )
        except (InconsistentRead, AlreadyExists):
            orphan = writer.as_record()
            yield from best_effort(
                target, bodies.delete_body(target, orphan), "delete the parts of a copy"
            )
            raise

    return (yield from retry_inconsistent(source, attempt))


def _begin(
    log: Log,
    owner: str | None,
    description: heads.Description,
    lifetime: int | None,
    stored: StoredBody,
    *,
    messages: int,
    end: LogEnd | None = None,
) -> Plan[Conversation]:
    """Start a conversation with these messages, in one record.

    Args:
        log: Its log.
        owner: Its owner.
        description: Its title and metadata.
        lifetime: Its lifetime (ms); None if it does not expire.
        stored: Its messages.
        messages: The number of its messages.
        end: The log's end, if it is known already.

    Raises:
        AlreadyExists: A live conversation has this id.
        InconsistentRead: The messages were stored too long ago; store them again.
    """
    retries, token = RaceRetries(log.table), log.table.token()
    while True:
        if end is None:
            end, _ = yield from log.read_end()
        if end.live_record(log.table.time()) is not None:
            raise AlreadyExists(log.id)
        record = first_record(
            log.table,
            end,
            token,
            owner=owner,
            lifetime=lifetime,
            width=max(messages, 1),
            part_items=stored.items,
        )
        if not stored.may_be_named(log.table.time()):
            raise InconsistentRead
        record = stored.attach_to(record)._replace(
            initial_description=heads.encode_description(*description),
            messages=messages,
            message_count=messages,
        )
        try:
            yield from log.put(record, end)
            break
        except (InconsistentRead, LostRace):
            end = None
            yield from retries.back_off()
    yield from finish_write(log, record, read_at=end.read_at)
    return conversation(log, record, description)


def _copy(source: Log, last: Record, writer: BodyWriter, at: int | None) -> Plan[None]:
    """Write the messages of ``source`` up to and with seq ``at`` (None: all) to ``writer``."""
    after, until = 0, MAX_REVISION if at is None else at + 1
    while after + 1 < until:
        spans = yield from reading.read_forward(
            source, last, COPIED_AT_ONCE, after=after, before=until
        )
        if not spans:
            return
        for span in spans:
            values = yield from reading.read_span(source, last, span)
            yield from writer.add([dumps(value) for value in values])
            after = span.last
