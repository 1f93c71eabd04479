"""The plans of operations, as a store makes them from its arguments."""

from typing import Any

from chatledger.stores.contract import Store
from chatledger.stores.dynamodb.store import plan_for
from chatledger.stores.dynamodb.table import Table
from chatledger.stores.operations import Operation


def plans_on(table: Table) -> Any:
    """Return a store on ``table`` whose operations return their plans, for the caller to run."""
    return _PlanStore(table)


class _PlanStore(Store):
    def __init__(self, table: Table) -> None:
        self._table = table

    def perform(self, operation: Operation[Any]) -> Any:
        return plan_for(self._table, operation)

    def close(self) -> None:
        pass
