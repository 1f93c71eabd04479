"""Reading a reply from LangChain messages: first its text, piece by piece, then its end."""

from collections.abc import Mapping
from typing import Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from chatledger.errors import ModelRefused, ModelUnavailable
from chatledger.models.protocol import Finished, Usage
from chatledger.tool_calls import parse_call
from chatledger.values import Json, new_id

_STOP_REASON_KEYS: Final = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_STOP_REASONS: Final = {
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


class LangChainReplyReader:
    """Reads one reply from the messages or chunks of a LangChain model."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._has_started = False
        self._stop_reason: str | None = None
        self._usage: Usage | None = None
        self._calls: AIMessageChunk | None = None

    def read(self, item: object) -> str:
        """Read the next message or chunk and return its text, which may be empty.

        Raises:
            ModelRefused: ``item`` is neither a string nor a message, as a chat model yields.
        """
        self._has_started = True
        if isinstance(item, str):  # from a chain that ends in a StrOutputParser
            return item
        if not isinstance(item, BaseMessage):
            raise ModelRefused(
                f"{self._model_id} returned a {type(item).__name__}, which is not a chat message; "
                "use a chat model, or a chain that ends in one."
            )
        if isinstance(item, AIMessage):
            self._stop_reason = _stop_reason(item.response_metadata) or self._stop_reason
            if usage := _usage(item.usage_metadata):
                # Each chunk reports only its own tokens; LangChain also adds them up.
                self._usage = self._usage + usage if self._usage else usage
            if calls := _tool_calls(item):
                self._calls = self._calls + calls if self._calls else calls
        return _text(item.content)

    def finished(self) -> Finished:
        """Return the end of the reply.

        Raises:
            ModelUnavailable: There was no reply, or a tool call is malformed or incomplete.
        """
        if not self._has_started:
            raise ModelUnavailable(f"{self._model_id} ended without a reply; try again.")
        chunks = self._calls.tool_call_chunks if self._calls else []
        calls = tuple(self._parse_tool_call(call) for call in chunks)
        stop_reason = self._stop_reason or "end_turn"
        if calls and stop_reason == "end_turn":
            stop_reason = "tool_use"  # some providers use one reason for both
        return Finished(stop_reason, self._usage, calls)

    def _parse_tool_call(self, call: Mapping[str, Any]) -> dict[str, Json]:
        """Parse the arguments of a tool call, and return the call in normal form.

        LangChain's own parser completes arguments that were cut off: it would accept half of a
        path, for example.
        """
        id, name, args = parse_call({**call, "args": call["args"] or "{}"})
        if not name or args is None:
            problem = "a malformed tool call"
            if self._stop_reason == "max_tokens":
                problem = "a tool call that was cut off at its token limit"
            raise ModelUnavailable(f"{self._model_id} sent {problem}; try again.")
        return {"id": id or new_id(), "name": name, "args": args, "type": "tool_call"}


def _tool_calls(message: AIMessage) -> AIMessageChunk | None:
    """Return a chunk that contains only the message's tool calls, or None if it has none.

    Chunks are added up to complete the calls, which fails for some providers' metadata.
    """
    if isinstance(message, AIMessageChunk):
        chunks = message.tool_call_chunks
        return AIMessageChunk(content="", tool_call_chunks=chunks) if chunks else None
    calls, invalid = message.tool_calls, message.invalid_tool_calls
    if not calls and not invalid:
        return None
    return AIMessageChunk(content="", tool_calls=calls, invalid_tool_calls=invalid)


def _text(content: str | list[Any]) -> str:
    """Return the text of the content, without blocks of other types, such as reasoning."""
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
    candidates = [metadata.get(key) for key in _STOP_REASON_KEYS]
    if isinstance(incomplete := metadata.get("incomplete_details"), dict):  # OpenAI's Responses API
        candidates.append(incomplete.get("reason"))
    reason = next((reason for reason in candidates if reason and isinstance(reason, str)), None)
    return None if reason is None else _STOP_REASONS.get(reason.lower(), reason)


def _usage(metadata: Mapping[str, Any] | None) -> Usage | None:
    if not metadata:
        return None
    details = metadata.get("input_token_details") or {}
    # Anthropic may report cache writes by how long they are cached; cache_creation is then 0.
    writes = [count for name, count in details.items() if name.startswith("ephemeral_") and count]
    return Usage(
        input_tokens=metadata.get("input_tokens") or 0,
        output_tokens=metadata.get("output_tokens") or 0,
        cached_tokens=details.get("cache_read") or 0,
        cache_write_tokens=details.get("cache_creation") or sum(writes),
    )
