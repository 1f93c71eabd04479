"""Token budgets: estimating the tokens of a message, and the longest ending that fits a budget."""

import json
from bisect import bisect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from chatledger.messages import Message
from chatledger.tool_calls import ContentBlock
from chatledger.windows.validity import ValidRuns, joined_message

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


def longest_ending(
    messages: Sequence[Message], *, budget: int, count: Callable[[Message], int]
) -> list[Message]:
    """Return the longest ending that has at most ``budget`` tokens once it is valid for models.

    If none fits, return the shortest ending that is not empty. ``count`` returns the tokens of a
    message.
    """
    valid = ValidRuns(messages)
    runs, system_indexes = valid.runs, [part.message_index for part in valid.systems]
    # Two endings differ, once valid, only if the longer one has another user or system message,
    # and everything after its first run is the same in every longer ending. So the search goes
    # from the end to the start, joins and counts each run once, and never looks at messages far
    # before the first one that does not fit.
    user_parts = [
        (part.message_index, run, first)
        for run, parts in enumerate(runs)
        if parts[0].message.role == "user"
        for first, part in enumerate(parts)
    ]
    previous_indexes = [-1, *(index for index, _, _ in user_parts)][:-1]

    @cache
    def system_tokens(first: int) -> int:
        return count(joined_message(valid.systems[first:])) if first < len(system_indexes) else 0

    best: tuple[int, int, int] | None = None
    counted_tokens, first_counted = 0, len(runs)  # the tokens of runs[first_counted:]
    for (index, run, first), previous in zip(
        reversed(user_parts), reversed(previous_indexes), strict=True
    ):
        newly_counted = runs[run + 1 : first_counted]
        counted_tokens += sum(count(joined_message(parts)) for parts in newly_counted)
        tokens = counted_tokens + count(joined_message(runs[run][first:]))
        counted_tokens, first_counted = (tokens, run) if first == 0 else (counted_tokens, run + 1)
        # The endings that start between the previous user message and this one, shortest first:
        # each has one more system message.
        first_system = bisect(system_indexes, index)
        last_system = bisect(system_indexes, previous)
        for system in range(first_system, last_system - 1, -1):
            if best and tokens + system_tokens(system) > budget:
                return valid.ending(*best)
            best = (run, first, system)
    return valid.ending(*best) if best else []
