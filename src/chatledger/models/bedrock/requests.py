"""Converting messages to the body of a Converse or ConverseStream request, without I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import json
from base64 import b64encode
from collections.abc import Sequence

from chatledger.messages import Message
from chatledger.models.bedrock.content import EMPTY_TEXT, content_blocks, text_blocks
from chatledger.models.bedrock.settings import ConverseObject, RequestSettings
from chatledger.models.bedrock.tools import (
    ToolUseIds,
    tool_result_block,
    tool_result_text,
    tool_use_block,
    tool_use_text,
)


def request_body(
    messages: Sequence[Message], system_prompt: str | None, settings: RequestSettings
) -> ConverseObject:
    """Return the request's body without the model's id; images are ``bytes``, as in boto3.

    Bedrock refuses tool calls in a request that defines no tools. In such a request they are
    described in words, so that a conversation that began with tools can continue without them.
    """
    converse_messages = _converse_messages(messages, with_tools=bool(settings.tools))
    system = _system(messages, system_prompt)
    tools = list(settings.tools)
    if settings.cache:
        _add_cache_points(tools, system, converse_messages)
    body: ConverseObject = {"messages": converse_messages}
    if system:
        body["system"] = system
    if inference_config := _inference_config(settings):
        body["inferenceConfig"] = inference_config
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


def _inference_config(settings: RequestSettings) -> ConverseObject:
    config: ConverseObject = {}
    if settings.max_tokens is not None:
        config["maxTokens"] = settings.max_tokens
    if settings.temperature is not None:
        config["temperature"] = settings.temperature
    if settings.top_p is not None:
        config["topP"] = settings.top_p
    if settings.stop_sequences:
        config["stopSequences"] = list(settings.stop_sequences)
    return config


def _system(messages: Sequence[Message], system_prompt: str | None) -> list[ConverseObject]:
    blocks = text_blocks(system_prompt or "")
    for message in messages:
        if message.role == "system":
            blocks += text_blocks(message.content)
    return blocks


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
