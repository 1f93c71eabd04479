"""Conversion to LangChain of messages that did not come from LangChain."""

import json
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call

from chatledger.messages import Message
from chatledger.tool_calls import parse_call
from chatledger.values import Json

_UNKNOWN = "This tool call is not in a known format."


def from_plain(message: Message) -> BaseMessage:
    """Return the LangChain message with the same role, content, id and name.

    Tool calls in the formats of LangChain, Anthropic, Bedrock or OpenAI are converted; others
    become ``invalid_tool_calls``. The usage, model and stop reason of a reply that
    ``chatledger.chat`` saved are put where LangChain's own models put them.
    """
    name = message.extra.get("name")
    fields: dict[str, Any] = {
        "content": json_copy(message.content),
        "id": message.id,
        "name": name if isinstance(name, str) else None,
    }
    match message.role:
        case "system":
            return SystemMessage(**fields)
        case "user":
            return HumanMessage(**fields)
        case "tool":
            id = message.extra.get("tool_call_id")
            failed = message.extra.get("status") == "error"
            return ToolMessage(
                **fields,
                tool_call_id=id if isinstance(id, str) else "",
                status="error" if failed else "success",
            )
        case "assistant":
            calls, invalid = _tool_calls(message.extra.get("tool_calls"))
            return AIMessage(
                **fields,
                tool_calls=calls,
                invalid_tool_calls=invalid,
                usage_metadata=_usage(message.extra.get("usage")),
                response_metadata=_response_metadata(message.extra),
            )
    return ChatMessage(**fields, role=message.role)  # a role that a later version added


def _tool_calls(stored: Any) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in stored if isinstance(stored, list) else []:
        id, name, args = parse_call(call)
        if name is not None and args is not None:
            calls.append(tool_call(name=name, args=json_copy(args), id=id))
        else:
            text = json.dumps(call, ensure_ascii=False)
            invalid.append(invalid_tool_call(name=name, args=text, id=id, error=_UNKNOWN))
    return calls, invalid


def _usage(stored: Json) -> dict[str, int] | None:
    match stored:
        case {"input_tokens": int(input_tokens), "output_tokens": int(output_tokens)}:
            return {
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
                "total_tokens": input_tokens + output_tokens,
            }
    return None


def _response_metadata(extra: dict[str, Json]) -> dict[str, Json]:
    names = {"model": "model_name", "stop_reason": "stop_reason"}
    return {theirs: json_copy(extra[ours]) for ours, theirs in names.items() if ours in extra}


def json_copy(value: Any) -> Any:
    """Return a copy of a JSON value, several times as fast as ``copy.deepcopy``."""
    if isinstance(value, dict):
        return {name: json_copy(item) for name, item in value.items()}
    if isinstance(value, list):
        return [json_copy(item) for item in value]
    return value
