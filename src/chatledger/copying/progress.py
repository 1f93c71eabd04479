"""What a copy did so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a copy is: conversations it is through with, messages it has brought over."""

    conversations: int
    messages: int
    conversation_id: str
    """The one it is at."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A conversation that does not stand in the target as it does in the source, and why."""

    conversation_id: str
    why: str


@dataclass(slots=True)
class Copied:
    """What a copy did.

    ``conversations`` is how many stand in the target as in the source, be it from this run or from
    one before; ``messages`` how many this run brought over. What is in ``mismatches`` needs
    somebody to look at it.
    """

    conversations: int = 0
    messages: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


Tell: TypeAlias = Callable[[Progress], object]


class NotTold(Exception):
    """Whoever is told of the progress raised an error, which says nothing of a conversation."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@dataclass(slots=True)
class Tally:
    """What was done so far, for whoever wants to be told."""

    progress: Tell | None
    copied: Copied = field(default_factory=Copied)
    through: int = 0

    def tell(self, conversation_id: str) -> None:
        """Raises ``NotTold`` from what the caller's function raised."""
        if self.progress is None:
            return
        now = Progress(
            conversations=self.through,
            messages=self.copied.messages,
            conversation_id=conversation_id,
        )
        try:
            self.progress(now)
        except Exception as error:
            raise NotTold(error) from error
