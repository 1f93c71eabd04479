"""The words of texts and of queries, and where the words of a query are in a text.

Words are compared without case and accents. Chinese, Japanese, Thai and some other scripts have no
spaces between words, so each of their characters counts as a word, and several in a row are found
as a substring.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate
from typing import NamedTuple
from unicodedata import category, combining, normalize

from chatledger.conversations import Span
from chatledger.messages import Message

EXCERPT_CHARACTERS = 160
"""The approximate length of an excerpt; a longer word makes it longer."""
CHARACTERS_BEFORE = 50
"""How much of the excerpt comes before the place that it shows."""
MAX_WORD_CHARACTERS = 64
"""The length to which words are cut in an index; ``Query`` compares whole words."""
MAX_MARKS = 30
"""The most accents and other marks in a row that are read (Unicode Annex 15, section 13)."""
SEARCHED_ROLES = ("user", "assistant")

_LETTERS = str.maketrans("łøđħı", "lodhi")
"""Letters with strokes, which Unicode does not decompose."""
_SPACE = re.compile(r"\s+")


# Compiled on first use, because that takes longer than all the rest of the import.
@cache
def _accents() -> re.Pattern[str]:
    """Return a pattern of the marks that readers may leave out; other marks are vowels."""
    return re.compile(
        "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff"
        "\u20d0-\u20ff\ufe20-\ufe2f]"
    )


@cache
def _without_spaces() -> re.Pattern[str]:
    """Return a pattern of characters of Thai, Lao, Burmese, Khmer, Chinese and Japanese."""
    return re.compile(
        "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u312f"
        "\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    )


@cache
def _long_rows_of_marks() -> re.Pattern[str]:
    """Return a pattern of more marks in a row than any language has."""
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if combining(chr(code)))
    return re.compile(f"[{marks}]{{{MAX_MARKS + 1},}}")


class _Folding(dict[int, str]):
    """What each character becomes, by its code point, for ``str.translate``.

    Letters and digits lose case and accents. Everything else becomes a space, so that spaces alone
    separate words. A character of a script without spaces gets one on both sides: it is a word of
    its own, and two in a row have exactly two spaces between them.
    """

    def __missing__(self, code: int) -> str:
        # The decomposition of a sign can have capitals again.
        decomposed = normalize("NFKD", chr(code).casefold()).casefold()
        letters = normalize("NFC", _accents().sub("", decomposed)).translate(_LETTERS)
        self[code] = folded = "".join(map(_separated, letters))
        return folded


def _separated(character: str) -> str:
    kind = category(character)
    if kind == "Cf":  # such as a soft hyphen: it is not seen, and separates nothing
        return ""
    if kind[0] not in "LNM":
        return " "
    return f" {character} " if _without_spaces().match(character) else character


# Unicode decomposes these signs to letters.
_FOLDING = _Folding({ord(sign): " " for sign in "™\N{SERVICE MARK}"})


def searched_text(message: Message) -> str:
    """Return the text in which a search looks; it is empty for system and tool messages."""
    return message.text if message.role in SEARCHED_ROLES else ""


def words_of(text: str) -> set[str]:
    """Return the words by which an index finds the text, among them all that ``Term.words`` has."""
    folded = _fold(text)
    words = set(folded.split())
    if not text.isascii() and _without_spaces().search(folded):
        parts = folded.split(" ")
        words.update(
            one + two
            for one, between, two in zip(parts, parts[1:], parts[2:], strict=False)
            if len(one) == 1 == len(two) and not between
        )
    if len(text) > MAX_WORD_CHARACTERS:
        words = {word[:MAX_WORD_CHARACTERS] for word in words}
    return words


def _fold(text: str) -> str:
    return f" {_composed(text).translate(_FOLDING)} "


def _composed(text: str) -> str:
    """Return the text in Unicode's form NFC, with at most ``MAX_MARKS`` marks in a row.

    Sorting a row of marks, as the form requires, takes time that grows with the row's square.
    """
    if text.isascii():
        return text
    return normalize("NFC", _long_rows_of_marks().sub(lambda row: row[0][:MAX_MARKS], text))


class Term(NamedTuple):
    """A word of a query, or several characters in a row of a script without spaces."""

    text: str
    pattern: str
    """What a folded text contains if the term occurs in it; spaces are the limits of words."""
    words: tuple[str, ...]
    """Words of an index that all texts with the term have."""
    is_prefix: bool = False
    """True if the term is the beginning of a word; then its only word is one too."""


class Query(NamedTuple):
    """A query, whose terms must all occur in a text."""

    terms: tuple[Term, ...]
    """The terms, the longest first, since it is probably the rarest; a prefix comes last."""

    @classmethod
    def of(cls, text: str) -> "Query":
        """Return the query; it has no terms if the text has no words."""
        parts: list[str] = []
        joins, spaces = False, 0
        for part in _fold(text).split(" "):
            if not part:
                spaces += 1
                continue
            is_character = bool(_without_spaces().match(part))
            if is_character and joins and spaces == 1:  # no other character is in between
                parts[-1] += part
            else:
                parts.append(part)
            joins, spaces = is_character, 0
        terms = {_term(part, is_last=n == len(parts)) for n, part in enumerate(parts, 1)}
        return cls(tuple(sorted(terms, key=lambda term: (term.is_prefix, -len(term.text), term))))

    def occurs_in(self, text: str) -> bool:
        """Return whether all terms occur in the text."""
        folded = _fold(text)
        return all(term.pattern in folded for term in self.terms)

    def excerpt(self, text: str) -> tuple[str, tuple[Span, ...]]:
        """Return a part of a text in which all terms occur, and where terms are in that part.

        The part is in Unicode's form NFC, with single spaces instead of white space, and with … at
        the ends where it is cut.
        """
        text = _composed(text)
        term = self.terms[0]
        # The space before the term is one that ``_fold`` has added.
        offset = _fold(text).index(term.pattern)
        first = _character_at(text, offset)
        last = _character_at(text, offset + len(term.pattern.strip()) - 1)
        start, end = max(0, first - CHARACTERS_BEFORE), len(text)
        if start and (space := _SPACE.search(text, start, first)):
            start = space.end()
        if end - start > EXCERPT_CHARACTERS:
            end = max(start + EXCERPT_CHARACTERS, last + 1)
            spaces = [space.start() for space in _SPACE.finditer(text, last + 1, end)]
            end = spaces[-1] if spaces else end
        part = _SPACE.sub(" ", text[start:end]).strip()
        excerpt = f"{'…' * (start > 0)}{part}{'…' * (end < len(text))}"
        return excerpt, _merged(sorted(_places_of(self.terms, excerpt)))


def _term(text: str, *, is_last: bool) -> Term:
    if _without_spaces().match(text):
        pairs = tuple(text[n : n + 2] for n in range(len(text) - 1))
        return Term(text, f" {'  '.join(text)} ", pairs or (text,))
    words = (text[:MAX_WORD_CHARACTERS],)
    return Term(text, f" {text}" if is_last else f" {text} ", words, is_prefix=is_last)


def _character_at(text: str, offset: int) -> int:
    """Return the place of the character that becomes the one at ``offset`` of the folded text."""
    # In parts, because a long text would take much memory.
    for start in range(0, len(text), 1_000):
        part = text[start : start + 1_000]
        length = len(part.translate(_FOLDING))
        if offset < length:
            ends = list(accumulate(len(_FOLDING[ord(character)]) for character in part))
            return start + bisect_right(ends, offset)
        offset -= length
    raise IndexError(offset)


def _places_of(terms: Iterable[Term], text: str) -> Iterator[Span]:
    """Yield the places of each term in a short text, which is in the form NFC."""
    pieces = list(map(_FOLDING.__getitem__, map(ord, text)))
    ends = list(accumulate(map(len, pieces)))
    folded = f" {''.join(pieces)} "
    for term in terms:
        length = len(term.pattern.strip())
        # The space before the term is one that ``folded`` has more than ``pieces``.
        start = folded.find(term.pattern)
        while start >= 0:
            last = start + length - 1
            end = ends[bisect_right(ends, last)]
            yield Span(bisect_right(ends, start), bisect_right(ends, end))  # with its last accents
            start = folded.find(term.pattern, last + 2)


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans, which are in order, with those that overlap as one."""
    merged: list[Span] = []
    for span in spans:
        if merged and span.start < merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(span.end, merged[-1].end))
        else:
            merged.append(span)
    return tuple(merged)
