"""A plan for each operation of the store's contract.

Arguments are checked when a plan takes its first step, before its first call.
"""

from recollect.stores.dynamodb.plans.appends import append
from recollect.stores.dynamodb.plans.changes import pop, replace, truncate, update
from recollect.stores.dynamodb.plans.ends import delete, delete_owner
from recollect.stores.dynamodb.plans.reads import get, list_owned, page, tail
from recollect.stores.dynamodb.plans.restoring import restore
from recollect.stores.dynamodb.plans.scanning import scan
from recollect.stores.dynamodb.plans.starts import create, fork
from recollect.stores.dynamodb.plans.sweeping import Swept, sweep

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
