"""A request's body against the description of the service that AWS publishes with botocore.

Types come first and end the matter (``SerializationException``); what else is out of bounds is
collected, as the service does: ``2 validation errors detected: ...; ...``.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from chatledger.testing.bedrock_server.refusing import Refused

if TYPE_CHECKING:
    from botocore.model import Shape

ROLES = ["user", "assistant"]
"""The newest description has ``system`` too, for a few models that take one among the messages."""

ENUMS = {"ConversationRole": ROLES}
PATTERNS = {"ToolUseId": "[a-zA-Z0-9_-]+"}
"""AWS also allows ``.`` and ``:``. Anthropic's own interface behind it does not.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html
"""

_SENT = {str: "STRING_VALUE", bool: "TRUE_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE"}


@cache
def input_shape(operation: str) -> "Shape":
    """What botocore, as installed, knows of the operation's input."""
    import botocore.session

    service = botocore.session.Session().get_service_model("bedrock-runtime")
    shape = service.operation_model(operation).input_shape
    assert shape is not None
    return shape


def check_shape(operation: str, body: object) -> None:
    """Raise ``Refused`` unless ``body`` is what the operation takes, as far as types tell.

    Fields that it does not have are refused. That is stricter than what the service is known to
    do with all of them, and finds the misspelt name.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    """
    violations = list(_check(input_shape(operation), body, "", ""))
    if violations:
        count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''} detected"
        raise Refused(f"{count}: {'; '.join(violations)}")


def _check(shape: "Shape", value: Any, at: str, path: str) -> Iterator[str]:
    """What is out of bounds. ``at`` names the place as constraints do (lists have members, from 1),
    ``path`` as the rest of the service does (from 0)."""
    match shape.type_name:
        case "structure" if getattr(shape, "is_document_type", False):
            return
        case "structure":
            yield from _structure(shape, value, at, path)
        case "list":
            if not isinstance(value, list):
                _wrong_type(value, "a List")
            yield from _length(shape, value, at)
            for n, item in enumerate(value):
                yield from _check(_member(shape), item, f"{at}.{n + 1}.member", f"{path}.{n}")
        case "map":
            if not isinstance(value, dict):
                _wrong_type(value, "a Map")
            yield from _length(shape, value, at)
            for key, item in value.items():
                yield from _check(shape.key, key, f"{at}.key", path)  # type: ignore[attr-defined]
                inner = shape.value  # type: ignore[attr-defined]
                yield from _check(inner, item, f"{at}.{key}.member", f"{path}.{key}")
        case "string":
            yield from _string(shape, value, at)
        case "integer" | "long":
            if not isinstance(value, int) or isinstance(value, bool):
                _wrong_type(value, "an Integer")
            yield from _range(shape, value, at)
        case "float" | "double":
            if not isinstance(value, int | float) or isinstance(value, bool):
                _wrong_type(value, "a Float")
            yield from _range(shape, value, at)
        case "boolean":
            if not isinstance(value, bool):
                _wrong_type(value, "a Boolean")
        case "blob":
            yield from _blob(shape, value, at)


def _structure(shape: Any, value: Any, at: str, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        _wrong_type(value, "a Structure")
    members = {
        name: member
        for name, member in shape.members.items()
        if member.serialization.get("location") != "uri"
    }
    if unknown := [name for name in value if name not in members]:
        raise Refused(
            f"Malformed input request: #{path.replace('.', '/')}: extraneous key [{unknown[0]}] "
            "is not permitted, please reformat your input and try again."
        )
    union = getattr(shape, "is_tagged_union", False)
    if union and len(value) != 1:
        *most, last = members
        keys = f"{', '.join(most)}, or {last}" if most else last
        can = "can only" if value else "must"
        raise Refused(f"The value at {path[1:]} {can} set one of the following keys: {keys}.")
    for name, member in members.items():
        place = f"{at}.{name}" if at else name
        if value.get(name) is not None:
            yield from _check(member, value[name], place, f"{path}.{name}")
        elif name in shape.required_members or (union and name in value):
            yield _violation(None, place, "Member must not be null")


def _string(shape: "Shape", value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, str):
        _wrong_type(value, "a String")
    enum = ENUMS.get(shape.name) or getattr(shape, "enum", None)
    pattern = PATTERNS.get(shape.name) or shape.metadata.get("pattern")
    if enum and value not in enum:
        allowed = f"[{', '.join(enum)}]"
        yield _violation(value, at, f"Member must satisfy enum value set: {allowed}")
    yield from _length(shape, value, at)
    if pattern and not re.fullmatch(pattern, value):
        yield _violation(value, at, f"Member must satisfy regular expression pattern: {pattern}")


def _blob(shape: "Shape", value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, str):
        _wrong_type(value, "a Blob")
    try:
        content = base64.b64decode(value, validate=True)
    except binascii.Error:
        _wrong_type(value, "a Blob")
    if len(content) < shape.metadata.get("min", 0):
        yield _violation("", at, "Member must have length greater than or equal to 1")


def _length(shape: "Shape", value: Any, at: str) -> Iterator[str]:
    limits = shape.metadata
    shown = value if isinstance(value, str) else "[...]"
    if len(value) < limits.get("min", 0):
        bound = f"Member must have length greater than or equal to {limits['min']}"
        yield _violation(shown, at, bound)
    if len(value) > limits.get("max", len(value)):
        yield _violation(
            shown, at, f"Member must have length less than or equal to {limits['max']}"
        )


def _range(shape: "Shape", value: Any, at: str) -> Iterator[str]:
    limits = shape.metadata
    if value < limits.get("min", value):
        bound = f"Member must have value greater than or equal to {limits['min']}"
        yield _violation(value, at, bound)
    if value > limits.get("max", value):
        yield _violation(value, at, f"Member must have value less than or equal to {limits['max']}")


def _member(shape: Any) -> "Shape":
    member: Shape = shape.member
    return member


def _violation(value: object, at: str, constraint: str) -> str:
    shown = "null" if value is None else f"'{value}'"
    return f"Value {shown} at '{at}' failed to satisfy constraint: {constraint}"


def _wrong_type(value: object, wanted: str) -> NoReturn:
    """Not documented; it is what the services of AWS that speak JSON have always said."""
    match value:
        case dict():
            said = "Start of structure or map found where not expected."
        case list():
            said = "Start of list found where not expected"
        case None:
            said = f"NULL_VALUE can not be converted to {wanted}"
        case _:
            said = f"{_SENT[type(value)]} can not be converted to {wanted}"
    raise Refused(said, code="SerializationException")
