"""What DynamoDB answers, in words for those who have a table of the old class."""

import shlex
from typing import Final

from chatledger.errors import (
    AccessRefused,
    ChatledgerError,
    StoreMismatch,
    TableMismatch,
    TableMissing,
)
from chatledger.langchain.appends import not_a_history
from chatledger.langchain.segments import Chain
from chatledger.stores.dynamodb.calls import CallFailed
from chatledger.stores.dynamodb.errors import NO_CREDENTIALS, translated

RIGHTS: Final = (
    "dynamodb:GetItem, UpdateItem and DeleteItem and, for histories in several items, PutItem, "
    "BatchGetItem and BatchWriteItem"
)
# As DynamoDB and DynamoDB Local word it.
_OF_KEYS: Final = (
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
_OF_TYPES: Final = ("incorrect data type", "invalid operand type", "invalid for update")


class HistoryTableMissing(TableMissing):
    """The table of the histories is not there; the message says what to do."""

    def __init__(self, table: str, remedy: str) -> None:
        StoreMismatch.__init__(
            self, f"There is no DynamoDB table {table!r} in this account and region; {remedy}"
        )
        self.table = table


def commands(chain: Chain) -> list[str]:
    """The commands of AWS's own tool that make the table, wait for it, and turn its TTL on."""
    names = [*chain.key]
    kinds = {name: next(iter(value)) for name, value in chain.key.items()}
    schema = [f"AttributeName={names[0]},KeyType=HASH"]
    schema += [f"AttributeName={name},KeyType=RANGE" for name in names[1:]]
    create = ["--billing-mode", "PAY_PER_REQUEST", "--attribute-definitions"]
    create += [f"AttributeName={name},AttributeType={kind}" for name, kind in kinds.items()]
    words = [["create-table", *create, "--key-schema", *schema], ["wait", "table-exists"]]
    if chain.lifetime is not None:
        ttl = f"Enabled=true,AttributeName={chain.ttl_name}"
        words.append(["update-time-to-live", "--time-to-live-specification", ttl])
    return [shlex.join(["aws", "dynamodb", *each, "--table-name", chain.table]) for each in words]


def refusal(failed: CallFailed, chain: Chain, *, rights: str = RIGHTS) -> ChatledgerError:
    """The error for a call whose failure no plan deals with; ``rights`` are what is needed."""
    if failed.code == "ResourceNotFoundException":
        return HistoryTableMissing(chain.table, f"make it with: {' && '.join(commands(chain))}")
    if failed.code != "ValidationException":
        error = translated(failed, chain.table)
        if isinstance(error, AccessRefused) and failed.code != NO_CREDENTIALS:
            return AccessRefused(
                f"AWS refused the call ({failed.code}): the credentials have expired, or may not "
                f"use table {chain.table!r}; renew them, or allow {rights}.",
                may_have_landed=failed.unknown,
            )
        return error
    text = failed.message.lower()
    if any(part in text for part in _OF_TYPES):
        return not_a_history(chain)
    said = failed.message.rstrip(".")
    if any(part in text for part in _OF_KEYS):
        names = " and ".join(map(repr, chain.key))
        return TableMismatch(
            chain.table,
            [f"its key is not {names}, or of other types, or takes no such value ({said})"],
            "Pass primary_key_name, or key={...} with exactly the table's key attributes; aws "
            f"dynamodb describe-table --table-name {shlex.quote(chain.table)} shows them.",
        )
    return TableMismatch(
        chain.table,
        [f"DynamoDB says of item {chain.key}, {said}"],
        "Look at that item and at the names passed for its attributes.",
    )
