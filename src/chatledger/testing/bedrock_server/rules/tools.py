"""Rules of tools: what may be offered, and that every use has its result."""

from collections.abc import Mapping, Sequence
from typing import Any

from chatledger.testing.bedrock_server.refusing import Refused, refused_by_model
from chatledger.testing.bedrock_server.rules.asked import Asked


def model_takes_tools(asked: Asked) -> None:
    """Only some models use tools.

    https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
    """
    if asked.tool_config and not asked.model.tools:
        mode = " in streaming mode" if asked.streams else ""
        raise Refused(f"This model doesn't support tool use{mode}.")


def tool_blocks_need_tools(asked: Asked) -> None:
    """Who shows uses and results says which tools there are, now as before.

    https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use.html (observed, in these words)
    """
    used = [*asked.blocks("toolUse"), *asked.blocks("toolResult")]
    if used and not asked.tool_config:
        raise Refused(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks."
        )


def schemas_are_of_objects(asked: Asked) -> None:
    """A tool takes a JSON object.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolInputSchema.html
    (observed, in these words)
    """
    for n, tool in enumerate(asked.tools):
        if "toolSpec" not in tool:
            continue
        place = f"toolConfig.tools.{n}.toolSpec.inputSchema.json"
        schema = _object(tool["toolSpec"]["inputSchema"]["json"], place)
        if schema.get("type") != "object":
            raise Refused(f"The value at {place}.type must be one of the following: object.")


def tool_names_are_unique(asked: Asked) -> None:
    """No two tools have one name. Observed with Anthropic's models; not documented by AWS."""
    names = _names(asked)
    if len(set(names)) < len(names):
        raise refused_by_model("tools: Tool names must be unique.")


def chosen_tool_exists(asked: Asked) -> None:
    """The tool that must be used is one of those offered.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_SpecificToolChoice.html
    (the words are Anthropic's)
    """
    choice = (asked.tool_config or {}).get("toolChoice") or {}
    if "tool" in choice and choice["tool"]["name"] not in _names(asked):
        raise refused_by_model(
            f"tool_choice.tool: Tool '{choice['tool']['name']}' not found in provided tools"
        )


def tool_blocks_are_where_they_belong(asked: Asked) -> None:
    """The assistant uses, the user gives results; these stand before what else the user says.

    https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use-inference-call.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-tool-use.html
    (the words are Anthropic's)
    """
    for place, message, _ in asked.blocks("toolUse"):
        if message["role"] != "assistant":
            raise refused_by_model(
                f"{place}: `tool_use` blocks can only be in `assistant` messages"
            )
    for place, message, _ in asked.blocks("toolResult"):
        if message["role"] != "user":
            raise refused_by_model(f"{place}: `tool_result` blocks can only be in `user` messages")
    for n, message in enumerate(asked.messages):
        results = ["toolResult" in block for block in message["content"]]
        if any(results) and results != sorted(results, reverse=True):
            raise refused_by_model(
                f"messages.{n}: `tool_result` blocks must come first in the content of a message"
            )


def tool_ids_are_unique(asked: Asked) -> None:
    """No id is used twice, in one message or in several.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html
    (observed: within one message in these words, over several in Anthropic's)
    """
    every: list[str] = []
    for n, message in enumerate(asked.messages):
        for kind in ("toolUse", "toolResult"):
            ids = _ids(message, kind)
            if twice := _twice(ids):
                raise Refused(
                    f"The {kind} blocks at messages.{n}.content contain duplicate Ids: {twice}"
                )
        every += _ids(message, "toolUse")
    if _twice(every):
        raise refused_by_model("messages: `tool_use` ids must be unique")


def uses_have_results(asked: Asked) -> None:
    """What the assistant used has its results in the very next message, and no other ones.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolResultBlock.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use-inference-call.html
    (observed, in these words)
    """
    used: list[str] = []
    nothing: Mapping[str, Any] = {"content": []}
    for n, message in enumerate([*asked.messages, nothing]):
        results = _ids(message, "toolResult")
        if len(results) > len(used):
            raise Refused(
                f"The number of toolResult blocks at messages.{n}.content exceeds the number of "
                "toolUse blocks of previous turn."
            )
        if missing := [id for id in used if id not in results]:
            raise Refused(
                f"Expected toolResult blocks at messages.{n}.content for the following Ids: "
                f"{', '.join(missing)}"
            )
        used = _ids(message, "toolUse")


def tool_json_is_an_object(asked: Asked) -> None:
    """What goes into a tool, and JSON that comes out, is an object.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolResultContentBlock.html
    (observed, in these words)
    """
    for place, _, use in asked.blocks("toolUse"):
        _object(use["input"], f"{place}.toolUse.input")
    for place, _, result in asked.blocks("toolResult"):
        for n, block in enumerate(result["content"]):
            if "json" in block:
                _object(block["json"], f"{place}.toolResult.content.{n}.json")


def errors_are_explained(asked: Asked) -> None:
    """A result that says there was an error has content.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolResultBlock.html
    (observed, in these words)
    """
    for place, _, result in asked.blocks("toolResult"):
        if result.get("status") == "error" and not result["content"]:
            raise Refused(
                f"The content field at {place}.toolResult cannot be empty when status value is "
                "error."
            )


def _object(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Refused(
            f"The format of the value at {place} is invalid. "
            "Provide a json object for the field and try again."
        )
    return value


def _names(asked: Asked) -> list[str]:
    return [tool[kind]["name"] for tool in asked.tools for kind in tool if "name" in tool[kind]]


def _ids(message: Mapping[str, Any], kind: str) -> list[str]:
    return [block[kind]["toolUseId"] for block in message["content"] if kind in block]


def _twice(ids: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(id for id in ids if ids.count(id) > 1))
