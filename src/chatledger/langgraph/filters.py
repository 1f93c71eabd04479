"""The filters of searches, and the conditions on namespaces."""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from operator import ge, gt, le, lt
from typing import Any, Final, TypeAlias

from langgraph.store.base import MatchCondition

from chatledger.errors import InvalidArgument

Test: TypeAlias = Callable[[Any], bool]

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "$gt": gt,
    "$gte": ge,
    "$lt": lt,
    "$lte": le,
}


def fields_test(wanted: Mapping[str, Any]) -> Test:
    """Return the test of whether a dict has all these fields.

    ``ChatledgerStore`` describes the filter.

    Raises:
        InvalidArgument: The filter is not a dict, or an operator does not exist or is given
            something other than a number.
    """
    if not isinstance(wanted, Mapping):
        raise InvalidArgument(f"filter is of type {type(wanted).__name__}; it must be a dict.")
    tests = [(field, _value_test(value)) for field, value in wanted.items()]
    return lambda value: (
        isinstance(value, dict) and all(test(value.get(field)) for field, test in tests)
    )


def _value_test(wanted: Any) -> Test:
    if isinstance(wanted, dict):
        if any(str(field).startswith("$") for field in wanted):
            operators = [_operator_test(name, operand) for name, operand in wanted.items()]
            return lambda value: all(test(value) for test in operators)
        return fields_test(wanted)
    if isinstance(wanted, list | tuple):
        tests = [_value_test(element) for element in wanted]
        return lambda value: (
            isinstance(value, list)
            and len(value) == len(tests)
            and all(test(element) for test, element in zip(tests, value, strict=True))
        )
    return lambda value: bool(value == wanted)


def _operator_test(name: str, operand: Any) -> Test:
    if name == "$eq":
        return lambda value: bool(value == operand)
    if name == "$ne":
        return lambda value: bool(value != operand)
    if name not in _COMPARISONS:
        raise InvalidArgument(
            f"The filter has the operator {name!r}; it must be $eq, $ne, $gt, $gte, $lt or $lte."
        )
    compare, number = _COMPARISONS[name], _number(operand)
    if math.isnan(number):
        raise InvalidArgument(
            f"The filter compares {name} with something that is not a number; give it a number."
        )
    return lambda value: compare(_number(value), number)


def _number(value: Any) -> float:
    """Return the value as a number, or NaN, with which no comparison holds."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    """Return whether the namespace begins or ends with the condition's path; ``*`` in it stands
    for any label."""
    path = condition.path
    if condition.match_type == "prefix":
        labels = namespace[: len(path)]
    elif condition.match_type == "suffix":
        labels = namespace[len(namespace) - len(path) :] if len(path) <= len(namespace) else ()
    else:
        raise InvalidArgument(
            f"match_type is {condition.match_type!r}; it must be 'prefix' or 'suffix'."
        )
    return len(labels) == len(path) and all(
        wanted in ("*", label) for wanted, label in zip(path, labels, strict=True)
    )


def common_beginning(conditions: Iterable[MatchCondition]) -> tuple[str, ...]:
    """Return labels with which every namespace begins that meets all conditions."""
    paths = (condition.path for condition in conditions if condition.match_type == "prefix")
    beginnings = (tuple(takewhile(lambda label: label != "*", path)) for path in paths)
    return max(beginnings, key=len, default=())
