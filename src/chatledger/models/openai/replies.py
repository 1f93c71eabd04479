"""Reading the text and the end of a reply from its chunks, without I/O.

https://developers.openai.com/api/reference/resources/chat/subresources/completions/streaming-events
"""

import time
from dataclasses import dataclass
from typing import Any, Final

from chatledger.errors import ModelUnavailable
from chatledger.models.protocol import Finished, Usage
from chatledger.tool_calls import parse_call
from chatledger.values import Json, new_id, without_lone_surrogates

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filtered",
}


@dataclass(slots=True)
class _ToolCall:
    id: str | None = None
    name: str = ""
    arguments: str = ""


class OpenAIReplyReader:
    """Reads one reply, chunk by chunk; its latency counts from here.

    Other servers leave out much of what OpenAI always sends, so that every part of a chunk may be
    missing.
    """

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._started = time.monotonic()
        self._calls: list[_ToolCall] = []
        self._call_at_index: dict[int, _ToolCall] = {}
        self._tool_calls: list[dict[str, Json]] = []
        self._stop_reason: str | None = None
        self._usage: Usage | None = None

    @property
    def is_complete(self) -> bool:
        """True if everything that the user sees has arrived; the usage arrives later."""
        return self._stop_reason is not None

    def read(self, chunk: Any) -> str:
        """Read the next chunk and return the text that it adds, which is often empty.

        Raises:
            ModelUnavailable: The chunk is malformed, or it completes a malformed tool call.
        """
        try:
            self._read_usage(getattr(chunk, "usage", None))
            return "".join([self._read_choice(choice) for choice in chunk.choices or []])
        except (AttributeError, TypeError) as error:
            raise ModelUnavailable(
                f"{self._model_id} sent a malformed reply; try again."
            ) from error

    def finished(self) -> Finished:
        """Return the end of the reply.

        Raises:
            ModelUnavailable: The reply was cut off.
        """
        if self._stop_reason is None:
            raise ModelUnavailable(f"{self._model_id} broke off its reply; try again.")
        stop_reason = self._stop_reason
        if self._tool_calls and stop_reason == "end_turn":
            stop_reason = "tool_use"  # some servers use one reason for both
        latency_ms = round((time.monotonic() - self._started) * 1000)
        return Finished(stop_reason, self._usage, self._tool_calls, latency_ms)

    def _read_choice(self, choice: Any) -> str:
        text = ""
        if delta := choice.delta:
            text = delta.content or getattr(delta, "refusal", None) or ""
            for fragment in getattr(delta, "tool_calls", None) or []:
                self._read_call(fragment)
        if reason := getattr(choice, "finish_reason", None):
            reason = _STOP_REASONS.get(reason, reason)
            self._tool_calls = self._parse_calls(reason)
            self._stop_reason = reason
        return without_lone_surrogates(text)

    def _read_call(self, fragment: Any) -> None:
        call = self._call_at_index.get(fragment.index)
        # Some servers give all calls the same index.
        if call is None or (fragment.id and call.id and fragment.id != call.id):
            call = self._call_at_index[fragment.index] = _ToolCall()
            self._calls.append(call)
        call.id = call.id or fragment.id
        if function := fragment.function:
            call.name = call.name or function.name or ""
            call.arguments += function.arguments or ""

    def _parse_calls(self, stop_reason: str) -> list[dict[str, Json]]:
        calls = [parse_call(_as_json(call)) for call in self._calls]
        if calls and stop_reason == "max_tokens":
            is_whole = calls[-1].args is not None and self._calls[-1].arguments
            if not is_whole:
                calls.pop()  # the limit was reached in the middle of this call
        tool_calls: list[dict[str, Json]] = []
        for id, name, args in calls:
            if not name or args is None:
                raise ModelUnavailable(
                    f"{self._model_id} sent a malformed tool call; try again, which usually helps."
                )
            tool_calls.append(
                {"id": id or new_id(), "name": name, "args": args, "type": "tool_call"}
            )
        return tool_calls

    def _read_usage(self, usage: Any) -> None:
        if usage is None:
            return
        details = getattr(usage, "prompt_tokens_details", None)
        self._usage = Usage(
            usage.prompt_tokens or 0,
            usage.completion_tokens or 0,
            getattr(details, "cached_tokens", None) or 0,
            getattr(details, "cache_write_tokens", None) or 0,
        )


def _as_json(call: _ToolCall) -> dict[str, Json]:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
