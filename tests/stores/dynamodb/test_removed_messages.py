"""Messages that ``remove`` took out of the middle, and writes that were interrupted around them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.errors import Conflict, NotFound
from chatledger.messages import Message
from chatledger.stores.dynamodb import heads
from chatledger.stores.dynamodb.calls import CallFailed, Plan
from chatledger.stores.dynamodb.log import Log, LostRace
from chatledger.stores.dynamodb.plans.read import Span
from chatledger.stores.dynamodb.records import Record
from chatledger.testing.store_contract.helpers import read_all, texts_of, user_messages
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.tables import items_of, keys_of
from tests.stores.dynamodb.test_cleanup import put_conversation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def test_reading_past_many_removed_messages_takes_few_requests(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    put_conversation(client, table, clock, 400)
    meter, store = Meter(client), open_store()
    for seq in range(1, 381):
        store.remove("trip", seq)
    with meter.measured() as cost:
        assert len(store.tail("trip", 21).messages) == 20
        assert len(store.page("trip", before=381, limit=1).messages) == 0
        assert len(store.page("trip", limit=5).messages) == 5
        assert len(store.pop("trip", 25)) == 20
    assert len([request for request in cost.requests if request.operation == "Query"]) <= 40
    with meter.measured() as cost, pytest.raises(NotFound):
        store.remove("trip", 300)
    assert len(cost.requests) <= 4


def test_a_truncation_after_a_removal_reads_the_shorter_side(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    put_conversation(client, table, clock, 2_000)
    meter, store = Meter(client), open_store(cleanup=0)
    store.remove("trip", 5)
    with meter.measured() as cost:
        assert store.truncate("trip", after=1_990).message_count == 1_989
        assert store.truncate("trip", after=10).message_count == 9
    assert len(cost.requests) <= 12
    assert cost.reads <= 20


@pytest.mark.parametrize("after", [3, 6])
def test_a_damaged_conversation_can_be_truncated_before_the_damage(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, after: int
) -> None:
    for operation in ("truncate", "append"):
        put_conversation(client, table, clock, 40, operation)
        store = open_store()
        store.remove(operation, 2)
        key = {"pk": {"S": f"c#{operation}"}, "sk": {"S": "m#0000000000000020"}}
        client.delete_item(TableName=table, Key=key)
        expected = [f"message {n}" for n in range(after) if n != 1]
        if operation == "truncate":
            store.truncate(operation, after=after)
        else:
            store.append(operation, user_messages("new"), truncate_after=after)
            expected.append("new")
        assert texts_of(read_all(store, operation)) == expected


@pytest.mark.parametrize("change", ["remove", "replace"])
def test_a_change_that_loses_a_race_leaves_no_text_of_other_messages(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    store = open_store()
    texts = [f"{n} {'x' * 900}" for n in range(300)]
    seqs = store.append("trip", user_messages(*texts)).seqs
    put, lost = Log.put, [True, True]

    def lose_twice(log: Log, record: Record, *others: Any) -> Plan[None]:
        if record.rewrites and lost:
            lost.pop()
            raise LostRace
        yield from put(log, record, *others)

    before = len(keys_of(client, table))
    monkeypatch.setattr(Log, "put", lose_twice)
    if change == "remove":
        store.remove("trip", seqs[10])
    else:
        store.replace("trip", seqs[10], Message.user("new"))
    assert not lost
    assert len(keys_of(client, table)) == before + 1, "a record, and one chunk for another"


def test_a_head_that_cannot_be_written_keeps_the_first_record_from_being_freed(
    client: "DynamoDBClient", table: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first record has the only copy of title, metadata and idempotency key."""
    store = open_store()

    def fail(*_: Any) -> Plan[Any]:
        raise CallFailed("ThrottlingException")
        yield

    with monkeypatch.context() as throttled:
        throttled.setattr(heads, "_update", fail)
        store.create("trip", title="My title", metadata={"a": 1}, idempotency_key="key")
        store.append("trip", user_messages("1", "2"))
        store.clear("trip")
        store.append("trip", user_messages("3"), truncate_after=0)
        store.append("trip", user_messages("4"))
    assert not any(item["sk"]["S"] == "~head" for item in items_of(client, table))
    seen = open_store().get("trip")
    assert (seen.title, seen.metadata, seen.message_count) == ("My title", {"a": 1}, 2)
    again = open_store().create("trip", title="My title", metadata={"a": 1}, idempotency_key="key")
    assert again == seen


def test_a_key_of_a_conversation_that_began_later_is_not_taken_for_one_of_a_later_write(
    open_store: OpenStore, clock: ManualClock
) -> None:
    store = open_store()
    store.append("trip", user_messages("1"), idempotency_key="key")
    begun = store.get("trip")
    store.delete("trip")
    earlier = datetime(2020, 1, 1, tzinfo=UTC)
    store.restore(
        replace(begun, created_at=earlier, updated_at=earlier, revision=10, message_count=0),
        [],
        revision=0,
    )
    with pytest.raises(Conflict):
        store.append("trip", user_messages("1"), idempotency_key="key", revision=3)
    assert store.append(
        "trip", user_messages("1"), idempotency_key="key", revision=10
    ).seqs == range(11, 12)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_a_span_is_cut_to_its_first_or_last_messages(n: int) -> None:
    removed = ((3, 3), (5, 8), (10, 10), (19, 20))
    record = Record(1, "", 1, None, 0, 0, width=20, messages=20, removed=removed)
    gone = {3, 5, 6, 7, 8, 10, 19, 20}
    for first in range(1, 21):
        for last in range(first, 21):
            span = Span(record, first, last)
            seqs = [seq for seq in range(first, last + 1) if seq not in gone]
            assert span.messages == len(seqs)
            for cut, expected in (
                (span.first_messages(n), seqs[:n]),
                (span.last_messages(n), seqs[-n:]),
            ):
                inside = [seq for seq in range(cut.first, cut.last + 1) if seq not in gone]
                assert inside == expected
                if seqs:
                    trimmed = cut.trimmed()
                    assert (trimmed.first, trimmed.last) == (expected[0], expected[-1])
