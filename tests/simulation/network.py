"""The network between clients and the table, which loses, delays, refuses and splits calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Protocol

from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from chatledger.stores.dynamodb.records import conversation_of
from chatledger.stores.dynamodb.table import HOUR
from tests.simulation.clients import Client
from tests.simulation.formatting import format_call, format_failure, format_reply
from tests.simulation.history import Operation
from tests.simulation.items import Key
from tests.simulation.schedule_state import ScheduleState
from tests.simulation.simulated_table import SimulatedTable


class TableLike(Protocol):
    """The interface of a table: ``SimulatedTable``, or a test's replacement for it."""

    name: str
    page_items: int | None

    def perform(self, call: Call) -> Any: ...

    def overdue_keys(self, time: int) -> list[Key]: ...

    def delete_overdue(self, key: Key, time: int) -> None: ...

    def items(self) -> Iterator[Item]: ...

    def delay_index(self, *, delay: bool) -> None: ...

    def update_index(self, number: int | None = None) -> None: ...

    def commit(self) -> None: ...

    def keep_changes(self) -> None: ...


class QueryUnfinished(Exception):
    """Only part of a query has been answered; the client must send its call again for the rest."""


class CommitUnfinished(Exception):
    """Queries see only a part of a transaction; the client must send its call again to get its
    reply."""


class ClientCrashed(Exception):
    """The client crashed during its call."""


class Fate(StrEnum):
    """The fates of a failing call, as the trace words them."""

    LOST = "is lost"
    REPLY_LOST = "takes effect, but the reply is lost"
    LATE = "is late"
    THROTTLED = "is throttled"
    NOT_SENT = "is never sent"


_FATES = (
    Fate.LOST,
    Fate.REPLY_LOST,
    Fate.REPLY_LOST,  # twice as likely as each of the others
    Fate.LATE,
    Fate.THROTTLED,
    Fate.NOT_SENT,
)


@dataclass(slots=True)
class LateCall:
    """A call whose client no longer waits for it, and that may still arrive."""

    call: Call
    operation: Operation
    until: int
    """The time by which it arrives or is lost (ms since 1970)."""


