"""Entries in the table: what they cost, late and lost calls, TTLs, forks, and what is freed."""

import tracemalloc
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.errors import AlreadyExists, Conflict, NotFound, StoreMismatch, StoreUnavailable
from chatledger.stores.dynamodb import DynamoDBStore, ttl
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.log import Log
from chatledger.stores.dynamodb.records import ENTRY_LAYOUT, Record
from chatledger.testing.store_contract.entries import OF, find_entry, new_place, read_entries
from chatledger.testing.store_contract.helpers import (
    foreign_conversation,
    messages_from,
    user_messages,
)
from chatledger.values import Json
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.faulty_clients import (
    Crashed,
    Params,
    client_with_hooks,
    crashing_client,
    lose_reply,
)
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.tables import items_of, put_items
from tests.stores.dynamodb.ttl_reaper import TTLReaper

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LARGE = "".join(map(chr, range(0x4E00, 0x9E00))) * 4
"""A text that does not fit into an item, so that it is stored in body parts."""


def entry_items(client: "DynamoDBClient", table: str) -> dict[str, Any]:
    """Return the items of entries, without tombstones, by name."""
    return {
        item["sk"]["S"].removeprefix("e#"): item
        for item in items_of(client, table)
        if item["sk"]["S"].startswith("e#") and "deleted" not in item
    }


def part_tokens(client: "DynamoDBClient", table: str) -> set[str]:
    """Return the tokens of all body parts."""
    sorts = [item["sk"]["S"] for item in items_of(client, table)]
    return {sort.split("#")[1] for sort in sorts if sort.startswith("b#")}


# Costs --------------------------------------------------------------------------------------------


@OF
def test_a_small_entry_costs_one_write_unit_and_at_most_two_read_units(
    client: "DynamoDBClient", open_store: OpenStore, of: str
) -> None:
    store, meter = open_store(), Meter(client)
    place = new_place(store, of)
    reads = 1 if of == "an owner" else 2  # an owner has no log end
    put = partial(store.put_entry, value={"summary": "x" * 500}, **place)

    def figures(call: Callable[[], object]) -> tuple[int, float, float]:
        with meter.measured() as cost:
            call()
        assert "TransactWriteItems" not in cost.operations
        return cost.figures

    for _ in range(2):
        assert figures(lambda: put(name="a")) == (reads + 1, 1, reads)
    revision = store.entry(name="a", **place).revision
    guarded = (1, 1, 0) if of == "an owner" else (3, 1, 2)
    assert figures(lambda: put(name="a", revision=revision)) == guarded
    assert figures(lambda: put(name="b", revision=0)) == guarded
    assert figures(lambda: store.entry(name="a", **place)) == (reads, 0, reads)
    assert figures(lambda: store.entries(**place)) == (reads, 0, reads)
    assert figures(lambda: store.delete_entry(name="a", **place)) == (reads + 1, 1, reads)


@OF
def test_a_list_makes_one_more_request_for_each_megabyte(
    client: "DynamoDBClient", open_store: OpenStore, of: str
) -> None:
    store, meter = open_store(), Meter(client)
    place = new_place(store, of)
    for number in range(60):
        store.put_entry(name=f"{number:03}", value=[number, LARGE[: 16 * 1024]], **place)
    with meter.measured() as cost:
        assert len(store.entries(**place).entries) == 60
    megabytes = cost.reads / 256
    assert megabytes > 1
    assert cost.figures[0] <= 2 + megabytes


def test_a_list_and_a_fork_keep_few_values_in_memory_that_compress_well(
    open_store: OpenStore,
) -> None:
    store = open_store()
    store.create("trip")
    size = 12 * 1024 * 1024
    for number in range(20):
        store.put_entry("trip", f"{number:02}", "x" * size)
    for use in (store.entries, store.fork):
        tracemalloc.start()
        try:
            use("trip")
            assert tracemalloc.get_traced_memory()[1] < 8 * size
        finally:
            tracemalloc.stop()


@OF
@pytest.mark.parametrize("limit", [1, 100])
def test_a_list_takes_few_requests_to_pass_many_deleted_entries(
    client: "DynamoDBClient", open_store: OpenStore, of: str, limit: int
) -> None:
    store, meter = open_store(), Meter(client)
    place = new_place(store, of)
    for number in range(200):
        store.put_entry(name=f"{number:03}", value=number, **place)
        store.delete_entry(name=f"{number:03}", **place)
    last = store.put_entry(name="last", value="last", **place)
    with meter.measured() as cost:
        assert list(store.entries(**place, limit=limit)) == [last]
    assert cost.figures[0] <= 10


