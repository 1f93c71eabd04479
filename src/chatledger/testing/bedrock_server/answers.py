"""What a script is made of: how the server answers, or fails to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias

from chatledger.json_values import Json
from chatledger.testing.bedrock_server.refusing import STATUSES
from chatledger.testing.bedrock_server.requests import Request

TEXT = "One two three four five six seven eight."

StreamError = Literal[
    "internalServerException",
    "modelStreamErrorException",
    "serviceUnavailableException",
    "throttlingException",
    "validationException",
]


@dataclass(frozen=True, slots=True)
class Use:
    """A use of the tool ``name``.

    ``input`` is streamed as partial JSON in ``pieces``; as a str it is streamed as it is, so that
    ``'{"city": "Ky'`` is what a model says that does not come to its end.
    """

    name: str
    input: Mapping[str, Json] | str
    _: KW_ONLY
    id: str | None = None
    """None for one that the server makes up, as ``tooluse_`` and a number."""
    pieces: int = 3


@dataclass(frozen=True, slots=True)
class Says:
    """A reply: the pieces of ``text`` (a str is cut into words), then the tools it ``uses``.

    ``delay`` is seconds before anything is sent, ``pause`` seconds before every further piece
    (None for the server's pace). ``stop_reason`` is ``tool_use`` where tools are used, or else
    ``end_turn``. ``reasoning`` is what the model thinks before it speaks, a block of its own.
    """

    text: str | Sequence[str] = ()
    _: KW_ONLY
    stop_reason: str | None = None
    uses: Sequence[Use] = ()
    reasoning: str = ""
    delay: float = 0.0
    pause: float | None = None


@dataclass(frozen=True, slots=True)
class Fails:
    """An error with a status, so many ``times`` in a row. ``code`` is as the service names it."""

    code: str
    message: str | None = None
    _: KW_ONLY
    times: int = 1

    def __post_init__(self) -> None:
        if self.code not in STATUSES:
            raise ValueError(f"{self.code} is no code of {', '.join(STATUSES)}.")


@dataclass(frozen=True, slots=True)
class FailsMidway:
    """A stream that ends in an error event after so many pieces of ``text``.

    ``Converse`` fails with the exception of that name.
    """

    exception: StreamError = "internalServerException"
    _: KW_ONLY
    after: int = 2
    text: str | Sequence[str] = TEXT
    message: str = "The system encountered an unexpected error during processing. Try again."


@dataclass(frozen=True, slots=True)
class BreaksOff:
    """The connection is dropped: before any answer, or ``after`` so many pieces of ``text``."""

    _: KW_ONLY
    after: int | None = None
    text: str | Sequence[str] = TEXT


@dataclass(frozen=True, slots=True)
class EndsEarly:
    """A stream that ends in good order after so many pieces, but without ``messageStop``.

    ``Converse`` says half of its JSON.
    """

    _: KW_ONLY
    after: int = 2
    text: str | Sequence[str] = TEXT


@dataclass(frozen=True, slots=True)
class FallsSilent:
    """Nothing for so many seconds, then the connection is dropped.

    At once, or ``after`` so many pieces of ``text``.
    """

    seconds: float = 3600.0
    _: KW_ONLY
    after: int | None = None
    text: str | Sequence[str] = TEXT


@dataclass(frozen=True, slots=True)
class Corrupts:
    """After so many pieces of ``text`` comes one whose CRC is wrong; ``part`` says which one.

    ``Converse`` says half of its JSON.
    """

    _: KW_ONLY
    after: int = 2
    text: str | Sequence[str] = TEXT
    part: Literal["prelude", "message"] = "message"


Answer: TypeAlias = Says | Fails | FailsMidway | BreaksOff | EndsEarly | FallsSilent | Corrupts

Answering: TypeAlias = Callable[[Request], Answer]
"""How a request is answered for which there is no script."""


def Throttles(*, times: int = 1) -> Fails:
    """The request is one too many, so many ``times`` in a row."""
    return Fails(
        "ThrottlingException", "Too many requests, please wait before trying again.", times=times
    )


def UsesTool(
    name: str, input: Mapping[str, Json] | str, *, id: str | None = None, saying: str = ""
) -> Says:
    """A reply that wants to use one tool, after it has said something."""
    return Says(saying, uses=[Use(name, input, id=id)])
