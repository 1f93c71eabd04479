"""A search: what one transaction finds of it, and what one adds to the index of words."""

from collections.abc import Iterator
from sqlite3 import Row
from time import monotonic
from typing import NamedTuple

from chatledger.conversations import MAX_REVISION, Found, Match
from chatledger.stores.cursors import SearchPlace
from chatledger.stores.operations import Search
from chatledger.stores.sqlite.rows import Rows
from chatledger.stores.words import Query, searched_text

MAX_READING_SECONDS = 0.5
"""After this time, a transaction searches no further conversation."""
MAX_ADDING_SECONDS = 0.04
"""After this time, a transaction adds no further words, so that others can write."""
MAX_CONVERSATIONS = 200
"""The most conversations whose words one transaction adds."""


class Progress(NamedTuple):
    """How far a search has come."""

    matches: tuple[Match, ...]
    place: SearchPlace | None
    """Where it continues; None if everything was searched."""
    lacks_words: bool = False
    """True if the index lacks words of the next conversation."""

    def result(self, limit: int) -> Found:
        """Return what the search has found if it ends here."""
        cursor = None if self.place is None else self.place.encode()
        return Found(self.matches, cursor, cursor is None or len(self.matches) == limit)


def continue_search(rows: Rows, operation: Search, progress: Progress) -> Progress:
    """Search until there are enough matches, or the index lacks words, or for the time allowed."""
    matches, place = list(progress.matches), progress.place
    assert place is not None
    end = monotonic() + MAX_READING_SECONDS
    for row in rows.conversations_of(operation.owner, place):
        lacks_words = row["up_to"] != row["revision"]
        if lacks_words or monotonic() > end:
            return Progress(tuple(matches), place, lacks_words)
        before = place.before if row["id"] == place.conversation_id else None
        for match in _matches_in(rows, row, operation.query, before=before):
            matches.append(match)
            if len(matches) == operation.limit:
                place = SearchPlace(row["updated_at"], row["id"], match.seq or MAX_REVISION)
                return Progress(tuple(matches), place)
        place = SearchPlace(row["updated_at"], row["id"])
    return Progress(tuple(matches), None)


def add_words(rows: Rows, owner: str, place: SearchPlace) -> bool:
    """Add words that the index lacks of conversations from ``place`` on.

    Returns:
        True if it may lack others.
    """
    end = monotonic() + MAX_ADDING_SECONDS
    lacking = rows.conversations_of(
        owner, place, lacking_words=True, limit=MAX_CONVERSATIONS
    ).fetchall()
    for row in lacking:
        number, revision = row["number"], row["revision"]
        bodies = rows.bodies_after(number, -1 if row["up_to"] is None else row["up_to"])
        if not rows.words.add(number, bodies, revision=revision, end=end) or monotonic() > end:
            return True
    return len(lacking) == MAX_CONVERSATIONS


def _matches_in(rows: Rows, row: Row, query: Query, *, before: int | None) -> Iterator[Match]:
    """Yield the matches in a conversation: in its title, unless ``before``, and in messages."""
    id, title = row["id"], row["title"]
    if before is None and title and query.occurs_in(title):
        yield Match(id, title, None, None, *query.excerpt(title))
    last = MAX_REVISION if before is None else before
    for seq in rows.words.seqs_with(row["number"], query, before=last):
        message = rows.find_message(row["number"], seq)
        if message is None:
            continue
        text = searched_text(message)
        if query.occurs_in(text):
            yield Match(id, title, seq, message.role, *query.excerpt(text))
