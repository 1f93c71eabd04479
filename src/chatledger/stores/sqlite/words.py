"""The rows of words: an index that says in which messages of a conversation a word may occur.

The index is added to by searches alone. A write that removes or replaces text also removes the
words of the block of messages in which it was, and the next search adds those of the others again.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from math import ceil
from time import monotonic

from chatledger.conversations import MAX_REVISION
from chatledger.messages import decode
from chatledger.stores.words import Query, searched_text, words_of

BLOCK = 60
"""The number of seqs of a block, which have a bit each in a signed integer of 64 bits."""
WORDS_PER_ROW = 20
"""How many words are freed in the time of one row of another table, which is longer."""
NO_LIMIT = -1


class WordRows:
    """The reads and writes of words in one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(
        self, number: int, bodies: Iterable[tuple[int, str]], *, revision: int, end: float
    ) -> bool:
        """Add the words of these messages.

        Args:
            number: The conversation.
            bodies: The seqs and bodies of all its messages that come after those already added.
            revision: The conversation's revision.
            end: The time (``monotonic``) after which no further message is added.

        Returns:
            True if all of them were added.
        """
        block, seqs_by_word = 0, dict[str, int]()
        for seq, body in bodies:
            if seq // BLOCK != block:
                self._put(number, block, seqs_by_word)
                block, seqs_by_word = seq // BLOCK, {}
            for word in words_of(searched_text(decode(body, seq=seq))):
                seqs_by_word[word] = seqs_by_word.get(word, 0) | 1 << seq % BLOCK
            if monotonic() > end:
                self._put(number, block, seqs_by_word)
                self._set_up_to(number, seq)
                return False
        self._put(number, block, seqs_by_word)
        self._set_up_to(number, revision)
        return True

    def seqs_with(self, number: int, query: Query, *, before: int) -> Iterator[int]:
        """Yield the seqs of messages in which the query may occur, the highest first.

        Args:
            number: The conversation.
            query: The query.
            before: Only seqs lower than this.
        """
        (first, is_prefix), *others = (
            (word, term.is_prefix) for term in query.terms for word in term.words
        )
        rows = self._db.execute(
            "SELECT block, seqs FROM word_blocks CROSS JOIN words USING (conversation, block)"
            " WHERE conversation = ? AND block <= ? AND word BETWEEN ? AND ? ORDER BY block DESC",
            (number, before // BLOCK, *_range_of(first, is_prefix=is_prefix)),
        )
        for block, found in groupby(rows, key=lambda row: int(row["block"])):
            seqs = _union(found)
            for word, is_prefix in others:
                if not seqs:
                    break
                seqs &= _union(
                    self._db.execute(
                        "SELECT seqs FROM words"
                        " WHERE conversation = ? AND block = ? AND word BETWEEN ? AND ?",
                        (number, block, *_range_of(word, is_prefix=is_prefix)),
                    )
                )
            for bit in reversed(range(seqs.bit_length())):
                seq = block * BLOCK + bit
                if seqs >> bit & 1 and seq < before:
                    yield seq

    def forget(self, number: int, seq: int) -> None:
        """Remove the words of the block in which a message has changed."""
        self.free(number, above=seq - 1, up_to=seq, limit=NO_LIMIT)

    def free(self, number: int, *, above: int, up_to: int, limit: int) -> int:
        """Free words of the blocks with the seqs from ``above + 1`` to ``up_to``.

        If ``up_to`` is ``MAX_REVISION``, the conversation has ended. At most ``limit`` times
        ``WORDS_PER_ROW`` words are freed.

        Returns:
            As how many rows they count, fewer than ``limit`` only if there are no more.
        """
        first, last = (above + 1) // BLOCK, up_to // BLOCK
        # Searches add the words of all later messages again.
        indexes = self._db.execute(
            "UPDATE word_indexes SET up_to = min(up_to, ?) WHERE conversation = ?",
            (first * BLOCK - 1, number),
        )
        if not indexes.rowcount:
            return 0
        freed = self._db.execute(
            "DELETE FROM words WHERE (conversation, block, word) IN (SELECT conversation, block,"
            " word FROM words WHERE conversation = ? AND block BETWEEN ? AND ? LIMIT ?)",
            (number, first, last, limit * WORDS_PER_ROW),
        ).rowcount
        if freed < limit * WORDS_PER_ROW or limit == NO_LIMIT:
            self._db.execute(
                "DELETE FROM word_blocks WHERE conversation = ? AND block BETWEEN ? AND ?",
                (number, first, last),
            )
            if up_to == MAX_REVISION:
                self._db.execute("DELETE FROM word_indexes WHERE conversation = ?", (number,))
        return ceil(freed / WORDS_PER_ROW)

    def _put(self, number: int, block: int, seqs_by_word: dict[str, int]) -> None:
        if not seqs_by_word:
            return
        self._db.execute("INSERT OR IGNORE INTO word_blocks VALUES (?, ?)", (number, block))
        self._db.executemany(
            "INSERT INTO words VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET seqs = seqs | excluded.seqs",
            ((number, block, word, seqs_by_word[word]) for word in sorted(seqs_by_word)),
        )

    def _set_up_to(self, number: int, seq: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO word_indexes VALUES (?, ?)", (number, seq))


def _range_of(word: str, *, is_prefix: bool) -> tuple[str, str]:
    return word, f"{word}\U0010ffff" if is_prefix else word


def _union(rows: Iterable[sqlite3.Row]) -> int:
    union = 0
    for row in rows:
        union |= row["seqs"]
    return union
