"""Estimates of input tokens, and a simulation of the prompt cache."""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from chatledger.testing.bedrock_server.models import BedrockModel

BYTES_PER_TOKEN = 4
"""A common rule of thumb for English; every real model counts in its own way."""


class InputTokens(NamedTuple):
    """The input tokens of a request: processed afresh, read from the cache, written to the cache.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """

    fresh: int
    read: int = 0
    written: int = 0


def estimate_input_tokens(body: Mapping[str, Any]) -> int:
    """Return the estimated number of input tokens of a request's body."""
    return sum(estimate_tokens(block) for block in _blocks(body) if "cachePoint" not in block)


def estimate_tokens(value: object) -> int:
    """Return the estimated number of tokens of all text in a JSON value."""
    size = sum(len(text.encode()) for text in _texts(value))
    return -(-size // BYTES_PER_TOKEN)


class PromptCache:
    """The prefixes of requests, up to a cache point, that were sent before; they never expire."""

    def __init__(self) -> None:
        self._prefixes: set[tuple[str, str]] = set()

    def process(self, body: Mapping[str, Any], model: BedrockModel) -> InputTokens:
        """Count the input tokens of ``body``, and cache its prefixes."""
        digest, total, read, last = sha256(model.id.encode()), 0, 0, 0
        for block in _blocks(body):
            if "cachePoint" not in block:
                digest.update(json.dumps(block, sort_keys=True).encode())
                total += estimate_tokens(block)
                continue
            if total < model.min_cached_tokens:
                continue
            prefix = (model.id, digest.hexdigest())
            if prefix in self._prefixes:
                read = total
            self._prefixes.add(prefix)
            last = total
        return InputTokens(total - last, read, last - read)


def _blocks(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield all blocks in the order in which they are cached: tools, system prompt, messages."""
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
