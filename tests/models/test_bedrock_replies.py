"""What a reply's events say, however they come."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from chatledger.errors import ModelUnavailable
from chatledger.messages import Message, decode, encode
from chatledger.models.bedrock.errors import Failure
from chatledger.models.bedrock.frames import Frames
from chatledger.models.bedrock.replies import Event, Reply
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


def read(*events: Event | Iterable[Event]) -> tuple[list[str], Finished]:
    reply = Reply()
    flat: list[Any] = []
    for event in events:
        flat += [event] if isinstance(event, dict) else event
    pieces = [piece for event in flat if (piece := reply.read(event))]
    return pieces, reply.finished()


def calls(*events: Event | Iterable[Event]) -> Any:
    return read(*events)[1].tool_calls


def test_text_comes_in_pieces_of_which_none_is_empty() -> None:
    start = {"messageStart": {"role": "assistant"}}
    pieces, finished = read(start, text("Hel"), text(""), text("lo"), stop())
    assert pieces == ["Hel", "lo"]
    assert finished == Finished("end_turn", tool_calls=[])


def test_input_tokens_are_all_that_the_model_was_given() -> None:
    usage = {
        "inputTokens": 10,
        "outputTokens": 5,
        "totalTokens": 345,
        "cacheReadInputTokens": 300,
        "cacheWriteInputTokens": 30,
    }
    _, finished = read(stop(), {"metadata": {"usage": usage, "metrics": {"latencyMs": 700}}})
    assert finished.usage == Usage(340, 5, cached_tokens=300, cache_write_tokens=30)
    assert finished.latency_ms == 700


def test_what_is_not_measured_is_not_known() -> None:
    _, finished = read(stop(), {"metadata": {}})
    assert finished.usage is None
    assert finished.latency_ms is None


def test_thoughts_and_kinds_to_come_are_passed_over() -> None:
    thought = {"reasoningContent": {"text": "hm"}}
    events: list[Event] = [
        {"contentBlockDelta": {"delta": thought, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"citation": {}}, "contentBlockIndex": 0}},
        {"contentBlockStart": {"start": {"image": {}}, "contentBlockIndex": 3}},
        {"unheardOf": {}},
    ]
    assert read(*events, text("Hi", 1), stop())[0] == ["Hi"]


def test_a_tool_call_is_put_together_from_its_pieces() -> None:
    made = calls(text("I look."), use("", '{"city": "Ky', 'iv"}'), stop("tool_use"))
    assert made == [{"id": "t1", "name": "weather", "args": {"city": "Kyiv"}, "type": "tool_call"}]


def test_a_call_without_arguments_has_none() -> None:
    assert calls(use(""), stop("tool_use"))[0]["args"] == {}


def test_calls_come_in_their_order() -> None:
    two = [*use("{}", block=1, id="a"), *use("{}", block=2, id="b")]
    assert [call["id"] for call in calls(two, stop("tool_use"))] == ["a", "b"]


@pytest.mark.parametrize(
    "written", ['{"city": "Ky', "[1]", '"x"', '{"n": NaN}', '{"s": "\\ud800"}', "[" * 100_000]
)
def test_a_malformed_tool_call_is_a_failure_that_another_try_may_mend(written: str) -> None:
    with pytest.raises(ModelUnavailable, match="malformed") as raised:
        read(use(written), stop("tool_use"))
    assert raised.value.retryable


def test_a_malformed_call_of_which_the_service_tells_is_the_same() -> None:
    with pytest.raises(ModelUnavailable, match="malformed"):
        read(stop("malformed_tool_use"))


@pytest.mark.parametrize("written", ['{"city": "Ky', ""])
def test_a_call_that_the_limit_cut_off_is_left_out(written: str) -> None:
    whole, cut = use("{}", block=1, id="a"), use(*filter(None, [written]), block=2, id="b")
    pieces, finished = read(text("I look."), whole, cut, stop("max_tokens"))
    assert pieces == ["I look."]
    assert [call["id"] for call in finished.tool_calls] == ["a"]
    assert finished.stop_reason == "max_tokens"


def test_a_reply_without_its_end_broke_off() -> None:
    with pytest.raises(ModelUnavailable, match="broke off"):
        read(text("Hel"))


@pytest.mark.parametrize(
    "garbled",
    [
        {"messageStop": {}},
        {"messageStop": None},
        {"contentBlockStart": {"contentBlockIndex": 0, "start": {"toolUse": {}}}},
        {"contentBlockDelta": {"contentBlockIndex": 7, "delta": {"toolUse": {"input": "{"}}}},
        {"metadata": {"usage": {"inputTokens": None}}},
    ],
)
def test_a_garbled_event_is_a_failure_that_another_try_may_mend(garbled: Event) -> None:
    with pytest.raises(ModelUnavailable, match="garbled"):
        read(garbled)


def test_all_that_a_model_says_can_be_stored() -> None:
    [piece], _ = read(text("half \ud83d of one, and a whole 😀"), stop())
    assert piece == "half � of one, and a whole 😀"
    message = Message.assistant(piece)
    assert decode(encode(message), seq=1) == message


# Frames ------------------------------------------------------------------------------------------


def frame(payload: bytes, **headers: str) -> bytes:
    """https://smithy.io/2.0/aws/amazon-eventstream.html"""
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


def test_frames_are_read_wherever_the_connection_cuts_them() -> None:
    frames = Frames()
    data = STOP * 3
    found = [event for byte in data for event in frames.add(bytes([byte]))]
    assert found == [stop()] * 3


@pytest.mark.parametrize("at", [0, 9, 20, len(STOP) - 1])
def test_a_corrupt_frame_is_garbled(at: int) -> None:
    corrupt = STOP[:at] + bytes([STOP[at] ^ 1]) + STOP[at + 1 :]
    assert list(Frames().add(STOP + corrupt)) == [stop(), Failure("Garbled")]


@pytest.mark.parametrize(
    "wrong",
    [
        frame(b"{", message_type="event", event_type="messageStop"),
        frame(b"{}", message_type="event"),
        frame(b"[]", message_type="exception", exception_type="x"),
        b"<html><body>502 Bad Gateway</body></html>",
    ],
)
def test_what_is_no_event_is_garbled(wrong: bytes) -> None:
    assert list(Frames().add(wrong)) == [Failure("Garbled")]


def test_errors_within_a_stream_are_told_by_their_code() -> None:
    exception = frame(
        b'{"message": "Slow down"}', message_type="exception", exception_type="throttlingException"
    )
    assert list(Frames().add(exception)) == [Failure("throttlingException", "Slow down")]
    error = frame(b"", message_type="error", error_code="InternalError", error_message="Oh")
    assert list(Frames().add(error)) == [Failure("InternalError", "Oh")]
