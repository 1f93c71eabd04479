"""The table: making it, checking it, and who may use it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from chatledger.errors import StoreUnavailable
from chatledger.messages import now
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan, Wait
from chatledger.stores.dynamodb.table import INDEX, Table
from chatledger.stores.dynamodb.table_check import (
    INDEX_DEFINITION,
    INDEX_KEYS,
    KEYS,
    TTL,
    check,
    described,
    differences_of,
    mismatch,
    schema_of,
    states_of,
    ttl_differences,
    ttl_of,
    types_of,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

READY_SECONDS = 600.0
"""How long it may take until the table can be used; most are ready within half a minute."""


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
                "ChatledgerRuns",
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
            allow("ChatledgerLists", ["Query"], f"{table_arn}/index/{INDEX}"),
            allow(
                "ChatledgerCreates",
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


def creation(
    table: str,
    *,
    deletion_protection: bool,
    point_in_time_recovery: bool,
    kms_key: str | None,
    tags: Mapping[str, str],
) -> Plan[None]:
    if (yield from described(table)) is None:
        try:
            yield Call("CreateTable", _definition(table, deletion_protection, kms_key, tags))
        except CallFailed as failed:
            if failed.code != "ResourceInUseException":  # another process was faster
                raise
    found = yield from _settled(table)
    if differences := differences_of(table, found):
        raise mismatch(table, differences)
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
        "KeySchema": schema_of(KEYS),
        "AttributeDefinitions": types_of(KEYS | INDEX_KEYS),
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


def _settled(table: str) -> Plan[dict[str, Any]]:
    """The description of the table, once nothing of it is being made or changed."""

    def once() -> Plan[dict[str, Any] | None]:
        found = yield from described(table)
        busy = found is None or {"CREATING", "UPDATING"} & set(states_of(found).values())
        return None if busy else found

    return (yield from _awaited(once, f"The DynamoDB table {table!r}"))


def _turn_ttl_on(table: str) -> Plan[None]:
    def once() -> Plan[bool | None]:
        state, attribute = yield from ttl_of(table)
        if attribute not in (None, TTL):
            raise mismatch(table, ttl_differences(table, state, attribute))
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
                if (yield from ttl_of(table))[0] == "DISABLED":
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
