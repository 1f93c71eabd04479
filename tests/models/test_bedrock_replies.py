"""Reading a reply from its events, and the events from the bytes of a stream."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import EventStreamError

from chatledger.aws.errors import STREAM_ERRORS, Problem, problem_of
from chatledger.errors import ModelUnavailable
from chatledger.models.bedrock.aiohttp_transport import decode_events
from chatledger.models.bedrock.replies import BedrockReplyReader, Event
from chatledger.models.protocol import Finished, Usage


def text(text: str, block: int = 0) -> Event:
    return {"contentBlockDelta": {"delta": {"text": text}, "contentBlockIndex": block}}


def use(*pieces: str, block: int = 1, id: str = "t1", name: str = "weather") -> Iterator[Event]:
    start = {"toolUse": {"toolUseId": id, "name": name}}
    yield {"contentBlockStart": {"start": start, "contentBlockIndex": block}}
    for piece in pieces:
        delta = {"toolUse": {"input": piece}}
        yield {"contentBlockDelta": {"delta": delta, "contentBlockIndex": block}}
    yield {"contentBlockStop": {"contentBlockIndex": block}}


def stop(reason: str = "end_turn") -> Event:
    return {"messageStop": {"stopReason": reason}}


def read_reply(*events: Event | Iterable[Event]) -> tuple[list[str], Finished]:
    reader = BedrockReplyReader()
    flat: list[Any] = []
    for event in events:
        flat += [event] if isinstance(event, dict) else event
    pieces = [piece for event in flat if (piece := reader.read(event))]
    return pieces, reader.finished()


def calls(*events: Event | Iterable[Event]) -> Any:
    return read_reply(*events)[1].tool_calls


def test_text_comes_in_pieces_and_none_is_empty() -> None:
    start = {"messageStart": {"role": "assistant"}}
    pieces, finished = read_reply(start, text("Hel"), text(""), text("lo"), stop())
    assert pieces == ["Hel", "lo"]
    assert finished == Finished("end_turn", tool_calls=[])


def test_input_tokens_include_the_cached_ones() -> None:
    usage = {
        "inputTokens": 10,
        "outputTokens": 5,
        "totalTokens": 345,
        "cacheReadInputTokens": 300,
        "cacheWriteInputTokens": 30,
    }
    _, finished = read_reply(stop(), {"metadata": {"usage": usage, "metrics": {"latencyMs": 700}}})
    assert finished.usage == Usage(340, 5, cached_tokens=300, cache_write_tokens=30)
    assert finished.latency_ms == 700


def test_usage_and_latency_that_are_not_reported_are_none() -> None:
    _, finished = read_reply(stop(), {"metadata": {}})
    assert finished.usage is None
    assert finished.latency_ms is None


def test_thoughts_and_unknown_events_are_ignored() -> None:
    thought = {"reasoningContent": {"text": "hm"}}
    events: list[Event] = [
        {"contentBlockDelta": {"delta": thought, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"citation": {}}, "contentBlockIndex": 0}},
        {"contentBlockStart": {"start": {"image": {}}, "contentBlockIndex": 3}},
        {"unheardOf": {}},
    ]
    assert read_reply(*events, text("Hi", 1), stop())[0] == ["Hi"]


def test_a_tool_call_is_put_together_from_its_fragments() -> None:
    made = calls(text("I look."), use("", '{"city": "Ky', 'iv"}'), stop("tool_use"))
    assert made == [{"id": "t1", "name": "weather", "args": {"city": "Kyiv"}, "type": "tool_call"}]


def test_a_call_without_arguments_has_none() -> None:
    assert calls(use(""), stop("tool_use"))[0]["args"] == {}


def test_calls_come_in_their_order() -> None:
    two = [*use("{}", block=1, id="a"), *use("{}", block=2, id="b")]
    assert [call["id"] for call in calls(two, stop("tool_use"))] == ["a", "b"]


@pytest.mark.parametrize(
    "fragment", ['{"city": "Ky', "[1]", '"x"', '{"n": NaN}', '{"s": "\\ud800"}', "[" * 100_000]
)
def test_a_malformed_tool_call_is_a_retryable_error(fragment: str) -> None:
    with pytest.raises(ModelUnavailable, match="malformed") as raised:
        read_reply(use(fragment), stop("tool_use"))
    assert raised.value.retryable


def test_a_malformed_call_that_the_service_reports_is_the_same_error() -> None:
    with pytest.raises(ModelUnavailable, match="malformed"):
        read_reply(stop("malformed_tool_use"))


@pytest.mark.parametrize("fragment", ['{"city": "Ky', ""])
def test_a_call_that_was_cut_off_at_the_token_limit_is_left_out(fragment: str) -> None:
    complete, cut_off = use("{}", block=1, id="a"), use(*filter(None, [fragment]), block=2, id="b")
    pieces, finished = read_reply(text("I look."), complete, cut_off, stop("max_tokens"))
    assert pieces == ["I look."]
    assert [call["id"] for call in finished.tool_calls] == ["a"]
    assert finished.stop_reason == "max_tokens"


def test_a_reply_without_its_end_was_cut_off() -> None:
    with pytest.raises(ModelUnavailable, match="was cut off"):
        read_reply(text("Hel"))


@pytest.mark.parametrize(
    "malformed",
    [
        {"messageStop": {}},
        {"messageStop": None},
        {"contentBlockStart": {"contentBlockIndex": 0, "start": {"toolUse": {}}}},
        {"contentBlockDelta": {"contentBlockIndex": 7, "delta": {"toolUse": {"input": "{"}}}},
        {"metadata": {"usage": {"inputTokens": None}}},
    ],
)
def test_a_malformed_event_is_a_retryable_error(malformed: Event) -> None:
    with pytest.raises(ModelUnavailable, match="reply was malformed"):
        read_reply(malformed)


# Event streams ----------------------------------------------------------------------------------


def frame(payload: bytes, **headers: str) -> bytes:
    """Encode a frame: https://smithy.io/2.0/aws/amazon-eventstream.html"""
    from binascii import crc32

    def sized(data: bytes, size: int) -> bytes:
        return len(data).to_bytes(size, "big") + data

    packed = b"".join(
        sized(f":{name.replace('_', '-')}".encode(), 1) + b"\x07" + sized(value.encode(), 2)
        for name, value in headers.items()
    )
    prelude = (16 + len(packed) + len(payload)).to_bytes(4, "big") + len(packed).to_bytes(4, "big")
    message = prelude + crc32(prelude).to_bytes(4, "big") + packed + payload
    return message + crc32(message).to_bytes(4, "big")


