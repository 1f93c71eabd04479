"""Validation of a request's body against the service model that AWS publishes in botocore.

A wrong type fails at once (``SerializationException``). All other violations are collected into one
error, as the service does it: ``2 validation errors detected: ...; ...``.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from chatledger.testing.bedrock_server.errors import BedrockError

if TYPE_CHECKING:
    from botocore.model import Shape

ROLES = ["user", "assistant"]
"""The newest service model also has ``system``, which few models accept among the messages."""

ENUMS = {"ConversationRole": ROLES}
PATTERNS = {"ToolUseId": "[a-zA-Z0-9_-]+"}
"""AWS also allows ``.`` and ``:``, but Anthropic's API, to which it forwards them, does not.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html
"""

_JSON_TYPES = {str: "STRING_VALUE", bool: "TRUE_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE"}


@cache
def input_shape(operation: str) -> "Shape":
    """Return the installed botocore's shape of the operation's input."""
    import botocore.session

    service = botocore.session.Session().get_service_model("bedrock-runtime")
    shape = service.operation_model(operation).input_shape
    assert shape is not None
    return shape


def check_shape(operation: str, body: object) -> None:
    """Raise ``BedrockError`` unless ``body`` has the shape of the operation's input.

    Every unknown field is rejected, because it may be a misspelt one. The service is not known to
    reject all of them.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    """
    violations = list(_violations(input_shape(operation), body, "", ""))
    if violations:
        count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''} detected"
        raise BedrockError(f"{count}: {'; '.join(violations)}")


def _violations(shape: "Shape", value: Any, at: str, path: str) -> Iterator[str]:
    """Yield a sentence for each violated constraint; raise ``BedrockError`` for a wrong type.

    Constraints and other errors write a value's position in two ways: ``at`` is for constraints
    (``messages.1.member``, from 1), ``path`` for the others (``messages.0``, from 0).
    """
    match shape.type_name:
        case "structure" if getattr(shape, "is_document_type", False):
            return
        case "structure":
            yield from _structure_violations(shape, value, at, path)
        case "list":
            if not isinstance(value, list):
                _reject_type(value, "a List")
            yield from _length_violations(shape, value, at)
            for n, item in enumerate(value):
                yield from _violations(_member(shape), item, f"{at}.{n + 1}.member", f"{path}.{n}")
        case "map":
            if not isinstance(value, dict):
                _reject_type(value, "a Map")
            yield from _length_violations(shape, value, at)
            for key, item in value.items():
                yield from _violations(shape.key, key, f"{at}.key", path)  # type: ignore[attr-defined]
                inner = shape.value  # type: ignore[attr-defined]
                yield from _violations(inner, item, f"{at}.{key}.member", f"{path}.{key}")
        case "string":
            yield from _string_violations(shape, value, at)
        case "integer" | "long":
            if not isinstance(value, int) or isinstance(value, bool):
                _reject_type(value, "an Integer")
            yield from _range_violations(shape, value, at)
        case "float" | "double":
            if not isinstance(value, int | float) or isinstance(value, bool):
                _reject_type(value, "a Float")
            yield from _range_violations(shape, value, at)
        case "boolean":
            if not isinstance(value, bool):
                _reject_type(value, "a Boolean")
        case "blob":
            yield from _blob_violations(shape, value, at)


def _structure_violations(shape: Any, value: Any, at: str, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        _reject_type(value, "a Structure")
    members = {
        name: member
        for name, member in shape.members.items()
        if member.serialization.get("location") != "uri"
    }
    if unknown := [name for name in value if name not in members]:
        raise BedrockError(
            f"Malformed input request: #{path.replace('.', '/')}: extraneous key [{unknown[0]}] "
            "is not permitted, please reformat your input and try again."
        )
    is_union = getattr(shape, "is_tagged_union", False)
    if is_union and len(value) != 1:
        *others, last = members
        keys = f"{', '.join(others)}, or {last}" if others else last
        verb = "can only" if value else "must"
        raise BedrockError(f"The value at {path[1:]} {verb} set one of the following keys: {keys}.")
    for name, member in members.items():
        member_at = f"{at}.{name}" if at else name
        if value.get(name) is not None:
            yield from _violations(member, value[name], member_at, f"{path}.{name}")
        elif name in shape.required_members or (is_union and name in value):
            yield _violation(None, member_at, "Member must not be null")


def _string_violations(shape: "Shape", value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, str):
        _reject_type(value, "a String")
    enum = ENUMS.get(shape.name) or getattr(shape, "enum", None)
    pattern = PATTERNS.get(shape.name) or shape.metadata.get("pattern")
    if enum and value not in enum:
        allowed = f"[{', '.join(enum)}]"
        yield _violation(value, at, f"Member must satisfy enum value set: {allowed}")
    yield from _length_violations(shape, value, at)
    if pattern and not re.fullmatch(pattern, value):
        yield _violation(value, at, f"Member must satisfy regular expression pattern: {pattern}")


def _blob_violations(shape: "Shape", value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, str):
        _reject_type(value, "a Blob")
    try:
        content = base64.b64decode(value, validate=True)
    except binascii.Error:
        _reject_type(value, "a Blob")
    if len(content) < shape.metadata.get("min", 0):
        yield _violation("", at, "Member must have length greater than or equal to 1")


def _length_violations(shape: "Shape", value: Any, at: str) -> Iterator[str]:
    limits = shape.metadata
    quoted = value if isinstance(value, str) else "[...]"
    if len(value) < limits.get("min", 0):
        bound = f"Member must have length greater than or equal to {limits['min']}"
        yield _violation(quoted, at, bound)
    if len(value) > limits.get("max", len(value)):
        yield _violation(
            quoted, at, f"Member must have length less than or equal to {limits['max']}"
        )


def _range_violations(shape: "Shape", value: Any, at: str) -> Iterator[str]:
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
    quoted = "null" if value is None else f"'{value}'"
    return f"Value {quoted} at '{at}' failed to satisfy constraint: {constraint}"


def _reject_type(value: object, expected: str) -> NoReturn:
    """Raise the error of AWS's JSON services for a wrong type; observed, not documented."""
    match value:
        case dict():
            message = "Start of structure or map found where not expected."
        case list():
            message = "Start of list found where not expected"
        case None:
            message = f"NULL_VALUE can not be converted to {expected}"
        case _:
            message = f"{_JSON_TYPES[type(value)]} can not be converted to {expected}"
    raise BedrockError(message, code="SerializationException")
