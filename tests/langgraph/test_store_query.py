"""Searches with a query, and filters."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp
from langgraph.store.memory import InMemoryStore

from chatledger import AsyncStore, Store
from chatledger.errors import InvalidArgument
from chatledger.langgraph import vectors
from chatledger.langgraph.store import ChatledgerStore
from tests.langgraph.memory import DIMS, WatchedStore, embed, memory_of

DOCS = ("docs",)
ALL = 1_000_000


def scores_of(found: Sequence[Any]) -> dict[str, Any]:
    return {
        item.key: None if item.score is None else pytest.approx(item.score, abs=1e-6)
        for item in found
    }


ITEMS: dict[str, tuple[dict[str, Any], Any]] = {
    "whole text": ({"text": "red"}, None),
    "several vectors": ({"text": "blue", "parts": [{"s": "white"}, {"s": "green"}]}, None),
    "number": ({"text": 7}, None),
    "other field": ({"title": "red", "text": "green"}, ["title"]),
    "several fields": ({"a": "white", "b": ["red", "blue"]}, ["a", "b[*]"]),
    "one of a list": ({"b": ["red", "blue"]}, ["b[-1]"]),
    "not embedded": ({"text": "red"}, False),
    "without the fields": ({"body": "red"}, None),
}


@pytest.mark.parametrize("fields", [None, ["text"], ["text", "parts[*].s"], ["*"]])
def test_scores_are_those_of_langgraphs_own_store(
    entry_store: Store, fields: list[str] | None
) -> None:
    index: Any = {"dims": DIMS, "embed": embed, "fields": fields}
    memory, reference = memory_of(entry_store, index=index), InMemoryStore(index=index)
    for store in (memory, reference):
        for key, (value, paths) in ITEMS.items():
            store.put(DOCS, key, value, index=paths)
    for query in ("red", "green", "something else"):
        found = memory.search((), query=query, limit=100)
        expected = reference.search((), query=query, limit=100)
        assert scores_of(found) == scores_of(expected)
        ranked = [item.score for item in found if item.score is not None]
        assert ranked == sorted(ranked, reverse=True)
        assert [item.score for item in found[len(ranked) :]] == [None] * (len(found) - len(ranked))
        assert found[:3] == memory.search((), query=query, limit=3)
        assert found[3:5] == memory.search((), query=query, limit=2, offset=3)


def test_an_item_shows_its_value_only(entry_store: Store) -> None:
    memory = memory_of(entry_store, index={"dims": DIMS, "embed": embed})
    memory.put(DOCS, "k", {"text": "red"})
    [item] = memory.search(DOCS, query="red")
    assert item.value == {"text": "red"}
    assert item.dict().keys() == {
        *("namespace", "key", "value", "created_at", "updated_at", "score")
    }


def test_the_whole_value_is_embedded_if_the_path_is_a_dollar(entry_store: Store) -> None:
    memory = memory_of(entry_store, index={"dims": DIMS, "embed": embed, "fields": ["text"]})
    memory.put(DOCS, "k", {"b": 1, "a": "\N{SNOWMAN}"}, index=["$"])
    [item] = memory.search(DOCS, query='{"a": "\N{SNOWMAN}", "b": 1}')
    assert item.score == pytest.approx(1, abs=1e-6)


def test_a_value_that_is_put_again_loses_its_former_embedding(entry_store: Store) -> None:
    memory = memory_of(entry_store, index={"dims": DIMS, "embed": embed, "fields": ["text"]})
    memory.put(DOCS, "k", {"text": "red"})
    memory.put(DOCS, "k", {"text": "blue"})
    [item] = memory.search(DOCS, query="red")
    expected = memory.search(DOCS, query="blue")[0].score
    assert item.score != expected == pytest.approx(1, abs=1e-6)
    memory.put(DOCS, "k", {"text": "blue"}, index=False)
    assert [item.score for item in memory.search(DOCS, query="blue")] == [None]


def test_a_refreshed_ttl_keeps_the_embedding(entry_store: Store) -> None:
    memory = memory_of(entry_store, index={"dims": DIMS, "embed": embed})
    memory.put(DOCS, "k", {"text": "red"}, ttl=10)
    first = memory.search(DOCS, query="red")
    assert memory.search(DOCS, query="red") == first
    assert first[0].score is not None


def test_without_an_index_a_query_and_paths_are_ignored(entry_store: Store) -> None:
    memory = memory_of(entry_store)
    memory.put(DOCS, "k", {"text": "red"}, index=["text"])
    [item] = memory.search(DOCS, query="red")
    assert item.score is None


def test_a_text_is_embedded_once_however_many_items_have_it(entry_store: Store) -> None:
    texts: list[list[str]] = []

    def record(given: Sequence[str]) -> list[list[float]]:
        texts.append([*given])
        return embed(given)

    memory = memory_of(entry_store, index={"dims": DIMS, "embed": record, "fields": ["a", "b"]})
    ops = [PutOp(DOCS, f"{n}", {"a": "red", "b": "blue"}) for n in range(3)]
    memory.batch([*ops, PutOp(DOCS, "k", {"a": "lost"}), PutOp(DOCS, "k", {"a": "green"})])
    assert texts == [["red", "blue", "green"]]
    assert len(memory.search(DOCS, query="red")) == 4


class TwoWays(Embeddings):
    """A model that embeds queries in another way than documents."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1, 0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return [3, 4]


