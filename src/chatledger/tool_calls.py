"""Tool calls and their results, in whichever of the known forms they were stored.

A call is LangChain's (``name``, ``args``, ``id``), Anthropic's (``tool_use``), Amazon Bedrock's
(``toolUse``) or OpenAI's (``function`` with its arguments as JSON text).
"""

import json
from typing import Any, NamedTuple, TypeAlias

from chatledger.errors import InvalidArgument
from chatledger.json_values import Json, checked_json

Block: TypeAlias = str | dict[str, Json]
"""One block of a message's content."""


class Call(NamedTuple):
    """What a tool call says: each part is None where the call does not say it."""

    id: str | None
    name: str | None
    args: dict[str, Json] | None


class Result(NamedTuple):
    """What came of a tool call, from a block of a message's content."""

    call_id: str
    content: str | list[Block]
    failed: bool


def normal(call: Json) -> dict[str, Json] | None:
    """The call as a dict of ``id``, ``name``, ``args`` (an object) and ``type`` (``tool_call``).

    None where it lacks one of them, or is in no form that is known here.
    """
    id, name, args = parts(call)
    if not id or not name or args is None:
        return None
    return {"id": id, "name": name, "args": args, "type": "tool_call"}


def parts(call: Json) -> Call:
    """Id, name and arguments of a tool call, as far as it says them."""
    said: dict[str, Any] = {}
    match call:
        case {"toolUse": dict(inner)} if "name" in inner:
            said = inner
        case {"function": dict(inner), **outer} if "name" in inner:
            said = inner | {"id": outer.get("id")}
        case dict():
            said = call
    id = said.get("id", said.get("toolUseId"))
    name = said.get("name")
    return Call(
        id if isinstance(id, str) else None,
        name if isinstance(name, str) else None,
        _object(said.get("args", said.get("input", said.get("arguments")))),
    )


def is_call(block: Block) -> bool:
    """Whether a block of an assistant's content is a tool call, well formed or not."""
    if isinstance(block, str):
        return False
    return block.get("type") in ("tool_use", "tool_call") or "toolUse" in block


def is_result(block: Block) -> bool:
    """Whether a block of a user's content is the result of a tool call, well formed or not."""
    if isinstance(block, str):
        return False
    return block.get("type") == "tool_result" or "toolResult" in block


def result(block: Block) -> Result | None:
    """What the block says of a tool call's result; None where it says not of which call."""
    match block:
        case {"toolResult": {"toolUseId": str(id), **said}} if id:
            return Result(id, _content(said.get("content")), said.get("status") == "error")
        case {"type": "tool_result", "tool_use_id": str(id), **said} if id:
            return Result(id, _content(said.get("content")), said.get("is_error") is True)
    return None


def _object(value: object) -> dict[str, Json] | None:
    """The arguments, which OpenAI gives as JSON text; None unless they are an object."""
    if value == "":
        return {}  # some servers' way to call a tool that takes nothing
    if isinstance(value, str):
        try:
            # What a model wrote may be NaN or half a character, which no message can hold.
            value = checked_json(json.loads(value), "arguments", error=InvalidArgument)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _content(value: object) -> str | list[Block]:
    match value:
        case str():
            return value
        case list():
            return [block for block in value if isinstance(block, str | dict)]
    return ""
