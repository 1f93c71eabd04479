"""Writes, alone or as parts of a batch or a transaction: checked first, and done afterwards."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from chatledger.stores.dynamodb.calls import Item
from chatledger.testing.simulation import expressions
from chatledger.testing.simulation.expressions import Condition
from chatledger.testing.simulation.items import Key
from chatledger.testing.simulation.parameters import (
    Params,
    condition,
    invalid,
    key_alone,
    key_of,
    placeholders,
)

Check: TypeAlias = Callable[[Item], None]
"""Raises where the table takes no such item."""


class Write(NamedTuple):
    """A write that was checked and is to be done."""

    key: Key
    condition: Condition | None
    new: Callable[[Item | None], Item | None]
    """The item that comes in the place of the one that is there."""


class Prepare(NamedTuple):
    """Which parameters a write has beside its condition, and how it is made of them."""

    parameters: tuple[str, ...]
    write: Callable[[Params, Check], Write]


def _put(params: Params, check: Check) -> Write:
    item = params["Item"]
    check(item)
    return Write(key_of(item), condition(params), lambda _: item)


def _update(params: Params, check: Check) -> Write:
    key = key_alone(params["Key"])
    update = expressions.update(params["UpdateExpression"])
    test = condition(params, update)
    names, values = placeholders(params)
    changed = [names[name] for name, _ in update.sets] + [names[n] for n in update.removes]
    if len(set(changed)) < len(changed):
        raise invalid("Two document paths overlap with each other")
    if "pk" in changed or "sk" in changed:
        raise invalid("Cannot update attribute pk or sk: it is part of the key")

    def new(old: Item | None) -> Item:
        item = dict(params["Key"] if old is None else old)
        for name, value in update.sets:
            item[names[name]] = values[value]
        for name in update.removes:
            item.pop(names[name], None)
        check(item)
        return item

    return Write(key, test, new)


def _delete(params: Params, check: Check) -> Write:
    return Write(key_alone(params["Key"]), condition(params), lambda _: None)


def _condition_check(params: Params, check: Check) -> Write:
    if "ConditionExpression" not in params:
        raise invalid("A ConditionCheck needs a ConditionExpression")
    return Write(key_alone(params["Key"]), condition(params), lambda old: old)


PREPARE = {
    "Put": Prepare(("Item",), _put),
    "Update": Prepare(("Key", "UpdateExpression"), _update),
    "Delete": Prepare(("Key",), _delete),
    "ConditionCheck": Prepare(("Key",), _condition_check),
}
"""By the name that a transaction has for it."""
