"""Bytes within requests and replies, for which JSON has base64."""

from binascii import a2b_base64, b2a_base64
from typing import Any


def encoded(value: Any) -> Any:
    """``value`` with all bytes in it as JSON has them."""
    kind = type(value)
    if kind is dict:
        return {name: encoded(inner) for name, inner in value.items()}
    if kind is list:
        return [encoded(inner) for inner in value]
    return b2a_base64(value, newline=False).decode() if kind is bytes else value


def decoded(reply: dict[str, Any]) -> dict[str, Any]:
    """``reply``, the attributes of all its items that hold bytes changed back."""
    for item in reply.get("Items", ()):
        _decode(item)
    for name in ("Item", "Attributes", "LastEvaluatedKey"):
        _decode(reply.get(name, {}))
    for reason in reply.get("CancellationReasons", ()):
        _decode(reason.get("Item", {}))
    for requests in reply.get("UnprocessedItems", {}).values():
        for request in requests:
            _decode(request.get("PutRequest", {}).get("Item", {}))
    return reply


def _decode(attributes: dict[Any, Any]) -> None:
    for attribute in attributes.values():
        if "S" in attribute or "N" in attribute:
            continue  # early: there are hundreds in a reply
        for kind, value in attribute.items():
            match kind:
                case "B":
                    attribute[kind] = a2b_base64(value)
                case "BS":
                    attribute[kind] = [a2b_base64(each) for each in value]
                case "M":
                    _decode(value)
                case "L":
                    _decode(dict(enumerate(value)))
