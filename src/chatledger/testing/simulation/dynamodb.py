"""A small DynamoDB in memory: one table and one index, and just the calls that plans make.

It answers as DynamoDB does, errors, pages and consumed capacity included; a test holds it equal to
DynamoDB Local. What it does not know it refuses with ``Unknown`` instead of guessing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from chatledger.stores.dynamodb.table import INDEX
from chatledger.testing.simulation import expressions
from chatledger.testing.simulation.capacity import (
    Units,
    index_units,
    item_size,
    read_units,
    write_units,
)
from chatledger.testing.simulation.expressions import Unknown
from chatledger.testing.simulation.items import Index, Items, Key, is_overdue
from chatledger.testing.simulation.parameters import (
    CONDITIONAL,
    READING,
    Params,
    Shown,
    check_known,
    checked_size,
    holds,
    invalid,
    key_alone,
    key_of,
    shown_on_failure,
)
from chatledger.testing.simulation.queries import of_index, of_partition
from chatledger.testing.simulation.writes import PREPARE, Write

Reply: TypeAlias = dict[str, Any]

PAGE_BYTES = 1024 * 1024
BATCH_ITEMS = 25
TRANSACTION_ITEMS = 100


class SimulatedTable:
    """A table with the keys ``pk`` and ``sk``, both S, and the index of the DynamoDB store.

    Items are shared with those who put and read them, and must not be changed by anyone.
    ``page_items`` makes pages end early; ``unprocessed`` says of a batch of requests which of them
    are to come back.
    """

    def __init__(
        self,
        name: str = "simulated",
        *,
        page_items: int | None = None,
        unprocessed: Callable[[Sequence[Reply]], Sequence[Reply]] | None = None,
    ) -> None:
        self.name = name
        self.page_items = page_items
        self._unprocessed = unprocessed
        self._index = Index(INDEX, "owner", "updated_at")
        self._items = Items(self._index)
        self._largest = 0
        """At least the size of every item."""

    def perform(self, call: Call) -> Reply:
        """The reply to the call. Raises ``CallFailed``, and ``Unknown``."""
        operation = _OPERATIONS.get(call.operation)
        if operation is None:
            raise Unknown(f"the operation {call.operation}")
        return operation(self, call.params)

    def items(self) -> Iterator[Item]:
        """Every item."""
        return self._items.all()

    def overdue(self, time: int) -> list[Key]:
        """The items that TTL may delete at that time (seconds since 1970)."""
        return [key_of(item) for item in self.items() if is_overdue(item, time)]

    def reap(self, key: Key, time: int) -> None:
        """Delete the item as TTL does, if it may."""
        item = self._items.get(key)
        if item is not None and is_overdue(item, time):
            self._items.delete(key)

    # Reads ---------------------------------------------------------------------------------------

    def _get_item(self, params: Params) -> Reply:
        self._check_table(params)
        check_known(params, "Key", "ConsistentRead")
        item = self._items.get(key_alone(params["Key"]))
        reply: Reply = {} if item is None else {"Item": item}
        if "ReturnConsumedCapacity" in params:
            size = 0 if item is None else item_size(item)
            units = read_units(size, consistent=params.get("ConsistentRead", False))
            reply |= self._consumed(params, Units(units))
        return reply

    def _query(self, params: Params) -> Reply:
        self._check_table(params)
        check_known(params, "IndexName", "KeyConditionExpression", "ScanIndexForward", *READING)
        wanted = expressions.key_condition(params["KeyConditionExpression"])
        shown = Shown(params, wanted)
        if "IndexName" in params:
            found = of_index(self._items, self._index, params, wanted)
            return self._page(params, found, shown, index=True)
        found, end = of_partition(self._items, params, wanted)
        return self._page(params, found, shown, end=end)

    def _scan(self, params: Params) -> Reply:
        self._check_table(params)
        check_known(params, *READING)
        start = params.get("ExclusiveStartKey")
        behind = None if start is None else key_alone(start)
        return self._page(params, self._items.all(behind=behind), Shown(params))

    def _page(
        self,
        params: Params,
        found: Iterable[Item],
        shown: Shown,
        *,
        index: bool = False,
        end: str | None = None,
    ) -> Reply:
        """A page of what is found; ``end`` is the sort key that nothing lies beyond."""
        limit = params.get("Limit")
        if limit is not None and limit < 1:
            raise invalid("Limit must be 1 or more")
        if self.page_items is not None:
            limit = self.page_items if limit is None else min(limit, self.page_items)
        # Measuring would take most of the time, and most tables are small.
        small = self._items.count * self._largest <= PAGE_BYTES
        measured = "ReturnConsumedCapacity" in params or not small
        items: list[Item] = []
        size = scanned = 0
        last: Item | None = None
        for item in found:
            scanned += 1
            size += item_size(item) if measured else 0
            if shown.passes(item):
                items.append(shown.of(item))
            if scanned == limit or size > PAGE_BYTES:
                last = item
                break
        reply: Reply = {"Items": items, "Count": len(items), "ScannedCount": scanned}
        if last is not None and last["sk"]["S"] != end:
            keys = ["pk", "sk", *([self._index.partition, self._index.sort] if index else [])]
            reply["LastEvaluatedKey"] = {name: last[name] for name in keys}
        if "ReturnConsumedCapacity" in params:
            units = read_units(size, consistent=params.get("ConsistentRead", False))
            reply |= self._consumed(params, Units(index=units) if index else Units(units))
        return reply

    # Writes --------------------------------------------------------------------------------------

    def _put_item(self, params: Params) -> Reply:
        check_known(params, "Item", *CONDITIONAL)
        return self._write(params, self._prepared("Put", params))

    def _update_item(self, params: Params) -> Reply:
        check_known(params, "Key", "UpdateExpression", "ReturnValues", *CONDITIONAL)
        return self._write(params, self._prepared("Update", params))

    def _delete_item(self, params: Params) -> Reply:
        check_known(params, "Key", *CONDITIONAL)
        return self._write(params, self._prepared("Delete", params))

    def _write(self, params: Params, write: Write) -> Reply:
        old = self._items.get(write.key)
        if not holds(write.condition, params, old):
            raise CallFailed(
                "ConditionalCheckFailedException",
                "The conditional request failed",
                item=shown_on_failure(params, old),
            )
        new = write.new(old)
        self._store(write.key, new)
        reply: Reply = {}
        if "ReturnValues" in params:
            if params["ReturnValues"] != "ALL_NEW":
                raise Unknown(f"ReturnValues {params['ReturnValues']}")
            reply["Attributes"] = new
        if "ReturnConsumedCapacity" in params:
            reply |= self._consumed(params, self._units(old, new))
        return reply

    def _transact_write_items(self, params: Params) -> Reply:
        check_known(params, "TransactItems")
        if not 0 < len(params["TransactItems"]) <= TRANSACTION_ITEMS:
            raise invalid("A transaction takes 1 to 100 items")
        parts: list[tuple[Params, Write]] = []
        for part in params["TransactItems"]:
            ((kind, within),) = part.items()
            check_known(within, *PREPARE[kind].parameters, *CONDITIONAL)
            parts.append((within, self._prepared(kind, within)))
        if len({write.key for _, write in parts}) < len(parts):
            raise invalid("Transaction request cannot include multiple operations on one item")
        reasons: list[tuple[str | None, Item | None]] = []
        for within, write in parts:
            old = self._items.get(write.key)
            if holds(write.condition, within, old):
                reasons.append((None, None))
            else:
                reasons.append(("ConditionalCheckFailed", shown_on_failure(within, old)))
        if any(code for code, _ in reasons):
            raise CallFailed("TransactionCanceledException", reasons=tuple(reasons))
        changes = [
            (write.key, old := self._items.get(write.key), write.new(old)) for _, write in parts
        ]
        return self._consumed_by_all(params, changes, times=2)

    def _batch_write_item(self, params: Params) -> Reply:
        check_known(params, "RequestItems")
        ((name, requests),) = params["RequestItems"].items()
        self._check_table({"TableName": name})
        if not 0 < len(requests) <= BATCH_ITEMS:
            raise invalid("A batch takes 1 to 25 items")
        writes: list[Write] = []
        for request in requests:
            match request:
                case {"PutRequest": {"Item": _} as put}:
                    writes.append(self._prepared("Put", {"TableName": name, **put}))
                case {"DeleteRequest": {"Key": _} as delete}:
                    writes.append(self._prepared("Delete", {"TableName": name, **delete}))
                case _:
                    raise Unknown(f"the request {request}")
        if len({write.key for write in writes}) < len(writes):
            raise invalid("Provided list of item keys contains duplicates")
        refused = list(self._unprocessed(requests)) if self._unprocessed else []
        changes = [
            (write.key, old := self._items.get(write.key), write.new(old))
            for request, write in zip(requests, writes, strict=True)
            if request not in refused
        ]
        unprocessed = {self.name: refused} if refused else {}
        return {"UnprocessedItems": unprocessed} | self._consumed_by_all(params, changes)

    def _prepared(self, kind: str, params: Params) -> Write:
        self._check_table(params)
        return PREPARE[kind].write(params, self._check_item)

    def _check_item(self, item: Item) -> None:
        self._largest = max(self._largest, checked_size(item, self._index))

    def _store(self, key: Key, item: Item | None) -> None:
        if item is None:
            self._items.delete(key)
        else:
            self._items.put(key, item)

    def _check_table(self, params: Params) -> None:
        if params["TableName"] != self.name:
            raise CallFailed("ResourceNotFoundException", "Cannot do operations on a missing table")

    # Capacity ------------------------------------------------------------------------------------

    def _units(self, old: Item | None, new: Item | None) -> Units:
        sizes = [item_size(item) for item in (old, new) if item is not None]
        before = old if self._index.holds(old) else None
        after = new if self._index.holds(new) else None
        keys = (self._index.partition, self._index.sort)
        return Units(write_units(*sizes, 0), index_units(before, after, keys))

    def _consumed_by_all(
        self,
        params: Params,
        changes: Sequence[tuple[Key, Item | None, Item | None]],
        *,
        times: int = 1,
    ) -> Reply:
        """Make the changes; what they took, as a list of tables, which all others give as one."""
        units = Units()
        for key, old, new in changes:
            if "ReturnConsumedCapacity" in params:
                units.add(self._units(old, new), times)
            self._store(key, new)
        if "ReturnConsumedCapacity" not in params:
            return {}
        return {"ConsumedCapacity": [self._consumed(params, units)["ConsumedCapacity"]]}

    def _consumed(self, params: Params, units: Units) -> Reply:
        how = params["ReturnConsumedCapacity"]
        return {"ConsumedCapacity": units.told(how, table=self.name, index=self._index.name)}


_OPERATIONS: dict[str, Callable[[SimulatedTable, Params], Reply]] = {
    "GetItem": SimulatedTable._get_item,
    "PutItem": SimulatedTable._put_item,
    "UpdateItem": SimulatedTable._update_item,
    "DeleteItem": SimulatedTable._delete_item,
    "Query": SimulatedTable._query,
    "Scan": SimulatedTable._scan,
    "TransactWriteItems": SimulatedTable._transact_write_items,
    "BatchWriteItem": SimulatedTable._batch_write_item,
}
