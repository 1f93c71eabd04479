"""The middleware of the FastAPI application, in the order in which a request meets it."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatledger.http import api
from chatledger.http.api import SECURITY_HEADERS, is_public, parse_authorization
from chatledger.http.endpoints import is_turn
from chatledger.http.errors import ApiError, handle_error, server_ending
from chatledger.http.limits import Limits, caller_at
from chatledger.http.requests import REQUEST_ID, RequestMiddleware, RequestRecord, note_error
from chatledger.http.sign_in import SignIn

if TYPE_CHECKING:
    from chatledger.http.tracing import Tracing

USER = "chatledger.user"
"""The key of the signed-in user in the scope of a request; ``user`` is Starlette's own."""
CONVERSATION_ID = "chatledger.conversation_id"
"""The key, in the scope of a request, of the conversation in which its message is stored."""
CALLER = "chatledger.caller"
"""The key of the caller, whose limits apply, in the scope of a request."""
WHILE_RUNNING = "chatledger.while_running"
"""The key, in the scope of a request for a turn, of what is closed when the turn has ended."""


def middleware(
    request_listeners: Sequence[Callable[[RequestRecord], None]],
    limits: Limits,
    *,
    hosts: Collection[str] | None,
    sign_in: SignIn | None,
    allow_origin: str | None,
    tracing: "Tracing | None",
) -> list[Middleware]:
    """Return the middleware of the application, the outermost first."""
    outer_to_inner = []
    if tracing is not None:
        from chatledger.http.tracing import TracingMiddleware

        outer_to_inner.append(Middleware(TracingMiddleware, tracing))
    outer_to_inner.append(Middleware(RequestMiddleware, request_listeners))
    outer_to_inner.append(Middleware(SecurityHeadersMiddleware))
    if allow_origin is not None:  # before the others, so that pages can read their errors too
        cors = Middleware(
            APICORSMiddleware,
            allow_origins=[allow_origin],
            allow_methods=api.CORS_METHODS,
            allow_headers=api.CORS_REQUEST_HEADERS,
            expose_headers=[*api.CORS_RESPONSE_HEADERS, REQUEST_ID],
            max_age=api.PREFLIGHT_SECONDS,
        )
        outer_to_inner.append(cors)
    outer_to_inner.append(Middleware(ErrorMiddleware))
    if hosts is not None:
        outer_to_inner.append(Middleware(HostMiddleware, hosts))
    if sign_in is not None:
        outer_to_inner.append(Middleware(SignInMiddleware, sign_in))
    outer_to_inner.append(Middleware(LimitsMiddleware, limits))
    return outer_to_inner


class SecurityHeadersMiddleware:
    """Adds the security headers to every response that does not have its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class APICORSMiddleware(CORSMiddleware):
    """Answers preflights without a body, and refuses them in the API's format."""

    def preflight_response(self, request_headers: Headers) -> Response:
        plain = super().preflight_response(request_headers)
        response = Response(status_code=204)
        if plain.status_code != 200:
            sentence = "Pages of this site may not send this request; ask the server's operator."
            response = error_response(ApiError(plain.status_code, "cors_refused", sentence))
        for name, value in plain.headers.items():
            if name not in ("content-length", "content-type"):
                response.headers[name] = value
        return response


class ErrorMiddleware:
    """Responds to every error, including those of the middleware inside, in the API's format.

    It is the last handler: clients must not get the text of an unexpected error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_start)
            return
        except ClientDisconnect:  # nobody waits for a response
            return
        except asyncio.CancelledError:  # the server is shutting down; it needs no re-raise
            error = server_ending()
        except Exception as raised:
            error = handle_error(raised, f"{scope['method']} {scope['path']!r}")
        if not started:
            response = error_response(error, conversation_id=scope.get(CONVERSATION_ID))
            await response(scope, receive, send)


class HostMiddleware:
    """Rejects requests that are addressed to another host, as a server on loopback must.

    Args:
        app: The application to wrap.
        hosts: The host names in lower case, without a port, that requests may be addressed to.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            api.check_host(Headers(scope=scope).get("host", ""), self._hosts)
        await self._app(scope, receive, send)


class SignInMiddleware:
    """Identifies the user of each request, before the rest of the request is read.

    Routes find the user in ``scope[USER]``, which public routes do not have.

    Args:
        app: The application to wrap.
        sign_in: Identifies the user.
    """

    def __init__(self, app: ASGIApp, sign_in: SignIn) -> None:
        self._app = app
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_public(_path_of(scope)):
            values = Headers(scope=scope).getlist("authorization")
            scope[USER] = await self._sign_in.auser(parse_authorization(values))
        await self._app(scope, receive, send)


class LimitsMiddleware:
    """Refuses turns beyond the limits, before the rest of the request is read.

    Routes find the caller in ``scope[CALLER]``. A turn counts as running until its route closes
    ``scope[WHILE_RUNNING]``, or until the response if that does not take it over.

    Args:
        app: The application to wrap.
        limits: The limits of each caller.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address, _ = scope.get("client") or (None, None)
        scope[CALLER] = scope.get(USER) or caller_at(address)
        with ExitStack() as while_running:
            if is_turn(scope["method"], _path_of(scope)):
                while_running.enter_context(self._limits.running_turn(scope[CALLER]))
            scope[WHILE_RUNNING] = while_running
            await self._app(scope, receive, send)


def _path_of(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def error_response(error: ApiError, *, conversation_id: str | None = None) -> JSONResponse:
    note_error(error)
    body = error.body(conversation_id=conversation_id)
    return JSONResponse(body, error.status, error.headers)
