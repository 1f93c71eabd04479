"""Creating and checking the table, and the IAM policy for its users."""

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.stub import ANY, Stubber

import chatledger.stores.dynamodb
from chatledger import InvalidArgument, Message, StoreUnavailable
from chatledger.errors import TableMismatch, TableMissing
from chatledger.stores.dynamodb import DynamoDBStore, check_table, create_table, policy
from chatledger.testing.dynamodb_local import REGION
from chatledger.testing.store_contract.helpers import start_conversation
from chatledger.testing.store_contract.operation_table import CALLS
from chatledger.values import new_id
from tests.stores.dynamodb.conftest import ManualClock
from tests.stores.dynamodb.fake_endpoint import FakeEndpoint, Reply, reply_to_all
from tests.stores.dynamodb.permissions import recorded_permissions

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HELLO = [Message.user("hello")]


@pytest.fixture
def name(client: "DynamoDBClient") -> Iterator[str]:
    """The name of a table that does not exist yet."""
    name = f"made-{new_id()}"
    yield name
    if name in client.list_tables()["TableNames"]:
        client.update_table(TableName=name, DeletionProtectionEnabled=False)
        client.delete_table(TableName=name)


def description(client: "DynamoDBClient", name: str) -> dict[str, Any]:
    return dict(client.describe_table(TableName=name)["Table"])


def ttl(client: "DynamoDBClient", name: str) -> dict[str, Any]:
    return dict(client.describe_time_to_live(TableName=name)["TimeToLiveDescription"])


# Creating -----------------------------------------------------------------------------------------


def test_a_created_table_can_be_used_at_once(client: "DynamoDBClient", name: str) -> None:
    create_table(client, name)
    check_table(client, name)
    store = DynamoDBStore(client, name)
    store.append("trip", HELLO, owner="bob")
    assert [each.id for each in store.list("bob").conversations] == ["trip"]
    created = description(client, name)
    assert created["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert created["DeletionProtectionEnabled"] is False
    assert ttl(client, name) == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_creating_a_table_again_changes_nothing(client: "DynamoDBClient", name: str) -> None:
    create_table(client, name)
    DynamoDBStore(client, name).append("trip", HELLO)
    before = description(client, name), ttl(client, name)
    create_table(client, name)
    after = description(client, name), ttl(client, name)
    assert DynamoDBStore(client, name).get("trip").message_count == 1
    for table, _ in (before, after):
        del table["TableSizeBytes"], table["ItemCount"], table["GlobalSecondaryIndexes"]
    assert after == before


def test_a_table_can_be_created_with_deletion_protection(
    client: "DynamoDBClient", name: str
) -> None:
    create_table(client, name, deletion_protection=True)
    assert description(client, name)["DeletionProtectionEnabled"] is True


def test_creating_an_existing_table_turns_on_ttl_and_deletion_protection(
    client: "DynamoDBClient", table: str
) -> None:
    assert ttl(client, table)["TimeToLiveStatus"] == "DISABLED"
    create_table(client, table, deletion_protection=True)
    assert ttl(client, table) == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    assert description(client, table)["DeletionProtectionEnabled"] is True
    create_table(client, table)  # turns nothing off
    assert description(client, table)["DeletionProtectionEnabled"] is True
    client.update_table(TableName=table, DeletionProtectionEnabled=False)


def test_concurrent_calls_create_one_table(client: "DynamoDBClient", name: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: create_table(client, name), range(8)))
    check_table(client, name)


@pytest.mark.parametrize("bad", ["", "ab", "a b", "täble", "a" * 256, "table/x"])
def test_an_invalid_table_name_is_rejected(client: "DynamoDBClient", bad: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: create_table(client, bad),
        lambda: check_table(client, bad),
        lambda: DynamoDBStore(client, bad),
    ]
    for use in uses:
        with pytest.raises(InvalidArgument, match="is not a table name"):
            use()


# What DynamoDB Local does not support -------------------------------------------------------------


