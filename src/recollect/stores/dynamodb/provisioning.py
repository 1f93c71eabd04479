"""The table: making it, checking it, and who may use it."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from recollect.errors import StoreUnavailable, TableMismatch, TableMissing
from recollect.messages import now
from recollect.stores.dynamodb.boto3_calls import Boto3Calls
from recollect.stores.dynamodb.calls import Call, CallFailed, Plan, Wait
from recollect.stores.dynamodb.table import INDEX, Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

KEYS = {"pk": "S", "sk": "S"}
INDEX_KEYS = {"owner": "S", "updated_at": "N"}
"""Of items, heads with an owner have both, and so are alone in the index."""
TTL = "expires_at"
READY_SECONDS = 600.0
"""How long it may take until the table can be used; seconds, but for a backfilled index."""


def create_table(
    client: "DynamoDBClient",
    table: str,
    *,
    deletion_protection: bool = False,
    point_in_time_recovery: bool = False,
    kms_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Make the table, billed on demand, and wait until it, its index and its TTL are active.

    Where it is there already, TTL is turned on, and what else was asked for; nothing is turned off,
    and ``kms_key`` and ``tags`` are for new tables. So a call that was broken off can be made
    again. Raises ``TableMismatch`` where it is another kind of table, ``StoreUnavailable`` and
    ``AccessRefused``.
    """
    plan = creation(
        table,
        deletion_protection=deletion_protection,
        point_in_time_recovery=point_in_time_recovery,
        kms_key=kms_key,
        tags=tags or {},
    )
    _run(client, table, plan)


def check_table(client: "DynamoDBClient", table: str) -> None:
    """Raise ``TableMissing``, or ``TableMismatch`` that says what differs and what mends it."""
    _run(client, table, check(table))


def policy(table_arn: str) -> dict[str, Any]:
    """The least that IAM must allow: a statement for the table, one for its index, and one for
    ``create_table`` and ``check_table``.
    """

    def allow(name: str, operations: list[str], resource: str) -> dict[str, Any]:
        actions = [f"dynamodb:{operation}" for operation in operations]
        return {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resource}

    return {
        "Version": "2012-10-17",
        "Statement": [
            # A transaction needs the rights of its parts, and none of its own.
            allow(
                "RecollectRuns",
                [
                    "BatchWriteItem",
                    "ConditionCheckItem",
                    "DeleteItem",
                    "GetItem",
                    "PutItem",
                    "Query",
                    "Scan",
                    "UpdateItem",
                ],
                table_arn,
            ),
            allow("RecollectLists", ["Query"], f"{table_arn}/index/{INDEX}"),
            allow(
                "RecollectCreates",
                [
                    "CreateTable",
                    "DescribeTable",
                    "DescribeTimeToLive",
                    "TagResource",
                    "UpdateContinuousBackups",
                    "UpdateTable",
                    "UpdateTimeToLive",
                ],
                table_arn,
            ),
        ],
    }


def _run(client: "DynamoDBClient", table: str, plan: Plan[None]) -> None:
    place = Table.of(table, expire_after=None, consistent=True, clock=now)
    Boto3Calls(client).run(plan, place)


# Making it ----------------------------------------------------------------------------------------


def creation(
    table: str,
    *,
    deletion_protection: bool,
    point_in_time_recovery: bool,
    kms_key: str | None,
    tags: Mapping[str, str],
) -> Plan[None]:
    if (yield from _described(table)) is None:
        try:
            yield Call("CreateTable", _definition(table, deletion_protection, kms_key, tags))
        except CallFailed as failed:
            if failed.code != "ResourceInUseException":  # another process was faster
                raise
    found = yield from _settled(table)
    if differences := _differences(table, found):
        raise _mismatch(table, differences)
    yield from _turn_ttl_on(table)
    if deletion_protection and not found.get("DeletionProtectionEnabled"):
        yield Call("UpdateTable", {"TableName": table, "DeletionProtectionEnabled": True})
        yield from _settled(table)
    if point_in_time_recovery:
        yield from _turn_recovery_on(table)


