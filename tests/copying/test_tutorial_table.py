"""Tests of ``TutorialTable`` as a source of ``copy``."""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.stub import Stubber
from hypothesis import given, settings
from hypothesis import strategies as st

from chatledger import ROLE_NAMES, Copied, Message, Progress, Store, TutorialTable, copy, open_store
from chatledger.copying.tutorial_table import parse_time
from chatledger.errors import AccessRefused, InvalidArgument, TableMissing
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from chatledger.values import new_id
from tests.stores.dynamodb.conftest import client
from tests.stores.dynamodb.faulty_clients import Crashed, client_with_hooks, crashing_client
from tests.stores.dynamodb.tables import new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.service_resource import Table

__all__ = ["client"]

SECRET = "text that must not be logged"
CREATED = "2026-03-01T10:00:00.125000"
CREATED_AT = datetime(2026, 3, 1, 10, 0, 0, 125_000, UTC)
UPDATED = "2026-03-02T11:30:00+02:00"
UPDATED_AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


class Tutorial:
    """A table with the tutorial's layout, and conversations written as the tutorial does."""

    def __init__(self, local: DynamoDBLocal) -> None:
        resource = boto3.resource(
            "dynamodb",
            endpoint_url=local.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=KEY,
            config=Config(proxies={}),
        )
        self.client = local.client()
        self.table: Table = resource.create_table(
            TableName=f"tutorial-{new_id()}",
            KeySchema=[{"AttributeName": "conversation_id", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": "conversation_id", "AttributeType": "S"},
                {"AttributeName": "user_id", "AttributeType": "S"},
                {"AttributeName": "updated_at", "AttributeType": "S"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "user_id-index",
                    "KeySchema": [
                        {"AttributeName": "user_id", "KeyType": "HASH"},
                        {"AttributeName": "updated_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
        )

    def put(self, id: str, messages: Sequence[Any] | None = (), **more: Any) -> None:
        item = {
            "conversation_id": id,
            "user_id": "bob",
            "created_at": CREATED,
            "updated_at": UPDATED,
            "messages": None if messages is None else list(messages),
            "metadata": {"message_count": len(messages or ())},
        }
        fields = item | more
        self.table.put_item(Item={name: value for name, value in fields.items() if value != ...})

    def source(self, **options: Any) -> TutorialTable:
        arguments: dict[str, Any] = {"client": self.client}
        return TutorialTable(self.table.name, **(arguments | options))

    def copy(self, store: Store, **options: Any) -> Copied:
        return copy(self.source(**options), store)

    def items(self) -> list[Any]:
        return sorted(self.table.scan(ConsistentRead=True)["Items"], key=lambda item: str(item))


def entry(role: str, content: Any, timestamp: Any = CREATED, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "timestamp": timestamp, **more}


CONVERSATION = [entry("user", "Hello"), entry("assistant", "Hi, how can I help?", UPDATED)]


@pytest.fixture
def tutorial(dynamodb_local: DynamoDBLocal) -> Iterator[Tutorial]:
    made = Tutorial(dynamodb_local)
    yield made
    made.table.delete()
    made.client.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/target.db") as store:
        yield store


@pytest.fixture(params=["sqlite", "dynamodb"])
def target(request: pytest.FixtureRequest, client: "DynamoDBClient") -> Iterator[Store]:
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite")
        return
    table = new_table(client)
    yield DynamoDBStore(client, table)
    client.delete_table(TableName=table)


def texts(store: Store, id: str) -> list[str]:
    return [message.text for message in store.page(id, limit=1_000).messages]


def reasons(copied: Copied) -> dict[str, str]:
    return {each.conversation_id: each.why for each in copied.problems}


def test_ids_owners_order_and_times_are_kept(tutorial: Tutorial, target: Store) -> None:
    tutorial.put("1", CONVERSATION, metadata={"message_count": Decimal(2), "channel": "web"})
    tutorial.put("2", [entry("user", f"{n}") for n in range(120)], user_id="eve")
    before = tutorial.items()
    assert tutorial.copy(target) == Copied(conversations=2, messages=122)
    found = target.get("1", owner="bob")
    assert (found.created_at, found.updated_at) == (CREATED_AT, UPDATED_AT)
    assert (found.metadata, found.message_count, found.revision) == ({"channel": "web"}, 2, 2)
    assert found.expires_at is None
    messages = target.page("1").messages
    assert [(each.role, each.content, each.created_at) for each in messages] == [
        ("user", "Hello", CREATED_AT),
        ("assistant", "Hi, how can I help?", UPDATED_AT),
    ]
    assert [each.extra for each in messages] == [{}, {}]
    assert texts(target, "2") == [str(n) for n in range(120)]
    assert [each.id for each in target.list("eve").conversations] == ["2"]
    assert tutorial.items() == before


def test_a_copied_conversation_can_be_continued(tutorial: Tutorial, target: Store) -> None:
    tutorial.put("1", CONVERSATION)
    tutorial.copy(target)
    assert target.append("1", [Message.user("More")], owner="bob", revision=2).seqs == range(3, 4)
    assert texts(target, "1") == ["Hello", "Hi, how can I help?", "More"]


def test_every_page_of_the_table_is_read(tutorial: Tutorial, sqlite: Store) -> None:
    for n in range(9):
        tutorial.put(f"{n}", [entry("user", "x" * 300_000)])
    calls: list[dict[str, Any]] = []
    recording_client = client_with_hooks(
        tutorial.client, before=lambda operation, params: calls.append({operation: params})
    )
    assert tutorial.copy(sqlite, client=recording_client).conversations == 9
    assert len(calls) >= 3
    assert {name for each in calls for name in each} == {"scan"}


def test_progress_is_reported_after_each_write_and_conversation(
    tutorial: Tutorial, sqlite: Store
) -> None:
    for n in range(3):
        tutorial.put(f"{n}", CONVERSATION)
    reported: list[Progress] = []
    copy(tutorial.source(), sqlite, progress=reported.append)
    counts = [(each.conversations, each.messages) for each in reported]
    assert counts == [(0, 2), (1, 2), (1, 4), (2, 4), (2, 6), (3, 6)]
    assert {each.conversation_id for each in reported} == {"0", "1", "2"}


def test_a_second_copy_changes_nothing(tutorial: Tutorial, target: Store) -> None:
    blocks = [{"type": "text", "text": "See"}, {"b": 1, "a": Decimal("0.5"), "c": {"z": 1, "y": 2}}]
    tutorial.put("1", [*CONVERSATION, entry("user", blocks, None, model="m", tokens=7)])
    tutorial.put("2", [])
    tutorial.put("3", None)
    assert tutorial.copy(target).messages == 3
    before = [target.get(id) for id in "123"]
    assert tutorial.copy(target) == Copied(conversations=3)
    assert [target.get(id) for id in "123"] == before


def test_messages_added_to_the_source_are_copied_by_the_next_run(
    tutorial: Tutorial, target: Store
) -> None:
    tutorial.put("1", CONVERSATION, updated_at=CREATED)
    tutorial.put("2", [])
    tutorial.copy(target)
    ids = [message.id for message in target.page("1").messages]
    for id in "12":
        tutorial.put(id, [*CONVERSATION, entry("user", "More"), entry("assistant", "Sure", "")])
    assert tutorial.copy(target) == Copied(conversations=2, messages=6)
    for id in "12":
        assert texts(target, id) == ["Hello", "Hi, how can I help?", "More", "Sure"]
        assert target.get(id).updated_at == UPDATED_AT
    assert [message.id for message in target.page("1").messages][:2] == ids
    tutorial.put(
        "2", [*CONVERSATION, entry("user", "More"), entry("assistant", "Sure", ""), *CONVERSATION]
    )
    assert tutorial.copy(target) == Copied(conversations=2, messages=2)


def test_a_conversation_continued_in_the_store_is_reported_and_left_alone(
    tutorial: Tutorial, target: Store
) -> None:
    for id in ("on", "both", "cut", "cleared", "gone"):
        tutorial.put(id, CONVERSATION)
    tutorial.copy(target)
    target.append("on", [Message.user("Here")])
    target.append("both", [Message.user("Here")])
    tutorial.put("both", [*CONVERSATION, entry("user", "There")])
    target.pop("cut")
    target.clear("cleared")
    target.delete("gone")
    before = [target.get(id) for id in ("on", "both", "cut", "cleared")]
    copied = tutorial.copy(target)
    assert (copied.conversations, copied.messages) == (0, 0)
    assert reasons(copied).keys() == {"on", "both", "cut", "cleared", "gone"}
    assert "changed or continued" in reasons(copied)["on"]
    assert reasons(copied)["both"] == "Message 3 differs in the target."
    assert [target.get(id) for id in ("on", "both", "cut", "cleared")] == before


def test_a_conversation_with_another_owner_or_other_messages_is_reported_and_left_alone(
    tutorial: Tutorial, target: Store
) -> None:
    for id in ("stranger", "other"):
        tutorial.put(id, CONVERSATION)
    target.append("stranger", [Message.user("Hello")], owner="eve")
    target.append("other", [Message.user("Bye")], owner="bob")
    copied = tutorial.copy(target)
    assert (copied.conversations, copied.messages) == (0, 0)
    assert reasons(copied)["stranger"] == "Its owner differs in the target."
    assert reasons(copied)["other"] == "Message 1 differs in the target."
    assert texts(target, "stranger") == ["Hello"]


@pytest.mark.parametrize("landed", [False, True])
def test_a_copy_that_dies_at_any_call_is_completed_by_further_runs(
    tutorial: Tutorial, client: "DynamoDBClient", landed: bool
) -> None:
    """The process dies at the first call to the target, then at the second, and so on."""
    conversations = {str(n): [entry("user", f"{n}.{m}") for m in range(n)] for n in range(4)}
    for id, messages in conversations.items():
        tutorial.put(id, messages)
    table = new_table(client)
    crashes = 0
    while True:
        try:
            result = tutorial.copy(
                DynamoDBStore(crashing_client(client, crashes, landed=landed), table)
            )
            break
        except Crashed:
            crashes += 1
    assert crashes > 4
    assert (result.conversations, result.problems) == (4, [])
    store = DynamoDBStore(client, table)
    for id, messages in conversations.items():
        assert texts(store, id) == [message["content"] for message in messages]
    client.delete_table(TableName=table)


def test_a_copy_is_completed_after_its_process_was_killed(
    tutorial: Tutorial, dynamodb_local: DynamoDBLocal, tmp_path: Path
) -> None:
    for n in range(20):
        tutorial.put(f"{n}", [entry("user", f"{n}.{m}") for m in range(5)])
    url = f"sqlite:///{tmp_path}/target.db"
    code = f"""
import os, signal, boto3
from chatledger import TutorialTable, copy, open_store

def kill_itself(progress):
    if progress.conversations == 7:
        os.kill(os.getpid(), signal.SIGKILL)

client = boto3.client("dynamodb", endpoint_url={dynamodb_local.endpoint!r}, region_name={REGION!r},
    aws_access_key_id={KEY!r}, aws_secret_access_key={KEY!r})
store = open_store({url!r})
copy(TutorialTable({tutorial.table.name!r}, client=client), store, progress=kill_itself)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert ended.returncode == -9, ended.stderr
    with open_store(url) as store:
        assert tutorial.copy(store) == Copied(conversations=20, messages=65)
        for n in range(20):
            assert texts(store, f"{n}") == [f"{n}.{m}" for m in range(5)]


def test_a_ttl_is_kept_to_the_second_and_expired_conversations_are_left_out(
    tutorial: Tutorial, target: Store
) -> None:
    now = int(time.time())
    changed = datetime.fromtimestamp(now - 100, UTC).isoformat()
    for id, ttl in {"kept": now + 5_000, "gone": now - 5, "zero": 0, "far": now * 1_000}.items():
        tutorial.put(id, CONVERSATION, ttl=ttl, updated_at=changed)
    tutorial.put("text", CONVERSATION, ttl=str(now - 5))  # DynamoDB ignores it too
    source = tutorial.source()
    copied = copy(source, target)
    assert (copied.conversations, source.expired, copied.problems) == (4, 1, [])
    assert target.get("kept").expires_at == datetime.fromtimestamp(now + 5_000, UTC)
    assert {target.get(id).expires_at for id in ("zero", "far", "text")} == {None}
    target.append("kept", [Message.user("More")])
    expires = target.get("kept").expires_at
    assert expires is not None
    assert abs(expires.timestamp() - time.time() - 5_100) < 60


def test_times_that_contradict_a_ttl_are_reported(tutorial: Tutorial, sqlite: Store) -> None:
    tutorial.put("1", ttl=int(time.time()) + 100, updated_at="2090-01-01T00:00:00")
    assert "ttl" in reasons(tutorial.copy(sqlite))["1"]


def test_fields_may_be_missing(tutorial: Tutorial, target: Store) -> None:
    tutorial.table.put_item(Item={"conversation_id": "bare"})
    tutorial.table.put_item(
        Item={"conversation_id": "times", "messages": [{"role": "user"}, entry("user", "b")]}
    )
    tutorial.put("nulls", CONVERSATION, user_id=..., updated_at=..., created_at=None, metadata=None)
    source = tutorial.source()
    copied = copy(source, target)
    assert (copied.conversations, copied.messages, source.undated) == (3, 4, 1)
    assert (target.get("bare").owner, target.get("bare").message_count) == (None, 0)
    assert target.get("times").created_at == CREATED_AT
    assert [each.created_at for each in target.page("times").messages] == [CREATED_AT] * 2
    assert texts(target, "times") == ["", "b"]
    nulls = target.get("nulls")
    assert (nulls.created_at, nulls.updated_at) == (CREATED_AT, UPDATED_AT)
    assert tutorial.copy(target) == Copied(conversations=3)


def test_a_conversation_without_times_is_recognized_by_a_second_copy(
    tutorial: Tutorial, target: Store
) -> None:
    bare = {"conversation_id": "1", "messages": [{"role": "user", "content": "a"}] * 2}
    tutorial.table.put_item(Item=bare)
    tutorial.copy(target)
    before = target.get("1")
    time.sleep(0.01)
    assert tutorial.copy(target) == Copied(conversations=1)
    assert target.get("1") == before


def test_messages_keep_the_order_of_the_list_and_their_times(
    tutorial: Tutorial, target: Store
) -> None:
    days = ["2026-03-05", "2026-03-04T00:00:00Z", "", "soon", 1_772_323_200, None, "2026-03-02"]
    tutorial.put("1", [entry("user", f"{n}", day) for n, day in enumerate(days)])
    source = tutorial.source()
    assert (copy(source, target).messages, source.undated) == (7, 3)
    messages = target.page("1").messages
    assert [message.text for message in messages] == list("0123456")
    assert [message.created_at.day for message in messages] == [5, 4, 4, 4, 1, 1, 2]
    assert [message.extra for message in messages] == [
        *({}, {}, {}),
        {"tutorial": {"timestamp": "soon"}},
        *({}, {}, {}),
    ]


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01T10:00:00.125",
        "2026-03-01T10:00:00.125Z",
        "2026-03-01 11:00:00.125999+01:00",
        1_772_359_200.125,
        1_772_359_200_125,
        1_772_359_200_125_000,
        1_772_359_200_125_000_000,
        "1772359200.125",
        " 1772359200125 ",
    ],
)
def test_times_are_read_in_every_usual_format(value: object) -> None:
    assert parse_time(value) == CREATED_AT


@pytest.mark.parametrize(
    "value", [None, "", " ", "yesterday", "20260301100000", True, [], {}, 10**38, "9999-12-32"]
)
def test_an_unreadable_time_is_treated_as_missing(value: object) -> None:
    assert parse_time(value) is None


@pytest.mark.parametrize("year", ["0001", "1969", "9999"])
def test_times_of_any_year_are_kept(tutorial: Tutorial, target: Store, year: str) -> None:
    day = f"{year}-06-01T00:00:00Z"
    tutorial.put("1", [entry("user", "a", day)], created_at=day, updated_at=day)
    assert tutorial.copy(target).problems == []
    found = target.get("1")
    assert {found.created_at.year, found.updated_at.year} == {int(year)}
    assert [each.id for each in target.list("bob").conversations] == ["1"]
    assert tutorial.copy(target) == Copied(conversations=1)


def test_a_conversation_of_many_messages_is_copied_in_several_writes(
    tutorial: Tutorial, target: Store
) -> None:
    tutorial.put("1", [entry("user", f"{n}", "") for n in range(2_500)])
    calls: list[int] = []
    restore = target.restore

    def fail_second_call(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise Crashed
        return restore(*arguments, **options)

    target.restore = fail_second_call  # type: ignore[method-assign]
    with pytest.raises(Crashed):
        tutorial.copy(target)
    arrived = target.get("1").revision
    assert 0 < arrived < 100
    assert tutorial.copy(target) == Copied(conversations=1, messages=2_500 - arrived)
    assert target.get("1").revision == 2_500
    assert [message.text for message in target.tail("1", 2).messages] == ["2498", "2499"]


def test_role_names_are_case_insensitive_and_can_be_added(
    tutorial: Tutorial, target: Store
) -> None:
    names = ["Human", "AI", "bot", " SYSTEM ", "developer", "tool", "model"]
    tutorial.put("1", [entry(name, "x") for name in names])
    tutorial.put("2", [entry("agent", "x")])
    copied = tutorial.copy(target)
    assert [message.role for message in target.page("1").messages] == [
        *("user", "assistant", "assistant", "system", "system", "tool", "assistant")
    ]
    assert "roles=" in reasons(copied)["2"]
    copied = tutorial.copy(target, roles={**ROLE_NAMES, "agent": "assistant"})
    assert copied == Copied(conversations=2, messages=1)
    with pytest.raises(InvalidArgument, match="roles"):
        tutorial.copy(target, roles={"agent": "agent"})


def test_blocks_numbers_and_other_fields_are_copied_as_plain_values(
    tutorial: Tutorial, target: Store
) -> None:
    blocks = ["See", {"type": "text", "text": "this", "n": Decimal(3), "f": Decimal("0.25")}]
    calls = [{"id": "c1", "name": "look", "args": {"n": Decimal(5)}}]
    tutorial.put(
        "1",
        [
            entry("user", blocks),
            entry("assistant", "", tool_calls=calls, id="mine", tokens=Decimal(12)),
            entry("tool", "5", tool_call_id="c1"),
        ],
        metadata={"n": Decimal(1), "f": Decimal("1.5"), "on": True},
    )
    assert tutorial.copy(target).problems == []
    user, assistant, tool = target.page("1").messages
    assert user.content == ["See", {"type": "text", "text": "this", "n": 3, "f": 0.25}]
    assert assistant.tool_calls == [{"id": "c1", "name": "look", "args": {"n": 5}}]
    assert (assistant.id, assistant.extra["tutorial"]) == ("mine", {"tokens": 12})
    assert tool.tool_call_id == "c1"
    assert target.get("1").metadata == {"n": 1, "f": 1.5, "on": True}


def test_unreadable_conversations_are_reported_without_their_content_and_the_others_are_copied(
    tutorial: Tutorial, target: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tutorial.put("good", CONVERSATION)
    wrong: dict[str, list[Any]] = {
        "no map": [SECRET],
        "role": [entry(SECRET, SECRET)],
        "no role": [{"content": SECRET}],
        "number": [entry("user", 5)],
        "map": [entry("user", {"text": SECRET})],
        "nested": [entry("user", [[SECRET]])],
        "bytes": [entry("user", [{SECRET: SECRET.encode()}])],
        "set": [entry("user", SECRET, more={SECRET})],
    }
    for id, messages in wrong.items():
        tutorial.put(id, [*CONVERSATION, *messages])
    tutorial.put("text", metadata={"message_count": 1}, messages=None)
    tutorial.table.update_item(
        Key={"conversation_id": "text"},
        UpdateExpression="SET #m = :m",
        ExpressionAttributeNames={"#m": "messages"},
        ExpressionAttributeValues={":m": SECRET},
    )
    tutorial.put("metadata", CONVERSATION, metadata={"long": "x" * 5_000})
    tutorial.put("no metadata", CONVERSATION, metadata="x")
    tutorial.table.put_item(Item={"conversation_id": "user", "user_id": "bob", "updated_at": "1"})
    tutorial.put("x" * 2_048, CONVERSATION)
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        copied = tutorial.copy(target)
    assert reasons(copied).keys() == {*wrong, "text", "metadata", "no metadata", "x" * 2_048}
    assert (copied.conversations, copied.messages) == (2, 2)
    assert all("Message 3" in reasons(copied)[id] and id in reasons(copied)[id] for id in wrong)
    assert SECRET not in repr(copied)
    assert SECRET not in caplog.text


def test_owners_can_be_mapped(tutorial: Tutorial, sqlite: Store) -> None:
    tutorial.put("1", CONVERSATION)
    tutorial.put("2", CONVERSATION, user_id="anonymous")

    def owner(user_id: str | None) -> str | None:
        return None if user_id == "anonymous" else f"subject-of-{user_id}"

    tutorial.copy(sqlite, owner=owner)
    assert (sqlite.get("1").owner, sqlite.get("2").owner) == ("subject-of-bob", None)


def test_items_without_a_conversation_id_are_counted(
    client: "DynamoDBClient", sqlite: Store
) -> None:
    table = new_table(client)
    client.put_item(TableName=table, Item={"pk": {"S": "1"}, "sk": {"S": "1"}})
    source = TutorialTable(table, client=client)
    assert (copy(source, sqlite), source.others) == (Copied(), 1)
    client.delete_table(TableName=table)


def test_the_client_of_a_resource_is_rejected(tutorial: Tutorial, sqlite: Store) -> None:
    tutorial.put("1", CONVERSATION)
    with pytest.raises(InvalidArgument, match="resource"):
        tutorial.copy(sqlite, client=tutorial.table.meta.client)


def test_errors_for_a_missing_table_or_permission_say_what_to_do(
    tutorial: Tutorial, sqlite: Store
) -> None:
    with pytest.raises(TableMissing, match="nowhere"):
        copy(TutorialTable("nowhere", client=tutorial.client), sqlite)
    with Stubber(tutorial.client) as stub:
        stub.add_client_error("scan", "AccessDeniedException", "not for you")
        with pytest.raises(AccessRefused, match=r"dynamodb:Scan"):
            tutorial.copy(sqlite)


def test_a_throttled_scan_is_retried(tutorial: Tutorial, sqlite: Store) -> None:
    tutorial.put("1", CONVERSATION)
    throttled: list[str] = []

    def throttle(operation: str, _: Any) -> None:
        if len(throttled) < 3:
            throttled.append(operation)
            code = "ProvisionedThroughputExceededException"
            error = {"Error": {"Code": code, "Message": "slower"}}
            raise tutorial.client.exceptions.ClientError(error, "Scan")  # type: ignore[arg-type]

    copied = tutorial.copy(sqlite, client=client_with_hooks(tutorial.client, before=throttle))
    assert (throttled, copied.conversations) == (["scan"] * 3, 1)


def test_units_per_second_limits_the_rate(tutorial: Tutorial, sqlite: Store) -> None:
    for n in range(4):
        tutorial.put(f"{n}", [entry("user", "x" * 40_000)])
    start = time.monotonic()
    assert tutorial.copy(sqlite, units_per_second=40).conversations == 4
    assert time.monotonic() - start > 0.9
    with pytest.raises(InvalidArgument, match="units_per_second"):
        tutorial.copy(sqlite, units_per_second=0)


@pytest.mark.parametrize("count", [1, 3])
def test_segments_together_are_the_whole_table(
    tutorial: Tutorial, sqlite: Store, count: int
) -> None:
    for n in range(12):
        tutorial.put(f"{n}", CONVERSATION)
    copied = [tutorial.copy(sqlite, segment=(n, count)) for n in range(count)]
    assert sum(each.conversations for each in copied) == 12
    assert len(list(sqlite.iter_conversations("bob"))) == 12


@pytest.mark.parametrize("segment", [(1, 1), (-1, 4), (0, 0)])
def test_a_segment_that_does_not_exist_is_rejected(
    tutorial: Tutorial, segment: tuple[int, int]
) -> None:
    with pytest.raises(InvalidArgument, match="segment"):
        tutorial.source(segment=segment)


def test_langchain_is_not_needed() -> None:
    code = (
        "import sys; from chatledger import TutorialTable, copy; "
        "print('langchain_core' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


# Values in DynamoDB's JSON format.
numbers = st.integers(-(10**20), 10**20).map(lambda n: {"N": str(n)})
texts_of = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(
        texts_of.map(lambda text: {"S": text}),
        numbers,
        st.floats(-1e30, 1e30).map(lambda x: {"N": f"{x:.9e}"}),
        st.booleans().map(lambda on: {"BOOL": on}),
        st.just({"NULL": True}),
        st.binary(max_size=4).map(lambda data: {"B": data}),
        st.sets(texts_of, min_size=1, max_size=2).map(lambda of: {"SS": sorted(of)}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda of: {"L": of}),
        st.dictionaries(texts_of, inner, max_size=3).map(lambda of: {"M": of}),
    ),
    max_leaves=6,
)
valid_entries = st.fixed_dictionaries(
    {
        "role": st.sampled_from([{"S": name} for name in ROLE_NAMES]),
        "content": texts_of.map(lambda text: {"S": text}),
    },
    optional={
        "timestamp": st.one_of(
            texts_of.map(lambda text: {"S": text}),
            numbers,
            st.just({"NULL": True}),
            st.datetimes().map(lambda time: {"S": time.isoformat()}),
        )
    },
).map(lambda fields: {"M": fields})
items: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("user_id", "created_at", "updated_at", "ttl", "metadata"), values),
        "messages": st.one_of(
            values, st.lists(st.one_of(valid_entries, values), max_size=3).map(lambda of: {"L": of})
        ),
    },
)


@cache
def stubbed_client() -> "DynamoDBClient":
    return boto3.client(
        "dynamodb", region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=KEY
    )


def copy_single_item(item: dict[str, Any], store: Store) -> tuple[Copied, int]:
    """Copy a table that contains only ``item``; the reply to the single scan is stubbed.

    Returns the result, and how many conversations had expired.
    """
    with Stubber(stubbed_client()) as stub:
        stub.add_response("scan", {"Items": [{"conversation_id": {"S": "1"}, **item}]})
        source = TutorialTable("stubbed", client=stubbed_client())
        return copy(source, store), source.expired


@settings(max_examples=100)
@given(item=items)
def test_every_item_is_either_copied_expired_or_reported(item: dict[str, Any]) -> None:
    with open_store("sqlite:///:memory:") as store:
        first, expired = copy_single_item(item, store)
        assert first.conversations + expired + len(first.problems) == 1
        if first.conversations:
            before = store.get("1")
            assert before.message_count == first.messages
            assert copy_single_item(item, store) == (Copied(conversations=1), 0)
            assert store.get("1") == before


@settings(max_examples=50)
@given(messages=st.lists(valid_entries, max_size=6), cuts=st.lists(st.integers(0, 6), max_size=3))
def test_repeated_copies_of_a_growing_conversation_equal_a_single_copy(
    messages: list[Any], cuts: list[int]
) -> None:
    with open_store("sqlite:///:memory:") as repeated, open_store("sqlite:///:memory:") as single:
        item = {"created_at": {"S": CREATED}}
        for cut in [*sorted(cuts), len(messages)]:
            copy_single_item({**item, "messages": {"L": messages[:cut]}}, repeated)
        copy_single_item({**item, "messages": {"L": messages}}, single)
        assert repeated.page("1").messages == single.page("1").messages
        copied, _ = copy_single_item({**item, "messages": {"L": messages}}, repeated)
        assert copied.problems == []
