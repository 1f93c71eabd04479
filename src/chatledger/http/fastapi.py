"""The chatbot API on FastAPI."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPBearer
from msgspec.json import schema_components
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatledger.chat import Chat, collect
from chatledger.conversations import MAX_IDEMPOTENCY_KEY_BYTES
from chatledger.http import api
from chatledger.http.api import (
    SECURITY_HEADERS,
    ChatRequest,
    CreateRequest,
    is_public,
    parse_authorization,
)
from chatledger.http.errors import ApiError, handle_error, method_not_allowed, no_such_route
from chatledger.http.events import EventStream
from chatledger.http.sign_in import SignIn
from chatledger.models import Models
from chatledger.sansio import arun

PAGE = Path(__file__).parent / "page"
USER = "chatledger.user"
"""The key of the signed-in user in the scope of a request; ``user`` is Starlette's own."""


class _ConversationIdConvertor(PathConvertor):
    regex = r"[\s\S]+"  # an id may contain any character, even slashes and line breaks


register_url_convertor("conversation_id", _ConversationIdConvertor())

IDEMPOTENCY_KEY_SCHEMA = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A request with the same key and body returns the stored reply.",
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY_BYTES},
        }
    ]
}


def create_app(
    chat: Chat,
    models: Models,
    *,
    hosts: Collection[str] | None = None,
    sign_in: SignIn | None = None,
    allow_origin: str | None = None,
) -> FastAPI:
    """Create the application that serves the API and its chat page.

    With ``sign_in``, users reach only their own conversations. Without it, anyone who reaches the
    API can read and write every conversation: serve it on loopback, or behind a proxy that signs
    users in.

    Args:
        chat: The chat that runs the turns. The application closes it at shutdown; the caller opens
            and closes its store.
        models: The models that a request may ask for; the caller closes them.
        hosts: The host names in lower case, without a port, that requests may be addressed to, or
            None for any.
        sign_in: Identifies the user of each request.
        allow_origin: The site whose pages may call the API (CORS).
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await chat.close()

    middleware = [Middleware(SecurityHeadersMiddleware), Middleware(ErrorMiddleware)]
    if hosts is not None:
        middleware.append(Middleware(HostMiddleware, hosts))
    if sign_in is not None:
        middleware.append(Middleware(SignInMiddleware, sign_in))
    if allow_origin is not None:  # outermost, so that pages can read the others' errors too
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[allow_origin],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=api.CORS_REQUEST_HEADERS,
            expose_headers=api.CORS_RESPONSE_HEADERS,
            max_age=api.PREFLIGHT_SECONDS,
        )
        middleware.insert(0, cors)
    # SignInMiddleware checks the tokens; the dependency only adds them to /openapi.json.
    bearer_scheme = [Depends(HTTPBearer(auto_error=False))] if sign_in is not None else []
    app = FastAPI(
        title="Chatledger",
        lifespan=lifespan,
        middleware=middleware,
        dependencies=bearer_scheme,
        redirect_slashes=False,
        redoc_url=None,
        docs_url=None,
    )
    app.add_exception_handler(HTTPException, _handle_routing_error)
    store = chat.store

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def welcome(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return FileResponse(PAGE / "index.html", headers={"Vary": "Accept"})
        return JSONResponse(api.WELCOME, headers={"Vary": "Accept"})

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> dict[str, str]:
        return await arun(api.check_health(store))

    @app.post("/chat", openapi_extra=_body_schema(ChatRequest) | IDEMPOTENCY_KEY_SCHEMA)
    async def send_message(request: Request) -> dict[str, Any]:
        key, body = _parse_idempotency_key(request), await _parse_body(ChatRequest, request)
        with api.explain_unknown_conversation(body):
            events = api.start_turn(chat, models, body, key)
            return api.reply_body(await collect(events))

    @app.post("/chat/stream", openapi_extra=_body_schema(ChatRequest) | IDEMPOTENCY_KEY_SCHEMA)
    async def stream_reply(request: Request) -> Response:
        key, body = _parse_idempotency_key(request), await _parse_body(ChatRequest, request)
        # Await the first event before responding: errors until then still get their own status.
        with api.explain_unknown_conversation(body):
            events = api.start_turn(chat, models, body, key)
            started = await anext(events)
        return EventStream(started, events)

    @app.post(
        "/conversations",
        openapi_extra=_body_schema(CreateRequest, user_id_is_optional=sign_in is not None),
    )
    async def create_conversation(request: Request) -> dict[str, str]:
        body = await _parse_body(CreateRequest, request)
        return await arun(api.create_conversation(store, body))

    @app.get("/conversations")
    async def list_conversations(request: Request) -> dict[str, Any]:
        return await arun(api.list_conversations(store, _query(request)))

    @app.get("/conversations/{conversation_id:conversation_id}")
    async def read_conversation(request: Request, conversation_id: str) -> dict[str, Any]:
        return await arun(api.read_conversation(store, conversation_id, _query(request)))

    @app.delete("/conversations/{conversation_id:conversation_id}")
    async def delete_conversation(request: Request, conversation_id: str) -> dict[str, str]:
        return await arun(api.delete_conversation(store, conversation_id, _query(request)))

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


async def _parse_body(kind: type[api.RequestT], request: Request) -> api.RequestT:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > api.MAX_BODY_BYTES:
            raise api.body_too_large()
    content_type = request.headers.get("content-type")
    return api.parse_body(kind, bytes(body), content_type, signed_in_user=_user(request))


def _query(request: Request) -> api.Query:
    return api.Query(request.query_params.multi_items(), signed_in_user=_user(request))


def _user(request: Request) -> str | None:
    """Return the user whom ``SignInMiddleware`` identified, or None if users do not sign in."""
    user: str | None = request.scope.get(USER)
    return user


def _parse_idempotency_key(request: Request) -> str | None:
    return api.parse_idempotency_key(request.headers.getlist("idempotency-key"))


def _body_schema(
    kind: type[api.RequestBody], *, user_id_is_optional: bool = False
) -> dict[str, Any]:
    # api.parse_body parses and checks the body for all frameworks; this only documents it.
    schema = schema_components([kind])[1][kind.__name__]
    if user_id_is_optional:
        schema["required"] = [name for name in schema["required"] if name != "user_id"]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _handle_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    other = ApiError(error.status_code, "bad_request", "The request could not be understood.")
    api_errors = {404: no_such_route(), 405: method_not_allowed()}
    response = error_response(api_errors.get(error.status_code, other))
    response.headers.update(error.headers or {})
    return response


# Middleware ---------------------------------------------------------------------------------------


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

    Routes find the user in ``scope[USER]``, which public routes do not have.

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
                scope[USER] = await self._sign_in.auser(parse_authorization(values))
        await self._app(scope, receive, send)


def error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)