def _definition(
    table: str, deletion_protection: bool, kms_key: str | None, tags: Mapping[str, str]
) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "TableName": table,
        "KeySchema": _schema(KEYS),
        "AttributeDefinitions": _types(KEYS | INDEX_KEYS),
        "GlobalSecondaryIndexes": [INDEX_DEFINITION],
        "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": deletion_protection,
    }
    if kms_key is not None:
        encryption = {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": kms_key}
        definition["SSESpecification"] = encryption
    if tags:
        definition["Tags"] = [{"Key": name, "Value": value} for name, value in tags.items()]
    return definition


def _schema(keys: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"AttributeName": name, "KeyType": kind}
        for name, kind in zip(keys, ("HASH", "RANGE"), strict=True)
    ]


def _types(keys: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in keys.items()]


INDEX_DEFINITION = {
    "IndexName": INDEX,
    "KeySchema": _schema(INDEX_KEYS),
    "Projection": {"ProjectionType": "ALL"},
}


def _settled(table: str) -> Plan[dict[str, Any]]:
    """The description of the table, once nothing of it is being made or changed."""

    def once() -> Plan[dict[str, Any] | None]:
        found = yield from _described(table)
        busy = found is None or {"CREATING", "UPDATING"} & set(_states(found).values())
        return None if busy else found

    return (yield from _awaited(once, f"The DynamoDB table {table!r}"))


def _turn_ttl_on(table: str) -> Plan[None]:
    def once() -> Plan[bool | None]:
        state, attribute = yield from _ttl(table)
        if attribute not in (None, TTL):
            raise _mismatch(table, _ttl_differences(table, state, attribute))
        if state == "DISABLED":
            wanted = {"Enabled": True, "AttributeName": TTL}
            try:
                yield Call(
                    "UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": wanted}
                )
            except CallFailed as failed:
                if failed.code != "ValidationException":
                    raise
                # It is on, the answer to that being lost; or AWS allows no second change so soon.
                if (yield from _ttl(table))[0] == "DISABLED":
                    raise StoreUnavailable(
                        f"{what} cannot be turned on: {failed.message}"
                    ) from None
        return True if state == "ENABLED" else None

    what = f"TTL of the DynamoDB table {table!r}"
    yield from _awaited(once, what)


def _turn_recovery_on(table: str) -> Plan[None]:
    def once() -> Plan[bool | None]:
        wanted = {"PointInTimeRecoveryEnabled": True}
        try:
            yield Call(
                "UpdateContinuousBackups",
                {"TableName": table, "PointInTimeRecoverySpecification": wanted},
            )
        except CallFailed as failed:
            # Of a table that was just made.
            if failed.code != "ContinuousBackupsUnavailableException":
                raise
            return None
        return True

    yield from _awaited(once, f"Point-in-time recovery of the DynamoDB table {table!r}")


def _awaited(once: Callable[[], Plan[T | None]], what: str) -> Plan[T]:
    waited, pause = 0.0, 0.05
    while True:
        found = yield from once()
        if found is not None:
            return found
        if waited >= READY_SECONDS:
            raise StoreUnavailable(
                f"{what} was not ready within {READY_SECONDS:.0f} s; call create_table again, "
                "which goes on waiting."
            )
        yield Wait(pause)
        waited, pause = waited + pause, min(pause * 1.5, 5.0)


# Checking it --------------------------------------------------------------------------------------


