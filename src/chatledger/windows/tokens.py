"""How many tokens a message takes, by a rule of thumb."""

import json
from typing import Any

from chatledger.messages import Message
from chatledger.tool_calls import Block

OVERHEAD_TOKENS = 4
"""What the role and the ends of a message take."""
MEDIA_TOKENS = 1_600
"""What an image takes, about; a document or a recording may take many times as much."""
_MEDIA = frozenset(
    ["audio", "document", "file", "image", "image_url", "input_audio", "input_image", "video"]
)


def approximate_tokens(message: Message) -> int:
    """About how many tokens ``message`` takes, whichever the model: never 0.

    A character of ASCII is taken to be a quarter of a token, a Chinese, Japanese or Korean one to
    be one token, and a Greek, Cyrillic or Arabic one five eighths. Tool calls and results count
    too, an image or a document ``MEDIA_TOKENS`` whatever its size, other blocks as their JSON, and
    each message ``OVERHEAD_TOKENS`` more. English prose comes out close, code and numbers some 20 %
    too low: leave a margin, or count with the model's own tokenizer.
    """
    content = [message.content] if isinstance(message.content, str) else message.content
    beside: Any = None
    if message.role == "assistant":
        beside = message.tool_calls
    elif message.role == "tool":
        beside = message.tool_call_id
    eighths = sum(map(_of_block, content)) + (_of_text(_json(beside)) if beside else 0)
    return OVERHEAD_TOKENS + -(-eighths // 8)


def _of_block(block: Block) -> int:
    """Eighths of a token, which are rounded up once."""
    if isinstance(block, str):
        return _of_text(block)
    kind, text = block.get("type"), block.get("text")
    if not _MEDIA.isdisjoint([kind] if isinstance(kind, str) else block):
        return 8 * MEDIA_TOKENS
    if kind in (None, "text") and isinstance(text, str):
        return _of_text(text)
    return _of_text(_json(block))


def _of_text(text: str) -> int:
    # 2, 5, 8 and 11 for a character of one to four bytes in UTF-8, without a look at each.
    return 3 * len(text.encode(errors="surrogatepass")) - len(text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