def test_a_fork_and_a_deletion_cost_one_more_request_if_there_are_no_entries(
    client: "DynamoDBClient", open_store: OpenStore
) -> None:
    store, meter = open_store(), Meter(client)
    store.append("trip", user_messages("1"))

    def queries_of_entries(call: Callable[[], object]) -> int:
        queries = 0

        def count(operation: str, params: Params) -> None:
            nonlocal queries
            values = params.get("ExpressionAttributeValues", {})
            queries += operation == "query" and values[":low"]["S"].startswith("e#")

        store.run = open_store(client_with_hooks(client, before=count)).run  # type: ignore[method-assign]
        call()
        return queries

    assert queries_of_entries(lambda: store.fork("trip", new_id="copy")) == 1
    assert queries_of_entries(lambda: store.delete("trip")) == 1
    assert queries_of_entries(lambda: store.append("copy", user_messages("2"))) == 0
    with meter.measured() as cost:
        store.tail("copy")
    assert cost.figures == (1, 0, 1)


def test_an_entry_is_read_consistently_by_every_store(open_store: OpenStore) -> None:
    reads: list[bool] = []

    def record(operation: str, params: Params) -> None:
        if operation in ("query", "get_item"):
            reads.append(params["ConsistentRead"])

    writer = open_store()
    writer.append("trip", user_messages("1"))
    client = client_with_hooks(writer._calls._client, before=record)
    reader = open_store(client, consistent=False)
    for number in range(3):
        put = writer.put_entry("trip", "a", number)
        assert reader.entry("trip", "a") == put
        assert list(reader.entries("trip")) == [put]
    assert reads
    assert all(reads)


# Lost replies and late calls ----------------------------------------------------------------------


def losing_client(
    client: "DynamoDBClient", *, replies: int, landed: bool, then: Callable[[], object]
) -> "DynamoDBClient":
    """Return a client that loses the first replies to puts, and calls ``then`` after each."""
    left = replies

    def lose(operation: str, params: Params) -> None:
        nonlocal left
        if operation == "put_item" and left:
            left -= 1
            then()
            lose_reply()

    if landed:
        return client_with_hooks(client, after=lose)
    return client_with_hooks(client, before=lose)


@OF
@pytest.mark.parametrize("landed", [True, False], ids=["it landed", "it did not land"])
@pytest.mark.parametrize("guarded", [True, False], ids=["at a revision", ""])
@pytest.mark.parametrize("value", ["small", LARGE], ids=["small", "large"])
def test_a_write_whose_reply_is_lost_takes_effect_once(
    client: "DynamoDBClient",
    open_store: OpenStore,
    clock: ManualClock,
    of: str,
    landed: bool,
    guarded: bool,
    value: str,
) -> None:
    reliable = open_store()
    place = new_place(reliable, of)
    store = open_store(losing_client(client, replies=2, landed=landed, then=lambda: None))
    first = reliable.put_entry(name="a", value=LARGE, **place)
    revision = first.revision if guarded else None
    put = store.put_entry(name="a", value=value, revision=revision, **place)
    assert put.revision == first.revision + 1
    assert reliable.entry(name="a", **place) == put
    store = open_store(losing_client(client, replies=1, landed=landed, then=lambda: None))
    revision = put.revision if guarded else None
    store.delete_entry(name="a", revision=revision, **place)
    assert find_entry(reliable, "a", **place) is None
    clock.advance(seconds=1)
    store = open_store(losing_client(client, replies=1, landed=landed, then=lambda: None))
    again = store.put_entry(name="a", value=value, revision=0 if guarded else None, **place)
    assert again.revision > put.revision
    assert read_entries(reliable, **place) == [again]


