"""Plans that start a conversation: empty, or as a copy."""

from datetime import timedelta

from chatledger.conversations import (
    LAST_REVISION,
    Conversation,
    check_id,
    check_lifetime,
    check_names,
    check_place,
    check_title,
    checked_metadata,
)
from chatledger.errors import AlreadyExists
from chatledger.json_values import Json, dumps
from chatledger.messages import new_id as a_new_id
from chatledger.stores.dynamodb import heads, reading
from chatledger.stores.dynamodb.bodies import Kept, Parts
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.log import Log, Torn
from chatledger.stores.dynamodb.plans.common import (
    afterwards,
    conversation,
    follow,
    lives_for,
    living,
    lost,
    remember,
    untorn,
)
from chatledger.stores.dynamodb.records import Record
from chatledger.stores.dynamodb.table import Standing, Table, milliseconds
from chatledger.stores.dynamodb.ttl import stamp_for


def create(
    table: Table,
    conversation_id: str | None,
    *,
    owner: str | None,
    title: str | None,
    metadata: dict[str, Json] | None,
    expires_in: timedelta | None,
) -> Plan[Conversation]:
    # Where nobody can have had an id, nothing is read first.
    standing = Standing() if conversation_id is None else None
    conversation_id = a_new_id() if conversation_id is None else conversation_id
    check_names(conversation_id, owner)
    check_title(title)
    check_lifetime(expires_in)
    description = (title or None, checked_metadata(metadata))
    lifetime = None if expires_in is None else milliseconds(expires_in)
    token = table.new_token()
    log, kept = Log(table, conversation_id), Kept(None)
    return (yield from _start(log, token, owner, description, lifetime, kept, 0, standing))


def _start(
    log: Log,
    token: str,
    owner: str | None,
    description: heads.Description,
    lifetime: int | None,
    kept: Kept,
    messages: int,
    standing: Standing | None = None,
) -> Plan[Conversation]:
    """A new conversation with these messages, in one record. Raises ``AlreadyExists``."""
    times = 0
    while True:
        since = log.table.time()
        if standing is None:
            standing, _ = yield from log.end()
        if standing.living(log.table.time()) is not None:
            raise AlreadyExists(log.id)
        record = kept.within(
            follow(
                log.table,
                standing,
                None,
                token,
                width=max(messages, 1),
                owner=owner,
                lifetime=lifetime,
            )._replace(
                opening=heads.encode_opening(*description),
                messages=messages,
                message_count=messages,
            )
        )
        rival = yield from log.put(record, standing)
        if rival is None:
            break
        standing = None
        times += 1
        yield from lost(log.table, times)
    remember(log, record, since=since)
    yield from afterwards(heads.renew(log, record))
    return conversation(log, record, description)


def fork(
    table: Table, conversation_id: str, *, at: int | None, new_id: str, owner: str | None
) -> Plan[Conversation]:
    """The messages are written to parts that nobody sees, and one record then shows them all."""
    check_names(conversation_id, owner)
    check_id(new_id, "new_id")
    check_place(at, "at")
    source, target = Log(table, conversation_id), Log(table, new_id)

    def once() -> Plan[Conversation]:
        standing, _ = yield from source.end()
        last = living(source, standing, owner)
        description = yield from heads.described(source, last, standing.head)
        found, _ = yield from target.end()
        if found.living(table.time()) is not None:
            raise AlreadyExists(new_id)
        parts = Parts(target, stamp_for(table.time(), lives_for(table, last)))
        try:
            copied = yield from _copy(source, last, parts, at)
            kept = (yield from parts.kept()) if copied else Kept(None)
            return (
                yield from _start(
                    target, table.new_token(), last.owner, description, last.lifetime, kept, copied
                )
            )
        except (Torn, AlreadyExists):
            yield from parts.discard()
            raise

    return (yield from untorn(table, once))


def _copy(source: Log, last: Record, parts: Parts, at: int | None) -> Plan[int]:
    copied = after = 0
    until = LAST_REVISION if at is None else at + 1
    while after + 1 < until:
        stretches = yield from reading.on(source, last, 200, after=after, before=until)
        if not stretches:
            break
        for part in stretches:
            values = yield from reading.bodies(source, part)
            yield from parts.add([dumps(value) for value in values])
            copied, after = copied + len(values), part.last
    return copied
