"""Every fault that can be scripted, as real boto3 sees it."""

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
    CorruptsFrame,
    DropsConnection,
    EndsEarly,
    Fails,
    FailsMidStream,
    Says,
    Stalls,
    Throttles,
    UsesTool,
)
from chatledger.testing.bedrock_server.errors import HTTP_STATUSES
from tests.testing.bedrock_server.client import (
    HELLO,
    ONCE,
    SONNET,
    events,
    open_stream,
    reply_text,
    send,
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


@pytest.mark.parametrize("code", HTTP_STATUSES)
@pytest.mark.parametrize("operation", ["converse", "converse_stream"])
def test_an_error_has_its_status_and_its_exception_class(
    bedrock_server: BedrockServer, client: Any, code: str, operation: str
) -> None:
    bedrock_server.script(Fails(code, "So it is."))
    with pytest.raises(ClientError, match=r"So it is\.") as caught:
        getattr(client, operation)(modelId=SONNET, **HELLO)
    response: Any = caught.value.response
    assert response["Error"]["Code"] == code
    assert response["ResponseMetadata"]["HTTPStatusCode"] == HTTP_STATUSES[code]
    known = [shape.name for shape in client.meta.service_model.error_shapes]
    assert type(caught.value).__name__ == (code if code in known else "ClientError")
    assert bedrock_server.requests[0].error == code


def test_an_unknown_code_cannot_be_scripted() -> None:
    with pytest.raises(ValueError, match="TooBusyException is not one of the codes AccessDenied"):
        Fails("TooBusyException")


def test_throttling_ends_after_the_scripted_number_of_times(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(Throttles(times=2), Says("At last."))
    for _ in range(2):
        with pytest.raises(client.exceptions.ThrottlingException, match="Too many requests"):
            converse(client)
    assert reply_text(events(client)) == "At last."
    assert [request.error for request in bedrock_server.requests] == [
        "ThrottlingException",
        "ThrottlingException",
        None,
    ]


def test_boto3_retries_if_it_is_allowed_to(bedrock_server: BedrockServer) -> None:
    bedrock_server.script(Throttles(), Says("At last."))
    response = converse(bedrock_server.client())
    assert response["output"]["message"]["content"] == [{"text": "At last."}]


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
def test_an_error_during_a_stream_comes_after_the_scripted_pieces(
    bedrock_server: BedrockServer, client: Any, exception: Any, code: str
) -> None:
    bedrock_server.script(FailsMidStream(exception, after=3, message="No more."))
    seen: list[Any] = []
    with (
        open_stream(client) as stream,
        pytest.raises(EventStreamError, match=r"No more\.") as caught,
    ):
        seen.extend(stream)
    error: Any = caught.value.response["Error"]
    assert error["Code"] == exception
    assert reply_text(seen) == "One two three"
    bedrock_server.script(FailsMidStream(exception))
    with pytest.raises(ClientError) as caught_by_converse:
        converse(client)
    assert caught_by_converse.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("operation", ["converse", "converse_stream"])
def test_a_connection_is_dropped_before_any_response(
    bedrock_server: BedrockServer, client: Any, operation: str
) -> None:
    bedrock_server.script(DropsConnection())
    with pytest.raises(ConnectionClosedError):
        getattr(client, operation)(modelId=SONNET, **HELLO)
    assert not bedrock_server.requests[0].abandoned.is_set()


@pytest.mark.parametrize("after", [0, 1, 5, 1000])
def test_a_connection_is_dropped_after_the_scripted_pieces(
    bedrock_server: BedrockServer, client: Any, after: int
) -> None:
    words = [f"{n} " for n in range(2000)]
    bedrock_server.script(DropsConnection(after=after, text=words))
    seen: list[Any] = []
    with open_stream(client) as stream, pytest.raises(ProtocolError):
        seen.extend(stream)
    assert reply_text(seen) == "".join(words[:after])
    assert "messageStart" in seen[0]


def test_a_dropped_connection_leaves_converse_without_a_response(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(DropsConnection(after=2))
    with pytest.raises(ConnectionClosedError):
        converse(client)


def test_a_stream_can_end_properly_without_its_last_events(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(EndsEarly(after=2))
    seen = events(client)
    assert reply_text(seen) == "One two"
    assert [kind for event in seen for kind in event] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockDelta",
    ]


@pytest.mark.parametrize(
    "fault", [EndsEarly(), CorruptsFrame()], ids=["ends early", "corrupts a frame"]
)
def test_converse_sends_half_of_its_json(
    bedrock_server: BedrockServer, client: Any, fault: Any
) -> None:
    bedrock_server.script(fault, fault)
    response = send(bedrock_server)
    assert response.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(response.content)
    # boto3 accepts it, and leaves it to its users to notice that the reply is missing.
    assert "output" not in converse(client)


@pytest.mark.parametrize("part", ["prelude", "message"])
def test_boto3_notices_a_wrong_checksum(
    bedrock_server: BedrockServer, client: Any, part: Any
) -> None:
    bedrock_server.script(CorruptsFrame(after=1, part=part))
    seen: list[Any] = []
    with open_stream(client) as stream, pytest.raises(ChecksumMismatch):
        seen.extend(stream)
    assert reply_text(seen) == "One"


def test_a_stalled_response_exceeds_the_clients_read_timeout(bedrock_server: BedrockServer) -> None:
    client = bedrock_server.client(ONCE.merge(Config(read_timeout=0.2)))
    bedrock_server.script(Stalls(), Stalls(after=2))
    with pytest.raises(ReadTimeoutError):
        client.converse_stream(modelId=SONNET, **HELLO)
    bedrock_server.wait_for_abandoned_request()
    seen: list[Any] = []
    with open_stream(client) as stream, pytest.raises(Exception, match="timed out"):
        seen.extend(stream)
    assert reply_text(seen) == "One two"
    assert bedrock_server.requests[1].abandoned.wait(5)


def test_a_stalled_response_ends_in_a_dropped_connection(
    bedrock_server: BedrockServer, client: Any
) -> None:
    bedrock_server.script(Stalls(0.1))
    started = time.monotonic()
    with pytest.raises(ConnectionClosedError):
        converse(client)
    assert time.monotonic() - started >= 0.1


def test_the_input_of_a_tool_can_be_cut_off(bedrock_server: BedrockServer, client: Any) -> None:
    unfinished = UsesTool("weather", '{"city": "Ky', saying="I look.")
    bedrock_server.script(unfinished, unfinished)
    seen = events(client, **TOOLS)
    deltas = [event["contentBlockDelta"]["delta"] for event in seen if "contentBlockDelta" in event]
    parts = [delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta]
    assert "".join(parts) == '{"city": "Ky'
    assert {"messageStop": {"stopReason": "tool_use"}} in seen
    with pytest.raises(client.exceptions.ModelErrorException, match="invalid sequence"):
        converse(client, **TOOLS)
