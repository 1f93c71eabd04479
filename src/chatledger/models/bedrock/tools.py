"""Tools, tool calls and their results, in Bedrock's format or as plain text."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from chatledger.errors import InvalidArgument
from chatledger.json_values import Json, dumps
from chatledger.messages import Message
from chatledger.models.bedrock.content import EMPTY_TEXT, plain_text
from chatledger.models.bedrock.settings import ConverseObject

_VALID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EMPTY_SCHEMA: dict[str, Json] = {"type": "object", "properties": {}}


def bedrock_tools(tools: Sequence[Mapping[str, Any]]) -> list[ConverseObject]:
    """Return the tools in Bedrock's format.

    Raises:
        InvalidArgument: A tool is not a dict, or Bedrock does not accept its name.
    """
    return [_bedrock_tool(tool) for tool in tools]


def _bedrock_tool(tool: Mapping[str, Any]) -> ConverseObject:
    if not isinstance(tool, Mapping):
        raise InvalidArgument("A tool must be a dict with name, description and input_schema.")
    if len(tool) == 1 and isinstance(inner := next(iter(tool.values())), Mapping):
        _check_name(inner.get("name"))
        return dict(tool)  # already in Bedrock's format: toolSpec or systemTool
    _check_name(tool.get("name"))
    spec: ConverseObject = {"name": tool["name"]}
    if tool.get("description"):
        spec["description"] = tool["description"]
    spec["inputSchema"] = {"json": tool.get("input_schema") or dict(_EMPTY_SCHEMA)}
    return {"toolSpec": spec}


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _VALID.fullmatch(name):
        raise InvalidArgument(
            "On Bedrock, a tool's name must be 1 to 64 letters, digits, underscores and hyphens; "
            f"rename {name!r}."
        )


def bedrock_tool_choice(
    choice: str | Mapping[str, Any] | None, tools: Sequence[ConverseObject]
) -> ConverseObject | None:
    """Return ``choice`` in Bedrock's format.

    Args:
        choice: ``auto``, ``any``, the name of the tool to call, or an object in Bedrock's format.
        tools: The model's tools, in Bedrock's format.

    Raises:
        InvalidArgument: There are no tools, or none has that name.
    """
    if choice is None:
        return None
    if not tools:
        raise InvalidArgument("tool_choice needs tools to choose from; pass tools too.")
    match choice:
        case "auto" | "any":
            return {choice: {}}
        case str():
            if choice not in tool_names(tools):
                raise InvalidArgument(
                    f"tool_choice is {choice!r}, but there is no tool of that name; "
                    "pass auto, any or the name of a tool."
                )
            return {"tool": {"name": choice}}
    return dict(choice)


def tool_names(tools: Sequence[ConverseObject]) -> set[str]:
    """Return the names of tools in Bedrock's format."""
    return {inner["name"] for tool in tools for inner in tool.values() if "name" in inner}


# Calls and results in a conversation -------------------------------------------------------------


def tool_use_block(call: Mapping[str, Json], id: str) -> ConverseObject:
    """Return the block for one of the assistant's tool calls."""
    return {
        "toolUse": {
            "toolUseId": id,
            "name": valid_name(str(call.get("name") or "")),
            "input": _arguments(call),
        }
    }


def tool_result_block(message: Message, id: str) -> ConverseObject:
    """Return the block for a tool's message."""
    text = plain_text(message.content) or EMPTY_TEXT
    return {"toolResult": {"toolUseId": id, "content": [{"text": text}]}}


def tool_use_text(call: Mapping[str, Json]) -> str:
    """Return a description of a tool call in words, for a model without tools."""
    return (
        f"(The tool {call.get('name') or 'without a name'} was called: {dumps(_arguments(call))})"
    )


def tool_result_text(message: Message, name: str | None) -> str:
    """Return a description of a tool's result in words, for a model without tools."""
    text = plain_text(message.content) or EMPTY_TEXT
    return f"(The tool {name or 'without a name'} answered: {text})"


def _arguments(call: Mapping[str, Json]) -> dict[str, Json]:
    arguments = call.get("args")
    if arguments is None:
        return {}
    # Bedrock accepts only an object.
    return arguments if isinstance(arguments, dict) else {"args": arguments}


class ToolUseIds:
    """The ids of a conversation's tool calls for Bedrock, which accepts each id only once."""

    def __init__(self) -> None:
        self._by_call_id: dict[str, str] = {}
        self._used: set[str] = set()

    def assign(self, call_id: str) -> str:
        """Assign a valid and unused id to the next call, if possible ``call_id``, and return it.

        A conversation gets the same ids each time it is sent.
        """
        valid = valid_id(call_id)
        while valid in self._used:
            valid = sha256(valid.encode()).hexdigest()
        self._used.add(valid)
        self._by_call_id[call_id] = valid
        return valid

    def id_for_result(self, call_id: str) -> str:
        """Return the id that was assigned to the last call with this ``call_id``."""
        return self._by_call_id.get(call_id) or valid_id(call_id)


def valid_id(id: str) -> str:
    """Return ``id`` if Bedrock accepts it, else a hash of it."""
    return id if _VALID.fullmatch(id) else sha256(id.encode()).hexdigest()


def valid_name(name: str) -> str:
    """Return ``name`` if Bedrock accepts it, else a readable name that ends with a hash."""
    if _VALID.fullmatch(name):
        return name
    return f"{re.sub('[^a-zA-Z0-9_-]', '_', name)[:55]}_{sha256(name.encode()).hexdigest()[:8]}"
