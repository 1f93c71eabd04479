"""What lies between clients and the table: calls are lost, late, refused, or answered in parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from chatledger.stores.dynamodb.records import conversation_of
from chatledger.stores.dynamodb.table import HOUR
from chatledger.testing.simulation.clients import Client
from chatledger.testing.simulation.dynamodb import SimulatedTable
from chatledger.testing.simulation.formatting import the_call, the_failure, the_reply
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.items import Key
from chatledger.testing.simulation.schedule_state import Course


class AnyTable(Protocol):
    """What is needed of a table."""

    name: str
    page_items: int | None

    def perform(self, call: Call) -> Any: ...

    def overdue(self, time: int) -> list[Key]: ...

    def reap(self, key: Key, time: int) -> None: ...

    def items(self) -> Iterator[Item]: ...


class UnderWay(Exception):
    """A call has been answered in part; its client has to wait for the rest."""


class Died(Exception):
    """The client died over its call, for good."""


@dataclass(slots=True)
class Late:
    """A call whose client does not wait for it any more, and that may arrive yet."""

    call: Call
    operation: Operation
    until: int


class Network:
    def __init__(self, course: Course, table: AnyTable | None = None) -> None:
        self._course = course
        self.table: AnyTable = table or SimulatedTable(unprocessed=self._unprocessed)
        self._late: list[Late] = []

    def carry(self, client: Client, call: Call) -> Any:
        """The reply. Raises ``CallFailed``, ``UnderWay`` and ``Died``."""
        random, rough = self._course.random, self._course.rough
        if client.outage or random.random() < rough.faults:
            self._fail(client, call)
        rest = client.partial
        if rest is None and call.operation == "Query" and random.random() < rough.slow:
            return self._read_some(client, call)
        client.partial = None
        seen, call = ([], call) if rest is None else rest
        try:
            reply = self._perform(call, _operation(client))
        except CallFailed as failed:
            self._tell(client.name, call, f"-> {the_failure(failed)}")
            raise
        if seen:
            reply = reply | {"Items": seen + reply["Items"]}
        self._tell(client.name, call, reply)
        return reply

    def _fail(self, client: Client, call: Call) -> None:
        random, rough = self._course.random, self._course.rough
        if client.outage:
            client.outage -= 1
        elif random.random() < 0.15:
            client.outage = random.randrange(3, 12)
        client.partial = None
        fate = random.choice(FATES)
        if fate == "is under way still" and random.random() > rough.late:
            fate = "never arrives"
        dies = random.random() < rough.dying
        self._tell(client.name, call, f"{fate}{', and its client dies' if dies else ''}")
        match fate:
            case "lands, and its answer is lost":
                self._land(call, _operation(client))
            case "is under way still":
                self._late.append(Late(call, _operation(client), self._course.now + HOUR))
        if dies:
            raise Died
        match fate:
            case "is throttled":
                raise _throttled(call, random)
            case "is never sent":
                raise CallFailed("NoAnswer")
            case _:
                raise CallFailed(random.choice(("NoAnswer", "InternalServerError")), unknown=True)

    def _read_some(self, client: Client, call: Call) -> Any:
        """A query is no snapshot: read some of it now, and the rest after others had their turn."""
        limit = call.params.get("Limit")
        some = self._course.random.choice((1, 1, 2, 3))
        if limit is not None and some >= limit:
            some = limit
        first = Call("Query", call.params | {"Limit": some})
        reply = self._perform(first, _operation(client))
        self._tell(client.name, first, reply)
        if some == limit or "LastEvaluatedKey" not in reply or reply["ScannedCount"] < some:
            return reply
        more = {"ExclusiveStartKey": reply["LastEvaluatedKey"]}
        if limit is not None:
            more["Limit"] = limit - some
        client.partial = reply["Items"], Call("Query", call.params | more)
        raise UnderWay

    def _perform(self, call: Call, operation: Operation) -> Any:
        reply = self.table.perform(call)
        hinted = _hinted(call, operation)
        if hinted is not None:
            operation.hints[hinted] = self._course.step
        return reply

    def _land(self, call: Call, operation: Operation) -> None:
        try:
            self._perform(call, operation)
        except CallFailed as failed:
            self._tell(operation.client, call, f"-> {the_failure(failed)}")

    def _unprocessed(self, requests: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        random = self._course.random
        if random.random() > self._course.rough.unprocessed:
            return ()
        return [request for request in requests if random.random() < 0.5]

    def _tell(self, who: str, call: Call, what: Any) -> None:
        if self._course.script is not None:
            told = what if isinstance(what, str) else f"-> {the_reply(what)}"
            self._course.tell(who, f"{the_call(call)} {told}")

    # Calls that are late -------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether any call may arrive yet."""
        return bool(self._late)

    def arrive(self) -> None:
        """One of the late calls arrives."""
        late = self._late.pop(self._course.random.randrange(len(self._late)))
        self._tell(late.operation.client, late.call, "arrives at last")
        self._land(late.call, late.operation)

    def settle(self, until: int) -> None:
        """The late calls that may not be under way any more by then have arrived, or never will."""
        due = [late for late in self._late if late.until < until]
        self._late = [late for late in self._late if late.until >= until]
        for late in due:
            if self._course.random.random() < 0.5:
                self._tell(late.operation.client, late.call, "arrives at last")
                self._land(late.call, late.operation)


FATES = (
    "never arrives",
    "lands, and its answer is lost",
    "lands, and its answer is lost",
    "is under way still",
    "is throttled",
    "is never sent",
)
_THROTTLED = (
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TransactionConflictException",
)


def _throttled(call: Call, random: Random) -> CallFailed:
    if call.operation != "TransactWriteItems" or random.random() < 0.3:
        return CallFailed(random.choice(_THROTTLED))
    code = random.choice(("TransactionConflict", "ThrottlingError"))
    parts = range(len(call.params["TransactItems"]))
    hit = random.choice(parts)
    reasons = tuple((code if part == hit else None, None) for part in parts)
    return CallFailed("TransactionCanceledException", reasons=reasons)


def _operation(client: Client) -> Operation:
    assert client.operation is not None
    return client.operation


def _hinted(call: Call, operation: Operation) -> str | None:
    """The conversation for which the operation may take effect with this call.

    Only a hint, where in the order of things to look for the operation first.
    """
    params = call.params
    match call.operation:
        case "Query" if not params.get("ScanIndexForward", True):
            pk = params["ExpressionAttributeValues"].get(":pk")
            return conversation_of(pk["S"]) if pk else ""
        case "PutItem" if "#k" not in params["ExpressionAttributeNames"]:
            return conversation_of(params["Item"]["pk"]["S"])
        case "TransactWriteItems":
            return operation.conversation
        case "UpdateItem" if operation.kind == "update":
            return operation.conversation
    return None
