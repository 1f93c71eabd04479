"""DynamoDB's TTL, by a test's own clock: late, in any order, an item at a time."""

from random import Random
from typing import TYPE_CHECKING, Any

from chatledger.stores.dynamodb.table import milliseconds, moment
from tests.stores.dynamodb.clients import Params, watched_client
from tests.stores.dynamodb.conftest import SetClock
from tests.stores.dynamodb.tables import place

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Reaper:
    """Eats items of ``table`` whose ``expires_at`` has passed by ``clock``."""

    def __init__(
        self, client: "DynamoDBClient", table: str, clock: SetClock, *, seed: int = 1
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._random = Random(seed)
        self.eaten: list[tuple[str, str]] = []

    def client(self) -> "DynamoDBClient":
        """A client that may find an item eaten before any of its calls."""
        return watched_client(self._client, before=self._maybe)

    def eat_one(self) -> bool:
        """Eat one of those that are due; whether there was any."""
        due = self._due()
        if due:
            item = self._random.choice(due)
            self._client.delete_item(
                TableName=self._table, Key={"pk": item["pk"], "sk": item["sk"]}
            )
            self.eaten.append(place(item))
        return bool(due)

    def eat_all(self) -> None:
        while self.eat_one():
            pass

    def _maybe(self, operation: str, params: Params) -> None:
        if self._random.random() < 0.5:
            self.eat_one()

    def _due(self) -> list[Any]:
        now = milliseconds(self._clock() - moment(0)) // 1_000
        found: list[Any] = []
        for page in self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="expires_at < :now",
            ExpressionAttributeValues={":now": {"N": str(now)}},
            ProjectionExpression="pk, sk",
        ):
            found += page["Items"]
        return found
