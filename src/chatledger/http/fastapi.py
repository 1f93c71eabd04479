"""The chatbot API on FastAPI."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPBearer
from msgspec.json import schema_components
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from chatledger.chat import Chat, Event, collect
from chatledger.conversations import MAX_IDEMPOTENCY_KEY_BYTES, MAX_REVISION
from chatledger.errors import ChatledgerError, NotFound
from chatledger.http import api, responses
from chatledger.http.api import ChatRequest, CreateRequest
from chatledger.http.error_log import log_error
from chatledger.http.errors import ApiError, api_error_for
from chatledger.http.events import EventStream
from chatledger.http.middleware import ApiMiddleware, error_response
from chatledger.http.sign_in import SignIn
from chatledger.http.turns import stream_turn
from chatledger.models import Models

PAGE = Path(__file__).parent / "page"


class _ConversationId(Convertor[str]):
    regex = r"[\s\S]+"  # an id may contain any character, even slashes and line breaks

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


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

register_url_convertor("conversation_id", _ConversationId())


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

    # ApiMiddleware checks the tokens; the dependency only adds them to /openapi.json.
    bearer_scheme = [Depends(HTTPBearer(auto_error=False))] if sign_in is not None else []
    app = FastAPI(
        title="Chatledger",
        lifespan=lifespan,
        dependencies=bearer_scheme,
        redirect_slashes=False,
        redoc_url=None,
        docs_url=None,
    )
    app.add_middleware(ApiMiddleware, hosts=hosts, sign_in=sign_in)
    if allow_origin is not None:  # outermost, so that pages can read ApiMiddleware's errors too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[allow_origin],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=api.CORS_REQUEST_HEADERS,
            expose_headers=api.CORS_RESPONSE_HEADERS,
            max_age=api.PREFLIGHT_SECONDS,
        )
    app.add_exception_handler(ChatledgerError, _handle_error)
    app.add_exception_handler(ApiError, _handle_error)
    app.add_exception_handler(HTTPException, _handle_routing_error)
    store = chat.store

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def welcome(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return FileResponse(PAGE / "index.html", headers={"Vary": "Accept"})
        return JSONResponse(responses.WELCOME, headers={"Vary": "Accept"})

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> dict[str, str]:
        with suppress(NotFound):
            await store.get("health")
        return responses.HEALTHY

    async def _requested_turn(request: Request) -> AsyncGenerator[Event, None]:
        key = api.parse_idempotency_key(request.headers.getlist("idempotency-key"))
        body = await _parse_body(ChatRequest, request)
        return stream_turn(chat, models, body, idempotency_key=key)

    @app.post("/chat", openapi_extra=_body_schema(ChatRequest) | IDEMPOTENCY_KEY_SCHEMA)
    async def send_message(request: Request) -> dict[str, Any]:
        async with aclosing(await _requested_turn(request)) as events:
            return responses.reply_body(await collect(events))

    @app.post("/chat/stream", openapi_extra=_body_schema(ChatRequest) | IDEMPOTENCY_KEY_SCHEMA)
    async def stream_reply(request: Request) -> Response:
        events = await _requested_turn(request)
        # Await the first event before responding: errors until then still get their own status.
        return EventStream(await anext(events), events)

    @app.post(
        "/conversations",
        openapi_extra=_body_schema(CreateRequest, user_id_is_optional=sign_in is not None),
    )
    async def create_conversation(request: Request) -> dict[str, str]:
        body = await _parse_body(CreateRequest, request)
        created = await store.create(owner=body.user_id, title=body.title)
        return {"conversation_id": created.id}

    @app.get("/conversations")
    async def list_conversations(request: Request) -> dict[str, Any]:
        query = _parse_query(request, ["user_id", "limit", "cursor"], ["user_id"])
        limit = api.parse_number(query, "limit", most=api.MAX_PAGE_SIZE, default=20)
        return responses.listing_body(
            await store.list(query["user_id"], limit=limit, cursor=query.get("cursor"))
        )

    @app.get("/conversations/{conversation_id:conversation_id}")
    async def read_conversation(request: Request, conversation_id: str) -> dict[str, Any]:
        query = _parse_query(request, ["user_id", "limit", "before"])
        owner = query.get("user_id")
        limit = api.parse_number(query, "limit", most=api.MAX_PAGE_SIZE, default=api.MAX_PAGE_SIZE)
        if "before" not in query:
            return responses.tail_body(await store.tail(conversation_id, limit, owner=owner))
        before = api.parse_number(query, "before", most=MAX_REVISION)
        conversation = await store.get(conversation_id, owner=owner)
        page = await store.page(conversation_id, before=before, limit=limit, owner=owner)
        return responses.conversation_body(conversation, page)

    @app.delete("/conversations/{conversation_id:conversation_id}")
    async def delete_conversation(request: Request, conversation_id: str) -> dict[str, str]:
        query = _parse_query(request, ["user_id"])
        await store.delete(conversation_id, owner=query.get("user_id"))
        return responses.DELETED

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


async def _parse_body(kind: type[api.R], request: Request) -> api.R:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > api.MAX_BODY_BYTES:
            raise api.body_too_large()
    content_type = request.headers.get("content-type")
    return api.parse_body(kind, bytes(body), content_type, signed_in_user=request.state.user)


def _parse_query(
    request: Request, known: list[str], required: Sequence[str] = ()
) -> dict[str, str]:
    parameters = request.query_params.multi_items()
    return api.parse_query(parameters, known, required, signed_in_user=request.state.user)


def _body_schema(
    kind: type[api.RequestBody], *, user_id_is_optional: bool = False
) -> dict[str, Any]:
    # api.parse_body parses and checks the body for all frameworks; this only documents it.
    schema = schema_components([kind])[1][kind.__name__]
    if user_id_is_optional:
        schema["required"] = [name for name in schema["required"] if name != "user_id"]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _handle_error(request: Request, error: Exception) -> Response:
    log_error(error, f"{request.method} {request.url.path!r}")
    return error_response(api_error_for(error))


async def _handle_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 404:
            api_error = ApiError(404, "no_such_route", "There is nothing at this address.")
        case 405:
            api_error = ApiError(
                405,
                "method_not_allowed",
                "This address does not support this method; see the header Allow.",
            )
        case status:
            api_error = ApiError(status, "bad_request", "The request could not be understood.")
    response = error_response(api_error)
    response.headers.update(error.headers or {})
    return response
