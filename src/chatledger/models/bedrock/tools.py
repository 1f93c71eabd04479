"""Tools, calls of them and results, in Bedrock's form or as plain text."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from chatledger.errors import InvalidArgument
from chatledger.json_values import Json, dumps
from chatledger.messages import Message
from chatledger.models.bedrock.content import EMPTY, plain
from chatledger.models.bedrock.settings import Block

_VALID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SCHEMA: dict[str, Json] = {"type": "object", "properties": {}}


def definitions(tools: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The tools in Bedrock's form. Raises ``InvalidArgument``."""
    return [_definition(tool) for tool in tools]


def _definition(tool: Mapping[str, Any]) -> Block:
    if not isinstance(tool, Mapping):
        raise InvalidArgument("A tool is a dict: of name, description and input_schema.")
    if len(tool) == 1 and isinstance(own := next(iter(tool.values())), Mapping):
        _check_name(own.get("name"))
        return dict(tool)  # Bedrock's own form: toolSpec or systemTool
    _check_name(tool.get("name"))
    spec: Block = {"name": tool["name"]}
    if tool.get("description"):
        spec["description"] = tool["description"]
    spec["inputSchema"] = {"json": tool.get("input_schema") or dict(_SCHEMA)}
    return {"toolSpec": spec}


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _VALID.fullmatch(name):
        raise InvalidArgument(
            f"A tool's name is 1 to 64 letters, digits, _ and - on Bedrock; rename {name!r}."
        )


def choice(chosen: str | Mapping[str, Any] | None, tools: Sequence[Block]) -> Block | None:
    """Which tool must be called: ``auto``, ``any``, a tool's name, or Bedrock's own form."""
    if chosen is None:
        return None
    if not tools:
        raise InvalidArgument("tool_choice is for a model with tools; give tools as well.")
    match chosen:
        case "auto" | "any":
            return {chosen: {}}
        case str():
            if chosen not in names(tools):
                raise InvalidArgument(f"tool_choice is {chosen!r}, which is none of the tools.")
            return {"tool": {"name": chosen}}
    return dict(chosen)


def names(tools: Sequence[Block]) -> set[str]:
    return {kind["name"] for tool in tools for kind in tool.values() if "name" in kind}


# In a conversation -------------------------------------------------------------------------------


def use(call: Mapping[str, Json], id: str) -> Block:
    """An assistant's call."""
    return {
        "toolUse": {
            "toolUseId": id,
            "name": valid_name(str(call.get("name") or "")),
            "input": _arguments(call),
        }
    }


def result(message: Message, id: str) -> Block:
    """A tool's answer."""
    return {"toolResult": {"toolUseId": id, "content": [{"text": plain(message.content) or EMPTY}]}}


def use_as_text(call: Mapping[str, Json]) -> str:
    return (
        f"(The tool {call.get('name') or 'without a name'} was called: {dumps(_arguments(call))})"
    )


def result_as_text(message: Message, name: str | None) -> str:
    return f"(The tool {name or 'without a name'} answered: {plain(message.content) or EMPTY})"


def _arguments(call: Mapping[str, Json]) -> dict[str, Json]:
    arguments = call.get("args")
    if arguments is None:
        return {}
    # Bedrock takes an object only.
    return arguments if isinstance(arguments, dict) else {"args": arguments}


class Ids:
    """The ids that calls of one conversation go by on Bedrock: it takes none twice."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    def of_call(self, id: str) -> str:
        """The id itself, or the same one each time that this conversation is sent."""
        valid = valid_id(id)
        while valid in self._taken:
            valid = sha256(valid.encode()).hexdigest()
        self._taken.add(valid)
        self._given[id] = valid
        return valid

    def of_result(self, id: str) -> str:
        """That of the last call with this id."""
        return self._given.get(id) or valid_id(id)


def valid_id(id: str) -> str:
    return id if _VALID.fullmatch(id) else sha256(id.encode()).hexdigest()


def valid_name(name: str) -> str:
    """As ``valid_id``, and still to be read."""
    if _VALID.fullmatch(name):
        return name
    return f"{re.sub('[^a-zA-Z0-9_-]', '_', name)[:55]}_{sha256(name.encode()).hexdigest()[:8]}"
