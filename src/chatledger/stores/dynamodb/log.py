"""One conversation's log: read its end, and put records behind it."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan
from chatledger.stores.dynamodb.records import (
    FIRST_RECORD,
    HEAD,
    Fence,
    Record,
    decode_head,
    decode_record,
    encode_record,
    key,
    partition,
    record_sort,
)
from chatledger.stores.dynamodb.table import HOUR, Standing, Table, stamp_at

CONDITION_FAILED = "ConditionalCheckFailedException"
CANCELLED = "TransactionCanceledException"


class Torn(Exception):
    """The log changed while it was read, so that what was read fits no one moment; read again."""


class Log:
    """The log of one conversation in ``table``."""

    def __init__(self, table: Table, conversation_id: str, *, consistent: bool = True) -> None:
        self.table = table
        self.id = conversation_id
        self._consistent = consistent

    def end(self, n: int = 1) -> Plan[tuple[Standing, list[Record | Fence]]]:
        """How the log stands, with its head, and its last ``n`` records, newest first."""
        items = yield from self.query(FIRST_RECORD, HEAD, limit=n + 1, forward=False)
        head = None
        if items and items[0]["sk"]["S"] == HEAD:
            head = decode_head(items.pop(0))
        records = [decode_record(item) for item in items]
        return Standing(records[0] if records else None, head), records

    def query(self, low: str, high: str, *, limit: int, forward: bool) -> Plan[list[Item]]:
        """At most ``limit`` items with a sort key between the two, those included."""
        items: list[Item] = []
        params: dict[str, Any] = {
            "TableName": self.table.name,
            "KeyConditionExpression": "#pk = :pk AND #sk BETWEEN :low AND :high",
            "ExpressionAttributeNames": {"#pk": "pk", "#sk": "sk"},
            "ExpressionAttributeValues": {
                ":pk": {"S": partition(self.id)},
                ":low": {"S": low},
                ":high": {"S": high},
            },
            "ConsistentRead": self._consistent,  # a chatbot must see what it just saved
            "ScanIndexForward": forward,
        }
        # An answer ends at 1 MB, whatever the limit.
        while low <= high and len(items) < limit:
            reply = yield Call("Query", params | {"Limit": limit - len(items)})
            items += reply["Items"]
            if "LastEvaluatedKey" not in reply:
                break
            params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]
        return items

    def record_at(self, position: int) -> Plan[Record | None]:
        """The record that begins at that position, where one does."""
        reply = yield Call(
            "GetItem",
            {
                "TableName": self.table.name,
                "Key": key(self.id, record_sort(position)),
                "ConsistentRead": True,
            },
        )
        record = decode_record(reply["Item"]) if "Item" in reply else None
        return record if isinstance(record, Record) else None

    def put(
        self, record: Record, behind: Standing, *beside: dict[str, Any]
    ) -> Plan[Record | Fence | None]:
        """Put the record behind that standing; None says that it is in, else what is there.

        ``beside`` are further parts of one transaction. Where one of their conditions fails and
        the record is not in, ``CallFailed`` is thrown, their reasons standing behind the first.
        """
        put = self.guarded_put(encode_record(self.id, record), "attribute_not_exists(#pk)")
        guards = self._freed(record, behind.last, beside) or self._guards(behind.last)
        if not beside and not guards:
            try:
                yield Call("PutItem", put)
            except CallFailed as failed:
                if failed.code != CONDITION_FAILED:
                    raise
                return _in_the_way(failed.item, record)
            return None
        try:
            yield Call("TransactWriteItems", {"TransactItems": [{"Put": put}, *beside, *guards]})
        except CallFailed as failed:
            if failed.code != CANCELLED:
                raise
            (code, item), *others = failed.reasons
            if code is not None:
                rival = _in_the_way(item, record)
                if rival is None or not any(code for code, _ in others[: len(beside)]):
                    return rival
            if not any(code for code, _ in others[: len(beside)]):
                # TTL ate what the record was to follow: how the log stands must be read again.
                return Fence(record.position - 1, 1, "")
            raise
        return None

    def guarded_put(self, item: Item, condition: str, **values: Attribute) -> dict[str, Any]:
        """The parameters of a put whose failed condition tells what is there.

        Names in the condition are written ``#name``, and the ``values`` ``:name``.
        """
        return self.guarded(condition, **values) | {"Item": item}

    def change(
        self,
        sort: str,
        attributes: Mapping[str, Attribute | None],
        condition: str,
        **values: Attribute,
    ) -> dict[str, Any]:
        """The parameters of an update that sets the attributes, or removes them where None."""
        sets = [f"#{name} = :{name}_" for name, value in attributes.items() if value is not None]
        removes = [f"#{name}" for name, value in attributes.items() if value is None]
        expression = (f"SET {', '.join(sets)} " if sets else "") + (
            f"REMOVE {', '.join(removes)}" if removes else ""
        )
        values |= {f"{name}_": value for name, value in attributes.items() if value is not None}
        return self._conditional(f"{condition} {expression}", values) | {
            "Key": key(self.id, sort),
            "UpdateExpression": expression.strip(),
            "ConditionExpression": condition,
        }

    def guarded(self, condition: str, **values: Attribute) -> dict[str, Any]:
        """The parameters of a write under that condition, but for its key."""
        return self._conditional(condition, values)

    def _conditional(self, text: str, values: Mapping[str, Attribute]) -> dict[str, Any]:
        params: dict[str, Any] = {
            "TableName": self.table.name,
            "ConditionExpression": text,
            # Every name goes this way: many words are reserved, and more may be.
            "ExpressionAttributeNames": dict(_names_in(text)),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if values:
            params["ExpressionAttributeValues"] = {f":{name}": v for name, v in values.items()}
        return params

    def _guards(self, last: Record | Fence | None) -> list[dict[str, Any]]:
        """What must hold besides, where TTL may eat the log's end at any moment.

        Of two that start the conversation anew, one having seen the end and the other not, both
        would find their position free. By its token: another may stand there by then.
        """
        if last is None or last.stamp is None:
            return []
        if last.stamp > stamp_at(self.table.time() + 2 * HOUR):
            return []
        return [self.check(last.position, "#k = :k", k={"S": last.token})]

    def _freed(
        self, record: Record, last: Record | Fence | None, beside: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """What takes the stamp away from the last record of a life that goes on for ever."""
        if not isinstance(last, Record) or last.expiry is None or record.expiry is not None:
            return []
        if record.closed or record.life == record.position:
            return []
        sort = record_sort(last.position)
        if any(part["Put"]["Item"]["sk"]["S"] == sort for part in beside):
            return []  # it is written without one
        return [{"Update": self.change(sort, {"expires_at": None}, "#k = :k", k={"S": last.token})}]

    def nothing_at(self, position: int) -> dict[str, Any]:
        """A part of a transaction that fails unless the position is free."""
        return self.check(position, "attribute_not_exists(#pk)")

    def check(self, position: int, condition: str, **values: Attribute) -> dict[str, Any]:
        """A part of a transaction that fails unless that holds of the record there."""
        where = {"Key": key(self.id, record_sort(position))}
        return {"ConditionCheck": self.guarded(condition, **values) | where}


@cache
def _names_in(text: str) -> dict[str, str]:
    """The names that an expression of ours mentions; there are few of these."""
    return {f"#{name}": name for name in re.findall(r"#(\w+)", text)}


def _in_the_way(item: Item | None, record: Record) -> Record | Fence | None:
    if item is None:
        return Fence(record.position, 1, "")
    rival = decode_record(item)
    # Ours, of a try whose answer was lost; even if it has died since, it was in.
    return None if rival.token == record.token else rival
