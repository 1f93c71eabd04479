"""Readers see the conversation as of one moment, in few requests, and say what is missing."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.errors import ConversationDamaged
from chatledger.messages import Message
from chatledger.stores.dynamodb import cleanup
from chatledger.stores.dynamodb.plans import read as read_plans
from chatledger.stores.dynamodb.records import HEAD, encode_tombstone, key, record_sort
from chatledger.testing.store_contract.helpers import (
    read_all,
    scan_all,
    snapshot,
    texts_of,
    user_messages,
)
from chatledger.values import milliseconds
from tests.stores.dynamodb import logs
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.faulty_clients import Params, client_with_hooks
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.plan_driver import PlanDriver, PlanHarness, body_of, query_reply
from tests.stores.dynamodb.plan_store import plans_on
from tests.stores.dynamodb.tables import items_of, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def test_a_page_backward_never_shows_a_truncated_record_whole(
    client: "DynamoDBClient", open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A truncation came between its two requests, and its tombstones were there before the record
    that it went through was shortened: the page had messages that the truncation removed, but not
    those after them (finding 6).
    """
    other = open_store()
    other.append("trip", user_messages("m1", "m2", "m3"))
    other.append("trip", user_messages("m4"))
    other.append("trip", user_messages("m5"))
    done = False

    def not_shortened(*_: Any) -> Any:
        return
        yield

    def truncate(operation: str, params: Params) -> None:
        nonlocal done
        if operation == "query" and not done:
            done = True
            with monkeypatch.context() as context:
                context.setattr(cleanup, "_shorten_record", not_shortened)
                other.truncate("trip", after=1)

    store = open_store(client_with_hooks(client, after=truncate))
    page = store.page("trip", before=5)
    assert done
    assert texts_of(page.messages) in (["m4", "m3", "m2", "m1"], ["m1"])


def test_a_reader_sees_both_parts_of_a_replacement_or_none() -> None:
    """A query may see one part of a transaction before the other (AWS): the old text at the new
    revision (finding 18).
    """
    harness = PlanHarness()
    driver = PlanDriver(harness.with_retries(plans_on(harness.table).tail("trip", 2, owner=None)))
    marker = harness.item(3, previous_seq=2, messages=0, body=None, message_count=2, rewrites=1)
    old = [harness.item(2), harness.item(1, body=body_of("the password"))]
    new = [harness.item(2), harness.item(1, body=body_of("[redacted]"), rewritten_at=3)]
    driver.reply(query_reply(marker, old[0]))
    driver.reply(query_reply(old[1]))
    assert driver.wait_seconds < 1, "it reads again"
    driver.reply()
    driver.reply(query_reply(marker, new[0]))
    driver.reply(query_reply(new[1]))
    while driver.step is not None:
        driver.reply(query_reply(marker) if driver.operation == "Query" else {"Item": new[1]})
    assert texts_of(driver.result.messages) == ["[redacted]", "message 2"]
    assert driver.result.conversation.revision == 3


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["a record", "a body part"])
def test_a_missing_message_is_reported_at_once_and_repair_keeps_the_others(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, missing: str
) -> None:
    """Each read took 25 s and 100 requests, and said that the conversation kept changing; nothing
    could be done about it (finding 15).
    """
    store = open_store()
    store.create("trip", owner="bob", title="A trip")
    long = "".join(map(chr, range(0x4E00, 0x9E00))) * 4
    for n in range(9):
        store.append("trip", user_messages(long if n == 4 else f"{n}"))
    sorts = [item["sk"]["S"] for item in items_of(client, table)]
    lost = record_sort(6) if missing == "a record" else next(s for s in sorts if s[:2] == "b#")
    client.delete_item(TableName=table, Key=key("trip", lost))
    meter = Meter(client)
    for read in (
        lambda: store.tail("trip", 9),
        lambda: store.page("trip"),
        lambda: store.page("trip", before=11),
        lambda: store.fork("trip"),
    ):
        with meter.measured() as cost, pytest.raises(ConversationDamaged) as raised:
            read()
        assert (raised.value.conversation_id, raised.value.seq) == ("trip", 6)
        assert len(cost.requests) < 40
    # The rest can be read and written, and other conversations are searched.
    store.append("other", user_messages("5"), owner="bob")
    assert [match.conversation_id for match in store.search("bob", "5")] == ["other"]
    assert texts_of(store.tail("trip", 4).messages) == ["5", "6", "7", "8"]
    assert texts_of(store.page("trip", limit=3).messages) == ["0", "1", "2"]
    assert list(store.append("trip", user_messages("9")).seqs) == [11]
    assert texts_of(store.pop("trip")) == ["9"]

    repaired = store.repair("trip", owner="bob")
    assert repaired == store.get("trip")
    assert (repaired.title, repaired.message_count) == ("A trip", 8)
    expected = [*"0123", *"5678"]
    assert texts_of(read_all(open_store(), "trip", limit=3)) == expected
    store.append("trip", user_messages("9"))
    assert texts_of(store.tail("trip", 99).messages) == [*expected, "9"]
    before = snapshot(store, "trip")
    store.repair("trip")
    assert snapshot(store, "trip") == before, "nothing is missing any longer"
    clock.advance(days=2)
    store.sweep()
    assert texts_of(read_all(open_store(), "trip")) == [*expected, "9"]


