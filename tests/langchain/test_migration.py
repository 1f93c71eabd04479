"""Tests of ``copy_langchain_table``."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from chatledger import Store, open_store
from chatledger.errors import InvalidArgument, TableMissing
from chatledger.langchain import copy_langchain_table, from_chatledger
from chatledger.langchain.connections import shared_client
from chatledger.langchain.migration import Key
from chatledger.messages import Message
from tests.langchain.histories import Histories
from tests.langchain.test_dropin import HELLO, HI, REPLY, typed_values
from tests.langchain.test_dropin_old_items import ITEMS, put


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/target.db") as store:
        yield store


def session_of(key: Key) -> str:
    return str(key.get("SessionId") or key["SK"]).removeprefix("session#")


def copy(histories: Histories, store: Store, **options: Any) -> Any:
    arguments: dict[str, Any] = {
        "endpoint_url": histories.endpoint,
        "boto3_session": histories.session,
        "conversation_id": session_of,
    }
    return copy_langchain_table(histories.table, store, **(arguments | options))


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
        histories.open("long", segment_bytes=2_000).add_messages([HumanMessage(f"{n}".ljust(300))])
    histories.put({"other": {"S": "an entity of another kind"}}, "unrelated")
    before = histories.items()
    report = copy(histories, target)
    assert (report.conversations, report.others, report.problems) == (5, 1, [])
    assert report.messages == 2 + 4 + 3 + 3 + 30
    for session_id in ("text", "tools", "blocks", "exact", "long"):
        ours = histories.open(session_id).messages
        assert typed_values(messages(target, session_id)) == typed_values(ours)
    assert sorted(map(repr, histories.items())) == sorted(map(repr, before))


def test_chunks_are_copied_as_whole_messages(histories: Histories, target: Store) -> None:
    put(histories, ITEMS[2])
    copy(histories, target)
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
    report = copy(histories, target, ttl=5_000, owner=lambda key: "bob")
    assert (report.conversations, report.expired) == (2, 1)
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
    report = copy(histories, target)
    problems = {session_of(problem.key): problem.why for problem in report.problems}
    assert problems.keys() == {"text", "strange", "far", "bytes"}
    assert "Element 0 of 'History'" in problems["strange"]
    assert "bytes" in problems["bytes"]
    assert report.conversations == 1
    assert messages(target, "good") == [HI]


def test_a_second_copy_adds_only_new_messages(histories: Histories, target: Store) -> None:
    for n in range(5):
        histories.open(f"{n}").add_messages([HI, REPLY, HELLO])
    assert copy(histories, target).messages == 15
    histories.open("3").add_messages([HumanMessage("new")])
    again = copy(histories, target)
    assert (again.conversations, again.messages, again.problems) == (5, 1, [])
    assert messages(target, "3") == [HI, REPLY, HELLO, HumanMessage("new")]
    target.append("2", [Message.user("went on there")])
    assert copy(histories, target).problems == []


def test_a_conversation_with_the_same_id_and_other_messages_is_left_alone(
    hash_only: Histories, target: Store
) -> None:
    hash_only.open("1").add_messages([HI, HELLO])
    target.append("1", [Message.user("mine")])
    report = copy(hash_only, target)
    assert [problem.key for problem in report.problems] == [{"SessionId": "1"}]
    assert [each.content for each in messages(target, "1")] == ["mine"]


def test_an_interrupted_copy_continues_from_its_checkpoint(
    hash_only: Histories, target: Store, tmp_path: Path, requests: list[str]
) -> None:
    for n in range(30):
        hash_only.open(f"{n}").add_messages([HumanMessage("x" * 100_000)])
    hash_only.put({"History": {"S": "text"}}, "bad")
    checkpoint = tmp_path / "checkpoint.json"
    reports: list[int] = []

    def stop(report: Any) -> None:
        reports.append(report.conversations)
        if len(reports) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(hash_only, target, segments=1, checkpoint=checkpoint, progress=stop)
    places = json.loads(checkpoint.read_text())["places"]
    assert places != [None]
    requests.clear()
    report = copy(hash_only, target, segments=1, checkpoint=str(checkpoint))
    assert requests.count("Scan") <= 2  # of 4 pages
    assert (report.conversations, report.messages) == (30, 30)
    assert [problem.key for problem in report.problems] == [{"SessionId": "bad"}]
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_copy_is_rejected(
    hash_only: Histories, target: Store, tmp_path: Path
) -> None:
    for text in ('{"about": {"table": "other", "segments": 4}}', "{}", "nonsense", "[]"):
        (tmp_path / "file").write_text(text)
        with pytest.raises(InvalidArgument, match="checkpoint"):
            copy(hash_only, target, checkpoint=tmp_path / "file")
        assert (tmp_path / "file").read_text() == text


def test_the_source_is_only_read(hash_only: Histories, target: Store, requests: list[str]) -> None:
    for n in range(20):
        hash_only.open(segment_bytes=1_024).add_messages([HumanMessage(f"{n}".ljust(300))])
    requests.clear()
    copy(hash_only, target)
    assert set(requests) == {"DescribeTable", "Scan", "BatchGetItem"}


def test_units_per_second_limits_the_rate(hash_only: Histories, target: Store) -> None:
    for n in range(4):
        hash_only.open(f"{n}").add_messages([HumanMessage("x" * 40_000)])
    start = time.monotonic()
    assert copy(hash_only, target, segments=1, units_per_second=40).conversations == 4
    assert time.monotonic() - start > 0.9


def test_a_missing_table_is_named(hash_only: Histories, target: Store) -> None:
    client = shared_client(hash_only.session, hash_only.endpoint)
    assert client is shared_client(hash_only.session, hash_only.endpoint)
    with pytest.raises(TableMissing, match="nowhere"):
        copy_langchain_table(
            "nowhere", target, endpoint_url=hash_only.endpoint, boto3_session=hash_only.session
        )
    with pytest.raises(InvalidArgument, match="segments"):
        copy(hash_only, target, segments=0)
