"""What every request of a model asks for beside its messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from chatledger.json_values import Json

Block: TypeAlias = dict[str, Any]
"""A part of a request in the form of Bedrock's JSON; ``bytes`` where that has base64."""


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A guardrail that looks at what goes in and comes out; ``id`` may be an ARN.

    In the mode ``sync`` text waits until it has been looked at; in ``async`` it comes at once, and
    may turn out to be against the rules when it has been shown.
    """

    id: str
    version: str = "DRAFT"
    mode: Literal["sync", "async"] = "sync"


@dataclass(frozen=True, slots=True)
class Settings:
    """None and what is empty is not sent: the newer a model, the less of it does it take."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: Sequence[str] = ()
    additional_fields: Mapping[str, Json] | None = None
    guardrail: Guardrail | None = None
    cache: bool = False
    tools: Sequence[Block] = ()
    tool_choice: Block | None = None
    streaming: bool = True
