"""An answer on its way: the steps of a reply, written to a connection."""

import asyncio
from collections.abc import Iterator

from aiohttp import web

from chatledger.testing.bedrock_server import framing
from chatledger.testing.bedrock_server.collecting import whole
from chatledger.testing.bedrock_server.playing import BreakOff, End, ErrorEvent, Event, Pause, Step
from chatledger.testing.bedrock_server.refusing import Refused

EVENT_STREAM = "application/vnd.amazon.eventstream"
PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
"""The service pads every event, in a field ``p``, so that its length does not tell its text's."""


class Connection:
    """Where one request is answered; ``broken_off`` is whether the script had it dropped."""

    def __init__(self, http: web.Request, number: int) -> None:
        self._http = http
        self._number = number
        self.broken_off = False

    async def stream(self, played: Iterator[Step]) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        for step in played:
            match step:
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case BreakOff():
                    await self._break_off()
                case End():
                    break
                case Event() | ErrorEvent():
                    if response is None:
                        response = await self._begin()
                    await response.write(_frame(step, self._number))
        assert response is not None
        await response.write_eof()
        return response

    async def say(self, played: Iterator[Step]) -> web.Response:
        events: list[Event] = []
        complete = True
        for step in played:
            match step:
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case BreakOff():
                    await self._break_off()
                case ErrorEvent(exception, message):
                    raise Refused(message, code=_CODES[exception])
                case Event():
                    events.append(step)
                case End():
                    complete = False
        content = framing.encoded(whole(events))
        return web.Response(
            body=content if complete else content[: len(content) // 2],
            headers={"x-amzn-RequestId": _request_id(self._number)},
            content_type="application/json",
        )

    async def _begin(self) -> web.StreamResponse:
        headers = {"Content-Type": EVENT_STREAM, "x-amzn-RequestId": _request_id(self._number)}
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(self._http)
        return response

    async def _break_off(self) -> None:
        self.broken_off = True
        transport = self._http.transport
        if transport is not None:
            # What was said before is to arrive. aiohttp has no event for it.
            while transport.get_write_buffer_size():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            transport.abort()
        await asyncio.Event().wait()  # until aiohttp sees that the connection is gone


_CODES = {
    "internalServerException": "InternalServerException",
    "modelStreamErrorException": "ModelErrorException",
    "serviceUnavailableException": "ServiceUnavailableException",
    "throttlingException": "ThrottlingException",
    "validationException": "ValidationException",
}


def _frame(step: Event | ErrorEvent, number: int) -> bytes:
    if isinstance(step, ErrorEvent):
        return framing.exception(step.exception, step.message)
    padding = PADDING[: 4 + (number + len(str(step.payload))) % (len(PADDING) - 4)]
    frame = framing.event(step.name, {**step.payload, "p": padding})
    if step.corrupt is None:
        return frame
    return framing.corrupted(frame, prelude=step.corrupt == "prelude")


def error(refused: Refused, number: int) -> web.Response:
    """https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html#operation-error-serialization

    The address behind the code is what the service sends, too; clients have to cut it off.
    """
    kind = f"{refused.code}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    return web.Response(
        status=refused.status,
        body=framing.encoded({"message": refused.message}),
        headers={"x-amzn-ErrorType": kind, "x-amzn-RequestId": _request_id(number)},
        content_type="application/json",
    )


def _request_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"
