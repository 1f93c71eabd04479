"""The chatbot API on AWS Chalice: Amazon API Gateway (a REST API) in front of AWS Lambda."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from threading import Lock
from typing import Any, Protocol, TypeAlias

from chalice.app import Authorizer, Chalice, CORSConfig, Request, Response

from chatledger.chat import SyncChat, collect_sync
from chatledger.conversations import MAX_REVISION, Page, Tail
from chatledger.errors import ChatledgerError, NotFound, StoreUnavailable
from chatledger.http import api, responses
from chatledger.http.api import ChatRequest, CreateRequest
from chatledger.http.api_gateway import (
    GatewayRequest,
    authorized_user,
    authorizer_claims,
    header_values,
)
from chatledger.http.error_log import log_error
from chatledger.http.errors import ApiError, api_error_for
from chatledger.http.sign_in import SignIn
from chatledger.http.turns import stream_turn_sync
from chatledger.json_values import dumps
from chatledger.models import Models

logger = logging.getLogger("chatledger.http")

TIME_LIMIT = timedelta(seconds=25)
"""The default time limit of a turn.

API Gateway gives up after 29 seconds, which include the start of the function.
"""
SAVING_SECONDS = 2.0
"""The part of the Lambda function's remaining time that is reserved for saving the reply."""
MAX_RESPONSE_BYTES = 5 * 1024 * 1024
"""The longest response that the function returns; Lambda's limit is 6 MB."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
CATCH_ALL = "/{proxy+}"
"""API Gateway's resource for every path without a route."""


class ChatFactory(Protocol):
    """A function that makes a chat, such as ``partial(SyncChat, store, model)``."""

    def __call__(self, *, time_limit: timedelta) -> SyncChat: ...


def register(
    app: Chalice,
    open: Callable[[], ChatFactory],
    models: Models,
    *,
    sign_in: SignIn | None = None,
    authorizer: Authorizer | None = None,
    allow_origin: str | None = None,
    time_limit: timedelta = TIME_LIMIT,
) -> None:
    """Add the API's routes to ``app``, and a 404 response for every other path.

    With ``sign_in`` or ``authorizer``, users reach only their own conversations. Without both,
    anyone who reaches the API can read and write every conversation.

    Args:
        app: The Chalice application.
        open: A function that opens the store and the model, and returns a function that makes a
            chat with them. The first request that needs a chat calls it; if it fails, the next such
            request calls it again.
        models: The models that a request may ask for.
        sign_in: Identifies the user of each request inside the Lambda function.
        authorizer: An Amazon Cognito authorizer, which API Gateway calls before the function runs.
            ``chalice local`` does not verify tokens, so there ``sign_in`` is the only check.
        allow_origin: The site whose pages may call the API (CORS).
        time_limit: The longest time that a turn may take. A turn also ends shortly before the
            Lambda function times out. In both cases the reply so far is saved.
    """
    cors = None
    if allow_origin is not None:
        cors = CORSConfig(
            allow_origin,
            allow_headers=list(api.CORS_REQUEST_HEADERS),
            expose_headers=list(api.CORS_RESPONSE_HEADERS),
            max_age=api.PREFLIGHT_SECONDS,
        )
    endpoints = _Endpoints(
        open, models, sign_in=sign_in, has_authorizer=authorizer is not None, time_limit=time_limit
    )
    # With CORS, Chalice makes API Gateway itself respond to OPTIONS.
    methods = list(METHODS if cors else (*METHODS, "OPTIONS"))

    def add(path: str, by_method: _EndpointByMethod) -> None:
        is_public = api.is_public(path)

        def view(**captured: str) -> Response:
            request = app.current_request
            assert request is not None
            return endpoints.respond(request, by_method, is_public=is_public)

        app.route(
            path,
            methods=methods,
            name=path,
            authorizer=None if is_public else authorizer,
            # Chalice would reject other content types with errors in its own format, so
            # api.parse_body checks the content type.
            content_types=[],
            cors=cors,
        )(view)

    add("/", {"GET": endpoints.welcome, "HEAD": endpoints.welcome})
    add("/health", {"GET": endpoints.health, "HEAD": endpoints.health})
    add("/chat", {"POST": endpoints.send_message})
    add("/chat/stream", {"POST": endpoints.stream_reply})
    add(
        "/conversations",
        {"GET": endpoints.list_conversations, "POST": endpoints.create_conversation},
    )
    add(
        "/conversations/{conversation_id}",
        {"GET": endpoints.read_conversation, "DELETE": endpoints.delete_conversation},
    )
    add(CATCH_ALL, dict.fromkeys(methods, endpoints.no_such_route))

    def reject_unknown_paths(request: Any, get_response: Callable[[Any], Any]) -> Any:
        # API Gateway may pass a path without a route under a resource name that is not registered.
        if isinstance(request, Request) and request.path not in app.routes:
            return endpoints.respond(request, dict.fromkeys(methods, endpoints.no_such_route))
        return get_response(request)

    app.register_middleware(reject_unknown_paths, "http")


