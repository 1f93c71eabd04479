"""The table: made once and safe to make again, checked with what mends it, and who may use it."""

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from chatledger.messages import new_id
from chatledger.stores.dynamodb import DynamoDBStore, check_table, create_table, policy
from chatledger.testing.dynamodb_local import REGION
from tests.stores.dynamodb.conftest import SetClock
from tests.stores.dynamodb.fake_endpoint import Answering, Reply, everything

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HELLO = [Message.user("hello")]


@pytest.fixture
def name(client: "DynamoDBClient") -> Iterator[str]:
    """Of a table that is not there yet."""
    name = f"made-{new_id()}"
    yield name
    if name in client.list_tables()["TableNames"]:
        client.update_table(TableName=name, DeletionProtectionEnabled=False)
        client.delete_table(TableName=name)


def description(client: "DynamoDBClient", name: str) -> dict[str, Any]:
    return dict(client.describe_table(TableName=name)["Table"])


def ttl(client: "DynamoDBClient", name: str) -> dict[str, Any]:
    return dict(client.describe_time_to_live(TableName=name)["TimeToLiveDescription"])


# Making it ----------------------------------------------------------------------------------------


def test_a_table_that_was_made_can_be_used_at_once(client: "DynamoDBClient", name: str) -> None:
    create_table(client, name)
    check_table(client, name)
    store = DynamoDBStore(client, name)
    store.append("trip", HELLO, owner="bob")
    assert [each.id for each in store.list("bob").conversations] == ["trip"]
    made = description(client, name)
    assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert made["DeletionProtectionEnabled"] is False
    assert ttl(client, name) == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_making_it_again_changes_nothing(client: "DynamoDBClient", name: str) -> None:
    create_table(client, name)
    DynamoDBStore(client, name).append("trip", HELLO)
    before = description(client, name), ttl(client, name)
    create_table(client, name)
    after = description(client, name), ttl(client, name)
    assert DynamoDBStore(client, name).get("trip").message_count == 1
    for each in (before, after):
        del each[0]["TableSizeBytes"], each[0]["ItemCount"], each[0]["GlobalSecondaryIndexes"]
    assert after == before


def test_a_table_that_was_protected_is_protected(client: "DynamoDBClient", name: str) -> None:
    create_table(client, name, deletion_protection=True)
    assert description(client, name)["DeletionProtectionEnabled"] is True


def test_a_table_without_ttl_and_protection_gets_both(client: "DynamoDBClient", table: str) -> None:
    assert ttl(client, table)["TimeToLiveStatus"] == "DISABLED"
    create_table(client, table, deletion_protection=True)
    assert ttl(client, table) == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    assert description(client, table)["DeletionProtectionEnabled"] is True
    create_table(client, table)  # which turns nothing off
    assert description(client, table)["DeletionProtectionEnabled"] is True
    client.update_table(TableName=table, DeletionProtectionEnabled=False)


def test_many_who_make_it_at_once_make_one(client: "DynamoDBClient", name: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: create_table(client, name), range(8)))
    check_table(client, name)


@pytest.mark.parametrize("bad", ["", "ab", "a b", "täble", "a" * 256, "table/x"])
def test_what_can_be_no_tables_name_is_refused(client: "DynamoDBClient", bad: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: create_table(client, bad),
        lambda: check_table(client, bad),
        lambda: DynamoDBStore(client, bad),
    ]
    for use in uses:
        with pytest.raises(InvalidArgument, match="is no table's name"):
            use()


# What DynamoDB Local does not have, or does at once -----------------------------------------------


