"""Sizes of items, and the capacity units that reads and writes consume."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chatledger.stores.dynamodb.calls import Item
from tests.simulation.expressions import Unsupported

WRITE_UNIT, READ_UNIT = 1024, 4096  # bytes
MAX_ITEM_BYTES = 400 * 1024


@dataclass(slots=True)
class Units:
    """Capacity units that a call consumes of the table, and of its index."""

    table: float = 0.0
    index: float = 0.0

    def add(self, other: "Units", times: int = 1) -> None:
        self.table += times * other.table
        self.index += times * other.index

    def as_reply(self, detail: str, *, table: str, index: str) -> dict[str, Any]:
        """Return the ``ConsumedCapacity`` of a reply, in the detail that the call asks for."""
        capacity: dict[str, Any] = {"TableName": table, "CapacityUnits": self.table + self.index}
        match detail:
            case "TOTAL":
                pass
            case "INDEXES":
                capacity["Table"] = {"CapacityUnits": self.table}
                if self.index:
                    capacity["GlobalSecondaryIndexes"] = {index: {"CapacityUnits": self.index}}
            case _:
                raise Unsupported(f"ReturnConsumedCapacity {detail}")
        return capacity


def item_size(item: Item) -> int:
    """Return the item's size in bytes, as in AWS's "DynamoDB item sizes and formats"."""
    size = 0
    for name, attribute in item.items():
        size += _text_size(name)
        for kind, value in attribute.items():
            if kind == "S":
                size += _text_size(value)
            elif kind == "N":
                size += _number_size(value)
            elif kind == "B":
                size += len(value)
            else:
                size += 1
    return size


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _number_size(value: str) -> int:
    """Return the size in bytes: one for two digits, one more, and one for a minus sign.

    Pairs of trailing zeros take no space.
    """
    if value == "0":
        return 1
    digits = value.removeprefix("-")
    pairs = (len(digits) + 1) // 2
    while digits.endswith("00"):
        digits, pairs = digits[:-2], pairs - 1
    return pairs + 1 + (value[0] == "-")


def write_units(*sizes: int) -> int:
    """Return the units of a write, given the item's sizes before and after: the larger counts."""
    return max(1, -(-max(sizes) // WRITE_UNIT))


def read_units(size: int, *, consistent: bool) -> float:
    units = max(1, -(-size // READ_UNIT))
    return float(units) if consistent else units / 2


def index_units(before: Item | None, after: Item | None, keys: Iterable[str]) -> int:
    """Return what a write consumes of an index.

    Args:
        before: The item in the index before the write; None if the index does not contain it.
        after: The same after the write.
        keys: The names of the index's key attributes.
    """
    if before == after:
        return 0
    old = 0 if before is None else item_size(before)
    new = 0 if after is None else item_size(after)
    if before and after and any(before[key] != after[key] for key in keys):
        return write_units(old) + write_units(new)  # deleted, and put under the new key
    return write_units(old, new)
