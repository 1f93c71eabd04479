"""Replies of the server, whole and streamed, and their usage."""

import json
import time
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from chatledger.testing.bedrock_server import (
    BedrockServer,
    FailsMidStream,
    Request,
    Says,
    ToolUse,
    UsesTool,
)
from tests.testing.bedrock_server.client import (
    HELLO,
    MICRO,
    ONCE,
    SONNET,
    HttpResponse,
    events,
    reply_text,
    send,
)
from tests.testing.bedrock_server.rule_violations import POINT, TOOLS, assistant, conversation, user


@pytest.fixture
def client(bedrock_server: BedrockServer) -> Any:
    return bedrock_server.client(ONCE)


def event_names(events: list[dict[str, Any]]) -> list[str]:
    return [name for event in events for name in event]


def test_a_streamed_reply_has_one_event_for_each_piece(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(Says(["Добрий ", "день 👋", "!"]))
    assert events(client) == [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"text": "Добрий "}, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"text": "день 👋"}, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"text": "!"}, "contentBlockIndex": 0}},
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "end_turn"}},
        {
            "metadata": {
                "usage": {
                    "inputTokens": 5,
                    "outputTokens": 3,
                    "totalTokens": 8,
                    "cacheReadInputTokens": 0,
                    "cacheWriteInputTokens": 0,
                },
                "metrics": {"latencyMs": 1},
            }
        },
    ]


def test_every_frame_has_its_headers_and_padding(bedrock_server: BedrockServer) -> None:
    bedrock_server.script(UsesTool("weather", {}, saying="Hm."), FailsMidStream(after=0))
    frames = [
        frame
        for _ in range(2)
        for frame in frames_of(
            send(bedrock_server, {**HELLO, "toolConfig": TOOLS}, operation="converse-stream")
        )
    ]
    json_events = {":content-type": "application/json", ":message-type": "event"}
    *regular, failure = frames
    for frame in regular:
        assert frame.headers == {**json_events, ":event-type": frame.headers[":event-type"]}
        assert json.loads(frame.payload)["p"].startswith("abc")
    assert {frame.headers[":event-type"] for frame in regular} == {
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    }
    assert failure.headers == {
        ":content-type": "application/json",
        ":message-type": "exception",
        ":exception-type": "internalServerException",
    }
    assert list(json.loads(failure.payload)) == ["message"]


def frames_of(response: HttpResponse) -> list[Any]:
    assert response.headers["content-type"] == "application/vnd.amazon.eventstream"
    buffer = EventStreamBuffer()
    buffer.add_data(response.content)
    return list(buffer)


def test_a_whole_reply_is_the_concatenation_of_its_pieces(
    bedrock_server: BedrockServer, client: Any
) -> None:
    reply = Says(
        "Well, then.", reasoning="He asks.", uses=[ToolUse("weather", {"city": "Київ"}, id="u")]
    )
    bedrock_server.script(reply, reply)
    response = client.converse(modelId=SONNET, **HELLO, toolConfig=TOOLS)
    assert response["output"]["message"] == {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "He asks.", "signature": "c2lnbmVk"}}},
            {"text": "Well, then."},
            {"toolUse": {"toolUseId": "u", "name": "weather", "input": {"city": "Київ"}}},
        ],
    }
    assert response["stopReason"] == "tool_use"
    last = events(client, toolConfig=TOOLS)[-1]["metadata"]
    assert (response["usage"], response["metrics"]) == (last["usage"], last["metrics"])


