"""Tool calls and their results, read from any of the known forms in which they are stored.

A call is stored in LangChain's form (``name``, ``args``, ``id``), Anthropic's (``tool_use``),
Amazon Bedrock's (``toolUse``) or OpenAI's (``function``, with its arguments as JSON text).
"""

import json
from typing import Any, NamedTuple, TypeAlias

from chatledger.errors import InvalidArgument
from chatledger.values import Json, checked_json

ContentBlock: TypeAlias = str | dict[str, Json]
"""One block of a message's content."""


class ParsedCall(NamedTuple):
    """The parts of a tool call; a part that is missing or malformed is None."""

    id: str | None
    name: str | None
    args: dict[str, Json] | None


class ParsedResult(NamedTuple):
    """The result of a tool call."""

    call_id: str
    content: str | list[ContentBlock]
    is_error: bool


def normalize_call(call: Json) -> dict[str, Json] | None:
    """Return the call as a dict of ``id``, ``name``, ``args`` and ``type`` (``tool_call``).

    Return None if the id, the name or an object of arguments is missing, or if the form is unknown.
    """
    id, name, args = parse_call(call)
    if not id or not name or args is None:
        return None
    return {"id": id, "name": name, "args": args, "type": "tool_call"}


def parse_call(call: Json) -> ParsedCall:
    """Return the parts of a tool call, as far as it has them."""
    fields: dict[str, Any] = {}
    match call:
        case {"toolUse": dict(inner)} if "name" in inner:
            fields = inner
        case {"function": dict(inner), **outer} if "name" in inner:
            fields = inner | {"id": outer.get("id")}
        case dict():
            fields = call
    id = fields.get("id", fields.get("toolUseId"))
    name = fields.get("name")
    return ParsedCall(
        id if isinstance(id, str) else None,
        name if isinstance(name, str) else None,
        _arguments(fields.get("args", fields.get("input", fields.get("arguments")))),
    )


def is_call(block: ContentBlock) -> bool:
    """Return whether a block of an assistant's content is a tool call, well-formed or not."""
    if isinstance(block, str):
        return False
    return block.get("type") in ("tool_use", "tool_call") or "toolUse" in block


def is_result(block: ContentBlock) -> bool:
    """Return whether a block of a user's content is a tool call's result, well-formed or not."""
    if isinstance(block, str):
        return False
    return block.get("type") == "tool_result" or "toolResult" in block


def parse_result(block: ContentBlock) -> ParsedResult | None:
    """Return the tool call's result in the block, or None if the block does not name the call."""
    match block:
        case {"toolResult": {"toolUseId": str(id), **fields}} if id:
            is_error = fields.get("status") == "error"
            return ParsedResult(id, _result_content(fields.get("content")), is_error)
        case {"type": "tool_result", "tool_use_id": str(id), **fields} if id:
            is_error = fields.get("is_error") is True
            return ParsedResult(id, _result_content(fields.get("content")), is_error)
    return None


def _arguments(value: object) -> dict[str, Json] | None:
    """Return the arguments, which OpenAI gives as JSON text, or None unless they are an object."""
    if value == "":
        return {}  # some servers write this for a call of a tool without parameters
    if isinstance(value, str):
        try:
            # A model may write NaN or a lone surrogate, which no message can hold.
            value = checked_json(json.loads(value), "arguments", error=InvalidArgument)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _result_content(value: object) -> str | list[ContentBlock]:
    match value:
        case str():
            return value
        case list():
            return [block for block in value if isinstance(block, str | dict)]
    return ""