@OF
def test_a_lost_reply_that_a_rival_has_followed_leaves_the_outcome_unknown(
    client: "DynamoDBClient", open_store: OpenStore, of: str
) -> None:
    rival = open_store()
    place = new_place(rival, of)
    rival.put_entry(name="a", value=0, **place)
    changes: list[Callable[..., object]] = [
        partial(rival.put_entry, value="rival"),
        rival.delete_entry,
    ]
    for change in changes:
        follow = partial(change, name="a", **place)
        store = open_store(losing_client(client, replies=1, landed=True, then=follow))
        with pytest.raises(StoreUnavailable) as raised:
            store.put_entry(name="a", value="ours", **place)
        assert raised.value.may_have_landed
        entry = find_entry(rival, "a", **place)
        assert entry is None or entry.value == "rival"


@OF
@pytest.mark.parametrize("there", ["an entry", "no entry", "a deleted entry"])
@pytest.mark.parametrize("then", ["another put", "a deletion", "the end", "the end and another"])
def test_a_put_that_arrives_late_overwrites_nothing(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    of: str,
    there: str,
    then: str,
) -> None:
    """The first attempt times out, the second one succeeds, and an hour later the first arrives."""
    late: list[Params] = []
    rival = open_store()
    place = new_place(rival, of)
    if there != "no entry":
        rival.put_entry(name="a", value="old", **place)
    if there == "a deleted entry":
        rival.delete_entry(name="a", **place)

    def hold(operation: str, params: Params) -> None:
        if operation == "put_item" and not late:
            late.append(params)
            lose_reply()

    put = open_store(client_with_hooks(client, before=hold)).put_entry(
        name="a", value="late", **place
    )
    assert rival.entry(name="a", **place) == put
    match then:
        case "another put":
            rival.put_entry(name="a", value="new", **place)
        case "a deletion":
            rival.delete_entry(name="a", **place)
        case _ if of == "an owner":
            rival.delete_owner(place["owner"])
        case _:
            rival.delete(place["conversation_id"])
    if then == "the end and another":
        if of == "a conversation":
            rival.create(place["conversation_id"])
        rival.put_entry(name="a", value="new", **place)
    clock.advance(hours=1)
    before = items_of(client, table)
    with pytest.raises(client.exceptions.ConditionalCheckFailedException):
        client.put_item(**late[0])
    assert items_of(client, table) == before


def test_a_refused_put_that_arrives_after_the_deletion_of_its_owner_does_nothing(
    client: "DynamoDBClient", open_store: OpenStore, clock: ManualClock
) -> None:
    """It was to be the first put, and no attempt has read the old entry that was there."""
    late: list[Params] = []
    store = open_store()
    store.put_entry(None, "a", "old", owner="bob")
    clock.advance(hours=4)

    def hold(operation: str, params: Params) -> None:
        if operation == "put_item" and not late:
            late.append(params)
            lose_reply()

    with pytest.raises(Conflict):
        open_store(client_with_hooks(client, before=hold)).put_entry(
            None, "a", "late", revision=0, owner="bob"
        )
    store.delete_owner("bob")
    with pytest.raises(client.exceptions.ConditionalCheckFailedException):
        client.put_item(**late[0])
    assert read_entries(store, conversation_id=None, owner="bob") == []


def test_a_put_during_the_deletion_of_its_conversation_is_not_seen_afterwards(
    client: "DynamoDBClient", open_store: OpenStore
) -> None:
    """The next conversation with the id began, and has the entry, before the put arrives."""
    rival = open_store()
    rival.append("trip", user_messages("1"))
    rival.put_entry("trip", "a", "old")

    def begin_anew(operation: str, params: Params) -> None:
        if operation == "put_item" and not rivals:
            rival.delete("trip")
            rival.append("trip", user_messages("new"))
            rivals.append(rival.put_entry("trip", "a", "new"))

    rivals: list[object] = []
    store = open_store(client_with_hooks(client, before=begin_anew))
    put = store.put_entry("trip", "a", "late")
    # It found the new conversation, and put the entry there.
    assert rival.entry("trip", "a") == put
    store = open_store(client_with_hooks(client, before=begin_anew))
    rivals.clear()
    with pytest.raises(Conflict):
        store.put_entry("trip", "a", "late", revision=put.revision)
    assert [rival.entry("trip", "a")] == rivals