class Steps:
    """A client whose answers are written down here: DynamoDB Local knows no point-in-time
    recovery, no tags, no states in between, and no limit to how often TTL is changed.
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

    def table(self, status: str = "ACTIVE", index: str = "ACTIVE") -> "Steps":
        """It is described so."""
        self.stub.add_response(
            "describe_table", {"Table": table_of(status, index)}, {"TableName": "trips"}
        )
        return self

    def ttl(self, status: str = "ENABLED") -> "Steps":
        attribute = {} if status == "DISABLED" else {"AttributeName": "expires_at"}
        self.stub.add_response(
            "describe_time_to_live",
            {"TimeToLiveDescription": {"TimeToLiveStatus": status, **attribute}},
            {"TableName": "trips"},
        )
        return self

    def does(self, operation: str, **asked: Any) -> "Steps":
        self.stub.add_response(operation, {}, asked)
        return self

    def refuses(self, operation: str, code: str, message: str = "") -> "Steps":
        self.stub.add_client_error(operation, code, message, expected_params=ANYTHING[operation])
        return self

    def run(self, run: Callable[["DynamoDBClient"], None]) -> None:
        with self.stub:
            run(self.client)
        self.stub.assert_no_pending_responses()


ANYTHING: dict[str, Any] = {
    "describe_table": {"TableName": "trips"},
    "create_table": None,
    "update_continuous_backups": {"TableName": "trips", "PointInTimeRecoverySpecification": ANY},
    "update_time_to_live": {"TableName": "trips", "TimeToLiveSpecification": ANY},
}
PITR = {"PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True}}
TTL = {"TimeToLiveSpecification": {"Enabled": True, "AttributeName": "expires_at"}}


def table_of(status: str, index: str) -> Any:
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


def test_point_in_time_recovery_is_turned_on_once_it_can_be() -> None:
    steps = Steps().table().table().ttl()
    steps.refuses("update_continuous_backups", "ContinuousBackupsUnavailableException")
    steps.does("update_continuous_backups", TableName="trips", **PITR)
    steps.run(lambda client: create_table(client, "trips", point_in_time_recovery=True))


def test_tags_and_the_key_go_along_with_a_new_table() -> None:
    steps = Steps().refuses("describe_table", "ResourceNotFoundException")
    steps.does(
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
    steps.table().ttl()
    steps.run(
        lambda client: create_table(client, "trips", kms_key="alias/trips", tags={"team": "trips"})
    )


def test_it_is_waited_for_until_table_index_and_ttl_are_active() -> None:
    steps = Steps().table("CREATING", "CREATING").table("CREATING", "CREATING")
    steps.table("ACTIVE", "CREATING").table("UPDATING", "ACTIVE").table()
    steps.ttl("DISABLED").does("update_time_to_live", TableName="trips", **TTL)
    steps.ttl("ENABLING").ttl("ENABLING").ttl()
    steps.run(lambda client: create_table(client, "trips"))


def test_a_table_that_is_not_seen_at_once_is_waited_for() -> None:
    steps = Steps().refuses("describe_table", "ResourceNotFoundException")
    steps.refuses("create_table", "ResourceInUseException")
    steps.refuses("describe_table", "ResourceNotFoundException").table("CREATING").table().ttl()
    steps.run(lambda client: create_table(client, "trips"))


def test_ttl_that_is_on_after_all_is_no_error() -> None:
    steps = Steps().table().table().ttl("DISABLED")
    steps.refuses("update_time_to_live", "ValidationException", "TimeToLive is already enabled")
    steps.ttl("ENABLING").ttl()
    steps.run(lambda client: create_table(client, "trips"))


def test_ttl_that_cannot_be_turned_on_now_is_told() -> None:
    steps = Steps().table().table().ttl("DISABLED")
    steps.refuses("update_time_to_live", "ValidationException", "Modified too often.")
    steps.ttl("DISABLED")
    with pytest.raises(StoreUnavailable, match=r"TTL .*'trips' cannot be turned on: Modified too"):
        steps.run(lambda client: create_table(client, "trips"))


def test_it_is_not_waited_for_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatledger.stores.dynamodb.provisioning.READY_SECONDS", 0.1)
    steps = Steps().table("CREATING").table("CREATING").table("CREATING").table("CREATING")
    with pytest.raises(StoreUnavailable, match="call create_table again, which goes on waiting"):
        steps.run(lambda client: create_table(client, "trips"))


def test_a_check_takes_a_ttl_that_is_being_turned_on() -> None:
    Steps().table("UPDATING").ttl("ENABLING").run(lambda client: check_table(client, "trips"))


def test_a_table_that_goes_is_not_one_to_use() -> None:
    with pytest.raises(TableMismatch, match=r"it is deleting\. Call again when that is over\.$"):
        Steps().table("DELETING").ttl().run(lambda client: check_table(client, "trips"))


def test_rights_that_lack_are_told_here_too() -> None:
    with Answering(everything(Reply.error("AccessDeniedException"))) as server:
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


# Checking it --------------------------------------------------------------------------------------

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


def make(
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


Done = tuple[str, dict[str, Any]]


def commands(remedy: str) -> list[Done]:
    """What AWS's tool would do for the commands in ``remedy``: operations and their parameters."""
    done = []
    for command in re.findall(r"aws dynamodb .*?(?= and, |$)", remedy):
        _, _, operation, *arguments = shlex.split(command)
        params = {}
        for flag, text in zip(arguments[::2], arguments[1::2], strict=True):
            parameter = "".join(map(str.capitalize, flag.removeprefix("--").split("-")))
            params[parameter] = text if parameter == "TableName" else json.loads(text)
        done.append((operation.replace("-", "_"), params))
    return done


