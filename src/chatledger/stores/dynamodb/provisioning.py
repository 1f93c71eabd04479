"""Creating and checking the table, and the IAM policy for its users."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from chatledger.errors import InvalidArgument, StoreUnavailable
from chatledger.messages import now
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan, Wait
from chatledger.stores.dynamodb.table import INDEX, Table
from chatledger.stores.dynamodb.table_check import (
    INDEX_DEFINITION,
    INDEX_KEYS,
    KEYS,
    TTL_ATTRIBUTE,
    attribute_definitions,
    check_definition,
    definition_differences,
    key_schema,
    mismatch_error,
    read_description,
    read_ttl,
    statuses,
    ttl_differences,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

READY_SECONDS = 600.0
"""The longest time (s) to wait for one change of the table; most take less than half a minute."""


def create_table(
    client: "DynamoDBClient",
    table: str,
    *,
    deletion_protection: bool = False,
    point_in_time_recovery: bool = False,
    kms_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Create the table, billed on demand, and wait until it, its index and its TTL are active.

    If the table exists, its TTL is turned on, and so are ``deletion_protection`` and
    ``point_in_time_recovery`` if they are true; nothing is turned off. So an interrupted call can
    be repeated.

    Args:
        client: The boto3 client; it stays open.
        table: The table's name.
        deletion_protection: Whether DynamoDB refuses to delete the table.
        point_in_time_recovery: Whether AWS keeps backups of the last 35 days.
        kms_key: The id, ARN or alias of your own KMS key to encrypt a new table with.
        tags: The tags of a new table.

    Raises:
        AccessRefused: The AWS credentials are missing or were rejected.
        InvalidArgument: ``table`` is not a table name.
        StoreUnavailable: DynamoDB did not answer in time, or a change took over ten minutes.
        TableMismatch: The table exists with other keys or another index, or has its TTL on another
            attribute.
    """
    plan = _create(
        table,
        deletion_protection=deletion_protection,
        point_in_time_recovery=point_in_time_recovery,
        kms_key=kms_key,
        tags=tags or {},
    )
    _run(client, table, plan)


def check_table(client: "DynamoDBClient", table: str) -> None:
    """Raise an error unless the table can be used as a store.

    Args:
        client: The boto3 client; it stays open.
        table: The table's name.

    Raises:
        AccessRefused: The AWS credentials are missing or were rejected.
        InvalidArgument: ``table`` is not a table name.
        StoreUnavailable: DynamoDB did not answer in time.
        TableMismatch: The table is not set up as the store needs it; the error says what differs
            and how to correct it.
        TableMissing: There is no such table.
    """
    _run(client, table, check_definition(table))


def policy(table_arn: str, kms_key: str | None = None) -> dict[str, Any]:
    """Return the least IAM policy for using, creating and checking the table.

    Its statements, by ``Sid``:

    - ``ChatledgerRuns`` is for all operations on conversations;
    - ``ChatledgerLists`` is for ``list`` and ``delete_owner``;
    - ``ChatledgerScans`` is for ``scan``, ``sweep`` and copying from the table, which read the
      conversations of all owners; a chatbot can do without it;
    - ``ChatledgerCreates`` is for ``create_table`` and ``check_table``;
    - ``ChatledgerEncrypts``, only with ``kms_key``, is for all of these.

    Args:
        table_arn: The table's ARN.
        kms_key: The ARN of the KMS key that encrypts the table, if it is your own; not an alias.

    Raises:
        InvalidArgument: ``kms_key`` is not the ARN of a key.
    """

    def allow(sid: str, operations: list[str], resource: str) -> dict[str, Any]:
        actions = [f"dynamodb:{operation}" for operation in operations]
        return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}

    statements = [
        # A transaction needs the permissions for its actions, and none of its own.
        allow(
            "ChatledgerRuns",
            [
                "BatchWriteItem",
                "ConditionCheckItem",
                "DeleteItem",
                "GetItem",
                "PutItem",
                "Query",
                "UpdateItem",
            ],
            table_arn,
        ),
        allow("ChatledgerLists", ["Query"], f"{table_arn}/index/{INDEX}"),
        allow("ChatledgerScans", ["Scan"], table_arn),
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
    ]
    if kms_key is not None:
        statements.append(_kms_statement(kms_key))
    return {"Version": "2012-10-17", "Statement": statements}


def _kms_statement(key_arn: str) -> dict[str, Any]:
    """Return the statement for the key of an encrypted table, limited to use through DynamoDB.

    DynamoDB uses the key with the permissions of the caller:
    https://docs.aws.amazon.com/kms/latest/developerguide/services-dynamodb.html
    """
    if not key_arn.startswith("arn:") or ":key/" not in key_arn:
        raise InvalidArgument(
            f"{key_arn!r} is not the ARN of a KMS key; write arn:aws:kms:REGION:ACCOUNT:key/ID."
        )
    operations = [
        "CreateGrant",
        "Decrypt",
        "DescribeKey",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncryptFrom",
        "ReEncryptTo",
    ]
    return {
        "Sid": "ChatledgerEncrypts",
        "Effect": "Allow",
        "Action": [f"kms:{operation}" for operation in operations],
        "Resource": key_arn,
        "Condition": {"StringLike": {"kms:ViaService": "dynamodb.*.amazonaws.com"}},
    }


