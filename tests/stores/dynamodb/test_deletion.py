"""A deletion leaves no data behind, wherever it is interrupted."""

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore import xform_name

from chatledger.errors import NotFound
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.calls import Call, Plan, paced
from chatledger.stores.dynamodb.plans.sweep import SweepProgress
from chatledger.stores.dynamodb.records import LAYOUT
from chatledger.stores.dynamodb.table import Table
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract.helpers import (
    read_all,
    snapshot_if_any,
    texts_of,
    user_messages,
)
from chatledger.values import milliseconds, new_id, now
from tests.stores.dynamodb import logs
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.faulty_clients import Crashed, crashing_client
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.plan_driver import run
from tests.stores.dynamodb.plan_store import plans_on
from tests.stores.dynamodb.tables import items_of, keys_of, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SECRET = "a secret "
LONG = SECRET + "".join(map(chr, range(0x4E00, 0x9E00))) * 4
"""A text that does not fit into a record, so that it is stored in body parts."""


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.time = now()  # the age of a body part is that of its token, which holds the real time
    return clock


def start_conversations(store: DynamoDBStore, *, expires_in: timedelta | None = None) -> None:
    """Start ``trip``, which has items of every kind, and ``other``, which is to stay."""
    store.append("other", user_messages("stays", LONG), owner="bob", idempotency_key="request-7")
    store.create("trip", owner="bob", title=SECRET, metadata={"key": SECRET}, expires_in=expires_in)
    store.append("trip", user_messages(SECRET, SECRET), idempotency_key="request-7")
    store.append("trip", user_messages(SECRET))
    store.append("trip", user_messages(SECRET, LONG))
    store.append("trip", user_messages(SECRET, SECRET))
    store.pop("trip")
    store.replace("trip", 2, Message.user(SECRET * 2))
    store.append("trip", user_messages(LONG))


def items_of_trip(client: "DynamoDBClient", table: str) -> list[Any]:
    return [item for item in items_of(client, table) if item["pk"]["S"] == "c#trip"]


def has_no_content(client: "DynamoDBClient", table: str) -> bool:
    """Return whether the remaining items of ``trip`` hold neither messages nor a description."""
    left = items_of_trip(client, table)
    with_content = [item for item in left if item.keys() & {"b", "i", "title", "metadata"}]
    return not with_content and SECRET not in repr(left)


def sweep_a_day_later(store: DynamoDBStore, clock: ManualClock) -> None:
    clock.advance(hours=27)
    store.sweep()


@pytest.mark.parametrize("expires_in", [None, timedelta(days=30)], ids=["", "with a lifetime"])
@pytest.mark.parametrize("by", ["delete", "delete_owner"])
def test_after_a_deletion_no_content_is_left_and_a_day_later_no_item(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    by: str,
    expires_in: timedelta | None,
) -> None:
    store = open_store()
    start_conversations(store, expires_in=expires_in)
    if by == "delete":
        store.delete("trip")
    else:
        store.delete("other")
        assert store.delete_owner("bob") == 1
    assert has_no_content(client, table)
    assert all("expires_at" in item for item in items_of_trip(client, table))
    sweep_a_day_later(store, clock)
    assert items_of_trip(client, table) == []
    if by == "delete":
        assert texts_of(read_all(store, "other")) == ["stays", LONG]
        store.delete("other")
    sweep_a_day_later(store, clock)
    assert keys_of(client, table) == []


