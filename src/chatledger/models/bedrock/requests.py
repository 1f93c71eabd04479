"""Converting settings, tools and messages to the body of a request, without I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.models.bedrock.content import (
    ConverseObject,
    ToolUseIds,
    content_blocks,
    text_blocks,
    tool_result_block,
    tool_result_text,
    tool_use_block,
    tool_use_text,
)
from chatledger.models.content import EMPTY_TEXT, check_tool_choice, check_tool_name
from chatledger.values import Json


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A Bedrock guardrail that checks the model's input and output.

    ``id`` is the guardrail's id or ARN. In mode ``sync``, text is delivered after it was checked.
    In mode ``async``, it is delivered at once, and may be shown before the guardrail objects.
    """

    id: str
    version: str = "DRAFT"
    mode: Literal["sync", "async"] = "sync"


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """Everything in a request except its messages.

    Values that are None or empty are not sent, because newer models accept fewer of these settings.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: Sequence[str] = ()
    additional_fields: Mapping[str, Json] | None = None
    guardrail: Guardrail | None = None
    cache: bool = False
    tools: Sequence[ConverseObject] = ()
    tool_choice: ConverseObject | None = None
    streaming: bool = True


def request_body(
    messages: Sequence[Message], system_prompt: str | None, settings: RequestSettings
) -> ConverseObject:
    """Return the request's body without the model's id; images are ``bytes``, as in boto3.

    Bedrock refuses tool calls in a request that defines no tools. In such a request they are
    described in words, so that a conversation that began with tools can continue without them.
    """
    converse_messages = _converse_messages(messages, with_tools=bool(settings.tools))
    system = text_blocks(system_prompt or "")
    for message in messages:
        if message.role == "system":
            system += text_blocks(message.content)
    tools = list(settings.tools)
    if settings.cache:
        _add_cache_points(tools, system, converse_messages)
    body: ConverseObject = {"messages": converse_messages}
    if system:
        body["system"] = system
    inference_config = {
        "maxTokens": settings.max_tokens,
        "temperature": settings.temperature,
        "topP": settings.top_p,
        "stopSequences": list(settings.stop_sequences) or None,
    }
    given = {name: value for name, value in inference_config.items() if value is not None}
    if given:
        body["inferenceConfig"] = given
    if tools:
        body["toolConfig"] = {"tools": tools}
        if settings.tool_choice:
            body["toolConfig"]["toolChoice"] = settings.tool_choice
    if settings.additional_fields:
        body["additionalModelRequestFields"] = dict(settings.additional_fields)
    if guardrail := settings.guardrail:
        config = {"guardrailIdentifier": guardrail.id, "guardrailVersion": guardrail.version}
        if settings.streaming:
            config["streamProcessingMode"] = guardrail.mode
        body["guardrailConfig"] = config
    return body


def encode_body(body: ConverseObject) -> bytes:
    """Return the body as JSON, with ``bytes`` in base64."""
    return json.dumps(
        body,
        default=lambda data: b64encode(data).decode(),
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def _converse_messages(messages: Sequence[Message], *, with_tools: bool) -> list[ConverseObject]:
    """Return messages of alternating roles; tool results become part of a user's message."""
    converse_messages: list[ConverseObject] = []
    ids = ToolUseIds()
    called_names: dict[str | None, str] = {}
    content: list[ConverseObject] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if not converse_messages or converse_messages[-1]["role"] != role:
            content = []
            converse_messages.append({"role": role, "content": content})
        if message.role == "assistant":
            called_names |= {
                str(call.get("id")): str(call.get("name")) for call in message.tool_calls
            }
            content += _assistant_blocks(message, ids if with_tools else None)
        elif message.role == "user":
            content += content_blocks(message.content) or [{"text": EMPTY_TEXT}]
        elif with_tools:
            id = ids.id_for_result(message.tool_call_id or "")
            content.append(tool_result_block(message, id))
        else:
            name = called_names.get(message.tool_call_id)
            content.append({"text": tool_result_text(message, name)})
    return converse_messages


def _assistant_blocks(message: Message, ids: ToolUseIds | None) -> list[ConverseObject]:
    """Return the text and tool calls of an assistant's message as blocks.

    Without ``ids``, the calls are described in text.
    """
    blocks = text_blocks(message.content)
    for call in message.tool_calls:
        if ids is None:
            blocks.append({"text": tool_use_text(call)})
        else:
            blocks.append(tool_use_block(call, ids.assign(str(call.get("id") or ""))))
    return blocks or [{"text": EMPTY_TEXT}]


# Prompt caching ----------------------------------------------------------------------------------


def _add_cache_points(
    tools: list[ConverseObject],
    system: list[ConverseObject],
    converse_messages: list[ConverseObject],
) -> None:
    """Add cache points after the parts that the next request begins with too.

    Bedrock allows four points; this adds up to three:

    - After the system prompt, or after the tools if there is no system prompt. The tools come
      first in the prompt, so one point covers both. Nova accepts no point after tools.
    - After the last user message: the conversation's next request finds everything up to here in
      the cache.
    - After the user message before it, where the previous request added its point: only Claude
      looks for earlier points by itself.
    """
    if prefix := system or tools:
        prefix.append(_cache_point())
    for message in [each for each in converse_messages if each["role"] == "user"][-2:]:
        message["content"].append(_cache_point())


def _cache_point() -> ConverseObject:
    return {"cachePoint": {"type": "default"}}


# Definitions of tools -----------------------------------------------------------------------------


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
        check_tool_name(inner.get("name"), "On Bedrock")
        return dict(tool)  # already in Bedrock's format: toolSpec or systemTool
    check_tool_name(tool.get("name"), "On Bedrock")
    spec: ConverseObject = {"name": tool["name"]}
    if tool.get("description"):
        spec["description"] = tool["description"]
    spec["inputSchema"] = {"json": tool.get("input_schema") or {"type": "object", "properties": {}}}
    return {"toolSpec": spec}


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
    check_tool_choice(choice, [inner.get("name") for tool in tools for inner in tool.values()])
    match choice:
        case "auto" | "any":
            return {choice: {}}
        case str():
            return {"tool": {"name": choice}}
    return dict(choice)
