"""A tutorial's table of conversations, copied into a Chatledger store."""

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

from chatledger import Message, Store, open_store
from chatledger.copying import Progress
from chatledger.errors import AccessRefused, InvalidArgument, TableMissing
from chatledger.importing.tutorial_items import time_of
from chatledger.importing.tutorial_table import ROLE_NAMES, CopiedTable, copy_tutorial_table
from chatledger.messages import new_id
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.stores.dynamodb.clients import Died, dying_at, watched_client
from tests.stores.dynamodb.conftest import client
from tests.stores.dynamodb.tables import new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.service_resource import Table

__all__ = ["client"]

SECRET = "what nobody else may read"
CREATED = "2026-03-01T10:00:00.125000"
CREATED_AT = datetime(2026, 3, 1, 10, 0, 0, 125_000, UTC)
UPDATED = "2026-03-02T11:30:00+02:00"
UPDATED_AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


class Tutorial:
    """The table as the tutorial makes it, and conversations put there as it puts them."""

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
        given = item | more
        self.table.put_item(Item={name: value for name, value in given.items() if value != ...})

    def copy(self, store: Store, **options: Any) -> CopiedTable:
        given: dict[str, Any] = {"client": self.client}
        return copy_tutorial_table(self.table.name, store, **(given | options))

    def items(self) -> list[Any]:
        return sorted(self.table.scan(ConsistentRead=True)["Items"], key=lambda item: str(item))


def said(role: str, content: Any, timestamp: Any = CREATED, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "timestamp": timestamp, **more}


TALK = [said("user", "Hello"), said("assistant", "Hi, how can I help?", UPDATED)]


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


def why(copied: CopiedTable) -> dict[str, str]:
    return {each.conversation_id: each.why for each in copied.mismatches}


def test_ids_owners_order_and_times_are_kept(tutorial: Tutorial, target: Store) -> None:
    tutorial.put("1", TALK, metadata={"message_count": Decimal(2), "channel": "web"})
    tutorial.put("2", [said("user", f"{n}") for n in range(120)], user_id="eve")
    before = tutorial.items()
    assert tutorial.copy(target) == CopiedTable(conversations=2, messages=122)
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


def test_a_copied_conversation_goes_on_behind_what_it_has(
    tutorial: Tutorial, target: Store
) -> None:
    tutorial.put("1", TALK)
    tutorial.copy(target)
    assert target.append("1", [Message.user("More")], owner="bob", after=2).seqs == range(3, 4)
    assert texts(target, "1") == ["Hello", "Hi, how can I help?", "More"]


def test_every_page_of_the_table_is_read(tutorial: Tutorial, sqlite: Store) -> None:
    for n in range(9):
        tutorial.put(f"{n}", [said("user", "x" * 300_000)])
    asked: list[dict[str, Any]] = []
    watched = watched_client(
        tutorial.client, before=lambda operation, params: asked.append({operation: params})
    )
    assert tutorial.copy(sqlite, client=watched).conversations == 9
    assert len(asked) >= 3
    assert {name for each in asked for name in each} == {"scan"}


def test_what_is_said_of_the_progress_adds_up(tutorial: Tutorial, sqlite: Store) -> None:
    for n in range(3):
        tutorial.put(f"{n}", TALK)
    told: list[Progress] = []
    tutorial.copy(sqlite, progress=told.append)
    assert [(each.conversations, each.messages) for each in told] == [(1, 2), (2, 4), (3, 6)]
    assert {each.conversation_id for each in told} == {"0", "1", "2"}


def test_a_second_copy_brings_and_changes_nothing(tutorial: Tutorial, target: Store) -> None:
    blocks = [{"type": "text", "text": "See"}, {"b": 1, "a": Decimal("0.5"), "c": {"z": 1, "y": 2}}]
    tutorial.put("1", [*TALK, said("user", blocks, None, model="m", tokens=7)])
    tutorial.put("2", [])
    tutorial.put("3", None)
    assert tutorial.copy(target).messages == 3
    before = [target.get(id) for id in "123"]
    assert tutorial.copy(target) == CopiedTable(conversations=3)
    assert [target.get(id) for id in "123"] == before