def test_an_expired_conversation_is_swept_a_day_later(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    store = open_store()
    start_conversations(store, expires_in=timedelta(hours=1))
    clock.advance(hours=2)
    assert snapshot_if_any(store, "trip") is None
    clock.advance(hours=28)
    assert store.sweep() >= 10
    assert items_of_trip(client, table) == []
    assert texts_of(read_all(store, "other")) == ["stays", LONG]


# Interrupted deletions ----------------------------------------------------------------------------


def interrupted_deletions(
    client: "DynamoDBClient", open_store: OpenStore, *, landed: bool
) -> Iterator[DynamoDBStore]:
    """Delete ``trip`` again and again, crashing one call later each time, until a deletion
    completes. Yields a store of another process after each.
    """
    for call in range(40):
        store = open_store()
        start_conversations(store)
        before = snapshot_if_any(store, "trip")
        completed = False
        with suppress(Crashed):
            open_store(crashing_client(client, call, landed=landed)).delete("trip")
            completed = True
        assert snapshot_if_any(store, "trip") in (None, before)
        yield store
        if completed:
            assert call > 8
            return
    pytest.fail("the deletion never completed")


@pytest.mark.parametrize("landed", [False, True], ids=["before the call", "after the call"])
def test_an_interrupted_deletion_is_finished_by_the_next_one(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, landed: bool
) -> None:
    for store in interrupted_deletions(client, open_store, landed=landed):
        with suppress(NotFound):
            store.delete("trip")
        assert snapshot_if_any(store, "trip") is None
        assert has_no_content(client, table)
        sweep_a_day_later(store, clock)
        assert items_of_trip(client, table) == []


@pytest.mark.parametrize("landed", [False, True], ids=["before the call", "after the call"])
def test_an_interrupted_deletion_is_finished_by_sweep(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, landed: bool
) -> None:
    for store in interrupted_deletions(client, open_store, landed=landed):
        if snapshot_if_any(store, "trip") is not None:
            store.sweep()
            assert snapshot_if_any(store, "trip") is not None
            store.delete("trip")
        store.sweep()
        assert has_no_content(client, table)
        sweep_a_day_later(store, clock)
        assert items_of_trip(client, table) == []


def test_a_new_conversation_after_an_interrupted_deletion_is_left_alone(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    for store in interrupted_deletions(client, open_store, landed=True):
        if snapshot_if_any(store, "trip") is None:
            store.append("trip", user_messages("anew"), owner="eve")
            for _ in range(2):
                sweep_a_day_later(store, clock)
                tail = store.tail("trip", 99, owner="eve")
                assert texts_of(tail.messages) == ["anew"]
                assert (tail.conversation.title, tail.conversation.message_count) == (None, 1)
                assert [listed.id for listed in store.list("eve").conversations] == ["trip"]
            assert SECRET not in repr(items_of_trip(client, table))
        store.delete("trip")
        sweep_a_day_later(store, clock)
        assert items_of_trip(client, table) == []


# Many conversations -------------------------------------------------------------------------------


def put_conversations(
    client: "DynamoDBClient",
    table: str,
    clock: ManualClock,
    ids: Iterable[str],
    *,
    messages: int = 1,
    expired: bool = False,
) -> None:
    """Put conversations that belong to bob, with ``messages`` messages each."""
    lifetime = milliseconds(timedelta(hours=1)) if expired else None
    at = clock() - timedelta(days=5) if expired else clock()
    new_messages = [Message.user(f"message {n}", created_at=at) for n in range(messages)]
    items: list[Any] = []
    for conversation_id in ids:
        records = logs.make_records(new_messages, owner="bob", created_at=at, lifetime=lifetime)
        items += logs.record_items(conversation_id, records)
        items.append(logs.head_item(conversation_id, records[-1]))
    put_items(client, table, items)


def test_an_interrupted_deletion_of_an_owners_many_conversations_can_be_repeated(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    put_conversations(client, table, clock, map(str, range(300)))
    store = open_store()
    store.append("eves", user_messages("stays"), owner="eve")
    with pytest.raises(Crashed):
        open_store(crashing_client(client, 900, landed=False)).delete_owner("bob")
    progress: list[int] = []
    again = store.delete_owner("bob", progress=progress.append)
    assert 100 < again < 200, "the conversations deleted before the crash stay deleted"
    assert progress == sorted(progress)
    assert len(progress) >= again / 100
    assert progress[-1] == again
    assert store.list("bob").conversations == []
    assert store.delete_owner("bob") == 0
    assert texts_of(read_all(store, "eves")) == ["stays"]
    assert [item["pk"]["S"] for item in items_of(client, table) if "b" in item] == ["c#eves"]


def test_a_sweep_of_ten_thousand_items_reports_progress_and_resumes_from_its_cursor(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    put_conversations(client, table, clock, map(str, range(40)), messages=224)
    put_conversations(
        client, table, clock, (f"old {n}" for n in range(20)), messages=49, expired=True
    )
    steps: list[SweepProgress] = []
    store = open_store()

    def stop(step: SweepProgress) -> None:
        steps.append(step)
        raise Crashed

    with pytest.raises(Crashed):
        store.sweep(progress=stop)
    [first] = steps
    assert 0 < first.examined < 9_000

    freed = store.sweep(progress=steps.append, cursor=first.cursor)
    examined = [step.examined for step in steps[1:]]
    assert examined == sorted(examined)
    assert (steps[-1].freed, steps[-1].cursor) == (freed, None)
    assert first.freed + freed == 20 * 50
    # The conversation at which it stopped is looked at once more.
    assert 10_000 <= first.examined + examined[-1] < 10_000 + 225
    assert len(keys_of(client, table)) == 40 * 225
    assert store.sweep() == 0


# Pace and memory ----------------------------------------------------------------------------------


def test_a_sweep_takes_at_most_the_given_units_per_second(
    dynamodb_local: DynamoDBLocal, table: str, clock: ManualClock
) -> None:
    with closing(dynamodb_local.client()) as client:
        put_conversations(client, table, clock, ["1", "2"], messages=50)
        put_conversations(client, table, clock, ["3"], messages=50, expired=True)
        meter = Meter(client)
        waits: list[float] = []
        plan = plans_on(table_with(clock, table)).sweep()

        def perform(call: Call) -> Any:
            return getattr(client, xform_name(call.operation))(**call.params)

        with meter.measured() as cost:
            assert run(paced(plan, 20), perform, waits.append) == 51
        assert sum(waits) == pytest.approx((cost.reads + cost.writes) / 20, rel=0.05)
        assert sum(waits) > 2


def peak_memory(plan: Plan[int], perform: Callable[[Call], Any]) -> int:
    """Run the plan and return the most memory (bytes) that it took at any time."""
    tracemalloc.start()
    try:
        run(plan, perform, lambda _: None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def reply_with_pages(items: Callable[[int], list[Any]], number: int) -> Callable[[Call], Any]:
    """Reply to a scan, or a query of the index, with ``number`` pages; other calls find nothing."""
    page = 0

    def perform(call: Call) -> Any:
        nonlocal page
        if call.operation not in ("Scan", "Query") or ":pk" in call.params.get(
            "ExpressionAttributeValues", {}
        ):
            return {"Items": []}
        page += 1
        if page > number:
            return {"Items": []}
        page_items = items(page)
        more = {"LastEvaluatedKey": page_items[-1]} if page < number else {}
        return {"Items": page_items} | more

    return perform


def test_the_memory_of_a_sweep_does_not_grow_with_the_table(clock: ManualClock) -> None:
    token = new_id()

    def items(page: int) -> list[Any]:
        return [
            {
                "pk": {"S": f"c#{page}-{n // 10}"},
                "sk": {"S": f"m#{n:016}"},
                "v": {"N": str(LAYOUT)},
                "k": {"S": token},
                "l": {"N": "1"},
                "c": {"N": "1"},
                "u": {"N": "1"},
            }
            for n in range(500)
        ]

    small, large = (
        peak_memory(plans_on(table_with(clock)).sweep(), reply_with_pages(items, number))
        for number in (4, 40)
    )
    assert large < small * 1.2


def test_the_memory_of_delete_owner_does_not_grow_with_the_number_of_conversations(
    clock: ManualClock,
) -> None:
    def items(page: int) -> list[Any]:
        records = logs.make_records([Message.user("1")], owner="bob", created_at=clock())
        return [logs.head_item(f"{page}-{n}", records[0]) for n in range(100)]

    small, large = (
        peak_memory(
            plans_on(table_with(clock)).delete_owner("bob"), reply_with_pages(items, number)
        )
        for number in (4, 40)
    )
    assert large < small * 1.2


def table_with(clock: ManualClock, name: str = "conversations") -> Table:
    return Table.of(name, expire_after=None, consistent=True, clock=clock)
