"""Embeddings of items, and the ranking of items by them."""

import math
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from heapq import nlargest
from operator import itemgetter, mul
from struct import pack, unpack
from typing import Final

from chatledger.errors import InvalidArgument
from chatledger.langgraph.items import StoredItem

MAX_RANKED_ITEMS: Final = 10_000
"""The most items that one semantic search ranks. It reads every one of them."""


def unit_vector(vector: Sequence[float], dims: int) -> list[float]:
    """Return the vector at length 1; one of zeros stays as it is.

    Raises:
        InvalidArgument: It does not have ``dims`` dimensions, or is not finite.
    """
    if len(vector) != dims:
        raise InvalidArgument(
            f"embed returned a vector of {len(vector):,} dimensions; index['dims'] is {dims:,}."
        )
    numbers = [float(number) for number in vector]
    length = math.hypot(*numbers)
    if not math.isfinite(length):
        raise InvalidArgument("embed returned a vector with a number that is not finite.")
    return [number / length for number in numbers] if length else numbers


def pack_vector(vector: Sequence[float]) -> str:
    """Return the vector as text: 32 bits a number, as models compute them, in base64."""
    return b64encode(pack(f"<{len(vector)}f", *vector)).decode()


def unpack_vector(text: str, dims: int) -> tuple[float, ...]:
    """Return the vector that was packed.

    Raises:
        InvalidArgument: It has another number of dimensions.
    """
    data = b64decode(text)
    if len(data) != 4 * dims:
        raise InvalidArgument(
            f"An item has an embedding of {len(data) // 4:,} dimensions; index['dims'] is {dims:,}."
            " Put the items again that another model has embedded, or search another namespace."
        )
    return unpack(f"<{dims}f", data)


class Ranking:
    """The first items of a search: the most similar to a query, or the first ones found.

    It holds no more than ``wanted`` items of each kind, however many are added.

    Args:
        query: The embedding of the query at length 1; None ranks nothing.
        wanted: The most items to return.
    """

    def __init__(self, query: list[float] | None, wanted: int) -> None:
        self._query = query
        self._wanted = wanted
        self._ranked_items = 0
        self._scored: list[tuple[float, StoredItem]] = []
        self._unscored: list[StoredItem] = []

    @property
    def is_complete(self) -> bool:
        """True if no further item can be among the first."""
        return self._query is None and len(self._unscored) >= self._wanted

    def add(self, items: Iterable[StoredItem]) -> None:
        """Rank these items as well.

        Raises:
            InvalidArgument: They are more than one search ranks.
        """
        scored = []
        for item in items:
            if self._query is None or not item.vectors:
                if len(self._unscored) < self._wanted:
                    self._unscored.append(item)
                continue
            self._ranked_items += 1
            if self._ranked_items > MAX_RANKED_ITEMS:
                raise InvalidArgument(
                    f"More than {MAX_RANKED_ITEMS:,} embedded items match, which are too many to "
                    "rank; search with a longer namespace or a filter, or keep the embeddings in a "
                    "vector database."
                )
            scored.append((self._score(self._query, item), item))
        self._scored = nlargest(self._wanted, self._scored + scored, key=itemgetter(0))

    def results(self) -> list[tuple[float | None, StoredItem]]:
        """Return the first items and their scores: the highest first, then those without one."""
        return [*self._scored, *((None, item) for item in self._unscored)][: self._wanted]

    @staticmethod
    def _score(query: list[float], item: StoredItem) -> float:
        """Return the cosine of the angle between the query and the closest vector of the item."""
        vectors = (unpack_vector(text, len(query)) for text in item.vectors)
        score: float = max(sum(map(mul, query, vector)) for vector in vectors)
        return score
