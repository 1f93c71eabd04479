"""The plan that lists every conversation of a table."""

from typing import Any

from chatledger.conversations import Conversation, Listing
from chatledger.errors import InvalidArgument, NotFound
from chatledger.stores.cursors import decode_cursor, encode_cursor
from chatledger.stores.dynamodb.calls import Call, Item, Plan
from chatledger.stores.dynamodb.heads import conversation_from_head
from chatledger.stores.dynamodb.plans.read import get
from chatledger.stores.dynamodb.records import (
    DESCRIPTION_ATTRIBUTES,
    HEAD,
    conversation_of,
    decode_head,
    key,
    owner_of,
    owner_partition,
)
from chatledger.stores.dynamodb.table import Table
from chatledger.stores.operations import Get, Scan

NAMES = (
    *("pk", "sk", "v", "l", "z", "life", "owner", *DESCRIPTION_ATTRIBUTES, "deleted", "expiry"),
    *("created_at", "updated_at", "message_count", "revision", "metadata_revision"),
)
ITEMS_A_CONVERSATION = 100
"""The number of items that one call reads for each conversation asked for."""
BEFORE, AFTER, AFTER_OWNER = 0, 1, 2
PLACES = {BEFORE: " ", AFTER: "~~", AFTER_OWNER: "~~"}
"""Sort keys before and after all items of a conversation, and after the entries of an owner."""


def scan(table: Table, operation: Scan) -> Plan[Listing]:
    """List conversations as ``Store.scan`` promises.

    Conversations are listed as their heads describe them. If there are records but no head, or the
    head says that the conversation is deleted or expired, its log is read.
    """
    limit, cursor = operation.limit, operation.cursor
    params: dict[str, Any] = {
        "TableName": table.name,
        "ConsistentRead": table.consistent,
        "ProjectionExpression": ", ".join(f"#{name}" for name in NAMES),
        "ExpressionAttributeNames": {f"#{name}": name for name in NAMES},
        "Limit": limit * ITEMS_A_CONVERSATION,
    }
    if cursor is not None:
        params["ExclusiveStartKey"] = _start(cursor)
    found: list[Conversation] = []
    pending: str | None = None  # a conversation with records whose head was not seen yet
    while True:
        reply = yield Call("Scan", params)
        # The items of a conversation are neighbours, and its head is the last of them.
        for item in reply["Items"]:
            conversation_id = conversation_of(item["pk"]["S"])
            is_of_owner = owner_of(item["pk"]["S"]) is not None
            if pending is not None and (is_of_owner or conversation_id != pending):
                found += yield from _look_up(table, pending)
                if len(found) == limit:
                    return Listing(found, encode_cursor(AFTER, pending))
                pending = None
            if is_of_owner:
                continue
            if item["sk"]["S"] != HEAD:
                pending = conversation_id if "l" in item and "z" not in item else pending
                continue
            head = decode_head(item)
            if head.is_live(table.time()):
                found.append(conversation_from_head(conversation_id, head))
            elif pending is not None:
                found += yield from _look_up(table, pending)
            pending = None
            if len(found) == limit:
                return Listing(found, encode_cursor(AFTER, conversation_id))
        last = reply.get("LastEvaluatedKey")
        if last is None:
            if pending is not None:
                found += yield from _look_up(table, pending)
            return Listing(found, None)
        if found:
            owner = owner_of(last["pk"]["S"])
            if owner is not None:
                return Listing(found, encode_cursor(AFTER_OWNER, owner))
            # If this page ended within a conversation, the next one starts before it.
            place = AFTER if last["sk"]["S"] == HEAD else BEFORE
            return Listing(found, encode_cursor(place, conversation_of(last["pk"]["S"])))
        params["ExclusiveStartKey"] = last


def _start(cursor: str) -> Item:
    place, id = decode_cursor(cursor)
    if place not in PLACES or not id:
        raise InvalidArgument("cursor does not come from a scan; start again without one.")
    if place == AFTER_OWNER:
        return {"pk": {"S": owner_partition(id)}, "sk": {"S": PLACES[place]}}
    return key(id, PLACES[place])


def _look_up(table: Table, conversation_id: str) -> Plan[list[Conversation]]:
    try:
        return [(yield from get(table, Get(conversation_id, owner=None)))]
    except NotFound:
        return []