STOP = frame(
    json.dumps(stop()["messageStop"]).encode(), message_type="event", event_type="messageStop"
)


def test_frames_may_be_split_anywhere() -> None:
    buffer = EventStreamBuffer()
    data = STOP * 3
    found = [event for byte in data for event in decode_events(buffer, bytes([byte]))]
    assert found == [stop()] * 3


def decode_malformed(data: bytes) -> list[Event]:
    """Return the events before the malformed part of ``data``."""
    found: list[Event] = []
    with pytest.raises(STREAM_ERRORS) as raised:
        found.extend(decode_events(EventStreamBuffer(), data))
    assert problem_of(raised.value) is Problem.MALFORMED_REPLY
    return found


@pytest.mark.parametrize("at", [0, 9, 20, len(STOP) - 1])
def test_a_corrupt_frame_is_a_malformed_reply(at: int) -> None:
    corrupt = STOP[:at] + bytes([STOP[at] ^ 1]) + STOP[at + 1 :]
    assert decode_malformed(STOP + corrupt) == [stop()]


@pytest.mark.parametrize(
    "data",
    [
        frame(b"{", message_type="event", event_type="messageStop"),
        frame(b"{}", message_type="event"),
        frame(b"[]", message_type="exception", exception_type="x"),
        b"<html><body>502 Bad Gateway</body></html>",
    ],
)
def test_data_that_is_not_an_event_is_a_malformed_reply(data: bytes) -> None:
    assert decode_malformed(data) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            frame(
                b'{"message": "Slow down"}',
                message_type="exception",
                exception_type="throttlingException",
            ),
            {"Code": "throttlingException", "Message": "Slow down"},
        ),
        (
            frame(b"", message_type="error", error_code="InternalError", error_message="Oh"),
            {"Code": "InternalError", "Message": "Oh"},
        ),
    ],
)
def test_an_error_within_a_stream_has_its_code(data: bytes, error: dict[str, str]) -> None:
    with pytest.raises(EventStreamError) as raised:
        list(decode_events(EventStreamBuffer(), data))
    assert raised.value.response["Error"] == error
