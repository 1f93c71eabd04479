"""The items of a simulated table: by partition, in the order of their sort keys."""

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
    """A global secondary index of all attributes.

    ``partition`` and ``sort`` are the names of its key attributes, of types S and N.
    """

    name: str
    partition: str
    sort: str

    def contains(self, item: Item | None) -> bool:
        return item is not None and self.partition in item and self.sort in item

    def sort_key(self, item: Item) -> tuple[int, str, str]:
        """Return the key by which items of one index partition are ordered."""
        return int(item[self.sort]["N"]), item["pk"]["S"], item["sk"]["S"]


class Items:
    """The items of a table by key, and those that its index contains."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._partitions: dict[str, dict[str, Item]] = {}
        self._sort_keys: dict[str, list[str]] = {}
        self._indexed: dict[Key, Item] = {}
        self._index_updates: list[tuple[Key, Item | None]] | None = None
        self._uncommitted: dict[Key, Item | None] = {}
        self._changes: dict[str, list[tuple[str, Item | None]]] | None = None
        self.count = 0

    def get(self, key: Key) -> Item | None:
        """Return the item of a read or write by its key.

        DynamoDB refuses a call of an item that a transaction has locked, and it is made again after
        the commit; here the call itself commits the transaction.
        """
        if key in self._uncommitted:
            self.commit()
        items = self._partitions.get(key[0])
        return None if items is None else items.get(key[1])

    def put(self, key: Key, item: Item) -> None:
        pk, sk = key
        items = self._partitions.setdefault(pk, {})
        self._note_change(pk, sk, items.get(sk))
        if sk not in items:
            insort(self._sort_keys.setdefault(pk, []), sk)
            self.count += 1
        items[sk] = item
        self._update_index(key, item if self._index.contains(item) else None)

    def delete(self, key: Key) -> None:
        pk, sk = key
        items = self._partitions.get(pk, {})
        old = items.pop(sk, None)
        if old is None:
            return
        self._note_change(pk, sk, old)
        self.count -= 1
        sort_keys = self._sort_keys[pk]
        del sort_keys[bisect_left(sort_keys, sk)]
        if not items:
            del self._partitions[pk], self._sort_keys[pk]
        self._update_index(key, None)

    # What reads see late -------------------------------------------------------------------------

    def delay_index(self, *, delay: bool) -> None:
        """Keep changes from the index until ``update_index`` applies them, or no longer."""
        self.update_index()
        self._index_updates = [] if delay else None

    def update_index(self, number: int | None = None) -> None:
        """Apply the oldest ``number`` of the changes kept from the index; all if it is None."""
        updates = self._index_updates or []
        for key, item in updates[:number]:
            self._set_indexed(key, item)
        if self._index_updates is not None:
            self._index_updates = [] if number is None else updates[number:]

    def _update_index(self, key: Key, item: Item | None) -> None:
        if self._index_updates is None:
            self._set_indexed(key, item)
        else:
            self._index_updates.append((key, item))

    def _set_indexed(self, key: Key, item: Item | None) -> None:
        if item is None:
            self._indexed.pop(key, None)
        else:
            self._indexed[key] = item

    def hide_from_queries(self, key: Key, old: Item | None) -> None:
        """Let queries and scans see the item as ``old`` until ``commit``, or until it is used."""
        self._uncommitted[key] = old

    def commit(self) -> None:
        """Let queries and scans see every item as it is."""
        self._uncommitted.clear()

    def keep_changes(self) -> None:
        """Forget all changes, and remember those from now on, for ``in_stale_partition``."""
        self._changes = {}

    def _note_change(self, pk: str, sk: str, old: Item | None) -> None:
        if self._changes is not None:
            self._changes.setdefault(pk, []).append((sk, old))

    def in_stale_partition(
        self, pk: str, low: str, high: str, *, after: str | None, forward: bool, age: int
    ) -> Iterator[Item]:
        """Return what ``in_partition`` does, as it was before the last ``age`` changes.

        Like a consistent query, it does not see what a transaction has not committed.
        """
        items = self._committed(pk)
        changes = (self._changes or {}).get(pk, [])
        for sk, old in reversed(changes[-age:] if age else []):
            if old is None:
                items.pop(sk, None)
            else:
                items[sk] = old
        found = sorted(sk for sk in items if low <= sk <= high)
        if after is not None:
            found = [sk for sk in found if (sk > after if forward else sk < after)]
        return (items[sk] for sk in (found if forward else reversed(found)))

    # Reads ---------------------------------------------------------------------------------------

    def in_partition(
        self, pk: str, low: str | None, high: str | None, *, after: str | None, forward: bool
    ) -> Iterator[Item]:
        """Return the partition's items between two sort keys, inclusive, in order.

        Args:
            pk: The partition key.
            low: The lowest sort key; None: no limit.
            high: The highest sort key; None: no limit.
            after: The sort key, in the order of the read, after which to start.
            forward: Whether to read in ascending order.
        """
        if self._uncommitted:
            yield from self._seen_in_part(pk, low, high, after=after, forward=forward)
            return
        sort_keys = self._sort_keys.get(pk, [])
        start = 0 if low is None else bisect_left(sort_keys, low)
        end = len(sort_keys) if high is None else bisect_right(sort_keys, high)
        if after is not None and forward:
            start = max(start, bisect_right(sort_keys, after))
        elif after is not None:
            end = min(end, bisect_left(sort_keys, after))
        found = sort_keys[start:end] if forward else sort_keys[start:end][::-1]
        items = self._partitions.get(pk, {})
        for sk in found:
            yield items[sk]

    def _seen_in_part(
        self, pk: str, low: str | None, high: str | None, *, after: str | None, forward: bool
    ) -> Iterator[Item]:
        """Return what ``in_partition`` does while parts of a transaction are not committed."""
        items = self._committed(pk)
        found = sorted(
            sk for sk in items if (low is None or low <= sk) and (high is None or sk <= high)
        )
        if after is not None:
            found = [sk for sk in found if (sk > after if forward else sk < after)]
        for sk in found if forward else reversed(found):
            yield items[sk]

    def _committed(self, pk: str) -> dict[str, Item]:
        """Return the partition's items by sort key, without what is hidden from queries."""
        items = dict(self._partitions.get(pk, {}))
        for (of_pk, sk), old in self._uncommitted.items():
            if of_pk == pk and old is None:
                items.pop(sk, None)
            elif of_pk == pk and old is not None:
                items[sk] = old
        return items

    def in_index(self, value: str) -> list[Item]:
        """Return the items of one partition of the index, in ascending order."""
        name = self._index.partition
        found = [item for item in self._indexed.values() if item[name]["S"] == value]
        return sorted(found, key=self._index.sort_key)

    def all(self, *, after: Key | None = None) -> Iterator[Item]:
        """Yield every item, or those after a key: by partition, in the order of their hashes."""
        for pk in sorted(self._partitions, key=_hash):
            if after is None or _hash(pk) > _hash(after[0]):
                yield from self.in_partition(pk, None, None, after=None, forward=True)
            elif pk == after[0]:
                yield from self.in_partition(pk, None, None, after=after[1], forward=True)


def _hash(pk: str) -> tuple[int, str]:
    return crc32(pk.encode()), pk


def is_overdue(item: Item, time: int) -> bool:
    """Return whether TTL may delete the item at that time (seconds since 1970)."""
    return "expires_at" in item and int(item["expires_at"]["N"]) < time