def run(client: "DynamoDBClient", command: Done) -> None:
    operation, params = command
    getattr(client, operation)(**params)


def refusal(client: "DynamoDBClient", name: str) -> TableMismatch:
    with pytest.raises(TableMismatch) as refused:
        check_table(client, name)
    return refused.value


def test_a_table_that_is_not_there_is_told_with_what_makes_it(client: "DynamoDBClient") -> None:
    with pytest.raises(TableMissing) as missing:
        check_table(client, "nowhere")
    assert str(missing.value) == (
        "There is no DynamoDB table 'nowhere' in this account and region; make it with "
        "chatledger.stores.dynamodb.create_table(client, 'nowhere')."
    )


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([("id", "S")], "id (S)"),
        ([("pk", "S")], "pk (S)"),
        ([("pk", "S"), ("sk", "N")], "pk (S) and sk (N)"),
        ([("sk", "S"), ("pk", "S")], "sk (S) and pk (S)"),
    ],
)
def test_a_table_with_other_keys_is_told_that_nothing_mends_it(
    client: "DynamoDBClient", name: str, keys: Keys, told: str
) -> None:
    make(client, name, keys, None)
    refused = refusal(client, name)
    assert refused.differences == (
        f"its keys are {told}, not pk (S) and sk (S)",
        "TTL is off, not on expires_at",
    )
    assert "Use another table" in refused.remedy
    with pytest.raises(TableMismatch, match=re.escape(f"its keys are {told}")):
        create_table(client, name)


