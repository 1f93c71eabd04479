"""Plans that take messages away, or change what is there."""

from collections.abc import Sequence

from chatledger.conversations import (
    LIMIT,
    Conversation,
    check_names,
    check_number,
    check_place,
    check_title,
    checked_metadata,
    encode_one,
)
from chatledger.errors import Conflict, NotFound, StoreUnavailable
from chatledger.json_values import Json, dumps
from chatledger.messages import Message
from chatledger.stores.dynamodb import bodies, heads, reading
from chatledger.stores.dynamodb.bodies import keep
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan
from chatledger.stores.dynamodb.log import CANCELLED, CONDITION_FAILED, Log, Torn
from chatledger.stores.dynamodb.plans.common import (
    afterwards,
    conversation,
    extended,
    first_in,
    follow,
    lives_for,
    living,
    lost,
    settle,
)
from chatledger.stores.dynamodb.plans.cut import cut, cut_off
from chatledger.stores.dynamodb.records import Fence, Record, decode_head
from chatledger.stores.dynamodb.table import Standing, Table


def truncate(
    table: Table, conversation_id: str, *, after: int, owner: str | None
) -> Plan[Conversation]:
    check_names(conversation_id, owner)
    check_number(after, "after", least=0)
    log = Log(table, conversation_id)

    def once() -> Plan[Conversation | None]:
        since = table.time()
        standing, read = yield from log.end()
        last = living(log, standing, owner)
        description = yield from heads.described(log, last, standing.head)
        if after < last.last_seq:
            shorter = yield from _cut(log, standing, last, after, read, since)
            if shorter is None:
                return None
            last = shorter
        return conversation(log, last, description)

    return (yield from first_in(table, once))


def pop(
    table: Table, conversation_id: str, n: int, *, owner: str | None
) -> Plan[Sequence[Message]]:
    check_names(conversation_id, owner)
    check_number(n, "n", least=1, most=LIMIT)
    log = Log(table, conversation_id)

    def once() -> Plan[Sequence[Message] | None]:
        since = table.time()
        standing, read = yield from log.end(n + 1)
        last = living(log, standing, owner)
        stretches = yield from reading.back(log, last, n, start=last.last_seq, read=read)
        popped = yield from reading.messages(log, reversed(stretches))
        if stretches:
            after = stretches[-1].first - 1
            if (yield from _cut(log, standing, last, after, read, since)) is None:
                return None
        return popped

    return (yield from first_in(table, once))


def _cut(
    log: Log,
    standing: Standing,
    last: Record,
    after: int,
    read: Sequence[Record | Fence],
    since: int,
) -> Plan[Record | None]:
    """Cut off every message behind ``after``: one put, and readers see it.

    None: a rival was first, and nothing is done.
    """
    gone = yield from cut(log, last, after, read)
    last = yield from extended(log, last)
    record = gone.by(follow(log.table, standing, last, log.table.new_token()))
    if (yield from log.put(record, standing)) is not None:
        return None
    yield from cut_off(log, record, since=since)
    return record


def replace(
    table: Table,
    conversation_id: str,
    seq: int,
    message: Message,
    *,
    revision: int | None,
    owner: str | None,
) -> Plan[Conversation]:
    """The record that holds the message is rewritten, in one transaction with a record that says
    that the messages changed.
    """
    check_names(conversation_id, owner)
    check_number(seq, "seq", least=1)
    check_place(revision, "revision")
    text = encode_one(message)
    log = Log(table, conversation_id)

    def once() -> Plan[Conversation | None]:
        since = table.time()
        standing, read = yield from log.end()
        last = living(log, standing, owner)
        if revision is not None and revision != last.revision:
            raise Conflict(conversation_id, expected=revision, revision=last.revision)
        found = yield from reading.back(log, last, 1, start=seq, read=read)
        if not found or found[0].last != seq:
            raise NotFound(log.id, seq=seq)
        holder = found[0].record
        lives_to = last.below_dead(holder.last_seq)
        whole = reading.Stretch(holder, holder.position, lives_to)
        values = yield from reading.bodies(log, whole)
        texts = [dumps(value) for value in values]
        texts[seq - holder.position] = text
        description = yield from heads.described(log, last, standing.head)
        last = yield from extended(log, last)
        marker = follow(table, standing, last, table.new_token())
        kept = yield from keep(log, texts, marker.stamp)
        changed = kept.within(holder)._replace(
            messages=len(texts),
            message_count=holder.message_count - (holder.messages - len(texts)),
            rewritten=marker.position,
            stamp=marker.stamp,
        )
        put = {"Put": bodies.rewriting(log, holder, changed)}
        try:
            rival = yield from log.put(marker, standing, put)
        except CallFailed as failed:
            if failed.code != CANCELLED:
                raise
            return None  # the record was rewritten or fenced meanwhile
        if rival is not None:
            return None
        yield from settle(log, marker, lives_for(table, marker), since=since)
        yield from afterwards(bodies.discard_parts(log, holder))
        return conversation(log, marker, description)

    return (yield from first_in(table, once))


def update(
    table: Table,
    conversation_id: str,
    *,
    title: str | None,
    metadata: dict[str, Json] | None,
    revision: int | None,
    owner: str | None,
) -> Plan[Conversation]:
    check_names(conversation_id, owner)
    check_title(title)
    metadata = None if metadata is None else checked_metadata(metadata)
    check_place(revision, "revision")
    log, token = Log(table, conversation_id), table.new_token()
    changed = heads.attributes(title, metadata)
    times = 0
    while True:
        standing, _ = yield from log.end()
        last = living(log, standing, owner)
        if revision is not None and revision != last.revision:
            raise Conflict(conversation_id, expected=revision, revision=last.revision)
        head = standing.head
        try:
            description = yield from heads.described(log, last, head)
            if head is None or not head.is_of(last):
                yield from heads.mend(log)
                head = None
        except Torn:
            continue
        if not changed and revision is None:
            break
        update = heads.edit(log, last, head, changed, token)
        try:
            if revision is None:
                yield Call("UpdateItem", update)
            else:
                yield Call(
                    "TransactWriteItems",
                    {"TransactItems": [{"Update": update}, log.nothing_at(standing.next)]},
                )
            break
        except CallFailed as failed:
            if failed.code not in (CONDITION_FAILED, CANCELLED):
                raise
            found = failed.item or (failed.reasons[0][1] if failed.reasons else None)
            if found is not None and decode_head(found).edit == token:
                break  # of a try whose answer was lost
            if failed.unknown and changed:
                # If it was in, others went on from it.
                raise StoreUnavailable(
                    "An answer was lost, and the conversation has changed since; read it, and "
                    "update it again if it needs that.",
                    may_have_landed=True,
                ) from failed
        times += 1
        yield from lost(table, times)
    was_title, was_metadata = description
    return conversation(
        log,
        last,
        (
            was_title if title is None else title or None,
            was_metadata if metadata is None else metadata,
        ),
    )
