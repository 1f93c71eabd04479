"""Creating and checking the table, and the IAM policy for its users."""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from chatledger.errors import InvalidArgument, StoreUnavailable, TableMismatch, TableMissing
from chatledger.stores.dynamodb.calls import TRANSIENT
from chatledger.stores.dynamodb.errors import failure_from_error, store_error
from chatledger.stores.dynamodb.table import INDEX, check_table_name

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

TABLE_DEFINITION: dict[str, Any] = {
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "S"},
        {"AttributeName": "owner", "AttributeType": "S"},
        {"AttributeName": "updated_at", "AttributeType": "N"},
    ],
    "GlobalSecondaryIndexes": [
        {
            # Only heads that have an owner have both attributes, so it contains nothing else.
            "IndexName": INDEX,
            "KeySchema": [
                {"AttributeName": "owner", "KeyType": "HASH"},
                {"AttributeName": "updated_at", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "ALL"},
        }
    ],
}
"""The table's keys and its index, in the form in which DynamoDB describes a table."""
TTL_ATTRIBUTE = "expires_at"

POLL_SECONDS = 1
READY_SECONDS = 600
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
    """Create the table with its index and TTL, billed on demand, and wait until it can be used.

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
    with _store_errors(client, table):
        if _describe(client, table) is None:
            definition = TABLE_DEFINITION | {
                "TableName": table,
                "BillingMode": "PAY_PER_REQUEST",
                "DeletionProtectionEnabled": deletion_protection,
            }
            if kms_key is not None:
                encryption = {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": kms_key}
                definition["SSESpecification"] = encryption
            if tags:
                definition["Tags"] = [{"Key": name, "Value": tags[name]} for name in tags]
            with suppress(client.exceptions.ResourceInUseException):  # another process was faster
                client.create_table(**definition)
        description = _wait_for_table(client, table)
        _check(table, _facts(description))
        _turn_ttl_on(client, table)
        if deletion_protection and not description.get("DeletionProtectionEnabled"):
            client.update_table(TableName=table, DeletionProtectionEnabled=True)
            _wait_for_table(client, table)
        if point_in_time_recovery:
            _turn_recovery_on(client, table)


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
    with _store_errors(client, table):
        description = _describe(client, table)
        if description is None:
            raise TableMissing(table)
        _check(table, _facts(description) | {_TTL: _ttl(client, table)})


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


def _describe(client: "DynamoDBClient", table: str) -> dict[str, Any] | None:
    try:
        return dict(client.describe_table(TableName=table)["Table"])
    except client.exceptions.ResourceNotFoundException:
        return None


def _wait_for_table(client: "DynamoDBClient", table: str) -> dict[str, Any]:
    """Return the table's description once neither it nor an index is being created or changed."""

    def attempt() -> dict[str, Any] | None:
        description = _describe(client, table)
        if description is None:
            return None  # it is not visible yet
        indexes = description.get("GlobalSecondaryIndexes", ())
        statuses = {description["TableStatus"], *(index["IndexStatus"] for index in indexes)}
        return None if statuses & {"CREATING", "UPDATING"} else description

    return _repeat(attempt, f"The DynamoDB table {table!r}")


def _turn_ttl_on(client: "DynamoDBClient", table: str) -> None:
    if (ttl := _ttl(client, table)) != "off":
        _check(table, {_TTL: ttl})
        return
    try:
        client.update_time_to_live(
            TableName=table,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE},
        )
    except ClientError as error:
        # Either another process has turned it on, or an earlier attempt whose reply was lost; or
        # AWS allows no further change within an hour of the last one.
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        if _ttl(client, table) == "off":
            raise StoreUnavailable(
                f"TTL of the DynamoDB table {table!r} cannot be turned on: "
                f"{error.response['Error']['Message']}"
            ) from None


def _turn_recovery_on(client: "DynamoDBClient", table: str) -> None:
    def attempt() -> object | None:
        try:
            return client.update_continuous_backups(
                TableName=table,
                PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
            )
        except client.exceptions.ContinuousBackupsUnavailableException:
            return None  # as in the first moments of a new table

    _repeat(attempt, f"Point-in-time recovery of the DynamoDB table {table!r}")


def _repeat(attempt: Callable[[], T | None], what: str) -> T:
    """Repeat ``attempt`` until it returns something else than None."""
    deadline = time.monotonic() + READY_SECONDS
    while (result := attempt()) is None:
        if time.monotonic() > deadline:
            raise StoreUnavailable(
                f"{what} was not ready within {READY_SECONDS} s; call create_table again to "
                "continue waiting."
            )
        time.sleep(POLL_SECONDS)
    return result


