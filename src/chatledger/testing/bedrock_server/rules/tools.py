"""Rules for tools: their definitions, and a result for every use."""

from collections.abc import Mapping, Sequence
from typing import Any

from chatledger.testing.bedrock_server.errors import BedrockError, model_error
from chatledger.testing.bedrock_server.rules.converse_request import ConverseRequest


def tools_are_supported(request: ConverseRequest) -> None:
    """Tools are given only to a model that supports them.

    https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
    """
    if request.tool_config and not request.model.supports_tools:
        mode = " in streaming mode" if request.is_streaming else ""
        raise BedrockError(f"This model doesn't support tool use{mode}.")


def tool_blocks_have_a_config(request: ConverseRequest) -> None:
    """A request with tool uses or results, even old ones, has a ``toolConfig``.

    https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use.html (observed, in these words)
    """
    tool_blocks = [*request.blocks("toolUse"), *request.blocks("toolResult")]
    if tool_blocks and not request.tool_config:
        raise BedrockError(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks."
        )


def tool_schemas_are_of_objects(request: ConverseRequest) -> None:
    """The input schema of a tool is that of a JSON object.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolInputSchema.html
    (observed, in these words)
    """
    for n, tool in enumerate(request.tools):
        if "toolSpec" not in tool:
            continue
        path = f"toolConfig.tools.{n}.toolSpec.inputSchema.json"
        schema = _require_object(tool["toolSpec"]["inputSchema"]["json"], path)
        if schema.get("type") != "object":
            raise BedrockError(f"The value at {path}.type must be one of the following: object.")


def tool_names_are_unique(request: ConverseRequest) -> None:
    """No two tools share a name. Observed with Anthropic's models; not documented by AWS."""
    names = _tool_names(request)
    if len(set(names)) < len(names):
        raise model_error("tools: Tool names must be unique.")


def chosen_tool_exists(request: ConverseRequest) -> None:
    """The tool that ``toolChoice`` demands is among the tools.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_SpecificToolChoice.html
    (the wording is Anthropic's)
    """
    choice = (request.tool_config or {}).get("toolChoice") or {}
    if "tool" in choice and choice["tool"]["name"] not in _tool_names(request):
        raise model_error(
            f"tool_choice.tool: Tool '{choice['tool']['name']}' not found in provided tools"
        )


def tool_blocks_are_in_place(request: ConverseRequest) -> None:
    """Only the assistant uses tools, and only the user gives results, before any other content.

    https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use-inference-call.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-tool-use.html
    (the wording is Anthropic's)
    """
    for path, message, _ in request.blocks("toolUse"):
        if message["role"] != "assistant":
            raise model_error(f"{path}: `tool_use` blocks can only be in `assistant` messages")
    for path, message, _ in request.blocks("toolResult"):
        if message["role"] != "user":
            raise model_error(f"{path}: `tool_result` blocks can only be in `user` messages")
    for n, message in enumerate(request.messages):
        results = ["toolResult" in block for block in message["content"]]
        if any(results) and results != sorted(results, reverse=True):
            raise model_error(
                f"messages.{n}: `tool_result` blocks must come first in the content of a message"
            )


def tool_ids_are_unique(request: ConverseRequest) -> None:
    """No tool use id occurs twice, in one message or in several.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html
    (observed: within one message in these words, across messages in Anthropic's)
    """
    use_ids: list[str] = []
    for n, message in enumerate(request.messages):
        for kind in ("toolUse", "toolResult"):
            ids = _tool_use_ids(message, kind)
            if duplicates := _duplicates(ids):
                raise BedrockError(
                    f"The {kind} blocks at messages.{n}.content contain duplicate Ids: {duplicates}"
                )
        use_ids += _tool_use_ids(message, "toolUse")
    if _duplicates(use_ids):
        raise model_error("messages: `tool_use` ids must be unique")


def tool_uses_have_results(request: ConverseRequest) -> None:
    """The message after tool uses has one result for each of them and no others.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolResultBlock.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use-inference-call.html
    (observed, in these words)
    """
    expected: list[str] = []
    end: Mapping[str, Any] = {"content": []}
    for n, message in enumerate([*request.messages, end]):
        results = _tool_use_ids(message, "toolResult")
        if len(results) > len(expected):
            raise BedrockError(
                f"The number of toolResult blocks at messages.{n}.content exceeds the number of "
                "toolUse blocks of previous turn."
            )
        if missing := [id for id in expected if id not in results]:
            raise BedrockError(
                f"Expected toolResult blocks at messages.{n}.content for the following Ids: "
                f"{', '.join(missing)}"
            )
        expected = _tool_use_ids(message, "toolUse")


def tool_json_is_an_object(request: ConverseRequest) -> None:
    """The input of a tool is a JSON object, and so is JSON in its result.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolResultContentBlock.html
    (observed, in these words)
    """
    for path, _, use in request.blocks("toolUse"):
        _require_object(use["input"], f"{path}.toolUse.input")
    for path, _, result in request.blocks("toolResult"):
        for n, block in enumerate(result["content"]):
            if "json" in block:
                _require_object(block["json"], f"{path}.toolResult.content.{n}.json")


def error_results_have_content(request: ConverseRequest) -> None:
    """A tool result with the status ``error`` has content.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolResultBlock.html
    (observed, in these words)
    """
    for path, _, result in request.blocks("toolResult"):
        if result.get("status") == "error" and not result["content"]:
            raise BedrockError(
                f"The content field at {path}.toolResult cannot be empty when status value is "
                "error."
            )


def _require_object(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BedrockError(
            f"The format of the value at {path} is invalid. "
            "Provide a json object for the field and try again."
        )
    return value


def _tool_names(request: ConverseRequest) -> list[str]:
    return [tool[kind]["name"] for tool in request.tools for kind in tool if "name" in tool[kind]]


def _tool_use_ids(message: Mapping[str, Any], kind: str) -> list[str]:
    return [block[kind]["toolUseId"] for block in message["content"] if kind in block]


def _duplicates(ids: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(id for id in ids if ids.count(id) > 1))
