"""Values come back equal, and what a thread stores already is not stored again."""

import os
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send

from chatledger import Store, open_store
from chatledger.errors import InvalidArgument, MessageTooLarge, NotFound, StoreMismatch
from chatledger.langgraph import ChatledgerSaver
from chatledger.langgraph.values import (
    Decoder,
    Encoder,
    Leaf,
    ListNode,
    Node,
    Stored,
    restore,
    take_apart,
)
from chatledger.values import new_id
from tests.langgraph.cipher import XorCipher
from tests.langgraph.graphs import DeltaState, chat_graph, config_of, question, reply

SERDE = JsonPlusSerializer(allowed_msgpack_modules=True)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with open_store(f"sqlite:///{tmp_path}/chatledger.db") as store:
        yield store


class Values:
    """Values of one channel, one record after the other."""

    def __init__(self) -> None:
        self.stored = Stored()
        self.nodes: list[Node] = []

    def add(self, value: Any, base: int | None = -1) -> Any:
        """Store a value, and return how it was encoded."""
        seq = len(self.nodes) + 1
        before = self.nodes[base] if self.nodes and base is not None else None
        node = take_apart(value, SERDE, name="The value")
        encoded = Encoder(self.stored).encode(node, before)
        decoder = Decoder(self.stored, seq)
        self.nodes.append(decoder.decode(encoded))
        self.stored.add_parts(seq, decoder.leaves, decoder.lists)
        return encoded

    def __getitem__(self, n: int) -> Any:
        return restore(self.nodes[n], SERDE)


def text(n: int) -> str:
    return f"message {n} " + "x" * 60


lists = st.lists(st.integers(0, 12), max_size=12)


@settings(max_examples=300)
@given(st.lists(st.tuples(lists, st.booleans()), min_size=1, max_size=12))
def test_every_list_comes_back_equal_whatever_it_is_built_from(edits: Any) -> None:
    values = Values()
    for elements, has_base in edits:
        values.add([text(n) if n % 3 else n for n in elements], -1 if has_base else None)
    for n, (elements, _) in enumerate(edits):
        assert values[n] == [text(n) if n % 3 else n for n in elements]


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=250) | st.binary(),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(), part, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200)
@given(st.lists(json, min_size=1, max_size=4))
def test_every_value_comes_back_as_the_serde_returns_it(given_values: list[Any]) -> None:
    values = Values()
    for value in given_values:
        values.add(value)
    for n, value in enumerate(given_values):
        assert values[n] == SERDE.loads_typed(SERDE.dumps_typed(value))


@pytest.mark.parametrize(
    "value",
    [
        _DeltaSnapshot([question(0), reply(0)]),
        [Send("node", {"messages": [question(0)], "n": 1}), Send("other", "x")],
        Send("node", [question(0)]),
        {"files": {"/a": {"content": ["line"] * 5, "at": datetime(2026, 1, 1, tzinfo=UTC)}}},
        {1: "not a text", "two": [2]},
        (1, [2]),
        deque([1, 2]),
        {"set": {1, 2}, "nested": [[[[[[[["deep"]]]]]]]]},
        bytearray(b"bytes"),
        "\ud800 lone surrogate",
    ],
    ids=repr,
)
def test_values_of_all_types_come_back(value: Any) -> None:
    values = Values()
    for _ in range(2):
        try:
            expected = SERDE.loads_typed(SERDE.dumps_typed(value))
        except Exception:
            with pytest.raises(InvalidArgument):
                values.add(value)
            return
        values.add(value)
    assert values[0] == values[1] == expected


def size_of(encoded: Any) -> int:
    if isinstance(encoded, bytes):
        return len(encoded)
    if isinstance(encoded, dict):
        return sum(map(size_of, encoded.values()))
    return sum(map(size_of, encoded)) if isinstance(encoded, list) else 1


def test_a_change_of_a_long_list_costs_what_is_new() -> None:
    values = Values()
    elements = [text(n) for n in range(1_000)]
    values.add(elements)
    for changed in (
        [*elements, "new"],
        elements[1:],
        [*elements[:500], "new", *elements[501:]],
        elements[:500] + elements[501:],
        elements[-20:],
        [*elements[-20:], "new"],
    ):
        assert size_of(values.add(changed, 0)) < 100
        assert values[-1] == changed
    assert size_of(values.add({"state": {"messages": [*elements, "other"]}})) < 100
    assert size_of(values.add(_DeltaSnapshot(elements))) < 100
    assert size_of(values.add([Send("tool", {"messages": elements, "call": 1})])) < 300


