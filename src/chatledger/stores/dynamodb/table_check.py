"""The table's definition, and how an existing table differs from it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatledger.errors import TableMismatch, TableMissing
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan
from chatledger.stores.dynamodb.table import INDEX

KEYS = {"pk": "S", "sk": "S"}
INDEX_KEYS = {"owner": "S", "updated_at": "N"}
"""Only heads that have an owner have both attributes, so the index contains nothing else."""
TTL_ATTRIBUTE = "expires_at"


def key_schema(keys: Mapping[str, str]) -> list[dict[str, str]]:
    """Return DynamoDB's ``KeySchema`` for these keys: the partition key, then the sort key."""
    return [
        {"AttributeName": name, "KeyType": kind}
        for name, kind in zip(keys, ("HASH", "RANGE"), strict=True)
    ]


def attribute_definitions(keys: Mapping[str, str]) -> list[dict[str, str]]:
    """Return DynamoDB's ``AttributeDefinitions`` for these keys."""
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in keys.items()]


INDEX_DEFINITION = {
    "IndexName": INDEX,
    "KeySchema": key_schema(INDEX_KEYS),
    "Projection": {"ProjectionType": "ALL"},
}


def check_definition(table: str) -> Plan[None]:
    """Raise ``TableMissing`` or ``TableMismatch`` unless the table is as a store needs it."""
    description = yield from read_description(table)
    if description is None:
        raise TableMissing(table)
    differences = definition_differences(table, description)
    differences += ttl_differences(table, *(yield from read_ttl(table)))
    if differences:
        raise mismatch_error(table, differences)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between a table and its definition, as a clause, and how to remove it."""

    text: str
    remedy: str


def mismatch_error(table: str, differences: Sequence[Difference]) -> TableMismatch:
    """Return the error that lists the differences, and each remedy once."""
    remedies = dict.fromkeys(difference.remedy for difference in differences)
    return TableMismatch(table, [difference.text for difference in differences], " ".join(remedies))


def read_description(table: str) -> Plan[dict[str, Any] | None]:
    """Return DynamoDB's description of the table; None if there is no such table."""
    try:
        reply = yield Call("DescribeTable", {"TableName": table})
    except CallFailed as failed:
        if failed.code != "ResourceNotFoundException":
            raise
        return None
    description: dict[str, Any] = reply["Table"]
    return description


def read_ttl(table: str) -> Plan[tuple[str, str | None]]:
    """Return the status of the table's TTL, and its attribute if it has one."""
    reply = yield Call("DescribeTimeToLive", {"TableName": table})
    ttl = reply["TimeToLiveDescription"]
    return ttl["TimeToLiveStatus"], ttl.get("AttributeName")


def statuses(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the status of the table and, if it exists, of its index, each under its name."""
    by_name = {"it": description["TableStatus"]}
    if index := _index(description):
        by_name[f"its index {INDEX}"] = index["IndexStatus"]
    return by_name


def _index(description: Mapping[str, Any]) -> dict[str, Any] | None:
    indexes = description.get("GlobalSecondaryIndexes", ())
    return {index["IndexName"]: index for index in indexes}.get(INDEX)


def definition_differences(table: str, description: Mapping[str, Any]) -> list[Difference]:
    """Return how the table and its index differ from their definition."""
    types = {
        each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]
    }
    if (keys := _keys(description, types)) != _format_keys(KEYS):
        remedy = "Use another table, which create_table(client, NAME) creates."
        return [Difference(f"its keys are {keys}, not {_format_keys(KEYS)}", remedy)]
    differences = [
        Difference(f"{what} is {status.lower()}", "Try again when that has ended.")
        for what, status in statuses(description).items()
        if status not in ("ACTIVE", "UPDATING")
    ]
    if differences:  # the rest of the description may be incomplete
        return differences
    index = _index(description)
    create = _aws_command(
        "update-table",
        table,
        attribute_definitions=attribute_definitions(INDEX_KEYS),
        global_secondary_index_updates=[{"Create": INDEX_DEFINITION}],
    )
    if index is None:
        differences.append(Difference(f"it has no index {INDEX}", f"Run: {create}"))
    else:
        delete = _aws_command(
            "update-table", table, global_secondary_index_updates=[{"Delete": {"IndexName": INDEX}}]
        )
        remedy = f"Run: {delete} and, when that is done, {create}"
        keys, projection = _keys(index, types), index["Projection"]["ProjectionType"]
        if keys != _format_keys(INDEX_KEYS):
            text = f"the keys of its index {INDEX} are {keys}, not {_format_keys(INDEX_KEYS)}"
            differences.append(Difference(text, remedy))
        if projection != "ALL":
            text = f"its index {INDEX} holds {projection}, not ALL"
            differences.append(Difference(text, remedy))
    return differences


def ttl_differences(table: str, status: str, attribute: str | None) -> list[Difference]:
    """Return how the table's TTL, as ``read_ttl`` returned it, differs from the definition."""
    if status in ("ENABLED", "ENABLING") and attribute == TTL_ATTRIBUTE:
        return []
    turn_on = (
        f"Call chatledger.stores.dynamodb.create_table(client, {table!r}), which turns TTL on."
    )
    if attribute in (None, TTL_ATTRIBUTE):
        return [Difference(f"TTL is off, not on {TTL_ATTRIBUTE}", turn_on)]
    turn_off = _aws_command(
        "update-time-to-live",
        table,
        time_to_live_specification={"Enabled": False, "AttributeName": attribute},
    )
    remedy = f"Run: {turn_off} and, an hour later: {turn_on}"
    return [Difference(f"TTL is on {attribute}, not on {TTL_ATTRIBUTE}", remedy)]


def _keys(description: Mapping[str, Any], types: Mapping[str, str]) -> str:
    names = [key["AttributeName"] for key in description["KeySchema"]]  # the partition key first
    return _format_keys({name: types[name] for name in names})


def _format_keys(keys: Mapping[str, str]) -> str:
    return " and ".join(f"{name} ({kind})" for name, kind in keys.items())


def _aws_command(operation: str, table: str, **options: Any) -> str:
    """Return the command of the AWS CLI for this operation, quoted for a shell."""
    words = ["aws", "dynamodb", operation, "--table-name", table]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", json.dumps(value)]
    return shlex.join(words)