def test_queries_are_embedded_as_queries(entry_store: Store) -> None:
    memory = memory_of(entry_store, index={"dims": 2, "embed": TwoWays()})
    memory.put(DOCS, "k", {})
    assert memory.search(DOCS, query="x")[0].score == pytest.approx(0.6)


async def embed_async(texts: Sequence[str]) -> list[list[float]]:
    return embed(texts)


@pytest.mark.anyio
@pytest.mark.parametrize("function", [embed, embed_async])
async def test_async_methods_take_sync_and_async_functions(
    async_entry_store: AsyncStore, entry_store: Store, function: Any
) -> None:
    async with async_entry_store:
        for store in (async_entry_store, entry_store):
            memory = memory_of(store, index={"dims": DIMS, "embed": function, "fields": ["text"]})
            await memory.aput(DOCS, "a", {"text": "red"})
            await memory.aput(DOCS, "b", {"text": "blue"})
            found = await memory.asearch(DOCS, query="blue", limit=1)
            assert [item.key for item in found] == ["b"]


def test_a_sync_method_refuses_an_async_function(entry_store: Store) -> None:
    memory = memory_of(entry_store, index={"dims": DIMS, "embed": embed_async})
    with pytest.raises(ValueError, match="async function but no sync function"):
        memory.put(DOCS, "k", {"text": "red"})
    assert memory.search(DOCS) == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([[1.0, 2.0]], r"a vector of 2 dimensions; index\['dims'\] is 3"),
        ([[1.0, 2.0, math.nan]], "a number that is not finite"),
        ([], "embed returned 0 vectors for 1 texts"),
    ],
)
def test_an_unusable_embedding_is_refused_before_anything_is_written(
    entry_store: Store, result: Any, message: str
) -> None:
    memory = memory_of(entry_store, index={"dims": DIMS, "embed": lambda texts: result})
    with pytest.raises(InvalidArgument, match=message):
        memory.batch([PutOp(DOCS, "a", {}, False), PutOp(DOCS, "b", {})])
    assert memory.search(DOCS) == []


def test_a_vector_of_zeros_scores_zero_and_a_large_one_as_a_small_one(entry_store: Store) -> None:
    by_text = {"zero": [0.0, 0.0], "large": [3e300, 4e300], "small": [3e-9, 4e-9]}

    def embed_from_table(texts: Sequence[str]) -> list[list[float]]:
        return [by_text[text] for text in texts]

    index: Any = {"dims": 2, "embed": embed_from_table, "fields": ["text"]}
    memory = memory_of(entry_store, index=index)
    for text in by_text:
        memory.put(DOCS, text, {"text": text})
    expected = pytest.approx({"zero": 0, "large": 1, "small": 1}, abs=1e-6)
    assert {item.key: item.score for item in memory.search(DOCS, query="small")} == expected


def test_embeddings_of_another_model_are_refused_not_compared(entry_store: Store) -> None:
    memory = memory_of(entry_store, index={"dims": DIMS, "embed": embed})
    memory.put(DOCS, "k", {"text": "red"})
    other = ChatledgerStore(entry_store, owner=memory.owner, index={"dims": 2, "embed": TwoWays()})
    with pytest.raises(InvalidArgument, match=r"an embedding of 3 dimensions; .* Put the items"):
        other.search(DOCS, query="red")
    assert len(other.search(DOCS)) == 1


def test_more_items_than_a_search_ranks_are_refused(
    entry_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vectors.MAX_RANKED_ITEMS == 10_000
    monkeypatch.setattr(vectors, "MAX_RANKED_ITEMS", 150)
    store = WatchedStore(entry_store)
    memory = memory_of(store, index={"dims": DIMS, "embed": embed, "fields": ["text"]})
    memory.batch([PutOp(DOCS, f"{n}", {"text": "red", "n": n}) for n in range(151)])
    memory.batch([PutOp(("more",), f"{n}", {"n": n}) for n in range(151)])  # not embedded
    with pytest.raises(InvalidArgument, match="More than 150 embedded items match"):
        memory.search((), query="red")
    found = memory.search((), query="red", filter={"n": {"$lt": 150}}, limit=ALL)
    assert sum(item.score is not None for item in found) == 150


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"a": 1}, ["1", "1.0", "True"]),
        ({"a": None}, ["None", "missing"]),
        ({"a": {"$ne": 1}}, ["text", "2", "[1]", "{'x': 1}", "None", "missing"]),
        ({"a": {"$gt": 1}}, ["2"]),
        ({"a": {"$gte": 1, "$lt": "2"}}, ["1", "1.0", "True"]),
        ({"a": {"$lt": 100}}, ["1", "1.0", "2", "True"]),
        ({"a": [1]}, ["[1]"]),
        ({"a": {"x": {"$gte": 1}}}, ["{'x': 1}"]),
        ({"a": {}}, ["{'x': 1}"]),
        ({"a": {"$eq": {"x": 1}}}, ["{'x': 1}"]),
        ({"$gt": 1}, []),
        ({}, ["1", "1.0", "2", "True", "text", "[1]", "{'x': 1}", "None", "missing"]),
    ],
)
def test_a_filter_compares_fields(
    entry_store: Store, given: dict[str, Any], found: list[str]
) -> None:
    memory = memory_of(entry_store)
    for value in (1, 1.0, 2, True, "text", [1], {"x": 1}, None):
        memory.put(DOCS, f"{value}", {"a": value})
    memory.put(DOCS, "missing", {})
    assert {item.key for item in memory.search(DOCS, filter=given)} == {*found}