def check(table: str) -> Plan[None]:
    found = yield from _described(table)
    if found is None:
        raise TableMissing(table)
    differences = _differences(table, found)
    differences += _ttl_differences(table, *(yield from _ttl(table)))
    if differences:
        raise _mismatch(table, differences)


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as it must be, and what mends it."""

    what: str
    remedy: str


def _mismatch(table: str, differences: Sequence[Difference]) -> TableMismatch:
    remedies = dict.fromkeys(difference.remedy for difference in differences)
    return TableMismatch(table, [difference.what for difference in differences], " ".join(remedies))


def _described(table: str) -> Plan[dict[str, Any] | None]:
    try:
        found: dict[str, Any] = (yield Call("DescribeTable", {"TableName": table}))["Table"]
    except CallFailed as failed:
        if failed.code != "ResourceNotFoundException":
            raise
        return None
    return found


def _ttl(table: str) -> Plan[tuple[str, str | None]]:
    """The state of its TTL, and on which attribute it is."""
    reply = yield Call("DescribeTimeToLive", {"TableName": table})
    found = reply["TimeToLiveDescription"]
    return found["TimeToLiveStatus"], found.get("AttributeName")


def _states(found: Mapping[str, Any]) -> dict[str, str]:
    """Those of the table and of its index, where it has one."""
    states = {"it": found["TableStatus"]}
    if index := _index(found):
        states[f"its index {INDEX}"] = index["IndexStatus"]
    return states


def _index(found: Mapping[str, Any]) -> dict[str, Any] | None:
    named = {index["IndexName"]: index for index in found.get("GlobalSecondaryIndexes", ())}
    return named.get(INDEX)


def _differences(table: str, found: Mapping[str, Any]) -> list[Difference]:
    types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
    if (keys := _keys(found, types)) != KEYS:
        another = "Use another table, which create_table(client, NAME) makes."
        return [Difference(f"its keys are {_words(keys)}, not {_words(KEYS)}", another)]
    differences = [
        Difference(f"{what} is {state.lower()}", "Call again when that is over.")
        for what, state in _states(found).items()
        if state not in ("ACTIVE", "UPDATING")
    ]
    index = _index(found)
    make = _command(
        "update-table",
        table,
        attribute_definitions=_types(INDEX_KEYS),
        global_secondary_index_updates=[{"Create": INDEX_DEFINITION}],
    )
    if index is None:
        differences.append(Difference(f"it has no index {INDEX}", f"Run: {make}"))
    else:
        delete = _command(
            "update-table",
            table,
            global_secondary_index_updates=[{"Delete": {"IndexName": INDEX}}],
        )
        anew = f"Run: {delete} and, when that is done, {make}"
        keys, projection = _keys(index, types), index["Projection"]["ProjectionType"]
        if keys != INDEX_KEYS:
            what = f"the keys of its index {INDEX} are {_words(keys)}, not {_words(INDEX_KEYS)}"
            differences.append(Difference(what, anew))
        if projection != "ALL":
            what = f"its index {INDEX} holds {projection}, not ALL"
            differences.append(Difference(what, anew))
    return differences


def _ttl_differences(table: str, state: str, attribute: str | None) -> list[Difference]:
    if state in ("ENABLED", "ENABLING") and attribute == TTL:
        return []
    turn_on = f"Call recollect.stores.dynamodb.create_table(client, {table!r}), which turns TTL on."
    if attribute in (None, TTL):
        return [Difference(f"TTL is off, not on {TTL}", turn_on)]
    turn_off = _command(
        "update-time-to-live",
        table,
        time_to_live_specification={"Enabled": False, "AttributeName": attribute},
    )
    remedy = f"Run: {turn_off} and, an hour later: {turn_on}"
    return [Difference(f"TTL is on {attribute}, not on {TTL}", remedy)]


def _keys(found: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, str]:
    """Names and types, the partition key's first."""
    ordered = sorted(found["KeySchema"], key=lambda key: key["KeyType"] != "HASH")
    return {key["AttributeName"]: types[key["AttributeName"]] for key in ordered}


def _words(keys: Mapping[str, str]) -> str:
    return " and ".join(f"{name} ({kind})" for name, kind in keys.items())


def _command(operation: str, table: str, **options: Any) -> str:
    """The command of AWS's own tool that does it."""
    words = ["aws", "dynamodb", operation, "--table-name", table]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", json.dumps(value)]
    return shlex.join(words)
