"""The simulated table of the store, with the expressions and calls of the drop-in."""

from collections.abc import Callable
from typing import Any

from chatledger.langchain.values import size_of
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from tests.simulation.expressions import Condition, Unsupported
from tests.simulation.items import Key
from tests.simulation.langchain.expressions import parse_condition, parse_update
from tests.simulation.parameters import (
    check_supported,
    key_from_param,
    key_of,
    placeholders,
    validation_error,
)
from tests.simulation.simulated_table import SimulatedTable
from tests.simulation.writes import Write

TTL_ATTRIBUTE = "expires_at"
"""The attribute by which the simulated table's TTL deletes items."""


class HistoriesTable(SimulatedTable):
    """A table with histories, whose key is ``pk`` and ``sk``.

    Args:
        item_bytes: The largest item that it stores.
        changed: Called after each change.
        choose_stale: Returns whether an eventually consistent read sees the item before its last
            change.
    """

    def __init__(
        self,
        *,
        item_bytes: int,
        changed: Callable[[], None],
        choose_stale: Callable[[], bool],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._item_bytes = item_bytes
        self._changed = changed
        self._choose_stale = choose_stale
        self._before: dict[Key, Item | None] = {}

    def perform(self, call: Call) -> Any:
        if call.operation == "BatchGetItem":
            return self._batch_get_item(call.params)
        if call.operation == "GetItem":
            check_supported(call.params, "Key", "ConsistentRead")
            item = self._read(key_from_param(call.params["Key"]), call.params)
            return {} if item is None else {"Item": item}
        try:
            reply = super().perform(call)
        except CallFailed as failed:
            if failed.code == "ValidationException" and call.operation == "TransactWriteItems":
                reasons = (("ValidationError", None),)
                raise CallFailed("TransactionCanceledException", reasons=reasons) from None
            raise
        self._changed()
        return reply

    def delete_overdue(self, key: Key, time: int) -> None:
        super().delete_overdue(key, time)
        self._changed()

    def item(self, key: Key) -> Item | None:
        return self._items.get(key)

    def _read(self, key: Key, params: Any) -> Item | None:
        if not params["ConsistentRead"] and key in self._before and self._choose_stale():
            return self._before[key]
        return self._items.get(key)

    def _batch_get_item(self, params: Any) -> Any:
        check_supported(params, "RequestItems")
        ((name, request),) = params["RequestItems"].items()
        self._check_table({"TableName": name})
        keys = request["Keys"]
        if not 0 < len(keys) <= 100:
            raise validation_error("A batch takes 1 to 100 keys")
        unprocessed = list(self._choose_unprocessed(keys)) if self._choose_unprocessed else []
        found = [
            item
            for key in keys
            if key not in unprocessed
            and (item := self._read(key_from_param(key), request)) is not None
        ]
        reply: dict[str, Any] = {"Responses": {name: found}, "UnprocessedKeys": {}}
        if unprocessed:
            reply["UnprocessedKeys"] = {name: {**request, "Keys": unprocessed}}
        return reply

    def _store(self, key: Key, item: Item | None) -> None:
        self._before[key] = self._items.get(key)
        super()._store(key, item)

    def _prepare(self, kind: str, params: Any) -> Write:
        self._check_table(params)
        used: set[str] = set()
        names, values = placeholders(params)
        condition: Any = None
        if "ConditionExpression" in params:
            condition = parse_condition(params["ConditionExpression"])
            used |= condition.placeholders
        if kind == "Update":
            update = parse_update(params["UpdateExpression"])
            used |= update.placeholders
        if used != names.keys() | values.keys():
            raise validation_error(f"Unused or missing: {used ^ (names.keys() | values.keys())}")
        parsed = Condition(condition.matches, frozenset(), frozenset()) if condition else None
        if kind == "Put":
            item = params["Item"]
            self._check_item(item)
            return Write(key_of(item), parsed, lambda _: item)
        key = key_from_param(params["Key"])
        if kind == "Delete":
            return Write(key, parsed, lambda _: None)
        if kind != "Update":
            raise Unsupported(kind)

        def new_item(old: Item | None) -> Item:
            before = params["Key"] if old is None else old
            new = dict(before)
            for change in update.changes:
                change(before, new, names, values)
            self._check_item(new)
            return new

        return Write(key, parsed, new_item)

    def _check_item(self, item: Item) -> None:
        if size_of({"M": item}) > self._item_bytes:
            raise validation_error("Item size to update has exceeded the maximum allowed size")
