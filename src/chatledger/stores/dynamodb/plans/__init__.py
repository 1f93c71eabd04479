"""A plan for each operation of the store's contract.

Arguments are checked when a plan takes its first step, before its first call.
"""

from chatledger.stores.dynamodb.plans.append import append
from chatledger.stores.dynamodb.plans.create import create, fork
from chatledger.stores.dynamodb.plans.delete import delete, delete_owner
from chatledger.stores.dynamodb.plans.read import get, list_owned, page, tail
from chatledger.stores.dynamodb.plans.restore import restore
from chatledger.stores.dynamodb.plans.scan import scan
from chatledger.stores.dynamodb.plans.sweep import Swept, sweep
from chatledger.stores.dynamodb.plans.update import pop, replace, truncate, update

__all__ = [
    "Swept",
    "append",
    "create",
    "delete",
    "delete_owner",
    "fork",
    "get",
    "list_owned",
    "page",
    "pop",
    "replace",
    "restore",
    "scan",
    "sweep",
    "tail",
    "truncate",
    "update",
]
