"""Conversations in a DynamoDB table, over a boto3 client that the caller made."""

import builtins
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.json_values import Json
from chatledger.messages import Message, now
from chatledger.stores.contract import Store
from chatledger.stores.dynamodb import plans
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import PATIENCE, Plan, paced
from chatledger.stores.dynamodb.table import CLEANUP_SECONDS, Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")


class DynamoDBStore(Store):
    """Conversations in a DynamoDB table, over a boto3 client that the caller made.

    Any number of threads may share a store, and any number of stores a table.

    Args:
        client: The boto3 client; closing the store does not close it.
        table: The name or ARN of a table that ``create_table`` made.
        expire_after: The lifetime of conversations that start without one of their own; None means
            that these do not expire.
        consistent: Whether reads include the latest writes. False halves their price.
        patience: How long a call is retried while DynamoDB throttles or does not reply, in seconds.
            The client's own timeouts and retries come on top.
        cleanup: How long a write may spend on freeing storage that is no longer needed, in seconds.
            0 leaves that to ``sweep``.
        clock: Returns the current time; tests pass their own.

    Raises:
        InvalidArgument: An argument is invalid.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        expire_after: timedelta | None = None,
        consistent: bool = True,
        patience: float = PATIENCE,
        cleanup: float = CLEANUP_SECONDS,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._calls = Boto3Calls(client, patience=patience)
        self._table = Table.of(
            table,
            expire_after=expire_after,
            consistent=consistent,
            clock=clock,
            patience=patience,
            cleanup=cleanup,
        )

    def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return self._run(
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
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
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
                title=title,
                metadata=metadata,
                expires_in=expires_in,
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
        metadata_revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return self._run(
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

    def claim(self, conversation_id: str, owner: str) -> Conversation:
        return self._run(plans.claim(self._table, conversation_id, owner))

    def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        return self._run(plans.truncate(self._table, conversation_id, after=after, owner=owner))

    def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> builtins.list[Message]:
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

    def remove(
        self,
        conversation_id: str,
        seq: int,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return self._run(
            plans.remove(self._table, conversation_id, seq, revision=revision, owner=owner)
        )

    def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        expires_in: timedelta | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return self._run(
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

    def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        self._run(plans.delete(self._table, conversation_id, owner=owner))

    def delete_owner(
        self,
        owner: str,
        *,
        units_per_second: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete every conversation of ``owner``, as ``Store.delete_owner`` promises.

        Args:
            owner: The owner.
            units_per_second: The most capacity units that this consumes a second.
            progress: Called after each page with the number of conversations deleted so far.

        Returns:
            The number of conversations deleted; expired ones do not count.
        """
        plan = plans.delete_owner(self._table, owner, progress=progress)
        return self._run(paced(plan, units_per_second))

    def sweep(
        self,
        *,
        units_per_second: float | None = None,
        progress: Callable[[plans.SweepProgress], None] | None = None,
        cursor: str | None = None,
        segment: tuple[int, int] | None = None,
    ) -> int:
        """Free everything that no reader can see, by a scan of the whole table in bounded memory.

        DynamoDB's TTL frees most of it. Sweep about once a month to free the rest: garbage that
        crashed processes left, and long conversations, which TTL deletes long after they expired.

        Args:
            units_per_second: The most capacity units that this consumes a second.
            progress: Called with a ``SweepProgress`` after each page.
            cursor: The ``SweepProgress.cursor`` of an earlier sweep, to continue it.
            segment: The segment of the table to sweep, as its number, from 0, and the number of
                segments. Several processes can sweep a large table together, a segment each.

        Returns:
            The number of entries freed.

        Raises:
            InvalidArgument: An argument is invalid.
        """
        plan = plans.sweep(self._table, progress=progress, cursor=cursor, segment=segment)
        return self._run(paced(plan, units_per_second))

    def repair(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        """Make a conversation usable again in which messages are missing (``ConversationDamaged``).

        The messages that can still be read stay, with their ids and times, in their order. If any
        is missing, all others get new seqs, and the revision moves up.

        Args:
            conversation_id: The conversation.
            owner: The conversation's owner, or None for a caller that may use every conversation.

        Returns:
            The conversation; its ``message_count`` is the number of messages that are left.

        Raises:
            NotFound: There is no such conversation for ``owner``.
        """
        return self._run(plans.repair(self._table, conversation_id, owner=owner))

    def close(self) -> None:
        """Do nothing: the client belongs to the caller."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, plan: Plan[T]) -> T:
        return self._calls.run(plan, self._table)
