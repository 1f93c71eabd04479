"""Plans of the store's operations: one for each operation of the contract, and ``repair``.

A plan checks its arguments when it takes its first step, before its first call.
"""

from chatledger.stores.dynamodb.plans.append import append
from chatledger.stores.dynamodb.plans.create import create, fork
from chatledger.stores.dynamodb.plans.delete import delete, delete_owner
from chatledger.stores.dynamodb.plans.read import get, list_owned, page, tail
from chatledger.stores.dynamodb.plans.repair import repair
from chatledger.stores.dynamodb.plans.restore import restore
from chatledger.stores.dynamodb.plans.scan import scan
from chatledger.stores.dynamodb.plans.sweep import SweepProgress, sweep
from chatledger.stores.dynamodb.plans.truncate import pop, truncate
from chatledger.stores.dynamodb.plans.update import claim, remove, replace, update

__all__ = [
    "SweepProgress",
    "append",
    "claim",
    "create",
    "delete",
    "delete_owner",
    "fork",
    "get",
    "list_owned",
    "page",
    "pop",
    "remove",
    "repair",
    "replace",
    "restore",
    "scan",
    "sweep",
    "tail",
    "truncate",
    "update",
]
