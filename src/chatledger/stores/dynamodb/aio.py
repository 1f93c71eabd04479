"""Conversations in a DynamoDB table, for async code, over aiohttp."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from chatledger.aws.session import Session
from chatledger.stores.contract import AsyncStore, awaited
from chatledger.stores.dynamodb import plans
from chatledger.stores.dynamodb.aiohttp_calls import AiohttpCalls
from chatledger.stores.dynamodb.calls import PATIENCE, Plan
from chatledger.stores.dynamodb.store import DynamoDBStore
from chatledger.stores.dynamodb.table import CLEANUP_SECONDS, Table
from chatledger.stores.operations import Operation
from chatledger.values import now

T = TypeVar("T")


class AsyncDynamoDBStore(AsyncStore):
    """Conversations in a DynamoDB table, for async code, without a thread per call.

    Any number of tasks of one event loop may share a store, and any number of stores a table. The
    store connects with its first call, with the credentials that boto3 finds.

    Args:
        table: The name or ARN of a table that ``create_table`` made.
        region: The AWS region; by default the one that boto3 finds.
        endpoint: The URL of DynamoDB; by default that of the region.
        session: The session of boto3 or botocore that finds these; by default a new one.
        expire_after: As for ``DynamoDBStore``.
        consistent: As for ``DynamoDBStore``.
        patience: As for ``DynamoDBStore``; there are no other retries.
        cleanup: As for ``DynamoDBStore``.
        clock: As for ``DynamoDBStore``.

    Raises:
        InvalidArgument: An argument is invalid.
    """

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        session: Session | None = None,
        expire_after: timedelta | None = None,
        consistent: bool = True,
        patience: float = PATIENCE,
        cleanup: float = CLEANUP_SECONDS,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._calls = AiohttpCalls(
            session=session, region=region, endpoint=endpoint, patience=patience
        )
        self._table = Table.of(
            table,
            expire_after=expire_after,
            consistent=consistent,
            clock=clock,
            patience=patience,
            cleanup=cleanup,
        )

    delete_owner = awaited(DynamoDBStore.delete_owner)
    sweep = awaited(DynamoDBStore.sweep)
    repair = awaited(DynamoDBStore.repair)

    async def perform(self, operation: Operation[T]) -> T:
        return await self.run(plans.plan_for(self._table, operation))

    async def close(self) -> None:
        await self._calls.close()

    async def run(self, plan: Plan[T]) -> T:
        """Run a plan on the store's table to its result."""
        return await self._calls.run(plan, self._table)
