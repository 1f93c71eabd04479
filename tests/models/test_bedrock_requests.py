"""The request that a conversation becomes."""

import json
from base64 import b64encode
from typing import Any

import pytest

from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel, Guardrail
from chatledger.models.bedrock.content import valid_id
from chatledger.models.bedrock.requests import (
    RequestSettings,
    bedrock_tool_choice,
    bedrock_tools,
    encode_body,
    request_body,
)
from chatledger.models.content import valid_name

PNG = b"\x89PNG\r\n\x1a\n and so on"
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = bedrock_tools([WEATHER])


def call(id: str = "call_1", **changes: Any) -> dict[str, Any]:
    made = {"id": id, "name": "weather", "args": {"city": "Kyiv"}, "type": "tool_call"}
    return made | changes


def body(*messages: Message, system_prompt: str | None = None, **settings: Any) -> dict[str, Any]:
    return request_body(messages, system_prompt, RequestSettings(**settings))


def only_content(message: Message) -> Any:
    [converse_message] = body(message)["messages"]
    return converse_message["content"]


def test_settings_that_are_left_out_are_not_sent() -> None:
    assert body(Message.user("Hello")) == {
        "messages": [{"role": "user", "content": [{"text": "Hello"}]}]
    }


def test_settings_have_bedrocks_names() -> None:
    sent = body(
        Message.user("Hello"),
        max_tokens=5,
        temperature=0.0,
        top_p=0.5,
        stop_sequences=("END",),
        additional_fields={"top_k": 3},
        guardrail=Guardrail("g1", "2", "async"),
    )
    assert sent["inferenceConfig"] == {
        "maxTokens": 5,
        "temperature": 0.0,
        "topP": 0.5,
        "stopSequences": ["END"],
    }
    assert sent["additionalModelRequestFields"] == {"top_k": 3}
    assert sent["guardrailConfig"] == {
        "guardrailIdentifier": "g1",
        "guardrailVersion": "2",
        "streamProcessingMode": "async",
    }


def test_a_leading_system_message_follows_the_system_prompt() -> None:
    sent = body(
        Message.system("They live in Bergen."), Message.user("Hello"), system_prompt="Be brief."
    )
    assert sent["system"] == [{"text": "Be brief."}, {"text": "They live in Bergen."}]
    assert [each["role"] for each in sent["messages"]] == ["user"]


@pytest.mark.parametrize("system_prompt", [None, "", "  \n"])
def test_a_blank_system_prompt_is_not_sent(system_prompt: str | None) -> None:
    assert "system" not in body(Message.user("Hello"), system_prompt=system_prompt)


def test_tool_results_and_the_next_user_message_are_one_message() -> None:
    sent = body(
        Message.user("How is the weather?"),
        Message.assistant("Let me look.", tool_calls=[call("a"), call("b")]),
        Message.tool("Rain", tool_call_id="a"),
        Message.tool([{"type": "text", "text": " "}], tool_call_id="b"),
        Message.user("Well?"),
        tools=TOOLS,
    )
    _, calling, answering = sent["messages"]
    assert [each["role"] for each in sent["messages"]] == ["user", "assistant", "user"]
    assert calling["content"] == [
        {"text": "Let me look."},
        {"toolUse": {"toolUseId": "a", "name": "weather", "input": {"city": "Kyiv"}}},
        {"toolUse": {"toolUseId": "b", "name": "weather", "input": {"city": "Kyiv"}}},
    ]
    assert answering["content"] == [
        {"toolResult": {"toolUseId": "a", "content": [{"text": "Rain"}]}},
        {"toolResult": {"toolUseId": "b", "content": [{"text": "(empty)"}]}},
        {"text": "Well?"},
    ]


def test_a_conversation_with_tool_calls_can_continue_without_tools() -> None:
    sent = body(
        Message.user("How is the weather?"),
        Message.assistant(tool_calls=[call()]),
        Message.tool("Rain", tool_call_id="call_1"),
    )
    assert "toolConfig" not in sent
    _, calling, answering = sent["messages"]
    assert calling["content"] == [{"text": '(The tool weather was called: {"city":"Kyiv"})'}]
    assert answering["content"] == [{"text": "(The tool weather answered: Rain)"}]