# Bounded in requests ------------------------------------------------------------------------------


def put_conversations(
    client: "DynamoDBClient", table: str, clock: ManualClock, number: int, *, expired: bool
) -> None:
    lifetime = milliseconds(timedelta(hours=1)) if expired else None
    at = clock() - timedelta(hours=5) if expired else clock() - timedelta(hours=9)
    items: list[Any] = []
    for n in range(number):
        made = [Message.user("hello", created_at=at + timedelta(seconds=n))]
        records = logs.make_records(made, owner="bob", created_at=at, lifetime=lifetime)
        id = f"{'expired' if expired else 'living'} {n}"
        items += [*logs.record_items(id, records), logs.head_item(id, records[-1])]
    put_items(client, table, items)


def test_a_list_reads_past_a_thousand_expired_conversations_in_a_few_requests(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """Each of them took a request: 1,001 (finding 8)."""
    put_conversations(client, table, clock, 20, expired=False)
    put_conversations(client, table, clock, 1_000, expired=True)
    meter, store = Meter(client), open_store()
    with meter.measured() as cost:
        listed = store.list("bob", limit=20).conversations
    assert len(listed) == 20
    assert len(cost.requests) <= 12


def test_a_search_reads_a_bounded_number_of_conversations_a_call_and_goes_on(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    put_conversations(client, table, clock, 120, expired=False)
    meter, store = Meter(client), open_store()
    with meter.measured() as cost:
        first = store.search("bob", "missing")
    assert (first.matches, first.complete) == ((), False)
    assert len(cost.requests) <= 102
    rest = store.search("bob", "missing", cursor=first.cursor)
    assert (rest.matches, rest.cursor, rest.complete) == ((), None, True)
    matches, cursor = list[str](), None
    while True:
        found = store.search("bob", "hello", limit=70, cursor=cursor)
        matches += [match.conversation_id for match in found]
        cursor = found.cursor
        if cursor is None:
            break
    assert matches == [f"living {n}" for n in reversed(range(120))]


def put_tombstones(client: "DynamoDBClient", table: str, first: int, last: int) -> None:
    harness = PlanHarness()
    put_items(
        client,
        table,
        (
            encode_tombstone("trip", harness.record(position), 1_900_000_000)
            for position in range(first, last + 1)
        ),
    )


def test_a_page_reads_past_2000_removed_messages_in_a_few_requests(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """Each of them took a request: 2,006 (finding 8)."""
    made = [Message.user(f"{n}", created_at=clock()) for n in range(100)]
    records = logs.make_records(made, owner="bob", created_at=clock())
    put_items(client, table, logs.record_items("trip", records))
    put_tombstones(client, table, 101, 2_100)
    [last] = logs.make_records(
        [Message.user("last", created_at=clock())],
        owner="bob",
        created_at=clock(),
        first=2_101,
        previous_seq=100,
        count=100,
    )
    put_items(client, table, [*logs.record_items("trip", [last]), logs.head_item("trip", last)])
    meter, store = Meter(client), open_store()
    expected = [*(f"{n}" for n in range(100)), "last"]
    reads: list[Callable[[], Sequence[Message]]] = [
        lambda: store.page("trip", after=0, limit=101).messages,
        lambda: store.page("trip", after=1, limit=100).messages,
        lambda: store.page("trip", before=2_102, limit=100).messages[::-1],
        lambda: store.page("trip", after=99, limit=100).messages,
        lambda: store.tail("trip", 100).messages,
        lambda: store.tail("trip", 2).messages,
    ]
    for read in reads:
        with meter.measured() as cost:
            messages = texts_of(read())
        assert messages in (expected, expected[1:], expected[-2:])
        assert len(cost.requests) <= 25
    with meter.measured() as cost:
        assert texts_of(store.page("trip", after=0, limit=1).messages) == ["0"]
    assert len(cost.requests) <= 3


def test_a_sweep_makes_no_request_for_a_conversation_of_which_nothing_is_to_be_freed(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """It queried every conversation, and read with strong consistency (finding 23)."""
    put_conversations(client, table, clock, 300, expired=False)
    meter, store = Meter(client), open_store()
    with meter.measured() as cost:
        assert store.sweep() == 0
    assert set(cost.operations) == {"Scan"}
    assert cost.reads < 300 / 4


@pytest.mark.parametrize("segments", [1, 3])
def test_a_table_is_swept_in_segments(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, segments: int
) -> None:
    """There were none: a table of 1 TB took four days (finding 23)."""
    put_conversations(client, table, clock, 30, expired=True)
    put_conversations(client, table, clock, 5, expired=False)
    clock.advance(hours=4)
    freed = [open_store().sweep(segment=(n, segments)) for n in range(segments)]
    assert sum(freed) >= 30
    left = {item["pk"]["S"] for item in items_of(client, table) if "b" in item}
    assert left == {f"c#living {n}" for n in range(5)}
    with pytest.raises(ValueError, match="segment must be the number"):
        open_store().sweep(segment=(segments, segments))


def test_a_scan_of_single_conversations_reads_each_of_them_about_once(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """``limit=1`` read a megabyte each time: 15,284 units instead of 101 (finding 24)."""
    put_conversations(client, table, clock, 60, expired=False)
    meter, store = Meter(client), open_store()
    reads = []
    for limit in (1, 60):
        with meter.measured() as cost:
            assert len(scan_all(store, limit=limit)) == 60
        reads.append(cost.reads)
    assert reads[0] <= 60 * 13
    assert reads[1] <= 30


# Bounded in bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["in one append", "in many appends", "in a fork"])
def test_a_read_stops_at_a_number_of_bytes_and_misses_no_message(
    client: "DynamoDBClient", table: str, open_store: OpenStore, how: str, monkeypatch: Any
) -> None:
    """It was bounded by the number of messages alone: 1,000 of up to 16 MiB (finding 30)."""
    monkeypatch.setattr(read_plans, "MAX_READ_BYTES", 200_000)
    store, random = open_store(), Random(1)
    texts = [random.randbytes(random.choice([50, 900, 20_000])).hex() for _ in range(60)]
    if how == "in many appends":
        for text in texts:
            store.append("trip", user_messages(text), reply_follows=True)
    else:
        store.append("trip", user_messages(*texts))
    id = store.fork("trip").id if how == "in a fork" else "trip"
    reader = open_store()
    for after in range(59):
        page = reader.page(id, after=after, limit=1_000)
        assert texts_of(page.messages) == texts[after : after + len(page.messages)]
        assert sum(map(len, texts_of(page.messages[:-1]))) <= 200_000
        assert (page.next is None) == (after + len(page.messages) == 60)
    for before in range(2, 62):
        page = reader.page(id, before=before, limit=1_000)
        found = texts_of(page.messages)[::-1]
        assert found == texts[before - 1 - len(found) : before - 1]
    tail = texts_of(reader.tail(id, 60).messages)
    assert tail == texts[-len(tail) :]
    assert 100_000 < sum(map(len, tail)) < 200_000
    assert texts_of(read_all(reader, id)) == texts
    assert HEAD in [item["sk"]["S"] for item in items_of(client, table)]
