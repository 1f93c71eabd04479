"""How large items are, and how many capacity units reading and writing them takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chatledger.stores.dynamodb.calls import Item
from chatledger.testing.simulation.expressions import Unknown

WRITE_UNIT, READ_UNIT = 1024, 4096
ITEM_BYTES = 400 * 1024


@dataclass(slots=True)
class Units:
    """Capacity units that a call takes of the table, and of its index."""

    table: float = 0.0
    index: float = 0.0

    def add(self, other: "Units", times: int = 1) -> None:
        self.table += times * other.table
        self.index += times * other.index

    def told(self, how: str, *, table: str, index: str) -> dict[str, Any]:
        """As a reply tells them, where it is asked to tell them so."""
        told: dict[str, Any] = {"TableName": table, "CapacityUnits": self.table + self.index}
        match how:
            case "TOTAL":
                pass
            case "INDEXES":
                told["Table"] = {"CapacityUnits": self.table}
                if self.index:
                    told["GlobalSecondaryIndexes"] = {index: {"CapacityUnits": self.index}}
            case _:
                raise Unknown(f"ReturnConsumedCapacity {how}")
        return told


def item_size(item: Item) -> int:
    """The item's size in bytes (AWS: item sizes and formats)."""
    size = 0
    for name, attribute in item.items():
        size += _bytes(name)
        for kind, value in attribute.items():
            if kind == "S":
                size += _bytes(value)
            elif kind == "N":
                size += _number_size(value)
            elif kind == "B":
                size += len(value)
            else:
                size += 1
    return size


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _number_size(value: str) -> int:
    """A byte for two digits, zeros at the end left out in pairs, one for the rest, one for -."""
    if value == "0":
        return 1
    digits = value.removeprefix("-")
    pairs = (len(digits) + 1) // 2
    while digits.endswith("00"):
        digits, pairs = digits[:-2], pairs - 1
    return pairs + 1 + (value[0] == "-")


def write_units(*sizes: int) -> int:
    """For a write that makes an item of one size one of another: the larger counts."""
    return max(1, -(-max(sizes) // WRITE_UNIT))


def read_units(size: int, *, consistent: bool) -> float:
    units = max(1, -(-size // READ_UNIT))
    return float(units) if consistent else units / 2


def index_units(before: Item | None, after: Item | None, keys: Iterable[str]) -> int:
    """What an index takes for a write; None where it does not hold the item."""
    if before == after:
        return 0
    old = 0 if before is None else item_size(before)
    new = 0 if after is None else item_size(after)
    if before and after and any(before[key] != after[key] for key in keys):
        return write_units(old) + write_units(new)  # deleted there, and put elsewhere
    return write_units(old, new)
