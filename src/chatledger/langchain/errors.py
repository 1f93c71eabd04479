"""Translation of DynamoDB's errors for users who have a table of the old class."""

import shlex
from typing import Final

from chatledger.errors import ChatledgerError, TableMismatch, TableMissing
from chatledger.langchain.stored_history import History
from chatledger.stores.dynamodb.calls import CallFailed
from chatledger.stores.dynamodb.errors import store_error

HISTORY_PERMISSIONS: Final = (
    "dynamodb:GetItem, UpdateItem and DeleteItem and, for histories in several items, PutItem and "
    "BatchGetItem"
)
# Parts of the messages of DynamoDB and DynamoDB Local, in lower case.
_KEY_ERRORS: Final = (
    "does not match the schema",
    "number of conditions on the keys",
    "missing the key",
    "type mismatch for key",
    "required keys was not given",
    "empty string value",
    "size of hashkey",
    "size of rangekey",
    "maximum size limit",
)
_TYPE_ERRORS: Final = ("incorrect data type", "invalid operand type", "invalid for update")


def create_table_commands(history: History) -> list[str]:
    """Return the ``aws`` commands that create the table, wait for it, and enable its TTL."""
    names = [*history.key]
    types = {name: next(iter(value)) for name, value in history.key.items()}
    schema = [f"AttributeName={names[0]},KeyType=HASH"]
    schema += [f"AttributeName={name},KeyType=RANGE" for name in names[1:]]
    create = ["--billing-mode", "PAY_PER_REQUEST", "--attribute-definitions"]
    create += [f"AttributeName={name},AttributeType={type}" for name, type in types.items()]
    commands = [["create-table", *create, "--key-schema", *schema], ["wait", "table-exists"]]
    if history.lifetime is not None:
        ttl = f"Enabled=true,AttributeName={history.ttl_attribute}"
        commands.append(["update-time-to-live", "--time-to-live-specification", ttl])
    return [
        shlex.join(["aws", "dynamodb", *each, "--table-name", history.table_name])
        for each in commands
    ]


def error_for(failed: CallFailed, history: History) -> ChatledgerError:
    """Return the error to raise for a failed call."""
    if failed.code == "ResourceNotFoundException":
        commands = " && ".join(create_table_commands(history))
        return TableMissing(history.table_name, f"create it with: {commands}")
    if failed.code != "ValidationException":
        return store_error(failed, history.table_name, grant=f"allow {HISTORY_PERMISSIONS}")
    text = failed.message.lower()
    if any(part in text for part in _TYPE_ERRORS):
        return history.not_a_history_error()
    reason = failed.message.rstrip(".")
    if any(part in text for part in _KEY_ERRORS):
        names = " and ".join(map(repr, history.key))
        return TableMismatch(
            history.table_name,
            [f"its key is not {names}, or has other types, or cannot have this value ({reason})"],
            "Pass primary_key_name, or key={...} with exactly the table's key attributes; aws "
            f"dynamodb describe-table --table-name {shlex.quote(history.table_name)} shows them.",
        )
    return TableMismatch(
        history.table_name,
        [f"DynamoDB rejects item {history.key}: {reason}"],
        "Check that item and the attribute names that you passed.",
    )
