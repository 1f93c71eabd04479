"""The participants of a schedule: processes with clocks, and clients with operations."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chatledger.errors import StoreUnavailable
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan, Wait, through
from chatledger.stores.dynamodb.table import Table
from chatledger.values import to_datetime
from tests.simulation.copies import Script
from tests.simulation.history import Operation
from tests.simulation.schedule_state import ScheduleState


class Process:
    """A process: the clocks and the store's cache, which its clients share."""

    def __init__(self, state: ScheduleState, table: str, number: int) -> None:
        self._state = state
        self._number = number
        self._tokens = 0
        self.skew = state.random.choice(state.environment.clock_skews)
        """The difference between its wall clock and the true time (ms)."""
        self.monotonic = 0.0
        self.running_operation: Operation | None = None
        """The operation whose plan is taking a step."""
        self.table = Table(
            name=table,
            lifetime=state.random.choice(state.environment.default_lifetimes),
            consistent=state.random.choice(state.environment.consistent),
            clock=self._clock,
            monotonic=lambda: self.monotonic,
            random=state.random,
            new_token=self._new_token,
            patience=state.environment.patience,
            cleanup_seconds=state.random.choice(state.environment.cleanup_seconds),
        )

    def set_clock(self) -> None:
        """Set its wall clock, to another difference from the true time."""
        self.skew = self._state.random.choice(self._state.environment.clock_skews)

    @property
    def time(self) -> int:
        """The time on its wall clock, in ms since 1970."""
        return self._state.now + self.skew

    def _clock(self) -> datetime:
        time = self.time
        operation = self.running_operation
        if operation is not None:
            operation.clock_low = min(operation.clock_low, time)
            operation.clock_high = max(operation.clock_high, time)
        return to_datetime(time)

    def _new_token(self, time: int) -> str:
        """Return a token that begins with ``time``, as a UUIDv7 does; sweeps rely on that."""
        self._tokens += 1
        return f"{time:012x}{self._number:02x}{self._tokens:02x}"


@dataclass(slots=True, eq=False)
class Client:
    """A client, which calls one operation after another."""

    name: str
    process: Process
    remaining: int = 0
    """The number of operations that it has yet to start."""
    plan: Plan[Any] | None = None
    operation: Operation | None = None
    pending: Call | Wait | None = None
    """The step that its plan waits for."""
    received: tuple[Any, CallFailed | None] | None = None
    """The reply or failure that its plan is given when its process, now asleep, wakes up."""
    pending_since: int = 0
    """The true time at which the plan reached that step (ms since 1970)."""
    partial_query: tuple[list[Any], Call] | None = None
    """The items that a split query has read so far, and the call that reads the rest."""
    script: Script | None = None
    """The operations that it calls next, if they depend on each other's answers."""
    answer: Any = None
    """The answer to its last operation."""
    split_reply: Any = None
    """The reply to its transaction, of which queries see only a part until it gets the reply."""
    failing_calls: int = 0
    """The number of its next calls that fail."""


def record_giving_up(plan: Plan[Any], operation: Operation) -> Plan[Any]:
    """Return ``plan``, made to set ``operation.gave_up`` if one of its calls fails for too long."""

    def take(step: Call | Wait) -> Plan[Any]:
        try:
            return (yield step)
        except StoreUnavailable:
            operation.gave_up = True
            raise

    return through(plan, take)
