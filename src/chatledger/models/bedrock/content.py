"""A message's content as the blocks that Bedrock takes; what it does not is said in words."""

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterator
from typing import Any

from chatledger.json_values import Json
from chatledger.messages import Content
from chatledger.models.bedrock.settings import Block

EMPTY = "(empty)"
IMAGES = 20
"""How many a message may hold."""
IMAGE_BYTES = 3_750_000

_TEXT = {None, "text", "input_text", "output_text"}
# What a message says elsewhere (its tool calls), and thoughts, which no other model may be told.
_LEFT_OUT = {
    *("tool_use", "tool_call", "tool_call_chunk", "function_call", "server_tool_use"),
    *("thinking", "redacted_thinking", "reasoning", "reasoning_content", "reasoningContent"),
    *("toolUse", "cachePoint"),
}
_KINDS = {
    **dict.fromkeys(("image", "image_url", "input_image"), "an image"),
    **dict.fromkeys(("audio", "input_audio"), "a recording"),
    **dict.fromkeys(("file", "input_file", "document"), "a file"),
    "video": "a video",
}


def text_blocks(content: Content) -> list[Block]:
    """Text alone; none of the blocks is blank."""
    return list(_blocks(content, images=0))


def blocks(content: Content) -> list[Block]:
    """Text and images."""
    return list(_blocks(content, images=IMAGES))


def plain(content: Content) -> str:
    """As one text, which may be empty."""
    return "\n".join(block["text"] for block in text_blocks(content))


def _blocks(content: Content, *, images: int) -> Iterator[Block]:
    for block in [content] if isinstance(content, str) else content:
        part: dict[str, Json] = {"text": block} if isinstance(block, str) else block
        kind, text = part.get("type"), part.get("text")
        if kind in _LEFT_OUT or not part.keys().isdisjoint(_LEFT_OUT):
            continue
        if kind == "text" or (kind in _TEXT and isinstance(text, str)):
            if isinstance(text, str) and text.strip():
                yield {"text": text}
        elif images and (image := _image(part)):
            images -= 1
            yield image
        else:
            yield {"text": f"({_KINDS.get(str(kind), 'something')} that cannot be shown)"}


def _image(block: dict[str, Json]) -> Block | None:
    """The image that the block holds, if it holds one that Bedrock takes."""
    encoded = _encoded(block)
    if encoded is None or len(encoded) > IMAGE_BYTES * 4 // 3 + 4:
        return None
    try:
        data = b64decode(encoded, validate=True)
    except (NotBase64, ValueError):
        return None
    # By what it is, not by what it is called: models refuse those that are called another kind.
    form = _form(data)
    if form is None or len(data) > IMAGE_BYTES:
        return None
    return {"image": {"format": form, "source": {"bytes": data}}}


def _encoded(block: Any) -> str | None:
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
            about, _, data = url.partition(",")
            return data if about.endswith(";base64") else None
    return None


def _form(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None
