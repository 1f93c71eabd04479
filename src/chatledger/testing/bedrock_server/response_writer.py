"""HTTP responses: the steps of a response, written to a connection."""

import asyncio
from collections.abc import Iterator

from aiohttp import web

from chatledger.testing.bedrock_server import event_stream
from chatledger.testing.bedrock_server.converse_response import converse_response
from chatledger.testing.bedrock_server.errors import BedrockError
from chatledger.testing.bedrock_server.response_steps import (
    Disconnect,
    EndStream,
    SendEvent,
    SendException,
    Sleep,
    Step,
)

EVENT_STREAM = "application/vnd.amazon.eventstream"
PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
"""The service pads every event, in a field ``p``, so that its length does not reveal its text's."""


class ResponseWriter:
    """Write the response to one request; ``has_disconnected`` is set if the script drops it."""

    def __init__(self, http: web.Request, number: int) -> None:
        self._http = http
        self._number = number
        self.has_disconnected = False

    async def write_stream(self, steps: Iterator[Step]) -> web.StreamResponse:
        """Write the response of ``ConverseStream``."""
        response: web.StreamResponse | None = None
        for step in steps:
            match step:
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
                case Disconnect():
                    await self._disconnect()
                case EndStream():
                    break
                case SendEvent() | SendException():
                    if response is None:
                        response = await self._start_stream()
                    await response.write(_frame(step, self._number))
        assert response is not None
        await response.write_eof()
        return response

    async def whole_response(self, steps: Iterator[Step]) -> web.Response:
        """Return the response of ``Converse``, once its steps are done."""
        events: list[SendEvent] = []
        is_complete = True
        for step in steps:
            match step:
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
                case Disconnect():
                    await self._disconnect()
                case SendException(exception, message):
                    raise BedrockError(message, code=_CODES[exception])
                case SendEvent():
                    events.append(step)
                case EndStream():
                    is_complete = False
        content = event_stream.compact_json(converse_response(events))
        return web.Response(
            body=content if is_complete else content[: len(content) // 2],
            headers={"x-amzn-RequestId": _request_id(self._number)},
            content_type="application/json",
        )

    async def _start_stream(self) -> web.StreamResponse:
        headers = {"Content-Type": EVENT_STREAM, "x-amzn-RequestId": _request_id(self._number)}
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(self._http)
        return response

    async def _disconnect(self) -> None:
        self.has_disconnected = True
        transport = self._http.transport
        if transport is not None:
            # The client must still receive what was written. aiohttp has no event for that.
            while transport.get_write_buffer_size():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            transport.abort()
        await asyncio.Event().wait()  # until aiohttp notices that the connection is closed


_CODES = {
    "internalServerException": "InternalServerException",
    "modelStreamErrorException": "ModelErrorException",
    "serviceUnavailableException": "ServiceUnavailableException",
    "throttlingException": "ThrottlingException",
    "validationException": "ValidationException",
}


def _frame(step: SendEvent | SendException, number: int) -> bytes:
    if isinstance(step, SendException):
        return event_stream.encode_exception(step.exception, step.message)
    padding = PADDING[: 4 + (number + len(str(step.payload))) % (len(PADDING) - 4)]
    frame = event_stream.encode_event(step.name, {**step.payload, "p": padding})
    if step.corrupt_part is None:
        return frame
    return event_stream.corrupt_checksum(frame, prelude=step.corrupt_part == "prelude")


def error_response(error: BedrockError, number: int) -> web.Response:
    """Return the HTTP response for an error.

    https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html#operation-error-serialization

    The service also sends the URI that follows the code; clients have to cut it off.
    """
    error_type = f"{error.code}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    return web.Response(
        status=error.status,
        body=event_stream.compact_json({"message": error.message}),
        headers={"x-amzn-ErrorType": error_type, "x-amzn-RequestId": _request_id(number)},
        content_type="application/json",
    )


def _request_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"
