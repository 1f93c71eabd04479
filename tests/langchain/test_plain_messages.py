"""Conversion to LangChain of messages that did not come from LangChain."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from chatledger import Message
from chatledger.langchain import from_chatledger
from chatledger.messages import decode_body
from chatledger.testing.store_contract.roundtrip import objects, values
from chatledger.testing.store_contract.settings import examples_of
from chatledger.values import Json

CALL = {"name": "clock", "args": {"zone": 1}, "id": "call_1", "type": "tool_call"}


def test_messages_of_each_role_become_langchains_of_that_role() -> None:
    written = [
        Message.system("Be brief."),
        Message.user([{"type": "text", "text": "Hi"}], extra={"name": "bob"}),
        Message.assistant("Hello"),
        Message.tool("12:00", tool_call_id="call_1"),
    ]
    assert [*map(from_chatledger, written)] == [
        SystemMessage("Be brief.", id=written[0].id),
        HumanMessage([{"type": "text", "text": "Hi"}], name="bob", id=written[1].id),
        AIMessage("Hello", id=written[2].id),
        ToolMessage("12:00", tool_call_id="call_1", id=written[3].id),
    ]


@pytest.mark.parametrize(
    "call",
    [
        {"name": "clock", "args": {"zone": 1}, "id": "call_1"},
        {"type": "tool_use", "id": "call_1", "name": "clock", "input": {"zone": 1}},
        {"toolUse": {"toolUseId": "call_1", "name": "clock", "input": {"zone": 1}}},
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "clock", "arguments": '{"zone": 1}'},
        },
    ],
    ids=["LangChain", "Anthropic", "Bedrock", "OpenAI"],
)
def test_a_tool_call_in_any_known_format_is_converted(call: dict[str, Json]) -> None:
    message = from_chatledger(Message.assistant(tool_calls=[call]))
    assert isinstance(message, AIMessage)
    assert message.tool_calls == [CALL]


@pytest.mark.parametrize(
    "call",
    [
        "clock()",
        7,
        None,
        {},
        {"name": "clock"},
        {"name": 3, "args": {}},
        {"name": "clock", "args": "[]"},
        {"function": {"name": "clock", "arguments": "{"}},
        {"function": {"name": "clock", "arguments": "[" * 100_000}},
        {"function": 3},
        {"toolUse": None},
    ],
    ids=lambda call: repr(call)[:60],
)
def test_a_tool_call_in_an_unknown_format_becomes_an_invalid_tool_call(call: Any) -> None:
    message = from_chatledger(Message.assistant(extra={"tool_calls": [call]}))
    assert isinstance(message, AIMessage)
    assert message.tool_calls == []
    assert [found["error"] for found in message.invalid_tool_calls] != []


def test_usage_and_model_of_a_reply_are_put_where_langchain_puts_them() -> None:
    extra: dict[str, Json] = {
        "model": "offline",
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
    message = from_chatledger(Message.assistant("Hi", extra=extra))
    assert isinstance(message, AIMessage)
    assert message.usage_metadata == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert message.response_metadata == {"model_name": "offline", "stop_reason": "end_turn"}


@given(
    role=st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
    extra=objects
    | st.fixed_dictionaries(
        {},
        optional={
            "langchain": values
            | st.fixed_dictionaries({"type": st.sampled_from(["ai", "tool", "chat"]) | values}),
            "tool_calls": values | st.lists(objects),
            "tool_call_id": values,
            "name": values,
            "usage": values,
            "model": values,
        },
    ),
)
@examples_of(200)
def test_a_message_with_any_extra_can_be_read(role: str, extra: dict[str, Json]) -> None:
    body = {"role": role, "content": "Hi", "id": "h-1", "extra": extra}
    message = decode_body(body | {"created_at": "2026-05-01T12:00:00Z"}, seq=1)
    read = from_chatledger(message)
    assert isinstance(read, BaseMessage)
    assert (read.content, read.id) == ("Hi", "h-1")