# TTLs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifetime", [HOUR, 3 * DAY, 30 * DAY], ids=["1h", "3d", "30d"])
@pytest.mark.parametrize("gap", [0.35, 0.99])
@pytest.mark.parametrize("count", [3, 130], ids=["few", "many"])
def test_a_live_conversation_loses_no_entry_and_each_is_renewed_once_a_lifetime(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    lifetime: timedelta,
    gap: float,
    count: int,
) -> None:
    reaper = TTLReaper(client, table, clock)
    renewals: Counter[str] = Counter()

    def record(operation: str, params: Params) -> None:
        if operation == "update_item" and params["Key"]["sk"]["S"][:2] in ("e#", "b#"):
            renewals[params["Key"]["sk"]["S"]] += 1

    store = open_store(client_with_hooks(client, before=record), expire_after=lifetime)
    store.append("trip", user_messages("1"))
    for number in range(count):
        store.put_entry("trip", f"{number}", number)
    store.put_entry("trip", "large", LARGE)
    store.put_entry("trip", "own life", 1, expires_in=10_000 * DAY)
    expected = read_entries(store, conversation_id="trip")
    lifetimes = 6
    for number in range(int(lifetimes / gap)):
        clock.advance(seconds=gap * lifetime.total_seconds())
        reaper.delete_all()
        store.append("trip", user_messages("more"), reply_follows=True)
        # One that is put while a renewal is under way.
        later = store.put_entry("trip", "later", number)
    reaper.delete_all()
    assert sorted([*expected, later], key=lambda entry: entry.name) == read_entries(
        store, conversation_id="trip"
    )
    assert max(renewals.values(), default=0) <= lifetimes
    if lifetime >= 3 * DAY:
        assert renewals, "otherwise TTL would have deleted the entries"
    clock.advance(days=10_000 * 2)
    reaper.delete_all()
    assert items_of(client, table) == []


