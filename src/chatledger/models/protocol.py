"""What a turn needs of a language model."""

from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from chatledger.json_values import Json
from chatledger.messages import Message


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply took, in the model's own tokens.

    ``input_tokens`` are all that the model was given; ``cached_tokens`` are those of them that were
    read from a prompt cache, ``cache_write_tokens`` those that were written to one.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def counts(self) -> dict[str, Json]:
        """The counts by their names; those of caches only where there was one."""
        counts: dict[str, Json] = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        if self.cached_tokens or self.cache_write_tokens:
            counts["cached_tokens"] = self.cached_tokens
            counts["cache_write_tokens"] = self.cache_write_tokens
        return counts

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """How a reply ended.

    ``stop_reason`` is the model's (``end_turn``, ``max_tokens``, ``stop_sequence``, ``tool_use``,
    ``guardrail_intervened`` and the like) or a turn's own (``stopped``, ``timed_out``). ``usage``
    and ``latency_ms`` (milliseconds, as the model's service measured them) are None where the model
    did not say. ``tool_calls`` are dicts of ``id``, ``name``, ``args`` (an object) and ``type``
    (always ``tool_call``), as LangChain's are.
    """

    stop_reason: str
    usage: Usage | None = None
    tool_calls: Sequence[dict[str, Json]] = ()
    latency_ms: int | None = None


Piece: TypeAlias = str
"""A stretch of the reply's text, never empty, to be shown as it comes."""


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

        ``messages`` are as ``chatledger.windows.valid_for_models`` makes them. Closing the generator
        ends the call to the model. Raises ``ModelUnavailable``, ``ModelThrottled``,
        ``ModelTimeout`` and ``ModelRefused``, none of which repeats a message or a secret.
        """
        ...


class SyncModel(Protocol):
    """A language model for callers without an event loop."""

    @property
    def id(self) -> str:
        """The name it is asked for by."""
        ...

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        """As ``Model.stream``."""
        ...


class OpenedModel(Model, SyncModel, Protocol):
    """A model in both forms, with connections to let go of."""

    async def close(self) -> None:
        """Let go of the connections; closing again does nothing."""
        ...
