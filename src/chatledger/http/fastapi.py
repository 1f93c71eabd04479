"""The chatbot API on FastAPI."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.staticfiles import StaticFiles

from chatledger.chat import Chat
from chatledger.errors import InvalidArgument, StoreUnavailable
from chatledger.http import api, endpoints
from chatledger.http.bodies import LIVE, READY, WELCOME, ResponseBody
from chatledger.http.browser_sign_in import BrowserSignIn, token_origin
from chatledger.http.endpoints import Rules
from chatledger.http.errors import ApiError, method_not_allowed, no_such_route
from chatledger.http.limits import Limits
from chatledger.http.middleware import error_response, middleware
from chatledger.http.openapi import describe_api, merge_documents
from chatledger.http.readiness import CHECK_SECONDS, TOO_SLOW, Readiness
from chatledger.http.reference import Reference, render_reference
from chatledger.http.requests import log_request
from chatledger.http.routes import Routes
from chatledger.http.sign_in import SignIn
from chatledger.http.turns import RunningTurns
from chatledger.models import Models
from chatledger.sansio import arun

if TYPE_CHECKING:
    from chatledger.http.metrics import Metrics
    from chatledger.http.tracing import Tracing

PAGE = Path(__file__).parent / "page"
REVALIDATED = {"Cache-Control": "no-cache"}
"""The headers of the page's files: after an update, no old file is used with new ones."""
WRITE_USAGE_SECONDS = 3
"""The seconds that writing what the last turns spent may take at shutdown."""


