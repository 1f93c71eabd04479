"""Storage is freed in batches and within a time budget, and what is freed is forgotten."""

from itertools import count, pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.conversations import MAX_BATCH_MESSAGES
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.calls import Call, CallFailed
from chatledger.testing.store_contract.helpers import (
    read_all,
    snapshot_if_any,
    texts_of,
    user_messages,
)
from tests.stores.dynamodb import logs
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.plan_driver import PlanHarness, query_reply, run
from tests.stores.dynamodb.plan_store import plans_on
from tests.stores.dynamodb.sample_text import sample_text
from tests.stores.dynamodb.tables import items_of, keys_of, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MESSAGES = 3_000
MAX_REQUESTS = 6_000 * MESSAGES // 100_000
"""The share of 6,000 requests at 100,000 messages."""
UNBOUNDED = 1e9


def put_conversation(
    client: "DynamoDBClient",
    table: str,
    clock: ManualClock,
    messages: int = MESSAGES,
    conversation_id: str = "trip",
) -> None:
    made = [Message.user(f"message {n}", created_at=clock()) for n in range(messages)]
    records = logs.make_records(made, owner="bob", created_at=clock())
    items = logs.record_items(conversation_id, records)
    put_items(client, table, [*items, logs.head_item(conversation_id, records[-1])])


REMOVALS = {
    "clear": lambda store: store.clear("trip"),
    "delete": lambda store: store.delete("trip"),
    "truncate": lambda store: store.truncate("trip", after=1),
}


@pytest.mark.parametrize("hours", [1, 4], ids=["young", "old"])
@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
def test_removed_messages_are_freed_in_batches(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    removal: Any,
    hours: int,
) -> None:
    """Each took a request of its own: 101,005 requests for 100,000 messages (finding 9)."""
    put_conversation(client, table, clock)
    clock.advance(hours=hours)
    meter, store = Meter(client), open_store(cleanup=UNBOUNDED)
    with meter.measured() as cost:
        removal(store)
    assert len(cost.requests) <= MAX_REQUESTS
    assert [item["sk"]["S"] for item in items_of(client, table) if "b" in item] in (
        [],
        ["m#0000000000000001"],
    )
    # Nobody can aim at the positions of old records, so that nothing is left of them.
    assert (len(keys_of(client, table)) > MESSAGES) == (hours == 1)


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
def test_a_removal_answers_within_its_budget_and_sweep_frees_the_rest(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, removal: Any
) -> None:
    """The caller waited until all of it was freed: 215 s for 100,000 messages (finding 9)."""
    put_conversation(client, table, clock)
    clock.advance(hours=4)
    meter, store = Meter(client), open_store(cleanup=0)
    with meter.measured() as cost:
        removal(store)
    assert len(cost.requests) <= 5
    assert len(keys_of(client, table)) >= MESSAGES
    seen = snapshot_if_any(open_store(), "trip")
    assert seen is None or len(seen.messages) <= 1
    store.sweep()
    assert len(keys_of(client, table)) <= 4
    assert snapshot_if_any(open_store(), "trip") == seen
    assert open_store().sweep() == 0


