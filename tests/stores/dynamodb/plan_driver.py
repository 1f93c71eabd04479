"""Plans driven by hand: no server, no client, and time that passes only when it is told to."""

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from random import Random
from typing import Any, Generic, TypeVar

from chatledger.stores.dynamodb.calls import Call, CallFailed, Item, Plan, Wait, patient
from chatledger.stores.dynamodb.records import Record as Record
from chatledger.stores.dynamodb.records import encode_record
from chatledger.stores.dynamodb.table import Table, milliseconds, moment
from tests.stores.dynamodb.conftest import SetClock

T = TypeVar("T")

CONDITION = "ConditionalCheckFailedException"


class ByHand:
    """A table of no server, whose both clocks are set by hand and whose tokens are numbered."""

    def __init__(self, *, expire_after: timedelta | None = None, seed: int = 1) -> None:
        self.clock = SetClock()
        self.seconds = 0.0
        tokens = (f"token-{n}" for n in count(1))
        self.table = Table(
            name="conversations",
            lifetime=None if expire_after is None else milliseconds(expire_after),
            consistent=True,
            clock=self.clock,
            monotonic=lambda: self.seconds,
            random=Random(seed),
            new_token=lambda: next(tokens),
        )

    def record(self, position: int, **fields: Any) -> Record:
        """A record of a conversation that began at 1, with one message where nothing is said."""
        time = milliseconds(self.clock() - moment(0))
        known: dict[str, Any] = {
            "token": f"other-{position}",
            "life": 1,
            "owner": None,
            "created_at": time,
            "updated_at": time,
            "after": position - 1,
            "messages": 1,
            "message_count": position,
            "body": said(f"message {position}"),
        }
        return Record(position=position, **(known | fields))

    def item(self, position: int, **fields: Any) -> Item:
        return encode_record("trip", self.record(position, **fields))

    def patiently(self, plan: Plan[T], *, seconds: float = 20.0) -> Plan[T]:
        """As a store drives it."""
        table = self.table
        return patient(plan, seconds=seconds, monotonic=table.monotonic, random=table.random)


def said(*texts: str) -> str:
    """A body of such messages."""
    message = (
        '{{"role":"user","content":"{}","id":"1","created_at":"2026-05-01T12:00:00.000+00:00"}}'
    )
    return f"[{','.join(map(message.format, texts))}]"


class Driven(Generic[T]):
    """A plan that stands at a step, waiting for what comes of it."""

    def __init__(self, plan: Plan[T]) -> None:
        self._plan = plan
        self._result: list[T] = []
        self.step: Call | Wait | None = None
        self._advance(lambda: next(plan))

    def answer(self, reply: dict[str, Any] | None = None) -> None:
        """Have its call be answered so."""
        self._advance(lambda: self._plan.send({} if reply is None else reply))

    def fail(self, code: str, **about: Any) -> None:
        """Have its call fail so."""
        self._advance(lambda: self._plan.throw(CallFailed(code, **about)))

    @property
    def call(self) -> Call:
        assert isinstance(self.step, Call), self.step
        return self.step

    @property
    def operation(self) -> str:
        return self.call.operation

    @property
    def wait(self) -> float:
        assert isinstance(self.step, Wait), self.step
        return self.step.seconds

    @property
    def result(self) -> T:
        assert self.step is None, self.step
        return self._result[0]

    def _advance(self, go_on: Callable[[], Call | Wait]) -> None:
        try:
            self.step = go_on()
        except StopIteration as end:
            self.step = None
            self._result.append(end.value)


def found(*items: Item) -> dict[str, Any]:
    """The reply to a query that found these."""
    return {"Items": list(items)}
