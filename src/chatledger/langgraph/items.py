"""Items of LangGraph's store as entries of an owner.

The entry of an item is named ``langgraph NUL label NUL label NUL NUL key``. No label is empty or
contains NUL, so the first two NULs in a row end the namespace, and a key may be any text. The items
of a namespace and of those below it have names with a common beginning, which no other names have.
The names have the order of the namespaces and keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from langgraph.store.base import Item, SearchItem

from chatledger.entries import MAX_ENTRY_NAME_BYTES, Entry
from chatledger.errors import InvalidArgument
from chatledger.stores.arguments import checked_lifetime
from chatledger.values import Json, checked_text, milliseconds_since_epoch, to_datetime

ROOT: Final = "langgraph"
"""The beginning of all names, so that other entries of the owner are not taken for items."""
_SEPARATOR: Final = "\0"


def name_of(namespace: tuple[str, ...], key: str) -> str:
    """Return the name of the item's entry.

    Raises:
        InvalidArgument: A label or the key is no text, or all of them together are too long.
    """
    return _joined(namespace, "", checked_text(key, "key", error=InvalidArgument))


def prefix_of(namespace: tuple[str, ...]) -> str:
    """Return the beginning of the names of all items in the namespace and below it."""
    return _joined(namespace, "")


def split_name(name: str) -> tuple[tuple[str, ...], str]:
    """Return the namespace and the key from which the name was made."""
    labels, _, key = name.partition(2 * _SEPARATOR)
    return tuple(labels.split(_SEPARATOR)[1:]), key


def end_of_namespace(namespace: tuple[str, ...]) -> str:
    """Return a text that comes after the names of all items in the namespace itself, and before
    those of the namespaces below it."""
    return _joined(namespace, "\1")


def _joined(namespace: tuple[str, ...], *rest: str) -> str:
    if not isinstance(namespace, tuple | list):
        raise InvalidArgument(
            f"The namespace is of type {type(namespace).__name__}; it must be a tuple of labels."
        )
    for label in namespace:
        text = checked_text(label, "a label of the namespace", error=InvalidArgument)
        if not text or _SEPARATOR in text:
            raise InvalidArgument(
                "A label of the namespace is empty or contains NUL; give each a text without it."
            )
    name = _SEPARATOR.join((ROOT, *namespace, *rest))
    if (size := len(name.encode())) > MAX_ENTRY_NAME_BYTES:
        raise InvalidArgument(
            f"The namespace and the key need a name of {size:,} bytes in UTF-8, over the limit of "
            f"{MAX_ENTRY_NAME_BYTES:,}; use shorter labels or a shorter key."
        )
    return name


def checked_ttl(minutes: object) -> float | None:
    """Return a TTL in minutes, or None.

    Raises:
        InvalidArgument: It is not a number, or not from 1 second to 36,500 days.
    """
    if minutes is None:
        return None
    if not isinstance(minutes, int | float) or isinstance(minutes, bool):
        raise InvalidArgument(
            f"ttl is of type {type(minutes).__name__}; it must be a number of minutes."
        )
    try:
        lifetime = timedelta(minutes=minutes)
    except (OverflowError, ValueError):
        raise InvalidArgument(f"ttl is {minutes}; it must be a number of minutes.") from None
    checked_lifetime(lifetime, "ttl")
    return minutes


def lifetime_of(ttl: float | None) -> timedelta | None:
    """Return a TTL in minutes as the lifetime of an entry."""
    return None if ttl is None else timedelta(minutes=ttl)


def content_of(
    value: dict[str, Any],
    *,
    created_at: datetime | None,
    updated_at: datetime | None = None,
    ttl: float | None,
    vectors: Sequence[str],
) -> dict[str, Json]:
    """Return what the entry of an item holds.

    Args:
        value: The value of the item.
        created_at: When it was created; None if the entry is put for the first time.
        updated_at: When its value was put, if that is not when the entry is put.
        ttl: Its lifetime after each access, in minutes.
        vectors: Its embeddings, as ``pack`` returns them.
    """
    content: dict[str, Json] = {"value": value}
    if created_at is not None:
        content["created_at"] = milliseconds_since_epoch(created_at)
    if updated_at is not None:
        content["updated_at"] = milliseconds_since_epoch(updated_at)
    if ttl is not None:
        content["ttl"] = ttl
    if vectors:
        content["vectors"] = [*vectors]
    return content


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as its entry holds it; ``content_of`` describes the fields."""

    name: str
    revision: int
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl: float | None
    vectors: Sequence[str]

    @classmethod
    def of(cls, entry: Entry) -> "StoredItem":
        """Return the item that the entry holds."""
        content = cast(dict[str, Any], entry.value)

        def time(name: str) -> datetime:
            return to_datetime(content[name]) if name in content else entry.updated_at

        return cls(
            name=entry.name,
            revision=entry.revision,
            value=content["value"],
            created_at=time("created_at"),
            updated_at=time("updated_at"),
            ttl=content.get("ttl"),
            vectors=content.get("vectors", ()),
        )

    @property
    def content(self) -> dict[str, Json]:
        """The value of an entry that replaces this one and leaves the item as it is."""
        return content_of(
            self.value,
            created_at=self.created_at,
            updated_at=self.updated_at,
            ttl=self.ttl,
            vectors=self.vectors,
        )

    def as_item(self) -> Item:
        namespace, key = split_name(self.name)
        return Item(
            value=self.value,
            key=key,
            namespace=namespace,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )

    def as_search_item(self, score: float | None) -> SearchItem:
        namespace, key = split_name(self.name)
        return SearchItem(namespace, key, self.value, self.created_at, self.updated_at, score)
