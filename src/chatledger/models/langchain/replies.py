"""A reply that comes in LangChain's messages: its text as it comes, and how it ended."""

from collections.abc import Mapping
from typing import Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from chatledger.errors import ModelRefused, ModelUnavailable
from chatledger.json_values import Json
from chatledger.messages import new_id
from chatledger.models.protocol import Finished, Usage
from chatledger.tool_calls import parts

_REASON_NAMES: Final = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_REASONS: Final = {
    "stop": "end_turn",
    "complete": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "model_length": "max_tokens",
    "tool_calls": "tool_use",
    "tool_call": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filtered",
    "safety": "content_filtered",
}


class Reply:
    """What has come of one reply so far."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._anything = False
        self._stop_reason: str | None = None
        self._usage: Usage | None = None
        self._calls: AIMessageChunk | None = None

    def add(self, item: object) -> str:
        """Take in the next message or chunk; its text, which may be empty."""
        self._anything = True
        if isinstance(item, str):  # of a chain that ends in a StrOutputParser
            return item
        if not isinstance(item, BaseMessage):
            raise ModelRefused(
                f"{self._model_id} replies with a {type(item).__name__}; "
                "pass a chat model, or a chain that ends in one."
            )
        if isinstance(item, AIMessage):
            self._stop_reason = _stop_reason(item.response_metadata) or self._stop_reason
            if usage := _usage(item.usage_metadata):
                # Each chunk holds its own share, as LangChain's sum of chunks has it too.
                self._usage = self._usage + usage if self._usage else usage
            if calls := _tool_calls(item):
                self._calls = self._calls + calls if self._calls else calls
        return _text(item.content)

    def finished(self) -> Finished:
        """How it ended. Raises ``ModelUnavailable`` for half a tool call, or no reply."""
        if not self._anything:
            raise ModelUnavailable(f"{self._model_id} ended without a reply; try again.")
        chunks = self._calls.tool_call_chunks if self._calls else []
        calls = tuple(self._checked(call) for call in chunks)
        stop_reason = self._stop_reason or "end_turn"
        if calls and stop_reason == "end_turn":
            stop_reason = "tool_use"  # some providers have one word for both
        return Finished(stop_reason, self._usage, calls)

    def _checked(self, call: Mapping[str, Any]) -> dict[str, Json]:
        """A tool call in normal form.

        From its text, as LangChain completes arguments that were cut off: half a path would be one.
        """
        id, name, args = parts({**call, "args": call["args"] or "{}"})
        if not name or args is None:
            cut_off = self._stop_reason == "max_tokens"
            why = ", cut off where its reply had taken all the tokens it may" if cut_off else ""
            raise ModelUnavailable(f"{self._model_id} sent a malformed tool call{why}; try again.")
        return {"id": id or new_id(), "name": name, "args": args, "type": "tool_call"}


def _tool_calls(message: AIMessage) -> AIMessageChunk | None:
    """Nothing but these: the sum of all else is not needed, and fails for some metadata."""
    if isinstance(message, AIMessageChunk):
        chunks = message.tool_call_chunks
        return AIMessageChunk(content="", tool_call_chunks=chunks) if chunks else None
    calls, invalid = message.tool_calls, message.invalid_tool_calls
    if not calls and not invalid:
        return None
    return AIMessageChunk(content="", tool_calls=calls, invalid_tool_calls=invalid)


def _text(content: str | list[Any]) -> str:
    """The text of the content; thinking and the like are no text of the reply's."""
    if isinstance(content, str):
        return content
    return "".join(block if isinstance(block, str) else _block_text(block) for block in content)


def _block_text(block: Any) -> str:
    match block:
        case {"type": str(kind)} if kind != "text":
            return ""
        case {"text": str(text)}:
            return text
    return ""


def _stop_reason(metadata: Mapping[str, Any]) -> str | None:
    given = [metadata.get(name) for name in _REASON_NAMES]
    if isinstance(incomplete := metadata.get("incomplete_details"), dict):  # OpenAI's responses
        given.append(incomplete.get("reason"))
    reason = next((reason for reason in given if reason and isinstance(reason, str)), None)
    return None if reason is None else _REASONS.get(reason.lower(), reason)


def _usage(given: Mapping[str, Any] | None) -> Usage | None:
    if not given:
        return None
    details = given.get("input_token_details") or {}
    # Anthropic's writes are counted by how long they are kept, if at all; the whole is then 0.
    kept = [count for name, count in details.items() if name.startswith("ephemeral_") and count]
    return Usage(
        input_tokens=given.get("input_tokens") or 0,
        output_tokens=given.get("output_tokens") or 0,
        cached_tokens=details.get("cache_read") or 0,
        cache_write_tokens=details.get("cache_creation") or sum(kept),
    )