def test_one_that_grew_in_the_source_gets_the_rest(tutorial: Tutorial, target: Store) -> None:
    tutorial.put("1", TALK, updated_at=CREATED)
    tutorial.put("2", [])
    tutorial.copy(target)
    ids = [message.id for message in target.page("1").messages]
    for id in "12":
        tutorial.put(id, [*TALK, said("user", "More"), said("assistant", "Sure", "")])
    assert tutorial.copy(target) == CopiedTable(conversations=2, messages=6, undated=2)
    for id in "12":
        assert texts(target, id) == ["Hello", "Hi, how can I help?", "More", "Sure"]
        assert target.get(id).updated_at == UPDATED_AT
    assert [message.id for message in target.page("1").messages][:2] == ids
    tutorial.put("2", [*TALK, said("user", "More"), said("assistant", "Sure", ""), *TALK])
    assert tutorial.copy(target) == CopiedTable(conversations=2, messages=2)


def test_one_that_was_continued_in_the_store_is_named_and_left(
    tutorial: Tutorial, target: Store
) -> None:
    for id in ("on", "both", "cut", "cleared", "gone"):
        tutorial.put(id, TALK)
    tutorial.copy(target)
    target.append("on", [Message.user("Here")])
    target.append("both", [Message.user("Here")])
    tutorial.put("both", [*TALK, said("user", "There")])
    target.pop("cut")
    target.clear("cleared")
    target.delete("gone")
    before = [target.get(id) for id in ("on", "both", "cut", "cleared")]
    copied = tutorial.copy(target)
    assert (copied.conversations, copied.messages) == (0, 0)
    assert why(copied).keys() == {"on", "both", "cut", "cleared", "gone"}
    assert "went on, behind message 2" in why(copied)["on"]
    assert "differs behind message 2" in why(copied)["both"]
    assert [target.get(id) for id in ("on", "both", "cut", "cleared")] == before


def test_a_conversation_of_another_owner_or_with_other_messages_is_named_and_left(
    tutorial: Tutorial, target: Store
) -> None:
    for id in ("stranger", "other"):
        tutorial.put(id, TALK)
    target.append("stranger", [Message.user("Hello")], owner="eve")
    target.append("other", [Message.user("Bye")], owner="bob")
    copied = tutorial.copy(target)
    assert (copied.conversations, copied.messages) == (0, 0)
    assert "another owner" in why(copied)["stranger"]
    assert "differs behind message 0" in why(copied)["other"]
    assert texts(target, "stranger") == ["Hello"]


@pytest.mark.parametrize("landed", [False, True])
def test_killed_at_any_call_and_run_again_it_arrives_whole(
    tutorial: Tutorial, client: "DynamoDBClient", landed: bool
) -> None:
    """The target's process dies at one write after the other."""
    talks = {str(n): [said("user", f"{n}.{m}") for m in range(n)] for n in range(4)}
    for id, talk in talks.items():
        tutorial.put(id, talk)
    table = new_table(client)
    deaths = 0
    while True:
        try:
            last = tutorial.copy(DynamoDBStore(dying_at(client, deaths, landed=landed), table))
            break
        except Died:
            deaths += 1
    assert deaths > 4
    assert (last.conversations, last.mismatches) == (4, ())
    store = DynamoDBStore(client, table)
    for id, talk in talks.items():
        assert texts(store, id) == [message["content"] for message in talk]
    client.delete_table(TableName=table)


