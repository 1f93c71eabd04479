"""Check the parameters of calls as DynamoDB does.

What DynamoDB would refuse raises ``CallFailed``; what this simulation does not support raises
``Unsupported``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from chatledger.stores.dynamodb.calls import Attribute, CallFailed, Item
from tests.simulation import expressions
from tests.simulation.capacity import MAX_ITEM_BYTES, item_size
from tests.simulation.expressions import Condition, KeyCondition, Unsupported, Update
from tests.simulation.items import Index, Key

Params: TypeAlias = Mapping[str, Any]

PARTITION_KEY_BYTES, SORT_KEY_BYTES = 2048, 1024  # the most that DynamoDB takes

_EVERY_CALL = frozenset({"TableName", "ReturnConsumedCapacity"})
_PLACEHOLDERS = ("ExpressionAttributeNames", "ExpressionAttributeValues")
CONDITIONAL = ("ConditionExpression", "ReturnValuesOnConditionCheckFailure", *_PLACEHOLDERS)
"""The parameters of a conditional write."""
READING = (
    "FilterExpression",
    "ProjectionExpression",
    "ExclusiveStartKey",
    "ConsistentRead",
    "Limit",
    *_PLACEHOLDERS,
)
"""The parameters that queries and scans share."""


def validation_error(message: str) -> CallFailed:
    return CallFailed("ValidationException", message)


def check_supported(params: Params, *names: str) -> None:
    """Raise ``Unsupported`` unless every parameter is one of ``names``, or one of every call."""
    for name in params:
        if name not in names and name not in _EVERY_CALL:
            raise Unsupported(f"the parameter {name}")


def key_of(item: Item) -> Key:
    """Return the item's key. Raise ``CallFailed`` if it has no valid one."""
    if "pk" not in item or "sk" not in item:
        raise validation_error("The provided key element does not match the schema")
    key = []
    for name, limit in (("pk", PARTITION_KEY_BYTES), ("sk", SORT_KEY_BYTES)):
        value = item[name].get("S")
        if value is None:
            raise validation_error(f"Type mismatch for key {name}")
        if not value or (len(value) * 4 > limit and len(value.encode()) > limit):
            raise validation_error(f"Size of {name} must be 1 to {limit} bytes")
        key.append(value)
    return key[0], key[1]


def key_from_param(item: Item) -> Key:
    """Return the key of a parameter that must hold the two key attributes and nothing else."""
    if len(item) != 2:
        raise validation_error("The provided key element does not match the schema")
    return key_of(item)


def valid_size(item: Item, index: Index) -> int:
    """Return the item's size. Raise ``CallFailed`` if a table with that index does not take it."""
    if (size := item_size(item)) > MAX_ITEM_BYTES:
        raise validation_error("Item size has exceeded the maximum allowed size")
    for name, attribute in item.items():
        ((kind, value),) = attribute.items()
        if kind not in ("S", "N", "B", "BOOL"):
            raise Unsupported(f"the type {kind} of {name}")
        if kind == "N" and str(int(value)) != value:
            raise Unsupported(f"the number {value} of {name}")
    for name, kind in ((index.partition, "S"), (index.sort, "N")):
        if name in item:
            value = item[name].get(kind)
            if value is None:
                raise validation_error(f"Type mismatch for index key {name}")
            if not 0 < len(value.encode()) <= PARTITION_KEY_BYTES:
                raise validation_error(f"Size of index key {name}")
    return size


def placeholders(params: Params) -> tuple[dict[str, str], dict[str, Attribute]]:
    """Return the names and values that placeholders in the expressions stand for."""
    return (params.get("ExpressionAttributeNames", {}), params.get("ExpressionAttributeValues", {}))


_NOTHING: frozenset[str] = frozenset()


def check_placeholders(
    params: Params, *used_in: Condition | KeyCondition | Update, names: Iterable[str] = ()
) -> None:
    """Raise ``CallFailed`` for a name or value that is missing, or that no expression uses.

    ``names`` are further placeholders in use: those of a projection.
    """
    if len(used_in) == 1 and not names:
        used_names, used_values = used_in[0].names, used_in[0].values
    else:
        used_names = frozenset(names).union(*(expression.names for expression in used_in))
        used_values = _NOTHING.union(*(expression.values for expression in used_in))
    given_names, given_values = placeholders(params)
    if given_names.keys() != used_names or given_values.keys() != used_values:
        wrong = (given_names.keys() ^ used_names) | (given_values.keys() ^ used_values)
        raise validation_error(f"Placeholders that are unused or missing: {sorted(wrong)}")


def condition_of(params: Params, *others: Update) -> Condition | None:
    """Return the condition of a write; ``others`` are its other expressions."""
    text = params.get("ConditionExpression")
    condition = None if text is None else expressions.parse_condition(text)
    check_placeholders(params, *([] if condition is None else [condition]), *others)
    return condition


def is_met(condition: Condition | None, params: Params, item: Item | None) -> bool:
    """Return whether the write's condition, if it has one, holds for the item that is there."""
    return condition is None or condition.matches(item or {}, *placeholders(params))


def item_on_failure(params: Params, item: Item | None) -> Item | None:
    """Return the item that a failed condition reports, if the call asks for that."""
    return item if params.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" else None


class Selection:
    """The filter and the projection of a read."""

    __slots__ = ("_filter", "_names", "_projected", "_values")

    def __init__(self, params: Params, key_condition: KeyCondition | None = None) -> None:
        self._names, self._values = placeholders(params)
        self._filter: Condition | None = None
        used_in: list[Condition | KeyCondition] = [] if key_condition is None else [key_condition]
        names: tuple[str, ...] = ()
        if "FilterExpression" in params:
            self._filter = expressions.parse_condition(params["FilterExpression"])
            used_in.append(self._filter)
        if "ProjectionExpression" in params:
            names = expressions.parse_projection(params["ProjectionExpression"])
        check_placeholders(params, *used_in, names=names)
        if self._filter and any(self._names[name] in ("pk", "sk") for name in self._filter.names):
            raise validation_error("Filter Expression can only contain non-primary key attributes")
        self._projected = [self._names[name] for name in names]

    def matches(self, item: Item) -> bool:
        """Return whether the filter lets the item through."""
        return self._filter is None or self._filter.matches(item, self._names, self._values)

    def project(self, item: Item) -> Item:
        """Return the attributes of the item that the read asks for."""
        if not self._projected:
            return item
        return {name: item[name] for name in self._projected if name in item}