class Network:
    """Carries calls to the table, and makes some of them fail."""

    def __init__(self, state: ScheduleState, table: TableLike | None = None) -> None:
        self._state = state
        self.table: TableLike = table or SimulatedTable(
            choose_unprocessed=self._choose_unprocessed,
            choose_hidden=self._choose_hidden,
            choose_age=self._choose_age,
        )
        self._is_commit_split = False
        self._late_calls: list[LateCall] = []

    def send(self, client: Client, call: Call) -> Any:
        """Send the call to the table, and return the reply.

        Raises:
            CallFailed: The table refused the call, or the network made it fail.
            QueryUnfinished: The call is a query, and only part of it has been answered.
            CommitUnfinished: The call is a transaction that queries see in part.
            ClientCrashed: The client crashed.
        """
        random, environment = self._state.random, self._state.environment
        if client.split_reply is not None:
            reply, client.split_reply = client.split_reply, None
            self.table.commit()
            self._trace(client.name, call, "is committed")
            return reply
        if client.failing_calls or random.random() < environment.call_failure:
            self._fail(client, call)
        partial = client.partial_query
        if (
            partial is None
            and call.operation == "Query"
            and random.random() < environment.split_query
        ):
            return self._read_first_part(client, call)
        client.partial_query = None
        items, call = ([], call) if partial is None else partial
        try:
            reply = self._perform(call, _operation_of(client))
        except CallFailed as failed:
            self._trace(client.name, call, f"-> {format_failure(failed)}")
            raise
        if self._is_commit_split:
            self._is_commit_split = False
            client.split_reply = reply
            self._trace(client.name, call, "is committed in part")
            raise CommitUnfinished
        if items:
            reply = reply | {"Items": items + reply["Items"]}
        self._trace(client.name, call, reply)
        return reply

    def _fail(self, client: Client, call: Call) -> None:
        """Make the call fail: always raise ``CallFailed`` or ``ClientCrashed``."""
        random, environment = self._state.random, self._state.environment
        if client.failing_calls:
            client.failing_calls -= 1
        elif random.random() < 0.15:
            client.failing_calls = random.randrange(3, 12)
        client.partial_query = None
        fate = random.choice(_FATES)
        if fate is Fate.LATE and random.random() > environment.late_call:
            fate = Fate.LOST
        is_crash = random.random() < environment.crash
        self._trace(client.name, call, f"{fate}{', and its client crashes' if is_crash else ''}")
        match fate:
            case Fate.REPLY_LOST:
                self._deliver(call, _operation_of(client))
            case Fate.LATE:
                late_call = LateCall(call, _operation_of(client), self._state.now + HOUR)
                self._late_calls.append(late_call)
        if is_crash:
            raise ClientCrashed
        match fate:
            case Fate.THROTTLED:
                raise _throttling(call, random)
            case Fate.NOT_SENT:
                raise CallFailed("NoReply")
            case _:
                raise CallFailed(random.choice(("NoReply", "InternalServerError")), unknown=True)

    def _read_first_part(self, client: Client, call: Call) -> Any:
        """Read the first items of a query; a query is no snapshot, and others may write meanwhile.

        Returns the reply if that was all, else raises ``QueryUnfinished``.
        """
        limit = call.params.get("Limit")
        size = self._state.random.choice((1, 1, 2, 3))
        if limit is not None and size >= limit:
            size = limit
        first = Call("Query", call.params | {"Limit": size})
        reply = self._perform(first, _operation_of(client))
        self._trace(client.name, first, reply)
        if size == limit or "LastEvaluatedKey" not in reply or reply["ScannedCount"] < size:
            return reply
        rest = {"ExclusiveStartKey": reply["LastEvaluatedKey"]}
        if limit is not None:
            rest["Limit"] = limit - size
        client.partial_query = reply["Items"], Call("Query", call.params | rest)
        raise QueryUnfinished

    def _perform(self, call: Call, operation: Operation) -> Any:
        try:
            reply = self.table.perform(call)
        except CallFailed as failed:
            raise self._with_fewer_reasons(failed) from None
        conversation = _affected_conversation(call, operation)
        if conversation is not None:
            operation.hints[conversation] = self._state.step
        return reply

    def _deliver(self, call: Call, operation: Operation) -> None:
        """Perform a call whose reply nobody gets."""
        try:
            self._perform(call, operation)
        except CallFailed as failed:
            self._trace(operation.client, call, f"-> {format_failure(failed)}")
        if self._is_commit_split:
            self._is_commit_split = False
            self.table.commit()

    def _with_fewer_reasons(self, failed: CallFailed) -> CallFailed:
        """Return the failure, perhaps without some of its reasons."""
        parts = [part for part, (code, _) in enumerate(failed.reasons) if code is not None]
        random, environment = self._state.random, self._state.environment
        if len(parts) > 1 and random.random() < environment.partial_reasons:
            reported = random.choice(parts)
            failed.reasons = tuple(
                reason if part == reported else (None, None)
                for part, reason in enumerate(failed.reasons)
            )
        return failed

    def _choose_hidden(self, keys: Sequence[Key]) -> Sequence[Key]:
        random, environment = self._state.random, self._state.environment
        if len(keys) < 2 or random.random() >= environment.split_transaction:
            return ()
        self.table.commit()
        self._is_commit_split = True
        return random.sample(list(keys), random.randrange(1, len(keys)))

    def _choose_age(self) -> int:
        random, environment = self._state.random, self._state.environment
        return random.randrange(1, 7) if random.random() < environment.stale_reads else 0

    def _choose_unprocessed(self, requests: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        random = self._state.random
        if random.random() > self._state.environment.partial_batch:
            return ()
        return [request for request in requests if random.random() < 0.5]

    def _trace(self, client: str, call: Call, outcome: Any) -> None:
        """Add the call to the trace; ``outcome`` is a text or a reply."""
        if self._state.trace is not None:
            text = outcome if isinstance(outcome, str) else f"-> {format_reply(outcome)}"
            self._state.add_to_trace(client, f"{format_call(call)} {text}")

    # Late calls ----------------------------------------------------------------------------------

    @property
    def has_late_calls(self) -> bool:
        return bool(self._late_calls)

    def deliver_late_call(self) -> None:
        """Deliver one of the late calls."""
        late_calls = self._late_calls
        self._deliver_late_call(late_calls.pop(self._state.random.randrange(len(late_calls))))

    def finish_late_calls(self, until: int) -> None:
        """Deliver or lose each late call that cannot be under way any longer than ``until``."""
        due = [late_call for late_call in self._late_calls if late_call.until < until]
        self._late_calls = [late_call for late_call in self._late_calls if late_call.until >= until]
        for late_call in due:
            if self._state.random.random() < 0.5:
                self._deliver_late_call(late_call)

    def _deliver_late_call(self, late_call: LateCall) -> None:
        self._trace(late_call.operation.client, late_call.call, "arrives late")
        self._deliver(late_call.call, late_call.operation)


_THROTTLING_CODES = (
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TransactionConflictException",
)


def _throttling(call: Call, random: Random) -> CallFailed:
    """Return an error with which DynamoDB throttles the call, or reports a rival transaction."""
    if call.operation != "TransactWriteItems" or random.random() < 0.3:
        return CallFailed(random.choice(_THROTTLING_CODES))
    code = random.choice(("TransactionConflict", "ThrottlingError"))
    parts = range(len(call.params["TransactItems"]))
    failed_part = random.choice(parts)
    reasons = tuple((code if part == failed_part else None, None) for part in parts)
    return CallFailed("TransactionCanceledException", reasons=reasons)


def _operation_of(client: Client) -> Operation:
    assert client.operation is not None
    return client.operation


def _affected_conversation(call: Call, operation: Operation) -> str | None:
    """Return the conversation for which the operation probably takes effect with this call.

    It is only a hint that makes the checker faster: see ``Operation.hints``. A query of the owner
    index affects no single conversation, and gives "".
    """
    params = call.params
    match call.operation:
        case "Query" if not params.get("ScanIndexForward", True):
            pk = params["ExpressionAttributeValues"].get(":pk")
            return conversation_of(pk["S"]) if pk else ""
        case "PutItem" if params["Item"]["sk"]["S"].startswith("e#"):
            is_own = operation.kind in ("put_entry", "delete_entry")
            return operation.conversation if is_own else None
        case "GetItem" if operation.kind == "entry":
            return operation.conversation
        case "PutItem" if "#k" not in params["ExpressionAttributeNames"]:
            return conversation_of(params["Item"]["pk"]["S"])
        case "TransactWriteItems":
            return operation.conversation
        case "UpdateItem" if operation.kind == "update":
            return operation.conversation
    return None