def test_a_process_that_is_killed_is_followed_by_one_that_brings_the_rest(
    tutorial: Tutorial, dynamodb_local: DynamoDBLocal, tmp_path: Path
) -> None:
    for n in range(20):
        tutorial.put(f"{n}", [said("user", f"{n}.{m}") for m in range(5)])
    url = f"sqlite:///{tmp_path}/target.db"
    code = f"""
import os, signal, boto3
from chatledger import open_store
from chatledger.importing.tutorial_table import copy_tutorial_table

def killed(progress):
    if progress.conversations == 7:
        os.kill(os.getpid(), signal.SIGKILL)

client = boto3.client("dynamodb", endpoint_url={dynamodb_local.endpoint!r}, region_name={REGION!r},
    aws_access_key_id={KEY!r}, aws_secret_access_key={KEY!r})
copy_tutorial_table({tutorial.table.name!r}, open_store({url!r}), client=client, progress=killed)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert ended.returncode == -9, ended.stderr
    with open_store(url) as store:
        assert tutorial.copy(store) == CopiedTable(conversations=20, messages=65)
        for n in range(20):
            assert texts(store, f"{n}") == [f"{n}.{m}" for m in range(5)]


def test_a_ttl_is_kept_to_the_second_and_the_expired_are_left_out(
    tutorial: Tutorial, target: Store
) -> None:
    now = int(time.time())
    changed = datetime.fromtimestamp(now - 100, UTC).isoformat()
    for id, ttl in {"kept": now + 5_000, "gone": now - 5, "zero": 0, "far": now * 1_000}.items():
        tutorial.put(id, TALK, ttl=ttl, updated_at=changed)
    tutorial.put("text", TALK, ttl=str(now - 5))  # DynamoDB does not look at it either
    copied = tutorial.copy(target)
    assert (copied.conversations, copied.expired, copied.mismatches) == (4, 1, ())
    assert target.get("kept").expires_at == datetime.fromtimestamp(now + 5_000, UTC)
    assert {target.get(id).expires_at for id in ("zero", "far", "text")} == {None}
    target.append("kept", [Message.user("More")])
    expires = target.get("kept").expires_at
    assert expires is not None
    assert abs(expires.timestamp() - time.time() - 5_100) < 60


def test_times_that_contradict_a_ttl_are_named(tutorial: Tutorial, sqlite: Store) -> None:
    tutorial.put("1", ttl=int(time.time()) + 100, updated_at="2090-01-01T00:00:00")
    assert "ttl" in why(tutorial.copy(sqlite))["1"]


def test_fields_may_be_missing(tutorial: Tutorial, target: Store) -> None:
    tutorial.table.put_item(Item={"conversation_id": "bare"})
    tutorial.table.put_item(
        Item={"conversation_id": "times", "messages": [{"role": "user"}, said("user", "b")]}
    )
    tutorial.put("nulls", TALK, user_id=..., updated_at=..., created_at=None, metadata=None)
    copied = tutorial.copy(target)
    assert (copied.conversations, copied.messages, copied.undated) == (3, 4, 1)
    assert (target.get("bare").owner, target.get("bare").message_count) == (None, 0)
    assert target.get("times").created_at == CREATED_AT
    assert [each.created_at for each in target.page("times").messages] == [CREATED_AT] * 2
    assert texts(target, "times") == ["", "b"]
    nulls = target.get("nulls")
    assert (nulls.created_at, nulls.updated_at) == (CREATED_AT, UPDATED_AT)
    assert tutorial.copy(target) == CopiedTable(conversations=3)


def test_no_time_at_all_does_not_keep_a_second_copy_from_knowing_it(
    tutorial: Tutorial, target: Store
) -> None:
    bare = {"conversation_id": "1", "messages": [{"role": "user", "content": "a"}] * 2}
    tutorial.table.put_item(Item=bare)
    tutorial.copy(target)
    before = target.get("1")
    time.sleep(0.01)
    assert tutorial.copy(target) == CopiedTable(conversations=1)
    assert target.get("1") == before


def test_the_list_says_the_order_and_each_message_keeps_its_time(
    tutorial: Tutorial, target: Store
) -> None:
    days = ["2026-03-05", "2026-03-04T00:00:00Z", "", "soon", 1_772_323_200, None, "2026-03-02"]
    tutorial.put("1", [said("user", f"{n}", day) for n, day in enumerate(days)])
    copied = tutorial.copy(target)
    assert (copied.messages, copied.undated) == (7, 3)
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
def test_times_are_read_in_every_usual_form(value: object) -> None:
    assert time_of(value) == CREATED_AT


@pytest.mark.parametrize(
    "value", [None, "", " ", "yesterday", "20260301100000", True, [], {}, 10**38, "9999-12-32"]
)
def test_what_is_no_time_is_taken_for_none(value: object) -> None:
    assert time_of(value) is None


@pytest.mark.parametrize("year", ["0001", "1969", "9999"])
def test_times_of_any_year_come_back(tutorial: Tutorial, target: Store, year: str) -> None:
    day = f"{year}-06-01T00:00:00Z"
    tutorial.put("1", [said("user", "a", day)], created_at=day, updated_at=day)
    assert tutorial.copy(target).mismatches == ()
    found = target.get("1")
    assert {found.created_at.year, found.updated_at.year} == {int(year)}
    assert [each.id for each in target.list("bob").conversations] == ["1"]
    assert tutorial.copy(target) == CopiedTable(conversations=1)


def test_one_of_many_short_messages_arrives_in_several_writes(
    tutorial: Tutorial, target: Store
) -> None:
    tutorial.put("1", [said("user", f"{n}", "") for n in range(2_500)])
    broken: list[int] = []
    restore = target.restore

    def breaking(*arguments: Any, **options: Any) -> Any:
        broken.append(1)
        if len(broken) == 2:
            raise Died
        return restore(*arguments, **options)

    target.restore = breaking  # type: ignore[method-assign]
    with pytest.raises(Died):
        tutorial.copy(target)
    assert target.get("1").revision == 1_000
    assert tutorial.copy(target) == CopiedTable(conversations=1, messages=1_500, undated=1_500)
    assert target.get("1").revision == 2_500
    assert [message.text for message in target.tail("1", 2).messages] == ["2498", "2499"]


def test_names_of_roles_are_known_in_any_case_and_can_be_added(
    tutorial: Tutorial, target: Store
) -> None:
    names = ["Human", "AI", "bot", " SYSTEM ", "developer", "tool", "model"]
    tutorial.put("1", [said(name, "x") for name in names])
    tutorial.put("2", [said("agent", "x")])
    copied = tutorial.copy(target)
    assert [message.role for message in target.page("1").messages] == [
        *("user", "assistant", "assistant", "system", "system", "tool", "assistant")
    ]
    assert "roles=" in why(copied)["2"]
    copied = tutorial.copy(target, roles={**ROLE_NAMES, "agent": "assistant"})
    assert copied == CopiedTable(conversations=2, messages=1)
    with pytest.raises(InvalidArgument, match="roles"):
        tutorial.copy(target, roles={"agent": "agent"})


def test_blocks_numbers_and_other_fields_arrive_as_plain_values(
    tutorial: Tutorial, target: Store
) -> None:
    blocks = ["See", {"type": "text", "text": "this", "n": Decimal(3), "f": Decimal("0.25")}]
    calls = [{"id": "c1", "name": "look", "args": {"n": Decimal(5)}}]
    tutorial.put(
        "1",
        [
            said("user", blocks),
            said("assistant", "", tool_calls=calls, id="mine", tokens=Decimal(12)),
            said("tool", "5", tool_call_id="c1"),
        ],
        metadata={"n": Decimal(1), "f": Decimal("1.5"), "on": True},
    )
    assert tutorial.copy(target).mismatches == ()
    user, assistant, tool = target.page("1").messages
    assert user.content == ["See", {"type": "text", "text": "this", "n": 3, "f": 0.25}]
    assert assistant.tool_calls == [{"id": "c1", "name": "look", "args": {"n": 5}}]
    assert (assistant.id, assistant.extra["tutorial"]) == ("mine", {"tokens": 12})
    assert tool.tool_call_id == "c1"
    assert target.get("1").metadata == {"n": 1, "f": 1.5, "on": True}


def test_what_cannot_be_read_is_named_without_a_word_of_it_and_the_rest_arrives(
    tutorial: Tutorial, target: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tutorial.put("good", TALK)
    wrong: dict[str, list[Any]] = {
        "no map": [SECRET],
        "role": [said(SECRET, SECRET)],
        "no role": [{"content": SECRET}],
        "number": [said("user", 5)],
        "map": [said("user", {"text": SECRET})],
        "nested": [said("user", [[SECRET]])],
        "bytes": [said("user", [{SECRET: SECRET.encode()}])],
        "set": [said("user", SECRET, more={SECRET})],
    }
    for id, messages in wrong.items():
        tutorial.put(id, [*TALK, *messages])
    tutorial.put("text", metadata={"message_count": 1}, messages=None)
    tutorial.table.update_item(
        Key={"conversation_id": "text"},
        UpdateExpression="SET #m = :m",
        ExpressionAttributeNames={"#m": "messages"},
        ExpressionAttributeValues={":m": SECRET},
    )
    tutorial.put("metadata", TALK, metadata={"long": "x" * 5_000})
    tutorial.put("no metadata", TALK, metadata="x")
    tutorial.table.put_item(Item={"conversation_id": "user", "user_id": "bob", "updated_at": "1"})
    tutorial.put("x" * 2_048, TALK)
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        copied = tutorial.copy(target)
    assert why(copied).keys() == {*wrong, "text", "metadata", "no metadata", "x" * 2_048}
    assert (copied.conversations, copied.messages) == (2, 2)
    assert all("Message 3" in why(copied)[id] and id in why(copied)[id] for id in wrong)
    assert SECRET not in repr(copied)
    assert SECRET not in caplog.text


def test_the_owner_can_be_another(tutorial: Tutorial, sqlite: Store) -> None:
    tutorial.put("1", TALK)
    tutorial.put("2", TALK, user_id="anonymous")

    def owner(user_id: str | None) -> str | None:
        return None if user_id == "anonymous" else f"subject-of-{user_id}"

    tutorial.copy(sqlite, owner=owner)
    assert (sqlite.get("1").owner, sqlite.get("2").owner) == ("subject-of-bob", None)


def test_items_of_another_kind_are_counted_and_left(
    client: "DynamoDBClient", sqlite: Store
) -> None:
    table = new_table(client)
    client.put_item(TableName=table, Item={"pk": {"S": "1"}, "sk": {"S": "1"}})
    assert copy_tutorial_table(table, sqlite, client=client) == CopiedTable(others=1)
    client.delete_table(TableName=table)


def test_the_client_of_a_resource_is_refused(tutorial: Tutorial, sqlite: Store) -> None:
    tutorial.put("1", TALK)
    with pytest.raises(InvalidArgument, match="resource"):
        tutorial.copy(sqlite, client=tutorial.table.meta.client)


def test_a_missing_table_and_a_missing_right_say_what_to_do(
    tutorial: Tutorial, sqlite: Store
) -> None:
    with pytest.raises(TableMissing, match="nowhere"):
        copy_tutorial_table("nowhere", sqlite, client=tutorial.client)
    with Stubber(tutorial.client) as stub:
        stub.add_client_error("scan", "AccessDeniedException", "not for you")
        with pytest.raises(AccessRefused, match=r"dynamodb:Scan"):
            tutorial.copy(sqlite)


def test_a_throttled_scan_is_tried_again(tutorial: Tutorial, sqlite: Store) -> None:
    tutorial.put("1", TALK)
    refused: list[str] = []

    def throttle(operation: str, _: Any) -> None:
        if len(refused) < 3:
            refused.append(operation)
            code = "ProvisionedThroughputExceededException"
            error = {"Error": {"Code": code, "Message": "slower"}}
            raise tutorial.client.exceptions.ClientError(error, "Scan")  # type: ignore[arg-type]

    copied = tutorial.copy(sqlite, client=watched_client(tutorial.client, before=throttle))
    assert (refused, copied.conversations) == (["scan"] * 3, 1)


def test_the_rate_is_kept(tutorial: Tutorial, sqlite: Store) -> None:
    for n in range(4):
        tutorial.put(f"{n}", [said("user", "x" * 40_000)])
    start = time.monotonic()
    assert tutorial.copy(sqlite, units_per_second=40).conversations == 4
    assert time.monotonic() - start > 0.9
    with pytest.raises(InvalidArgument, match="units_per_second"):
        tutorial.copy(sqlite, units_per_second=0)


def test_neither_langchain_nor_its_models_are_needed() -> None:
    code = "import sys, chatledger.importing.tutorial_table; print('langchain_core' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


# What DynamoDB's JSON can hold.
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
sound = st.fixed_dictionaries(
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
anything: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("user_id", "created_at", "updated_at", "ttl", "metadata"), values),
        "messages": st.one_of(
            values, st.lists(st.one_of(sound, values), max_size=3).map(lambda of: {"L": of})
        ),
    },
)


@cache
def stubbed() -> "DynamoDBClient":
    return boto3.client(
        "dynamodb", region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=KEY
    )


def copied_of(item: dict[str, Any], store: Store) -> CopiedTable:
    """The copy of a table that holds only this: the reply to its one scan is stubbed."""
    with Stubber(stubbed()) as stub:
        stub.add_response("scan", {"Items": [{"conversation_id": {"S": "1"}, **item}]})
        return copy_tutorial_table("stubbed", store, client=stubbed())


@settings(max_examples=100, deadline=None)
@given(item=anything)
def test_whatever_an_item_holds_it_is_one_of_copied_expired_and_named(item: dict[str, Any]) -> None:
    with open_store("sqlite:///:memory:") as store:
        first = copied_of(item, store)
        assert first.conversations + first.expired + len(first.mismatches) == 1
        if first.conversations:
            before = store.get("1")
            assert before.message_count == first.messages
            assert copied_of(item, store) == CopiedTable(conversations=1)
            assert store.get("1") == before


@settings(max_examples=50, deadline=None)
@given(messages=st.lists(sound, max_size=6), cuts=st.lists(st.integers(0, 6), max_size=3))
def test_copies_of_a_growing_conversation_end_in_what_one_copy_makes(
    messages: list[Any], cuts: list[int]
) -> None:
    with open_store("sqlite:///:memory:") as grown, open_store("sqlite:///:memory:") as whole:
        item = {"created_at": {"S": CREATED}}
        for cut in [*sorted(cuts), len(messages)]:
            copied_of({**item, "messages": {"L": messages[:cut]}}, grown)
        copied_of({**item, "messages": {"L": messages}}, whole)
        assert grown.page("1").messages == whole.page("1").messages
        assert copied_of({**item, "messages": {"L": messages}}, grown).mismatches == ()
