"""A small DynamoDB in memory: one table with one index, and only the calls that plans make.

It answers as DynamoDB does, including errors, pages and consumed capacity; a test compares it with
DynamoDB Local. Anything else raises ``Unsupported``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from chatledger.stores.dynamodb.table import INDEX
from tests.simulation import expressions
from tests.simulation.capacity import Units, index_units, item_size, read_units, write_units
from tests.simulation.expressions import Unsupported
from tests.simulation.items import Index, Items, Key, is_overdue
from tests.simulation.parameters import (
    CONDITIONAL,
    READING,
    Params,
    Selection,
    check_supported,
    is_met,
    item_on_failure,
    key_from_param,
    key_of,
    valid_size,
    validation_error,
)
from tests.simulation.queries import query_index, query_table
from tests.simulation.writes import WRITE_KINDS, Write

Reply: TypeAlias = dict[str, Any]

PAGE_BYTES = 1024 * 1024
MAX_BATCH_ITEMS = 25
MAX_TRANSACTION_ITEMS = 100


class SimulatedTable:
    """A table with the keys ``pk`` and ``sk``, both of type S, and the DynamoDB store's index.

    Items are not copied when they are put and read, so nobody may change them.

    Args:
        name: The table's name.
        page_items: The maximum number of items on a page of a query or scan; None: as in DynamoDB.
        choose_unprocessed: Returns those of a batch's requests that the reply gives back as
            unprocessed.
        choose_hidden: Returns the keys of those of a transaction's items that queries do not see
            as changed before ``commit`` is called.
        choose_age: Returns how many of a partition's last changes an eventually consistent query
            misses. Only ``keep_changes`` makes it miss any.
    """

    def __init__(
        self,
        name: str = "simulated",
        *,
        page_items: int | None = None,
        choose_unprocessed: Callable[[Sequence[Reply]], Sequence[Reply]] | None = None,
        choose_hidden: Callable[[Sequence[Key]], Sequence[Key]] | None = None,
        choose_age: Callable[[], int] | None = None,
    ) -> None:
        self.name = name
        self.page_items = page_items
        self._choose_unprocessed = choose_unprocessed
        self._choose_hidden = choose_hidden
        self._choose_age = choose_age
        self._index = Index(INDEX, "owner", "updated_at")
        self._items = Items(self._index)
        self._largest_item = 0
        """A size that no item exceeds (bytes)."""

    def perform(self, call: Call) -> Reply:
        """Return the reply to the call.

        Raises:
            CallFailed: DynamoDB would refuse the call.
            Unsupported: The simulation does not know the operation, a parameter or an expression.
        """
        operation = _OPERATIONS.get(call.operation)
        if operation is None:
            raise Unsupported(f"the operation {call.operation}")
        return operation(self, call.params)

    def items(self) -> Iterator[Item]:
        """Yield every item."""
        return self._items.all()

    def overdue_keys(self, time: int) -> list[Key]:
        """Return the keys of the items that TTL may delete at that time (seconds since 1970)."""
        return [key_of(item) for item in self.items() if is_overdue(item, time)]

    def delete_overdue(self, key: Key, time: int) -> None:
        """Delete the item as TTL does, if it may at that time (seconds since 1970)."""
        item = self._items.get(key)
        if item is not None and is_overdue(item, time):
            self._items.delete(key)

    def delay_index(self, *, delay: bool) -> None:
        """Keep changes from the index until ``update_index`` applies them, or no longer."""
        self._items.delay_index(delay=delay)

    def update_index(self, number: int | None = None) -> None:
        """Apply the oldest ``number`` of the changes kept from the index; all if it is None."""
        self._items.update_index(number)

    def commit(self) -> None:
        """Let queries see every transaction as a whole."""
        self._items.commit()

    def keep_changes(self) -> None:
        """Let eventually consistent queries miss changes that are made from now on."""
        self._items.keep_changes()

    # Reads ---------------------------------------------------------------------------------------

    def _get_item(self, params: Params) -> Reply:
        self._check_table(params)
        check_supported(params, "Key", "ConsistentRead")
        item = self._items.get(key_from_param(params["Key"]))
        reply: Reply = {} if item is None else {"Item": item}
        if "ReturnConsumedCapacity" in params:
            size = 0 if item is None else item_size(item)
            units = read_units(size, consistent=params.get("ConsistentRead", False))
            reply |= self._consumed(params, Units(units))
        return reply

    def _query(self, params: Params) -> Reply:
        self._check_table(params)
        check_supported(params, "IndexName", "KeyConditionExpression", "ScanIndexForward", *READING)
        condition = expressions.parse_key_condition(params["KeyConditionExpression"])
        selection = Selection(params, condition)
        if "IndexName" in params:
            found = query_index(self._items, self._index, params, condition)
            return self._page(params, found, selection, index=True)
        age = 0
        if self._choose_age is not None and not params.get("ConsistentRead"):
            age = self._choose_age()
        found, end = query_table(self._items, params, condition, age)
        return self._page(params, found, selection, end=end)

    def _scan(self, params: Params) -> Reply:
        self._check_table(params)
        check_supported(params, *READING)
        start = params.get("ExclusiveStartKey")
        after = None if start is None else key_from_param(start)
        return self._page(params, self._items.all(after=after), Selection(params))

    def _page(
        self,
        params: Params,
        found: Iterable[Item],
        selection: Selection,
        *,
        index: bool = False,
        end: str | None = None,
    ) -> Reply:
        """Return a page of the items found; ``end`` is the sort key at which the query ends."""
        limit = params.get("Limit")
        if limit is not None and limit < 1:
            raise validation_error("Limit must be 1 or more")
        if self.page_items is not None:
            limit = self.page_items if limit is None else min(limit, self.page_items)
        # Measuring items would take most of the time, and most tables are smaller than a page.
        is_small = self._items.count * self._largest_item <= PAGE_BYTES
        is_measured = "ReturnConsumedCapacity" in params or not is_small
        items: list[Item] = []
        size = scanned = 0
        last: Item | None = None
        for item in found:
            scanned += 1
            size += item_size(item) if is_measured else 0
            if selection.matches(item):
                items.append(selection.project(item))
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
        check_supported(params, "Item", "ReturnValues", *CONDITIONAL)
        return self._write(params, self._prepare("Put", params), returns="ALL_OLD")

    def _update_item(self, params: Params) -> Reply:
        check_supported(params, "Key", "UpdateExpression", "ReturnValues", *CONDITIONAL)
        return self._write(params, self._prepare("Update", params), returns="ALL_NEW")

    def _delete_item(self, params: Params) -> Reply:
        check_supported(params, "Key", *CONDITIONAL)
        return self._write(params, self._prepare("Delete", params))

    def _write(self, params: Params, write: Write, *, returns: str = "") -> Reply:
        old = self._items.get(write.key)
        if not is_met(write.condition, params, old):
            raise CallFailed(
                "ConditionalCheckFailedException",
                "The conditional request failed",
                item=item_on_failure(params, old),
            )
        new = write.new_item(old)
        self._store(write.key, new)
        reply: Reply = {}
        if "ReturnValues" in params:
            if params["ReturnValues"] != returns:
                raise Unsupported(f"ReturnValues {params['ReturnValues']}")
            returned = old if returns == "ALL_OLD" else new
            if returned is not None:
                reply["Attributes"] = returned
        if "ReturnConsumedCapacity" in params:
            reply |= self._consumed(params, self._units(old, new))
        return reply

    def _transact_write_items(self, params: Params) -> Reply:
        check_supported(params, "TransactItems")
        if not 0 < len(params["TransactItems"]) <= MAX_TRANSACTION_ITEMS:
            raise validation_error("A transaction takes 1 to 100 items")
        parts: list[tuple[Params, Write]] = []
        for part in params["TransactItems"]:
            ((kind, part_params),) = part.items()
            check_supported(part_params, *WRITE_KINDS[kind].parameters, *CONDITIONAL)
            parts.append((part_params, self._prepare(kind, part_params)))
        if len({write.key for _, write in parts}) < len(parts):
            raise validation_error(
                "Transaction request cannot include multiple operations on one item"
            )
        reasons: list[tuple[str | None, Item | None]] = []
        for part_params, write in parts:
            old = self._items.get(write.key)
            if is_met(write.condition, part_params, old):
                reasons.append((None, None))
            else:
                reasons.append(("ConditionalCheckFailed", item_on_failure(part_params, old)))
        if any(code for code, _ in reasons):
            raise CallFailed("TransactionCanceledException", reasons=tuple(reasons))
        changes = [
            (write.key, old := self._items.get(write.key), write.new_item(old))
            for _, write in parts
        ]
        reply = self._apply(params, changes, units_factor=2)
        if self._choose_hidden is not None:
            written = {key: old for key, old, new in changes if new is not old}
            for key in self._choose_hidden(list(written)):
                self._items.hide_from_queries(key, written[key])
        return reply

    def _batch_write_item(self, params: Params) -> Reply:
        check_supported(params, "RequestItems")
        ((name, requests),) = params["RequestItems"].items()
        self._check_table({"TableName": name})
        if not 0 < len(requests) <= MAX_BATCH_ITEMS:
            raise validation_error("A batch takes 1 to 25 items")
        writes: list[Write] = []
        for request in requests:
            match request:
                case {"PutRequest": {"Item": _} as put}:
                    writes.append(self._prepare("Put", {"TableName": name, **put}))
                case {"DeleteRequest": {"Key": _} as delete}:
                    writes.append(self._prepare("Delete", {"TableName": name, **delete}))
                case _:
                    raise Unsupported(f"the request {request}")
        if len({write.key for write in writes}) < len(writes):
            raise validation_error("Provided list of item keys contains duplicates")
        unprocessed = list(self._choose_unprocessed(requests)) if self._choose_unprocessed else []
        changes = [
            (write.key, old := self._items.get(write.key), write.new_item(old))
            for request, write in zip(requests, writes, strict=True)
            if request not in unprocessed
        ]
        reply: Reply = {"UnprocessedItems": {self.name: unprocessed} if unprocessed else {}}
        return reply | self._apply(params, changes)

    def _prepare(self, kind: str, params: Params) -> Write:
        self._check_table(params)
        return WRITE_KINDS[kind].prepare(params, self._check_item)

    def _check_item(self, item: Item) -> None:
        self._largest_item = max(self._largest_item, valid_size(item, self._index))

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
        before = old if self._index.contains(old) else None
        after = new if self._index.contains(new) else None
        keys = (self._index.partition, self._index.sort)
        return Units(write_units(*sizes, 0), index_units(before, after, keys))

    def _apply(
        self,
        params: Params,
        changes: Sequence[tuple[Key, Item | None, Item | None]],
        *,
        units_factor: int = 1,
    ) -> Reply:
        """Make the changes, and return the part of the reply that says what they consumed.

        It is a list with one entry for each table, unlike the single entry of other calls.
        """
        units = Units()
        for key, old, new in changes:
            if "ReturnConsumedCapacity" in params:
                units.add(self._units(old, new), units_factor)
            self._store(key, new)
        if "ReturnConsumedCapacity" not in params:
            return {}
        return {"ConsumedCapacity": [self._consumed(params, units)["ConsumedCapacity"]]}

    def _consumed(self, params: Params, units: Units) -> Reply:
        capacity = units.as_reply(
            params["ReturnConsumedCapacity"], table=self.name, index=self._index.name
        )
        return {"ConsumedCapacity": capacity}


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
