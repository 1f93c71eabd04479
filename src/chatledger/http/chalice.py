"""The chatbot API on AWS Chalice: Amazon API Gateway (a REST API) in front of AWS Lambda."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote

from chalice.app import Authorizer, Chalice, CORSConfig, Request, Response

from chatledger.chat import SyncChat, collect_sync
from chatledger.errors import ChatledgerError, InvalidArgument, NotFound, StoreUnavailable
from chatledger.http import api
from chatledger.http.api import ChatRequest, CreateRequest
from chatledger.http.errors import (
    ApiError,
    handle_error,
    internal_error,
    method_not_allowed,
    no_such_route,
)
from chatledger.http.sign_in import SignIn
from chatledger.models import Models
from chatledger.sansio import run
from chatledger.stores.arguments import checked_id
from chatledger.stores.contract import Store
from chatledger.values import dumps

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
    routes = _Routes(open, models, sign_in, authorizer is not None, time_limit)
    # With CORS, Chalice makes API Gateway itself respond to OPTIONS.
    methods = list(METHODS if cors else (*METHODS, "OPTIONS"))

    def add(path: str, by_method: _RouteByMethod) -> None:
        is_public = api.is_public(path)

        def view(**captured: str) -> Response:
            request = app.current_request
            assert request is not None
            return routes.respond(request, by_method, is_public=is_public)

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

    add("/", {"GET": routes.welcome, "HEAD": routes.welcome})
    add("/health", {"GET": routes.health, "HEAD": routes.health})
    add("/chat", {"POST": routes.send_message})
    add("/chat/stream", {"POST": routes.stream_reply})
    add("/conversations", {"GET": routes.list_conversations, "POST": routes.create_conversation})
    add(
        "/conversations/{conversation_id}",
        {"GET": routes.read_conversation, "DELETE": routes.delete_conversation},
    )
    add(CATCH_ALL, dict.fromkeys(methods, routes.no_such_route))

    def reject_unknown_paths(request: Any, get_response: Callable[[Any], Any]) -> Any:
        # API Gateway may pass a path without a route under a resource name that is not registered.
        if isinstance(request, Request) and request.path not in app.routes:
            return routes.respond(request, dict.fromkeys(methods, routes.no_such_route))
        return get_response(request)

    app.register_middleware(reject_unknown_paths, "http")


class GatewayRequest:
    """A request in the form in which API Gateway and ``chalice local`` pass it on."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._started_at = time.monotonic()
        self.user: str | None = None
        """The signed-in user; None before sign-in, and if the request needs none."""

    def header_values(self, name: str) -> list[str]:
        """Return all values of the header ``name``; ``chalice local`` passes on only one."""
        headers = self._request.to_original_event().get("multiValueHeaders") or {}
        values = [value for given in headers if given.lower() == name for value in headers[given]]
        if not values and name in self._request.headers:
            values = [self._request.headers[name]]
        return values

    def authorizer_claims(self) -> Mapping[str, object] | None:
        """Return the claims that a Cognito authorizer passed on, or None without an authorizer."""
        match self._request.context.get("authorizer"):
            case {"claims": Mapping() as claims}:
                return claims
        return None

    def idempotency_key(self) -> str | None:
        return api.parse_idempotency_key(self.header_values("idempotency-key"))

    def body(self, kind: type[api.RequestT]) -> api.RequestT:
        """Parse the body as ``api.parse_body`` does."""
        try:
            body = self._request.raw_body
        except ValueError:
            body = b""  # a lone surrogate or invalid base64: API Gateway sends neither
        content_type = self._request.headers.get("content-type")
        assert isinstance(body, bytes)
        return api.parse_body(kind, body, content_type, signed_in_user=self.user)

    def query(self) -> api.Query:
        given = self._request.query_params
        pairs = []
        if given is not None:  # Chalice's value for a request without a query
            pairs = [(name, value) for name in given for value in given.getlist(name)]
        return api.Query(pairs, signed_in_user=self.user)

    def conversation_id(self) -> str:
        # API Gateway and chalice local both leave path parameters percent-encoded.
        encoded = (self._request.uri_params or {})["conversation_id"]
        try:
            return unquote(encoded, errors="strict")
        except UnicodeDecodeError:
            raise NotFound(encoded) from None  # it is not UTF-8

    def seconds_left(self, time_limit: timedelta) -> float:
        """Return the seconds that a turn may still take.

        They end with ``time_limit``, which began with the request, and before the Lambda function
        times out.
        """
        seconds = self._started_at + time_limit.total_seconds() - time.monotonic()
        remaining = getattr(self._request.lambda_context, "get_remaining_time_in_millis", None)
        if remaining is not None:
            seconds = min(seconds, remaining() / 1000 - SAVING_SECONDS)
        return max(seconds, 0.001)


_Route: TypeAlias = Callable[[GatewayRequest], object]
_RouteByMethod: TypeAlias = Mapping[str, _Route]