def _run(client: "DynamoDBClient", table: str, plan: Plan[None]) -> None:
    Boto3Calls(client).run(plan, Table.of(table, expire_after=None, consistent=True, clock=now))


def _create(
    table: str,
    *,
    deletion_protection: bool,
    point_in_time_recovery: bool,
    kms_key: str | None,
    tags: Mapping[str, str],
) -> Plan[None]:
    if (yield from read_description(table)) is None:
        try:
            yield Call("CreateTable", _definition(table, deletion_protection, kms_key, tags))
        except CallFailed as failed:
            if failed.code != "ResourceInUseException":  # another process was faster
                raise
    description = yield from _wait_for_table(table)
    if differences := definition_differences(table, description):
        raise mismatch_error(table, differences)
    yield from _turn_ttl_on(table)
    if deletion_protection and not description.get("DeletionProtectionEnabled"):
        yield Call("UpdateTable", {"TableName": table, "DeletionProtectionEnabled": True})
        yield from _wait_for_table(table)
    if point_in_time_recovery:
        yield from _turn_recovery_on(table)


def _definition(
    table: str, deletion_protection: bool, kms_key: str | None, tags: Mapping[str, str]
) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "TableName": table,
        "KeySchema": key_schema(KEYS),
        "AttributeDefinitions": attribute_definitions(KEYS | INDEX_KEYS),
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


class _NotReady(Enum):
    NOT_READY = "not ready"


_NOT_READY = _NotReady.NOT_READY
"""The outcome of an attempt that is to be repeated after a pause."""


def _wait_for_table(table: str) -> Plan[dict[str, Any]]:
    """Return the table's description once neither it nor its index is being created or changed."""

    def read() -> Plan[dict[str, Any] | _NotReady]:
        description = yield from read_description(table)
        if description is None or {"CREATING", "UPDATING"} & set(statuses(description).values()):
            return _NOT_READY
        return description

    return (yield from _repeat(read, f"The DynamoDB table {table!r}"))


def _turn_ttl_on(table: str) -> Plan[None]:
    what = f"TTL of the DynamoDB table {table!r}"

    def turn_on() -> Plan[str | _NotReady]:
        status, attribute = yield from read_ttl(table)
        if attribute not in (None, TTL_ATTRIBUTE):
            raise mismatch_error(table, ttl_differences(table, status, attribute))
        if status == "DISABLED":
            specification = {"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
            try:
                yield Call(
                    "UpdateTimeToLive",
                    {"TableName": table, "TimeToLiveSpecification": specification},
                )
            except CallFailed as failed:
                if failed.code != "ValidationException":
                    raise
                # Either an earlier attempt whose reply was lost has turned it on, or AWS allows no
                # further change within an hour of the last one.
                if (yield from read_ttl(table))[0] == "DISABLED":
                    raise StoreUnavailable(
                        f"{what} cannot be turned on: {failed.message}"
                    ) from None
        return status if status == "ENABLED" else _NOT_READY

    yield from _repeat(turn_on, what)


def _turn_recovery_on(table: str) -> Plan[None]:
    def turn_on() -> Plan[dict[str, Any] | _NotReady]:
        specification = {"PointInTimeRecoveryEnabled": True}
        try:
            reply: dict[str, Any] = yield Call(
                "UpdateContinuousBackups",
                {"TableName": table, "PointInTimeRecoverySpecification": specification},
            )
        except CallFailed as failed:
            # Backups are not available in the first moments of a new table.
            if failed.code != "ContinuousBackupsUnavailableException":
                raise
            return _NOT_READY
        return reply

    yield from _repeat(turn_on, f"Point-in-time recovery of the DynamoDB table {table!r}")


def _repeat(attempt: Callable[[], Plan[T | _NotReady]], what: str) -> Plan[T]:
    """Repeat ``attempt`` with growing pauses until it is ready, and return its outcome.

    Raises:
        StoreUnavailable: It was not ready within ``READY_SECONDS``.
    """
    waited, pause = 0.0, 0.05
    while True:
        outcome = yield from attempt()
        if not isinstance(outcome, _NotReady):
            return outcome
        if waited >= READY_SECONDS:
            raise StoreUnavailable(
                f"{what} was not ready within {READY_SECONDS:.0f} s; call create_table again to "
                "continue waiting."
            )
        yield Wait(pause)
        waited, pause = waited + pause, min(pause * 1.5, 5.0)
