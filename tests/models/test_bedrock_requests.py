"""What Bedrock is asked, from what a conversation holds."""

import json
from base64 import b64encode
from typing import Any

import pytest

from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel, Guardrail
from chatledger.models.bedrock.requests import encoded, request
from chatledger.models.bedrock.settings import Settings
from chatledger.models.bedrock.tools import choice, definitions, valid_id, valid_name

PNG = b"\x89PNG\r\n\x1a\n and so on"
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = definitions([WEATHER])


def call(id: str = "call_1", **changes: Any) -> dict[str, Any]:
    made = {"id": id, "name": "weather", "args": {"city": "Kyiv"}, "type": "tool_call"}
    return made | changes


def body(*messages: Message, system_prompt: str | None = None, **settings: Any) -> dict[str, Any]:
    return request(messages, system_prompt, Settings(**settings))


def only_content(message: Message) -> Any:
    [turn] = body(message)["messages"]
    return turn["content"]


def test_what_is_not_asked_for_is_not_sent() -> None:
    assert body(Message.user("Hello")) == {
        "messages": [{"role": "user", "content": [{"text": "Hello"}]}]
    }


def test_settings_go_by_bedrocks_names() -> None:
    asked = body(
        Message.user("Hello"),
        max_tokens=5,
        temperature=0.0,
        top_p=0.5,
        stop_sequences=("END",),
        additional_fields={"top_k": 3},
        guardrail=Guardrail("g1", "2", "async"),
    )
    assert asked["inferenceConfig"] == {
        "maxTokens": 5,
        "temperature": 0.0,
        "topP": 0.5,
        "stopSequences": ["END"],
    }
    assert asked["additionalModelRequestFields"] == {"top_k": 3}
    assert asked["guardrailConfig"] == {
        "guardrailIdentifier": "g1",
        "guardrailVersion": "2",
        "streamProcessingMode": "async",
    }


def test_a_leading_system_message_follows_the_system_prompt() -> None:
    asked = body(
        Message.system("They live in Bergen."), Message.user("Hello"), system_prompt="Be brief."
    )
    assert asked["system"] == [{"text": "Be brief."}, {"text": "They live in Bergen."}]
    assert [turn["role"] for turn in asked["messages"]] == ["user"]


@pytest.mark.parametrize("system_prompt", [None, "", "  \n"])
def test_a_blank_system_prompt_is_none(system_prompt: str | None) -> None:
    assert "system" not in body(Message.user("Hello"), system_prompt=system_prompt)


def test_results_and_what_the_user_says_then_are_one_turn_and_results_come_first() -> None:
    asked = body(
        Message.user("How is the weather?"),
        Message.assistant("Let me look.", tool_calls=[call("a"), call("b")]),
        Message.tool("Rain", tool_call_id="a"),
        Message.tool([{"type": "text", "text": " "}], tool_call_id="b"),
        Message.user("Well?"),
        tools=TOOLS,
    )
    _, looked, answered = asked["messages"]
    assert [turn["role"] for turn in asked["messages"]] == ["user", "assistant", "user"]
    assert looked["content"] == [
        {"text": "Let me look."},
        {"toolUse": {"toolUseId": "a", "name": "weather", "input": {"city": "Kyiv"}}},
        {"toolUse": {"toolUseId": "b", "name": "weather", "input": {"city": "Kyiv"}}},
    ]
    assert answered["content"] == [
        {"toolResult": {"toolUseId": "a", "content": [{"text": "Rain"}]}},
        {"toolResult": {"toolUseId": "b", "content": [{"text": "(empty)"}]}},
        {"text": "Well?"},
    ]


def test_what_began_with_tools_goes_on_without_them() -> None:
    asked = body(
        Message.user("How is the weather?"),
        Message.assistant(tool_calls=[call()]),
        Message.tool("Rain", tool_call_id="call_1"),
    )
    assert "toolConfig" not in asked
    _, looked, answered = asked["messages"]
    assert looked["content"] == [{"text": '(The tool weather was called: {"city":"Kyiv"})'}]
    assert answered["content"] == [{"text": "(The tool weather answered: Rain)"}]


