"""Where the items of a simulated table lie: by partition, in the order of their sort keys."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias
from zlib import crc32

from chatledger.stores.dynamodb.calls import Item

Key: TypeAlias = tuple[str, str]
"""A partition key and a sort key."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index of all attributes, with a partition key of type S and a sort key of type N."""

    name: str
    partition: str
    sort: str

    def holds(self, item: Item | None) -> bool:
        return item is not None and self.partition in item and self.sort in item

    def place(self, item: Item) -> tuple[int, str, str]:
        """Where in its partition the item lies."""
        return int(item[self.sort]["N"]), item["pk"]["S"], item["sk"]["S"]


class Items:
    """Items by their keys, and those that the index holds."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._partitions: dict[str, dict[str, Item]] = {}
        self._sorted: dict[str, list[str]] = {}
        self._indexed: dict[Key, Item] = {}
        self.count = 0

    def get(self, key: Key) -> Item | None:
        items = self._partitions.get(key[0])
        return None if items is None else items.get(key[1])

    def put(self, key: Key, item: Item) -> None:
        pk, sk = key
        items = self._partitions.setdefault(pk, {})
        if sk not in items:
            insort(self._sorted.setdefault(pk, []), sk)
            self.count += 1
        items[sk] = item
        if self._index.holds(item):
            self._indexed[key] = item
        else:
            self._indexed.pop(key, None)

    def delete(self, key: Key) -> None:
        pk, sk = key
        items = self._partitions.get(pk, {})
        if items.pop(sk, None) is None:
            return
        self.count -= 1
        sorts = self._sorted[pk]
        del sorts[bisect_left(sorts, sk)]
        if not items:
            del self._partitions[pk], self._sorted[pk]
        self._indexed.pop(key, None)

    def within(
        self, pk: str, least: str | None, most: str | None, *, behind: str | None, forward: bool
    ) -> Iterator[Item]:
        """The partition's items between two sort keys, those included, from ``behind`` on."""
        sorts = self._sorted.get(pk, [])
        low = 0 if least is None else bisect_left(sorts, least)
        high = len(sorts) if most is None else bisect_right(sorts, most)
        if behind is not None and forward:
            low = max(low, bisect_right(sorts, behind))
        elif behind is not None:
            high = min(high, bisect_left(sorts, behind))
        found = sorts[low:high] if forward else sorts[low:high][::-1]
        items = self._partitions.get(pk, {})
        return (items[sk] for sk in found)

    def indexed(self, value: str) -> list[Item]:
        """The index's items under that partition key, in their order."""
        name = self._index.partition
        found = [item for item in self._indexed.values() if item[name]["S"] == value]
        return sorted(found, key=self._index.place)

    def all(self, *, behind: Key | None = None) -> Iterator[Item]:
        """Every item, partition by partition; the partitions come in the order of their hashes."""
        for pk in sorted(self._partitions, key=_hashed):
            if behind is None or _hashed(pk) > _hashed(behind[0]):
                yield from self.within(pk, None, None, behind=None, forward=True)
            elif pk == behind[0]:
                yield from self.within(pk, None, None, behind=behind[1], forward=True)


def _hashed(pk: str) -> tuple[int, str]:
    return crc32(pk.encode()), pk


def is_overdue(item: Item, time: int) -> bool:
    return "expires_at" in item and int(item["expires_at"]["N"]) < time
