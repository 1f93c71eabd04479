"""English prose for messages of a stated length, since what bodies cost depends on the text."""

import re
from pathlib import Path

TEXT = " ".join(Path(__file__).with_name("prose.txt").read_text(encoding="utf-8").split())
STARTS = [0, *(match.end() for match in re.finditer(r"[.?!] ", TEXT))]
"""Where its sentences begin."""


def prose(n: int, length: int = 1_000) -> str:
    """The ``n``-th text of that many characters; the first 175 begin with a sentence each."""
    start = STARTS[n * 23 % len(STARTS)]  # a step that meets them all, and neighbours far apart
    text = TEXT[start : start + length]
    while len(text) < length:
        text += " " + TEXT[: length - len(text) - 1]
    return text
