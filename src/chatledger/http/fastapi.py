"""The chatbot API on FastAPI."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPBearer
from msgspec.json import schema_components
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from chatledger.chat import Chat, Event, whole
from chatledger.conversations import IDEMPOTENCY_KEY_BYTES, LAST_REVISION
from chatledger.errors import ChatledgerError, NotFound
from chatledger.http import api, responses
from chatledger.http.api import ChatRequest, CreateRequest
from chatledger.http.error_log import log_unknown
from chatledger.http.errors import Refused, refusal
from chatledger.http.events import EventStream
from chatledger.http.middleware import Guard, refused
from chatledger.http.turns import turn
from chatledger.models import Models

if TYPE_CHECKING:  # its library comes with an extra
    from chatledger.http.auth import SignIn

PAGE = Path(__file__).parent / "page"


class _ConversationId(Convertor[str]):
    regex = r"[\s\S]+"  # an id may hold anything, slashes and line ends included

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


KEYED = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key and body are answered with the reply that is stored.",
            "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES},
        }
    ]
}
"""What requests for a turn take beside their bodies."""

register_url_convertor("conversation_id", _ConversationId())


def create_app(
    chat: Chat,
    models: Models,
    *,
    hosts: Collection[str] | None = None,
    sign_in: "SignIn | None" = None,
    allow_origin: str | None = None,
) -> FastAPI:
    """The API and its page over ``chat``; its store and ``models`` the caller opens and closes.

    A request may ask for one of ``models`` and for no other; the first answers where none is named.

    With ``sign_in`` users reach their own conversations and no other. Without it whoever can reach
    it can read and write every conversation: serve it on loopback, or behind what signs users in.
    ``hosts`` are the host names it answers to; None is any. ``allow_origin`` is the site whose
    pages may call it.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await chat.close()

    # Guard checks the tokens, of all requests alike; this only documents them.
    tokens = [Depends(HTTPBearer(auto_error=False))] if sign_in is not None else []
    app = FastAPI(
        title="Chatledger",
        lifespan=lifespan,
        dependencies=tokens,
        redirect_slashes=False,
        redoc_url=None,
        docs_url=None,
    )
    app.add_middleware(Guard, hosts=hosts, sign_in=sign_in)
    if allow_origin is not None:  # around the guard: its refusals are for those pages too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[allow_origin],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=api.SENT_HEADERS,
            expose_headers=api.SEEN_HEADERS,
            max_age=api.PREFLIGHT_SECONDS,
        )
    app.add_exception_handler(ChatledgerError, _refuse)
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
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

    async def _turn(request: Request) -> AsyncGenerator[Event, None]:
        key = api.idempotency_key(request.headers.getlist("idempotency-key"))
        return turn(chat, models, await _parsed(ChatRequest, request), idempotency_key=key)

    @app.post("/chat", openapi_extra=_takes(ChatRequest) | KEYED)
    async def answer(request: Request) -> dict[str, Any]:
        async with aclosing(await _turn(request)) as events:
            return responses.replied(await whole(events))

    @app.post("/chat/stream", openapi_extra=_takes(ChatRequest) | KEYED)
    async def stream(request: Request) -> Response:
        events = await _turn(request)
        # The first is awaited here, so that what is refused still gets its status.
        return EventStream(await anext(events), events)

    @app.post("/conversations", openapi_extra=_takes(CreateRequest, signed_in=sign_in is not None))
    async def create(request: Request) -> dict[str, str]:
        asked = await _parsed(CreateRequest, request)
        created = await store.create(owner=asked.user_id, title=asked.title)
        return {"conversation_id": created.id}

    @app.get("/conversations")
    async def conversations(request: Request) -> dict[str, Any]:
        query = _query(request, ["user_id", "limit", "cursor"], ["user_id"])
        limit = api.number(query, "limit", most=api.LIMIT, default=20)
        return responses.listed(
            await store.list(query["user_id"], limit=limit, cursor=query.get("cursor"))
        )

    @app.get("/conversations/{conversation_id:conversation_id}")
    async def conversation(request: Request, conversation_id: str) -> dict[str, Any]:
        query = _query(request, ["user_id", "limit", "before"])
        owner = query.get("user_id")
        limit = api.number(query, "limit", most=api.LIMIT, default=api.LIMIT)
        if "before" not in query:
            return responses.shown_tail(await store.tail(conversation_id, limit, owner=owner))
        before = api.number(query, "before", most=LAST_REVISION)
        found = await store.get(conversation_id, owner=owner)
        page = await store.page(conversation_id, before=before, limit=limit, owner=owner)
        return responses.shown(found, page)

    @app.delete("/conversations/{conversation_id:conversation_id}")
    async def delete(request: Request, conversation_id: str) -> dict[str, str]:
        query = _query(request, ["user_id"])
        await store.delete(conversation_id, owner=query.get("user_id"))
        return responses.DELETED

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


async def _parsed(kind: type[api.R], request: Request) -> api.R:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > api.BODY_BYTES:
            raise api.too_large()
    kind_of_body = request.headers.get("content-type")
    return api.parsed(kind, bytes(body), kind_of_body, signed_in=request.state.user)


def _query(request: Request, known: list[str], required: Sequence[str] = ()) -> dict[str, str]:
    given = request.query_params.multi_items()
    return api.query(given, known, required, signed_in=request.state.user)


def _takes(kind: type[api.Request], *, signed_in: bool = False) -> dict[str, Any]:
    # The body is read and checked by api.parsed, for all frameworks alike; this only documents it.
    schema = schema_components([kind])[1][kind.__name__]
    if signed_in:
        schema["required"] = [name for name in schema["required"] if name != "user_id"]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _refuse(request: Request, error: Exception) -> Response:
    log_unknown(error, f"{request.method} {request.url.path!r}")
    return refused(refusal(error))


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 404:
            refusal = Refused(404, "no_such_route", "There is nothing at this address.")
        case 405:
            refusal = Refused(405, "method_not_allowed", "This address takes another method.")
        case status:
            refusal = Refused(status, "bad_request", "The request cannot be answered.")
    answer = refused(refusal)
    answer.headers.update(error.headers or {})
    return answer
