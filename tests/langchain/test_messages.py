"""Conversion of LangChain's messages, through every store."""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    message_chunk_to_message,
)

from chatledger import InvalidMessage, Store, open_store
from chatledger.langchain import ChatMessageHistory, from_chatledger, to_chatledger
from chatledger.testing.store_contract.roundtrip import objects, texts, values
from chatledger.testing.store_contract.settings import examples_of
from chatledger.values import new_id

IMAGE = "iVBORw0KGgo="
blocks = objects | st.sampled_from(
    [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        {"type": "image", "source_type": "base64", "data": IMAGE, "mime_type": "image/png"},
        {"type": "image", "base64": IMAGE, "mime_type": "image/png"},
        {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {}},
        {"type": "reasoning", "reasoning": "Let me see.", "index": 0},
        {"cachePoint": {"type": "default"}},
    ]
)
raw_calls = [
    {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": 1}'}}
]
more: dict[str, Any] = {
    "content": texts | st.lists(texts | blocks, max_size=3),
    "id": st.none() | texts | st.just("x" * 1_001) | st.builds(new_id),
    "name": st.none() | texts,
    "additional_kwargs": objects | st.just({"tool_calls": raw_calls}),
    "response_metadata": objects,
}
added = st.dictionaries(st.sampled_from(["reactions", "cls", "tool_call_ids", "usage"]), values)
"""Fields that are not LangChain's, which LangChain keeps."""
usages = st.none() | st.fixed_dictionaries(
    {name: st.integers(0, 10**6) for name in ("input_tokens", "output_tokens", "total_tokens")},
    optional={"input_token_details": st.fixed_dictionaries({"cache_read": st.integers(0, 99)})},
)
calls = st.lists(
    st.fixed_dictionaries({"name": texts, "args": objects, "id": st.none() | texts}), max_size=3
)
invalid_calls = st.lists(
    st.fixed_dictionaries({name: st.none() | texts for name in ("name", "args", "id", "error")}),
    max_size=2,
)


def messages_of(message_class: type[BaseMessage], **own: Any) -> st.SearchStrategy[BaseMessage]:
    known = st.fixed_dictionaries(more | own)
    return st.builds(lambda fields, extra: message_class(**fields, **extra), known, added)


messages = st.one_of(
    messages_of(SystemMessage),
    messages_of(HumanMessage),
    messages_of(
        AIMessage, tool_calls=calls, invalid_tool_calls=invalid_calls, usage_metadata=usages
    ),
    messages_of(
        ToolMessage,
        tool_call_id=texts,
        artifact=values,
        status=st.sampled_from(["success", "error"]),
    ),
    messages_of(FunctionMessage, name=texts),
    messages_of(
        ChatMessage, role=st.sampled_from(["user", "assistant", "critic", "developer", ""])
    ),
)


def check_read_back_equal(store: Store, written: Sequence[BaseMessage]) -> None:
    history = ChatMessageHistory(store, new_id())
    history.add_messages(written)
    read = history.messages
    assert read == [*written]
    assert [type(message) for message in read] == [type(message) for message in written]
    # Unlike ==, JSON tells 1, 1.0 and True apart.
    assert [message.model_dump_json() for message in read] == [
        message.model_dump_json() for message in written
    ]
    # The form that LangChain's tracers and caches use.
    assert [dumpd(message) for message in read] == [dumpd(message) for message in written]


@given(st.lists(messages, min_size=1, max_size=4))
@examples_of(150)
def test_messages_of_every_type_come_back_equal_from_sqlite(written: list[BaseMessage]) -> None:
    with open_store("sqlite:///:memory:") as store:
        check_read_back_equal(store, written)


@pytest.mark.parametrize("url", ["dynamodb"], indirect=True)
def test_messages_of_every_type_come_back_equal_from_dynamodb(store: Store) -> None:
    @given(st.lists(messages, min_size=1, max_size=6))
    @examples_of(25)
    def check(written: list[BaseMessage]) -> None:
        check_read_back_equal(store, written)

    check()


CHUNKS = [
    SystemMessageChunk(content="Be brief.", id="s"),
    HumanMessageChunk(content=[{"type": "text", "text": "Hi"}], name="bob"),
    AIMessageChunk(content="Hel", response_metadata={"model_name": "m"}, id="run-1")
    + AIMessageChunk(
        content="lo",
        tool_call_chunks=[{"name": "clock", "args": '{"zone": 1}', "id": "call_1", "index": 0}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
    AIMessageChunk(
        content="", tool_call_chunks=[{"name": "clock", "args": '["zo', "id": None, "index": 0}]
    ),
    ToolMessageChunk(content="12:00", tool_call_id="call_1", artifact=[1, 2.0]),
    FunctionMessageChunk(content="12:00", name="clock"),
    ChatMessageChunk(content="Hm.", role="critic"),
]


@pytest.mark.parametrize("chunk", CHUNKS, ids=lambda chunk: type(chunk).__name__)
def test_a_chunk_is_stored_as_a_whole_message(chunk: BaseMessage) -> None:
    converted = from_chatledger(to_chatledger(chunk))
    assert converted == message_chunk_to_message(chunk)
    assert type(converted) is type(chunk).__mro__[1]


class Remark(HumanMessage):
    """A custom message class."""

    mood: str = "calm"


def test_a_message_of_a_custom_class_is_stored_as_its_base_class() -> None:
    converted = from_chatledger(to_chatledger(Remark(content="Hm", mood="cross")))
    assert converted == HumanMessage(content="Hm", mood="cross")


def test_fields_changed_after_construction_are_stored() -> None:
    message = AIMessage(content="Hi", additional_kwargs={"tool_calls": raw_calls})
    assert message.tool_calls
    message.tool_calls = []  # a validator would fill it again from additional_kwargs
    assert from_chatledger(to_chatledger(message)) == message


def test_changing_a_message_that_was_read_does_not_change_the_stored_one() -> None:
    stored = to_chatledger(AIMessage(content=["a", {"text": "b"}], response_metadata={"n": [1]}))
    read = from_chatledger(stored)
    read.content[1]["text"] = "c"  # type: ignore[index]
    read.response_metadata["n"].append(2)
    assert from_chatledger(stored) == AIMessage(
        content=["a", {"text": "b"}], response_metadata={"n": [1]}
    )


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (HumanMessage("Hi"), "user"),
        (AIMessage("Hi"), "assistant"),
        (SystemMessage("Hi"), "system"),
        (ToolMessage("Hi", tool_call_id="1"), "tool"),
        (FunctionMessage(content="Hi", name="clock"), "tool"),
        (ChatMessage(content="Hi", role="assistant"), "assistant"),
        (ChatMessage(content="Hi", role="developer"), "system"),
        (ChatMessage(content="Hi", role="critic"), "user"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.type,
)
def test_readers_without_langchain_see_role_and_text(message: BaseMessage, role: str) -> None:
    stored = to_chatledger(message)
    assert (stored.role, stored.text) == (role, "Hi")


def test_readers_without_langchain_see_tool_calls_and_ids() -> None:
    call: dict[str, Any] = {"name": "clock", "args": {}, "id": "call_1"}
    assert to_chatledger(AIMessage("", tool_calls=[call])).tool_calls == [
        call | {"type": "tool_call"}
    ]
    assert to_chatledger(ToolMessage("12:00", tool_call_id="call_1")).tool_call_id == "call_1"
    assert to_chatledger(HumanMessage("Hi", id="h-1")).id == "h-1"


class Chart:
    """An artifact object whose == returns an object without a truth value, as arrays do."""

    def __eq__(self, other: object) -> Any:
        return NoTruthValue()

    __hash__ = None  # type: ignore[assignment]


class NoTruthValue:
    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array is ambiguous.")


REFUSED = [
    (
        ToolMessage("x", tool_call_id="1", artifact=Chart()),
        r"ToolMessage.artifact is of type Chart",
    ),
    (ToolMessage("x", tool_call_id="1", artifact={"a": b""}), r"ToolMessage.artifact.a is .*bytes"),
    (ToolMessage("x", tool_call_id="1", artifact=(1, 2)), r"ToolMessage.artifact is a tuple"),
    (HumanMessage([{"type": "image", "data": b"\x89PNG"}]), r"content\[0\].data is of type bytes"),
    (HumanMessage("x", additional_kwargs={1: 2}), r"HumanMessage.additional_kwargs has the key 1"),
    (
        AIMessage("x", response_metadata={"logprobs": [float("-inf")]}),
        r"AIMessage.response_metadata.logprobs\[0\] is -inf",
    ),
    (AIMessage("x", id="\ud800"), r"AIMessage.id contains a lone surrogate"),
    (HumanMessage("\ud800"), r"content contains a lone surrogate"),
    (HumanMessage("x", mood=object()), r"HumanMessage.mood is of type object"),
    ("Hi", r"of type str; pass a HumanMessage"),
    (None, r"of type NoneType; pass a HumanMessage"),
    (BaseMessage(content="Hi", type="other"), r"of type BaseMessage; pass a HumanMessage"),
]


@pytest.mark.parametrize(("message", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_a_message_that_could_not_be_read_back_equal_is_rejected(message: Any, why: str) -> None:
    with open_store("sqlite:///:memory:") as store:
        history = ChatMessageHistory(store, "talk")
        with pytest.raises(InvalidMessage, match=why):
            history.add_messages([HumanMessage("first"), message])
        assert history.messages == []
        assert store.scan().conversations == []


def test_a_remove_message_is_rejected() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RemoveMessage was in beta once
        message = RemoveMessage(id="h-1")
    with pytest.raises(InvalidMessage, match=r"RemoveMessage .* cannot be stored"):
        to_chatledger(message)