@dataclass
class _Routes:
    """The API's routes; each returns the body of its response."""

    open: Callable[[], ChatFactory]
    models: Models
    sign_in: SignIn | None
    has_authorizer: bool
    time_limit: timedelta
    _chat_factory: ChatFactory | None = None
    _opening: Lock = field(default_factory=Lock)

    def respond(
        self, request: Request, by_method: _RouteByMethod, *, is_public: bool = False
    ) -> Response:
        """Run the route for the request's method and turn errors into the API's format."""
        status = 200
        headers: dict[str, str | list[str]] = {"Content-Type": "application/json"}
        headers |= api.SECURITY_HEADERS
        try:
            gateway_request = GatewayRequest(request)
            if not is_public:
                gateway_request.user = self._user(gateway_request)
            if request.method not in by_method:
                headers["Allow"] = ", ".join(by_method)
                raise method_not_allowed()
            body = by_method[request.method](gateway_request)
        except Exception as error:  # the last handler: clients must not get the error's text
            api_error = handle_error(error, f"{request.method} {request.path!r}")
            status, body = api_error.status, api_error.body
            headers |= api_error.headers
        # A client would take a body after a HEAD response for the start of the next response.
        return Response("" if request.method == "HEAD" else dumps(body), headers, status)

    # Routes ---------------------------------------------------------------------------------------
    #
    # They parse a body first, so that an invalid one does not open the store.

    def welcome(self, request: GatewayRequest) -> object:
        return {name: text for name, text in api.WELCOME.items() if name != "documentation"}

    def health(self, request: GatewayRequest) -> object:
        return run(api.check_health(self._open_store(request)))

    def send_message(self, request: GatewayRequest) -> object:
        key, body = request.idempotency_key(), request.body(ChatRequest)
        chat = self._open_chat(request)
        with api.explain_unknown_conversation(body):
            events = api.start_turn(chat, self.models, body, key)
            return api.reply_body(collect_sync(events))

    def stream_reply(self, request: GatewayRequest) -> object:
        raise ApiError(
            501, "no_streaming", "This server does not stream; send the same request to /chat."
        )

    def create_conversation(self, request: GatewayRequest) -> object:
        body = request.body(CreateRequest)
        return run(api.create_conversation(self._open_store(request), body))

    def list_conversations(self, request: GatewayRequest) -> object:
        return run(api.list_conversations(self._open_store(request), request.query()))

    def read_conversation(self, request: GatewayRequest) -> object:
        id, query = request.conversation_id(), request.query()
        return _cut_to_fit(run(api.read_conversation(self._open_store(request), id, query)))

    def delete_conversation(self, request: GatewayRequest) -> object:
        id, query = request.conversation_id(), request.query()
        return run(api.delete_conversation(self._open_store(request), id, query))

    def no_such_route(self, request: GatewayRequest) -> object:
        raise no_such_route()

    # The user and the chat ------------------------------------------------------------------------

    def _user(self, request: GatewayRequest) -> str | None:
        if self.sign_in is not None:
            authorization = api.parse_authorization(request.header_values("authorization"))
            return self.sign_in.user(authorization)
        claims = request.authorizer_claims()
        # The authorizer may also be configured in API Gateway only, and not here.
        if claims is None and not self.has_authorizer:
            return None
        user = (claims or {}).get("sub")
        try:
            checked_id(user, "sub")
        except InvalidArgument:
            raise ApiError(401, "not_signed_in", "Sign in first.", challenge="Bearer") from None
        return str(user)

    def _open_store(self, request: GatewayRequest) -> Store:
        return self._open_chat(request).store

    def _open_chat(self, request: GatewayRequest) -> SyncChat:
        """Return a chat whose turns end within the time that remains for the request."""
        chat_factory = self._open_chat_factory()
        return chat_factory(time_limit=timedelta(seconds=request.seconds_left(self.time_limit)))

    def _open_chat_factory(self) -> ChatFactory:
        with self._opening:
            if self._chat_factory is None:
                try:
                    self._chat_factory = self.open()
                except StoreUnavailable:
                    raise
                except ChatledgerError as error:
                    # A configuration error: its text is for the operator, not for clients.
                    logger.error("The chat cannot be opened: %s", error)
                    raise internal_error() from None
            return self._chat_factory


def _cut_to_fit(body: api.ResponseBody) -> api.ResponseBody:
    """Leave out the oldest messages of a conversation until the function may return its body."""
    conversation = body["conversation"]
    # Lambda's response contains this JSON as a string in JSON, with non-ASCII characters escaped.
    while len(json.dumps(dumps(body))) > MAX_RESPONSE_BYTES and len(conversation["messages"]) > 1:
        newest = conversation["messages"][len(conversation["messages"]) // 2 :]
        conversation |= {"messages": newest, "next": newest[0]["seq"]}
    return body
