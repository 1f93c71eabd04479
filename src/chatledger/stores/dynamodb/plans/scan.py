"""The plan that walks over every conversation of a table."""

from typing import Any

from chatledger.conversations import LIMIT, Conversation, Listing, check_number
from chatledger.errors import InvalidArgument, NotFound
from chatledger.stores.cursors import decode_cursor, encode_cursor
from chatledger.stores.dynamodb.calls import Call, Item, Plan
from chatledger.stores.dynamodb.plans.read import get, summary
from chatledger.stores.dynamodb.records import HEAD, conversation_of, decode_head, key
from chatledger.stores.dynamodb.table import Table

NAMES = ("pk", "sk", "v", "l", "z", "life", "owner", "title", "metadata", "deleted", "expiry")
NAMES_OF_NUMBERS = ("created_at", "updated_at", "message_count", "revision")
BEFORE, BEHIND = 0, 1
PLACES = {BEFORE: " ", BEHIND: "~~"}
"""Sort keys before and behind whatever a conversation has."""


def scan(table: Table, *, limit: int, cursor: str | None) -> Plan[Listing]:
    """Heads say what there is; but a conversation whose head its writer did not come to make, or
    to renew in time, is looked up in its log.
    """
    check_number(limit, "limit", least=1, most=LIMIT)
    names = (*NAMES, *NAMES_OF_NUMBERS)
    params: dict[str, Any] = {
        "TableName": table.name,
        "ConsistentRead": table.consistent,
        "ProjectionExpression": ", ".join(f"#{name}" for name in names),
        "ExpressionAttributeNames": {f"#{name}": name for name in names},
    }
    if cursor is not None:
        params["ExclusiveStartKey"] = _start(cursor)
    found: list[Conversation] = []
    pending: str | None = None  # has records, and its head was not seen yet
    while True:
        reply = yield Call("Scan", params)
        # The items of a conversation come one behind the other, its head last.
        for item in reply["Items"]:
            conversation_id = conversation_of(item["pk"]["S"])
            if pending is not None and conversation_id != pending:
                found += yield from _looked_up(table, pending)
                if len(found) == limit:
                    return Listing(found, encode_cursor(BEHIND, pending))
                pending = None
            if item["sk"]["S"] != HEAD:
                pending = conversation_id if "l" in item and "z" not in item else pending
                continue
            shown = _shown(table, conversation_id, item)
            if shown is None and pending is not None:
                found += yield from _looked_up(table, pending)
            elif shown is not None:
                found.append(shown)
            pending = None
            if len(found) == limit:
                return Listing(found, encode_cursor(BEHIND, conversation_id))
        last = reply.get("LastEvaluatedKey")
        if last is None:
            if pending is not None:
                found += yield from _looked_up(table, pending)
            return Listing(found, None)
        if found:
            # In the midst of a conversation the next call starts before it, to see all of it.
            place = BEHIND if last["sk"]["S"] == HEAD else BEFORE
            return Listing(found, encode_cursor(place, conversation_of(last["pk"]["S"])))
        params["ExclusiveStartKey"] = last


def _start(cursor: str) -> Item:
    place, conversation_id = decode_cursor(cursor)
    if place not in PLACES or not conversation_id:
        raise InvalidArgument("cursor is not one that a scan gave; start again without one.")
    return key(conversation_id, PLACES[place])


def _shown(table: Table, conversation_id: str, item: Item) -> Conversation | None:
    head = decode_head(item)
    if head.deleted or (head.expiry is not None and head.expiry <= table.time()):
        return None
    return summary(conversation_id, head)


def _looked_up(table: Table, conversation_id: str) -> Plan[list[Conversation]]:
    try:
        return [(yield from get(table, conversation_id, owner=None))]
    except NotFound:
        return []
