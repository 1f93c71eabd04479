"""A plan for each operation of the store's contract.

Arguments are checked when a plan takes its first step, before its first call.
"""

from chatledger.stores.dynamodb.plans.appends import append
from chatledger.stores.dynamodb.plans.changes import pop, replace, truncate, update
from chatledger.stores.dynamodb.plans.ends import delete, delete_owner
from chatledger.stores.dynamodb.plans.reads import get, list_owned, page, tail
from chatledger.stores.dynamodb.plans.restoring import restore
from chatledger.stores.dynamodb.plans.scanning import scan
from chatledger.stores.dynamodb.plans.starts import create, fork
from chatledger.stores.dynamodb.plans.sweeping import Swept, sweep

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
