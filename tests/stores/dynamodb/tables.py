"""Tables for tests, and functions that read and write their items directly."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.table import INDEX
from chatledger.values import new_id

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BATCH_ITEMS = 25  # of one BatchWriteItem (AWS)


def new_table(client: "DynamoDBClient") -> str:
    """Create a table and return its name.

    TTL stays off: DynamoDB Local would delete items by the real time, but tests date them by a
    clock of their own.
    """
    name = f"test-{new_id()}"
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "owner", "AttributeType": "S"},
            {"AttributeName": "updated_at", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": INDEX,
                "KeySchema": [
                    {"AttributeName": "owner", "KeyType": "HASH"},
                    {"AttributeName": "updated_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )
    return name


def items_of(client: "DynamoDBClient", table: str) -> list[Item]:
    """Return every item of the table, in the order of their keys."""
    items: list[Any] = []
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        items += page["Items"]
    return sorted(items, key=key_of)


def keys_of(client: "DynamoDBClient", table: str) -> list[tuple[str, str]]:
    """Return the key of every item."""
    return [key_of(item) for item in items_of(client, table)]


def clear_table(client: "DynamoDBClient", table: str) -> None:
    """Delete every item."""
    _write(
        client,
        table,
        [
            {"DeleteRequest": {"Key": {"pk": item["pk"], "sk": item["sk"]}}}
            for item in items_of(client, table)
        ],
    )


def put_items(client: "DynamoDBClient", table: str, items: Iterable[Item]) -> None:
    """Put the items, in batches."""
    _write(client, table, [{"PutRequest": {"Item": item}} for item in items])


def key_of(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _write(client: "DynamoDBClient", table: str, requests: list[Any]) -> None:
    while requests:
        reply = client.batch_write_item(RequestItems={table: requests[:BATCH_ITEMS]})
        requests = [*reply["UnprocessedItems"].get(table, []), *requests[BATCH_ITEMS:]]
