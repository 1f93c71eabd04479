"""The interface of a turn: the options and the request that it is given, and what it yields.

A turn performs no I/O itself, so that async and sync callers share one implementation of it. It
yields events for its caller, and effects for its runner: the runner performs each effect and sends
the turn its result.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from chatledger.errors import InvalidArgument, ModelUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage
from chatledger.values import milliseconds_since_epoch, now, without_lone_surrogates
from chatledger.windows import Window

DEFAULT_LEASE = timedelta(seconds=10)
"""The default time for which a turn may run without renewing its lease."""
QUESTION_ROLES = ("user", "tool")
ENDED_WITHOUT_FINISHED = "The model ended its reply without Finished; the reply may be incomplete."


# Events -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of a turn; if the turn is stored, the user's message is stored by now.

    Two of them are equal if they are of the same conversation.

    Attributes:
        conversation_id: None only for a turn that is not stored and continues no conversation.
        reply_id: The id that the reply will have once it is stored; None if the turn is not stored.
        seq: The seq of the message that the turn answers; None if the turn is not stored.
        branch_id: The copy of the conversation as it was before an edit, if the edit keeps one.
    """

    conversation_id: str | None
    reply_id: str | None = field(default=None, compare=False)
    seq: int | None = field(default=None, compare=False)
    branch_id: str | None = field(default=None, compare=False)


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
    return reply_from([event async for event in events])


def collect_sync(events: Iterator[Event]) -> Reply:
    """Return the complete reply of a turn of a ``SyncChat``, as ``collect`` does for a ``Chat``."""
    return reply_from(list(events))


def reply_from(events: Sequence[Event]) -> Reply:
    """Return the complete reply of the turn that had ``events``, as ``collect`` does."""
    match events:
        case [Started(conversation_id), *pieces, Finished() as finished]:
            return Reply(conversation_id, "".join(map(str, pieces)), finished)
    raise ModelUnavailable(ENDED_WITHOUT_FINISHED)


# Options and requests -----------------------------------------------------------------------------


class Hook(Protocol):
    """Methods that are called in every turn that is stored; in a ``Chat`` they may be async."""

    def before_model(self, window: list[Message]) -> list[Message] | Awaitable[list[Message]]:
        """Return the messages that the model gets instead of ``window``.

        It is called once the user's message is stored, and ``window`` ends with the messages to
        answer. The messages that it returns are made valid for models again. It must return within
        the turn's lease, which is not renewed meanwhile. An error raised here ends the turn and is
        raised to the caller; the user's message stays.
        """
        ...

    def after_reply(self, reply: Reply) -> Awaitable[None] | None:
        """Handle a reply that has been stored.

        An error raised here does not affect the turn; only its type is logged.
        """
        ...


def _now_ms() -> int:
    return milliseconds_since_epoch(now())


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """The options that all turns of a chat share."""

    window: Window
    system_prompt: str | None = None
    lease: timedelta = DEFAULT_LEASE
    time_limit: timedelta | None = None
    hooks: Sequence[Hook] = ()
    clock: Callable[[], int] = _now_ms
    """Returns the time in ms since 1970; machines that share a store compare their times."""
    timer: Callable[[], float] = time.monotonic
    """Returns monotonic seconds, for measuring durations."""

    def __post_init__(self) -> None:
        for name in ("lease", "time_limit"):
            value = getattr(self, name)
            if value is None and name == "time_limit":
                continue
            if not isinstance(value, timedelta) or value <= timedelta():
                raise InvalidArgument(f"{name} must be a timedelta longer than zero.")
        if not isinstance(self.window, Window):
            raise InvalidArgument("window must be a Window, such as last(20).")
        if not isinstance(self.hooks, Sequence) or not all(map(_is_hook, self.hooks)):
            raise InvalidArgument(
                "hooks must be a list of objects with the methods before_model and after_reply."
            )

    @property
    def read_limit(self) -> int:
        """The number of last messages to read, at least 4.

        With 4, a turn's question is found even if other writers added a few messages after it.
        """
        return max(self.window.reads - 1, 4)

    def window_for(self, earlier: Sequence[Message], messages: Sequence[Message]) -> list[Message]:
        """Return the messages that the model sees in a turn that answers ``messages``.

        Raises ``InvalidArgument`` if there is nothing for the model to answer.
        """
        return checked_window(self.window([*earlier, *messages]))

    def system_prompt_for(self, requested: str | None) -> str | None:
        """Return the system prompt that a turn requested, or else the chat's."""
        return self.system_prompt if requested is None else requested


def checked_window(window: list[Message]) -> list[Message]:
    """Return ``window``; raise ``InvalidArgument`` if it has nothing for the model to answer."""
    if not window or window[-1].role not in QUESTION_ROLES:
        raise InvalidArgument(
            "There is nothing for the model to answer; the window must end with a user message, or "
            "with a tool result that directly follows its call."
        )
    return window


def _is_hook(hook: object) -> bool:
    methods = [getattr(hook, name, None) for name in ("before_model", "after_reply")]
    return all(map(callable, methods)) and not isinstance(hook, type)


class RequestKey(NamedTuple):
    """An idempotency key, and the digest of the request that uses it."""

    text: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """The checked request for one turn."""

    model_id: str
    system_prompt: str | None
    """The turn's own, instead of the chat's."""
    conversation_id: str | None
    owner: str | None
    messages: list[Message] = field(default_factory=list)
    """The messages to store, unless the turn answers one that is already stored."""
    title: str | None = None
    key: RequestKey | None = None
    revision: int | None = None
    """The revision that the conversation must have; None for any."""
    must_exist: bool = False
    """True if a conversation that is named must not be created."""


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
    """Wait at most ``seconds`` for the model's next output.

    The turn receives a piece, ``Finished``, ``STOPPED``, or None after the timeout. Errors of the
    model are thrown into the turn.
    """

    seconds: float


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

StopFunctions: TypeAlias = dict[tuple[str, str], Callable[[], None]]
"""The functions that stop the turns that are running, by the ids of conversation and reply."""


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

    A text is returned with � in place of lone surrogates, which no message can hold.

    Raises:
        TypeError: The model yielded an object that cannot be part of a reply.
    """
    match output:
        case ModelFailure(error):
            raise error
        case str():
            return without_lone_surrogates(output)
        case Signal() | Finished(usage=None | Usage()):
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
