"""The events that a turn yields for its caller, and the effects that it yields for its runner.

A turn performs no I/O itself, so that async and sync callers share one implementation of it: a
runner performs each effect and sends the turn its result.
"""

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from chatledger.errors import ModelUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage

ENDED_WITHOUT_FINISHED = "The model ended its reply without Finished; the reply may be incomplete."


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of a turn; if the turn is stored, the user's message is stored by now.

    ``conversation_id`` is None only for a turn that is not stored and continues no conversation.
    """

    conversation_id: str | None


Event: TypeAlias = Started | Piece | Finished


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply; ``finished`` says how it ended.

    ``conversation_id`` is None only for a turn that is not stored and continues no conversation.
    """

    conversation_id: str | None
    text: str
    finished: Finished


async def collect(events: AsyncIterator[Event]) -> Reply:
    """Return the complete reply of a turn, once the turn has ended.

    Args:
        events: The events of the turn, from a method of ``Chat``.

    Raises:
        ModelUnavailable: The events ended without ``Finished``. Errors of the turn pass through.
    """
    return _reply([event async for event in events])


def collect_sync(events: Iterator[Event]) -> Reply:
    """Return the complete reply of a turn of a ``SyncChat``, as ``collect`` does for a ``Chat``."""
    return _reply(list(events))


def _reply(events: list[Event]) -> Reply:
    match events:
        case [Started(conversation_id), *pieces, Finished() as finished]:
            return Reply(conversation_id, "".join(map(str, pieces)), finished)
    raise ModelUnavailable(ENDED_WITHOUT_FINISHED)


# Effects ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallModel:
    """Start the call to the model; the turn receives None."""

    messages: Sequence[Message]
    system_prompt: str | None


@dataclass(frozen=True, slots=True)
class StopModel:
    """End the call to the model; the turn receives None."""


@dataclass(frozen=True, slots=True)
class NextPiece:
    """Wait at most ``seconds`` for the model's next output; None means no limit.

    The turn receives a piece, ``Finished``, ``STOPPED``, or None after the timeout. Errors of the
    model are thrown into the turn.
    """

    seconds: float | None


class Signal(Enum):
    """An output for the turn that does not come from the model."""

    STOPPED = "stopped"


STOPPED: Final = Signal.STOPPED
"""Tells the turn to end now and to store the reply received so far."""

PendingCall: TypeAlias = Callable[[], Any]
"""A call of a store or a hook, not yet made; the turn receives its result or its error."""
Effect: TypeAlias = CallModel | StopModel | NextPiece | Event | PendingCall
"""Anything that a turn yields; an event is passed on to the turn's caller."""
T = TypeVar("T")
TurnSteps: TypeAlias = Generator[Effect, Any, T]
"""A part of a turn: yields effects and returns a value."""
Turn: TypeAlias = TurnSteps[None]

StopFunctions: TypeAlias = dict[str, Callable[[], None]]
"""The functions that stop the turns that are running, by conversation id."""


class CallerLeft(Exception):
    """The caller no longer waits for the turn's events; thrown into the turn.

    If a call was pending, its outcome is unknown.
    """


class ModelFailure(NamedTuple):
    """An error that the model raised."""

    error: Exception


ModelOutput: TypeAlias = Piece | Finished | Signal | ModelFailure


def unwrap(output: ModelOutput) -> Piece | Finished | Signal:
    """Return ``output``, or raise the error in it.

    Raises:
        TypeError: The model yielded an object that cannot be part of a reply.
    """
    match output:
        case ModelFailure(error):
            raise error
        case str() | Signal() | Finished(usage=None | Usage()):
            return output
    raise TypeError(
        "A model must yield pieces of text and then Finished, with a Usage or None; this one "
        f"yielded an object of type {type(output).__name__}."
    )


def model_failure(error: BaseException) -> ModelFailure:
    """Return ``error`` as an output; ``SystemExit`` and the like become ``ModelUnavailable``."""
    if isinstance(error, Exception):
        return ModelFailure(error)
    return ModelFailure(ModelUnavailable("The call to the model was interrupted; try again."))


class TurnStepper:
    """A turn, together with the result or error with which it resumes next."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._result: Any = None
        self._error: Exception | None = None

    def set_result(self, result: object) -> None:
        self._result = result

    def set_error(self, error: Exception) -> None:
        self._error = error

    def next_effect(self) -> Effect | None:
        """Resume the turn and return its next effect, or None if it ends; raise its error."""
        result, error = self._result, self._error
        self._result = self._error = None
        try:
            return self._turn.throw(error) if error is not None else self._turn.send(result)
        except StopIteration:
            return None
