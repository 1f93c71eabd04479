"""English prose for messages of a given length: the cost of a body depends on its text."""

import re
from pathlib import Path

TEXT = " ".join(Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split())
SENTENCE_STARTS = [0, *(match.end() for match in re.finditer(r"[.?!] ", TEXT))]
"""The offsets at which sentences begin."""


def sample_text(n: int, length: int = 1_000) -> str:
    """Return text number ``n`` of ``length`` characters; the first 175 each begin at another
    sentence.
    """
    # Steps of 23 reach every sentence, and keep the texts of neighbouring numbers far apart.
    start = SENTENCE_STARTS[n * 23 % len(SENTENCE_STARTS)]
    text = TEXT[start : start + length]
    while len(text) < length:
        text += " " + TEXT[: length - len(text) - 1]
    return text