def test_what_one_call_leaves_is_freed_by_the_next_ones_in_pieces(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    put_conversation(client, table, clock, 400)
    clock.advance(hours=4)
    open_store(cleanup=0).truncate("trip", after=1)
    left = [len(keys_of(client, table))]
    for n in range(6):
        store = open_store(cleanup=2)
        # Time for two or three batches.
        store._table.monotonic = count(0, 0.06).__next__
        store.append("trip", user_messages(f"{n}"))
        left.append(len(keys_of(client, table)))
    assert all(20 <= before - after <= 75 for before, after in pairwise(left))
    assert texts_of(read_all(open_store(), "trip"))[:2] == ["message 0", "0"]


@pytest.mark.parametrize("kept", [0, 1, 700], ids=["none", "one", "half"])
def test_a_long_batch_is_freed_in_pieces_too(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, kept: int
) -> None:
    """The parts of one record were freed in one go: 10 s for 100,000 messages."""
    texts = [f"{n} {Random(n).randbytes(1_000).hex()}" for n in range(1_400)]
    seqs = open_store().append("trip", user_messages(*texts)).seqs
    clock.advance(hours=4)
    open_store(cleanup=0).truncate("trip", after=seqs[0] - 1 + kept)
    left = [len(keys_of(client, table))]
    assert left[0] > 600
    while left[-1] > kept / 2 + 60:
        store = open_store(cleanup=2)
        store._table.monotonic = count(0, 0.06).__next__
        store.append("trip", user_messages("another"))
        left.append(len(keys_of(client, table)))
        assert 20 <= left[-2] - left[-1] <= 75
    messages = read_all(open_store(), "trip")
    assert texts_of(messages) == [*texts[:kept], *["another"] * (len(left) - 1)]


# What a regeneration costs afterwards -------------------------------------------------------------


def test_after_300_regenerations_by_as_many_processes_an_append_costs_what_it_always_did(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """Every later record named what was removed, although it had been freed: 7 units instead of 4,
    and 2,933 bytes more (finding 7).
    """
    store, meter = open_store(), Meter(client)
    store.create("trip", owner="bob")
    store.append("trip", user_messages("question"))
    store.append("trip", [message(0)])
    with meter.measured() as before:
        open_store().append("trip", [message(1)], truncate_after=2)
    for n in range(2, 300):
        open_store().append("trip", [message(n)], truncate_after=2)
    with meter.measured() as after:
        open_store().append("trip", [message(300)], truncate_after=2)
    assert after.figures[:2] == before.figures[:2]
    clock.advance(seconds=1)
    with meter.measured() as plain:
        open_store().append("trip", [message(302)])
    assert plain.writes == 4
    assert plain.operations == ["Query", "PutItem", "UpdateItem"]
    *_, last = [item for item in items_of(client, table) if "l" in item]
    assert "d" not in last
    assert store.sweep() == 0


def message(n: int) -> Message:
    return Message.assistant(sample_text(n))


# Forks --------------------------------------------------------------------------------------------


def fork_of_a_long_conversation(open_store: OpenStore, messages: int) -> tuple[str, int]:
    """Return the id and revision of a fork whose messages are stored together."""
    store = open_store()
    batch = [Message.user(sample_text(n)) for n in range(min(messages, MAX_BATCH_MESSAGES))]
    store.append("source", batch, owner="bob")
    fork = store.fork("source", new_id="fork")
    return fork.id, fork.revision


IN_FORKS: dict[str, Any] = {
    "pop": lambda store, seq: store.pop("fork"),
    "replace": lambda store, seq: store.replace("fork", seq // 2, message(1)),
    "append(truncate_after)": lambda store, seq: store.append(
        "fork", [message(2)], truncate_after=seq - 1
    ),
}


@pytest.mark.parametrize("operation", IN_FORKS.values(), ids=IN_FORKS)
def test_a_change_in_a_fork_writes_only_the_chunk_that_it_changes(
    client: "DynamoDBClient", table: str, open_store: OpenStore, operation: Any
) -> None:
    """It wrote all messages of the fork anew: 71,893 units in a fork of 100,000 messages
    (finding 10).
    """
    _, revision = fork_of_a_long_conversation(open_store, 1_000)
    before = texts_of(read_all(open_store(), "fork"))
    meter = Meter(client)
    with meter.measured() as cost:
        operation(open_store(), revision)
    assert cost.writes <= 15
    assert len(cost.requests) <= 20
    after = texts_of(read_all(open_store(), "fork"))
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 1
    assert len(after) >= len(before) - 1
    with meter.measured() as cost:
        operation(open_store(), revision - 1)
    assert cost.writes <= 15


def test_nothing_is_left_of_a_fork_that_was_changed_often_and_deleted(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    store = open_store()
    _, revision = fork_of_a_long_conversation(open_store, 200)
    expected = texts_of(read_all(store, "fork"))
    for n in range(30):
        seq = n * 61 % (revision - 20) + 1
        if n % 3 == 2:
            expected.pop()
            store.pop("fork")
        else:
            expected[seq - 1] = message(n).text
            store.replace("fork", seq, message(n))
    assert texts_of(read_all(open_store(), "fork", limit=33)) == expected
    for limit in (3, 33):
        backward = texts_of(read_all(open_store(), "fork", before=10_000, limit=limit))
        assert backward == expected[::-1]
    clock.advance(days=2)
    open_store().sweep()
    assert texts_of(read_all(open_store(), "fork")) == expected
    for conversation_id in ("fork", "source"):
        store.delete(conversation_id)
    clock.advance(days=2)
    store.sweep()
    assert keys_of(client, table) == []


# Throughput and follow-up work --------------------------------------------------------------------


def test_a_long_message_is_written_in_batches_that_a_partition_takes() -> None:
    """A batch had up to 8 MiB, of which DynamoDB takes 1 MB a second, and 12 tries in all, however
    much each of them wrote (finding 17).
    """
    harness = PlanHarness()
    units_left, sizes = 1_000.0, []

    def perform(call: Call) -> Any:
        nonlocal units_left
        if call.operation != "BatchWriteItem":
            return query_reply() if call.operation == "Query" else {}
        requests = call.params["RequestItems"]["conversations"]
        sizes.append(sum(len(request["PutRequest"]["Item"]["b"]["B"]) for request in requests))
        taken = 0
        for request in requests:
            units = len(request["PutRequest"]["Item"]["b"]["B"]) / 1_024
            if units > units_left:
                break
            units_left -= units
            taken += 1
        if not taken:
            raise CallFailed("ProvisionedThroughputExceededException")
        return {"UnprocessedItems": {"conversations": requests[taken:]}}

    def wait(seconds: float) -> None:
        nonlocal units_left
        harness.monotonic += seconds
        units_left = min(units_left + seconds * 1_000, 1_000)

    # 8 MiB of JSON that hardly compresses.
    text = "".join(chr(33 + byte % 90) for byte in new_bytes(8 * 1024 * 1024))
    plan = plans_on(harness.table).append(
        "trip", user_messages(text), owner=None, revision=None, idempotency_key=None
    )
    assert run(harness.with_retries(plan), perform, wait).revision == 1
    assert max(sizes) <= 1024 * 1024


def new_bytes(n: int) -> bytes:
    return Random(1).randbytes(n)


@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException"])
def test_work_that_is_left_undone_takes_seconds_at_most_and_is_logged(
    code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller waited 20 s for a head that could not be updated, and nobody was told
    (finding 19).
    """
    harness = PlanHarness()

    def perform(call: Call) -> Any:
        if call.operation == "UpdateItem":
            raise CallFailed(code)
        return query_reply() if call.operation == "Query" else {}

    def wait(seconds: float) -> None:
        harness.monotonic += seconds

    for n in count(1):
        plan = plans_on(harness.table).append(
            "trip", user_messages("a secret"), owner="bob", revision=None, idempotency_key=None
        )
        started = harness.monotonic
        run(harness.with_retries(plan), perform, wait)
        assert harness.monotonic - started < 2
        harness.table.log_end_cache.forget("trip")
        if harness.monotonic > 61 or n > 200:
            break
        harness.monotonic += 1
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2, "once a minute"
    assert texts[0].startswith("Could not update the head of conversation 'trip': ")
    assert not any("secret" in text or "bob" in text for text in texts)


def test_the_cleanup_budget_is_a_number_of_seconds(client: "DynamoDBClient", table: str) -> None:
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="cleanup must be a number of seconds"):
            DynamoDBStore(client, table, cleanup=bad)
