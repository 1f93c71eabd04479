"""Messages that did not come through LangChain, as LangChain's."""

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

from chatledger.json_values import Json
from chatledger.messages import Message
from chatledger.tool_calls import parts

_UNKNOWN = "This is no tool call in a form that is known here."


def from_plain(message: Message) -> BaseMessage:
    """The LangChain message of the same role, content, id and name.

    A reply's tool calls may be in LangChain's form, Anthropic's, Bedrock's or OpenAI's; those that
    are in none of them are ``invalid_tool_calls``. The usage, model and stop reason of a reply of
    ``chatledger.chat`` are where LangChain's own models put them.
    """
    name = message.extra.get("name")
    fields: dict[str, Any] = {
        "content": copied(message.content),
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
                response_metadata=_response(message.extra),
            )
    return ChatMessage(**fields, role=message.role)  # a role of a later version's


def _tool_calls(stored: Any) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in stored if isinstance(stored, list) else []:
        id, name, args = parts(call)
        if name is not None and args is not None:
            calls.append(tool_call(name=name, args=copied(args), id=id))
        else:
            text = json.dumps(call, ensure_ascii=False)
            invalid.append(invalid_tool_call(name=name, args=text, id=id, error=_UNKNOWN))
    return calls, invalid


def _usage(stored: Json) -> dict[str, int] | None:
    match stored:
        case {"input_tokens": int(read), "output_tokens": int(written)}:
            return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return None


def _response(extra: dict[str, Json]) -> dict[str, Json]:
    names = {"model": "model_name", "stop_reason": "stop_reason"}
    return {there: copied(extra[here]) for here, there in names.items() if here in extra}


def copied(value: Any) -> Any:
    """A copy of a JSON value; ``copy.deepcopy`` takes several times as long."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value
