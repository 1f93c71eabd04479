"""What a call's parameters say, checked as DynamoDB checks them.

What it would refuse is ``CallFailed``; what this simulation does not know is ``Unknown``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from chatledger.stores.dynamodb.calls import Attribute, CallFailed, Item
from chatledger.testing.simulation import expressions
from chatledger.testing.simulation.capacity import ITEM_BYTES, item_size
from chatledger.testing.simulation.expressions import Condition, KeyCondition, Unknown, Update
from chatledger.testing.simulation.items import Index, Key

Params: TypeAlias = Mapping[str, Any]

PARTITION_KEY_BYTES, SORT_KEY_BYTES = 2048, 1024

_ALWAYS = frozenset({"TableName", "ReturnConsumedCapacity"})
_PLACEHOLDERS = ("ExpressionAttributeNames", "ExpressionAttributeValues")
CONDITIONAL = ("ConditionExpression", "ReturnValuesOnConditionCheckFailure", *_PLACEHOLDERS)
READING = (
    "FilterExpression",
    "ProjectionExpression",
    "ExclusiveStartKey",
    "ConsistentRead",
    "Limit",
    *_PLACEHOLDERS,
)


def invalid(why: str) -> CallFailed:
    return CallFailed("ValidationException", why)


def check_known(params: Params, *names: str) -> None:
    for name in params:
        if name not in names and name not in _ALWAYS:
            raise Unknown(f"the parameter {name}")


def key_of(item: Item) -> Key:
    """The item's key. Raises where it is none."""
    if "pk" not in item or "sk" not in item:
        raise invalid("The provided key element does not match the schema")
    key = []
    for name, limit in (("pk", PARTITION_KEY_BYTES), ("sk", SORT_KEY_BYTES)):
        value = item[name].get("S")
        if value is None:
            raise invalid(f"Type mismatch for key {name}")
        if not value or (len(value) * 4 > limit and len(value.encode()) > limit):
            raise invalid(f"Size of {name} must be 1 to {limit} bytes")
        key.append(value)
    return key[0], key[1]


def key_alone(item: Item) -> Key:
    """The key, where there is nothing else."""
    if len(item) != 2:
        raise invalid("The provided key element does not match the schema")
    return key_of(item)


def checked_size(item: Item, index: Index) -> int:
    """How large it is. Raises unless it can be put into a table with that index."""
    if (size := item_size(item)) > ITEM_BYTES:
        raise invalid("Item size has exceeded the maximum allowed size")
    for name, attribute in item.items():
        ((kind, value),) = attribute.items()
        if kind not in ("S", "N", "B", "BOOL"):
            raise Unknown(f"the type {kind} of {name}")
        if kind == "N" and str(int(value)) != value:
            raise Unknown(f"the number {value} of {name}")
    for name, kind in ((index.partition, "S"), (index.sort, "N")):
        if name in item:
            value = item[name].get(kind)
            if value is None:
                raise invalid(f"Type mismatch for index key {name}")
            if not 0 < len(value.encode()) <= PARTITION_KEY_BYTES:
                raise invalid(f"Size of index key {name}")
    return size


def placeholders(params: Params) -> tuple[dict[str, str], dict[str, Attribute]]:
    """The names and values that expressions mention."""
    return (params.get("ExpressionAttributeNames", {}), params.get("ExpressionAttributeValues", {}))


_NOTHING: frozenset[str] = frozenset()


def check_placeholders(
    params: Params, *used: Condition | KeyCondition | Update, names: Iterable[str] = ()
) -> None:
    """DynamoDB refuses a name or value that is missing, and one that nothing mentions."""
    if len(used) == 1 and not names:
        wanted, wanted_values = used[0].names, used[0].values
    else:
        wanted = frozenset(names).union(*(one.names for one in used))
        wanted_values = _NOTHING.union(*(one.values for one in used))
    given, values = placeholders(params)
    if given.keys() != wanted or values.keys() != wanted_values:
        wrong = (given.keys() ^ wanted) | (values.keys() ^ wanted_values)
        raise invalid(f"placeholders that nothing mentions, or that are missing: {sorted(wrong)}")


def condition(params: Params, *beside: Update) -> Condition | None:
    """The condition of a write, which may say more ``beside``."""
    text = params.get("ConditionExpression")
    test = None if text is None else expressions.condition(text)
    check_placeholders(params, *([] if test is None else [test]), *beside)
    return test


def holds(test: Condition | None, params: Params, item: Item | None) -> bool:
    return test is None or test.holds(item or {}, *placeholders(params))


def shown_on_failure(params: Params, item: Item | None) -> Item | None:
    """What the failure of a condition tells of the item that is there."""
    asked = params.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    return item if asked else None


class Shown:
    """Which items a read shows, and what of them."""

    __slots__ = ("_filter", "_names", "_projected", "_values")

    def __init__(self, params: Params, key_condition: KeyCondition | None = None) -> None:
        self._names, self._values = placeholders(params)
        self._filter: Condition | None = None
        used: list[Condition | KeyCondition] = [] if key_condition is None else [key_condition]
        names: tuple[str, ...] = ()
        if "FilterExpression" in params:
            self._filter = expressions.condition(params["FilterExpression"])
            used.append(self._filter)
        if "ProjectionExpression" in params:
            names = expressions.projection(params["ProjectionExpression"])
        check_placeholders(params, *used, names=names)
        if self._filter and any(self._names[name] in ("pk", "sk") for name in self._filter.names):
            raise invalid("Filter Expression can only contain non-primary key attributes")
        self._projected = [self._names[name] for name in names]

    def passes(self, item: Item) -> bool:
        return self._filter is None or self._filter.holds(item, self._names, self._values)

    def of(self, item: Item) -> Item:
        if not self._projected:
            return item
        return {name: item[name] for name in self._projected if name in item}
