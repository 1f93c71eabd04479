"""Conversations in a DynamoDB table: the stores, and the plan of each operation."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from chatledger.conversations import Conversation
from chatledger.stores import operations
from chatledger.stores.arguments import checked_id, checked_owner
from chatledger.stores.contract import MISSING, AsyncStore, Store, awaited
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import PATIENCE, Call, Plan, paced
from chatledger.stores.dynamodb.plans.append import append
from chatledger.stores.dynamodb.plans.create import create, fork
from chatledger.stores.dynamodb.plans.delete import delete, delete_owner
from chatledger.stores.dynamodb.plans.entries import delete_entry, entries, entry, put_entry
from chatledger.stores.dynamodb.plans.read import get, list_owned, page, tail
from chatledger.stores.dynamodb.plans.repair import repair
from chatledger.stores.dynamodb.plans.restore import restore
from chatledger.stores.dynamodb.plans.scan import scan
from chatledger.stores.dynamodb.plans.search import search
from chatledger.stores.dynamodb.plans.sweep import SweepProgress, sweep
from chatledger.stores.dynamodb.plans.truncate import pop, truncate
from chatledger.stores.dynamodb.plans.update import claim, rewrite_message, update
from chatledger.stores.dynamodb.records import key
from chatledger.stores.dynamodb.table import CLEANUP_SECONDS, Table
from chatledger.stores.operations import DeleteOwner, OnCall, Operation, Sweep
from chatledger.values import now

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from chatledger.aws.session import Session

T = TypeVar("T")


PLANS: dict[type[Operation[Any]], Callable[[Table, Any], Plan[Any]]] = {
    operations.Append: append,
    operations.Claim: claim,
    operations.Create: create,
    operations.Delete: delete,
    operations.DeleteEntry: delete_entry,
    operations.DeleteOwner: delete_owner,
    operations.Fork: fork,
    operations.Get: get,
    operations.GetEntry: entry,
    operations.ListEntries: entries,
    operations.ListOwned: list_owned,
    operations.Pop: pop,
    operations.PutEntry: put_entry,
    operations.ReadPage: page,
    operations.ReadTail: tail,
    operations.Restore: restore,
    operations.Rewrite: rewrite_message,
    operations.Scan: scan,
    operations.Search: search,
    operations.Sweep: sweep,
    operations.Truncate: truncate,
    operations.Update: update,
}


CHECK_PATIENCE = 1.0
"""How long (s) the write of ``check_writable`` is retried."""


def check_writable(table: Table) -> Plan[None]:
    """Delete an item that never exists: a write that changes nothing and costs one unit."""
    params = {"TableName": table.name, "Key": key(MISSING, "missing")}
    yield Call("DeleteItem", params, patience=CHECK_PATIENCE)


def plan_for(table: Table, operation: Operation[T]) -> Plan[T]:
    """Return the plan that performs ``operation`` on ``table``."""
    plan = PLANS.get(type(operation))
    if plan is None:
        raise TypeError(f"{type(operation).__name__} is not an operation of the contract.")
    return plan(table, operation)


class DynamoDBStore(Store):
    """Conversations in a DynamoDB table, over a boto3 client that the caller made.

    Any number of threads may share a store, and any number of stores a table.

    Args:
        client: The boto3 client; closing the store does not close it.
        table: The name or ARN of a table that ``create_table`` made.
        expire_after: The lifetime of conversations that begin without one of their own; None means
            that these do not expire.
        consistent: Whether reads include the latest writes. False halves their price.
        patience: How long a call is retried while DynamoDB throttles or does not reply, in seconds.
            The client's own timeouts and retries come on top.
        cleanup: How long a write may spend on freeing storage that is no longer needed, in seconds.
            0 leaves that to ``sweep``.
        clock: Returns the current time; tests pass their own.
        compare_clock: Whether to compare ``clock`` with DynamoDB's, and to refuse writes that
            depend on the time while they differ too much. By default, only the system's clock is
            compared, not one that was passed.
        on_call: Called with a ``StoreCall`` after each request to DynamoDB, which then also reports
            the capacity units that it consumed.

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
        compare_clock: bool | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        self._calls = Boto3Calls(client, patience=patience, on_call=on_call)
        self._table = Table.of(
            table,
            expire_after=expire_after,
            consistent=consistent,
            clock=clock,
            patience=patience,
            cleanup=cleanup,
            compare_clock=compare_clock,
        )

    @property
    def clock_difference(self) -> timedelta:
        self._table.require_clock()
        return timedelta(milliseconds=self._table.clock_difference)

    def perform(self, operation: Operation[T]) -> T:
        return self.run(plan_for(self._table, operation))

    def delete_owner(
        self,
        owner: str,
        *,
        units_per_second: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete every conversation and entry of ``owner``, as ``Store.delete_owner`` promises.

        Args:
            owner: The owner.
            units_per_second: The most capacity units that this consumes a second.
            progress: Called after each page with the number of conversations deleted so far.

        Returns:
            The number of conversations deleted; expired ones and entries do not count.
        """
        operation = DeleteOwner(checked_id(owner, "owner"))
        plan = delete_owner(self._table, operation, progress=progress)
        return self.run(paced(plan, units_per_second))

    def sweep(
        self,
        *,
        units_per_second: float | None = None,
        progress: Callable[[SweepProgress], None] | None = None,
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
            The number of things freed.

        Raises:
            InvalidArgument: An argument is invalid.
        """
        plan = sweep(self._table, Sweep(), progress=progress, cursor=cursor, segment=segment)
        return self.run(paced(plan, units_per_second))

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
        plan = repair(self._table, checked_id(conversation_id), owner=checked_owner(owner))
        return self.run(plan)

    def check_writable(self) -> None:
        self.run(check_writable(self._table))

    def close(self) -> None:
        """Do nothing: the client belongs to the caller."""

    def run(self, plan: Plan[T]) -> T:
        """Run a plan on the store's table and return its result."""
        return self._calls.run(plan, self._table)


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
        compare_clock: As for ``DynamoDBStore``.
        on_call: As for ``DynamoDBStore``.

    Raises:
        InvalidArgument: An argument is invalid.
    """

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        session: "Session | None" = None,
        expire_after: timedelta | None = None,
        consistent: bool = True,
        patience: float = PATIENCE,
        cleanup: float = CLEANUP_SECONDS,
        clock: Callable[[], datetime] = now,
        compare_clock: bool | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        # Imported here, because callers that block need neither aiohttp nor asyncio.
        from chatledger.stores.dynamodb.aiohttp_calls import AiohttpCalls

        self._calls = AiohttpCalls(
            session=session, region=region, endpoint=endpoint, patience=patience, on_call=on_call
        )
        self._table = Table.of(
            table,
            expire_after=expire_after,
            consistent=consistent,
            clock=clock,
            patience=patience,
            cleanup=cleanup,
            compare_clock=compare_clock,
        )

    delete_owner = awaited(DynamoDBStore.delete_owner)
    sweep = awaited(DynamoDBStore.sweep)
    repair = awaited(DynamoDBStore.repair)

    @property
    def clock_difference(self) -> timedelta:
        self._table.require_clock()
        return timedelta(milliseconds=self._table.clock_difference)

    async def perform(self, operation: Operation[T]) -> T:
        return await self.run(plan_for(self._table, operation))

    async def check_writable(self) -> None:
        await self.run(check_writable(self._table))

    async def close(self) -> None:
        await self._calls.close()

    async def run(self, plan: Plan[T]) -> T:
        """Run a plan on the store's table and return its result."""
        return await self._calls.run(plan, self._table)
