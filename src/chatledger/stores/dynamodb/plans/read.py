"""Plans that read a conversation, or list an owner's."""

from typing import Any

from chatledger.conversations import MAX_REVISION, Conversation, Listing, Page, Tail
from chatledger.stores.cursors import decode_cursor, encode_cursor
from chatledger.stores.dynamodb import reading
from chatledger.stores.dynamodb.calls import Call, Plan
from chatledger.stores.dynamodb.heads import conversation, describe
from chatledger.stores.dynamodb.log import Log, require_live, retry_inconsistent
from chatledger.stores.dynamodb.records import HEAD, Head, conversation_of, decode_head, key
from chatledger.stores.dynamodb.table import INDEX, Table
from chatledger.stores.operations import Get, ListOwned, ReadPage, ReadTail
from chatledger.values import to_datetime

MIN_HEADS = 100
"""The least number of heads that a further query of the index reads, after expired ones."""


def get(table: Table, operation: Get) -> Plan[Conversation]:
    """Return a conversation as ``Store.get`` promises."""
    log = Log(table, operation.conversation_id, consistent=table.consistent)

    def attempt() -> Plan[Conversation]:
        log_end, _ = yield from log.read_end()
        last = require_live(log, log_end, operation.owner)
        return conversation(log, last, (yield from describe(log, last, log_end)))

    return (yield from retry_inconsistent(log, attempt))


def tail(table: Table, operation: ReadTail) -> Plan[Tail]:
    """Return the last messages as ``Store.tail`` promises."""
    log = Log(table, operation.conversation_id, consistent=table.consistent)

    def attempt() -> Plan[Tail]:
        log_end, records = yield from log.read_end(operation.limit)
        last = require_live(log, log_end, operation.owner)
        wanted = min(operation.limit, last.message_count)
        spans = yield from reading.read_backward(
            log, last, wanted, start=last.last_seq, read=records
        )
        messages = yield from reading.read_messages(log, last, spans, backward=True)
        messages.reverse()
        description = yield from describe(log, last, log_end)
        return Tail(conversation(log, last, description), messages)

    return (yield from retry_inconsistent(log, attempt))


def page(table: Table, operation: ReadPage) -> Plan[Page]:
    """Return consecutive messages as ``Store.page`` promises."""
    after, before, limit = operation.after, operation.before, operation.limit
    log = Log(table, operation.conversation_id, consistent=table.consistent)
    backward = after is None and before is not None

    def attempt() -> Plan[Page]:
        log_end, _ = yield from log.read_end()
        last = require_live(log, log_end, operation.owner)
        # One more message than is returned shows whether there are further ones.
        if after is None and before is not None:
            spans = yield from reading.read_backward(log, last, limit + 1, start=before - 1)
        else:
            until = MAX_REVISION if before is None else before
            spans = yield from reading.read_forward(
                log, last, limit + 1, after=after or 0, before=until
            )
        found = sum(span.messages for span in spans)
        messages = yield from reading.read_messages(log, last, spans, backward=backward)
        messages = messages[:limit]
        return Page(messages, messages[-1].seq if len(messages) < found else None)

    return (yield from retry_inconsistent(log, attempt))


def list_owned(table: Table, operation: ListOwned) -> Plan[Listing]:
    """Return an owner's conversations as ``Store.list`` promises."""
    limit = operation.limit
    start = None if operation.cursor is None else decode_cursor(operation.cursor)
    # One more conversation than is returned shows whether there are further ones.
    found = yield from query_heads(table, operation.owner, limit + 1, start)
    conversations = [conversation_from_head(id, head) for id, head in found[:limit]]
    if len(found) <= limit:
        return Listing(conversations, None)
    conversation_id, head = found[limit - 1]
    return Listing(conversations, encode_cursor(head.updated_at, conversation_id))


def query_heads(
    table: Table,
    owner: str,
    limit: int,
    start: tuple[int, str] | None,
    *,
    forward: bool = False,
    include_expired: bool = False,
) -> Plan[list[tuple[str, Head]]]:
    """Return at most ``limit`` conversations of ``owner`` with their ids, newest activity first.

    Args:
        table: The table.
        owner: The owner.
        limit: The most conversations to return.
        start: The ``updated_at`` and id of a conversation; return those after it.
        forward: Return the oldest activity first.
        include_expired: Return expired conversations too.
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
    count = limit
    while len(found) < limit:
        reply = yield Call("Query", params | {"Limit": count})
        time = table.time()
        for item in reply["Items"]:
            head = decode_head(item)
            if include_expired or head.expiry is None or head.expiry > time:
                found.append((conversation_of(item["pk"]["S"]), head))
        if "LastEvaluatedKey" not in reply:
            break
        params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]
        count = max(limit - len(found), MIN_HEADS)
    return found[:limit]


def conversation_from_head(conversation_id: str, head: Head) -> Conversation:
    """Return the conversation as its head describes it."""
    return Conversation(
        id=conversation_id,
        owner=head.owner,
        title=head.title,
        metadata=head.metadata,
        created_at=to_datetime(head.created_at),
        updated_at=to_datetime(head.updated_at),
        message_count=head.message_count,
        revision=head.revision,
        expires_at=None if head.expiry is None else to_datetime(head.expiry),
        metadata_revision=(
            max(head.created_at, 0) if head.metadata_revision is None else head.metadata_revision
        ),
    )
