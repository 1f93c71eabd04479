"""What holds for every request: errors in one shape, safe headers, no stranger's host name."""

import asyncio
import logging
import traceback
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recollect.errors import ModelError
from recollect.http.api import Refused, refusal

logger = logging.getLogger("recollect.http")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

ENDING = Refused(503, "server_ending", "The server is about to end; try again in a moment.")


class Guard:
    """Wraps an application. ``hosts`` are the host names it answers to; None is any.

    A server on loopback answers to its own names only: else any page in the user's browser could
    have its own name resolve to 127.0.0.1 and read along (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None = None) -> None:
        self._app = app
        self._hosts = hosts

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
            self._check_host(Headers(scope=scope))
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


def refused(refusal: Refused) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


def log_unknown(error: Exception, where: str) -> None:
    """Log what kind of error it was and where, without its text: that may hold a message.

    A model's error has a text of ours, which holds none, and says what to do.
    """
    if isinstance(error, ModelError):
        logger.warning("%s: %s: %s", where, type(error).__name__, error)
        return
    if refusal(error).status < 500:
        return
    chain: BaseException | None = error
    kinds = []
    while chain is not None:
        kinds.append(type(chain).__name__)
        chain = chain.__cause__
    frames = [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    logger.error("%s failed: %s\n  %s", where, " from ".join(kinds), "\n  ".join(frames))
