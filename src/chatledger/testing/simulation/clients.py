"""Who takes part: processes with their clocks, and clients with what they are about."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chatledger.errors import StoreUnavailable
from chatledger.stores.dynamodb.calls import Call, Plan, Wait, through
from chatledger.stores.dynamodb.table import Table, moment
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.schedule_state import Course


class Process:
    """What its clients share: the clocks, and what the store remembers."""

    def __init__(self, course: Course, table: str, number: int) -> None:
        self._course = course
        self._number = number
        self._tokens = 0
        self.skew = course.random.choice(course.rough.skews)
        self.monotonic = 0.0
        self.running: Operation | None = None
        """Whose plan is taking a step."""
        self.table = Table(
            name=table,
            lifetime=course.random.choice(course.rough.lifetimes),
            consistent=True,
            clock=self._clock,
            monotonic=lambda: self.monotonic,
            random=course.random,
            new_token=self._token,
        )

    @property
    def time(self) -> int:
        """What its clock shows."""
        return self._course.now + self.skew

    def _clock(self) -> datetime:
        time = self.time
        operation = self.running
        if operation is not None:
            operation.low = min(operation.low, time)
            operation.high = max(operation.high, time)
        return moment(time)

    def _token(self) -> str:
        """As a UUIDv7 it begins with the time, which sweeping goes by."""
        self._tokens += 1
        return f"{self.time:012x}{self._number:02x}{self._tokens:02x}"


@dataclass(slots=True, eq=False)
class Client:
    """One who does one operation after another; ``todo`` is how many it has still to begin."""

    name: str
    process: Process
    todo: int = 0
    plan: Plan[Any] | None = None
    operation: Operation | None = None
    pending: Call | Wait | None = None
    """The plan's last step, and when it came to that."""
    since: int = 0
    partial: tuple[list[Any], Call] | None = None
    """What a query under way has read already, and the call that reads the rest."""
    outage: int = 0
    """How many of its next calls fail."""


def watched(plan: Plan[Any], operation: Operation) -> Plan[Any]:
    """``plan``; the operation is told where a call of it was given up on."""

    def take(step: Call | Wait) -> Plan[Any]:
        try:
            return (yield step)
        except StoreUnavailable:
            operation.gave_up = True
            raise

    return through(plan, take)
