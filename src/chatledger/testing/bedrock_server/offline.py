"""What the server says by itself, as Chatledger's offline model, within a request's limits."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from chatledger.models import offline
from chatledger.testing.bedrock_server.answers import Says
from chatledger.testing.bedrock_server.requests import Request


def offline_answer(request: Request) -> Says:
    """The reply to what the user said, cut at a stop sequence or after ``maxTokens`` words."""
    text = offline.answer(said(request.body) or [""])
    settings = request.body.get("inferenceConfig") or {}
    stop_reason = "end_turn"
    found = [at for end in settings.get("stopSequences") or [] if (at := text.find(end)) >= 0]
    if found:
        text, stop_reason = text[: min(found)], "stop_sequence"
    pieces = in_pieces(text)
    most = settings.get("maxTokens")
    if most is not None and len(pieces) > most:
        pieces, stop_reason = pieces[:most], "max_tokens"
    return Says(pieces, stop_reason=stop_reason)


def in_pieces(text: str) -> list[str]:
    """``text`` in words with the white space before them, and nothing lost."""
    return re.findall(r"\s*\S+|\s+$", text)


def said(body: Mapping[str, Any]) -> list[str]:
    """What the user said in each message; of a tool, what it gave."""
    return [
        "\n".join(_texts(message["content"]))
        for message in body["messages"]
        if message["role"] == "user"
    ]


def _texts(content: list[dict[str, Any]]) -> Iterator[str]:
    for block in content:
        if "text" in block:
            yield block["text"]
        for result in (block.get("toolResult") or {}).get("content", []):
            if "text" in result:
                yield result["text"]
