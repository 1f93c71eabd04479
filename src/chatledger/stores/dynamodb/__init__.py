"""Conversations in a DynamoDB table."""

from typing import TYPE_CHECKING

from chatledger.errors import AccessRefused, TableMismatch, TableMissing
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


def __getattr__(name: str) -> object:
    # Imported on first use, because few processes create or check tables.
    if name in ("check_table", "create_table", "policy"):
        from chatledger.stores.dynamodb import provisioning

        return getattr(provisioning, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
