"""The parts of a message's content, and tools, for models that take text and perhaps images.

Everything else that a content may contain is named, so that a model knows that it was there.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from chatledger.errors import InvalidArgument
from chatledger.messages import Content
from chatledger.values import Json

EMPTY_TEXT = "(empty)"
"""The text of a message that has none; models refuse empty messages."""

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
_VALID_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Image(NamedTuple):
    """The bytes of an image, and their format: ``png``, ``jpeg``, ``gif`` or ``webp``."""

    format: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Media:
    """A block of a message's content that is not text."""

    block: dict[str, Json]

    @property
    def description(self) -> str:
        """The text for a model to which the block cannot be sent."""
        return (
            f"({_MEDIA_NAMES.get(str(self.block.get('type')), 'something')} that cannot be shown)"
        )

    @property
    def image(self) -> Image | None:
        """The image in the block; None if it has none, or one in another format."""
        encoded = _base64_image(self.block)
        if encoded is None:
            return None
        try:
            data = b64decode(encoded, validate=True)
        except (Base64Error, ValueError):
            return None
        # The format is detected from the data: models refuse an image whose declared format is
        # wrong.
        image_format = _image_format(data)
        return None if image_format is None else Image(image_format, data)

    @property
    def image_link(self) -> str | None:
        """The address on the web of the image that the block names, if it names one."""
        url = _image_url(self.block)
        return url if url is not None and url.startswith(("https://", "http://")) else None


def content_parts(content: Content) -> Iterator[str | Media]:
    """Yield the texts of the content, none of them blank, and its other blocks."""
    for block in [content] if isinstance(content, str) else content:
        part: dict[str, Json] = {"text": block} if isinstance(block, str) else block
        kind, text = part.get("type"), part.get("text")
        if kind in _OMITTED_TYPES or not part.keys().isdisjoint(_OMITTED_TYPES):
            continue
        if kind == "text" or (kind in _TEXT_TYPES and isinstance(text, str)):
            if isinstance(text, str) and text.strip():
                yield text
        else:
            yield Media(part)


def plain_text(content: Content) -> str:
    """Return the content as one string, which may be empty."""
    parts = content_parts(content)
    return "\n".join(part if isinstance(part, str) else part.description for part in parts)


def _base64_image(block: Any) -> str | None:
    match block:
        case (
            {"type": "image", "source": {"type": "base64", "data": str(data)}}
            | {"type": "image", "base64": str(data)}
            | {"type": "image", "data": str(data)}
        ):
            return data
    url = _image_url(block)
    if url is not None and url.startswith("data:"):
        media_type, _, data = url.partition(",")
        return data if media_type.endswith(";base64") else None
    return None


def _image_url(block: Any) -> str | None:
    match block:
        case (
            {"type": "image_url", "image_url": {"url": str(url)}}
            | {"type": "image_url" | "input_image", "image_url": str(url)}
            | {"type": "image", "url": str(url)}
        ):
            return url
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


# Tools --------------------------------------------------------------------------------------------


def is_valid_name(name: object) -> bool:
    """Return whether Bedrock and OpenAI accept ``name`` as a tool's name."""
    return isinstance(name, str) and _VALID_NAME.fullmatch(name) is not None


def valid_name(name: str) -> str:
    """Return ``name`` if it is a valid tool's name, else a readable name that ends with a hash."""
    if is_valid_name(name):
        return name
    return f"{re.sub('[^a-zA-Z0-9_-]', '_', name)[:55]}_{sha256(name.encode()).hexdigest()[:8]}"


def check_tool_name(name: object, where: str) -> None:
    """Raise ``InvalidArgument`` unless the name is valid; ``where`` begins the error's text."""
    if not is_valid_name(name):
        raise InvalidArgument(
            f"{where}, a tool's name must be 1 to 64 letters, digits, underscores and hyphens; "
            f"rename {name!r}."
        )


def check_tool_choice(choice: object, names: Sequence[object]) -> None:
    """Raise ``InvalidArgument`` if there are no tools to choose from, or none of that name.

    ``choice`` is ``auto``, ``any``, the name of a tool, or an object in a provider's format.
    """
    if not names:
        raise InvalidArgument("tool_choice needs tools to choose from; pass tools too.")
    if isinstance(choice, str) and choice not in ("auto", "any", *names):
        raise InvalidArgument(
            f"tool_choice is {choice!r}, but there is no tool of that name; pass auto, any or the "
            "name of a tool."
        )
