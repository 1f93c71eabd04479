"""Whether a table is as a store needs it, what differs, and what mends that."""

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
"""Of items, heads with an owner have both, and so are alone in the index."""
TTL = "expires_at"


def schema_of(keys: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"AttributeName": name, "KeyType": kind}
        for name, kind in zip(keys, ("HASH", "RANGE"), strict=True)
    ]


def types_of(keys: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in keys.items()]


INDEX_DEFINITION = {
    "IndexName": INDEX,
    "KeySchema": schema_of(INDEX_KEYS),
    "Projection": {"ProjectionType": "ALL"},
}


def check(table: str) -> Plan[None]:
    found = yield from described(table)
    if found is None:
        raise TableMissing(table)
    differences = differences_of(table, found)
    differences += ttl_differences(table, *(yield from ttl_of(table)))
    if differences:
        raise mismatch(table, differences)


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as it must be, and what mends it."""

    what: str
    remedy: str


def mismatch(table: str, differences: Sequence[Difference]) -> TableMismatch:
    remedies = dict.fromkeys(difference.remedy for difference in differences)
    return TableMismatch(table, [difference.what for difference in differences], " ".join(remedies))


def described(table: str) -> Plan[dict[str, Any] | None]:
    try:
        found: dict[str, Any] = (yield Call("DescribeTable", {"TableName": table}))["Table"]
    except CallFailed as failed:
        if failed.code != "ResourceNotFoundException":
            raise
        return None
    return found


def ttl_of(table: str) -> Plan[tuple[str, str | None]]:
    """The state of its TTL, and on which attribute it is."""
    reply = yield Call("DescribeTimeToLive", {"TableName": table})
    found = reply["TimeToLiveDescription"]
    return found["TimeToLiveStatus"], found.get("AttributeName")


def states_of(found: Mapping[str, Any]) -> dict[str, str]:
    """Those of the table and of its index, where it has one."""
    states = {"it": found["TableStatus"]}
    if index := _index(found):
        states[f"its index {INDEX}"] = index["IndexStatus"]
    return states


def _index(found: Mapping[str, Any]) -> dict[str, Any] | None:
    named = {index["IndexName"]: index for index in found.get("GlobalSecondaryIndexes", ())}
    return named.get(INDEX)


def differences_of(table: str, found: Mapping[str, Any]) -> list[Difference]:
    types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
    if (keys := _keys(found, types)) != _words(KEYS):
        another = "Use another table, which create_table(client, NAME) makes."
        return [Difference(f"its keys are {keys}, not {_words(KEYS)}", another)]
    differences = [
        Difference(f"{what} is {state.lower()}", "Call again when that is over.")
        for what, state in states_of(found).items()
        if state not in ("ACTIVE", "UPDATING")
    ]
    if differences:  # until then the rest need not be true
        return differences
    index = _index(found)
    make = _command(
        "update-table",
        table,
        attribute_definitions=types_of(INDEX_KEYS),
        global_secondary_index_updates=[{"Create": INDEX_DEFINITION}],
    )
    if index is None:
        differences.append(Difference(f"it has no index {INDEX}", f"Run: {make}"))
    else:
        delete = _command(
            "update-table", table, global_secondary_index_updates=[{"Delete": {"IndexName": INDEX}}]
        )
        anew = f"Run: {delete} and, when that is done, {make}"
        keys, projection = _keys(index, types), index["Projection"]["ProjectionType"]
        if keys != _words(INDEX_KEYS):
            what = f"the keys of its index {INDEX} are {keys}, not {_words(INDEX_KEYS)}"
            differences.append(Difference(what, anew))
        if projection != "ALL":
            what = f"its index {INDEX} holds {projection}, not ALL"
            differences.append(Difference(what, anew))
    return differences


def ttl_differences(table: str, state: str, attribute: str | None) -> list[Difference]:
    if state in ("ENABLED", "ENABLING") and attribute == TTL:
        return []
    turn_on = (
        f"Call chatledger.stores.dynamodb.create_table(client, {table!r}), which turns TTL on."
    )
    if attribute in (None, TTL):
        return [Difference(f"TTL is off, not on {TTL}", turn_on)]
    turn_off = _command(
        "update-time-to-live",
        table,
        time_to_live_specification={"Enabled": False, "AttributeName": attribute},
    )
    remedy = f"Run: {turn_off} and, an hour later: {turn_on}"
    return [Difference(f"TTL is on {attribute}, not on {TTL}", remedy)]


def _keys(found: Mapping[str, Any], types: Mapping[str, str]) -> str:
    names = [key["AttributeName"] for key in found["KeySchema"]]  # the partition key's first
    return _words({name: types[name] for name in names})


def _words(keys: Mapping[str, str]) -> str:
    return " and ".join(f"{name} ({kind})" for name, kind in keys.items())


def _command(operation: str, table: str, **options: Any) -> str:
    """The command of AWS's own tool that does it."""
    words = ["aws", "dynamodb", operation, "--table-name", table]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", json.dumps(value)]
    return shlex.join(words)
