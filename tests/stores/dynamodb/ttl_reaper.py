"""DynamoDB's TTL by a test's own clock: it deletes items late, in any order, one at a time."""

from random import Random
from typing import TYPE_CHECKING, Any

from chatledger.values import milliseconds, to_datetime
from tests.stores.dynamodb.conftest import ManualClock
from tests.stores.dynamodb.faulty_clients import Params, client_with_hooks
from tests.stores.dynamodb.tables import key_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class TTLReaper:
    """Deletes items of ``table`` whose ``expires_at`` has passed by ``clock``."""

    def __init__(
        self, client: "DynamoDBClient", table: str, clock: ManualClock, *, seed: int = 1
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._random = Random(seed)
        self.deleted: list[tuple[str, str]] = []
        """The keys of the items deleted so far."""

    def client(self) -> "DynamoDBClient":
        """Return a client that may find an item deleted before any of its calls."""
        return client_with_hooks(self._client, before=self._maybe_delete_one)

    def delete_one(self) -> bool:
        """Delete an expired item, chosen at random; return whether there was one."""
        expired = self._expired_items()
        if expired:
            item = self._random.choice(expired)
            self._client.delete_item(
                TableName=self._table, Key={"pk": item["pk"], "sk": item["sk"]}
            )
            self.deleted.append(key_of(item))
        return bool(expired)

    def delete_all(self) -> None:
        while self.delete_one():
            pass

    def _maybe_delete_one(self, operation: str, params: Params) -> None:
        if self._random.random() < 0.5:
            self.delete_one()

    def _expired_items(self) -> list[Any]:
        now = milliseconds(self._clock() - to_datetime(0)) // 1_000
        items: list[Any] = []
        for page in self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="expires_at < :now",
            ExpressionAttributeValues={":now": {"N": str(now)}},
            ProjectionExpression="pk, sk",
        ):
            items += page["Items"]
        return items