@pytest.mark.parametrize("id", ["", "call|1", "ü", "x" * 65, "a b"])
def test_an_id_that_bedrock_refuses_becomes_another_for_call_and_result(id: str) -> None:
    asked = body(
        Message.user("How is the weather?"),
        Message.assistant(tool_calls=[call(id)]),
        Message.tool("Rain", tool_call_id=id),
        tools=TOOLS,
    )
    _, looked, answered = asked["messages"]
    used = looked["content"][0]["toolUse"]["toolUseId"]
    assert used == answered["content"][0]["toolResult"]["toolUseId"] == valid_id(id) != id


def test_ids_that_come_again_in_later_turns_are_kept_apart() -> None:
    messages = [Message.user("How is the weather?")]
    for weather in ("Rain", "Sun", "Snow"):
        messages.append(Message.assistant(tool_calls=[call("call_0")]))
        messages.append(Message.tool(weather, tool_call_id="call_0"))
    turns = body(*messages, tools=TOOLS)["messages"]
    used = [turn["content"][0]["toolUse"]["toolUseId"] for turn in turns[1::2]]
    answered = [turn["content"][0]["toolResult"]["toolUseId"] for turn in turns[2::2]]
    assert used == answered
    assert len(set(used)) == 3
    assert body(*messages, tools=TOOLS)["messages"] == turns


def test_a_tools_name_that_bedrock_refuses_can_still_be_read() -> None:
    assert valid_name("weather") == "weather"
    made = valid_name("get.weather for " + "x" * 80)
    assert made.startswith("get_weather_for_")
    assert valid_name(made) == made


@pytest.mark.parametrize(
    ("args", "sent"), [(None, {}), ([1], {"args": [1]}), ("x", {"args": "x"}), ({"a": 1}, {"a": 1})]
)
def test_arguments_are_an_object(args: Any, sent: Any) -> None:
    asked = body(
        Message.user("?"),
        Message.assistant(tool_calls=[call(args=args)]),
        Message.tool("!", tool_call_id="call_1"),
        tools=TOOLS,
    )
    assert asked["messages"][1]["content"][0]["toolUse"]["input"] == sent


def test_tools_are_taken_plain_or_in_bedrocks_own_form() -> None:
    [plain] = TOOLS
    schema = {"json": WEATHER["input_schema"]}
    spec = {"name": "weather", "description": "Tells the weather.", "inputSchema": schema}
    assert plain == {"toolSpec": spec}
    assert definitions([plain]) == [plain]
    assert definitions([{"name": "now"}]) == [
        {"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object", "properties": {}}}}}
    ]


def test_a_tool_that_must_be_called_is_named_or_left_to_the_model() -> None:
    assert choice("any", TOOLS) == {"any": {}}
    assert choice("weather", TOOLS) == {"tool": {"name": "weather"}}
    assert choice({"auto": {}}, TOOLS) == {"auto": {}}
    asked = body(Message.user("?"), tools=TOOLS, tool_choice=choice("auto", TOOLS))
    assert asked["toolConfig"] == {"tools": TOOLS, "toolChoice": {"auto": {}}}


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
def test_tools_that_cannot_be_are_refused_when_the_model_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        BedrockModel("amazon.nova-lite-v1:0", **wrong)


# Content -----------------------------------------------------------------------------------------


def test_text_is_known_in_every_form_and_what_is_blank_is_left_out() -> None:
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
def test_an_image_that_comes_along_is_passed_on(block: dict[str, Any]) -> None:
    image = {"image": {"format": "png", "source": {"bytes": PNG}}}
    assert only_content(Message.user(["Look", block])) == [{"text": "Look"}, image]
    sent = json.loads(encoded(body(Message.user([block]))))
    assert sent["messages"][0]["content"][0]["image"]["source"] == {
        "bytes": b64encode(PNG).decode()
    }