def test_a_list_is_read_in_time_that_is_linear_in_its_length() -> None:
    node = ListNode((Leaf("msgpack", b"first"),))
    for _ in range(50_000):
        node = ListNode((node.middle[0],), node, prefix=node.length)
    assert len(node.elements()) == 50_001
    window, replaced = Values(), Values()
    for n in range(400):
        window.add([text(each) for each in range(n, n + 20)])
        replaced.add([*(text(each) for each in range(20)), text(n + 100)])
    last = replaced.nodes[-1]
    assert isinstance(last, ListNode)
    assert last.base is replaced.nodes[0], "steps in between are left out"
    assert window[-1] == [text(each) for each in range(399, 419)]


def test_lists_that_are_split_often_are_stored_in_full_now_and_then() -> None:
    values = Values()
    elements = [text(n) for n in range(200)]
    values.add(elements)
    for n in range(150):
        elements[(n * 37) % 200] = text(1_000 + n)
        values.add(elements)
        node = values.nodes[-1]
        assert isinstance(node, ListNode)
        assert node.splits <= 32
    assert values[-1] == elements


# Through the saver --------------------------------------------------------------------------------


def stored_characters(store: Store, thread_id: str) -> int:
    messages = store.iter_messages(f"chatledger:langgraph:{thread_id}")
    return sum(len(message.content) for message in messages)


@pytest.mark.parametrize("state", [None, DeltaState], ids=["list", "delta"])
def test_encrypted_threads_are_stored_once_and_show_nothing(store: Store, state: Any) -> None:
    sizes = []
    for serde in (None, EncryptedSerializer(XorCipher())):
        thread_id = new_id()
        saver = ChatledgerSaver(store, serde=serde)
        graph = chat_graph(saver, *([state] if state else []))
        for turn in range(20):
            graph.invoke({"messages": [question(turn)]}, config_of(thread_id))
        again = chat_graph(ChatledgerSaver(store, serde=serde), *([state] if state else []))
        values = again.get_state(config_of(thread_id)).values
        assert values["messages"][-2:] == [question(19), reply(19)]
        sizes.append(stored_characters(store, thread_id))
    plain, encrypted = sizes
    assert encrypted < 1.2 * plain
    contents = [m.content for m in store.iter_messages(f"chatledger:langgraph:{thread_id}")]
    assert all(str(content).startswith("bytes+xor ") for content in contents)
    with pytest.raises(StoreMismatch, match="serde"):
        ChatledgerSaver(store).get_tuple(config_of(thread_id))


def test_a_plain_thread_can_be_continued_encrypted(store: Store) -> None:
    thread_id = new_id()
    for serde in (None, EncryptedSerializer(XorCipher())):
        graph = chat_graph(ChatledgerSaver(store, serde=serde))
        graph.invoke({"messages": [question(0 if serde is None else 1)]}, config_of(thread_id))
    assert len(graph.get_state(config_of(thread_id)).values["messages"]) == 4


