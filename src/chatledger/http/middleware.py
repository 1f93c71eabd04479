"""What holds for every request: errors in one shape, safe headers, no stranger's host name, and
who sent it."""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatledger.http.api import is_open
from chatledger.http.error_log import SECURITY_HEADERS, log_unknown
from chatledger.http.errors import Refused, refusal

if TYPE_CHECKING:  # its library comes with an extra
    from chatledger.http.auth import SignIn

ENDING = Refused(503, "server_ending", "The server is about to end; try again in a moment.")


class Guard:
    """Wraps an application. ``hosts`` are the host names it answers to; None is any.

    A server on loopback answers to its own names only: else any page in the user's browser could
    have its own name resolve to 127.0.0.1 and read along (DNS rebinding).

    With ``sign_in`` nothing of a request is looked at before it is known who sent it. The routes
    find the user in ``request.state.user``, which is None without.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] | None = None, sign_in: "SignIn | None" = None
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sent(message: Message) -> None:
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
            await self._app(scope, receive, sent)
        except asyncio.CancelledError:  # the server ends, and takes no notice of it any more
            if not started:
                await refused(ENDING)(scope, receive, sent)
        except Exception as error:  # the last that sees it: its text must reach no log or client
            log_unknown(error, f"{scope['method']} {scope['path']!r}")
            if not started:
                await refused(refusal(error))(scope, receive, sent)

    def _check_host(self, headers: Headers) -> None:
        if self._hosts is None:
            return
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._hosts:
            raise Refused(400, "unknown_host", "This server does not answer to that host name.")

    async def _user(self, scope: Scope, headers: Headers) -> str | None:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._sign_in is None or is_open(path):
            return None
        # Two of them are none.
        return await self._sign_in.auser(", ".join(headers.getlist("authorization")) or None)


def refused(refusal: Refused) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse(refusal.body, refusal.status, refusal.headers)
