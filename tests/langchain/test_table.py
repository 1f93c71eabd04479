"""Tests of ``LangChainTable`` as a source of ``copy``."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber
from langchain_core.messages import HumanMessage

from chatledger import Copied, Message, Problem, Progress, Store, copy, open_store
from chatledger.errors import AccessRefused, InvalidArgument, TableMissing
from chatledger.langchain import LangChainTable, from_chatledger
from chatledger.langchain.connections import shared_client
from chatledger.langchain.table import Key
from tests.langchain.histories import Histories
from tests.langchain.test_dropin import HELLO, HI, REPLY, typed_values
from tests.langchain.test_dropin_old_items import ITEMS, put


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/target.db") as store:
        yield store


def session_of(key: Key) -> str:
    return str(key.get("SessionId") or key["SK"]).removeprefix("session#")


def source(histories: Histories, **options: Any) -> LangChainTable:
    arguments: dict[str, Any] = {
        "client": shared_client(histories.session, histories.endpoint),
        "conversation_id": session_of,
    }
    return LangChainTable(histories.table, **(arguments | options))


def copy_table(histories: Histories, store: Store, **options: Any) -> Copied:
    return copy(source(histories, **options), store)


def messages(store: Store, id: str) -> list[Any]:
    found: list[Message] = []
    while page := store.page(id, after=found[-1].seq if found else 0, limit=1_000).messages:
        found += page
    return [from_chatledger(message) for message in found]


def test_histories_are_copied_with_the_order_and_types_of_their_messages(
    histories: Histories, target: Store
) -> None:
    for sample in ITEMS[:2] + ITEMS[3:]:
        put(histories, sample)
    histories.open("exact").add_messages([HI, REPLY, HELLO])
    for n in range(30):  # a history of several items
        histories.open("long", first_item_bytes=2_000).add_messages(
            [HumanMessage(f"{n}".ljust(300))]
        )
    histories.put({"other": {"S": "an entity of another kind"}}, "unrelated")
    before = histories.items()
    table = source(histories)
    copied = copy(table, target)
    assert (copied.conversations, table.others, copied.problems) == (5, 1, [])
    assert copied.messages == 2 + 4 + 3 + 3 + 30
    for session_id in ("text", "tools", "blocks", "exact", "long"):
        ours = histories.open(session_id).messages
        assert typed_values(messages(target, session_id)) == typed_values(ours)
    assert sorted(map(repr, histories.items())) == sorted(map(repr, before))


def test_chunks_are_copied_as_whole_messages(histories: Histories, target: Store) -> None:
    put(histories, ITEMS[2])
    copy_table(histories, target)
    found = messages(target, "chunks")
    assert [(each.type, each.content) for each in found][2] == ("ai", "Hello")


def test_a_ttl_is_kept_to_the_second_and_expired_histories_are_left_out(
    histories: Histories, target: Store
) -> None:
    histories.open("kept", ttl=5_000).add_messages([HI])
    histories.open("forever").add_messages([HI])
    histories.open("gone").add_messages([HI])
    gone = histories.item("gone")
    kept = histories.item("kept")
    assert gone is not None
    assert kept is not None
    histories.put(gone | {"expireAt": {"N": str(int(time.time()) - 5)}}, "gone")
    table = source(histories, ttl=5_000, owner=lambda key: "bob")
    assert (copy(table, target).conversations, table.expired) == (2, 1)
    conversation = target.get("kept", owner="bob")
    assert conversation.expires_at == datetime.fromtimestamp(int(kept["expireAt"]["N"]), UTC)
    assert target.get("forever", owner="bob").expires_at is None
    appended = target.append("kept", [Message.user("on")], owner="bob")
    assert appended.revision == 2
    expires = target.get("kept", owner="bob").expires_at
    assert expires is not None
    assert abs(expires.timestamp() - time.time() - 5_000) < 60


def test_unreadable_histories_are_reported_and_the_others_are_copied(
    histories: Histories, target: Store
) -> None:
    histories.open("good").add_messages([HI])
    histories.put({"History": {"S": "text"}}, "text")
    histories.put({"History": {"L": [{"M": {"type": {"S": "martian"}}}]}}, "strange")
    histories.put({"History": {"L": []}, "expireAt": {"N": "99999999999999"}}, "far")
    histories.open("bytes").add_messages([HumanMessage("x", additional_kwargs={"b": b"1"})])
    copied = copy_table(histories, target)
    problems = {problem.conversation_id: problem.why for problem in copied.problems}
    assert problems.keys() == {"text", "strange", "far", "bytes"}
    assert "Element 0 of 'History'" in problems["strange"]
    assert "bytes" in problems["bytes"]
    assert copied.conversations == 1
    assert messages(target, "good") == [HI]


def test_a_second_copy_adds_only_new_messages(histories: Histories, target: Store) -> None:
    for n in range(5):
        histories.open(f"{n}").add_messages([HI, REPLY, HELLO])
    assert copy_table(histories, target).messages == 15
    histories.open("3").add_messages([HumanMessage("new")])
    again = copy_table(histories, target)
    assert (again.conversations, again.messages, again.problems) == (5, 1, [])
    assert messages(target, "3") == [HI, REPLY, HELLO, HumanMessage("new")]
    target.append("2", [Message.user("went on there")])
    [problem] = copy_table(histories, target).problems
    assert problem.conversation_id == "2"
    assert "changed or continued" in problem.why
    assert [each.content for each in messages(target, "2")][-1] == "went on there"


def test_a_conversation_with_the_same_id_and_other_messages_is_left_alone(
    hash_only: Histories, target: Store
) -> None:
    hash_only.open("1").add_messages([HI, HELLO])
    target.append("1", [Message.user("mine")])
    copied = copy_table(hash_only, target)
    assert copied.problems == [Problem("1", "Message 1 differs in the target.")]
    assert [each.content for each in messages(target, "1")] == ["mine"]


def test_an_interrupted_copy_writes_nothing_twice(hash_only: Histories, target: Store) -> None:
    for n in range(30):
        hash_only.open(f"{n}").add_messages([HumanMessage("x" * 100_000)])
    hash_only.put({"History": {"S": "text"}}, "bad")
    done: list[Progress] = []

    def stop(progress: Progress) -> None:
        done.append(progress)
        if progress.conversations == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(source(hash_only), target, progress=stop)
    copied = copy_table(hash_only, target)
    assert (copied.conversations, copied.messages) == (30, 30 - done[-1].messages)
    assert [problem.conversation_id for problem in copied.problems] == ["bad"]
    assert copy_table(hash_only, target).messages == 0


def test_ids_of_messages_are_the_same_in_every_copy(
    hash_only: Histories, target: Store, tmp_path: Path
) -> None:
    hash_only.open().add_messages([HI, HumanMessage("mine", id="my id"), HI])
    with open_store(f"sqlite:///{tmp_path}/another.db") as another:
        for store in (target, another):
            copy_table(hash_only, store)
        ids = [message.id for message in target.page("1").messages]
        assert ids == [message.id for message in another.page("1").messages]
    assert ids[1] == "my id"
    assert len(set(ids)) == 3


def test_an_empty_history_is_copied_and_gets_its_messages_later(
    hash_only: Histories, target: Store
) -> None:
    hash_only.put({"History": {"L": []}})
    assert copy_table(hash_only, target) == Copied(conversations=1)
    assert target.get("1").message_count == 0
    hash_only.open().add_messages([HI, REPLY])
    assert copy_table(hash_only, target) == Copied(conversations=1, messages=2)
    hash_only.open().add_messages([HELLO])
    assert copy_table(hash_only, target) == Copied(conversations=1, messages=1)
    assert messages(target, "1") == [HI, REPLY, HELLO]


def test_the_source_is_only_read(hash_only: Histories, target: Store, requests: list[str]) -> None:
    for n in range(20):
        hash_only.open(first_item_bytes=1_024).add_messages([HumanMessage(f"{n}".ljust(300))])
    requests.clear()
    copy_table(hash_only, target)
    assert set(requests) == {"DescribeTable", "Scan", "BatchGetItem"}


def test_units_per_second_limits_the_rate(hash_only: Histories, target: Store) -> None:
    for n in range(4):
        hash_only.open(f"{n}").add_messages([HumanMessage("x" * 40_000)])
    start = time.monotonic()
    assert copy_table(hash_only, target, units_per_second=40).conversations == 4
    assert time.monotonic() - start > 0.9


def test_segments_together_are_the_whole_table(hash_only: Histories, target: Store) -> None:
    for n in range(12):
        hash_only.open(f"{n}").add_messages([HI])
    copied = [copy_table(hash_only, target, segment=(n, 3)) for n in range(3)]
    assert sum(each.conversations for each in copied) == 12
    with pytest.raises(InvalidArgument, match="segment"):
        source(hash_only, segment=(3, 3))


def test_errors_for_a_missing_table_or_permission_say_what_to_do(
    hash_only: Histories, target: Store
) -> None:
    client = shared_client(hash_only.session, hash_only.endpoint)
    assert client is shared_client(hash_only.session, hash_only.endpoint)
    with pytest.raises(TableMissing, match=r"'nowhere'.*name an existing table"):
        copy(LangChainTable("nowhere", client=client), target)
    with Stubber(client) as stub:
        stub.add_client_error("describe_table", "AccessDeniedException", "not for you")
        with pytest.raises(AccessRefused, match=r"dynamodb:DescribeTable, Scan"):
            copy_table(hash_only, target)
