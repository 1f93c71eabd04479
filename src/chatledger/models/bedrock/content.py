"""Converting the parts of messages to the blocks that Bedrock accepts.

Content that Bedrock does not accept is replaced by a short description.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, TypeAlias

from chatledger.messages import Content, Message
from chatledger.models.content import (
    EMPTY_TEXT,
    Media,
    content_parts,
    is_valid_name,
    plain_text,
    valid_name,
)
from chatledger.values import Json, dumps

ConverseObject: TypeAlias = dict[str, Any]
"""An object of the Converse API's JSON, with ``bytes`` in place of base64 text."""

MAX_IMAGES = 20
"""Bedrock's limit on the images in one message."""
MAX_IMAGE_BYTES = 3_750_000
"""Bedrock's limit on the size of an image."""


def text_blocks(content: Content) -> list[ConverseObject]:
    """Return the content as text blocks, none of them blank."""
    return list(_blocks(content, max_images=0))


def content_blocks(content: Content) -> list[ConverseObject]:
    """Return the content as blocks of text and images."""
    return list(_blocks(content, max_images=MAX_IMAGES))


def _blocks(content: Content, *, max_images: int) -> Iterator[ConverseObject]:
    images_left = max_images
    for part in content_parts(content):
        if isinstance(part, str):
            yield {"text": part}
        elif images_left and (image := _image_block(part)):
            images_left -= 1
            yield image
        else:
            yield {"text": part.description}


def _image_block(media: Media) -> ConverseObject | None:
    """Return the block for an image, or None if it is not one that Bedrock accepts."""
    image = media.image
    if image is None or len(image.data) > MAX_IMAGE_BYTES:
        return None
    return {"image": {"format": image.format, "source": {"bytes": image.data}}}


# Tool calls and their results ---------------------------------------------------------------------


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
    return id if is_valid_name(id) else sha256(id.encode()).hexdigest()
