"""The responses and faults that a test can script."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias

from chatledger.testing.bedrock_server.errors import HTTP_STATUSES
from chatledger.testing.bedrock_server.requests import Request
from chatledger.values import Json

TEXT = "One two three four five six seven eight."
"""The reply that a fault interrupts unless the test gives another one."""

StreamError = Literal[
    "internalServerException",
    "modelStreamErrorException",
    "serviceUnavailableException",
    "throttlingException",
    "validationException",
]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A use of the tool ``name``.

    ``input`` is streamed as JSON in ``pieces`` parts. A str is streamed unchanged, so that
    ``'{"city": "Ky'`` simulates a model that stops in the middle of its input.
    """

    name: str
    input: Mapping[str, Json] | str
    _: KW_ONLY
    id: str | None = None
    """None for an id that the server generates (``tooluse_`` and a number)."""
    pieces: int = 3


@dataclass(frozen=True, slots=True)
class Says:
    """A complete reply: the pieces of ``text``, then the tools that it ``uses``.

    Attributes:
        text: The pieces; a str is split into words.
        stop_reason: ``tool_use`` if tools are used and ``end_turn`` otherwise, unless given.
        reasoning: The model's thinking, sent before the text as a content block of its own.
        delay: Seconds before anything is sent.
        pause: Seconds before each further piece; None for the server's ``pace``.
    """

    text: str | Sequence[str] = ()
    _: KW_ONLY
    stop_reason: str | None = None
    uses: Sequence[ToolUse] = ()
    reasoning: str = ""
    delay: float = 0.0
    pause: float | None = None


@dataclass(frozen=True, slots=True)
class Fails:
    """An HTTP error response, given ``times`` times in a row.

    ``code`` is the service's name for it, such as ``AccessDeniedException``; ``message`` is the
    service's usual sentence unless given. Raises ``ValueError`` for a code the service does not
    have.
    """

    code: str
    message: str | None = None
    _: KW_ONLY
    times: int = 1

    def __post_init__(self) -> None:
        if self.code not in HTTP_STATUSES:
            raise ValueError(f"{self.code} is not one of the codes {', '.join(HTTP_STATUSES)}.")


@dataclass(frozen=True, slots=True)
class FailsMidStream:
    """A stream that ends in an error event after ``after`` pieces of ``text``.

    ``Converse`` responds with the HTTP error of the corresponding name.
    """

    exception: StreamError = "internalServerException"
    _: KW_ONLY
    after: int = 2
    text: str | Sequence[str] = TEXT
    message: str = "The system encountered an unexpected error during processing. Try again."


@dataclass(frozen=True, slots=True)
class DropsConnection:
    """A connection that is dropped, after ``after`` pieces of ``text`` or (None) before all."""

    _: KW_ONLY
    after: int | None = None
    text: str | Sequence[str] = TEXT


@dataclass(frozen=True, slots=True)
class EndsEarly:
    """A stream that ends properly after ``after`` pieces, but without ``messageStop``.

    ``Converse`` sends half of its JSON.
    """

    _: KW_ONLY
    after: int = 2
    text: str | Sequence[str] = TEXT


@dataclass(frozen=True, slots=True)
class Stalls:
    """A response that stops for ``seconds``, after which the connection is dropped.

    It stops after ``after`` pieces of ``text``, or (None) before all.
    """

    seconds: float = 3600.0
    _: KW_ONLY
    after: int | None = None
    text: str | Sequence[str] = TEXT


@dataclass(frozen=True, slots=True)
class CorruptsFrame:
    """A stream in which, after ``after`` pieces of ``text``, one frame has a wrong CRC.

    ``part`` selects the frame's prelude CRC or its message CRC. ``Converse`` sends half of its
    JSON.
    """

    _: KW_ONLY
    after: int = 2
    text: str | Sequence[str] = TEXT
    part: Literal["prelude", "message"] = "message"


ScriptedResponse: TypeAlias = (
    Says | Fails | FailsMidStream | DropsConnection | EndsEarly | Stalls | CorruptsFrame
)

Responder: TypeAlias = Callable[[Request], ScriptedResponse]
"""Chooses the response to a request when the script is empty."""


def Throttles(*, times: int = 1) -> Fails:
    """Return a ``ThrottlingException``, given ``times`` times in a row."""
    return Fails(
        "ThrottlingException", "Too many requests, please wait before trying again.", times=times
    )


def UsesTool(
    name: str, input: Mapping[str, Json] | str, *, id: str | None = None, saying: str = ""
) -> Says:
    """Return a reply that says ``saying`` and then uses one tool."""
    return Says(saying, uses=[ToolUse(name, input, id=id)])