class Unknown:
    """A class that no allowlist has."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _asdict(self) -> dict[str, str]:
        return {"name": self.name}


def test_a_strict_allowlist_is_honoured(store: Store) -> None:
    config = config_of(new_id())
    strict = ChatledgerSaver(store, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    allowing = strict.with_allowlist([(Unknown.__module__, "Unknown")])
    config = put(allowing, config, {"value": Unknown("Bob"), "messages": [question(0)]})
    found, refused = (saver.get_tuple(config) for saver in (allowing, strict))
    assert found is not None
    assert refused is not None
    assert found.checkpoint["channel_values"]["value"].name == "Bob"
    assert refused.checkpoint["channel_values"]["value"] == {"name": "Bob"}, "not imported"
    assert refused.checkpoint["channel_values"]["messages"] == [question(0)]


def put(saver: Any, config: Any, values: dict[str, Any]) -> Any:
    """Put a checkpoint with these values."""
    checkpoint = empty_checkpoint()
    versions = dict.fromkeys(values, 1)
    checkpoint["channel_values"], checkpoint["channel_versions"] = values, dict(versions)
    return saver.put(config, checkpoint, {"source": "input", "step": 1}, versions)


@pytest.mark.parametrize("size", [0, 31, 32, 1_000, 60_000, 400_000, 20 * 1024 * 1024])
def test_a_value_of_any_size_comes_back(store: Store, size: int) -> None:
    saver = ChatledgerSaver(store)
    value = os.urandom(size)
    config = put(saver, config_of(new_id()), {"value": value, "list": [value, "x"]})
    saver.put_writes(config, [("value", value)], "task")
    for each in (saver, ChatledgerSaver(store)):
        found = each.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"value": value, "list": [value, "x"]}
        assert found.pending_writes == [("task", "value", value)]
    assert store.get(
        f"chatledger:langgraph:{config['configurable']['thread_id']}"
    ).message_count in (2, 4)


def test_a_value_that_is_too_large_is_refused_before_anything_is_written(store: Store) -> None:
    config = config_of(new_id())
    saver = ChatledgerSaver(store)
    put(saver, config, {"value": 1})
    with pytest.raises(MessageTooLarge, match="keep large values elsewhere"):
        put(saver, config, {"value": os.urandom(50 * 1024 * 1024)})
    assert len([*saver.list(config)]) == 1


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("thread_id", [None, 7, "", "x" * 2_000, ["a"], "\ud800"])
def test_a_thread_id_that_is_no_text_is_refused(store: Store, thread_id: Any) -> None:
    saver = ChatledgerSaver(store)
    with pytest.raises(InvalidArgument, match="thread_id"):
        saver.get_tuple({"configurable": {"thread_id": thread_id}})
    with pytest.raises(InvalidArgument, match="thread_id"):
        put(saver, {"configurable": {"thread_id": thread_id}}, {})
    with pytest.raises(InvalidArgument, match="thread_id"):
        saver.delete_thread(thread_id)


def test_arguments_of_another_type_are_refused(store: Store) -> None:
    saver, config, nothing = ChatledgerSaver(store), config_of(new_id()), cast(Any, None)
    put(saver, config, {"value": 1})
    with pytest.raises(InvalidArgument, match="config is of type NoneType"):
        saver.get_tuple(nothing)
    with pytest.raises(InvalidArgument, match="The checkpoint's id is of type NoneType"):
        saver.put(config, cast(Any, {}), {}, {})
    with pytest.raises(InvalidArgument, match="limit is of type str"):
        next(saver.list(config, limit=cast(Any, "1")))
    with pytest.raises(InvalidArgument, match="checkpoint_id of type int"):
        next(saver.list(config, before={"configurable": {"checkpoint_id": 1}}))
    assert len([*saver.list(config)]) == 1


def test_a_checkpoint_of_another_thread_is_refused(store: Store) -> None:
    saver, one, other = ChatledgerSaver(store), config_of(new_id()), config_of(new_id())
    put(saver, other, {"value": 1})
    first = put(saver, one, {"value": 1})["configurable"]["checkpoint_id"]
    stray = config_of(other["configurable"]["thread_id"], checkpoint_id=first)
    assert saver.get_tuple(stray) is None
    with pytest.raises(InvalidArgument, match="has no checkpoint"):
        put(saver, stray, {"value": 2})
    assert len([*saver.list(other)]) == 1


def test_a_value_that_the_serde_refuses_is_not_stored(store: Store) -> None:
    saver, config = ChatledgerSaver(store), config_of(new_id())
    config = put(saver, config, {"value": 1})
    with pytest.raises(InvalidArgument, match="Channel 'value' holds a value of type"):
        put(saver, config, {"value": object()})
    with pytest.raises(InvalidArgument, match="pickle_fallback"):
        saver.put_writes(config, [("fine", 1), ("value", object())], "task")
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == []
    assert len([*saver.list(config)]) == 1


def test_a_name_that_is_no_text_is_refused(store: Store) -> None:
    saver, config = ChatledgerSaver(store), config_of(new_id())
    with pytest.raises(InvalidArgument, match="UTF-8"):
        put(saver, config, {"value": {"\ud800": ["x"]}})
    assert [*saver.list(config)] == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rivals": "ignore"}, "'fork' or 'refuse'"),
        ({"messages": True}, "'conversation' or None"),
        ({"expires_in": 30}, "expires_in"),
        ({"cache_bytes": -1}, "cache_bytes"),
    ],
)
def test_bad_options_are_refused(store: Store, options: Any, error: str) -> None:
    with pytest.raises(InvalidArgument, match=error):
        ChatledgerSaver(store, **options)


def test_a_store_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="open_store"):
        ChatledgerSaver("sqlite:///chatledger.db")  # type: ignore[arg-type]


def test_a_nul_in_metadata_is_removed(store: Store) -> None:
    saver = ChatledgerSaver(store)
    metadata: Any = {"source": "input", "step": 1, "note": "a\0b"}
    config = saver.put(config_of(new_id()), empty_checkpoint(), metadata, {})
    found = saver.get_tuple(config)
    assert found is not None
    assert found.metadata["note"] == "ab"  # type: ignore[typeddict-item]


def test_strangers_find_nothing_and_cannot_write(store: Store) -> None:
    saver, thread_id = ChatledgerSaver(store, owner_key="user_id"), new_id()
    graph = chat_graph(saver)
    alice, eve = (config_of(thread_id, user_id=owner) for owner in ("alice", "eve"))
    graph.invoke({"messages": [question(0)]}, alice)
    state = graph.get_state(alice)
    assert graph.get_state(eve).values == {}
    assert [*saver.list(eve)] == []
    with pytest.raises(NotFound):
        graph.invoke({"messages": [question(1)]}, eve)
    with pytest.raises(NotFound):
        saver.put_writes(
            {"configurable": {**state.config["configurable"], "user_id": "eve"}}, [("x", 1)], "task"
        )
    with pytest.raises(InvalidArgument, match="names no user_id"):
        graph.invoke({"messages": [question(1)]}, config_of(thread_id))
    assert graph.get_state(alice) == state
    assert state.config["configurable"]["user_id"] == "alice"


def test_pending_writes_come_in_the_order_that_langgraph_demands(store: Store) -> None:
    saver = ChatledgerSaver(store)
    config = put(saver, config_of(new_id()), {})
    saver.put_writes(config, [("b", 1)], "task b", "~b")
    saver.put_writes(config, [("a", n) for n in range(12)], "task a", "~a")
    saver.put_writes(config, [("b", 2), ("__error__", "first")], "task b", "~b")
    saver.put_writes(config, [("__error__", "second")], "task b", "~b")
    found = ChatledgerSaver(store).get_tuple(config)
    assert found is not None
    assert found.pending_writes == [
        *(("task a", "a", n) for n in range(12)),
        ("task b", "__error__", "second"),
        ("task b", "b", 1),
    ]


def test_writes_may_come_before_their_checkpoint(store: Store) -> None:
    saver, config = ChatledgerSaver(store), config_of(new_id())
    checkpoint = empty_checkpoint()
    later = config_of(config["configurable"]["thread_id"], checkpoint_id=checkpoint["id"])
    saver.put_writes(later, [("a", HumanMessage("hello", id="1"))], "task")
    assert saver.get_tuple(config) is None
    saver.put(config, checkpoint, {"source": "input"}, {})
    for each in (saver, ChatledgerSaver(store)):
        found = each.get_tuple(config)
        assert found is not None
        assert found.pending_writes == [("task", "a", HumanMessage("hello", id="1"))]


def test_a_small_cache_reads_again_and_returns_the_same(store: Store) -> None:
    graph, config = chat_graph(ChatledgerSaver(store, cache_bytes=0)), config_of(new_id())
    for turn in range(5):
        graph.invoke({"messages": [question(turn, 100)]}, config)
    assert len(graph.get_state(config).values["messages"]) == 10


def test_versions_of_other_savers_are_continued(store: Store) -> None:
    saver = ChatledgerSaver(store)
    assert saver.get_next_version(None, None) == 1
    assert saver.get_next_version(1, None) == 2
    text_version = saver.get_next_version("00000000000000000000000000000009.0.12", None)
    assert str(text_version).startswith("00000000000000000000000000000010.0.")
