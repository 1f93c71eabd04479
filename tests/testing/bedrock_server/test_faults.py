"""Every fault of a script, as real boto3 sees it."""

import json
import time
from typing import Any

import pytest
from botocore.config import Config
from botocore.eventstream import ChecksumMismatch
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EventStreamError,
    ReadTimeoutError,
)
from urllib3.exceptions import ProtocolError

from chatledger.testing.bedrock_server import (
    BedrockServer,
    BreaksOff,
    Corrupts,
    EndsEarly,
    Fails,
    FailsMidway,
    FallsSilent,
    Says,
    Throttles,
    UsesTool,
)
from chatledger.testing.bedrock_server.refusing import STATUSES
from tests.testing.bedrock_server.requests_for_tests import (
    HELLO,
    ONCE,
    SONNET,
    asks,
    events,
    streams,
    text,
)

TOOLS: Any = {
    "toolConfig": {
        "tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}}]
    }
}


@pytest.fixture
def client(bedrock_server: BedrockServer) -> Any:
    return bedrock_server.client(ONCE)


def converse(client: Any, **more: Any) -> Any:
    return client.converse(modelId=SONNET, **HELLO, **more)


@pytest.mark.parametrize("code", STATUSES)
@pytest.mark.parametrize("operation", ["converse", "converse_stream"])
def test_an_error_has_its_status_and_its_class(
    bedrock_server: BedrockServer, client: Any, code: str, operation: str
) -> None:
    bedrock_server.script(Fails(code, "So it is."))
    with pytest.raises(ClientError, match=r"So it is\.") as caught:
        getattr(client, operation)(modelId=SONNET, **HELLO)
    response: Any = caught.value.response
    assert response["Error"]["Code"] == code
    assert response["ResponseMetadata"]["HTTPStatusCode"] == STATUSES[code]
    known = [shape.name for shape in client.meta.service_model.error_shapes]
    assert type(caught.value).__name__ == (code if code in known else "ClientError")
    assert bedrock_server.requests[0].error == code


def test_a_code_that_there_is_not_cannot_be_scripted() -> None:
    with pytest.raises(ValueError, match="TooBusyException is no code of AccessDenied"):
        Fails("TooBusyException")


