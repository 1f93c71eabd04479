"""Writes, alone or as parts of a batch or a transaction: first checked, then done."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from chatledger.stores.dynamodb.calls import Item
from tests.simulation import expressions
from tests.simulation.expressions import Condition
from tests.simulation.items import Key
from tests.simulation.parameters import (
    Params,
    condition_of,
    key_from_param,
    key_of,
    placeholders,
    validation_error,
)

CheckItem: TypeAlias = Callable[[Item], None]
"""Raises ``CallFailed`` if the table does not take the item."""


class Write(NamedTuple):
    """A write whose parameters are valid."""

    key: Key
    condition: Condition | None
    new_item: Callable[[Item | None], Item | None]
    """Returns the item after the write, given the one before; None: there is none."""


class WriteKind(NamedTuple):
    """A kind of write: the parameters it has besides its condition, and how to make a ``Write``."""

    parameters: tuple[str, ...]
    prepare: Callable[[Params, CheckItem], Write]


def _prepare_put(params: Params, check_item: CheckItem) -> Write:
    item = params["Item"]
    check_item(item)
    return Write(key_of(item), condition_of(params), lambda _: item)


def _prepare_update(params: Params, check_item: CheckItem) -> Write:
    key = key_from_param(params["Key"])
    update = expressions.parse_update(params["UpdateExpression"])
    condition = condition_of(params, update)
    names, values = placeholders(params)
    changed = [names[name] for name, _ in update.sets] + [names[n] for n in update.removes]
    if len(set(changed)) < len(changed):
        raise validation_error("Two document paths overlap with each other")
    if "pk" in changed or "sk" in changed:
        raise validation_error("Cannot update attribute pk or sk: it is part of the key")

    def new_item(old: Item | None) -> Item:
        item = dict(params["Key"] if old is None else old)
        for name, value in update.sets:
            item[names[name]] = values[value]
        for name in update.removes:
            item.pop(names[name], None)
        check_item(item)
        return item

    return Write(key, condition, new_item)


def _prepare_delete(params: Params, check_item: CheckItem) -> Write:
    return Write(key_from_param(params["Key"]), condition_of(params), lambda _: None)


def _prepare_condition_check(params: Params, check_item: CheckItem) -> Write:
    if "ConditionExpression" not in params:
        raise validation_error("A ConditionCheck needs a ConditionExpression")
    return Write(key_from_param(params["Key"]), condition_of(params), lambda old: old)


WRITE_KINDS = {
    "Put": WriteKind(("Item",), _prepare_put),
    "Update": WriteKind(("Key", "UpdateExpression"), _prepare_update),
    "Delete": WriteKind(("Key",), _prepare_delete),
    "ConditionCheck": WriteKind(("Key",), _prepare_condition_check),
}
"""The kinds of write, by their names in a transaction."""
