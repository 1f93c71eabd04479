"""The plan that checks whether the table accepts writes."""

from chatledger.stores.contract import MISSING
from chatledger.stores.dynamodb.calls import Call, Plan
from chatledger.stores.dynamodb.records import key
from chatledger.stores.dynamodb.table import Table

PATIENCE = 1.0
"""How long (s) the write is retried."""


def check_writable(table: Table) -> Plan[None]:
    """Delete an item that never exists: a write that changes nothing and costs one unit."""
    params = {"TableName": table.name, "Key": key(MISSING, "missing")}
    yield Call("DeleteItem", params, patience=PATIENCE)