@pytest.mark.parametrize("id", ["", "call|1", "ü", "x" * 65, "a b"])
def test_an_id_that_bedrock_refuses_is_replaced_in_call_and_result(id: str) -> None:
    sent = body(
        Message.user("How is the weather?"),
        Message.assistant(tool_calls=[call(id)]),
        Message.tool("Rain", tool_call_id=id),
        tools=TOOLS,
    )
    _, calling, answering = sent["messages"]
    used = calling["content"][0]["toolUse"]["toolUseId"]
    assert used == answering["content"][0]["toolResult"]["toolUseId"] == valid_id(id) != id


def test_ids_that_are_used_again_later_are_made_unique() -> None:
    messages = [Message.user("How is the weather?")]
    for weather in ("Rain", "Sun", "Snow"):
        messages.append(Message.assistant(tool_calls=[call("call_0")]))
        messages.append(Message.tool(weather, tool_call_id="call_0"))
    converse_messages = body(*messages, tools=TOOLS)["messages"]
    used = [each["content"][0]["toolUse"]["toolUseId"] for each in converse_messages[1::2]]
    answered = [each["content"][0]["toolResult"]["toolUseId"] for each in converse_messages[2::2]]
    assert used == answered
    assert len(set(used)) == 3
    assert body(*messages, tools=TOOLS)["messages"] == converse_messages


def test_a_tool_name_that_bedrock_refuses_is_replaced_by_a_readable_one() -> None:
    assert valid_name("weather") == "weather"
    made = valid_name("get.weather for " + "x" * 80)
    assert made.startswith("get_weather_for_")
    assert valid_name(made) == made


@pytest.mark.parametrize(
    ("args", "expected"),
    [(None, {}), ([1], {"args": [1]}), ("x", {"args": "x"}), ({"a": 1}, {"a": 1})],
)
def test_arguments_are_always_an_object(args: Any, expected: Any) -> None:
    sent = body(
        Message.user("?"),
        Message.assistant(tool_calls=[call(args=args)]),
        Message.tool("!", tool_call_id="call_1"),
        tools=TOOLS,
    )
    assert sent["messages"][1]["content"][0]["toolUse"]["input"] == expected


def test_tools_may_be_plain_or_in_bedrocks_form() -> None:
    [plain] = TOOLS
    schema = {"json": WEATHER["input_schema"]}
    spec = {"name": "weather", "description": "Tells the weather.", "inputSchema": schema}
    assert plain == {"toolSpec": spec}
    assert bedrock_tools([plain]) == [plain]
    assert bedrock_tools([{"name": "now"}]) == [
        {"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object", "properties": {}}}}}
    ]


def test_a_tool_choice_may_be_a_name_or_left_to_the_model() -> None:
    assert bedrock_tool_choice("any", TOOLS) == {"any": {}}
    assert bedrock_tool_choice("weather", TOOLS) == {"tool": {"name": "weather"}}
    assert bedrock_tool_choice({"auto": {}}, TOOLS) == {"auto": {}}
    sent = body(Message.user("?"), tools=TOOLS, tool_choice=bedrock_tool_choice("auto", TOOLS))
    assert sent["toolConfig"] == {"tools": TOOLS, "toolChoice": {"auto": {}}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": [{"name": "get.weather"}]},
        {"tools": [{"description": "none"}]},
        {"tools": [{"toolSpec": {"name": ""}}]},
        {"tools": ["weather"]},
        {"tool_choice": "auto"},
        {"tools": [WEATHER], "tool_choice": "other"},
    ],
)
def test_invalid_tools_are_refused_when_the_model_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        BedrockModel("amazon.nova-lite-v1:0", **wrong)


# Content -----------------------------------------------------------------------------------------


def test_text_is_recognised_in_every_form_and_blank_text_is_left_out() -> None:
    content: Any = ["Hel", {"type": "text", "text": "lo"}, {"text": "!"}, " ", {"text": "\n"}]
    assert only_content(Message.user(content)) == [{"text": "Hel"}, {"text": "lo"}, {"text": "!"}]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": b64encode(PNG).decode(), "mime_type": "image/png"},
        {"type": "image", "source_type": "base64", "data": b64encode(PNG).decode()},
        {"type": "image", "source": {"type": "base64", "data": b64encode(PNG).decode()}},
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{b64encode(PNG).decode()}"},
        },
        {"type": "input_image", "image_url": f"data:image/png;base64,{b64encode(PNG).decode()}"},
    ],
)
def test_an_embedded_image_is_sent(block: dict[str, Any]) -> None:
    image = {"image": {"format": "png", "source": {"bytes": PNG}}}
    assert only_content(Message.user(["Look", block])) == [{"text": "Look"}, image]
    decoded = json.loads(encode_body(body(Message.user([block]))))
    assert decoded["messages"][0]["content"][0]["image"]["source"] == {
        "bytes": b64encode(PNG).decode()
    }


