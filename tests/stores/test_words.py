"""The words of texts and queries: an index never misses a text that a query finds."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from chatledger.stores.words import CHARACTERS_BEFORE, EXCERPT_CHARACTERS, Query, words_of

texts = st.text(alphabet="aAbé ßŁ東京の\u0301\u00ad -\nสวัﬁ🧠が", max_size=40) | st.text(max_size=40)


@settings(max_examples=500)
@given(before=texts, word=texts, after=texts)
def test_a_text_that_a_query_finds_has_the_querys_words_and_an_excerpt_with_their_places(
    before: str, word: str, after: str
) -> None:
    query, text = Query.of(word), f"{before} {word} {after}"
    if not query.terms:
        return
    assert query.occurs_in(text)
    indexed = words_of(text)
    for term in query.terms:
        for each in term.words:
            matches = str.startswith if term.is_prefix else str.__eq__
            assert any(matches(found, each) for found in indexed)
    excerpt, spans = query.excerpt(text)
    assert spans
    assert all(0 <= span.start < span.end <= len(excerpt) for span in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))


@given(before=texts, after=texts)
def test_an_excerpt_of_a_long_text_has_its_place_and_a_limit(before: str, after: str) -> None:
    text = f"{before * 100} needle {after * 100}"
    excerpt, spans = Query.of("needle").excerpt(text)
    assert "needle" in {excerpt[span.start : span.end] for span in spans}
    assert len(excerpt) <= EXCERPT_CHARACTERS + CHARACTERS_BEFORE


def test_the_words_of_a_long_word_are_short_enough_for_an_index() -> None:
    assert max(map(len, words_of("x" * 10_000))) < 100
    assert Query.of("x" * 200).occurs_in("x" * 10_000)


def test_only_the_first_marks_of_a_long_row_are_sorted() -> None:
    text = "needle" + "\u0301\u0327" * 100
    assert words_of(text) == words_of("needle")
    excerpt, [span] = Query.of("needle").excerpt(text)
    assert (len(excerpt), span.start) == (len("needle") + 29, 0)
    assert words_of("\u0301" * 100) == set()