@pytest.mark.parametrize(
    ("head", "form"),
    [(b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "webp")],
)
def test_an_image_is_of_the_kind_that_it_is_not_of_that_which_is_said(
    head: bytes, form: str
) -> None:
    block: Any = {"type": "image", "base64": b64encode(head).decode(), "mime_type": "image/png"}
    assert only_content(Message.user([block]))[0]["image"]["format"] == form


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
def test_an_image_that_cannot_be_passed_on_is_told_of(block: dict[str, Any]) -> None:
    assert only_content(Message.user([block])) == [{"text": "(an image that cannot be shown)"}]


def test_of_more_images_than_bedrock_takes_the_rest_is_told_of() -> None:
    block: Any = {"type": "image", "base64": b64encode(PNG).decode()}
    content = only_content(Message.user([block] * 21))
    assert ["image" in block for block in content] == [True] * 20 + [False]


def test_images_in_what_a_tool_or_the_assistant_says_are_told_of() -> None:
    block: Any = {"type": "image", "base64": b64encode(PNG).decode()}
    asked = body(
        Message.user("Draw"),
        Message.assistant([block], tool_calls=[call()]),
        Message.tool([block], tool_call_id="call_1"),
        tools=TOOLS,
    )
    note = {"text": "(an image that cannot be shown)"}
    _, drawn, answered = asked["messages"]
    assert drawn["content"][0] == note
    assert answered["content"][0]["toolResult"]["content"] == [note]


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("file", "(a file that cannot be shown)"),
        ("input_audio", "(a recording that cannot be shown)"),
        ("video", "(a video that cannot be shown)"),
        ("unheard_of", "(something that cannot be shown)"),
    ],
)
def test_other_kinds_are_told_of(kind: str, note: str) -> None:
    assert only_content(Message.user([{"type": kind}])) == [{"text": note}]


def test_thoughts_and_calls_within_the_content_are_left_out() -> None:
    asked = body(
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
    assert asked["messages"][1]["content"] == [{"text": "I see."}]


def test_content_is_never_empty() -> None:
    asked = body(Message.user([]), Message.assistant([{"type": "thinking"}]), Message.user("Well?"))
    assert [turn["content"] for turn in asked["messages"]] == [
        [{"text": "(empty)"}],
        [{"text": "(empty)"}],
        [{"text": "Well?"}],
    ]


# Prompt caching ----------------------------------------------------------------------------------

POINT = {"cachePoint": {"type": "default"}}


def test_cache_points_are_behind_the_system_prompt_and_the_last_two_user_turns() -> None:
    messages = [Message.user("1"), Message.assistant("2"), Message.user("3")]
    messages += [Message.assistant("4"), Message.user("5")]
    asked = body(*messages, system_prompt="Be brief.", cache=True, tools=TOOLS)
    assert asked["system"] == [{"text": "Be brief."}, POINT]
    assert asked["toolConfig"]["tools"] == TOOLS
    marked = [POINT in turn["content"] for turn in asked["messages"]]
    assert marked == [False, False, True, False, True]


def test_without_a_system_prompt_the_tools_are_cached() -> None:
    asked = body(Message.user("1"), cache=True, tools=TOOLS)
    assert asked["toolConfig"]["tools"] == [*TOOLS, POINT]
    assert len(TOOLS) == 1  # those of the model are not marked for good


def test_a_growing_conversation_begins_with_what_was_cached_before() -> None:
    """The second request holds the first, up to its last cache point, and has a point there."""
    first = [Message.user("1"), Message.assistant("2"), Message.user("3")]
    then = [*first, Message.assistant("4"), Message.user("5")]
    before, after = body(*first, cache=True), body(*then, cache=True)
    assert before["messages"][2] == after["messages"][2]
    assert before["messages"][2]["content"][-1] == POINT
