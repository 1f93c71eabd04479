"""LangChain's messages travel whole through every store, and nothing else is taken for one."""

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
from chatledger.messages import new_id
from chatledger.testing.store_contract.roundtrip import objects, texts, values
from chatledger.testing.store_contract.settings import examples_of

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
"""Fields that LangChain does not know and keeps."""
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


def built(of_langchain: type[BaseMessage], **own: Any) -> st.SearchStrategy[BaseMessage]:
    known = st.fixed_dictionaries(more | own)
    return st.builds(lambda fields, extra: of_langchain(**fields, **extra), known, added)


messages = st.one_of(
    built(SystemMessage),
    built(HumanMessage),
    built(AIMessage, tool_calls=calls, invalid_tool_calls=invalid_calls, usage_metadata=usages),
    built(
        ToolMessage,
        tool_call_id=texts,
        artifact=values,
        status=st.sampled_from(["success", "error"]),
    ),
    built(FunctionMessage, name=texts),
    built(ChatMessage, role=st.sampled_from(["user", "assistant", "critic", "developer", ""])),
)


def check_kept(store: Store, written: Sequence[BaseMessage]) -> None:
    history = ChatMessageHistory(store, new_id())
    history.add_messages(written)
    read = history.messages
    assert read == [*written]
    assert [type(message) for message in read] == [type(message) for message in written]
    # JSON tells 1 from 1.0 and from True, which == does not.
    assert [message.model_dump_json() for message in read] == [
        message.model_dump_json() for message in written
    ]
    # What LangChain's tracers and caches make of them.
    assert [dumpd(message) for message in read] == [dumpd(message) for message in written]


@given(st.lists(messages, min_size=1, max_size=4))
@examples_of(150)
def test_messages_of_every_type_come_back_equal_from_sqlite(written: list[BaseMessage]) -> None:
    with open_store("sqlite:///:memory:") as store:
        check_kept(store, written)


@pytest.mark.parametrize("url", ["dynamodb"], indirect=True)
def test_messages_of_every_type_come_back_equal_from_dynamodb(store: Store) -> None:
    @given(st.lists(messages, min_size=1, max_size=6))
    @examples_of(25)
    def check(written: list[BaseMessage]) -> None:
        check_kept(store, written)

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
def test_a_chunk_is_stored_as_the_message_it_is_a_chunk_of(chunk: BaseMessage) -> None:
    kept = from_chatledger(to_chatledger(chunk))
    assert kept == message_chunk_to_message(chunk)
    assert type(kept) is type(chunk).__mro__[1]


class Remark(HumanMessage):
    """A message of the user's own."""

    mood: str = "calm"


def test_a_message_of_your_own_class_is_kept_as_the_one_it_extends() -> None:
    kept = from_chatledger(to_chatledger(Remark(content="Hm", mood="cross")))
    assert kept == HumanMessage(content="Hm", mood="cross")


def test_what_was_changed_behind_its_construction_is_kept_too() -> None:
    message = AIMessage(content="Hi", additional_kwargs={"tool_calls": raw_calls})
    assert message.tool_calls
    message.tool_calls = []  # which LangChain would fill again from additional_kwargs
    assert from_chatledger(to_chatledger(message)) == message


def test_a_message_that_was_read_may_be_changed_and_nothing_else_changes_with_it() -> None:
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
def test_who_reads_the_store_without_langchain_sees_role_and_text(
    message: BaseMessage, role: str
) -> None:
    stored = to_chatledger(message)
    assert (stored.role, stored.text) == (role, "Hi")


def test_who_reads_the_store_without_langchain_finds_tool_calls_and_ids() -> None:
    call: dict[str, Any] = {"name": "clock", "args": {}, "id": "call_1"}
    assert to_chatledger(AIMessage("", tool_calls=[call])).tool_calls == [
        call | {"type": "tool_call"}
    ]
    assert to_chatledger(ToolMessage("12:00", tool_call_id="call_1")).tool_call_id == "call_1"
    assert to_chatledger(HumanMessage("Hi", id="h-1")).id == "h-1"


class Chart:
    """An artifact that is an object, and answers == with something that has no truth."""

    def __eq__(self, other: object) -> Any:
        return Ambiguous()

    __hash__ = None  # type: ignore[assignment]


class Ambiguous:
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
    (AIMessage("x", id="\ud800"), r"AIMessage.id holds a lone surrogate"),
    (HumanMessage("\ud800"), r"content holds a lone surrogate"),
    (HumanMessage("x", mood=object()), r"HumanMessage.mood is of type object"),
    ("Hi", r"of type str; pass a HumanMessage"),
    (None, r"of type NoneType; pass a HumanMessage"),
    (BaseMessage(content="Hi", type="other"), r"of type BaseMessage; pass a HumanMessage"),
]


@pytest.mark.parametrize(("message", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_could_not_come_back_equal_is_refused_and_nothing_is_written(
    message: Any, why: str
) -> None:
    with open_store("sqlite:///:memory:") as store:
        history = ChatMessageHistory(store, "talk")
        with pytest.raises(InvalidMessage, match=why):
            history.add_messages([HumanMessage("first"), message])
        assert history.messages == []
        assert store.scan().conversations == []


def test_a_message_that_removes_another_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was in beta once
        message = RemoveMessage(id="h-1")
    with pytest.raises(InvalidMessage, match=r"RemoveMessage .* cannot be stored"):
        to_chatledger(message)
