"""Histories in words: what was asked, each call, what became of it, and the answer."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.errors import ChatledgerError, StoreMismatch, StoreUnavailable
from chatledger.messages import Message
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from chatledger.stores.dynamodb.compression import opened
from chatledger.stores.dynamodb.records import conversation_of
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.operations import LONG

START = 1_800_000_000_000
"""When schedules begin, in ms since 1970."""
INDENTED = f"\n{'':29}"


def spelled(operation: Operation) -> str:
    given = [
        f"{name}={_short(value)}"
        for name, value in operation.arguments.items()
        if value is not None and value is not False
    ]
    return f"{operation.kind}({', '.join([operation.conversation, *given])})"


def in_words(answer: Any) -> str:
    """An answer or an error."""
    match answer:
        case Appended():
            return f"seqs {answer.seqs[0]}-{answer.seqs[-1]}, revision {answer.revision}"
        case Conversation():
            described = "".join(
                f" {name} {value!r}"
                for name in ("owner", "title", "metadata")
                if (value := getattr(answer, name))
            )
            expires = f", expires {_time(answer.expires_at)}" if answer.expires_at else ""
            return (
                f"{answer.id}{described} with {answer.message_count} messages at revision "
                f"{answer.revision}, of {_time(answer.created_at)}, changed "
                f"{_time(answer.updated_at)}{expires}"
            )
        case Tail():
            return f"{in_words(answer.conversation)}: {_messages(answer.messages)}"
        case Page():
            return f"{_messages(answer.messages)}, next {answer.next}"
        case Listing():
            return "; ".join(map(in_words, answer.conversations)) or "nothing"
        case list():
            return _messages(answer)
        case StoreUnavailable():
            landed = "may have landed" if answer.may_have_landed else "has not landed"
            return f"StoreUnavailable, {landed}: {answer}"
        case ChatledgerError():
            return f"{type(answer).__name__}: {answer}"
    return repr(answer)


def the_call(call: Call) -> str:
    params = call.params
    match call.operation:
        case "TransactWriteItems":
            parts = (
                f"{kind} {_write(within)}"
                for part in params["TransactItems"]
                for kind, within in part.items()
            )
            return f"TransactWriteItems {f'{INDENTED}and '.join(parts)}"
        case "PutItem" | "UpdateItem" | "DeleteItem":
            return f"{call.operation} {_write(params)}"
        case "GetItem":
            return f"GetItem {_place(params['Key'])}"
        case "Query":
            values = " ".join(map(_value, params["ExpressionAttributeValues"].values()))
            limit = f", limit {params['Limit']}" if "Limit" in params else ""
            down = "" if params.get("ScanIndexForward", True) else ", descending"
            return f"Query {values}{limit}{down}{_behind(params)}"
        case "Scan":
            return f"Scan{_behind(params)}"
        case "BatchWriteItem":
            ((_, requests),) = params["RequestItems"].items()
            return f"BatchWriteItem {', '.join(map(_request, requests))}"
    return call.operation


def the_reply(reply: dict[str, Any]) -> str:
    if "Items" in reply:
        more = f"{INDENTED}and there is more" if "LastEvaluatedKey" in reply else ""
        return "".join(f"{INDENTED}{the_item(item)}" for item in reply["Items"]) + more or "nothing"
    if "Item" in reply:
        return the_item(reply["Item"])
    return "done in part" if reply.get("UnprocessedItems") else "done"


def the_failure(failed: CallFailed) -> str:
    told = failed.code
    if failed.item is not None:
        told += f"; there is {the_item(failed.item)}"
    for code, item in failed.reasons:
        told += f"; {code}" + (f", there is {the_item(item)}" if item else "")
    return told


def the_item(item: Item) -> str:
    shown = [
        _body(value) if name == "b" else f"{name}={_value(value)}"
        for name, value in item.items()
        if name not in ("pk", "sk", "v")
    ]
    return " ".join([_place(item), *filter(None, shown)])


def _place(item: Item) -> str:
    conversation = conversation_of(item["pk"]["S"])
    kind, *rest = item["sk"]["S"].split("#")
    if kind == "m" and rest[0].isdigit():
        return f"{conversation} m#{int(rest[0])}"
    if kind == "b" and len(rest) == 2:
        return f"{conversation} b#{_token(rest[0])}#{int(rest[1])}"
    return f"{conversation} {item['sk']['S']}"


def _body(attribute: dict[str, Any]) -> str:
    try:
        text = attribute["S"] if "S" in attribute else opened(attribute["B"])
        return f"[{' '.join(_short(message['content']) for message in json.loads(text))}]"
    except (StoreMismatch, ValueError):  # a part is some stretch of bytes
        return ""


def _write(params: dict[str, Any]) -> str:
    change = _resolved(params.get("UpdateExpression", ""), params)
    what = the_item(params["Item"]) if "Item" in params else f"{_place(params['Key'])} {change}"
    condition = _resolved(params.get("ConditionExpression", ""), params)
    return f"{what} if {condition}" if condition else what


def _resolved(text: str, params: dict[str, Any]) -> str:
    values = params.get("ExpressionAttributeValues", {})
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(name, _value(values[name]))
    return text.replace("#", "")


def _request(request: dict[str, Any]) -> str:
    match request:
        case {"PutRequest": {"Item": item}}:
            return f"put {_place(item)}"
        case {"DeleteRequest": {"Key": key}}:
            return f"delete {_place(key)}"
    return repr(request)


def _behind(params: dict[str, Any]) -> str:
    start = params.get("ExclusiveStartKey")
    return f", behind {_place(start)}" if start else ""


def _value(attribute: dict[str, Any]) -> str:
    ((kind, value),) = attribute.items()
    match kind, value:
        case "N", str() if len(value) == 13 and value[0] in "12":
            return f"{(int(value) - START) / 1000:.3f}s"
        case "N", str() if len(value) == 10:
            return f"{int(value) - START // 1000}s"
        case "S", str() if value.startswith("m#0"):
            return f"m#{int(value[2:])}"
        case "S", str() if value.startswith("0") and len(value) == 16:
            return _token(value)
        case "BOOL", _:
            return str(value).lower()
    return _short(value)


def _token(token: str) -> str:
    """Of which process it is, and its which one; the digits before that are the time."""
    return f"t{int(token[12:14], 16)}.{int(token[14:], 16)}"


def _messages(messages: Iterable[Message]) -> str:
    return f"[{', '.join(f'{message.seq}: {_short(message.content)}' for message in messages)}]"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text.replace("." * LONG, "...")


def _time(moment: datetime) -> str:
    return f"{moment.timestamp() - START / 1000:.3f}s"