def _ttl(client: "DynamoDBClient", table: str) -> str:
    """Return whether the table's TTL is off, or the attribute that it is on."""
    ttl = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    is_on = ttl["TimeToLiveStatus"] in ("ENABLED", "ENABLING")
    return f"on {ttl['AttributeName']}" if is_on else "off"


@contextmanager
def _store_errors(client: "DynamoDBClient", table: str) -> Iterator[None]:
    """Check the table's name, and translate the errors of botocore."""
    check_table_name(table)
    try:
        yield
    except ParamValidationError:
        raise
    except (BotoCoreError, ClientError) as error:
        operation = getattr(error, "operation_name", "")
        if operation not in client.meta.service_model.operation_names:
            operation = ""  # the error is of the service that issues credentials
        failed = failure_from_error(error, operation, single_attempt=False)
        if failed.code not in TRANSIENT:
            raise store_error(failed, table) from error
        why = failed.message or failed.code
        raise StoreUnavailable(f"DynamoDB did not answer in time ({why}); try again.") from error


# Checking -----------------------------------------------------------------------------------------

_TABLE, _TABLE_KEYS, _TTL = "it is", "its keys are", "TTL is"
_INDEX, _INDEX_KEYS = f"its index {INDEX} is", f"the keys of its index {INDEX} are"
_INDEX_CONTENT = f"its index {INDEX} holds"


def _facts(description: Mapping[str, Any]) -> dict[str, str]:
    """Return what matters of a table's description, as ends of sentences by their beginnings."""
    types = {
        each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]
    }

    def status(of: Mapping[str, Any], name: str) -> str:
        return str(of.get(name, "ACTIVE")).replace("UPDATING", "ACTIVE").lower()

    def keys(of: Mapping[str, Any]) -> str:
        names = [key["AttributeName"] for key in of["KeySchema"]]  # the partition key first
        return " and ".join(f"{name} ({types[name]})" for name in names)

    facts = {
        _TABLE: status(description, "TableStatus"),
        _TABLE_KEYS: keys(description),
        _INDEX: "missing",
    }
    for index in description.get("GlobalSecondaryIndexes", ()):
        if index["IndexName"] == INDEX:
            facts[_INDEX] = status(index, "IndexStatus")
            if facts[_INDEX] == "active":  # otherwise the description may be incomplete
                facts[_INDEX_KEYS] = keys(index)
                facts[_INDEX_CONTENT] = index["Projection"]["ProjectionType"]
    return facts


_EXPECTED = _facts(TABLE_DEFINITION) | {_TTL: f"on {TTL_ATTRIBUTE}"}


def _check(table: str, facts: Mapping[str, str]) -> None:
    """Raise ``TableMismatch`` unless these facts of the table are as expected."""
    differing = {name: fact for name, fact in facts.items() if fact != _EXPECTED[name]}
    if differing:
        differences = [
            f"{name} {fact}" + ("" if name in (_TABLE, _INDEX) else f", not {_EXPECTED[name]}")
            for name, fact in differing.items()
        ]
        raise TableMismatch(table, differences, _remedy(table, differing))


def _remedy(table: str, differing: Mapping[str, str]) -> str:
    if _TABLE_KEYS in differing:
        return "Use another table, which create_table(client, NAME) creates."
    if differing.keys() & {_TABLE, _INDEX} and differing.get(_INDEX) != "missing":
        return "Try again when that has ended."
    remedies = []
    if differing.keys() & {_INDEX, _INDEX_KEYS, _INDEX_CONTENT}:
        create = _aws_command(
            "update-table",
            table,
            attribute_definitions=TABLE_DEFINITION["AttributeDefinitions"][2:],
            global_secondary_index_updates=[
                {"Create": TABLE_DEFINITION["GlobalSecondaryIndexes"][0]}
            ],
        )
        delete = _aws_command(
            "update-table", table, global_secondary_index_updates=[{"Delete": {"IndexName": INDEX}}]
        )
        first = "" if _INDEX in differing else f"{delete} and, when that is done, "
        remedies.append(f"Run: {first}{create}")
    if _TTL in differing:
        call = (
            f"all chatledger.stores.dynamodb.create_table(client, {table!r}), which turns TTL on."
        )
        attribute = differing[_TTL].removeprefix("on ")
        turn_off = _aws_command(
            "update-time-to-live",
            table,
            time_to_live_specification={"Enabled": False, "AttributeName": attribute},
        )
        is_off = differing[_TTL] == "off"
        remedies.append(f"C{call}" if is_off else f"Run: {turn_off} and, an hour later, c{call}")
    return " ".join(remedies)


def _aws_command(operation: str, table: str, **options: Any) -> str:
    """Return the command of the AWS CLI for this operation, quoted for a shell."""
    words = ["aws", "dynamodb", operation, "--table-name", table]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", json.dumps(value)]
    return shlex.join(words)
