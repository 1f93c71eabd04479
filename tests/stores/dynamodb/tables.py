"""Tables for tests, and what lies in them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from chatledger.messages import new_id
from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.table import INDEX

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BATCH = 25  # items of one BatchWriteItem (AWS)


def new_table(client: "DynamoDBClient") -> str:
    """A table of our own. Without TTL: DynamoDB Local would eat by the real time what a test
    dates by its own clock.
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
    """Every item, whole, in the order of their keys."""
    found: list[Any] = []
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        found += page["Items"]
    return sorted(found, key=place)


def keys_of(client: "DynamoDBClient", table: str) -> list[tuple[str, str]]:
    """The key of every item."""
    return [place(item) for item in items_of(client, table)]


def empty(client: "DynamoDBClient", table: str) -> None:
    """Delete every item."""
    waiting: list[Any] = [
        {"DeleteRequest": {"Key": {"pk": item["pk"], "sk": item["sk"]}}}
        for item in items_of(client, table)
    ]
    while waiting:
        reply = client.batch_write_item(RequestItems={table: waiting[:BATCH]})
        waiting = [*reply["UnprocessedItems"].get(table, []), *waiting[BATCH:]]


def place(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def put_items(client: "DynamoDBClient", table: str, items: Iterable[Item]) -> None:
    """Put these, many at a time."""
    waiting: list[Any] = [{"PutRequest": {"Item": item}} for item in items]
    while waiting:
        reply = client.batch_write_item(RequestItems={table: waiting[:BATCH]})
        waiting = [*reply["UnprocessedItems"].get(table, []), *waiting[BATCH:]]