def test_a_tool_use_starts_a_block_and_its_input_comes_in_parts(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(UsesTool("weather", {"city": "Kyiv"}, id="u1"))
    seen = events(client, toolConfig=TOOLS)
    start = {"toolUse": {"toolUseId": "u1", "name": "weather"}}
    assert seen[1] == {"contentBlockStart": {"start": start, "contentBlockIndex": 0}}
    parts = [event["contentBlockDelta"]["delta"]["toolUse"]["input"] for event in seen[2:6]]
    assert parts[0] == ""
    assert "".join(parts) == '{"city": "Kyiv"}'
    assert event_names(seen[6:]) == ["contentBlockStop", "messageStop", "metadata"]


@pytest.mark.parametrize(
    "reason",
    [
        "end_turn",
        "tool_use",
        "max_tokens",
        "stop_sequence",
        "guardrail_intervened",
        "content_filtered",
        "malformed_model_output",
        "malformed_tool_use",
        "model_context_window_exceeded",
    ],
)
def test_a_reply_may_have_any_stop_reason(
    bedrock_server: BedrockServer, client: Any, reason: str
) -> None:
    bedrock_server.script(*[Says("So.", stop_reason=reason)] * 2)
    assert {"messageStop": {"stopReason": reason}} in events(client)
    assert client.converse(modelId=SONNET, **HELLO)["stopReason"] == reason


def test_a_reply_may_be_empty(bedrock_server: BedrockServer, client: Any) -> None:
    bedrock_server.script(Says(), Says(""))
    assert event_names(events(client)) == ["messageStart", "messageStop", "metadata"]
    assert client.converse(modelId=SONNET, **HELLO)["output"]["message"]["content"] == []


def test_delay_and_pause_slow_a_reply_down(bedrock_server: BedrockServer, client: Any) -> None:
    bedrock_server.script(Says("One two three", delay=0.1, pause=0.05))
    started = time.monotonic()
    seen = events(client)
    assert time.monotonic() - started >= 0.2
    assert seen[-1]["metadata"]["metrics"]["latencyMs"] == 201


def test_the_servers_pace_applies_to_all_replies() -> None:
    with BedrockServer(pace=0.02) as server:
        started = time.monotonic()
        seen = events(server.client(ONCE), inferenceConfig={"maxTokens": 6})
        assert time.monotonic() - started >= 0.1
        assert len(seen) == 1 + 6 + 3


def test_without_a_script_the_reply_depends_on_the_conversation(client: Any) -> None:
    messages = conversation(
        user({"text": "Hi, I am Ada."}), assistant({"text": "Hello!"}), user({"text": "Who am I?"})
    )
    twice = [reply_text(events(client, **messages)) for _ in range(2)]
    assert twice == ["Your name is Ada. You told me so in this conversation."] * 2


def test_the_offline_reply_is_cut_after_max_tokens(client: Any) -> None:
    seen = events(client, inferenceConfig={"maxTokens": 3})
    assert reply_text(seen) == "Hello, Ada! I"
    assert {"messageStop": {"stopReason": "max_tokens"}} in seen
    assert seen[-1]["metadata"]["usage"]["outputTokens"] == 3


def test_the_offline_reply_is_cut_at_a_stop_sequence(client: Any) -> None:
    seen = events(client, inferenceConfig={"stopSequences": ["never", "demo"]})
    assert reply_text(seen) == "Hello, Ada! I am Chatledger's offline "
    assert {"messageStop": {"stopReason": "stop_sequence"}} in seen


def test_a_responder_chooses_the_response_to_a_request() -> None:
    def echo(request: Request) -> Says:
        return Says(request.body["messages"][-1]["content"][0]["text"])

    with BedrockServer(responder=echo) as server:
        assert reply_text(events(server.client(ONCE))) == "Hello, I am Ada."


def test_requests_are_recorded(bedrock_server: BedrockServer, client: Any) -> None:
    client.converse(modelId=MICRO, **HELLO)
    events(client)
    whole, streamed = bedrock_server.wait_for_requests(2)
    assert (whole.operation, whole.model_id, whole.is_streaming) == ("Converse", MICRO, False)
    assert (streamed.operation, streamed.model_id) == ("ConverseStream", SONNET)
    assert whole.body == streamed.body == HELLO
    assert "AWS4-HMAC-SHA256" in whole.headers["authorization"]
    assert "Ada" not in repr(whole)


def test_a_reset_clears_the_script_and_the_requests(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(Says("One."), Says("Two."))
    assert reply_text(events(client)) == "One."
    bedrock_server.reset()
    assert bedrock_server.requests == []
    assert reply_text(events(client)).startswith("Hello, Ada!")


def test_a_prefix_up_to_a_cache_point_is_read_from_the_cache_the_second_time(
    bedrock_server: BedrockServer, client: Any
) -> None:
    def usage(*, system: str, question: str) -> tuple[int, int, int]:
        response = client.converse(
            modelId=SONNET,
            system=[{"text": system}, POINT],
            **conversation(user({"text": question})),
        )
        counted = response["usage"]
        parts = [counted[f"cache{kind}InputTokens"] for kind in ("Read", "Write")]
        assert counted["totalTokens"] == (
            counted["inputTokens"] + sum(parts) + counted["outputTokens"]
        )
        return counted["inputTokens"], parts[0], parts[1]

    long = "rule " * 4000
    assert usage(system=long, question="Hi!!") == (2, 0, 5000)
    assert usage(system=long, question="And now?") == (3, 5000, 0)
    assert usage(system=f"New {long}", question="Hi!!") == (2, 0, 5001)
    assert usage(system="too short to be cached", question="Hi!!") == (8, 0, 0)
    bedrock_server.reset()
    assert usage(system=long, question="Hi!!") == (2, 0, 5000)
