"""From the events of a reply to its text and its end. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from chatledger.errors import InvalidArgument, ModelUnavailable
from chatledger.json_values import Json, checked_object
from chatledger.messages import MESSAGE_BYTES
from chatledger.models.protocol import Finished, Usage

_GARBLED = "The model's reply came garbled; trying again may help."

Event: TypeAlias = Mapping[str, Any]
"""An event's name and what it holds, such as ``{"messageStop": {"stopReason": "end_turn"}}``."""

_MALFORMED = "The model sent a malformed tool call; trying again helps most times."
# Of these the service itself says that the model's output is of no use.
_USELESS = {"malformed_tool_use", "malformed_model_output"}
_CUT = {"max_tokens", "model_context_window_exceeded"}


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    written: list[str] = field(default_factory=list)


class Reply:
    """A reply as it comes in, event by event."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._finished: list[dict[str, Json]] = []
        self._stop_reason: str | None = None
        self._usage: Usage | None = None
        self._latency_ms: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all that the user sees has come; usage comes behind it."""
        return self._stop_reason is not None

    def read(self, event: Event) -> str:
        """The text that the event adds, mostly none. Raises ``ModelUnavailable``."""
        try:
            return self._read(event)
        except (AttributeError, KeyError, TypeError) as failed:
            raise ModelUnavailable(_GARBLED) from failed

    def finished(self) -> Finished:
        """How it ended. Raises ``ModelUnavailable`` where it did not, but broke off."""
        if self._stop_reason is None:
            raise ModelUnavailable(
                "The model's reply broke off before its end; trying again may help."
            )
        return Finished(self._stop_reason, self._usage, self._finished, self._latency_ms)

    def _read(self, event: Event) -> str:
        match event:
            case {"contentBlockDelta": {"delta": {"text": str(text)}}}:
                return _storable(text)
            case {
                "contentBlockDelta": {
                    "contentBlockIndex": int(block),
                    "delta": {"toolUse": {"input": written}},
                }
            }:
                self._calls[block].written.append(written)
            case {
                "contentBlockStart": {"contentBlockIndex": int(block), "start": {"toolUse": use}}
            }:
                self._calls[block] = _Call(use["toolUseId"], use["name"])
            case {"messageStop": stop}:
                self._stop(stop["stopReason"])
            case {"metadata": about}:
                self._measured(about)
        return ""  # of reasoning, and of kinds that are to come

    def _stop(self, reason: str) -> None:
        if reason in _USELESS:
            raise ModelUnavailable(_MALFORMED)
        calls = [(call, _arguments(call)) for call in self._calls.values()]
        if calls and reason in _CUT and (calls[-1][1] is None or not calls[-1][0].written):
            calls.pop()  # the limit came in the middle of it
        for call, arguments in calls:
            if arguments is None:
                raise ModelUnavailable(_MALFORMED)
            self._finished.append(
                {"id": call.id, "name": call.name, "args": arguments, "type": "tool_call"}
            )
        self._stop_reason = reason

    def _measured(self, about: Mapping[str, Any]) -> None:
        if usage := about.get("usage"):
            read = usage.get("cacheReadInputTokens") or 0
            written = usage.get("cacheWriteInputTokens") or 0
            # inputTokens are those that were neither read from a cache nor written to one:
            # https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
            self._usage = Usage(
                usage["inputTokens"] + read + written, usage["outputTokens"], read, written
            )
        self._latency_ms = about.get("metrics", {}).get("latencyMs")


def events_of(answer: Mapping[str, Any]) -> Iterator[Event]:
    """The events that a reply would have come in which came as a whole, from Converse.

    Raises ``ModelUnavailable``.
    """
    try:
        for place, block in enumerate(answer["output"]["message"]["content"]):
            match block:
                case {"text": str()}:
                    yield {"contentBlockDelta": {"contentBlockIndex": place, "delta": block}}
                case {"toolUse": {"input": given, **use}}:
                    written = {"toolUse": {"input": json.dumps(given)}}
                    yield {
                        "contentBlockStart": {"contentBlockIndex": place, "start": {"toolUse": use}}
                    }
                    yield {"contentBlockDelta": {"contentBlockIndex": place, "delta": written}}
        yield {"messageStop": {"stopReason": answer["stopReason"]}}
    except (KeyError, TypeError) as failed:
        raise ModelUnavailable(_GARBLED) from failed
    yield {"metadata": answer}


def _arguments(call: _Call) -> dict[str, Json] | None:
    """The call's arguments; None where they are no JSON, or none that can be stored."""
    try:
        value = json.loads("".join(call.written) or "{}")
        return checked_object(value, "args", limit=MESSAGE_BYTES, error=InvalidArgument)
    except (ValueError, RecursionError):
        return None


def _storable(text: str) -> str:
    """The text, with � for what no encoding can store: half of a character."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
