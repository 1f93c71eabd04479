"""Drive plans by hand: no server, no client, and clocks that only the test advances."""

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from random import Random
from typing import Any, Generic, TypeVar

from chatledger import sansio
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item, Plan, Wait, patient
from chatledger.stores.dynamodb.records import Record as Record
from chatledger.stores.dynamodb.records import encode_record
from chatledger.stores.dynamodb.table import Table
from chatledger.values import milliseconds, to_datetime
from tests.stores.dynamodb.conftest import ManualClock

T = TypeVar("T")

CONDITION_FAILED = "ConditionalCheckFailedException"


class PlanHarness:
    """A ``Table`` without a server, with two clocks set by hand and numbered write tokens."""

    def __init__(self, *, expire_after: timedelta | None = None, seed: int = 1) -> None:
        self.clock = ManualClock()
        self.monotonic = 0.0
        tokens = count(1)
        self.table = Table(
            name="conversations",
            lifetime=None if expire_after is None else milliseconds(expire_after),
            consistent=True,
            clock=self.clock,
            monotonic=lambda: self.monotonic,
            random=Random(seed),
            new_token=lambda time: f"{time:012x}-{next(tokens)}",  # as a UUIDv7 begins
        )

    def record(self, position: int, **fields: Any) -> Record:
        """Return a rival's record, by default with one message and of generation 1."""
        time = milliseconds(self.clock() - to_datetime(0))
        defaults: dict[str, Any] = {
            "token": f"{time:012x}-other-{position}",
            "generation": 1,
            "owner": None,
            "created_at": time,
            "updated_at": time,
            "previous_seq": position - 1,
            "messages": 1,
            "message_count": position,
            "body": body_of(f"message {position}"),
        }
        return Record(position=position, **(defaults | fields))

    def item(self, position: int, **fields: Any) -> Item:
        return encode_record("trip", self.record(position, **fields))

    def with_retries(self, plan: Plan[T], *, seconds: float = 20.0) -> Plan[T]:
        """Return ``plan`` with the retries that a store adds."""
        table = self.table
        return patient(
            plan, seconds=seconds, monotonic=table.monotonic, random=table.random, time=table.time
        )


def body_of(*texts: str) -> str:
    """Return the body of a record whose messages have these texts."""
    message = (
        '{{"role":"user","content":"{}","id":"1","created_at":"2026-05-01T12:00:00.000+00:00"}}'
    )
    return f"[{','.join(map(message.format, texts))}]"


class PlanDriver(Generic[T]):
    """Runs a plan step by step; ``step`` is the call or wait that it has yielded."""

    def __init__(self, plan: Plan[T]) -> None:
        self._plan = plan
        self._result: list[T] = []
        self.step: Call | Wait | None = None
        self._advance(lambda: next(plan))

    def reply(self, reply: dict[str, Any] | None = None) -> None:
        """Send the plan this reply to its call, or nothing to its wait."""
        self._advance(lambda: self._plan.send({} if reply is None else reply))

    def fail(self, code: str, **details: Any) -> None:
        """Throw the plan a ``CallFailed``."""
        self._advance(lambda: self._plan.throw(CallFailed(code, **details)))

    @property
    def call(self) -> Call:
        assert isinstance(self.step, Call), self.step
        return self.step

    @property
    def operation(self) -> str:
        return self.call.operation

    @property
    def wait_seconds(self) -> float:
        assert isinstance(self.step, Wait), self.step
        return self.step.seconds

    @property
    def result(self) -> T:
        assert self.step is None, self.step
        return self._result[0]

    def _advance(self, resume: Callable[[], Call | Wait]) -> None:
        try:
            self.step = resume()
        except StopIteration as end:
            self.step = None
            self._result.append(end.value)


def run(plan: Plan[T], perform: Callable[[Call], Any], wait: Callable[[float], object]) -> T:
    """Run a plan with these calls and waits."""

    def take(step: Call | Wait) -> Any:
        return wait(step.seconds) if isinstance(step, Wait) else perform(step)

    return sansio.run(plan, take, catch=CallFailed)


def query_reply(*items: Item) -> dict[str, Any]:
    """Return the reply to a query that found ``items``."""
    return {"Items": list(items)}
