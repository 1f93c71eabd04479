"""Format operations, calls and answers as text, for the trace of a schedule."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from chatledger.conversations import DESCRIPTION_FIELDS, Appended, Conversation, Listing, Page, Tail
from chatledger.entries import Entries, Entry
from chatledger.errors import ChatledgerError, StoreMismatch, StoreUnavailable
from chatledger.messages import Message
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from chatledger.stores.dynamodb.records import conversation_of, decompress
from tests.simulation.history import Operation
from tests.simulation.operations import LONG

START = 1_800_000_000_000
"""The time at which schedules begin, in ms since 1970; the trace shows times relative to it."""
INDENTED_LINE = f"\n{'':29}"


def format_operation(operation: Operation) -> str:
    arguments = [
        f"{name}={_shorten(value)}"
        for name, value in operation.arguments.items()
        if value is not None and value is not False
    ]
    return f"{operation.kind}({', '.join([operation.conversation, *arguments])})"


def format_answer(answer: Any) -> str:
    """Format what an operation returned or raised."""
    match answer:
        case Appended():
            return f"seqs {answer.seqs[0]}-{answer.seqs[-1]}, revision {answer.revision}"
        case Conversation():
            description = "".join(
                f" {name} {value!r}"
                for name in ("owner", *DESCRIPTION_FIELDS)
                if (value := getattr(answer, name))
            )
            expiry = f", expires {_format_time(answer.expires_at)}" if answer.expires_at else ""
            return (
                f"{answer.id}{description} with {answer.message_count} messages at revision "
                f"{answer.revision}, created {_format_time(answer.created_at)}, updated "
                f"{_format_time(answer.updated_at)}{expiry}"
            )
        case Tail():
            return f"{format_answer(answer.conversation)}: {_format_messages(answer.messages)}"
        case Page():
            return f"{_format_messages(answer.messages)}, next {answer.next}"
        case Entry():
            expiry = f", expires {_format_time(answer.expires_at)}" if answer.expires_at else ""
            return f"{answer.name} = {_shorten(answer.value)} at {_format_number(answer)}{expiry}"
        case Entries():
            return "; ".join(map(format_answer, answer)) or "nothing"
        case Listing():
            return "; ".join(map(format_answer, answer.conversations)) or "nothing"
        case list():
            return _format_messages(answer)
        case StoreUnavailable():
            landed = "may have landed" if answer.may_have_landed else "has not landed"
            return f"StoreUnavailable, {landed}: {answer}"
        case ChatledgerError():
            return f"{type(answer).__name__}: {answer}"
    return repr(answer)


def format_call(call: Call) -> str:
    params = call.params
    match call.operation:
        case "TransactWriteItems":
            parts = (
                f"{kind} {_format_write(write)}"
                for part in params["TransactItems"]
                for kind, write in part.items()
            )
            return f"TransactWriteItems {f'{INDENTED_LINE}and '.join(parts)}"
        case "PutItem" | "UpdateItem" | "DeleteItem":
            return f"{call.operation} {_format_write(params)}"
        case "GetItem":
            return f"GetItem {_format_key(params['Key'])}"
        case "Query":
            values = " ".join(map(_format_value, params["ExpressionAttributeValues"].values()))
            limit = f", limit {params['Limit']}" if "Limit" in params else ""
            order = "" if params.get("ScanIndexForward", True) else ", descending"
            return f"Query {values}{limit}{order}{_format_start(params)}"
        case "Scan":
            return f"Scan{_format_start(params)}"
        case "BatchWriteItem":
            ((_, requests),) = params["RequestItems"].items()
            return f"BatchWriteItem {', '.join(map(_format_request, requests))}"
    return call.operation


def format_reply(reply: dict[str, Any]) -> str:
    if "Items" in reply:
        more = f"{INDENTED_LINE}and there is more" if "LastEvaluatedKey" in reply else ""
        lines = "".join(f"{INDENTED_LINE}{format_item(item)}" for item in reply["Items"])
        return lines + more or "nothing"
    if "Item" in reply:
        return format_item(reply["Item"])
    return "done in part" if reply.get("UnprocessedItems") else "done"


def format_failure(failed: CallFailed) -> str:
    text = failed.code
    if failed.item is not None:
        text += f"; the item is {format_item(failed.item)}"
    for code, item in failed.reasons:
        text += f"; {code}" + (f", the item is {format_item(item)}" if item else "")
    return text


def format_item(item: Item) -> str:
    attributes = [
        _format_body(value) if name == "b" else f"{name}={_format_value(value)}"
        for name, value in item.items()
        if name not in ("pk", "sk", "v")
    ]
    return " ".join([_format_key(item), *filter(None, attributes)])


def _format_key(item: Item) -> str:
    conversation = conversation_of(item["pk"]["S"]) if "pk" in item else "-"
    kind, *rest = item["sk"]["S"].split("#") if "sk" in item else ["-"]
    if kind == "m" and rest[0].isdigit():
        return f"{conversation} m#{int(rest[0])}"
    if kind == "b" and len(rest) == 3 and all(rest[1:]):
        token, first, part = rest
        return f"{conversation} b#{_format_token(token)}#{int(first)}#{int(part)}"
    return f"{conversation} {'#'.join([kind, *rest])}"


def _format_body(attribute: dict[str, Any]) -> str:
    try:
        text = attribute["S"] if "S" in attribute else decompress(attribute["B"])
        contents = (
            message["content"] if isinstance(message, dict) else message
            for message in json.loads(text)
        )
        return f"[{' '.join(map(_shorten, contents))}]"
    except (StoreMismatch, ValueError):  # a body part holds any piece of the compressed bytes
        return ""


def _format_write(params: dict[str, Any]) -> str:
    if "Item" in params:
        write = format_item(params["Item"])
    else:
        change = _fill_in(params.get("UpdateExpression", ""), params)
        write = f"{_format_key(params['Key'])} {change}"
    condition = _fill_in(params.get("ConditionExpression", ""), params)
    return f"{write} if {condition}" if condition else write


def _fill_in(expression: str, params: dict[str, Any]) -> str:
    """Return the expression with its values in place of their placeholders, and plain names."""
    values = params.get("ExpressionAttributeValues", {})
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace(name, _format_value(values[name]))
    return expression.replace("#", "")


def _format_request(request: dict[str, Any]) -> str:
    match request:
        case {"PutRequest": {"Item": item}}:
            return f"put {_format_key(item)}"
        case {"DeleteRequest": {"Key": key}}:
            return f"delete {_format_key(key)}"
    return repr(request)


def _format_start(params: dict[str, Any]) -> str:
    start = params.get("ExclusiveStartKey")
    return f", after {_format_key(start)}" if start else ""


def _format_value(attribute: dict[str, Any]) -> str:
    ((kind, value),) = attribute.items()
    match kind, value:
        case "N", str() if len(value) == 13 and value[0] in "12":  # a time in ms
            return f"{(int(value) - START) / 1000:.3f}s"
        case "N", str() if len(value) == 10:  # a time in seconds
            return f"{int(value) - START // 1000}s"
        case "S", str() if value.startswith("m#0"):
            return f"m#{int(value[2:])}"
        case "S", str() if value.startswith("0") and len(value) == 16:
            return _format_token(value)
        case "BOOL", _:
            return str(value).lower()
    return _shorten(value)


def _format_token(token: str) -> str:
    """Return the number of the token's process and of the token there; its time is left out."""
    return f"t{int(token[12:14], 16)}.{int(token[14:], 16)}"


def _format_messages(messages: Iterable[Message]) -> str:
    return f"[{', '.join(f'{message.seq}: {_shorten(message.content)}' for message in messages)}]"


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text.replace("." * LONG, "...")


def _format_number(entry: Entry) -> str:
    return _format_value({"N": str(entry.revision)})


def _format_time(time: datetime) -> str:
    return f"{time.timestamp() - START / 1000:.3f}s"
