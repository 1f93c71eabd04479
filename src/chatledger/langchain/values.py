"""Python values as DynamoDB attributes that decode to equal values of the same types.

DynamoDB has one number type, of 38 digits, but LangChain's messages hold ints and floats. A number
is stored as a plain DynamoDB number, as by the old class, and read as an int if it is whole and as
a float otherwise. That is right for nearly all numbers. For the rest (``1.0``, ``-0.0``, an int of
50 digits, a tuple) there is a *note*: a path, a kind and the exact text. Software that does not
know about notes sees the nearest number, or text if there is none.
"""

import json
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from typing import Any, TypeAlias

from chatledger.errors import InvalidMessage
from chatledger.stores.dynamodb.calls import Attribute
from chatledger.values import checked_json, checked_text, dumps

Step: TypeAlias = str | int
Note: TypeAlias = tuple[list[Step], str, str]
"""Path to the value, its kind, and its exact text."""

LARGEST, SMALLEST = 10**38, 1e-130
"""Range of absolute values that are stored as DynamoDB numbers. DynamoDB accepts larger numbers if
they end in zeros, but boto3, and so the old class, cannot read more than 38 digits back.
"""
READABLE_BITS = 2_000
MAX_DEPTH = 24
"""Nesting depth from which lists and dicts are stored as JSON text, because DynamoDB allows 32
levels in an item.
"""


def encode_value(value: object, part: str) -> tuple[Attribute, list[Note]]:
    """Return ``value`` as a DynamoDB attribute, with the notes needed to decode it exactly.

    Args:
        part: Name of the value, for errors.

    Raises:
        InvalidMessage: The value cannot be stored; the error names the part at fault.
    """
    notes: list[Note] = []
    return _encode(value, part, [], notes), notes


def decode_value(attribute: Attribute, notes: Sequence[Note]) -> Any:
    """Return the value that ``encode_value`` turned into ``attribute`` and ``notes``.

    The value contains no ``Decimal``, even if other software wrote the attribute.
    """
    root: Any = [_decode(attribute)]
    for path, kind, text in notes:
        container: Any = root
        last: Step = 0
        for step in path:
            container, last = container[last], step
        container[last] = _restore_exact(kind, text, container[last])
    return root[0]


def size_of(attribute: Attribute) -> int:
    """Return the bytes that DynamoDB counts for an attribute value, or a few more."""
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value) if value.isascii() else len(value.encode())
        case "N":
            return min(len(value) // 2 + 3, 21)
        case "B":
            return len(value)
        case "L":
            return 3 + sum(1 + size_of(each) for each in value)
        case "M":
            return 3 + sum(1 + len(name.encode()) + size_of(each) for name, each in value.items())
        case "SS":
            return sum(len(each.encode()) for each in value)
    return 1


def _encode(value: object, part: str, path: list[Step], notes: list[Note]) -> Attribute:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": checked_text(value, part, error=InvalidMessage)}
        case int():
            return _encode_int(int(value), path, notes)
        case float():
            return _encode_float(float(value), path, notes)
        case Decimal():  # the old class returns these
            whole = value.is_finite() and value == value.to_integral_value()
            return _encode(int(value) if whole else float(value), part, path, notes)
        case bytes() | bytearray():
            return {"B": bytes(value)}
        case Set():
            return _encode_set(value, part)
        case list() | tuple() | Mapping():
            return _encode_container(value, part, path, notes)
    raise InvalidMessage(
        f"{part} is of type {type(value).__name__}, which cannot be stored; only None, bool, int, "
        "float, str, bytes, list, tuple, dict and sets of str come back as they went in."
    )


def _encode_container(
    value: "Sequence[object] | Mapping[object, object]",
    part: str,
    path: list[Step],
    notes: list[Note],
) -> Attribute:
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InvalidMessage(f"{part} has the key {name!r}; keys must be str.")
            checked_text(name, f"a key of {part}", error=InvalidMessage)
    if len(path) >= MAX_DEPTH or (isinstance(value, Mapping) and "" in value):
        # Too deep, or with the empty name, which DynamoDB does not allow.
        text = dumps(checked_json(value, part, error=InvalidMessage))
        notes.append(([*path], "json", ""))
        return {"S": text}
    if isinstance(value, Mapping):
        return {
            "M": {
                str(name): _encode(each, f"{part}.{name}", [*path, str(name)], notes)
                for name, each in value.items()
            }
        }
    parts = [_encode(each, f"{part}[{n}]", [*path, n], notes) for n, each in enumerate(value)]
    if isinstance(value, tuple):
        # After the notes of its items, because a tuple cannot be changed once it is restored.
        notes.append(([*path], "tuple", ""))
    return {"L": parts}


def _encode_set(value: "Set[object]", part: str) -> Attribute:
    if not value or not all(isinstance(each, str) for each in value):
        raise InvalidMessage(f"{part} is a set; only non-empty sets of str can be stored.")
    return {"SS": sorted(checked_text(each, part, error=InvalidMessage) for each in value)}


def _encode_int(value: int, path: list[Step], notes: list[Note]) -> Attribute:
    if abs(value) < LARGEST:
        return {"N": str(value)}
    # As hexadecimal, because Python may be configured to read no more than 640 decimal digits.
    notes.append(([*path], "int", hex(value)))
    return {"S": str(value) if value.bit_length() <= READABLE_BITS else hex(value)}


def _encode_float(value: float, path: list[Step], notes: list[Note]) -> Attribute:
    if SMALLEST <= abs(value) < LARGEST:
        if value.is_integer():
            notes.append(([*path], "float", repr(value)))
        return {"N": repr(value)}
    notes.append(([*path], "float", repr(value)))
    return {"N": "0"} if abs(value) < 1 else {"S": repr(value)}


def _decode(attribute: Attribute) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "N":
            return _number(value)
        case "NULL":
            return None
        case "L":
            return [_decode(each) for each in value]
        case "M":
            return {name: _decode(each) for name, each in value.items()}
        case "NS":
            return {_number(each) for each in value}
        case "SS" | "BS":
            return set(value)
    return value


def _number(text: str) -> int | float:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else float(text)


def _restore_exact(kind: str, text: str, value: Any) -> Any:
    match kind:
        case "float":
            return float(text)
        case "int":
            return int(text, 16)
        case "json":
            return json.loads(value)
        case "tuple":
            return tuple(value)
    return value  # a kind that a later version added; the stored value is the nearest one