@pytest.mark.parametrize(
    ("index", "projection", "told"),
    [
        (None, "ALL", ["it has no index by_owner"]),
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
def test_another_index_is_told_with_the_commands_that_mend_it(
    client: "DynamoDBClient", name: str, index: Keys | None, projection: str, told: list[str]
) -> None:
    make(client, name, PK_SK, index, projection=projection)
    with pytest.raises(TableMismatch) as refused:
        create_table(client, name)
    for said, difference in zip(refused.value.differences, told, strict=True):
        assert said.startswith(difference)
    *before, last = commands(refused.value.remedy)
    run(client, (before or [last])[0])
    # DynamoDB Local takes ten seconds for either.
    doing = "deleting" if before else "creating"
    assert refusal(client, name).differences[0] == f"its index by_owner is {doing}"
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


def test_ttl_that_is_off_is_told_with_what_turns_it_on(
    client: "DynamoDBClient", table: str
) -> None:
    refused = refusal(client, table)
    assert str(refused) == (
        f"The DynamoDB table '{table}' is not as a store needs it: TTL is off, not on expires_at. "
        f"Call chatledger.stores.dynamodb.create_table(client, '{table}'), which turns TTL on."
    )
    create_table(client, table)
    check_table(client, table)


def test_ttl_on_something_else_is_told_with_the_command_that_frees_it(
    client: "DynamoDBClient", table: str
) -> None:
    other = {"Enabled": True, "AttributeName": "ttl"}
    client.update_time_to_live(TableName=table, TimeToLiveSpecification=other)  # type: ignore[arg-type]
    with pytest.raises(TableMismatch) as refused:
        create_table(client, table)
    assert refused.value.differences == ("TTL is on ttl, not on expires_at",)
    assert refusal(client, table).differences == refused.value.differences
    [free] = commands(refused.value.remedy)
    run(client, free)
    create_table(client, table)
    check_table(client, table)


# Who may use it -----------------------------------------------------------------------------------

ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/conversations"
SOURCE = Path(chatledger.stores.dynamodb.__file__).parent
PARTS = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"} | {
    "ConditionCheck": "ConditionCheckItem"
}


def rights(*names: str) -> set[tuple[str, str]]:
    """What these statements allow, and on what."""
    return {
        (action.removeprefix("dynamodb:"), statement["Resource"])
        for statement in policy(ARN)["Statement"]
        for action in statement["Action"]
        if statement["Sid"] in names
    }


def operations(*files: str) -> set[str]:
    """Those of every ``Call`` that is written in these files."""
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


CREATING = ("provisioning.py", "checking.py")
RUNNING = [
    str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if path.name not in CREATING
]


def test_the_rights_are_those_of_the_calls_that_plans_are_made_of() -> None:
    running = {right for right, _ in rights("ChatledgerRuns", "ChatledgerLists")}
    creating = {right for right, _ in rights("ChatledgerCreates")}
    # A transaction needs the rights of its parts; those are seen below.
    assert operations(*RUNNING) - {"TransactWriteItems"} == running - {"ConditionCheckItem"}
    # Tags come with the call that makes the table, and need a right of their own.
    assert operations(*CREATING) == creating - {"TagResource"}


def test_every_operation_does_with_the_rights_of_running_and_needs_them_all(
    client: "DynamoDBClient", table: str, clock: SetClock
) -> None:
    used: set[tuple[str, str]] = set()

    def note(params: dict[str, Any], model: Any, **_: object) -> None:
        resource = f"{ARN}/index/{params['IndexName']}" if "IndexName" in params else ARN
        if model.name == "TransactWriteItems":
            used.update((PARTS[kind], ARN) for part in params["TransactItems"] for kind in part)
        else:
            used.add((model.name, resource))

    client.meta.events.register("provide-client-params.dynamodb", note)
    try:
        use_all(DynamoDBStore(client, table, clock=clock), clock)
    finally:
        client.meta.events.unregister("provide-client-params.dynamodb", note)
    assert used == rights("ChatledgerRuns", "ChatledgerLists")


def use_all(store: DynamoDBStore, clock: SetClock) -> None:
    store.append("trip", HELLO * 3, owner="bob", idempotency_key="1")
    store.append("trip", HELLO, owner="bob", idempotency_key="1")
    store.append("trip", [Message.user("long " * 100_000)])
    revision = store.get("trip").revision
    store.update("trip", title="A trip", revision=revision)
    store.page("trip")
    store.replace("trip", 1, HELLO[0])
    store.pop("trip")
    store.fork("trip", new_id="another")
    stands = store.get("trip")
    store.restore(replace(stands, revision=stands.revision + 1), [], after=stands.revision)
    store.truncate("trip", after=1)
    store.scan()
    store.list("bob")
    store.create("brief", expires_in=timedelta(hours=1), owner="bob")
    clock.advance(hours=50)
    store.append("brief", HELLO)
    store.delete("another")
    clock.advance(days=200)
    store.sweep()
    store.delete_owner("bob")
    store.clear(store.create().id)


def test_a_policy_says_no_more_than_it_must() -> None:
    said = policy(ARN)
    assert said["Version"] == "2012-10-17"
    assert {statement["Effect"] for statement in said["Statement"]} == {"Allow"}
    assert "*" not in json.dumps(said)
    assert {resource for _, resource in rights("ChatledgerLists")} == {f"{ARN}/index/by_owner"}
    assert {resource for _, resource in rights("ChatledgerRuns", "ChatledgerCreates")} == {ARN}
