"""Conversations in a DynamoDB table."""

from typing import TYPE_CHECKING

from chatledger.errors import AccessRefused, TableMismatch, TableMissing
from chatledger.extras import import_on_first_use
from chatledger.stores.dynamodb.store import AsyncDynamoDBStore, DynamoDBStore

if TYPE_CHECKING:
    from chatledger.stores.dynamodb.provisioning import check_table, create_table, policy

__all__ = [
    "AccessRefused",
    "AsyncDynamoDBStore",
    "DynamoDBStore",
    "TableMismatch",
    "TableMissing",
    "check_table",
    "create_table",
    "policy",
]


# Imported on first use, because few processes create or check tables.
_MODULES = dict.fromkeys(("check_table", "create_table", "policy"), ".provisioning")
__getattr__ = import_on_first_use(__name__, _MODULES, extras={})


def __dir__() -> list[str]:
    return __all__
