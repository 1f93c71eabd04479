"""How long a request is, in tokens, roughly; and what of it a prompt cache already holds."""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from chatledger.testing.bedrock_server.models import BedrockModel

BYTES_A_TOKEN = 4
"""A common rule of thumb for English. No model counts like that, and none like another."""


class InputTokens(NamedTuple):
    """The tokens of a request: those that were worked through, read from and put into the cache.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """

    fresh: int
    read: int = 0
    written: int = 0


def input_tokens(body: Mapping[str, Any]) -> int:
    return sum(tokens(block) for block in _blocks(body) if "cachePoint" not in block)


def tokens(value: object) -> int:
    size = sum(len(text.encode()) for text in _texts(value))
    return -(-size // BYTES_A_TOKEN)


class PromptCache:
    """Which beginnings of requests, up to a cache point, it has seen; it forgets none."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def taken(self, body: Mapping[str, Any], model: BedrockModel) -> InputTokens:
        """What ``body`` takes; its own beginnings are cached from now on."""
        digest, total, read, last = sha256(model.id.encode()), 0, 0, 0
        for block in _blocks(body):
            if "cachePoint" not in block:
                digest.update(json.dumps(block, sort_keys=True).encode())
                total += tokens(block)
                continue
            if total < model.cache_minimum:
                continue
            beginning = (model.id, digest.hexdigest())
            if beginning in self._seen:
                read = total
            self._seen.add(beginning)
            last = total
        return InputTokens(total - last, read, last - read)


def _blocks(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """In the order in which they are cached: tools, system prompt, messages."""
    yield from (body.get("toolConfig") or {}).get("tools", [])
    yield from body.get("system") or []
    for message in body.get("messages") or []:
        yield {"role": message["role"]}
        yield from message["content"]


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for part in value.values():
                yield from _texts(part)
        case list():
            for part in value:
                yield from _texts(part)
        case None:
            pass
        case _:
            yield str(value)
