"""What the server says, whole and in pieces, and what it counts."""

import json
import time
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from chatledger.testing.bedrock_server import (
    BedrockServer,
    FailsMidway,
    Request,
    Says,
    Use,
    UsesTool,
)
from tests.testing.bedrock_server.broken_rules import POINT, TOOLS, assistant, said, user
from tests.testing.bedrock_server.requests_for_tests import (
    HELLO,
    MICRO,
    ONCE,
    SONNET,
    Answered,
    asks,
    events,
    text,
)


@pytest.fixture
def client(bedrock_server: BedrockServer) -> Any:
    return bedrock_server.client(ONCE)


def kinds(of: list[dict[str, Any]]) -> list[str]:
    return [kind for event in of for kind in event]


def test_a_reply_in_pieces_is_each_piece_in_its_frame(
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


def test_every_frame_says_what_it_is_and_is_padded(bedrock_server: BedrockServer) -> None:
    bedrock_server.script(UsesTool("weather", {}, saying="Hm."), FailsMidway(after=0))
    frames = [
        frame
        for _ in range(2)
        for frame in in_frames(
            asks(bedrock_server, {**HELLO, "toolConfig": TOOLS}, operation="converse-stream")
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


def in_frames(answer: Answered) -> list[Any]:
    assert answer.headers["content-type"] == "application/vnd.amazon.eventstream"
    buffer = EventStreamBuffer()
    buffer.add_data(answer.content)
    return list(buffer)


def test_a_whole_reply_is_its_pieces_together(bedrock_server: BedrockServer, client: Any) -> None:
    said = Says(
        "Well, then.", reasoning="He asks.", uses=[Use("weather", {"city": "Київ"}, id="u")]
    )
    bedrock_server.script(said, said)
    answer = client.converse(modelId=SONNET, **HELLO, toolConfig=TOOLS)
    assert answer["output"]["message"] == {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "He asks.", "signature": "c2lnbmVk"}}},
            {"text": "Well, then."},
            {"toolUse": {"toolUseId": "u", "name": "weather", "input": {"city": "Київ"}}},
        ],
    }
    assert answer["stopReason"] == "tool_use"
    last = events(client, toolConfig=TOOLS)[-1]["metadata"]
    assert (answer["usage"], answer["metrics"]) == (last["usage"], last["metrics"])


def test_a_tool_use_is_announced_and_its_input_comes_in_parts(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(UsesTool("weather", {"city": "Kyiv"}, id="u1"))
    seen = events(client, toolConfig=TOOLS)
    start = {"toolUse": {"toolUseId": "u1", "name": "weather"}}
    assert seen[1] == {"contentBlockStart": {"start": start, "contentBlockIndex": 0}}
    parts = [event["contentBlockDelta"]["delta"]["toolUse"]["input"] for event in seen[2:6]]
    assert parts[0] == ""
    assert "".join(parts) == '{"city": "Kyiv"}'
    assert kinds(seen[6:]) == ["contentBlockStop", "messageStop", "metadata"]


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
def test_a_reply_stops_for_any_reason(
    bedrock_server: BedrockServer, client: Any, reason: str
) -> None:
    bedrock_server.script(*[Says("So.", stop_reason=reason)] * 2)
    assert {"messageStop": {"stopReason": reason}} in events(client)
    assert client.converse(modelId=SONNET, **HELLO)["stopReason"] == reason


def test_a_reply_may_be_nothing(bedrock_server: BedrockServer, client: Any) -> None:
    bedrock_server.script(Says(), Says(""))
    assert kinds(events(client)) == ["messageStart", "messageStop", "metadata"]
    assert client.converse(modelId=SONNET, **HELLO)["output"]["message"]["content"] == []


def test_a_reply_takes_its_time(bedrock_server: BedrockServer, client: Any) -> None:
    bedrock_server.script(Says("One two three", delay=0.1, pause=0.05))
    begun = time.monotonic()
    seen = events(client)
    assert time.monotonic() - begun >= 0.2
    assert seen[-1]["metadata"]["metrics"]["latencyMs"] == 201


def test_a_pace_holds_for_all_replies() -> None:
    with BedrockServer(pace=0.02) as server:
        begun = time.monotonic()
        seen = events(server.client(ONCE), inferenceConfig={"maxTokens": 6})
        assert time.monotonic() - begun >= 0.1
        assert len(seen) == 1 + 6 + 3


def test_without_a_script_the_conversation_is_remembered(client: Any) -> None:
    talk = said(
        user({"text": "Hi, I am Ada."}), assistant({"text": "Hello!"}), user({"text": "Who am I?"})
    )
    twice = [text(events(client, **talk)) for _ in range(2)]
    assert twice == ["Your name is Ada. You told me so in this conversation."] * 2


def test_the_offline_reply_is_cut_after_the_most_tokens(client: Any) -> None:
    seen = events(client, inferenceConfig={"maxTokens": 3})
    assert text(seen) == "Hello, Ada! I"
    assert {"messageStop": {"stopReason": "max_tokens"}} in seen
    assert seen[-1]["metadata"]["usage"]["outputTokens"] == 3


def test_the_offline_reply_is_cut_at_a_stop_sequence(client: Any) -> None:
    seen = events(client, inferenceConfig={"stopSequences": ["never", "demo"]})
    assert text(seen) == "Hello, Ada! I am Chatledger's offline "
    assert {"messageStop": {"stopReason": "stop_sequence"}} in seen


def test_the_answer_may_be_a_function_of_the_request() -> None:
    def echo(request: Request) -> Says:
        return Says(request.body["messages"][-1]["content"][0]["text"])

    with BedrockServer(answering=echo) as server:
        assert text(events(server.client(ONCE))) == "Hello, I am Ada."


def test_what_was_asked_is_there_to_look_at(bedrock_server: BedrockServer, client: Any) -> None:
    client.converse(modelId=MICRO, **HELLO)
    events(client)
    whole, streamed = bedrock_server.wait_requests(2)
    assert (whole.operation, whole.model_id, whole.streams) == ("Converse", MICRO, False)
    assert (streamed.operation, streamed.model_id) == ("ConverseStream", SONNET)
    assert whole.body == streamed.body == HELLO
    assert "AWS4-HMAC-SHA256" in whole.headers["authorization"]
    assert "Ada" not in repr(whole)


def test_a_reset_forgets_script_and_requests(bedrock_server: BedrockServer, client: Any) -> None:
    bedrock_server.script(Says("One."), Says("Two."))
    assert text(events(client)) == "One."
    bedrock_server.reset()
    assert bedrock_server.requests == []
    assert text(events(client)).startswith("Hello, Ada!")


def test_what_stands_before_a_cache_point_is_read_from_the_cache_the_second_time(
    bedrock_server: BedrockServer, client: Any
) -> None:
    def usage(*, system: str, question: str) -> tuple[int, int, int]:
        answer = client.converse(
            modelId=SONNET, system=[{"text": system}, POINT], **said(user({"text": question}))
        )
        counted = answer["usage"]
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
