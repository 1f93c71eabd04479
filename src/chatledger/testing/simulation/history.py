"""What was asked of a store, by whom and when, and what it answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chatledger.errors import ChatledgerError, StoreUnavailable
from chatledger.testing.simulation.model import NEVER, Moment, text_of


class _Pending:
    def __repr__(self) -> str:
        return "no answer"


PENDING = _Pending()
"""In place of an answer, where none came."""


@dataclass(slots=True)
class Operation:
    """One operation. ``answer`` is what it returned or raised, or ``PENDING``."""

    number: int
    client: str
    kind: str
    conversation: str
    arguments: dict[str, Any]
    default: int | None
    """How long a conversation without a lifetime of its own lives for this client (ms)."""
    low: int
    high: int
    """The least and the greatest that the client's clock showed it."""
    begun: int
    done: float = NEVER
    answer: Any = PENDING
    gave_up: bool = False
    """A call of it failed for too long, so that what it does afterwards may be missing."""
    hints: dict[str, int] = field(default_factory=dict)
    """The step at which it probably took effect, by conversation: where to look first."""

    @property
    def acknowledged(self) -> bool:
        return self.answer is not PENDING and not isinstance(self.answer, StoreUnavailable)

    @property
    def may_have_landed(self) -> bool:
        """Whether it may have taken effect though it was not acknowledged."""
        if isinstance(self.answer, StoreUnavailable):
            # Of an owner's conversations some may have gone before the call that failed.
            return self.answer.may_have_landed or self.kind == "delete_owner"
        return self.answer is PENDING

    @property
    def refused(self) -> bool:
        return isinstance(self.answer, ChatledgerError)

    def moment(self, history: Sequence["Operation"]) -> Moment:
        """When it was under way; ``history`` is all that happened."""
        listed = self.done
        if self.gave_up or not self.acknowledged or self.arguments.get("reply_follows"):
            listed = NEVER
        updates = [
            other.arguments
            for other in history
            if other.kind == "update"
            and other.conversation == self.conversation
            and (other.acknowledged or other.may_have_landed)
            and other.begun < self.done
            and other.done > self.begun
        ]
        if not updates:
            return Moment(self.low, self.high, self.begun, listed)
        titles = {given["title"] or None for given in updates if given["title"] is not None}
        metadata = {
            text_of(given["metadata"]) for given in updates if given["metadata"] is not None
        }
        return Moment(
            self.low, self.high, self.begun, listed, frozenset(titles), frozenset(metadata)
        )
