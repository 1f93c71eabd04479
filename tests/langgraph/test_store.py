"""``ChatledgerStore``: items, times, TTLs, rivals, costs, bad input, and LangGraph's runtime."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from langgraph.config import get_store
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)
from typing_extensions import TypedDict

from chatledger import AsyncStore, NotFound, Store, open_store
from chatledger.errors import InvalidArgument
from chatledger.langgraph.store import GUARDED_PUTS, PAGE_SIZE, ChatledgerStore
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.values import new_id
from tests.langgraph.memory import WatchedStore, embed, memory_of
from tests.stores.dynamodb.conftest import ManualClock
from tests.stores.dynamodb.meter import Meter

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

USER = ("users", "ann")


def keys_in(memory: ChatledgerStore, *namespace: str, **options: Any) -> list[str]:
    options = {"refresh_ttl": False, "limit": 1_000} | options
    return [item.key for item in memory.search(namespace, **options)]


def value_of(memory: ChatledgerStore, key: str) -> dict[str, Any] | None:
    item = memory.get(USER, key, refresh_ttl=False)
    return None if item is None else item.value


# Items --------------------------------------------------------------------------------------------


def test_a_put_keeps_when_the_item_was_created(entry_store: Store, clock: ManualClock) -> None:
    memory, created_at = memory_of(entry_store), clock()
    for number in range(3):
        memory.put(USER, "city", {"number": number})
        item = memory.get(USER, "city")
        assert item is not None
        assert item.value == {"number": number}
        assert (item.created_at, item.updated_at) == (created_at, clock())
        clock.advance(hours=1)
    memory.delete(USER, "city")
    memory.put(USER, "city", {})
    again = memory.get(USER, "city")
    assert again is not None
    assert again.created_at == clock()


def test_values_come_back_equal_and_of_the_same_types(entry_store: Store) -> None:
    memory = memory_of(entry_store)
    value = {
        "": None,
        "value": {"created_at": 1.0, "ttl": 10**80},
        "list": [True, 1, 1.5, "\0", [], {}],
    }
    memory.put(USER, "k", value)
    assert repr(value_of(memory, "k")) == repr(value)


def test_a_namespace_ends_at_a_label(entry_store: Store) -> None:
    memory = memory_of(entry_store)
    for namespace in [("a",), ("a", "b"), ("ab",), ("A",), ("b", "a")]:
        memory.put(namespace, "/".join(namespace), {})
    assert keys_in(memory, "a") == ["a", "a/b"]
    assert keys_in(memory, "a", "b") == ["a/b"]
    assert keys_in(memory) == ["A", "a", "a/b", "ab", "b/a"]
    assert memory.list_namespaces(prefix=("a",)) == [("a",), ("a", "b")]
    assert memory.list_namespaces(suffix=("a",)) == [("a",), ("b", "a")]
    assert memory.list_namespaces(prefix=("*", "b")) == [("a", "b")]
    assert memory.list_namespaces(max_depth=1) == [("A",), ("a",), ("ab",), ("b",)]


def test_other_entries_of_the_owner_are_no_items_and_stay(entry_store: Store) -> None:
    owner = new_id()
    memory = ChatledgerStore(entry_store, owner=owner)
    for name in ("a", "langgraph", "langgraph2", "\0"):
        entry_store.put_entry(None, name, "not an item", owner=owner)
    memory.put(("a",), "k", {})
    assert keys_in(memory) == ["k"]
    assert memory.list_namespaces() == [("a",)]
    memory.delete(("a",), "k")
    assert len(entry_store.entries(None, owner=owner).entries) == 4


def test_each_owner_has_items_of_its_own_which_end_with_it(entry_store: Store) -> None:
    ann, bob = memory_of(entry_store), memory_of(entry_store)
    ann.put(USER, "k", {"of": "ann"})
    assert bob.get(USER, "k") is None
    bob.put(USER, "k", {"of": "bob"})
    entry_store.delete_owner(ann.owner)
    assert ann.search(()) == []
    assert ann.list_namespaces() == []
    assert value_of(bob, "k") == {"of": "bob"}


def test_all_pages_of_a_search_together_are_all_items(entry_store: Store) -> None:
    memory = memory_of(entry_store)
    expected = [f"{number:03}" for number in range(250)]
    memory.batch([PutOp(USER, key, {"n": int(key) % 3}) for key in expected])
    pages = [keys_in(memory, "users", limit=40, offset=offset) for offset in range(0, 280, 40)]
    assert [key for page in pages for key in page] == expected
    assert keys_in(memory, "users", filter={"n": 2}, limit=5, offset=70) == expected[212:225:3]


# Batches ------------------------------------------------------------------------------------------


def test_a_batch_reads_before_it_puts(entry_store: Store) -> None:
    memory = memory_of(entry_store)
    memory.put(USER, "old", {})
    ops: list[Op] = [
        PutOp(USER, "new", {}),
        PutOp(USER, "old", None),
        GetOp(USER, "new"),
        SearchOp(("users",)),
        ListNamespacesOp(),
    ]
    results = cast(list[Any], memory.batch(ops))
    assert results[:3] == [None, None, None]
    assert [item.key for item in results[3]] == ["old"]
    assert results[4] == [USER]
    assert keys_in(memory) == ["new"]


def test_the_last_put_of_an_item_in_a_batch_counts(entry_store: Store) -> None:
    memory = memory_of(WatchedStore(entry_store))
    ops = [PutOp(USER, "a", {"n": n}) for n in range(3)]
    memory.batch([*ops, PutOp(USER, "b", {}), PutOp(USER, "b", None), PutOp(USER, "c", None)])
    assert value_of(memory, "a") == {"n": 2}
    assert keys_in(memory) == ["a"]
    assert cast(WatchedStore, memory.store).operations.count("PutEntry") == 1


# Costs --------------------------------------------------------------------------------------------


def test_a_put_takes_one_read_and_one_write(entry_store: Store) -> None:
    store = WatchedStore(entry_store)
    memory = memory_of(store)
    for _ in range(2):
        memory.put(USER, "k", {})
        assert store.operations == ["GetEntry", "PutEntry"]
        store.operations.clear()
    memory.get(USER, "k")
    memory.search(("users",))
    memory.delete(USER, "k")
    assert store.operations == ["GetEntry", "ListEntries", "DeleteEntry"]


def test_on_dynamodb_a_put_costs_one_write_unit_a_kilobyte_and_one_read(
    client: "DynamoDBClient", log_table: str
) -> None:
    store, meter = DynamoDBStore(client, log_table), Meter(client)
    memory = memory_of(store)

    def figures(call: Callable[[], object]) -> tuple[int, float, float]:
        with meter.measured() as cost:
            call()
        return cost.figures

    value = {"text": "x" * 500}
    for _ in range(2):
        assert figures(partial(memory.put, USER, "k", value, ttl=10)) == (2, 1, 1)
    assert figures(partial(memory.get, USER, "k", refresh_ttl=False)) == (1, 0, 1)
    assert figures(partial(memory.search, USER, refresh_ttl=False)) == (1, 0, 1)
    assert figures(partial(memory.get, USER, "k")) == (2, 1, 1)
    assert figures(partial(memory.delete, USER, "k")) == (2, 1, 1)
    assert figures(memory.list_namespaces) == (1, 0, 1)
    dims = 1_536
    memory = memory_of(store, index={"dims": dims, "embed": partial(embed, dims=dims)})
    assert figures(partial(memory.put, USER, "k", value)) == (2, 7, 1)  # 4 bytes a dimension
    assert figures(partial(memory.search, USER, query="x")) == (1, 0, 2)


def test_a_search_reads_no_more_than_it_needs(entry_store: Store) -> None:
    store = WatchedStore(entry_store)
    memory = memory_of(store)
    memory.batch([PutOp(USER, f"{number:03}", {"n": number}) for number in range(200)])
    store.operations.clear()
    assert len(memory.search(("users",), limit=10, offset=20)) == 10
    assert store.operations == ["ListEntries"]
    store.operations.clear()
    assert keys_in(memory, filter={"n": {"$gte": 100}}, limit=2) == ["100", "101"]
    assert len(store.operations) <= 7  # 2 items, then 4, 8, and so on


def test_namespaces_are_listed_without_reading_all_their_items(entry_store: Store) -> None:
    store = WatchedStore(entry_store)
    memory = memory_of(store)
    large, small = ("a", "large"), [("a", f"{number:02}") for number in range(20)]
    memory.batch([PutOp(large, f"{number}", {}) for number in range(5 * PAGE_SIZE)])
    memory.batch([PutOp(namespace, "k", {}) for namespace in [*small, ("b",), (*large, "x")]])
    store.operations.clear()
    assert memory.list_namespaces() == [*small, large, (*large, "x"), ("b",)]
    assert store.operations == ["ListEntries"] * 2
    store.operations.clear()
    conditions = (MatchCondition("prefix", ("b",)), MatchCondition("prefix", ("*",)))
    assert memory.batch([ListNamespacesOp(conditions)]) == [[("b",)]]
    assert store.operations == ["ListEntries"]


# TTL ----------------------------------------------------------------------------------------------


def test_an_item_with_a_ttl_is_gone_from_that_moment_on(
    entry_store: Store, clock: ManualClock
) -> None:
    memory = memory_of(entry_store)
    memory.put(USER, "k", {}, ttl=1.5)
    memory.put(USER, "stays", {})
    clock.advance(seconds=89.999)
    assert keys_in(memory) == ["k", "stays"]
    clock.advance(milliseconds=1)
    assert keys_in(memory) == ["stays"]
    assert memory.get(USER, "k") is None
    assert memory.list_namespaces() == [USER]
    memory.put(USER, "k", {})
    again = memory.get(USER, "k")
    assert again is not None
    assert again.created_at == clock()


@pytest.mark.parametrize("read", [GetOp(USER, "k"), SearchOp(("users",))])
def test_reads_refresh_a_ttl_unless_told_not_to(
    entry_store: Store, clock: ManualClock, read: GetOp | SearchOp
) -> None:
    memory, put_at = memory_of(entry_store), clock()
    memory.put(USER, "k", {"n": 1}, ttl=10)
    for _ in range(3):
        clock.advance(minutes=9)
        memory.batch([read])
    item = memory.get(USER, "k", refresh_ttl=False)
    assert item is not None
    assert (item.value, item.created_at, item.updated_at) == ({"n": 1}, put_at, put_at)
    clock.advance(minutes=9)
    memory.batch([read._replace(refresh_ttl=False)])
    clock.advance(minutes=1)
    assert value_of(memory, "k") is None


def test_a_search_refreshes_only_what_it_returns(entry_store: Store, clock: ManualClock) -> None:
    memory = memory_of(entry_store)
    memory.batch([PutOp(USER, key, {"n": n}, ttl=10) for n, key in enumerate("abcd")])
    clock.advance(minutes=9)
    memory.search(("users",), limit=1, offset=1)
    memory.search(("users",), filter={"n": 3})
    clock.advance(minutes=9)
    assert keys_in(memory) == ["b", "d"]


def test_the_configuration_has_the_default_ttl_and_whether_reads_refresh_it(
    entry_store: Store, clock: ManualClock
) -> None:
    memory = memory_of(entry_store, ttl={"default_ttl": 10, "refresh_on_read": False})
    memory.put(USER, "default", {})
    memory.put(USER, "longer", {}, ttl=20)
    memory.put(USER, "none", {}, ttl=None)
    clock.advance(minutes=9)
    assert memory.get(USER, "default")
    assert len(memory.search(())) == 3
    assert memory.get(USER, "longer", refresh_ttl=True)
    clock.advance(minutes=1)
    assert keys_in(memory) == ["longer", "none"]
    clock.advance(minutes=18)
    assert keys_in(memory) == ["longer", "none"]
    clock.advance(minutes=1)
    assert keys_in(memory) == ["none"]


def test_a_put_without_a_ttl_ends_the_former_one(entry_store: Store, clock: ManualClock) -> None:
    memory = memory_of(entry_store)
    memory.put(USER, "k", {}, ttl=10)
    memory.put(USER, "k", {"n": 2})
    clock.advance(days=1000)
    assert value_of(memory, "k") == {"n": 2}


# Rivals -------------------------------------------------------------------------------------------


def test_a_refresh_does_not_undo_what_a_rival_has_put(entry_store: Store) -> None:
    store = WatchedStore(entry_store)
    memory = memory_of(store)
    rival = ChatledgerStore(entry_store, owner=memory.owner)
    memory.put(USER, "k", {"by": "us"}, ttl=10)
    store.before_put = partial(rival.put, USER, "k", {"by": "a rival"})
    item = memory.get(USER, "k")
    assert item is not None
    assert item.value == {"by": "us"}
    store.before_put = None
    assert value_of(memory, "k") == {"by": "a rival"}


def test_a_refresh_does_not_bring_back_what_a_rival_has_deleted(entry_store: Store) -> None:
    store = WatchedStore(entry_store)
    memory = memory_of(store)
    memory.put(USER, "k", {}, ttl=10)
    rival = ChatledgerStore(entry_store, owner=memory.owner)
    store.before_put = partial(rival.delete, USER, "k")
    assert len(memory.search(("users",))) == 1
    assert keys_in(memory) == []


def test_a_put_that_meets_a_rival_replaces_its_value_and_keeps_its_time(
    entry_store: Store, clock: ManualClock
) -> None:
    store, created_at = WatchedStore(entry_store), clock()
    memory = memory_of(store)
    rival = ChatledgerStore(entry_store, owner=memory.owner)

    def interfere() -> None:
        store.before_put = None
        rival.put(USER, "k", {"by": "a rival"})
        clock.advance(hours=1)

    store.before_put = interfere
    memory.put(USER, "k", {"by": "us"})
    item = memory.get(USER, "k")
    assert item is not None
    assert item.value == {"by": "us"}
    assert (item.created_at, item.updated_at) == (created_at, clock())


def test_a_put_ends_however_many_rivals_it_meets(entry_store: Store) -> None:
    store = WatchedStore(entry_store)
    memory = memory_of(store)
    rival = ChatledgerStore(entry_store, owner=memory.owner)
    store.before_put = partial(rival.put, USER, "k", {"by": "a rival"})
    memory.put(USER, "k", {"by": "us"})
    assert store.operations.count("PutEntry") == GUARDED_PUTS + 1
    store.before_put = None
    assert value_of(memory, "k") == {"by": "us"}


def test_of_many_threads_that_put_one_item_one_is_last(entry_store: Store) -> None:
    owner = new_id()
    memories = [ChatledgerStore(entry_store, owner=owner) for _ in range(6)]

    def put(number: int) -> list[datetime]:
        times = []
        for attempt in range(5):
            memories[number].put(USER, "k", {"by": number, "attempt": attempt}, ttl=10)
            item = memories[number].get(USER, "k")
            assert item is not None
            times.append(item.created_at)
        return times

    with ThreadPoolExecutor(6) as threads:
        times = [time for of_one in threads.map(put, range(6)) for time in of_one]
    assert len(set(times)) == 1
    value = value_of(memories[0], "k")
    assert value is not None
    assert value["attempt"] == 4


# Bad input ----------------------------------------------------------------------------------------

INVALID_OPS: dict[str, tuple[Op, str]] = {
    "too long": (PutOp(USER, "k" * 500, {}), "over the limit of 512; use shorter labels"),
    "no text": (PutOp(("a", cast(str, 1)), "k", {}), "a label of the namespace is of type int"),
    "empty": (PutOp(("a", ""), "k", {}), "is empty or contains NUL"),
    "NUL": (PutOp(("a\0b",), "k", {}), "is empty or contains NUL"),
    "surrogate": (PutOp(USER, "\ud800", {}), "key contains a lone surrogate"),
    "text": (PutOp(cast(Any, "users"), "k", {}), "The namespace is of type str"),
    "list": (PutOp(USER, "k", cast(Any, [])), "value is of type list; it must be a dict"),
    "bytes": (PutOp(USER, "k", {"a": b""}), "value.a is of type bytes; encode it as text"),
    "time": (PutOp(USER, "k", {"a": datetime.min}), "value.a is of type datetime"),
    "large": (PutOp(USER, "k", {"a": "x" * 2**24}), "over the limit of 16,777,216"),
    "short ttl": (PutOp(USER, "k", {}, ttl=0.01), "ttl is 0:00:00.600000; it must be from 1"),
    "text as ttl": (PutOp(USER, "k", {}, ttl=cast(Any, "1")), "it must be a number of minutes"),
    "ttl that is no number": (PutOp(USER, "k", {}, ttl=float("nan")), "ttl is nan"),
    "endless ttl": (PutOp(USER, "k", {}, ttl=float("inf")), "ttl is inf"),
    "long get": (GetOp(USER, "k" * 500), "over the limit of 512"),
    "long search": (SearchOp(("k" * 600,)), "over the limit of 512"),
    "limit": (SearchOp((), limit=-1), "limit must be 0"),
    "offset": (SearchOp((), offset=-1), "offset must be 0"),
    "filter": (SearchOp((), cast(Any, ["a"])), "filter is of type list; it must be a dict"),
    "operator": (SearchOp((), {"a": {"$in": [1]}}), r"the operator '\$in'; it must be \$eq"),
    "operand": (SearchOp((), {"a": {"$gt": "x"}}), r"\$gt with something that is not a number"),
    "depth": (ListNamespacesOp(max_depth=-1), "max_depth must be 0"),
    "match type": (
        ListNamespacesOp((MatchCondition(cast(Any, "infix"), ("a",)),)),
        "match_type is 'infix'",
    ),
    "no operation": (cast(Op, "get"), "An operation is of type str; it must be a GetOp"),
}


@pytest.mark.parametrize("case", INVALID_OPS)
def test_an_invalid_operation_is_refused_before_anything_is_written(
    entry_store: Store, case: str
) -> None:
    memory = memory_of(entry_store)
    memory.put(USER, "old", {})
    op, message = INVALID_OPS[case]
    with pytest.raises(InvalidArgument, match=message):
        memory.batch([PutOp(USER, "old", {"n": 2}), PutOp(USER, "new", {}), op])
    assert keys_in(memory) == ["old"]
    assert value_of(memory, "old") == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"store": "sqlite:///a.db"}, "store is of type str; pass a store that open_store"),
        ({"owner": None}, "owner is None"),
        ({"owner": ""}, "owner is empty"),
        ({"ttl": {"default_ttl": "1"}}, "ttl is of type str"),
        ({"index": {"embed": len}}, r"index\['dims'\] is of type NoneType"),
        ({"index": {"embed": len, "dims": 0}}, r"index\['dims'\] must be 1"),
        ({"index": {"embed": len, "dims": 2, "fields": "text"}}, "must be a list of paths"),
    ],
)
def test_an_invalid_setting_is_refused(
    entry_store: Store, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        ChatledgerStore(**({"store": entry_store} | arguments))


def test_langgraphs_own_rules_for_namespaces_hold(entry_store: Store) -> None:
    memory = memory_of(entry_store)
    for namespace in [(), ("a.b",), ("langgraph",), ("",)]:
        with pytest.raises(InvalidNamespaceError):
            memory.put(namespace, "k", {})


# Async --------------------------------------------------------------------------------------------


async def check_async(memory: ChatledgerStore) -> None:
    await memory.aput(USER, "k", {"n": 1}, ttl=10)
    await memory.aput(USER, "other", {"n": 2})
    item = await memory.aget(USER, "k")
    assert item is not None
    assert item.value == {"n": 1}
    assert [item.key for item in await memory.asearch(("users",), filter={"n": 2})] == ["other"]
    assert await memory.alist_namespaces(prefix=("users",)) == [USER]
    await memory.adelete(USER, "k")
    await memory.adelete(USER, "k")
    assert await memory.aget(USER, "k") is None
    results = await memory.abatch([PutOp(USER, "k", {}), GetOp(USER, "k"), GetOp(USER, "other")])
    assert [result is None for result in results] == [True, True, False]


@pytest.mark.anyio
async def test_async_methods_work_on_an_async_store(async_entry_store: AsyncStore) -> None:
    async with async_entry_store:
        await check_async(memory_of(async_entry_store))


@pytest.mark.anyio
async def test_async_methods_work_on_a_sync_store(entry_store: Store) -> None:
    await check_async(memory_of(entry_store))


@pytest.mark.anyio
async def test_a_sync_method_on_an_async_store_says_what_to_use(
    async_entry_store: AsyncStore,
) -> None:
    async with async_entry_store:
        memory = memory_of(async_entry_store)
        with pytest.raises(InvalidArgument, match="over an AsyncStore: use the async methods"):
            memory.put(USER, "k", {})
        assert await memory.asearch(()) == []


# LangGraph's runtime ------------------------------------------------------------------------------


class State(TypedDict):
    said: str
    known: list[str]


def remember(state: State, runtime: Runtime[None]) -> dict[str, Any]:
    memory = runtime.store
    assert memory is not None
    known = [item.value["said"] for item in memory.search(("facts",), limit=100)]
    get_store().put(("facts", "ann"), f"{len(known)}", {"said": state["said"]})
    return {"known": known}


async def remember_async(state: State, runtime: Runtime[None]) -> dict[str, Any]:
    memory = runtime.store
    assert memory is not None
    known = [item.value["said"] for item in await memory.asearch(("facts",), limit=100)]
    await get_store().aput(("facts", "ann"), f"{len(known)}", {"said": state["said"]})
    return {"known": known}


def graph_of(node: Any, memory: ChatledgerStore) -> Any:
    builder = StateGraph(State)
    builder.add_node("remember", node)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", END)
    return builder.compile(store=memory)


def test_a_graph_remembers_across_restarts(tmp_path: Any) -> None:
    for turn in range(3):
        with open_store(f"sqlite:///{tmp_path}/memory.db") as store:
            graph = graph_of(remember, ChatledgerStore(store))
            state = graph.invoke({"said": f"fact {turn}"})
            assert state["known"] == [f"fact {earlier}" for earlier in range(turn)]


def test_a_graph_uses_a_store_of_each_kind(entry_store: Store) -> None:
    graph = graph_of(remember, memory_of(entry_store))
    states = [graph.invoke({"said": said}) for said in ("one", "two", "three")]
    assert [state["known"] for state in states] == [[], ["one"], ["one", "two"]]


@pytest.mark.anyio
async def test_an_async_graph_uses_an_async_store(async_entry_store: AsyncStore) -> None:
    async with async_entry_store:
        graph = graph_of(remember_async, memory_of(async_entry_store))
        states = [await graph.ainvoke({"said": said}) for said in ("one", "two")]
        assert [state["known"] for state in states] == [[], ["one"]]


def test_an_expired_items_entry_is_gone_from_the_store(
    entry_store: Store, clock: ManualClock
) -> None:
    memory = memory_of(entry_store)
    memory.put(USER, "k", {}, ttl=1)
    [entry] = entry_store.entries(None, owner=memory.owner)
    assert entry.expires_at == clock() + timedelta(minutes=1)
    clock.advance(minutes=1)
    with pytest.raises(NotFound):
        entry_store.entry(None, entry.name, owner=memory.owner)
