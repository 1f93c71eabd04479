"""ASGI middleware around every route; each class does one job."""

import asyncio
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatledger.http.api import is_public, parse_authorization
from chatledger.http.endpoints import SECURITY_HEADERS
from chatledger.http.errors import ApiError, handle_error
from chatledger.http.sign_in import SignIn

SHUTTING_DOWN = ApiError(
    503, "server_ending", "The server is shutting down; try again in a moment."
)


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
        except asyncio.CancelledError:  # the server is shutting down; it needs no re-raise
            error = SHUTTING_DOWN
        except Exception as raised:
            error = handle_error(raised, f"{scope['method']} {scope['path']!r}")
        if not started:
            await error_response(error)(scope, receive, send)


class HostMiddleware:
    """Rejects requests that are addressed to another host.

    A server on loopback needs it: otherwise a page in the user's browser could resolve its own host
    name to 127.0.0.1 and read the responses (DNS rebinding).

    Args:
        app: The application to wrap.
        hosts: The host names in lower case, without a port, that requests may be addressed to.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name.lower() not in self._hosts:
                raise ApiError(
                    400, "unknown_host", "This server does not answer to that host name."
                )
        await self._app(scope, receive, send)


class SignInMiddleware:
    """Identifies the user of each request, before the rest of the request is read.

    Routes find the user in ``scope["user"]``, which public routes do not have.

    Args:
        app: The application to wrap.
        sign_in: Identifies the user.
    """

    def __init__(self, app: ASGIApp, sign_in: SignIn) -> None:
        self._app = app
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"].removeprefix(scope.get("root_path", ""))
            if not is_public(path):
                values = Headers(scope=scope).getlist("authorization")
                scope["user"] = await self._sign_in.auser(parse_authorization(values))
        await self._app(scope, receive, send)


def error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)
