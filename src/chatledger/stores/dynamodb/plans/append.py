"""The plan that appends."""

from collections.abc import Sequence
from typing import Any

from chatledger.conversations import (
    Appended,
    check_idempotency_key,
    check_names,
    check_place,
    encode_batch,
)
from chatledger.errors import ChatledgerError, Conflict, NotFound
from chatledger.messages import Message
from chatledger.stores.dynamodb.bodies import Kept, keep
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan
from chatledger.stores.dynamodb.log import CANCELLED, Log, Torn
from chatledger.stores.dynamodb.plans.common import (
    extended,
    follow,
    lives_for,
    lost,
    remember,
    settle,
    stamp_of_parts,
)
from chatledger.stores.dynamodb.plans.cut import Cut, cut, cut_off
from chatledger.stores.dynamodb.records import LAYOUT, Record, key, key_sort
from chatledger.stores.dynamodb.table import FENCED, Standing, Table, stamp_at

STEPS = 3  # past rivals one by one; further behind, the end is read


def append(
    table: Table,
    conversation_id: str,
    messages: Sequence[Message],
    *,
    owner: str | None,
    after: int | None,
    idempotency_key: str | None,
    truncate_after: int | None = None,
    reply_follows: bool = False,
) -> Plan[Appended]:
    check_names(conversation_id, owner)
    check_idempotency_key(idempotency_key)
    check_place(after, "after")
    check_place(truncate_after, "truncate_after")
    texts = encode_batch(messages)
    log, token = Log(table, conversation_id), table.new_token()
    standing = table.remembered(conversation_id)
    sure = False  # whether the standing was read within this call
    key_seen = False
    kept: Kept | None = None
    times = 0
    while True:
        if standing is None:
            standing, _ = yield from log.end()
            sure = True
        last = standing.living(table.time())
        refusal = _refusal(log, last, owner, after)
        if refusal is not None and not sure:  # nothing is refused on a remembered word
            standing = None
            continue
        if idempotency_key is not None and last and (refusal or key_seen):
            try:
                done = yield from _done(log, last, owner, idempotency_key)
            except Torn:
                standing = None
                continue
            if done is not None:
                return done
        if refusal is not None:
            raise refusal
        gone: Cut | None = None
        try:
            if last is not None and truncate_after is not None and truncate_after < last.last_seq:
                gone = yield from cut(log, last, truncate_after)
            if last is not None:
                last = yield from extended(log, last)
            if kept is None:
                kept = yield from keep(log, texts, stamp_of_parts(table, last))
            since = table.time()
            record = follow(table, standing, last, token, width=len(texts), owner=owner)
        except Torn:
            standing = None
            continue
        if not kept.lasts(record):
            kept = None
            continue
        if gone is not None:
            record = gone.by(record)
        record = kept.within(record)._replace(
            messages=len(texts), message_count=record.message_count + len(texts)
        )
        beside = [_key(log, record, idempotency_key)] if idempotency_key is not None else []
        try:
            rival = yield from log.put(record, standing, *beside)
        except CallFailed as failed:
            if failed.code != CANCELLED:
                raise
            standing, key_seen = None, True
            continue
        if rival is None:
            break
        times += 1
        sure = False
        # Past a fence nothing is known of the conversation.
        standing = Standing(rival) if times % STEPS and isinstance(rival, Record) else None
        yield from lost(table, times)
    if gone is not None:
        yield from cut_off(log, record, since=since)
    elif reply_follows and record.position != record.life:
        remember(log, record, since=since)
    else:
        yield from settle(log, record, lives_for(table, record), since=since)
    return Appended(range(record.position, record.revision + 1), record.revision)


def _refusal(
    log: Log, last: Record | None, owner: str | None, after: int | None
) -> ChatledgerError | None:
    """Why nothing may be appended behind ``last``, if so."""
    if last is None:
        return NotFound(log.id) if after else None
    if owner not in (None, last.owner):
        return NotFound(log.id)
    if after is not None and after != last.revision:
        return Conflict(log.id, expected=after, revision=last.revision)
    return None


def _key(log: Log, record: Record, idempotency_key: str) -> dict[str, Any]:
    """A part of the record's transaction that keeps what the append answers."""
    item = key(log.id, key_sort(idempotency_key))
    item |= {
        "v": {"N": str(LAYOUT)},
        "life": {"N": str(record.life)},
        "created_at": {"N": str(record.created_at)},
        "position": {"N": str(record.position)},
        "messages": {"N": str(record.messages)},
        "expires_at": {"N": str(stamp_at(log.table.time() + FENCED))},
    }
    # A key of a former life, told by its creation too, is nothing to this one.
    condition = "attribute_not_exists(#pk) OR #life <> :life OR #created_at <> :created_at"
    put = log.guarded_put(item, condition, life=item["life"], created_at=item["created_at"])
    return {"Put": put}


def _done(log: Log, last: Record, owner: str | None, idempotency_key: str) -> Plan[Appended | None]:
    """What the append with that key answered in this life of the owner's conversation.

    Raises ``Torn`` where another life has begun since, or the record came in behind ``last``: that
    one says whether the conversation lives.
    """
    if owner not in (None, last.owner):
        return None
    reply = yield Call(
        "GetItem",
        {
            "TableName": log.table.name,
            "Key": key(log.id, key_sort(idempotency_key)),
            "ConsistentRead": True,
        },
    )
    item = reply.get("Item")
    if item is None:
        return None
    life, created_at = int(item["life"]["N"]), int(item["created_at"]["N"])
    if (created_at, life) > (last.created_at, last.life):
        raise Torn
    if (life, created_at) != (last.life, last.created_at):
        return None
    first, messages = int(item["position"]["N"]), int(item["messages"]["N"])
    if first > last.revision:
        raise Torn
    return Appended(range(first, first + messages), first + messages - 1)
