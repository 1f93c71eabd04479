"""What is deleted leaves nothing behind, wherever its deletion was broken off."""

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore import xform_name

from chatledger.errors import NotFound
from chatledger.messages import Message, now
from chatledger.stores.dynamodb import DynamoDBStore, plans
from chatledger.stores.dynamodb.calls import Call, Plan, paced, run
from chatledger.stores.dynamodb.plans import Swept
from chatledger.stores.dynamodb.table import Table, milliseconds, moment
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract.helpers import look, read_all, said, say
from tests.stores.dynamodb import logs
from tests.stores.dynamodb.clients import Died, dying_at
from tests.stores.dynamodb.conftest import OpenStore, SetClock
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.tables import items_of, keys_of, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SECRET = "a secret "
LONG = SECRET + "".join(map(chr, range(0x4E00, 0x9E00))) * 4
"""A text that lies in parts, since it does not fit into a record."""


@pytest.fixture
def clock() -> SetClock:
    clock = SetClock()
    clock.time = now()  # the age of parts is that of their token, which tells the real time
    return clock


def begin(store: DynamoDBStore, *, expires_in: timedelta | None = None) -> None:
    """A conversation that has every kind of item, ``trip``; and one that stays, ``other``."""
    store.append("other", say("stays", LONG), owner="bob", idempotency_key="request-7")
    store.create("trip", owner="bob", title=SECRET, metadata={"key": SECRET}, expires_in=expires_in)
    store.append("trip", say(SECRET, SECRET), idempotency_key="request-7")
    store.append("trip", say(SECRET))
    store.append("trip", say(SECRET, LONG))
    store.append("trip", say(SECRET, SECRET))
    store.pop("trip")
    store.replace("trip", 2, Message.user(SECRET * 2))
    store.append("trip", say(LONG))


def items_of_trip(client: "DynamoDBClient", table: str) -> list[Any]:
    return [item for item in items_of(client, table) if item["pk"]["S"] == "c#trip"]


def nothing_is_readable(client: "DynamoDBClient", table: str) -> bool:
    """Whether what is left of it says nothing of what it was."""
    left = items_of_trip(client, table)
    holding = [item for item in left if item.keys() & {"b", "i", "title", "metadata"}]
    return not holding and SECRET not in repr(left)


def a_day_later(store: DynamoDBStore, clock: SetClock) -> None:
    clock.advance(hours=27)
    store.sweep()


@pytest.mark.parametrize("expires_in", [None, timedelta(days=30)], ids=["", "with a lifetime"])
@pytest.mark.parametrize("by", ["delete", "delete_owner"])
def test_of_what_was_deleted_nothing_is_readable_and_a_day_later_nothing_is_left(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: SetClock,
    by: str,
    expires_in: timedelta | None,
) -> None:
    store = open_store()
    begin(store, expires_in=expires_in)
    if by == "delete":
        store.delete("trip")
    else:
        store.delete("other")
        assert store.delete_owner("bob") == 1
    assert nothing_is_readable(client, table)
    assert all("expires_at" in item for item in items_of_trip(client, table))
    a_day_later(store, clock)
    assert items_of_trip(client, table) == []
    if by == "delete":
        assert said(read_all(store, "other")) == ["stays", LONG]
        store.delete("other")
    a_day_later(store, clock)
    assert keys_of(client, table) == []


def test_what_expired_is_swept_a_day_later(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock
) -> None:
    store = open_store()
    begin(store, expires_in=timedelta(hours=1))
    clock.advance(hours=2)
    assert look(store, "trip") is None
    clock.advance(hours=28)
    assert store.sweep() >= 10
    assert items_of_trip(client, table) == []
    assert said(read_all(store, "other")) == ["stays", LONG]


# Broken off --------------------------------------------------------------------------------------


def broken_off(
    client: "DynamoDBClient", open_store: OpenStore, *, landed: bool
) -> Iterator[DynamoDBStore]:
    """Each time a conversation whose deletion has died one call later, and another store."""
    for call in range(40):
        store = open_store()
        begin(store)
        before = look(store, "trip")
        whole = False
        with suppress(Died):
            open_store(dying_at(client, call, landed=landed)).delete("trip")
            whole = True
        assert look(store, "trip") in (None, before)
        yield store
        if whole:
            assert call > 8
            return
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("landed", [False, True], ids=["before it arrives", "when it has landed"])
def test_a_deletion_broken_off_is_finished_by_another(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock, landed: bool
) -> None:
    for store in broken_off(client, open_store, landed=landed):
        with suppress(NotFound):
            store.delete("trip")
        assert look(store, "trip") is None
        assert nothing_is_readable(client, table)
        a_day_later(store, clock)
        assert items_of_trip(client, table) == []


@pytest.mark.parametrize("landed", [False, True], ids=["before it arrives", "when it has landed"])
def test_a_deletion_broken_off_is_finished_by_sweep(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock, landed: bool
) -> None:
    for store in broken_off(client, open_store, landed=landed):
        if look(store, "trip") is not None:
            store.sweep()
            assert look(store, "trip") is not None
            store.delete("trip")
        store.sweep()
        assert nothing_is_readable(client, table)
        a_day_later(store, clock)
        assert items_of_trip(client, table) == []


def test_a_new_life_behind_a_deletion_that_was_broken_off_is_left_alone(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock
) -> None:
    for store in broken_off(client, open_store, landed=True):
        if look(store, "trip") is None:
            store.append("trip", say("anew"), owner="eve")
            for _ in range(2):
                a_day_later(store, clock)
                tail = store.tail("trip", 99, owner="eve")
                assert said(tail.messages) == ["anew"]
                assert (tail.conversation.title, tail.conversation.message_count) == (None, 1)
                assert [found.id for found in store.list("eve").conversations] == ["trip"]
            assert SECRET not in repr(items_of_trip(client, table))
        store.delete("trip")
        a_day_later(store, clock)
        assert items_of_trip(client, table) == []


