"""The interface between a turn and a language model."""

from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.values import Json


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a reply used, as the model counts them.

    ``input_tokens`` counts the whole input. ``cached_tokens`` is the part of it that was read from
    a prompt cache, and ``cache_write_tokens`` the part that was written to one.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def counts(self) -> dict[str, Json]:
        """The counts by name; those of the cache are included only if a cache was used."""
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
    """The end of a reply: the reason for it, the reply's tool calls and its usage.

    ``stop_reason`` comes from the model (``end_turn``, ``max_tokens``, ``stop_sequence``,
    ``tool_use``, ``guardrail_intervened`` and the like) or from the turn (``stopped``,
    ``timed_out``). ``usage`` is None if the model did not report it. ``latency_ms`` is the time of
    the reply in milliseconds, as measured by the model's service or, if that does not tell, by the
    client; it may be None. Each of ``tool_calls`` is a dict of ``id``, ``name``, ``args`` (an
    object) and ``type`` (always ``tool_call``), as in LangChain.
    """

    stop_reason: str
    usage: Usage | None = None
    tool_calls: Sequence[dict[str, Json]] = ()
    latency_ms: int | None = None


Piece: TypeAlias = str
"""A part of the reply's text, never empty, to be shown as soon as it arrives."""


class Model(Protocol):
    """A language model."""

    @property
    def id(self) -> str:
        """The model's name, such as ``offline``."""
        ...

    def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        """Yield the reply to ``messages`` piece by piece, then ``Finished`` once.

        Closing the generator ends the call to the model. The texts of errors repeat no message and
        no secret.

        Args:
            messages: The window, as ``chatledger.windows.valid_for_models`` returns it.
            system_prompt: Instructions that come before any system message in ``messages``.

        Raises:
            ModelUnavailable: The model is down, or its reply was cut off or malformed.
            ModelThrottled: There were too many calls or tokens.
            ModelTimeout: The model took too long.
            ModelRefused: The call cannot succeed unless something is changed.
        """
        ...


class SyncModel(Protocol):
    """A language model for callers without an event loop."""

    @property
    def id(self) -> str:
        """The model's name, such as ``offline``."""
        ...

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        """Yield the reply as ``Model.stream`` does, without an event loop."""
        ...


class OpenedModel(Model, SyncModel, Protocol):
    """A model for async and sync callers, which must be closed because it may hold connections."""

    async def close(self) -> None:
        """Close the connections; closing again does nothing."""
        ...


def check_model(model: object, *, method: str | None = None) -> None:
    """Raise ``InvalidArgument`` unless ``model`` is an object with an id, and with ``method``.

    A turn records the id with its reply.
    """
    if isinstance(model, str):
        raise InvalidArgument(
            "A model is needed, not the name of one; chatledger.models.open_model opens it."
        )
    if isinstance(model, type):
        raise InvalidArgument(
            f"A model is needed, not the class {model.__name__}; pass an object, such as "
            "open_model(name) returns."
        )
    if method is not None and not callable(getattr(model, method, None)):
        raise InvalidArgument(
            f"model is of type {type(model).__name__}; pass an object with an id and the method "
            f"{method}, such as open_model(name) returns."
        )
    id = getattr(model, "id", None)
    if not isinstance(id, str) or not id:
        raise InvalidArgument(
            f"{type(model).__name__} is not a model: it has no id; set its id to the name under "
            "which its replies are recorded."
        )
