"""The JSON values that come back from every store exactly as they went in."""

import json
import math
from typing import Any, TypeAlias

from chatledger.errors import InvalidArgument

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

DEEPEST = 100
"""How many lists and dicts may lie within one another."""

LONGEST_INTEGER_BITS = 2_000
# Python can be told to read no integer of over 640 digits (sys.set_int_max_str_digits); what one
# process stores, every other must be able to read.


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_decode = json.JSONDecoder().raw_decode  # without a look for white space, which takes as long


def dumps(value: object) -> str:
    """``value`` as compact JSON text."""
    return _encode(value)


def loads(text: str) -> Any:
    """The value that ``dumps`` made ``text`` of. Raises ``ValueError`` where there is more."""
    value, end = _decode(text)
    if end != len(text):
        raise ValueError(f"There is something behind the JSON value, from character {end} on.")
    return value


def checked_text(value: object, part: str, *, error: type[InvalidArgument]) -> str:
    """``value`` as a plain ``str`` that has an encoding; else ``error`` naming ``part``."""
    if not isinstance(value, str):
        raise error(f"{part} is {_named(value)}; it must be a str.")
    # The plain base of a subclass, such as the text of an enum's member.
    text = value if type(value) is str else str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as failed:
            raise error(
                f"{part} holds a lone surrogate at character {failed.start}, "
                "which no encoding can store; decode the text it came from properly."
            ) from None
    return text


def checked_json(
    value: object, part: str, *, error: type[InvalidArgument], depth: int = DEEPEST
) -> Json:
    """A copy of ``value`` that is JSON and nothing else, equal to it and of the same types.

    Raises ``error`` with a sentence that names the part at fault, such as
    ``content[0].data is bytes; encode it as text, say with base64``.
    """
    match value:
        case None | bool():
            return value
        case str():
            return checked_text(value, part, error=error)
        case int():
            if value.bit_length() > LONGEST_INTEGER_BITS:
                raise error(f"{part} is an integer of over 600 digits; store it as text.")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise error(f"{part} is {float(value)}, which JSON cannot hold; use None or text.")
            return float(value)
        case list() | dict() if depth == 0:
            raise error(f"{part} is nested over {DEEPEST} deep; flatten it or store it as text.")
        case list():
            return [
                checked_json(item, f"{part}[{n}]", error=error, depth=depth - 1)
                for n, item in enumerate(value)
            ]
        case dict():
            copy: dict[str, Json] = {}
            for key, item in value.items():
                if not isinstance(key, str):
                    raise error(f"{part} has the key {key!r}; keys must be str.")
                name = checked_text(key, f"a key of {part}", error=error)
                copy[name] = checked_json(item, f"{part}.{name}", error=error, depth=depth - 1)
            return copy
        case bytes() | bytearray() | memoryview():
            raise error(f"{part} is {_named(value)}; encode it as text, say with base64.")
        case tuple():
            raise error(f"{part} is a tuple, which would come back as a list; pass a list.")
    raise error(
        f"{part} is {_named(value)}; "
        "only None, bool, int, float, str, list and dict can be stored and come back equal."
    )


def checked_object(
    value: object, part: str, *, limit: int, error: type[InvalidArgument]
) -> dict[str, Json]:
    """A checked copy of the dict ``value``, of at most ``limit`` bytes as JSON."""
    if not isinstance(value, dict):
        raise error(f"{part} is {_named(value)}; it must be a dict.")
    copy = checked_json(value, part, error=error)
    assert isinstance(copy, dict)
    if copy and (size := len(dumps(copy).encode())) > limit:
        raise error(f"{part} is {size:,} bytes as JSON, over the limit of {limit:,}.")
    return copy


def _named(value: object) -> str:
    return f"of type {type(value).__name__}" if value is not None else "None"
