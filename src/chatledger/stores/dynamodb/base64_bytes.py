"""Bytes in requests and replies, which DynamoDB's JSON carries as base64."""

from binascii import a2b_base64, b2a_base64
from typing import Any


def encode_bytes(value: Any) -> Any:
    """Return a copy of ``value`` in which all bytes are base64 text."""
    kind = type(value)
    if kind is dict:
        return {name: encode_bytes(inner) for name, inner in value.items()}
    if kind is list:
        return [encode_bytes(inner) for inner in value]
    return b2a_base64(value, newline=False).decode() if kind is bytes else value


def decode_bytes(reply: dict[str, Any]) -> dict[str, Any]:
    """Decode the binary attributes of all items in ``reply``, in place, and return it."""
    for item in reply.get("Items", ()):
        _decode_attributes(item)
    for name in ("Item", "Attributes", "LastEvaluatedKey"):
        _decode_attributes(reply.get(name, {}))
    for reason in reply.get("CancellationReasons", ()):
        _decode_attributes(reason.get("Item", {}))
    for requests in reply.get("UnprocessedItems", {}).values():
        for request in requests:
            _decode_attributes(request.get("PutRequest", {}).get("Item", {}))
    return reply


def _decode_attributes(attributes: dict[Any, Any]) -> None:
    for attribute in attributes.values():
        if "S" in attribute or "N" in attribute:
            continue  # a shortcut: a reply has hundreds of these
        for kind, value in attribute.items():
            match kind:
                case "B":
                    attribute[kind] = a2b_base64(value)
                case "BS":
                    attribute[kind] = [a2b_base64(each) for each in value]
                case "M":
                    _decode_attributes(value)
                case "L":
                    _decode_attributes(dict(enumerate(value)))