def create_app(
    chat: Chat,
    models: Models,
    *,
    hosts: Collection[str] | None = None,
    sign_in: SignIn | None = None,
    browser_sign_in: BrowserSignIn | None = None,
    allow_origin: str | None = None,
    allow_system_prompt: bool = False,
    limits: Limits | None = None,
    metrics: "Metrics | None" = None,
    tracing: "Tracing | None" = None,
    resources: AbstractAsyncContextManager[object] | None = None,
) -> FastAPI:
    """Create the application that serves the API and its chat page.

    With ``sign_in``, users reach only their own conversations. Without it, anyone who reaches the
    API can read and write every conversation: serve it on loopback, or behind a proxy that signs
    users in.

    Args:
        chat: The chat that runs the turns. The application closes it at shutdown; the caller opens
            and closes its store, unless that is one of the ``resources``.
        models: The models that a request may ask for; the caller closes them, in the same way.
        hosts: The host names in lower case, without a port, that requests may be addressed to, or
            None for any.
        sign_in: Identifies the user of each request.
        browser_sign_in: How the page signs users in; without it, it asks them for a token.
        allow_origin: The site whose pages may call the API (CORS).
        allow_system_prompt: True if a request's system prompt may follow that of the chat. If the
            chat has none, a request may always have one.
        limits: The limits of each caller; by default there are none.
        metrics: Counts the requests and turns. Anyone who reaches the API can read the numbers, at
            ``/metrics``; pass ``metrics.record_store_call`` to the store too.
        tracing: Makes spans of the requests and turns; pass ``tracing.record_store_call`` to the
            store too.
        resources: What the application opens at startup, and closes once it has closed the chat,
            such as the store.

    Raises:
        InvalidArgument: There is a ``browser_sign_in`` but no ``sign_in``.
    """
    if browser_sign_in is not None and sign_in is None:
        raise InvalidArgument("browser_sign_in needs sign_in, which checks the tokens; pass both.")
    limits = limits or Limits()
    turn_listeners = [each.record_turn for each in (metrics, tracing) if each is not None]
    turns = RunningTurns(chat.stop_here, turn_listeners)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with resources or nullcontext():
            yield
            await turns.close()
            await finish_turns(chat, limits)

    request_listeners = [log_request] if metrics is None else [log_request, metrics.record_request]
    app = FastAPI(
        lifespan=lifespan,
        middleware=middleware(
            request_listeners,
            limits,
            hosts=hosts,
            sign_in=sign_in,
            allow_origin=allow_origin,
            tracing=tracing,
        ),
        redirect_slashes=False,
        redoc_url=None,
        docs_url=None,
        # FastAPI's own spans have the query, which names users, and its log the texts of errors.
        telemetry={"tracing": False, "logs": False},
    )
    app.state.turns = turns  # for servers that wait for them before they end
    app.add_exception_handler(HTTPException, _handle_routing_error)
    store = chat.store
    readiness = Readiness(store)

    @app.api_route("/", methods=["GET", "HEAD"])
    async def welcome(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            headers = {"Vary": "Accept", **REVALIDATED}
            if browser_sign_in is not None:
                # If the issuer is not available, the page says so when it is to sign a user in.
                with suppress(ApiError):
                    origin = token_origin(await browser_sign_in.adescribe())
                    headers["Content-Security-Policy"] = api.policy_with_connections(origin)
            return FileResponse(PAGE / "index.html", headers=headers)
        return JSONResponse(WELCOME, headers={"Vary": "Accept"})

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> ResponseBody:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return await arun(endpoints.check_health(store))
        except TimeoutError as late:
            raise StoreUnavailable(TOO_SLOW) from late

    @app.api_route("/live", methods=["GET", "HEAD"])
    async def live() -> ResponseBody:
        return LIVE

    @app.api_route("/ready", methods=["GET", "HEAD"])
    async def ready() -> ResponseBody:
        await readiness.require()
        return READY

    @app.api_route("/sign-in", methods=["GET", "HEAD"])
    async def describe_sign_in() -> ResponseBody:
        if browser_sign_in is None:
            return {"kind": "none" if sign_in is None else "token"}
        return await browser_sign_in.adescribe()

    rules = Rules(models, limits, allow_system_prompt)
    routes = Routes(chat, rules, turns, metrics)
    app.router.routes.extend(routes.all())
    if metrics is not None:
        _add_metrics(app, metrics)
    app.mount("/page", PageFiles(directory=PAGE), name="page")

    @cache
    def reference() -> Reference:
        return render_reference(app.openapi())

    @app.api_route("/docs", methods=["GET", "HEAD"])
    async def read_reference(request: Request) -> Response:
        page = reference()
        if page.is_known(request.headers.get("if-none-match")):
            return Response(status_code=304, headers=page.headers)
        return Response(page.html, headers=page.headers)

    app.openapi = cache(  # type: ignore[method-assign]
        partial(_describe, app, list(app.routes), has_sign_in=sign_in is not None)
    )
    return app


def _describe(
    app: FastAPI, own_routes: Sequence[BaseRoute], *, has_sign_in: bool
) -> dict[str, Any]:
    """Return the description of the API, with the routes that the caller of ``create_app`` added.

    FastAPI describes these.
    """
    added = [route for route in app.routes if route not in own_routes]
    document = describe_api(has_sign_in=has_sign_in)
    return merge_documents(document, get_openapi(title="", version="", routes=added))


async def finish_turns(chat: Chat, limits: Limits) -> None:
    """Wait until the turns whose callers left have stored their replies, and write their usage."""
    await chat.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(WRITE_USAGE_SECONDS):
            await arun(limits.write_usage(chat.store))


def _add_metrics(app: FastAPI, metrics: "Metrics") -> None:
    from chatledger.http.metrics import CONTENT_TYPE

    @app.api_route("/metrics", methods=["GET", "HEAD"])
    async def read_metrics() -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _handle_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    other = ApiError(error.status_code, "bad_request", "The request could not be understood.")
    api_errors = {404: no_such_route(), 405: method_not_allowed()}
    response = error_response(api_errors.get(error.status_code, other))
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of the first route that matches
        allowed = {
            method
            for route in request.app.routes
            if route.matches(request.scope)[0] is not Match.NONE
            for method in getattr(route, "methods", None) or ()
        } or {"GET", "HEAD"}  # the files of the page have no route of their own
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


class PageFiles(StaticFiles):
    """The files of the page; browsers ask for each whether it has changed (ETag)."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers.update(REVALIDATED)
        return response
