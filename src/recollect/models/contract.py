"""What a turn needs of a language model."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from recollect.messages import Message


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply took, in the model's own tokens."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """How a reply ended: ``stop_reason`` is ``end_turn``, ``max_tokens`` and the like."""

    stop_reason: str
    usage: Usage


Piece: TypeAlias = str
"""A stretch of the reply's text, to be shown as it comes."""


class Model(Protocol):
    """A language model."""

    @property
    def id(self) -> str:
        """The name it is asked for by, such as ``offline``."""
        ...

    def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        """The reply to ``messages``, piece by piece, and ``Finished`` once, at the end.

        ``messages`` start with the user and end with the message to answer. Closing the generator
        ends the call to the model. Raises ``ModelUnavailable``.
        """
        ...