class OpeningFailed(Exception):
    """The store or the model cannot be opened. The log says why; clients get a 500."""


_Endpoint: TypeAlias = Callable[[GatewayRequest], object]
_EndpointByMethod: TypeAlias = Mapping[str, _Endpoint]


class _Endpoints:
    """The API's endpoints; each returns the body of its response."""

    def __init__(
        self,
        open: Callable[[], ChatFactory],
        models: Models,
        *,
        sign_in: SignIn | None,
        has_authorizer: bool,
        time_limit: timedelta,
    ) -> None:
        self._open = open
        self._models = models
        self._sign_in = sign_in
        self._has_authorizer = has_authorizer
        self._time_limit = time_limit
        self._chat_factory: ChatFactory | None = None
        self._opening = Lock()

    def respond(
        self, request: Request, by_method: _EndpointByMethod, *, is_public: bool = False
    ) -> Response:
        """Run the endpoint for the request's method and turn errors into the API's format."""
        status = 200
        headers: dict[str, str | list[str]] = {"Content-Type": "application/json"}
        headers |= responses.SECURITY_HEADERS
        try:
            checked = GatewayRequest(request, None if is_public else self._user(request))
            body = _endpoint_for(request.method, by_method)(checked)
        except Exception as error:  # the last handler: clients must not get the error's text
            log_error(error, f"{request.method} {request.path!r}")
            api_error = api_error_for(error)
            status, body = api_error.status, api_error.body
            headers |= api_error.headers
            if status == 405:
                headers["Allow"] = ", ".join(by_method)
        # A client would take a body after a HEAD response for the start of the next response.
        return Response("" if request.method == "HEAD" else dumps(body), headers, status)

    # Endpoints ----------------------------------------------------------------------------------

    def welcome(self, request: GatewayRequest) -> object:
        return {name: text for name, text in responses.WELCOME.items() if name != "documentation"}

    def health(self, request: GatewayRequest) -> object:
        with suppress(NotFound):
            self._open_chat(request).store.get("health")
        return responses.HEALTHY

    def send_message(self, request: GatewayRequest) -> object:
        started_at = time.monotonic()
        key = api.parse_idempotency_key(request.header_values("idempotency-key"))
        body = request.parse_body(ChatRequest)
        chat = self._open_chat(request, started_at)
        return responses.reply_body(
            collect_sync(stream_turn_sync(chat, self._models, body, idempotency_key=key))
        )

    def stream_reply(self, request: GatewayRequest) -> object:
        raise ApiError(
            501, "no_streaming", "This server does not stream; send the same request to /chat."
        )

    def create_conversation(self, request: GatewayRequest) -> object:
        body = request.parse_body(CreateRequest)
        created = self._open_chat(request).store.create(owner=body.user_id, title=body.title)
        return {"conversation_id": created.id}

    def list_conversations(self, request: GatewayRequest) -> object:
        query = request.parse_query(["user_id", "limit", "cursor"], ["user_id"])
        limit = api.parse_number(query, "limit", most=api.MAX_PAGE_SIZE, default=20)
        store = self._open_chat(request).store
        return responses.listing_body(
            store.list(query["user_id"], limit=limit, cursor=query.get("cursor"))
        )

    def read_conversation(self, request: GatewayRequest) -> object:
        query = request.parse_query(["user_id", "limit", "before"])
        owner = query.get("user_id")
        limit = api.parse_number(query, "limit", most=api.MAX_PAGE_SIZE, default=api.MAX_PAGE_SIZE)
        id, store = request.conversation_id, self._open_chat(request).store
        if "before" not in query:
            return _tail_body_that_fits(store.tail(id, limit, owner=owner))
        before = api.parse_number(query, "before", most=MAX_REVISION)
        conversation = store.get(id, owner=owner)
        page = store.page(id, before=before, limit=limit, owner=owner)
        while (
            _is_too_long(body := responses.conversation_body(conversation, page))
            and len(page.messages) > 1
        ):
            newest = page.messages[: len(page.messages) // 2]
            page = Page(newest, newest[-1].seq)
        return body

    def delete_conversation(self, request: GatewayRequest) -> object:
        owner = request.parse_query(["user_id"]).get("user_id")
        self._open_chat(request).store.delete(request.conversation_id, owner=owner)
        return responses.DELETED

    def no_such_route(self, request: GatewayRequest) -> object:
        raise ApiError(404, "no_such_route", "There is nothing at this address.")

    # Shared parts -------------------------------------------------------------------------------

    def _user(self, request: Request) -> str | None:
        if self._sign_in is not None:
            # Two Authorization headers, joined, are not a valid token and sign nobody in.
            return self._sign_in.user(", ".join(header_values(request, "authorization")) or None)
        # The authorizer may also be configured in API Gateway only, and not here.
        if self._has_authorizer or authorizer_claims(request) is not None:
            return authorized_user(request)
        return None

    def _open_chat(self, request: GatewayRequest, started_at: float | None = None) -> SyncChat:
        """Return a chat whose turns end within the time that remains for the request.

        ``started_at`` is the monotonic time at which the request began; the time that opening the
        chat takes is subtracted.
        """
        chat_factory = self._open_chat_factory()
        seconds = self._time_limit.total_seconds()
        if started_at is not None:
            seconds -= time.monotonic() - started_at
        if request.seconds_left is not None:
            seconds = min(seconds, request.seconds_left - SAVING_SECONDS)
        return chat_factory(time_limit=timedelta(seconds=max(seconds, 0.001)))

    def _open_chat_factory(self) -> ChatFactory:
        with self._opening:
            if self._chat_factory is None:
                try:
                    self._chat_factory = self._open()
                except StoreUnavailable:
                    raise
                except ChatledgerError as error:
                    # A configuration error: its text is for the operator, not for clients.
                    logger.error("The chat cannot be opened: %s", error)
                    raise OpeningFailed from None
            return self._chat_factory


def _endpoint_for(method: str, by_method: _EndpointByMethod) -> _Endpoint:
    if method not in by_method:
        raise ApiError(
            405,
            "method_not_allowed",
            "This address does not support this method; see the header Allow.",
        )
    return by_method[method]


def _tail_body_that_fits(tail: Tail) -> dict[str, Any]:
    """Return the body for a conversation with as many of its last messages as fit a response."""
    while _is_too_long(body := responses.tail_body(tail)) and len(tail.messages) > 1:
        tail = Tail(tail.conversation, tail.messages[len(tail.messages) // 2 :])
    return body


def _is_too_long(body: object) -> bool:
    # Lambda's response contains this JSON as a string in JSON, with non-ASCII characters escaped.
    return len(json.dumps(dumps(body))) > MAX_RESPONSE_BYTES
