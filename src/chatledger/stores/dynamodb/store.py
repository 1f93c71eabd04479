"""Conversations in a DynamoDB table, over a boto3 client that the caller made."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.json_values import Json
from chatledger.messages import Message, now
from chatledger.messages import new_id as a_new_id
from chatledger.stores.contract import Store
from chatledger.stores.dynamodb import plans
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import PATIENCE, Plan, paced
from chatledger.stores.dynamodb.table import Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")


class DynamoDBStore(Store):
    """Conversations in ``table``, made by ``create_table``, over a boto3 client.

    Any number of threads may share one store, and any number of stores one table.
    ``expire_after`` is how long a conversation lives after its last activity, where it was not
    created with a lifetime of its own. ``consistent=False`` halves the price of reads, which may
    then miss the latest writes. ``patience`` is for how many seconds a call is tried again while
    DynamoDB throttles or does not answer; the client's own time-outs and retries come on top.

    The client is the caller's, and stays open.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        expire_after: timedelta | None = None,
        consistent: bool = True,
        patience: float = PATIENCE,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._calls = Boto3Calls(client, patience=patience)
        self._table = Table.of(table, expire_after=expire_after, consistent=consistent, clock=clock)

    def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Conversation:
        return self._run(
            plans.create(
                self._table,
                conversation_id,
                owner=owner,
                title=title,
                metadata=metadata,
                expires_in=expires_in,
            )
        )

    def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        owner: str | None = None,
        after: int | None = None,
        idempotency_key: str | None = None,
        truncate_after: int | None = None,
        reply_follows: bool = False,
    ) -> Appended:
        return self._run(
            plans.append(
                self._table,
                conversation_id,
                messages,
                owner=owner,
                after=after,
                idempotency_key=idempotency_key,
                truncate_after=truncate_after,
                reply_follows=reply_follows,
            )
        )

    def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return self._run(plans.get(self._table, conversation_id, owner=owner))

    def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail:
        return self._run(plans.tail(self._table, conversation_id, n, owner=owner))

    def page(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> Page:
        return self._run(
            plans.page(
                self._table, conversation_id, after=after, before=before, limit=limit, owner=owner
            )
        )

    def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing:
        return self._run(plans.list_owned(self._table, owner, limit=limit, cursor=cursor))

    def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing:
        return self._run(plans.scan(self._table, limit=limit, cursor=cursor))

    def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation:
        return self._run(plans.restore(self._table, conversation, messages, after=after))

    def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return self._run(
            plans.update(
                self._table,
                conversation_id,
                title=title,
                metadata=metadata,
                revision=revision,
                owner=owner,
            )
        )

    def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        return self._run(plans.truncate(self._table, conversation_id, after=after, owner=owner))

    def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> Sequence[Message]:
        return self._run(plans.pop(self._table, conversation_id, n, owner=owner))

    def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return self._run(plans.truncate(self._table, conversation_id, after=0, owner=owner))

    def replace(
        self,
        conversation_id: str,
        seq: int,
        message: Message,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return self._run(
            plans.replace(
                self._table, conversation_id, seq, message, revision=revision, owner=owner
            )
        )

    def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return self._run(
            plans.fork(
                self._table,
                conversation_id,
                at=at,
                new_id=a_new_id() if new_id is None else new_id,
                owner=owner,
            )
        )

    def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        self._run(plans.delete(self._table, conversation_id, owner=owner))

    def delete_owner(
        self,
        owner: str,
        *,
        units_per_second: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """As the contract says; ``progress`` is told how many there were so far.

        ``units_per_second`` bounds the capacity that this takes.
        """
        plan = plans.delete_owner(self._table, owner, progress=progress)
        return self._run(paced(plan, units_per_second))

    def sweep(
        self,
        *,
        units_per_second: float | None = None,
        progress: Callable[[plans.Swept], None] | None = None,
        cursor: str | None = None,
    ) -> int:
        """As the contract says, by a scan of the whole table, in bounded memory.

        ``units_per_second`` bounds the capacity that this takes. ``progress`` is told how far it
        is; its ``cursor`` starts another sweep there. DynamoDB's TTL frees most by itself: sweep
        for what processes left that were killed, once a month or so.
        """
        plan = plans.sweep(self._table, progress=progress, cursor=cursor)
        return self._run(paced(plan, units_per_second))

    def close(self) -> None:
        """Nothing to let go of: the client is the caller's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, plan: Plan[T]) -> T:
        return self._calls.run(plan, self._table)
