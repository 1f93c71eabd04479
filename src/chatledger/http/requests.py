"""The request that the server is answering: its id, and a record of how it is answered.

Log lines carry the id, and the listeners of ``RequestMiddleware`` get the record: one writes a line
to the log, another counts (``chatledger.http.metrics``).
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatledger.errors import InvalidArgument
from chatledger.http.errors import ApiError
from chatledger.models.protocol import Usage
from chatledger.stores.arguments import checked_id
from chatledger.values import new_id

logger = logging.getLogger("chatledger.access")

REQUEST_ID = "X-Request-ID"
RECORD = "chatledger.request"
"""The key of the ``RequestRecord`` in the scope of a request."""
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "OTHER"
UNKNOWN_ROUTE = "unknown"
QUIET_ROUTES = frozenset({"/health", "/live", "/ready", "/metrics", "/page/{path}"})
"""The routes whose requests are logged at the level ``debug``."""


@dataclass(slots=True)
class TurnRecord:
    """A turn that has started, and how it went."""

    outcome: str = "stopped"
    """``completed``, ``failed``, ``timed_out`` or ``stopped``, also by the end of the server."""
    seconds: float = 0.0
    """The time from the request's start to the turn's end."""
    first_piece_seconds: float | None = None
    """The time to the first piece of the reply; None if there was none."""
    usage: Usage | None = None


@dataclass(slots=True)
class RequestRecord:
    """A request, and how it was answered.

    Everything in it is safe to log and, apart from the ids, comes from a small set of values.
    """

    id: str
    method: str
    started_at: float
    route: str = UNKNOWN_ROUTE
    """The template of the path, such as ``/conversations/{conversation_id}``."""
    status: int | None = None
    """The status of the response; None if the client has disconnected before there was one."""
    seconds: float = 0.0
    conversation_id: str | None = None
    error: ApiError | None = None
    """The error that was sent, in a stream possibly after the status 200."""


current_request: ContextVar[RequestRecord | None] = ContextVar("current_request", default=None)
"""The request that is being answered; None outside of requests."""


def note_error(error: ApiError) -> None:
    """Note in the current request that ``error`` is sent to its client."""
    request = current_request.get()
    if request is not None:
        request.error = error


def note_conversation(conversation_id: object) -> None:
    """Note the conversation of the current request, if ``conversation_id`` is the id of one."""
    request = current_request.get()
    if request is not None:
        with suppress(InvalidArgument):
            request.conversation_id = checked_id(conversation_id)


class RequestMiddleware:
    """Records each request, and passes the record to the listeners once it is answered.

    The request keeps the id in its ``X-Request-ID`` header if that is a short token, and gets a new
    one otherwise. The response has the id in the same header.

    Args:
        app: The application to wrap.
        listeners: Called with the record of each request that was answered.
    """

    def __init__(self, app: ASGIApp, listeners: Sequence[Callable[[RequestRecord], None]]) -> None:
        self._app = app
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else OTHER_METHOD
        ids = Headers(scope=scope).getlist(REQUEST_ID)
        request = RequestRecord(_request_id(ids), method, perf_counter())
        address = {name: scope.get(name, "") for name in ("path", "root_path")}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request.id
            await send(message)

        scope[RECORD] = request
        token = current_request.set(request)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if request.status is not None:
                request.seconds = perf_counter() - request.started_at
                request.route = _route_template(scope, address)
                for listener in self._listeners:
                    listener(request)
            current_request.reset(token)


def log_request(request: RequestRecord) -> None:
    """Write a line about the request to the log; it has no text that a client chose, only ids."""
    level = logging.DEBUG if request.route in QUIET_ROUTES else logging.INFO
    if not logger.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "method": request.method,
        "route": request.route,
        "status": request.status,
        "milliseconds": round(request.seconds * 1_000, 1),
    }
    text = "{method} {route} {status} {milliseconds} ms".format_map(fields)
    if request.conversation_id is not None:
        fields["conversation_id"] = request.conversation_id
        text += f" conversation_id={json.dumps(request.conversation_id)}"
    if request.error is not None:
        fields["error"] = request.error.code
        text += f" error={request.error.code}"
    logger.log(level, "%s", text, extra={"fields": fields})


def _request_id(values: Sequence[str]) -> str:
    if len(values) == 1 and _VALID_REQUEST_ID.fullmatch(values[0]):
        return values[0]
    return new_id()


def _route_template(scope: Scope, address: dict[str, str]) -> str:
    """Return the template of the route that the request was for, even if it was never called.

    Args:
        scope: The scope after the request.
        address: The scope's path and root path before the request; a mounted application changes
            them.
    """
    route = scope.get("route")
    if route is None and "app" in scope:
        request = {**scope, **address, "path_params": {}}
        matching = (each for each in scope["app"].routes if each.matches(request)[0] != Match.NONE)
        route = next(matching, None)
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template or UNKNOWN_ROUTE
