"""Reading the text and the end of a reply from its events, without I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from chatledger.errors import InvalidArgument, ModelUnavailable
from chatledger.messages import MAX_MESSAGE_BYTES
from chatledger.models.protocol import Finished, Usage
from chatledger.values import Json, checked_object

Event: TypeAlias = Mapping[str, Any]
"""An event's name and content, such as ``{"messageStop": {"stopReason": "end_turn"}}``."""

_MALFORMED_REPLY = "The model's reply was malformed; try again."
_MALFORMED_CALL = "The model sent a malformed tool call; try again, which usually helps."
# The stop reasons with which the service itself declares the model's output unusable.
_MALFORMED_REASONS = {"malformed_tool_use", "malformed_model_output"}
_TOKEN_LIMIT_REASONS = {"max_tokens", "model_context_window_exceeded"}


@dataclass(slots=True)
class _ToolUse:
    id: str
    name: str
    input_fragments: list[str] = field(default_factory=list)


class BedrockReplyReader:
    """Reads one reply, event by event."""

    def __init__(self) -> None:
        self._tool_uses: dict[int, _ToolUse] = {}
        self._tool_calls: list[dict[str, Json]] = []
        self._stop_reason: str | None = None
        self._usage: Usage | None = None
        self._latency_ms: int | None = None

    @property
    def is_complete(self) -> bool:
        """True if everything that the user sees has arrived; the usage arrives later."""
        return self._stop_reason is not None

    def read(self, event: Event) -> str:
        """Read the next event and return the text that it adds, which is often empty.

        Raises:
            ModelUnavailable: The event is malformed, or it completes a malformed tool call.
        """
        try:
            return self._read(event)
        except (AttributeError, KeyError, TypeError) as error:
            raise ModelUnavailable(_MALFORMED_REPLY) from error

    def finished(self) -> Finished:
        """Return the end of the reply; raise ``ModelUnavailable`` if it was cut off."""
        if self._stop_reason is None:
            raise ModelUnavailable("The model's reply was cut off before its end; try again.")
        return Finished(self._stop_reason, self._usage, self._tool_calls, self._latency_ms)

    def _read(self, event: Event) -> str:
        match event:
            case {"contentBlockDelta": {"delta": {"text": str(text)}}}:
                return text
            case {
                "contentBlockDelta": {
                    "contentBlockIndex": int(block),
                    "delta": {"toolUse": {"input": fragment}},
                }
            }:
                self._tool_uses[block].input_fragments.append(fragment)
            case {
                "contentBlockStart": {"contentBlockIndex": int(block), "start": {"toolUse": use}}
            }:
                self._tool_uses[block] = _ToolUse(use["toolUseId"], use["name"])
            case {"messageStop": stop}:
                self._read_stop_reason(stop["stopReason"])
            case {"metadata": metadata}:
                self._read_metadata(metadata)
        return ""  # also for reasoning, and for kinds of events that do not exist yet

    def _read_stop_reason(self, reason: str) -> None:
        if reason in _MALFORMED_REASONS:
            raise ModelUnavailable(_MALFORMED_CALL)
        calls = [(use, _arguments(use)) for use in self._tool_uses.values()]
        if calls and reason in _TOKEN_LIMIT_REASONS:
            last_use, last_arguments = calls[-1]
            if last_arguments is None or not last_use.input_fragments:
                calls.pop()  # the limit was reached in the middle of this call
        for use, arguments in calls:
            if arguments is None:
                raise ModelUnavailable(_MALFORMED_CALL)
            self._tool_calls.append(
                {"id": use.id, "name": use.name, "args": arguments, "type": "tool_call"}
            )
        self._stop_reason = reason

    def _read_metadata(self, metadata: Mapping[str, Any]) -> None:
        if usage := metadata.get("usage"):
            cache_read = usage.get("cacheReadInputTokens") or 0
            cache_written = usage.get("cacheWriteInputTokens") or 0
            # inputTokens counts only tokens that were neither read from a cache nor written to one:
            # https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
            self._usage = Usage(
                usage["inputTokens"] + cache_read + cache_written,
                usage["outputTokens"],
                cache_read,
                cache_written,
            )
        self._latency_ms = metadata.get("metrics", {}).get("latencyMs")


def events_from_converse(response: Mapping[str, Any]) -> Iterator[Event]:
    """Yield the events that ConverseStream would have sent for a response of Converse.

    Raises:
        ModelUnavailable: The response is malformed.
    """
    try:
        for index, block in enumerate(response["output"]["message"]["content"]):
            match block:
                case {"text": str()}:
                    yield {"contentBlockDelta": {"contentBlockIndex": index, "delta": block}}
                case {"toolUse": {"input": arguments, **use}}:
                    fragment = {"toolUse": {"input": json.dumps(arguments)}}
                    yield {
                        "contentBlockStart": {"contentBlockIndex": index, "start": {"toolUse": use}}
                    }
                    yield {"contentBlockDelta": {"contentBlockIndex": index, "delta": fragment}}
        yield {"messageStop": {"stopReason": response["stopReason"]}}
    except (KeyError, TypeError) as error:
        raise ModelUnavailable(_MALFORMED_REPLY) from error
    yield {"metadata": response}


def _arguments(use: _ToolUse) -> dict[str, Json] | None:
    """Return the call's arguments, or None if they are not JSON that can be stored."""
    try:
        value = json.loads("".join(use.input_fragments) or "{}")
        return checked_object(value, "args", limit=MAX_MESSAGE_BYTES, error=InvalidArgument)
    except (ValueError, RecursionError):
        return None
