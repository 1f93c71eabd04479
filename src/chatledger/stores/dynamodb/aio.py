"""Conversations in a DynamoDB table, for async code, over aiohttp."""

import builtins
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Self, TypeVar

from chatledger.aws.session import Session
from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.json_values import Json
from chatledger.messages import Message, now
from chatledger.stores.contract import AsyncStore
from chatledger.stores.dynamodb import plans
from chatledger.stores.dynamodb.aiohttp_calls import AiohttpCalls
from chatledger.stores.dynamodb.calls import PATIENCE, Plan, paced
from chatledger.stores.dynamodb.store import DynamoDBStore
from chatledger.stores.dynamodb.table import CLEANUP_SECONDS, Table

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

    async def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.create(
                self._table,
                conversation_id,
                owner=owner,
                title=title,
                metadata=metadata,
                expires_in=expires_in,
                idempotency_key=idempotency_key,
            )
        )

    async def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        owner: str | None = None,
        after: int | None = None,
        idempotency_key: str | None = None,
        truncate_after: int | None = None,
        reply_follows: bool = False,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Appended:
        return await self._run(
            plans.append(
                self._table,
                conversation_id,
                messages,
                owner=owner,
                after=after,
                idempotency_key=idempotency_key,
                truncate_after=truncate_after,
                reply_follows=reply_follows,
                title=title,
                metadata=metadata,
                expires_in=expires_in,
            )
        )

    async def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return await self._run(plans.get(self._table, conversation_id, owner=owner))

    async def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail:
        return await self._run(plans.tail(self._table, conversation_id, n, owner=owner))

    async def page(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> Page:
        return await self._run(
            plans.page(
                self._table, conversation_id, after=after, before=before, limit=limit, owner=owner
            )
        )

    async def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing:
        return await self._run(plans.list_owned(self._table, owner, limit=limit, cursor=cursor))

    async def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing:
        return await self._run(plans.scan(self._table, limit=limit, cursor=cursor))

    async def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation:
        return await self._run(plans.restore(self._table, conversation, messages, after=after))

    async def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        metadata_revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.update(
                self._table,
                conversation_id,
                title=title,
                metadata=metadata,
                revision=revision,
                metadata_revision=metadata_revision,
                owner=owner,
            )
        )

    async def claim(self, conversation_id: str, owner: str) -> Conversation:
        return await self._run(plans.claim(self._table, conversation_id, owner))

    async def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        return await self._run(
            plans.truncate(self._table, conversation_id, after=after, owner=owner)
        )

    async def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> builtins.list[Message]:
        return await self._run(plans.pop(self._table, conversation_id, n, owner=owner))

    async def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return await self._run(plans.truncate(self._table, conversation_id, after=0, owner=owner))

    async def replace(
        self,
        conversation_id: str,
        seq: int,
        message: Message,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.replace(
                self._table, conversation_id, seq, message, revision=revision, owner=owner
            )
        )

    async def remove(
        self,
        conversation_id: str,
        seq: int,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.remove(self._table, conversation_id, seq, revision=revision, owner=owner)
        )

    async def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        expires_in: timedelta | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return await self._run(
            plans.fork(
                self._table,
                conversation_id,
                at=at,
                new_id=new_id,
                owner=owner,
                expires_in=expires_in,
                idempotency_key=idempotency_key,
            )
        )

    async def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        await self._run(plans.delete(self._table, conversation_id, owner=owner))

    async def delete_owner(
        self,
        owner: str,
        *,
        units_per_second: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        plan = plans.delete_owner(self._table, owner, progress=progress)
        return await self._run(paced(plan, units_per_second))

    async def sweep(
        self,
        *,
        units_per_second: float | None = None,
        progress: Callable[[plans.SweepProgress], None] | None = None,
        cursor: str | None = None,
        segment: tuple[int, int] | None = None,
    ) -> int:
        plan = plans.sweep(self._table, progress=progress, cursor=cursor, segment=segment)
        return await self._run(paced(plan, units_per_second))

    async def repair(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return await self._run(plans.repair(self._table, conversation_id, owner=owner))

    async def close(self) -> None:
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _run(self, plan: Plan[T]) -> T:
        return await self._calls.run(plan, self._table)


# The methods that take more than the contract says have the docstrings of DynamoDBStore.
for _method in (
    AsyncDynamoDBStore.delete_owner,
    AsyncDynamoDBStore.sweep,
    AsyncDynamoDBStore.repair,
):
    _method.__doc__ = getattr(DynamoDBStore, _method.__name__).__doc__
