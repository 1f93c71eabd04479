"""Responses of Chatledger's offline model, within the limits that a request sets."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from chatledger.models import offline
from chatledger.testing.bedrock_server.requests import Request
from chatledger.testing.bedrock_server.script import Says


def offline_response(request: Request) -> Says:
    """Return the offline model's reply, cut at a stop sequence or after ``maxTokens`` words."""
    text = offline.reply_text(user_texts(request.body) or [""])
    settings = request.body.get("inferenceConfig") or {}
    stop_reason = "end_turn"
    stops = settings.get("stopSequences") or []
    found = [index for stop in stops if (index := text.find(stop)) >= 0]
    if found:
        text, stop_reason = text[: min(found)], "stop_sequence"
    pieces = split_words(text)
    max_tokens = settings.get("maxTokens")
    if max_tokens is not None and len(pieces) > max_tokens:
        pieces, stop_reason = pieces[:max_tokens], "max_tokens"
    return Says(pieces, stop_reason=stop_reason)


def split_words(text: str) -> list[str]:
    """Split ``text`` into words, each with the white space before it; joined they are ``text``."""
    return re.findall(r"\s*\S+|\s+$", text)


def user_texts(body: Mapping[str, Any]) -> list[str]:
    """Return the text of each user message, including that of tool results."""
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
