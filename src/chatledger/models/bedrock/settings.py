"""The settings of the requests to a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from chatledger.json_values import Json

ConverseObject: TypeAlias = dict[str, Any]
"""An object of the Converse API's JSON, with ``bytes`` in place of base64 text."""


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A Bedrock guardrail that checks the model's input and output.

    ``id`` is the guardrail's id or ARN. In mode ``sync``, text is delivered after it was checked.
    In mode ``async``, it is delivered at once, and may be shown before the guardrail objects.
    """

    id: str
    version: str = "DRAFT"
    mode: Literal["sync", "async"] = "sync"


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """Everything in a request except its messages.

    Values that are None or empty are not sent, because newer models accept fewer of these settings.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: Sequence[str] = ()
    additional_fields: Mapping[str, Json] | None = None
    guardrail: Guardrail | None = None
    cache: bool = False
    tools: Sequence[ConverseObject] = ()
    tool_choice: ConverseObject | None = None
    streaming: bool = True
