"""Python values in DynamoDB's types, so that they come back of the types they went in as.

DynamoDB has one type of number, of 38 digits, and LangChain's messages hold ints and floats. A
number is kept as a plain DynamoDB number, the way the old class did, and is read as an int where it
is whole, as a float where not. That is right for nearly all. For the rest (``1.0``, ``-0.0``, an
int of 50 digits, a tuple) there is a *note*: a path, a kind and the exact text. Whoever does not
know of notes sees the nearest number, or text where there is none.
"""

import json
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from typing import Any, TypeAlias

from chatledger.errors import InvalidMessage
from chatledger.json_values import checked_json, checked_text, dumps
from chatledger.stores.dynamodb.calls import Attribute

Step: TypeAlias = str | int
Note: TypeAlias = tuple[list[Step], str, str]
"""Where the value lies, of which kind it is, and its exact text."""

LARGEST, SMALLEST = 10**38, 1e-130
"""Within these a number is one of DynamoDB's. Larger ones it takes too, if they end in zeros; but
boto3, and so the old class, cannot read more than 38 digits back.
"""
READABLE_BITS = 2_000
DEEPEST = 24
"""Lists and dicts that lie deeper are kept as JSON text: DynamoDB takes 32 levels in an item."""


def encode(value: object, part: str) -> tuple[Attribute, list[Note]]:
    """``value`` for DynamoDB, and what must be noted beside it.

    Raises ``InvalidMessage`` that names what cannot be kept, beginning with ``part``.
    """
    notes: list[Note] = []
    return _encode(value, part, [], notes), notes


def decode(attribute: Attribute, notes: Sequence[Note]) -> Any:
    """What ``encode`` made both of; no ``Decimal`` is in it, whoever wrote the attribute."""
    root: Any = [_decode(attribute)]
    for path, kind, text in notes:
        holder: Any = root
        last: Step = 0
        for step in path:
            holder, last = holder[last], step
        holder[last] = _exact(kind, text, holder[last])
    return root[0]


def size_of(attribute: Attribute) -> int:
    """The bytes that DynamoDB counts for it, or a few more."""
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
        case Decimal():  # what was read with the old class
            whole = value.is_finite() and value == value.to_integral_value()
            return _encode(int(value) if whole else float(value), part, path, notes)
        case bytes() | bytearray():
            return {"B": bytes(value)}
        case Set():
            return _encode_set(value, part)
        case list() | tuple() | Mapping():
            return _encode_many(value, part, path, notes)
    raise InvalidMessage(
        f"{part} is of type {type(value).__name__}, which cannot be stored; only None, bool, int, "
        "float, str, bytes, list, tuple, dict and sets of str come back as they went in."
    )


def _encode_many(
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
    if len(path) >= DEEPEST or (isinstance(value, Mapping) and "" in value):
        # Too deep, or with a name that DynamoDB does not take.
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
        notes.append(([*path], "tuple", ""))  # behind those within it, which are mended first
    return {"L": parts}


def _encode_set(value: "Set[object]", part: str) -> Attribute:
    if not value or not all(isinstance(each, str) for each in value):
        raise InvalidMessage(f"{part} is a set; only sets of text that are not empty can be kept.")
    return {"SS": sorted(checked_text(each, part, error=InvalidMessage) for each in value)}


def _encode_int(value: int, path: list[Step], notes: list[Note]) -> Attribute:
    if abs(value) < LARGEST:
        return {"N": str(value)}
    # Not as decimals, of which Python may be told to read no more than 640.
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


def _exact(kind: str, text: str, value: Any) -> Any:
    match kind:
        case "float":
            return float(text)
        case "int":
            return int(text, 16)
        case "json":
            return json.loads(value)
        case "tuple":
            return tuple(value)
    return value  # a later version's; what is there is the nearest