def test_throttling_ends_after_as_many_times_as_was_said(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(Throttles(times=2), Says("At last."))
    for _ in range(2):
        with pytest.raises(client.exceptions.ThrottlingException, match="Too many requests"):
            converse(client)
    assert text(events(client)) == "At last."
    assert [request.error for request in bedrock_server.requests] == [
        "ThrottlingException",
        "ThrottlingException",
        None,
    ]


def test_boto3_tries_again_where_it_is_let(bedrock_server: BedrockServer) -> None:
    bedrock_server.script(Throttles(), Says("At last."))
    answer = converse(bedrock_server.client())
    assert answer["output"]["message"]["content"] == [{"text": "At last."}]


@pytest.mark.parametrize(
    ("exception", "code"),
    [
        ("internalServerException", "InternalServerException"),
        ("modelStreamErrorException", "ModelErrorException"),
        ("serviceUnavailableException", "ServiceUnavailableException"),
        ("throttlingException", "ThrottlingException"),
        ("validationException", "ValidationException"),
    ],
)
def test_an_error_within_a_stream_comes_after_its_pieces(
    bedrock_server: BedrockServer, client: Any, exception: Any, code: str
) -> None:
    bedrock_server.script(FailsMidway(exception, after=3, message="No more."))
    seen: list[Any] = []
    with streams(client) as stream, pytest.raises(EventStreamError, match=r"No more\.") as caught:
        seen.extend(stream)
    error: Any = caught.value.response["Error"]
    assert error["Code"] == exception
    assert text(seen) == "One two three"
    bedrock_server.script(FailsMidway(exception))
    with pytest.raises(ClientError) as caught_whole:
        converse(client)
    assert caught_whole.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("operation", ["converse", "converse_stream"])
def test_a_connection_is_dropped_before_any_answer(
    bedrock_server: BedrockServer, client: Any, operation: str
) -> None:
    bedrock_server.script(BreaksOff())
    with pytest.raises(ConnectionClosedError):
        getattr(client, operation)(modelId=SONNET, **HELLO)
    assert not bedrock_server.requests[0].abandoned.is_set()


@pytest.mark.parametrize("after", [0, 1, 5, 1000])
def test_a_connection_is_dropped_after_so_many_pieces(
    bedrock_server: BedrockServer, client: Any, after: int
) -> None:
    words = [f"{n} " for n in range(2000)]
    bedrock_server.script(BreaksOff(after=after, text=words))
    seen: list[Any] = []
    with streams(client) as stream, pytest.raises(ProtocolError):
        seen.extend(stream)
    assert text(seen) == "".join(words[:after])
    assert "messageStart" in seen[0]


def test_a_dropped_connection_leaves_a_whole_answer_none(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(BreaksOff(after=2))
    with pytest.raises(ConnectionClosedError):
        converse(client)


def test_a_stream_ends_in_good_order_without_its_end(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(EndsEarly(after=2))
    seen = events(client)
    assert text(seen) == "One two"
    assert [kind for event in seen for kind in event] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockDelta",
    ]


@pytest.mark.parametrize("fault", [EndsEarly(), Corrupts()], ids=["ends early", "is corrupt"])
def test_half_a_whole_answer_is_no_json(
    bedrock_server: BedrockServer, client: Any, fault: Any
) -> None:
    bedrock_server.script(fault, fault)
    answer = asks(bedrock_server)
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.content)
    # boto3 lets it pass, and leaves it to its users to find that nothing was answered.
    assert "output" not in converse(client)


@pytest.mark.parametrize("part", ["prelude", "message"])
def test_a_wrong_checksum_is_noticed(bedrock_server: BedrockServer, client: Any, part: Any) -> None:
    bedrock_server.script(Corrupts(after=1, part=part))
    seen: list[Any] = []
    with streams(client) as stream, pytest.raises(ChecksumMismatch):
        seen.extend(stream)
    assert text(seen) == "One"


def test_silence_outlasts_who_does_not_wait_so_long(bedrock_server: BedrockServer) -> None:
    client = bedrock_server.client(ONCE.merge(Config(read_timeout=0.2)))
    bedrock_server.script(FallsSilent(), FallsSilent(after=2))
    with pytest.raises(ReadTimeoutError):
        client.converse_stream(modelId=SONNET, **HELLO)
    bedrock_server.wait_abandoned()
    seen: list[Any] = []
    with streams(client) as stream, pytest.raises(Exception, match="timed out"):
        seen.extend(stream)
    assert text(seen) == "One two"
    assert bedrock_server.requests[1].abandoned.wait(5)


def test_silence_ends_in_a_dropped_connection(bedrock_server: BedrockServer, client: Any) -> None:
    bedrock_server.script(FallsSilent(0.1))
    begun = time.monotonic()
    with pytest.raises(ConnectionClosedError):
        converse(client)
    assert time.monotonic() - begun >= 0.1


def test_a_tools_input_may_not_come_to_its_end(bedrock_server: BedrockServer, client: Any) -> None:
    broken = UsesTool("weather", '{"city": "Ky', saying="I look.")
    bedrock_server.script(broken, broken)
    seen = events(client, **TOOLS)
    deltas = [event["contentBlockDelta"]["delta"] for event in seen if "contentBlockDelta" in event]
    parts = [delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta]
    assert "".join(parts) == '{"city": "Ky'
    assert {"messageStop": {"stopReason": "tool_use"}} in seen
    with pytest.raises(client.exceptions.ModelErrorException, match="invalid sequence"):
        converse(client, **TOOLS)
