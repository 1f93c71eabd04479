"""The limits on connections: their number, and the time that each may take."""

import asyncio
import logging
import math
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from chatledger.errors import InvalidArgument
from chatledger.http.api import SECURITY_HEADERS
from chatledger.http.errors import ApiError
from chatledger.http.imports import MAX_IMPORT_BYTES
from chatledger.values import dumps

logger = logging.getLogger("chatledger.cli")

HEAD_SECONDS = 10.0
"""The seconds within which the whole head of a request must arrive."""
BODY_SECONDS = 30.0
"""The seconds within which the whole body must arrive after the head."""
READER_SECONDS = 30.0
"""The seconds within which a client must take ``READER_BYTES`` of a response that is waiting."""
READER_BYTES = 64 * 1024
"""The bytes of a response that a slow client must take in time, or all of it if less is waiting."""
DISCARD_SECONDS = 2.0
"""The seconds for which the rest of a body is discarded after an early response."""
DISCARD_BYTES = MAX_IMPORT_BYTES
"""The most bytes that are discarded: the longest body that any route takes."""

MAX_FILES = 10_240
"""The number of open files that the server asks for unless it is told to accept more connections.

macOS allows no more without configuration.
"""
FILES_PER_CONNECTION = 2.5
"""The files that a connection needs while a reply is streamed: its socket, one of the model's, a
quarter of the store's (DynamoDB), and as much again for connections that are being refused."""
BACKLOG = 128
"""The connections that may wait to be accepted, and are then accepted at once."""
ACCEPT_LOG_SECONDS = 60.0
"""The shortest time between two log lines that say that no connection could be accepted."""

_MALFORMED = ApiError(
    400, "malformed_request", "The request is not valid HTTP/1.1; send it with another client."
)
_TOO_SLOW = ApiError(408, "request_timeout", "The request did not arrive in time; send it again.")
_TOO_MANY = ApiError(
    503, "too_many_connections", "The server has too many connections; try again in a moment."
)


def allow_connections(wanted: int | None) -> int:
    """Let the process open the files that its connections need; return how many there may be.

    Args:
        wanted: The number of connections, or None for as many as ``MAX_FILES`` permits, or fewer
            if the process may not open that many files.

    Raises:
        InvalidArgument: The process may not open the files for ``wanted`` connections.
    """
    if sys.platform == "win32":  # sockets are not limited there
        return wanted or int(MAX_FILES / FILES_PER_CONNECTION)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted is not None:
        files = math.ceil(wanted * FILES_PER_CONNECTION)
    else:
        files = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and files > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
        except (OSError, ValueError):
            raise InvalidArgument(
                f"For CHATLEDGER_MAX_CONNECTIONS={wanted} the server must open {files} files, "
                "which this process may not; lower the variable, or raise the limit (ulimit -Hn)."
            ) from None
    return wanted or max(int(files / FILES_PER_CONNECTION), 1)


def limit_accept_log(loop: asyncio.AbstractEventLoop) -> None:
    """Log a line a minute at most while ``loop`` can accept no connection.

    Asyncio logs a traceback for each connection that waits, again and again.
    """
    next_line = 0.0

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal next_line
        if context["message"] != "socket.accept() out of system resource":
            loop.default_exception_handler(context)
        elif time.monotonic() >= next_line:
            next_line = time.monotonic() + ACCEPT_LOG_SECONDS
            logger.error(
                "No connection could be accepted: %s. If this lasts, raise the limit of open files "
                "(ulimit -n).",
                context["exception"].strerror,
            )

    loop.set_exception_handler(handle)


class LimitedProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1 with limits, whose refusals have the API's format and leave no log line.

    - No more connections at once than uvicorn's ``limit_concurrency``.
    - A connection is closed if a request does not arrive in time, however its bytes are spread, or
      if the client does not take the response.
    - A response to a request whose body has not arrived is the connection's last.
    - Requests that a proxy in front could read otherwise are refused (RFC 9112). h11 accepts bare
      line feeds, folded lines, two lengths and any version.
    """

    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    reader_seconds = READER_SECONDS

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # Uvicorn itself would answer in plain text, and log each refusal.
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        self._respond, self.app = self.app, self._check_and_respond
        self._awaited: object = None
        self._is_discarding = False
        self._discarded_bytes = 0
        self._request_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # pause_writing is called as soon as anything waits, so that no rest can wait for ever.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self._refuse(_TOO_MANY)
            self.transport.close()  # at once: it counts as one too many until it is closed
        else:
            self._limit_wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._request_timer, self._reader_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # Requests -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._is_discarding and self.conn.their_state is not h11.MUST_CLOSE:
            super().data_received(data)
            return
        self._discarded_bytes += len(data)
        if self._discarded_bytes > DISCARD_BYTES:
            self.transport.abort()

    def handle_events(self) -> None:
        if self.conn.their_state is h11.IDLE and _is_ambiguous(self.conn.trailing_data[0]):
            self._refuse(_MALFORMED)
            return
        super().handle_events()
        self._limit_wait_for_request()

    def send_400_response(self, msg: str) -> None:
        self._refuse(_MALFORMED)

    def _limit_wait_for_request(self) -> None:
        """Give the head or the body its time as soon as it is what the connection waits for."""
        awaited = (self.cycle, self.conn.their_state)
        if awaited != self._awaited and not self._is_discarding:
            self._awaited = awaited
            seconds = {h11.IDLE: self.head_seconds, h11.SEND_BODY: self.body_seconds}
            self._set_request_timer(seconds.get(self.conn.their_state), self._end_wait_for_request)

    def _set_request_timer(self, seconds: float | None, end: Callable[[], None]) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
        self._request_timer = None if seconds is None else self.loop.call_later(seconds, end)

    def _end_wait_for_request(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()
        else:
            self._refuse(_TOO_SLOW)

    # Responses ------------------------------------------------------------------------------------

    async def _check_and_respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; if it responds before the body has arrived, end the connection."""
        names = {name for name, _ in scope["headers"]}
        version = scope["http_version"]
        if version not in ("1.0", "1.1") or (
            b"transfer-encoding" in names and (b"content-length" in names or version == "1.0")
        ):
            self._refuse(_MALFORMED)
            return
        cycle = self.cycle
        is_early = False

        async def send_response(message: Message) -> None:
            nonlocal is_early
            if message["type"] == "http.response.start" and cycle.more_body:
                is_early = True
                message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if not (is_early and is_last):
                await send(message)
                return
            # Uvicorn would close the connection after the last part.
            await send({**message, "more_body": True})
            if not cycle.disconnected:
                self.transport.write(self.conn.send(h11.EndOfMessage()))
                self._discard_rest()

        await self._respond(scope, receive, send_response)

    def _discard_rest(self) -> None:
        """End the response; close the connection once the client has, or soon.

        If it were closed while the client is still sending, the client would get a reset, often
        instead of the response.
        """
        self._is_discarding = True
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:
            # The application is told that the client has left.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._set_request_timer(DISCARD_SECONDS, self.transport.abort)
        self.flow.resume_reading()
        try:
            self.transport.write_eof()
        except OSError:  # the client has reset the connection
            self.transport.abort()

    def _refuse(self, error: ApiError) -> None:
        """Respond with the error, unless another response has begun, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = dumps(error.body(conversation_id=None)).encode()
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Connection": "close",
                **error.headers,
                **SECURITY_HEADERS,
            }
            response = h11.Response(
                status_code=error.status,
                headers=[
                    *self.server_state.default_headers,
                    *((name.encode(), value.encode()) for name, value in headers.items()),
                ],
                reason=HTTPStatus(error.status).phrase,
            )
            self.transport.write(self.conn.send(response) + body)
        self._discard_rest()

    def shutdown(self) -> None:
        if self._is_discarding:
            self.transport.abort()
        elif not self.transport.is_closing():
            super().shutdown()

    # Readers --------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_wait_for_reader()

    def resume_writing(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().resume_writing()

    def _limit_wait_for_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(
            self.reader_seconds, self._end_wait_for_reader, waiting
        )

    def _end_wait_for_reader(self, waiting: int) -> None:
        if waiting - self.transport.get_write_buffer_size() < READER_BYTES:
            self.transport.abort()
        else:
            self._limit_wait_for_reader()


def _is_ambiguous(received: bytes) -> bool:
    """Return whether a head, as far as it has been received, has a bare line feed or a fold."""
    head = received.partition(b"\r\n\r\n")[0]
    return head.count(b"\n") != head.count(b"\r\n") or b"\n " in head or b"\n\t" in head