@pytest.mark.parametrize(
    ("header", "image_format"),
    [(b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "webp")],
)
def test_the_format_of_an_image_is_detected_and_not_the_declared_one(
    header: bytes, image_format: str
) -> None:
    block: Any = {"type": "image", "base64": b64encode(header).decode(), "mime_type": "image/png"}
    assert only_content(Message.user([block]))[0]["image"]["format"] == image_format


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "image", "url": "https://example.com/cat.png"},
        {"type": "image", "base64": "no base64!"},
        {"type": "image", "base64": b64encode(b"<svg/>").decode()},
        {"type": "image", "base64": b64encode(PNG + bytes(3_750_000)).decode()},
        {"type": "image"},
    ],
)
def test_an_image_that_cannot_be_sent_is_mentioned(block: dict[str, Any]) -> None:
    assert only_content(Message.user([block])) == [{"text": "(an image that cannot be shown)"}]


def test_images_beyond_bedrocks_limit_are_mentioned() -> None:
    block: Any = {"type": "image", "base64": b64encode(PNG).decode()}
    content = only_content(Message.user([block] * 21))
    assert ["image" in block for block in content] == [True] * 20 + [False]


def test_images_of_a_tool_or_the_assistant_are_mentioned() -> None:
    block: Any = {"type": "image", "base64": b64encode(PNG).decode()}
    sent = body(
        Message.user("Draw"),
        Message.assistant([block], tool_calls=[call()]),
        Message.tool([block], tool_call_id="call_1"),
        tools=TOOLS,
    )
    note = {"text": "(an image that cannot be shown)"}
    _, calling, answering = sent["messages"]
    assert calling["content"][0] == note
    assert answering["content"][0]["toolResult"]["content"] == [note]


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("file", "(a file that cannot be shown)"),
        ("input_audio", "(a recording that cannot be shown)"),
        ("video", "(a video that cannot be shown)"),
        ("unheard_of", "(something that cannot be shown)"),
    ],
)
def test_other_kinds_of_content_are_mentioned(kind: str, note: str) -> None:
    assert only_content(Message.user([{"type": kind}])) == [{"text": note}]


def test_thoughts_and_tool_calls_in_the_content_are_left_out() -> None:
    sent = body(
        Message.user("?"),
        Message.assistant(
            [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"reasoningContent": {"reasoningText": {"text": "hm"}}},
                {"type": "text", "text": "I see."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
            ]
        ),
        Message.user("Go on"),
    )
    assert sent["messages"][1]["content"] == [{"text": "I see."}]


def test_content_is_never_empty() -> None:
    sent = body(Message.user([]), Message.assistant([{"type": "thinking"}]), Message.user("Well?"))
    assert [each["content"] for each in sent["messages"]] == [
        [{"text": "(empty)"}],
        [{"text": "(empty)"}],
        [{"text": "Well?"}],
    ]


# Prompt caching ----------------------------------------------------------------------------------

POINT = {"cachePoint": {"type": "default"}}


def test_cache_points_follow_the_system_prompt_and_the_last_two_user_messages() -> None:
    messages = [Message.user("1"), Message.assistant("2"), Message.user("3")]
    messages += [Message.assistant("4"), Message.user("5")]
    sent = body(*messages, system_prompt="Be brief.", cache=True, tools=TOOLS)
    assert sent["system"] == [{"text": "Be brief."}, POINT]
    assert sent["toolConfig"]["tools"] == TOOLS
    has_point = [POINT in each["content"] for each in sent["messages"]]
    assert has_point == [False, False, True, False, True]


def test_without_a_system_prompt_the_tools_are_cached() -> None:
    sent = body(Message.user("1"), cache=True, tools=TOOLS)
    assert sent["toolConfig"]["tools"] == [*TOOLS, POINT]
    assert len(TOOLS) == 1  # the model's own list is unchanged


def test_the_next_request_begins_with_the_cached_part_of_the_last_one() -> None:
    """It contains the last request up to its last cache point, and has a point there too."""
    first = [Message.user("1"), Message.assistant("2"), Message.user("3")]
    second = [*first, Message.assistant("4"), Message.user("5")]
    before, after = body(*first, cache=True), body(*second, cache=True)
    assert before["messages"][2] == after["messages"][2]
    assert before["messages"][2]["content"][-1] == POINT