def test_entries_that_an_earlier_version_left_out_of_a_renewal_are_renewed_by_the_next_append(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reaper, store = TTLReaper(client, table, clock), open_store(expire_after=DAY)
    store.append("trip", user_messages("1"))
    put = store.put_entry("trip", "a", LARGE)

    def append(*, after_hours: float = 12) -> None:
        clock.advance(hours=after_hours)
        reaper.delete_all()
        store.append("trip", user_messages("more"), reply_follows=True)

    def renew_no_entries(log: Log, last: Record, *, needed: int, due: int) -> Plan[Record]:
        return last
        yield

    with monkeypatch.context() as earlier:
        earlier.setattr(ttl, "_renew_entries", renew_no_entries)
        for _ in range(6):
            append()
    append(after_hours=0)
    for _ in range(10):
        append()
        assert store.entry("trip", "a") == put


def test_a_renewal_without_entries_costs_one_query(
    client: "DynamoDBClient", open_store: OpenStore, clock: ManualClock
) -> None:
    queries = 0

    def count(operation: str, params: Params) -> None:
        nonlocal queries
        values = params.get("ExpressionAttributeValues", {})
        queries += operation == "query" and values[":low"]["S"].startswith("e#")

    store = open_store(client_with_hooks(client, before=count), expire_after=30 * DAY)
    for _ in range(6 * 10):
        store.append("trip", user_messages("1"))
        clock.advance(days=3)
    assert 3 <= queries <= 6


def test_entries_that_do_not_expire_have_no_ttl(
    client: "DynamoDBClient", table: str, open_store: OpenStore
) -> None:
    store = open_store()
    store.append("trip", user_messages("1"))
    for place in ({"conversation_id": "trip"}, {"conversation_id": None, "owner": "bob"}):
        store.put_entry(name="a", value=LARGE, **place)
        store.put_entry(name="a", value=1, expires_in=HOUR, **place)
        store.put_entry(name="a", value=LARGE, **place)
    items = items_of(client, table)
    assert not any("expires_at" in item for item in items)
    store.delete_entry(None, "a", owner="bob")
    store.delete_entry("trip", "a")
    tombstones = [item for item in items_of(client, table) if "deleted" in item]
    assert len(tombstones) == 2
    assert all("expires_at" in item and "b" not in item for item in tombstones)
    assert part_tokens(client, table) == set()


def test_an_entry_that_expired_keeps_off_late_writes_for_a_day(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    store, reaper = open_store(), TTLReaper(client, table, clock)
    store.put_entry(None, "a", 1, owner="bob", expires_in=HOUR)
    clock.advance(hours=25)
    assert not reaper.delete_one()
    assert find_entry(store, "a", conversation_id=None, owner="bob") is None
    clock.advance(hours=2)
    assert reaper.delete_one()
    assert items_of(client, table) == []


def test_a_put_that_was_frozen_for_a_day_names_no_parts_that_ttl_deletes_early(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """Meanwhile the conversation lives on, and its other entries are renewed."""
    reaper, store = TTLReaper(client, table, clock), open_store(expire_after=HOUR)
    store.append("trip", user_messages("1"))
    frozen = False

    def live_on(hours: float) -> None:
        for _ in range(int(hours * 2)):
            clock.advance(minutes=30)
            store.append("trip", user_messages("more"), reply_follows=True)

    def freeze(operation: str, params: Params) -> None:
        nonlocal frozen
        if operation == "batch_write_item" and not frozen:
            frozen = True
            live_on(hours=23.5)

    put = open_store(client_with_hooks(client, after=freeze)).put_entry("trip", "a", LARGE)
    assert frozen
    for _ in range(30):
        live_on(hours=1)
        reaper.delete_all()
        assert store.entry("trip", "a") == put
    assert len(part_tokens(client, table)) == 1


def test_an_entry_that_ttl_left_is_not_taken_for_one_of_a_restored_conversation(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """Both began at position 1 with the same creation time, and TTL deletes in any order."""
    store, reaper = open_store(), TTLReaper(client, table, clock)
    given = foreign_conversation(
        1, id="trip", created_at=clock(), updated_at=clock(), expires_at=clock() + HOUR
    )
    store.restore(given, messages_from(1, "1"), revision=0)
    store.put_entry("trip", "a", LARGE)
    [left] = entry_items(client, table).values()
    clock.advance(days=400)
    reaper.delete_all()
    put_items(client, table, [left])
    again = foreign_conversation(1, id="trip", created_at=given.created_at)
    store.restore(again, messages_from(1, "1"), revision=0)
    assert list(store.entries("trip")) == []
    assert store.put_entry("trip", "a", 1, revision=0).value == 1


# Forks --------------------------------------------------------------------------------------------

ENTRIES: dict[str, Json] = {"a": 1, "b": "two", "large": LARGE}


def started_with_entries(store: DynamoDBStore) -> None:
    store.append("trip", user_messages("1", "2"), owner="bob")
    for name, value in ENTRIES.items():
        store.put_entry("trip", name, value)


def values_of(store: DynamoDBStore, conversation_id: str) -> dict[str, Any]:
    return {entry.name: entry.value for entry in store.entries(conversation_id)}


@pytest.mark.parametrize("landed", [True, False], ids=["landed", "not sent"])
def test_a_fork_that_dies_at_any_call_is_visible_with_all_entries_or_not_at_all(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, landed: bool
) -> None:
    outcomes = set()
    reader = open_store()
    started_with_entries(reader)
    for call in range(40):
        copy = f"copy {call}"
        try:
            open_store(crashing_client(client, call, landed=landed)).fork("trip", new_id=copy)
            break
        except Crashed:
            pass
        if is_there := find_entry(reader, "a", conversation_id=copy) is not None:
            assert values_of(reader, copy) == ENTRIES
        else:
            with pytest.raises(NotFound):
                reader.get(copy)
            # A new conversation has none of the copies, and another fork has its own.
            reader.create(copy)
            assert values_of(reader, copy) == {}
            reader.delete(copy)
            reader.fork("trip", new_id=copy)
            assert values_of(reader, copy) == ENTRIES
        outcomes.add(is_there)
    else:
        raise AssertionError("the fork makes more calls")
    assert outcomes == {True, False}
    for hours in (26, 52):
        clock.advance(hours=hours)
        reader.sweep()
    assert values_of(reader, "trip") == ENTRIES
    owned = [found.id for found in reader.iter_conversations("bob")]
    for copy in owned:
        assert values_of(reader, copy) == ENTRIES
    named = {item["y"]["S"] for item in items_of(client, table) if "y" in item}
    assert part_tokens(client, table) == named


def test_the_copies_of_a_fork_that_lost_the_race_are_not_seen_in_the_winner(
    client: "DynamoDBClient", open_store: OpenStore
) -> None:
    """Both begin at the same position in the same millisecond."""
    rival = open_store()
    started_with_entries(rival)
    seen: list[dict[str, Any]] = []

    def begin_first(operation: str, params: Params) -> None:
        is_record = operation == "put_item" and params["Item"]["sk"]["S"].startswith("m#")
        if is_record and not seen:
            rival.create("copy")
            seen.append(values_of(rival, "copy"))

    store = open_store(client_with_hooks(client, before=begin_first))
    with pytest.raises(AlreadyExists):
        store.fork("trip", new_id="copy")
    assert seen == [{}]
    assert values_of(rival, "copy") == {}
    assert rival.put_entry("copy", "a", "own", revision=0).value == "own"


def test_a_fork_takes_nothing_from_another_that_is_about_to_begin_the_same_conversation(
    client: "DynamoDBClient", open_store: OpenStore, clock: ManualClock
) -> None:
    """The rival's clock is some seconds ahead, so it takes the first fork to be dead."""
    started_with_entries(open_store())
    outcomes: list[object] = []

    def fork_first(operation: str, params: Params) -> None:
        is_record = operation == "put_item" and params["Item"]["sk"]["S"].startswith("m#")
        if is_record and not outcomes:
            outcomes.append(None)
            ahead = open_store(clock=lambda: clock() + timedelta(seconds=30))
            outcomes[0] = ahead.fork("trip", new_id="copy").id

    store = open_store(client_with_hooks(client, before=fork_first))
    with pytest.raises(AlreadyExists):
        store.fork("trip", new_id="copy")
    assert outcomes == ["copy"]
    assert values_of(store, "copy") == ENTRIES


# What is freed ------------------------------------------------------------------------------------


@OF
def test_the_parts_of_a_value_are_freed_with_it(
    client: "DynamoDBClient", table: str, open_store: OpenStore, of: str
) -> None:
    store = open_store()
    place = new_place(store, of)
    for _ in range(3):
        store.put_entry(name="a", value=LARGE, **place)
        assert len(part_tokens(client, table)) == 1
    revision = store.entry(name="a", **place).revision
    for refused in (1, revision + 1):
        with pytest.raises(Conflict):
            store.put_entry(name="a", value=LARGE, revision=refused, **place)
    assert len(part_tokens(client, table)) == 1
    store.put_entry(name="a", value=LARGE, revision=revision, **place)
    assert len(part_tokens(client, table)) == 1
    store.put_entry(name="a", value="small", **place)
    assert part_tokens(client, table) == set()


@pytest.mark.parametrize("cleanup", [2.0, 0.0], ids=["at once", "by a sweep"])
def test_nothing_is_left_of_the_entries_of_what_was_deleted(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, cleanup: float
) -> None:
    store = open_store(cleanup=cleanup)
    store.append("trip", user_messages("1"), owner="bob")
    for number in range(30):
        store.put_entry("trip", f"{number}", number)
        store.put_entry(None, f"{number}", number, owner="bob")
    store.put_entry("trip", "large", LARGE)
    store.put_entry(None, "large", LARGE, owner="bob")
    assert store.delete_owner("bob") == 1
    if cleanup:
        assert entry_items(client, table) == {}
    for _ in range(2):
        clock.advance(hours=27)
        store.sweep()
    assert items_of(client, table) == []


@OF
@pytest.mark.parametrize("landed", [True, False], ids=["landed", "not sent"])
def test_a_sweep_frees_what_a_put_left_that_died_and_no_value_that_is_named(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    of: str,
    landed: bool,
) -> None:
    reader = open_store()
    place = new_place(reader, of)
    expected: dict[str, Any] = {}
    for call in range(20):
        name = f"{call}"
        old = reader.put_entry(name=name, value=[LARGE], **place)
        try:
            store = open_store(crashing_client(client, call, landed=landed))
            store.put_entry(name=name, value=LARGE, **place)
            break
        except Crashed:
            pass
        entry = reader.entry(name=name, **place)
        assert entry.value == LARGE or entry == old
        expected[name] = entry
    assert len(expected) > 3
    clock.advance(hours=27)
    assert reader.sweep() > 0
    for name, entry in expected.items():
        assert reader.entry(name=name, **place) == entry
    named = {item["y"]["S"] for item in items_of(client, table) if "y" in item}
    assert part_tokens(client, table) == named
    assert reader.sweep() == 0


def test_a_sweep_frees_the_entries_of_an_earlier_conversation(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    store = open_store(cleanup=0)
    store.append("trip", user_messages("1"))
    store.put_entry("trip", "a", LARGE)
    store.put_entry("trip", "b", 1)
    store.delete("trip")
    store.append("trip", user_messages("2"))
    new = store.put_entry("trip", "b", "new")
    clock.advance(hours=4)
    assert store.sweep() > 0
    assert list(entry_items(client, table)) == ["b"]
    assert part_tokens(client, table) == set()
    assert store.entry("trip", "b") == new


def test_a_sweep_of_forks_with_entries_takes_no_further_request(
    client: "DynamoDBClient", open_store: OpenStore
) -> None:
    store, meter = open_store(), Meter(client)
    started_with_entries(store)
    for _ in range(5):
        store.fork("trip")
    with meter.measured() as cost:
        assert store.sweep() == 0
    assert set(cost.operations) == {"Scan"}


def test_a_missing_part_is_reported(
    client: "DynamoDBClient", table: str, open_store: OpenStore
) -> None:
    store = open_store()
    store.append("trip", user_messages("1"))
    store.put_entry("trip", "a", LARGE)
    [part] = [item for item in items_of(client, table) if item["sk"]["S"].startswith("b#")]
    client.delete_item(TableName=table, Key={"pk": part["pk"], "sk": part["sk"]})
    reads: list[Callable[[], object]] = [
        lambda: store.entry("trip", "a"),
        lambda: store.entries("trip"),
        lambda: store.fork("trip"),
    ]
    for read in reads:
        with pytest.raises(StoreMismatch, match="'a' of conversation 'trip' is missing"):
            read()
    store.put_entry("trip", "a", "whole again")
    assert store.entry("trip", "a").value == "whole again"


# Layouts ------------------------------------------------------------------------------------------


def test_an_earlier_version_refuses_to_sweep_entries_whose_parts_it_would_delete(
    client: "DynamoDBClient", table: str, open_store: OpenStore
) -> None:
    store = open_store()
    store.append("trip", user_messages("1"))
    store.put_entry("trip", "a", LARGE)
    # Versions without entries refuse every item of a layout above 2, and only sweeps read entries.
    layouts = {item["sk"]["S"][:2]: item["v"]["N"] for item in items_of(client, table)}
    assert layouts == {"e#": "3", "b#": "2", "m#": "2", "~h": "2"}


def test_an_earlier_version_refuses_a_fork_whose_copies_its_records_would_not_name(
    client: "DynamoDBClient", table: str, open_store: OpenStore
) -> None:
    store = open_store()
    started_with_entries(store)
    store.create("plain")
    for id in ("trip", "plain"):
        store.fork(id, new_id=f"copy of {id}")
        store.append(f"copy of {id}", user_messages("3"))
    layouts = {
        (item["pk"]["S"], item["v"]["N"])
        for item in items_of(client, table)
        if item["sk"]["S"].startswith("m#")
    }
    others = {(f"c#{id}", "2") for id in ("trip", "plain", "copy of plain")}
    assert layouts == {("c#copy of trip", "3"), *others}
    assert values_of(store, "copy of trip") == ENTRIES


def test_an_entry_of_a_later_version_is_refused(
    client: "DynamoDBClient", table: str, open_store: OpenStore
) -> None:
    store = open_store()
    store.append("trip", user_messages("1"))
    store.put_entry("trip", "a", 1)
    [item] = entry_items(client, table).values()
    put_items(client, table, [item | {"v": {"N": str(ENTRY_LAYOUT + 1)}}])
    uses: list[Callable[[], object]] = [
        lambda: store.entry("trip", "a"),
        lambda: store.entries("trip"),
        lambda: store.put_entry("trip", "a", 2),
        lambda: store.delete_entry("trip", "a"),
        store.sweep,
    ]
    for use in uses:
        with pytest.raises(StoreMismatch, match="Upgrade Chatledger"):
            use()
    assert isinstance(store.get("trip").revision, int)


def test_a_scan_continues_after_any_number_of_owners_with_entries(open_store: OpenStore) -> None:
    store = open_store()
    ids = {store.create(f"trip {number}").id for number in range(12)}
    for number in range(30):
        for name in "abc":
            store.put_entry(None, name, LARGE[:60_000], owner=f"owner {number}")
    for limit in (1, 2, 5):
        found: list[str] = []
        cursor = None
        while True:
            listing = store.scan(limit=limit, cursor=cursor)
            found += [conversation.id for conversation in listing]
            cursor = listing.cursor
            if cursor is None:
                break
        assert sorted(found) == sorted(ids)
