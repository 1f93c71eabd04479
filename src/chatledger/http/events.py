"""Replies as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

The id of an event names the reply and the number of its characters up to there, so that a client
that lost its connection can ask for the rest.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chatledger.chat import LastTurn
from chatledger.http import bodies
from chatledger.http.endpoints import no_reply
from chatledger.http.errors import CLIENT_LEFT, ApiError, handle_error, server_ending
from chatledger.http.requests import note_error
from chatledger.http.turns import RunningTurn

PING_SECONDS = 15.0
"""The longest silence in a stream; proxies close idle connections, often after 30 seconds."""
POLL_SECONDS = 1.0
"""The seconds between two looks at a reply that another process is writing."""
PING = b": ping\n\n"

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class _Stream(Response):
    """A response that streams events.

    If the request is cancelled, because the server is shutting down, the stream ends with the
    error ``server_ending``.

    Args:
        conversation_id: The conversation that its errors name.
        while_open: A context in which the response is sent.
    """

    media_type = "text/event-stream"

    def __init__(
        self, conversation_id: str | None, while_open: AbstractContextManager[object] | None
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._conversation_id = conversation_id
        self._while_open = nullcontext() if while_open is None else while_open
        self._waiting: asyncio.Future[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.create_task(_wait_for_disconnect(receive))
        leaving.add_done_callback(lambda _: self._wake())
        has_begun = False
        try:
            with self._while_open, suppress(OSError):  # some servers raise it after a disconnect
                start = {"status": 200, "headers": self.raw_headers}
                await send({"type": "http.response.start", **start})
                has_begun = True
                if scope.get("method") == "HEAD":
                    await send({"type": "http.response.body"})
                else:
                    await self._send_events(send, leaving)
        except asyncio.CancelledError:
            if not has_begun:
                raise
            last = self._error_frame(server_ending())
            with suppress(OSError):
                await send({"type": "http.response.body", "body": last})
        finally:
            leaving.cancel()

    @abstractmethod
    async def _send_events(self, send: Send, leaving: asyncio.Task[None]) -> None:
        """Send the events to the last one, or until the client has left."""

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _error_frame(self, error: ApiError) -> bytes:
        note_error(error)
        return bodies.frame("error", error.body(conversation_id=self._conversation_id))


class EventStream(_Stream):
    """A response that streams the reply of a turn that this process runs.

    Args:
        turn: The turn.
        offset: The number of characters of the reply that the client has already.
        stops_turn: Whether the turn is stopped if the client disconnects.
        while_open: A context in which the response is sent.
    """

    def __init__(
        self,
        turn: RunningTurn,
        *,
        offset: int = 0,
        stops_turn: bool = False,
        while_open: AbstractContextManager[object] | None = None,
    ) -> None:
        super().__init__(turn.stored_in, while_open)
        self._turn = turn
        self._offset = offset
        self._stops_turn = stops_turn
        self._is_complete = False
        self._is_silent = False
        self._ping_is_due = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._turn.notify(self._wake)
        self._schedule_ping()
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._turn.ignore(self._wake)
            self._timer.cancel()
            if self._stops_turn and not self._is_complete:
                self._turn.stop()

    async def _send_events(self, send: Send, leaving: asyncio.Task[None]) -> None:
        turn = self._turn
        length = bodies.known_offset(self._offset, turn.text)
        await send(_body(bodies.start_frame(turn.started, offset=length)))
        text, n = turn.text_from(0)
        to_skip = length
        while len(text) < to_skip:
            to_skip -= len(text)
            text, n = turn.text_from(n)
        text = text[to_skip:]
        while True:
            if text:
                length += len(text)
                await send(_body(bodies.piece_frame(turn.started.reply_id, text, end=length)))
                self._is_silent = False
            elif leaving.done():
                return
            elif turn.has_ended:
                break
            elif self._ping_is_due:
                await send(_body(PING))
                self._ping_is_due = False
            else:
                self._waiting = asyncio.get_running_loop().create_future()
                await self._waiting
            text, n = turn.text_from(n)
        if turn.finished is None:
            last = self._error_frame(turn.error or server_ending())
        else:
            last = bodies.done_frame(turn.started.reply_id, turn.finished)
        await send({"type": "http.response.body", "body": last})
        self._is_complete = True

    def _schedule_ping(self) -> None:
        self._ping_is_due, self._is_silent = self._is_silent, True
        if self._ping_is_due:
            self._wake()
        self._timer = asyncio.get_running_loop().call_later(PING_SECONDS / 2, self._schedule_ping)


class AwaitedStream(_Stream):
    """A response that streams a reply that another process is writing, once that is stored.

    Args:
        conversation_id: The conversation.
        turn: Its last turn, which another process runs.
        read: Returns the conversation's last turn.
        offset: The number of characters of the reply that the client has already.
        while_open: A context in which the response is sent.
    """

    def __init__(
        self,
        conversation_id: str,
        turn: LastTurn,
        read: Callable[[], Awaitable[LastTurn]],
        *,
        offset: int,
        while_open: AbstractContextManager[object] | None = None,
    ) -> None:
        super().__init__(conversation_id, while_open)
        self._id = conversation_id
        self._turn = turn
        self._read = read
        self._offset = offset

    async def _send_events(self, send: Send, leaving: asyncio.Task[None]) -> None:
        start = bodies.stored_start_frame(self._id, self._turn, offset=self._offset)
        await send(_body(start))
        current, silence, failure = self._turn, 0.0, None
        while current.reply is None and failure is None:
            await asyncio.wait({leaving}, timeout=POLL_SECONDS)
            if leaving.done():
                return
            silence += POLL_SECONDS
            if silence >= PING_SECONDS / 2:
                await send(_body(PING))
                silence = 0
            try:
                current = await self._read()
            except Exception as error:
                failure = handle_error(error, "a stream")
            else:
                if current.reply_id != self._turn.reply_id:
                    failure = no_reply()
        if failure is not None:
            last = self._error_frame(failure)
        else:
            frames = bodies.stored_frames(self._id, current, offset=self._offset)
            last = b"".join(frames[1:] if frames[0] == start else frames)
        await send({"type": "http.response.body", "body": last})


async def wait_for_end(turn: RunningTurn, receive: Receive, *, stops_turn: bool) -> None:
    """Wait until the turn has ended.

    Raises ``ApiError`` if the client disconnects before; with ``stops_turn``, that stops the turn.
    """
    changed = asyncio.Event()
    leaving = asyncio.create_task(_wait_for_disconnect(receive))
    leaving.add_done_callback(lambda _: changed.set())
    turn.call_at_end(changed.set)
    try:
        await changed.wait()
    finally:
        leaving.cancel()
        if stops_turn:
            turn.stop()
    if not turn.has_ended:
        raise ApiError(CLIENT_LEFT, "client_left", "The client did not wait for the response.")


def stored_stream(conversation_id: str, turn: LastTurn, *, offset: int) -> Response:
    """Return a response with the events of a reply that is stored."""
    frames = bodies.stored_frames(conversation_id, turn, offset=offset)
    return Response(b"".join(frames), media_type="text/event-stream", headers=HEADERS)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(frame: bytes) -> Message:
    return {"type": "http.response.body", "body": frame, "more_body": True}
