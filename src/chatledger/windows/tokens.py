"""Estimating the number of tokens in a message."""

import json
from typing import Any

from chatledger.messages import Message
from chatledger.tool_calls import ContentBlock

OVERHEAD_TOKENS = 4
"""The tokens for a message's role and delimiters."""
MEDIA_TOKENS = 1_600
"""The approximate tokens of an image; a document or a recording may have many times more."""
_MEDIA_TYPES = frozenset(
    ["audio", "document", "file", "image", "image_url", "input_audio", "input_image", "video"]
)


def approximate_tokens(message: Message) -> int:
    """Return the approximate number of tokens of ``message`` for any model; it is never 0.

    An ASCII character counts as a quarter of a token, a Greek, Cyrillic or Arabic one as five
    eighths, and a Chinese, Japanese or Korean one as a whole token. Tool calls and results are
    included. An image or a document counts as ``MEDIA_TOKENS`` whatever its size, and other blocks
    count as their JSON. Each message has ``OVERHEAD_TOKENS`` more. The estimate is close for
    English prose, and about 20% too low for code and numbers: leave a margin, or count with the
    model's tokenizer.
    """
    blocks = [message.content] if isinstance(message.content, str) else message.content
    tool_data: Any = None
    if message.role == "assistant":
        tool_data = message.tool_calls
    elif message.role == "tool":
        tool_data = message.tool_call_id
    eighths = sum(map(_block_eighths, blocks))
    if tool_data:
        eighths += _text_eighths(_json(tool_data))
    return OVERHEAD_TOKENS + -(-eighths // 8)


def _block_eighths(block: ContentBlock) -> int:
    """Return the eighths of a token in a block; the message's sum is rounded up only once."""
    if isinstance(block, str):
        return _text_eighths(block)
    kind, text = block.get("type"), block.get("text")
    if not _MEDIA_TYPES.isdisjoint([kind] if isinstance(kind, str) else block):
        return 8 * MEDIA_TOKENS
    if kind in (None, "text") and isinstance(text, str):
        return _text_eighths(text)
    return _text_eighths(_json(block))


def _text_eighths(text: str) -> int:
    # 2, 5, 8 and 11 for a character of one to four bytes in UTF-8, without a loop over characters.
    return 3 * len(text.encode(errors="surrogatepass")) - len(text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
