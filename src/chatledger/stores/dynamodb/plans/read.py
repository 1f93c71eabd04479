"""Plans that read a conversation, or list an owner's."""

from typing import Any

from chatledger.conversations import (
    LAST_REVISION,
    LIMIT,
    Conversation,
    Listing,
    Page,
    Tail,
    check_id,
    check_names,
    check_number,
    check_place,
)
from chatledger.stores.cursors import decode_cursor, encode_cursor
from chatledger.stores.dynamodb import heads, reading
from chatledger.stores.dynamodb.calls import Call, Plan
from chatledger.stores.dynamodb.log import Log
from chatledger.stores.dynamodb.plans.common import conversation, living, untorn
from chatledger.stores.dynamodb.records import HEAD, Head, conversation_of, decode_head, key
from chatledger.stores.dynamodb.table import INDEX, Table, moment


def get(table: Table, conversation_id: str, *, owner: str | None) -> Plan[Conversation]:
    check_names(conversation_id, owner)
    log = Log(table, conversation_id, consistent=table.consistent)

    def once() -> Plan[Conversation]:
        standing, _ = yield from log.end()
        last = living(log, standing, owner)
        description = yield from heads.described(log, last, standing.head)
        return conversation(log, last, description)

    return (yield from untorn(table, once))


def tail(table: Table, conversation_id: str, n: int, *, owner: str | None) -> Plan[Tail]:
    check_names(conversation_id, owner)
    check_number(n, "n", least=1, most=LIMIT)
    log = Log(table, conversation_id, consistent=table.consistent)

    def once() -> Plan[Tail]:
        standing, records = yield from log.end(n)
        last = living(log, standing, owner)
        stretches = yield from reading.back(log, last, n, start=last.last_seq, read=records)
        messages = yield from reading.messages(log, reversed(stretches))
        description = yield from heads.described(log, last, standing.head)
        return Tail(conversation(log, last, description), messages)

    return (yield from untorn(table, once))


def page(
    table: Table,
    conversation_id: str,
    *,
    after: int | None,
    before: int | None,
    limit: int,
    owner: str | None,
) -> Plan[Page]:
    check_names(conversation_id, owner)
    check_number(limit, "limit", least=1, most=LIMIT)
    check_place(after, "after")
    check_place(before, "before")
    log = Log(table, conversation_id, consistent=table.consistent)

    def once() -> Plan[Page]:
        standing, _ = yield from log.end()
        last = living(log, standing, owner)
        # One more than is shown tells whether anything lies beyond.
        if after is None and before is not None:
            stretches = yield from reading.back(log, last, limit + 1, start=before - 1)
            stretches.reverse()
        else:
            stretches = yield from reading.on(
                log,
                last,
                limit + 1,
                after=after or 0,
                before=LAST_REVISION if before is None else before,
            )
        messages = yield from reading.messages(log, stretches)
        if after is None and before is not None:
            messages.reverse()
        more = len(messages) > limit
        return Page(messages[:limit], messages[limit - 1].seq if more else None)

    return (yield from untorn(table, once))


def list_owned(table: Table, owner: str, *, limit: int, cursor: str | None) -> Plan[Listing]:
    check_id(owner, "owner")
    check_number(limit, "limit", least=1, most=LIMIT)
    start = None if cursor is None else decode_cursor(cursor)
    # One more than is shown tells whether anything lies beyond.
    found = yield from owned_heads(table, owner, limit + 1, start)
    conversations = [summary(conversation_id, head) for conversation_id, head in found[:limit]]
    if len(found) <= limit:
        return Listing(conversations, None)
    conversation_id, head = found[limit - 1]
    return Listing(conversations, encode_cursor(head.updated_at, conversation_id))


def owned_heads(
    table: Table,
    owner: str,
    limit: int,
    start: tuple[int, str] | None,
    *,
    forward: bool = False,
    expired_too: bool = False,
) -> Plan[list[tuple[str, Head]]]:
    """At most ``limit`` conversations of ``owner`` behind ``start``, newest activity first, or
    oldest where ``forward``.
    """
    params: dict[str, Any] = {
        "TableName": table.name,
        "IndexName": INDEX,
        "KeyConditionExpression": "#owner = :owner",
        "ExpressionAttributeNames": {"#owner": "owner"},
        "ExpressionAttributeValues": {":owner": {"S": owner}},
        "ScanIndexForward": forward,
    }
    if start is not None:
        updated_at, conversation_id = start
        params["ExclusiveStartKey"] = key(conversation_id, HEAD) | {
            "owner": {"S": owner},
            "updated_at": {"N": str(updated_at)},
        }
    found: list[tuple[str, Head]] = []
    time = table.time()
    while len(found) < limit:
        reply = yield Call("Query", params | {"Limit": limit - len(found)})
        for item in reply["Items"]:
            head = decode_head(item)
            if expired_too or head.expiry is None or head.expiry > time:
                found.append((conversation_of(item["pk"]["S"]), head))
        if "LastEvaluatedKey" not in reply:
            break
        params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]
    return found


def summary(conversation_id: str, head: Head) -> Conversation:
    """The conversation as its head says it stands."""
    return Conversation(
        id=conversation_id,
        owner=head.owner,
        title=head.title,
        metadata=head.metadata,
        created_at=moment(head.created_at),
        updated_at=moment(head.updated_at),
        message_count=head.message_count,
        revision=head.revision,
        expires_at=None if head.expiry is None else moment(head.expiry),
    )