class StubbedClient:
    """A client that expects scripted calls and returns scripted replies.

    DynamoDB Local has no point-in-time recovery, no tags, no intermediate states, and no limit on
    changes of TTL.
    """

    def __init__(self) -> None:
        self.client = boto3.Session().client(
            "dynamodb",
            region_name=REGION,
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.stub = Stubber(self.client)

    def table(self, status: str = "ACTIVE", index: str = "ACTIVE") -> "StubbedClient":
        """Expect ``DescribeTable``, and reply with these states."""
        self.stub.add_response(
            "describe_table", {"Table": table_description(status, index)}, {"TableName": "trips"}
        )
        return self

    def ttl(self, status: str = "ENABLED") -> "StubbedClient":
        attribute = {} if status == "DISABLED" else {"AttributeName": "expires_at"}
        self.stub.add_response(
            "describe_time_to_live",
            {"TimeToLiveDescription": {"TimeToLiveStatus": status, **attribute}},
            {"TableName": "trips"},
        )
        return self

    def accepts(self, operation: str, **params: Any) -> "StubbedClient":
        self.stub.add_response(operation, {}, params)
        return self

    def rejects(self, operation: str, code: str, message: str = "") -> "StubbedClient":
        self.stub.add_client_error(
            operation, code, message, expected_params=EXPECTED_PARAMS[operation]
        )
        return self

    def run(self, function: Callable[["DynamoDBClient"], None]) -> None:
        """Call ``function`` with the client, and assert that it made all expected calls."""
        with self.stub:
            function(self.client)
        self.stub.assert_no_pending_responses()


EXPECTED_PARAMS: dict[str, Any] = {
    "describe_table": {"TableName": "trips"},
    "create_table": None,
    "update_continuous_backups": {"TableName": "trips", "PointInTimeRecoverySpecification": ANY},
    "update_time_to_live": {"TableName": "trips", "TimeToLiveSpecification": ANY},
}
RECOVERY_ON = {"PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True}}
TTL_ON = {"TimeToLiveSpecification": {"Enabled": True, "AttributeName": "expires_at"}}


def table_description(status: str, index: str) -> Any:
    return {
        "TableName": "trips",
        "TableStatus": status,
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
        "GlobalSecondaryIndexes": [BY_OWNER | {"IndexStatus": index}],
    }


def test_point_in_time_recovery_is_turned_on_as_soon_as_it_is_available() -> None:
    stubbed = StubbedClient().table().table().ttl()
    stubbed.rejects("update_continuous_backups", "ContinuousBackupsUnavailableException")
    stubbed.accepts("update_continuous_backups", TableName="trips", **RECOVERY_ON)
    stubbed.run(lambda client: create_table(client, "trips", point_in_time_recovery=True))


def test_a_new_table_gets_the_tags_and_the_kms_key() -> None:
    stubbed = StubbedClient().rejects("describe_table", "ResourceNotFoundException")
    stubbed.accepts(
        "create_table",
        TableName="trips",
        AttributeDefinitions=ANY,
        KeySchema=ANY,
        GlobalSecondaryIndexes=ANY,
        BillingMode="PAY_PER_REQUEST",
        DeletionProtectionEnabled=False,
        SSESpecification={"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": "alias/trips"},
        Tags=[{"Key": "team", "Value": "trips"}],
    )
    stubbed.table().ttl()
    stubbed.run(
        lambda client: create_table(client, "trips", kms_key="alias/trips", tags={"team": "trips"})
    )


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatledger.stores.dynamodb.provisioning.POLL_SECONDS", 0.0)


def test_create_table_waits_until_table_and_index_are_active_and_turns_ttl_on() -> None:
    stubbed = StubbedClient().table("CREATING", "CREATING").table("CREATING", "CREATING")
    stubbed.table("ACTIVE", "CREATING").table("UPDATING", "ACTIVE").table()
    stubbed.ttl("DISABLED").accepts("update_time_to_live", TableName="trips", **TTL_ON)
    stubbed.run(lambda client: create_table(client, "trips"))


@pytest.mark.parametrize(
    ("table", "index", "said"),
    [("DELETING", "ACTIVE", "it"), ("ACTIVE", "DELETING", "its index by_owner")],
)
def test_create_table_does_not_wait_for_what_is_being_deleted(
    table: str, index: str, said: str
) -> None:
    stubbed = StubbedClient().table(table, index).table(table, index)
    with pytest.raises(
        TableMismatch, match=rf" {said} is deleting\. Try again when that has ended"
    ):
        stubbed.run(lambda client: create_table(client, "trips"))


def test_create_table_waits_for_a_table_that_is_not_visible_yet() -> None:
    stubbed = StubbedClient().rejects("describe_table", "ResourceNotFoundException")
    stubbed.rejects("create_table", "ResourceInUseException")
    stubbed.rejects("describe_table", "ResourceNotFoundException").table("CREATING")
    stubbed.table().ttl()
    stubbed.run(lambda client: create_table(client, "trips"))


def test_ttl_that_another_process_turned_on_meanwhile_is_accepted() -> None:
    stubbed = StubbedClient().table().table().ttl("DISABLED")
    stubbed.rejects("update_time_to_live", "ValidationException", "TimeToLive is already enabled")
    stubbed.ttl("ENABLING")
    stubbed.run(lambda client: create_table(client, "trips"))


def test_ttl_that_cannot_be_turned_on_now_raises_an_error() -> None:
    stubbed = StubbedClient().table().table().ttl("DISABLED")
    stubbed.rejects("update_time_to_live", "ValidationException", "Modified too often.")
    stubbed.ttl("DISABLED")
    with pytest.raises(StoreUnavailable, match=r"TTL .*'trips' cannot be turned on: Modified too"):
        stubbed.run(lambda client: create_table(client, "trips"))


def test_create_table_does_not_wait_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatledger.stores.dynamodb.provisioning.READY_SECONDS", -1)
    stubbed = StubbedClient().table("CREATING").table("CREATING")
    with pytest.raises(StoreUnavailable, match=r"'trips' was not ready.*call create_table again"):
        stubbed.run(lambda client: create_table(client, "trips"))
    recovery = StubbedClient().table().table().ttl()
    recovery.rejects("update_continuous_backups", "ContinuousBackupsUnavailableException")
    with pytest.raises(StoreUnavailable, match=r"Point-in-time recovery of .* was not ready"):
        recovery.run(lambda client: create_table(client, "trips", point_in_time_recovery=True))


def test_errors_while_create_table_waits_are_those_of_a_store() -> None:
    refused = StubbedClient().table().rejects("describe_table", "AccessDeniedException")
    with pytest.raises(chatledger.errors.AccessRefused, match="AccessDeniedException"):
        refused.run(lambda client: create_table(client, "trips"))
    throttled = StubbedClient().table().rejects("describe_table", "ThrottlingException")
    with pytest.raises(StoreUnavailable, match="did not answer in time"):
        throttled.run(lambda client: create_table(client, "trips"))


def test_check_table_accepts_a_ttl_that_is_being_turned_on() -> None:
    StubbedClient().table("UPDATING").ttl("ENABLING").run(
        lambda client: check_table(client, "trips")
    )


def test_check_table_rejects_a_table_that_is_being_deleted() -> None:
    with pytest.raises(TableMismatch, match=r"it is deleting\. Try again when that has ended\.$"):
        StubbedClient().table("DELETING").ttl().run(lambda client: check_table(client, "trips"))


def test_missing_permissions_are_reported_here_too() -> None:
    with FakeEndpoint(reply_to_all(Reply.error("AccessDeniedException"))) as server:
        client = boto3.Session().client(
            "dynamodb",
            region_name=REGION,
            endpoint_url=server.endpoint,
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(proxies={}),
        )
        with pytest.raises(
            chatledger.errors.AccessRefused, match=r"chatledger\.stores\.dynamodb\.policy"
        ):
            check_table(client, "trips")
        client.close()


# Checking -----------------------------------------------------------------------------------------

Keys = list[tuple[str, str]]
BY_OWNER: Any = {
    "IndexName": "by_owner",
    "KeySchema": [
        {"AttributeName": "owner", "KeyType": "HASH"},
        {"AttributeName": "updated_at", "KeyType": "RANGE"},
    ],
    "Projection": {"ProjectionType": "ALL"},
}
PK_SK: Keys = [("pk", "S"), ("sk", "S")]
OWNER: Keys = [("owner", "S"), ("updated_at", "N")]


def create_any_table(
    client: "DynamoDBClient", name: str, keys: Keys, index: Keys | None, *, projection: str = "ALL"
) -> None:
    kinds = ("HASH", "RANGE")

    def schema(keys: Keys) -> Any:
        return [
            {"AttributeName": n, "KeyType": kind} for (n, _), kind in zip(keys, kinds, strict=False)
        ]

    more: Any = {}
    if index:
        by_owner = {
            "IndexName": "by_owner",
            "KeySchema": schema(index),
            "Projection": {"ProjectionType": projection},
        }
        more["GlobalSecondaryIndexes"] = [by_owner]
    attributes = dict(keys + (index or []))
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=schema(keys),
        AttributeDefinitions=[
            {"AttributeName": n, "AttributeType": kind}  # type: ignore[typeddict-item]
            for n, kind in attributes.items()
        ],
        **more,
    )


Command = tuple[str, dict[str, Any]]
"""An operation and its parameters."""


def commands(remedy: str) -> list[Command]:
    """Return the commands for the AWS CLI that ``remedy`` quotes."""
    found = []
    for command in re.findall(r"aws dynamodb .*?(?= and, |$)", remedy):
        _, _, operation, *arguments = shlex.split(command)
        params = {}
        for flag, text in zip(arguments[::2], arguments[1::2], strict=True):
            parameter = "".join(map(str.capitalize, flag.removeprefix("--").split("-")))
            params[parameter] = text if parameter == "TableName" else json.loads(text)
        found.append((operation.replace("-", "_"), params))
    return found


def run(client: "DynamoDBClient", command: Command) -> None:
    operation, params = command
    getattr(client, operation)(**params)


def mismatch(client: "DynamoDBClient", name: str) -> TableMismatch:
    with pytest.raises(TableMismatch) as raised:
        check_table(client, name)
    return raised.value


def test_a_missing_table_is_reported_with_the_call_that_creates_it(
    client: "DynamoDBClient",
) -> None:
    with pytest.raises(TableMissing) as missing:
        check_table(client, "missing")
    assert str(missing.value) == (
        "There is no DynamoDB table 'missing' in this account and region; create it with "
        "chatledger.stores.dynamodb.create_table(client, 'missing')."
    )


@pytest.mark.parametrize(
    ("keys", "described"),
    [
        ([("id", "S")], "id (S)"),
        ([("pk", "S")], "pk (S)"),
        ([("pk", "S"), ("sk", "N")], "pk (S) and sk (N)"),
        ([("sk", "S"), ("pk", "S")], "sk (S) and pk (S)"),
    ],
)
def test_a_table_with_other_keys_is_reported_as_unusable(
    client: "DynamoDBClient", name: str, keys: Keys, described: str
) -> None:
    create_any_table(client, name, keys, None)
    refused = mismatch(client, name)
    assert refused.differences == (
        f"its keys are {described}, not pk (S) and sk (S)",
        "its index by_owner is missing",
        "TTL is off, not on expires_at",
    )
    assert "Use another table" in refused.remedy
    with pytest.raises(TableMismatch, match=re.escape(f"its keys are {described}")):
        create_table(client, name)


@pytest.mark.parametrize(
    ("index", "projection", "differences"),
    [
        (None, "ALL", ["its index by_owner is missing"]),
        (
            [("owner", "S"), ("created_at", "N")],
            "ALL",
            ["the keys of its index by_owner are owner (S) and created_at (N), not"],
        ),
        (OWNER, "KEYS_ONLY", ["its index by_owner holds KEYS_ONLY, not ALL"]),
        (
            [("owner", "S")],
            "KEYS_ONLY",
            [
                "the keys of its index by_owner are owner (S), not owner (S) and updated_at (N)",
                "its index by_owner holds KEYS_ONLY, not ALL",
            ],
        ),
    ],
)
def test_a_wrong_index_is_reported_with_the_commands_that_fix_it(
    client: "DynamoDBClient", name: str, index: Keys | None, projection: str, differences: list[str]
) -> None:
    create_any_table(client, name, PK_SK, index, projection=projection)
    with pytest.raises(TableMismatch) as refused:
        create_table(client, name)
    for reported, expected in zip(refused.value.differences, differences, strict=True):
        assert reported.startswith(expected)
    *before, last = commands(refused.value.remedy)
    run(client, (before or [last])[0])
    # DynamoDB Local takes up to ten seconds to create or delete an index.
    under_way, done = (
        ("its index by_owner is deleting", "its index by_owner is missing")
        if before
        else ("its index by_owner is creating", "TTL is off, not on expires_at")
    )
    assert mismatch(client, name).differences[0] in (under_way, done)
    assert len(before) == (index is not None)
    assert last == (
        "update_table",
        {
            "TableName": name,
            "AttributeDefinitions": [
                {"AttributeName": "owner", "AttributeType": "S"},
                {"AttributeName": "updated_at", "AttributeType": "N"},
            ],
            "GlobalSecondaryIndexUpdates": [{"Create": BY_OWNER}],
        },
    )


def test_a_ttl_that_is_off_is_reported_with_the_call_that_turns_it_on(
    client: "DynamoDBClient", table: str
) -> None:
    refused = mismatch(client, table)
    assert str(refused) == (
        f"The DynamoDB table '{table}' is not set up as the store needs it: "
        "TTL is off, not on expires_at. "
        f"Call chatledger.stores.dynamodb.create_table(client, '{table}'), which turns TTL on."
    )
    create_table(client, table)
    check_table(client, table)


def test_a_ttl_on_another_attribute_is_reported_with_the_command_that_turns_it_off(
    client: "DynamoDBClient", table: str
) -> None:
    other = {"Enabled": True, "AttributeName": "ttl"}
    client.update_time_to_live(TableName=table, TimeToLiveSpecification=other)  # type: ignore[arg-type]
    with pytest.raises(TableMismatch) as refused:
        create_table(client, table)
    assert refused.value.differences == ("TTL is on ttl, not on expires_at",)
    assert mismatch(client, table).differences == refused.value.differences
    [turn_off] = commands(refused.value.remedy)
    run(client, turn_off)
    create_table(client, table)
    check_table(client, table)


# The IAM policy -----------------------------------------------------------------------------------

ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/conversations"
SOURCE = Path(chatledger.stores.dynamodb.__file__).parent


def permissions(*statements: str) -> set[tuple[str, str]]:
    """Return the operations that these statements of the policy allow, each with its resource."""
    return {
        (action.removeprefix("dynamodb:"), statement["Resource"])
        for statement in policy(ARN)["Statement"]
        for action in statement["Action"]
        if statement["Sid"] in statements
    }


def operations(*files: str) -> set[str]:
    """Return the operation of every ``Call`` in these source files."""
    return {
        node.args[0].value
        for file in files
        for node in ast.walk(ast.parse((SOURCE / file).read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Call"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


RUNNING = [str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py")]
RUNNING_STATEMENTS = ("ChatledgerRuns", "ChatledgerLists", "ChatledgerScans")


def test_the_policy_allows_exactly_the_operations_that_plans_call() -> None:
    running = {operation for operation, _ in permissions(*RUNNING_STATEMENTS)}
    # A transaction needs the permissions of its actions; the next test checks them.
    assert operations(*RUNNING) - {"TransactWriteItems"} == running - {"ConditionCheckItem"}


def test_creating_and_checking_need_exactly_the_permissions_of_the_policy() -> None:
    used: set[str] = set()

    def create_and_check(client: "DynamoDBClient") -> None:
        client.meta.events.register(
            "provide-client-params.dynamodb", lambda model, **_: used.add(model.name)
        )
        create_table(client, "trips", tags={"team": "trips"}, point_in_time_recovery=True)
        create_table(client, "trips", deletion_protection=True)
        check_table(client, "trips")

    stubbed = StubbedClient().rejects("describe_table", "ResourceNotFoundException")
    stubbed.stub.add_response("create_table", {})
    stubbed.table().ttl("DISABLED")
    stubbed.accepts("update_time_to_live", TableName="trips", **TTL_ON)
    stubbed.accepts("update_continuous_backups", TableName="trips", **RECOVERY_ON)
    stubbed.table().table().ttl()
    stubbed.accepts("update_table", TableName="trips", DeletionProtectionEnabled=True)
    stubbed.table()
    stubbed.table().ttl().run(create_and_check)
    # ``CreateTable`` with tags needs this permission as well.
    assert used | {"TagResource"} == {
        operation for operation, _ in permissions("ChatledgerCreates")
    }


def test_the_operations_of_a_store_need_exactly_the_permissions_of_the_policy(
    client: "DynamoDBClient", table: str, clock: ManualClock
) -> None:
    with recorded_permissions(client, ARN) as used:
        use_every_operation(DynamoDBStore(client, table, clock=clock), clock)
    assert used == permissions(*RUNNING_STATEMENTS)


def use_every_operation(store: DynamoDBStore, clock: ManualClock) -> None:
    for call in CALLS:
        given = start_conversation(store, *"12345", owner="bob")
        call(store, given._replace(id=new_id()) if call.needs_free_id else given)
    store.append("trip", HELLO, idempotency_key="1")
    store.append("trip", HELLO, idempotency_key="1")
    store.append("trip", [Message.user("long " * 100_000)])
    store.create("expiring", expires_in=timedelta(hours=1), owner="bob")
    clock.advance(hours=50)
    store.append("expiring", HELLO)
    clock.advance(days=200)
    store.sweep()


def test_the_policy_allows_no_more_than_needed() -> None:
    document = policy(ARN)
    assert document["Version"] == "2012-10-17"
    assert {statement["Effect"] for statement in document["Statement"]} == {"Allow"}
    assert "*" not in json.dumps(document)
    assert {resource for _, resource in permissions("ChatledgerLists")} == {f"{ARN}/index/by_owner"}
    for sid in ("ChatledgerRuns", "ChatledgerScans", "ChatledgerCreates"):
        assert {resource for _, resource in permissions(sid)} == {ARN}


def test_scanning_the_table_has_a_statement_of_its_own() -> None:
    """A chatbot needs no access to the conversations of all owners."""
    assert permissions("ChatledgerScans") == {("Scan", ARN)}
    assert ("Scan", ARN) not in permissions("ChatledgerRuns", "ChatledgerLists")


KMS_KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def test_the_policy_for_an_encrypted_table_allows_its_key_through_dynamodb_only() -> None:
    *statements, encrypts = policy(ARN, kms_key=KMS_KEY)["Statement"]
    assert statements == policy(ARN)["Statement"]
    assert encrypts == {
        "Sid": "ChatledgerEncrypts",
        "Effect": "Allow",
        "Action": [
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:Encrypt",
            "kms:GenerateDataKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
        ],
        "Resource": KMS_KEY,
        "Condition": {"StringLike": {"kms:ViaService": "dynamodb.*.amazonaws.com"}},
    }


@pytest.mark.parametrize("bad", ["", "1234abcd", "alias/chat", KMS_KEY.replace("key/", "alias/")])
def test_a_policy_needs_the_arn_of_the_kms_key(bad: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the ARN of a KMS key"):
        policy(ARN, kms_key=bad)
