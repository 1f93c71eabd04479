"""The middleware for every request: host check, sign-in, security headers and error format."""

import asyncio
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatledger.http.api import is_public
from chatledger.http.error_log import log_error
from chatledger.http.errors import ApiError, api_error_for
from chatledger.http.responses import SECURITY_HEADERS
from chatledger.http.sign_in import SignIn

SHUTTING_DOWN = ApiError(
    503, "server_ending", "The server is shutting down; try again in a moment."
)


class ApiMiddleware:
    """Middleware that checks the host and the user of each request, and formats every error.

    Routes find the signed-in user in ``request.state.user``; it is None if the request needs no
    sign-in.

    Args:
        app: The application to wrap.
        hosts: The host names that requests may be addressed to, or None for any. A server on
            loopback must name its own: otherwise a page in the user's browser could resolve its own
            host name to 127.0.0.1 and read the responses (DNS rebinding).
        sign_in: Identifies the user before the rest of the request is read.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] | None = None, sign_in: SignIn | None = None
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            scope.setdefault("state", {})["user"] = await self._user(scope, headers)
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server is shutting down; it needs no re-raise
            if not started:
                await error_response(SHUTTING_DOWN)(scope, receive, send_with_headers)
        except Exception as error:  # the last handler: clients must not get the error's text
            log_error(error, f"{scope['method']} {scope['path']!r}")
            if not started:
                await error_response(api_error_for(error))(scope, receive, send_with_headers)

    def _check_host(self, headers: Headers) -> None:
        if self._hosts is None:
            return
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._hosts:
            raise ApiError(400, "unknown_host", "This server does not answer to that host name.")

    async def _user(self, scope: Scope, headers: Headers) -> str | None:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._sign_in is None or is_public(path):
            return None
        # Two Authorization headers, joined, are not a valid token and sign nobody in.
        return await self._sign_in.auser(", ".join(headers.getlist("authorization")) or None)


def error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)
