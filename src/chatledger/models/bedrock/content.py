"""Converting the parts of messages to the blocks that Bedrock accepts.

Content that Bedrock does not accept is replaced by a short description.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, TypeAlias

from chatledger.messages import Content, Message
from chatledger.values import Json, dumps

ConverseObject: TypeAlias = dict[str, Any]
"""An object of the Converse API's JSON, with ``bytes`` in place of base64 text."""

EMPTY_TEXT = "(empty)"
MAX_IMAGES = 20
"""Bedrock's limit on the images in one message."""
MAX_IMAGE_BYTES = 3_750_000
"""Bedrock's limit on the size of an image."""

_TEXT_TYPES = {None, "text", "input_text", "output_text"}
# Tool calls are sent from Message.tool_calls, and reasoning must not be sent to another model.
_OMITTED_TYPES = {
    *("tool_use", "tool_call", "tool_call_chunk", "function_call", "server_tool_use"),
    *("thinking", "redacted_thinking", "reasoning", "reasoning_content", "reasoningContent"),
    *("toolUse", "cachePoint"),
}
_MEDIA_NAMES = {
    **dict.fromkeys(("image", "image_url", "input_image"), "an image"),
    **dict.fromkeys(("audio", "input_audio"), "a recording"),
    **dict.fromkeys(("file", "input_file", "document"), "a file"),
    "video": "a video",
}


def text_blocks(content: Content) -> list[ConverseObject]:
    """Return the content as text blocks, none of them blank."""
    return list(_blocks(content, max_images=0))


def content_blocks(content: Content) -> list[ConverseObject]:
    """Return the content as blocks of text and images."""
    return list(_blocks(content, max_images=MAX_IMAGES))


def plain_text(content: Content) -> str:
    """Return the content as one string, which may be empty."""
    return "\n".join(block["text"] for block in text_blocks(content))


def _blocks(content: Content, *, max_images: int) -> Iterator[ConverseObject]:
    images_left = max_images
    for block in [content] if isinstance(content, str) else content:
        part: dict[str, Json] = {"text": block} if isinstance(block, str) else block
        kind, text = part.get("type"), part.get("text")
        if kind in _OMITTED_TYPES or not part.keys().isdisjoint(_OMITTED_TYPES):
            continue
        if kind == "text" or (kind in _TEXT_TYPES and isinstance(text, str)):
            if isinstance(text, str) and text.strip():
                yield {"text": text}
        elif images_left and (image := _image(part)):
            images_left -= 1
            yield image
        else:
            yield {"text": f"({_MEDIA_NAMES.get(str(kind), 'something')} that cannot be shown)"}


def _image(block: dict[str, Json]) -> ConverseObject | None:
    """Return the image in the block, or None if it has none that Bedrock accepts."""
    encoded = _base64_image(block)
    if encoded is None or len(encoded) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        return None
    try:
        data = b64decode(encoded, validate=True)
    except (Base64Error, ValueError):
        return None
    # The format is detected from the data: models refuse an image whose declared format is wrong.
    image_format = _image_format(data)
    if image_format is None or len(data) > MAX_IMAGE_BYTES:
        return None
    return {"image": {"format": image_format, "source": {"bytes": data}}}


def _base64_image(block: Any) -> str | None:
    match block:
        case (
            {"type": "image", "source": {"type": "base64", "data": str(data)}}
            | {"type": "image", "base64": str(data)}
            | {"type": "image", "data": str(data)}
        ):
            return data
        case (
            {"type": "image_url", "image_url": {"url": str(url)}}
            | {"type": "image_url" | "input_image", "image_url": str(url)}
            | {"type": "image", "url": str(url)}
        ) if url.startswith("data:"):
            media_type, _, data = url.partition(",")
            return data if media_type.endswith(";base64") else None
    return None


def _image_format(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


# Tool calls and their results ---------------------------------------------------------------------

_VALID_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


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


def is_valid_name(name: object) -> bool:
    """Return whether Bedrock accepts ``name`` as a tool's name or a call's id."""
    return isinstance(name, str) and _VALID_NAME.fullmatch(name) is not None


def valid_id(id: str) -> str:
    """Return ``id`` if Bedrock accepts it, else a hash of it."""
    return id if is_valid_name(id) else sha256(id.encode()).hexdigest()


def valid_name(name: str) -> str:
    """Return ``name`` if Bedrock accepts it, else a readable name that ends with a hash."""
    if is_valid_name(name):
        return name
    return f"{re.sub('[^a-zA-Z0-9_-]', '_', name)[:55]}_{sha256(name.encode()).hexdigest()[:8]}"
