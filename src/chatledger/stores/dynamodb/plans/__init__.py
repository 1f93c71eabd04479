"""Plans of the store's operations: one for each operation of the contract, and ``repair``."""

from collections.abc import Callable
from typing import Any, TypeVar

from chatledger.stores import operations
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.plans.append import append
from chatledger.stores.dynamodb.plans.create import create, fork
from chatledger.stores.dynamodb.plans.delete import delete, delete_owner
from chatledger.stores.dynamodb.plans.read import get, list_owned, page, tail
from chatledger.stores.dynamodb.plans.repair import repair
from chatledger.stores.dynamodb.plans.restore import restore
from chatledger.stores.dynamodb.plans.scan import scan
from chatledger.stores.dynamodb.plans.sweep import SweepProgress, sweep
from chatledger.stores.dynamodb.plans.truncate import pop, truncate
from chatledger.stores.dynamodb.plans.update import claim, rewrite_message, update
from chatledger.stores.dynamodb.table import Table
from chatledger.stores.operations import Operation

__all__ = ["SweepProgress", "delete_owner", "plan_for", "repair", "sweep"]

T = TypeVar("T")

PLANS: dict[type[Operation[Any]], Callable[[Table, Any], Plan[Any]]] = {
    operations.Append: append,
    operations.Claim: claim,
    operations.Create: create,
    operations.Delete: delete,
    operations.DeleteOwner: delete_owner,
    operations.Fork: fork,
    operations.Get: get,
    operations.ListOwned: list_owned,
    operations.Pop: pop,
    operations.ReadPage: page,
    operations.ReadTail: tail,
    operations.Restore: restore,
    operations.Rewrite: rewrite_message,
    operations.Scan: scan,
    operations.Sweep: sweep,
    operations.Truncate: truncate,
    operations.Update: update,
}


def plan_for(table: Table, operation: Operation[T]) -> Plan[T]:
    """Return the plan that performs ``operation`` on ``table``."""
    return PLANS[type(operation)](table, operation)
