"""Converting settings, tools and messages to the arguments of a request, without I/O.

https://developers.openai.com/api/reference/resources/chat/subresources/completions/methods/create
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias

from chatledger.errors import InvalidArgument
from chatledger.messages import Content, Message
from chatledger.models.content import (
    EMPTY_TEXT,
    check_tool_choice,
    check_tool_name,
    content_parts,
    plain_text,
    valid_name,
)
from chatledger.values import Json, dumps

OpenAIObject: TypeAlias = dict[str, Any]
"""An object of the API's JSON."""

_LONGEST_ID = 40
"""The most characters of a tool call's id that OpenAI accepts."""


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """Everything in a request except its messages.

    Values that are None or empty are not sent. OpenAI's newer models refuse ``max_tokens``, and
    many other servers know nothing else, so that they get the limit under different names.
    """

    model: str
    is_compatible: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: Sequence[str] = ()
    additional_fields: Mapping[str, Json] | None = None
    tools: Sequence[OpenAIObject] = ()
    tool_choice: str | OpenAIObject | None = None


def request_arguments(
    messages: Sequence[Message], system_prompt: str | None, settings: RequestSettings
) -> OpenAIObject:
    """Return the arguments of ``chat.completions.create`` for a streamed reply."""
    limit = "max_tokens" if settings.is_compatible else "max_completion_tokens"
    optional = {
        limit: settings.max_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "stop": list(settings.stop_sequences) or None,
        "tools": list(settings.tools) or None,
        "tool_choice": settings.tool_choice,
        "extra_body": dict(settings.additional_fields) if settings.additional_fields else None,
    }
    return {
        "model": settings.model,
        "messages": _openai_messages(messages, system_prompt),
        "stream": True,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _openai_messages(messages: Sequence[Message], system_prompt: str | None) -> list[OpenAIObject]:
    """Return the messages, with one system message in front, as some servers refuse others."""
    systems = [message for message in messages if message.role == "system"]
    instructions = [system_prompt or "", *(plain_text(message.content) for message in systems)]
    text = "\n\n".join(filter(None, instructions))
    first: list[OpenAIObject] = [{"role": "system", "content": text}] if text else []
    return first + [_openai_message(each) for each in messages if each.role != "system"]


def _openai_message(message: Message) -> OpenAIObject:
    if message.role == "user":
        return {"role": "user", "content": _user_content(message.content)}
    text = plain_text(message.content)
    if message.role == "tool":
        id = _valid_id(message.tool_call_id or "")
        return {"role": "tool", "tool_call_id": id, "content": text or EMPTY_TEXT}
    calls = [_openai_call(call) for call in message.tool_calls]
    if not calls:
        return {"role": "assistant", "content": text or EMPTY_TEXT}
    return {"role": "assistant", "content": text or None, "tool_calls": calls}


def _user_content(content: Content) -> str | list[OpenAIObject]:
    """Return the content as text, or as parts if it contains an image.

    Text is not sent as parts, because some servers accept only a string.
    """
    parts: list[OpenAIObject] = []
    for part in content_parts(content):
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
        elif image := part.image:
            url = f"data:image/{image.format};base64,{b64encode(image.data).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        elif part.image_link:
            parts.append({"type": "image_url", "image_url": {"url": part.image_link}})
        else:
            parts.append({"type": "text", "text": part.description})
    if any(part["type"] == "image_url" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts) or EMPTY_TEXT


def _openai_call(call: Mapping[str, Json]) -> OpenAIObject:
    arguments = call.get("args")
    return {
        "id": _valid_id(str(call.get("id") or "")),
        "type": "function",
        "function": {
            "name": valid_name(str(call.get("name") or "")),
            "arguments": dumps({} if arguments is None else arguments),
        },
    }


def _valid_id(id: str) -> str:
    """Return ``id`` if OpenAI accepts it, else a hash of it."""
    return id if 0 < len(id) <= _LONGEST_ID else sha256(id.encode()).hexdigest()[:_LONGEST_ID]


# Definitions of tools -----------------------------------------------------------------------------


def openai_tools(tools: Sequence[Mapping[str, Any]]) -> list[OpenAIObject]:
    """Return the tools in OpenAI's format.

    Raises:
        InvalidArgument: A tool is not a dict, or OpenAI does not accept its name.
    """
    return [_openai_tool(tool) for tool in tools]


def _openai_tool(tool: Mapping[str, Any]) -> OpenAIObject:
    if not isinstance(tool, Mapping):
        raise InvalidArgument("A tool must be a dict with name, description and input_schema.")
    if isinstance(function := tool.get("function"), Mapping):
        check_tool_name(function.get("name"), "For OpenAI")
        return dict(tool)  # already in OpenAI's format
    check_tool_name(tool.get("name"), "For OpenAI")
    made = {"name": tool["name"]}
    if tool.get("description"):
        made["description"] = tool["description"]
    made["parameters"] = tool.get("input_schema") or {"type": "object", "properties": {}}
    return {"type": "function", "function": made}


def openai_tool_choice(
    choice: str | Mapping[str, Any] | None, tools: Sequence[OpenAIObject]
) -> str | OpenAIObject | None:
    """Return ``choice`` in OpenAI's format.

    Args:
        choice: ``auto``, ``any``, the name of the tool to call, or an object in OpenAI's format.
        tools: The model's tools, in OpenAI's format.

    Raises:
        InvalidArgument: There are no tools, or none has that name.
    """
    if choice is None:
        return None
    check_tool_choice(choice, [tool["function"]["name"] for tool in tools])
    match choice:
        case "auto":
            return "auto"
        case "any":
            return "required"
        case str():
            return {"type": "function", "function": {"name": choice}}
    return dict(choice)
