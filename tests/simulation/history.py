"""The history of a schedule: each operation, its client, its answer, and when it ran."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chatledger.conversations import DESCRIPTION_FIELDS
from chatledger.errors import ChatledgerError, StoreUnavailable
from chatledger.stores.dynamodb.table import HOUR
from tests.simulation.model import NEVER, Interval, changed_values


class _Pending:
    def __repr__(self) -> str:
        return "no answer"


PENDING = _Pending()
"""Stands for the answer of an operation that was not answered."""


@dataclass(slots=True)
class Operation:
    """One operation of a client."""

    number: int
    client: str
    kind: str
    conversation: str
    arguments: dict[str, Any]
    default_lifetime: int | None
    """The lifetime (ms) that the client gives to a conversation without one of its own."""
    clock_low: int
    """The earliest time that the client's clock showed during the operation (ms since 1970)."""
    clock_high: int
    """The latest time that the client's clock showed during the operation (ms since 1970)."""
    start_step: int
    end_step: float = NEVER
    answer: Any = PENDING
    """The value it returned, the error it raised, or ``PENDING``."""
    lists_lag: bool = False
    """True if lists may show what was once true, however long ago."""
    sees_from: float = NEVER
    """A read that need not see the latest changes may see the state at any step from this on."""
    gave_up: bool = False
    """True if one of its calls failed for too long, so that its follow-up work may be missing."""
    hints: dict[str, int] = field(default_factory=dict)
    """For each conversation, the step at which the operation probably took effect. The checker
    tries operations in this order first."""

    @property
    def is_acknowledged(self) -> bool:
        """True if the answer says what the operation did."""
        return self.answer is not PENDING and not isinstance(self.answer, StoreUnavailable)

    @property
    def may_have_landed(self) -> bool:
        """True if it is not acknowledged, but may have taken effect."""
        if isinstance(self.answer, StoreUnavailable):
            # Some of an owner's conversations may be deleted when the call for another one fails.
            return self.answer.may_have_landed or self.kind == "delete_owner"
        return self.answer is PENDING

    @property
    def has_error(self) -> bool:
        """True if the answer is an error."""
        return isinstance(self.answer, ChatledgerError)

    @property
    def earliest_step(self) -> float:
        """The first step at which it may have taken effect."""
        return min(self.start_step, self.sees_from)

    def interval(self, history: Sequence["Operation"]) -> Interval:
        """Return when the operation ran; ``history`` holds all operations of the schedule."""
        listed_by = self.end_step
        slept = self.clock_high - self.clock_low >= HOUR
        follows_later = self.arguments.get("reply_follows")
        if self.gave_up or slept or not self.is_acknowledged or follows_later:
            listed_by = NEVER
        is_being_deleted = any(
            other.kind in ("delete", "delete_owner")
            and (
                other.gave_up
                or not other.is_acknowledged
                or other.clock_high - other.clock_low >= HOUR
            )
            and other.start_step < self.end_step
            for other in history
        )
        concurrent = [
            changed_values(other.arguments)
            for other in history
            if other.kind == "update"
            and other.conversation in (self.conversation, self.arguments.get("new_id"))
            and (other.is_acknowledged or other.may_have_landed)
            and other.start_step < self.end_step
            and other.end_step > self.earliest_step
        ]
        return Interval(
            clock_low=self.clock_low,
            clock_high=self.clock_high,
            start_step=self.earliest_step,
            listed_by=listed_by,
            rebuilt_by=NEVER if is_being_deleted else listed_by,
            concurrent=tuple(
                frozenset(changes[name] for changes in concurrent if name in changes)
                for name in DESCRIPTION_FIELDS
            ),
        )
