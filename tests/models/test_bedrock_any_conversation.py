"""Properties of requests: Bedrock accepts the request for any stored conversation."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatledger.messages import Message
from chatledger.models.bedrock.requests import (
    RequestSettings,
    bedrock_tools,
    encode_body,
    request_body,
)
from chatledger.testing.bedrock_server.models import KNOWN_MODELS
from chatledger.testing.bedrock_server.rules import ConverseRequest, check_rules
from chatledger.testing.bedrock_server.shapes import check_shape
from chatledger.windows import valid_for_models

CLAUDE = next(model for model in KNOWN_MODELS if "claude-sonnet-4-5" in model.id)
TOOLS = bedrock_tools([{"name": "weather", "description": "Tells the weather."}])

texts = st.sampled_from(["", " ", "Hello", "Bergen\n", "😀", "(empty)"])
ids = st.sampled_from(["a", "b", "call|1", "ü", "x" * 70, ""])
arguments: st.SearchStrategy[Any] = st.sampled_from([{}, {"city": "Kyiv"}, {"x": [1, None]}, None])
calls = st.fixed_dictionaries(
    {
        "id": ids,
        "name": st.sampled_from(["weather", "get.time", "n" * 80]),
        "args": arguments,
        "type": st.just("tool_call"),
    }
)
blocks: st.SearchStrategy[Any] = st.one_of(
    texts,
    texts.map(lambda text: {"type": "text", "text": text}),
    texts.map(lambda text: {"text": text}),
    st.sampled_from(
        [
            {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "file", "id": "f"},
            {},
            {"toolUse": {"toolUseId": "a", "name": "weather", "input": {}}},
            {"toolResult": {"toolUseId": "a", "content": [{"text": "Rain"}]}},
            {"type": "tool_use", "id": "b", "name": "weather", "input": {"city": "Kyiv"}},
            {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "image"}]},
            {"type": "text"},
        ]
    ),
)
contents: st.SearchStrategy[Any] = texts | st.lists(blocks, max_size=3)
messages = st.one_of(
    contents.map(Message.user),
    contents.map(Message.system),
    st.builds(Message.assistant, contents, tool_calls=st.lists(calls, max_size=3)),
    st.builds(Message.tool, contents, tool_call_id=ids),
)
conversations = st.lists(messages, max_size=12).map(lambda said: [*said, Message.user("Well?")])


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("tools", [[], TOOLS], ids=["without tools", "with tools"])
@given(conversation=conversations, system_prompt=st.none() | texts)
def test_bedrock_accepts_the_request_for_any_conversation(
    conversation: list[Message], system_prompt: str | None, tools: Any, cache: bool
) -> None:
    settings = RequestSettings(tools=tools, cache=cache)
    valid = valid_for_models(conversation)
    body = json.loads(encode_body(request_body(valid, system_prompt, settings)))
    check_shape("ConverseStream", body)
    check_rules(ConverseRequest(body, CLAUDE, is_streaming=True))


@given(conversation=conversations)
def test_everything_that_the_user_wrote_is_sent(conversation: list[Message]) -> None:
    valid = valid_for_models(conversation)
    converse_messages = request_body(valid, None, RequestSettings())["messages"]
    sent = [block.get("text") for each in converse_messages for block in each["content"]]
    for message in valid:
        if message.role == "user":
            parts = [message.content] if isinstance(message.content, str) else message.content
            texts = [part if isinstance(part, str) else part.get("text") for part in parts]
            assert {text for text in texts if text} <= {*sent}


@given(conversation=conversations)
def test_a_conversation_is_sent_the_same_way_each_time(conversation: list[Message]) -> None:
    valid = valid_for_models(conversation)
    settings = RequestSettings(tools=TOOLS)
    assert request_body(valid, "x", settings) == request_body(valid, "x", settings)
