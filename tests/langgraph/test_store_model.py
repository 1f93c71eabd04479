"""``ChatledgerStore`` returns what ``InMemoryStore`` does, after any operations."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from langgraph.store.base import (
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from chatledger import Store
from chatledger.errors import InvalidArgument
from chatledger.langgraph.items import end_of_namespace, name_of, prefix_of, split_name
from chatledger.testing.store_contract.settings import examples_of
from tests.langgraph.memory import DIMS, embed, memory_of
from tests.stores.dynamodb.conftest import ManualClock

Place = tuple[tuple[str, ...], str]

INDEX: IndexConfig = {"dims": DIMS, "embed": embed, "fields": ["text", "tags[*]"]}
ALL = 1_000_000

labels = st.sampled_from(["a", "ab", "b", "\x01", "c d", "\N{GRINNING FACE}"])
namespaces = st.lists(labels, min_size=1, max_size=3).map(tuple) | st.sampled_from(
    [("a",), ("a", "b"), ("ab",)]
)
keys = st.sampled_from(["", "k", "k.1", "\0\0", "\N{GRINNING FACE}"])
words = st.sampled_from(["red", "blue", "green", "white"])
values = st.fixed_dictionaries(
    {"size": st.sampled_from([0, 1, 2.5, "3", True])},
    optional={
        "text": words,
        "tags": st.lists(words, max_size=3),
        "kind": words | st.none(),
        "deep": st.fixed_dictionaries({"x": st.integers(0, 2), "y": words}),
    },
)
operators = st.dictionaries(
    st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
    st.sampled_from([0, 1, 2.5, "2"]),
    min_size=1,
    max_size=2,
)
filters = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from([0, 1, "3"]) | operators,
        "kind": words | st.none() | st.builds(dict, **{"$ne": words}),
        "tags": st.lists(words, max_size=2),
        "deep": st.fixed_dictionaries({}, optional={"x": st.integers(0, 2), "y": words}),
        "deep.x": st.none() | st.just(1),
    },
)
paths = st.lists(labels | st.just("*"), min_size=1, max_size=3).map(tuple)
conditions = st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), paths)
gets = st.builds(GetOp, namespaces, keys, st.booleans())
puts = st.builds(
    PutOp,
    namespaces,
    keys,
    values | st.none(),
    st.sampled_from([None, None, False, ["kind"], ["deep.y", "tags[-1]", "text"]]),
    st.sampled_from([None, 1.0, 5]),
)
searches = st.builds(
    SearchOp,
    namespaces | st.just(()),
    filters,
    st.integers(0, 4),
    st.integers(0, 3),
    st.none() | st.just("") | words,
    st.booleans(),
)
listings = st.builds(
    ListNamespacesOp,
    st.none() | st.lists(conditions, max_size=2).map(tuple),
    st.none() | st.integers(1, 3),
    st.integers(0, 5),
    st.integers(0, 2),
)


class Times(NamedTuple):
    """When an item was created and put, and when it expires."""

    created_at: datetime
    updated_at: datetime
    ttl: float | None
    expires_at: datetime | None


class Reference(InMemoryStore):
    """``InMemoryStore``, which expects each text once in a batch, keeps the embeddings of former
    values and lists namespaces without items; this one does not."""

    def _extract_texts(self, put_ops: Any) -> Any:
        for namespace, key in put_ops:
            self._vectors[namespace].pop(key, None)
        return super()._extract_texts(put_ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: Any) -> None:
        for places, embedding in zip(to_embed.values(), embeddings, strict=True):
            for namespace, key, path in places:
                self._vectors[namespace][key][path] = embedding

    def _handle_list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        for namespace in [namespace for namespace, items in self._data.items() if not items]:
            del self._data[namespace]
        return super()._handle_list_namespaces(op)


class Histories(RuleBasedStateMachine):
    """Batches of operations on a ``ChatledgerStore`` and on the reference."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.memory = memory_of(store, index=INDEX)
        self.reference = Reference(index=INDEX)
        self.times: dict[Place, Times] = {}

    @rule(seconds=st.sampled_from([1, 30, 60, 300]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds=seconds)
        now = self.clock()
        for place, times in [*self.times.items()]:
            if times.expires_at is not None and times.expires_at <= now:
                del self.times[place]
                self.reference.delete(*place)

    @rule(ops=st.lists(gets | puts | puts | searches | listings, max_size=6))
    def operations_are_performed(self, ops: list[Op]) -> None:
        results = self.memory.batch(ops)
        expected: Sequence[Any] = self.reference.batch(map(_without_limits, ops))
        for op, result, reference in zip(ops, results, expected, strict=True):
            match op, result:
                case SearchOp(), list():
                    assert all(isinstance(item, SearchItem) for item in result)
                    self._check_search(op, result, reference)
                case GetOp(), Item():
                    self._check_item(result, reference)
                    self._refresh(op, result)
                case _:
                    assert result == reference
        for op in {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}.values():
            self._put(op)

    def _check_search(self, op: SearchOp, found: list[Any], reference: list[SearchItem]) -> None:
        scores = {(item.namespace, item.key): item.score for item in reference}
        is_ranked = any(score is not None for score in scores.values())
        wanted = slice(op.offset, op.offset + op.limit)
        places = [(item.namespace, item.key) for item in found]
        if is_ranked:
            ranked = [approximate(item.score) for item in reference]
            assert [item.score for item in found] == ranked[wanted]
            assert len(set(places)) == len(places)
        else:
            assert places == sorted(scores)[wanted]
        by_place = {(item.namespace, item.key): item for item in reference}
        for item, place in zip(found, places, strict=True):
            assert item.score == approximate(scores[place])
            self._check_item(item, by_place[place])
            self._refresh(op, item)

    def _check_item(self, item: Item, reference: Item) -> None:
        place = (item.namespace, item.key)
        assert place == (reference.namespace, reference.key)
        assert item.value == reference.value
        times = self.times[place]
        assert (item.created_at, item.updated_at) == (times.created_at, times.updated_at)

    def _refresh(self, op: GetOp | SearchOp, item: Item) -> None:
        place = (item.namespace, item.key)
        times = self.times[place]
        if op.refresh_ttl and times.ttl is not None:
            self.times[place] = times._replace(expires_at=self._expiry(times.ttl))

    def _put(self, op: PutOp) -> None:
        former = self.times.pop((op.namespace, op.key), None)
        if op.value is not None:
            now = self.clock()
            created_at = former.created_at if former else now
            expires_at = None if op.ttl is None else self._expiry(op.ttl)
            self.times[op.namespace, op.key] = Times(created_at, now, op.ttl, expires_at)

    def _expiry(self, ttl: float) -> datetime:
        return self.clock() + timedelta(minutes=ttl)


def _without_limits(op: Op) -> Op:
    return op._replace(limit=ALL, offset=0) if isinstance(op, SearchOp) else op


def approximate(score: float | None) -> Any:
    return None if score is None else pytest.approx(score, abs=1e-6)


def test_any_operations_have_the_results_of_langgraphs_own_store(
    entry_store: Store, clock: ManualClock
) -> None:
    class OnStore(Histories):
        def __init__(self) -> None:
            super().__init__(entry_store, clock)

    run_state_machine_as_test(OnStore, settings=examples_of(60, steps=25))


# Names --------------------------------------------------------------------------------------------

any_label = st.text(min_size=1, max_size=8).filter(lambda label: "\0" not in label)
any_namespace = st.lists(any_label | labels, max_size=4).map(tuple)
any_key = st.text(max_size=8) | keys


@given(any_namespace, any_key)
@examples_of(300)
def test_a_name_says_which_item_it_is_of(namespace: tuple[str, ...], key: str) -> None:
    assert split_name(name_of(namespace, key)) == (namespace, key)


@given(any_namespace, any_key, any_namespace, any_key)
@examples_of(300)
def test_names_have_the_order_of_namespaces_and_keys(
    namespace: tuple[str, ...], key: str, other_namespace: tuple[str, ...], other_key: str
) -> None:
    place, other = (namespace, key), (other_namespace, other_key)
    assert (place < other) == (name_of(*place).encode() < name_of(*other).encode())


@given(any_namespace, any_namespace, any_key)
@examples_of(300)
def test_names_begin_with_the_prefix_of_all_namespaces_above_and_of_no_others(
    prefix: tuple[str, ...], namespace: tuple[str, ...], key: str
) -> None:
    is_below = namespace[: len(prefix)] == prefix
    assert name_of(namespace, key).startswith(prefix_of(prefix)) == is_below
    assert name_of(prefix + namespace, key).startswith(prefix_of(prefix))


@given(any_namespace, any_key, any_namespace, any_key)
@examples_of(300)
def test_a_namespace_ends_after_its_own_items_and_before_those_below_it(
    namespace: tuple[str, ...], key: str, below: tuple[str, ...], other_key: str
) -> None:
    assume(below)
    end = end_of_namespace(namespace)
    assert name_of(namespace, key) < end < name_of(namespace + below, other_key)


@given(st.integers(450, 560), st.sampled_from(["x", "\N{GRINNING FACE}"]))
@examples_of(100)
def test_a_name_has_at_most_512_bytes(size: int, character: str) -> None:
    key = character * (size // len(character.encode()))
    if len(f"langgraph.a..{key}".encode()) <= 512:
        assert split_name(name_of(("a",), key)) == (("a",), key)
    else:
        with pytest.raises(InvalidArgument, match="over the limit of 512; use shorter labels"):
            name_of(("a",), key)
