"""What a turn asks for. It does nothing itself, so that async and sync callers share one turn."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from chatledger.chat.events import Event
from chatledger.errors import ModelUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage


@dataclass(frozen=True, slots=True)
class Ask:
    """Begin to ask the model; nothing is answered."""

    messages: Sequence[Message]
    system_prompt: str | None


@dataclass(frozen=True, slots=True)
class Hush:
    """End the call to the model; nothing is answered."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Answered with what the model says next, ``STOPPED``, or None where it is silent for a while.

    That is at most so many seconds.

    Thrown is what the model raises.
    """

    seconds: float | None


class Signal(Enum):
    STOPPED = "stopped"


STOPPED: Final = Signal.STOPPED
"""The turn is to end now, and to keep what was said."""

Operation: TypeAlias = Callable[[], Any]
"""Of a store or a hook, not yet called: its answer is sent, or its error thrown."""
Effect: TypeAlias = Ask | Hush | Listen | Event | Operation
"""What a turn yields; an event is for its caller."""
Turn: TypeAlias = Generator[Effect, Any, None]


class CallerGone(Exception):
    """Thrown into a turn where nobody waits for the rest any more.

    In the place of an operation's answer it says that nobody knows what came of that.
    """


class Failed(NamedTuple):
    """What a model raised."""

    error: Exception


Heard: TypeAlias = Piece | Finished | Signal | Failed


def said(heard: Heard) -> Piece | Finished | Signal:
    """What was heard; raises what the model raised, and ``TypeError`` where it is no reply."""
    match heard:
        case Failed(error):
            raise error
        case str() | Signal() | Finished(usage=None | Usage()):
            return heard
    raise TypeError(
        "A model yields pieces of text and then Finished, with a Usage or None; this one yielded "
        f"an object of type {type(heard).__name__}."
    )


def failed(error: BaseException) -> Failed:
    """What the turn is told of ``error``: of one that is to end a program, that the call ended."""
    if isinstance(error, Exception):
        return Failed(error)
    return Failed(ModelUnavailable("The call to the model was cut off."))


class Course:
    """A turn, and what it is to be told next."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._answer: Any = None
        self._error: Exception | None = None

    def answer(self, value: object) -> None:
        self._answer = value

    def throw(self, error: Exception) -> None:
        self._error = error

    def next(self) -> Effect | None:
        """What the turn asks for next; None where it has ended. Raises what it ends with."""
        answer, error = self._answer, self._error
        self._answer = self._error = None
        try:
            return self._turn.throw(error) if error is not None else self._turn.send(answer)
        except StopIteration:
            return None