# Many --------------------------------------------------------------------------------------------


def put_conversations(
    client: "DynamoDBClient",
    table: str,
    clock: SetClock,
    ids: Iterable[str],
    *,
    messages: int = 1,
    expired: bool = False,
) -> None:
    """Conversations of bob's, with so many messages each."""
    expiry = milliseconds(clock() - moment(0) - timedelta(days=2)) if expired else None
    said = [Message.user(f"message {n}", created_at=clock()) for n in range(messages)]
    items: list[Any] = []
    for conversation_id in ids:
        made = logs.records(said, owner="bob", created_at=clock(), expiry=expiry)
        items += [*logs.items(conversation_id, made), logs.head(conversation_id, made[-1])]
    put_items(client, table, items)


def test_a_thousand_conversations_of_an_owner_are_deleted_though_it_is_broken_off(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock
) -> None:
    put_conversations(client, table, clock, map(str, range(1_000)))
    store = open_store()
    store.append("eves", say("stays"), owner="eve")
    with pytest.raises(Died):
        open_store(dying_at(client, 3_000, landed=False)).delete_owner("bob")
    seen: list[int] = []
    again = store.delete_owner("bob", progress=seen.append)
    assert 400 < again < 600, "what was deleted stays deleted"
    assert seen == sorted(seen)
    assert len(seen) >= again / 100
    assert seen[-1] == again
    assert store.list("bob").conversations == []
    assert store.delete_owner("bob") == 0
    assert said(read_all(store, "eves")) == ["stays"]
    assert [item["pk"]["S"] for item in items_of(client, table) if "b" in item] == ["c#eves"]


def test_a_table_of_ten_thousand_items_is_swept_step_by_step_and_goes_on_where_it_stopped(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock
) -> None:
    put_conversations(client, table, clock, map(str, range(40)), messages=224)
    put_conversations(
        client, table, clock, (f"old {n}" for n in range(20)), messages=49, expired=True
    )
    steps: list[Swept] = []
    store = open_store()

    def stop(step: Swept) -> None:
        steps.append(step)
        raise Died

    with pytest.raises(Died):
        store.sweep(progress=stop)
    [first] = steps
    assert 0 < first.looked_at < 9_000

    freed = store.sweep(progress=steps.append, cursor=first.cursor)
    looked_at = [step.looked_at for step in steps[1:]]
    assert looked_at == sorted(looked_at)
    assert (steps[-1].freed, steps[-1].cursor) == (freed, None)
    assert first.freed + freed == 20 * 50
    # What it stopped in the midst of is looked at once more.
    assert 10_000 <= first.looked_at + looked_at[-1] < 10_000 + 225
    assert len(keys_of(client, table)) == 40 * 225
    assert store.sweep() == 0


# At a pace, and in bounded memory ----------------------------------------------------------------


def test_a_sweep_takes_no_more_units_a_second_than_it_is_told(
    dynamodb_local: DynamoDBLocal, table: str, clock: SetClock
) -> None:
    with closing(dynamodb_local.client()) as client:
        put_conversations(client, table, clock, ["1", "2"], messages=50)
        put_conversations(client, table, clock, ["3"], messages=50, expired=True)
        meter = Meter(client)
        waits: list[float] = []
        plan = plans.sweep(by_clock(clock, table))

        def perform(call: Call) -> Any:
            return getattr(client, xform_name(call.operation))(**call.params)

        with meter.measured() as cost:
            assert run(paced(plan, 20), perform, waits.append) == 51
        assert sum(waits) == pytest.approx((cost.reads + cost.writes) / 20, rel=0.05)
        assert sum(waits) > 2


def peak_of(plan: Plan[int], perform: Callable[[Call], Any]) -> int:
    """The most memory (bytes) that the plan took at any time."""
    tracemalloc.start()
    try:
        run(plan, perform, lambda _: None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def pages(items: Callable[[int], list[Any]], number: int) -> Callable[[Call], Any]:
    """Answers so many pages of a scan or of the index, and finds nothing else."""
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
        found = items(page)
        return {"Items": found} | ({"LastEvaluatedKey": found[-1]} if page < number else {})

    return perform


def test_the_memory_of_a_sweep_does_not_grow_with_the_table(clock: SetClock) -> None:
    def items(page: int) -> list[Any]:
        return [
            {
                "pk": {"S": f"c#{page}-{n // 10}"},
                "sk": {"S": f"m#{n:016}"},
                "v": {"N": "1"},
                "l": {"N": "1"},
            }
            for n in range(500)
        ]

    few, many = (peak_of(plans.sweep(by_clock(clock)), pages(items, number)) for number in (4, 40))
    assert many < few * 1.2


def test_the_memory_of_deleting_an_owner_does_not_grow_with_what_he_has(clock: SetClock) -> None:
    def items(page: int) -> list[Any]:
        made = logs.records([Message.user("1")], owner="bob", created_at=clock())
        return [logs.head(f"{page}-{n}", made[0]) for n in range(100)]

    few, many = (
        peak_of(plans.delete_owner(by_clock(clock), "bob"), pages(items, number))
        for number in (4, 40)
    )
    assert many < few * 1.2


def by_clock(clock: SetClock, name: str = "conversations") -> Table:
    return Table.of(name, expire_after=None, consistent=True, clock=clock)
