"""The chatbot API on AWS Chalice: Amazon API Gateway (a REST API) in front of AWS Lambda."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import unquote

from chalice.app import Authorizer, Chalice, CORSConfig, Request, Response

from chatledger.chat import Started, SyncChat
from chatledger.chat.protocol import reply_from
from chatledger.errors import ChatledgerError, InvalidArgument, NotFound, StoreUnavailable
from chatledger.http import api, endpoints
from chatledger.http.bodies import WELCOME, reply_body, stored_frames, stored_start_frame
from chatledger.http.browser_sign_in import BrowserSignIn
from chatledger.http.endpoints import Endpoint, Given, Rules, TurnEndpoint
from chatledger.http.errors import (
    ApiError,
    handle_error,
    internal_error,
    method_not_allowed,
    no_such_route,
)
from chatledger.http.limits import Limits, caller_at
from chatledger.http.sign_in import SignIn
from chatledger.models import Models
from chatledger.sansio import run
from chatledger.stores.arguments import checked_id
from chatledger.values import dumps

if TYPE_CHECKING:
    from chatledger.http.reference import Reference

logger = logging.getLogger("chatledger.http")

TIME_LIMIT = timedelta(seconds=25)
"""The default time limit of a turn.

API Gateway gives up after 29 seconds, which include the start of the function.
"""
SAVING_SECONDS = 2.0
"""The part of the Lambda function's remaining time that is reserved for saving the reply."""

MAX_EXPORT_BYTES = 5 * 1024 * 1024
"""The size of the largest export, in JSON: Lambda limits a response to 6 MB."""

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
    hosts: Collection[str] | None = None,
    sign_in: SignIn | None = None,
    browser_sign_in: BrowserSignIn | None = None,
    authorizer: Authorizer | None = None,
    allow_origin: str | None = None,
    allow_system_prompt: bool = False,
    time_limit: timedelta = TIME_LIMIT,
    limits: Limits | None = None,
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
        hosts: The host names in lower case, without a port, that requests may be addressed to, or
            None for any. API Gateway answers only to its own, but ``chalice local`` to any.
        sign_in: Identifies the user of each request inside the Lambda function.
        browser_sign_in: How pages sign users in, which ``/sign-in`` tells them.
        authorizer: An Amazon Cognito authorizer, which API Gateway calls before the function runs.
            ``chalice local`` does not verify tokens, so there ``sign_in`` is the only check.
        allow_origin: The site whose pages may call the API (CORS).
        allow_system_prompt: True if a request's system prompt may follow that of the chat. If the
            chat has none, a request may always have one.
        time_limit: The longest time that a turn may take. A turn also ends shortly before the
            Lambda function times out. In both cases the reply so far is saved.
        limits: The limits of each caller; by default there are none.
    """
    cors = None
    if allow_origin is not None:
        cors = CORSConfig(
            allow_origin,
            allow_headers=list(api.CORS_REQUEST_HEADERS),
            expose_headers=list(api.CORS_RESPONSE_HEADERS),
            max_age=api.PREFLIGHT_SECONDS,
        )
    routes = _Routes(
        open,
        Rules(models, limits or Limits(), allow_system_prompt),
        hosts,
        sign_in,
        browser_sign_in,
        has_authorizer=authorizer is not None,
        time_limit=time_limit,
    )
    # With CORS, Chalice makes API Gateway itself respond to OPTIONS.
    methods = list(METHODS if cors else (*METHODS, "OPTIONS"))

    def add(path: str, by_method: _RouteByMethod) -> None:
        is_public = api.is_public(path)
        if "GET" in by_method:
            by_method = {**by_method, "HEAD": by_method["GET"]}

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

    add("/", {"GET": routes.welcome})
    add("/health", {"GET": routes.health})
    add("/sign-in", {"GET": routes.describe_sign_in})
    add("/openapi.json", {"GET": routes.describe})
    add("/docs", {"GET": routes.read_reference})
    by_path: defaultdict[str, dict[str, _Route]] = defaultdict(dict)
    for turn_endpoint in endpoints.TURN_ENDPOINTS:
        by_path[turn_endpoint.path][turn_endpoint.method] = partial(routes.run_turn, turn_endpoint)
    for endpoint in endpoints.ENDPOINTS:
        by_path[endpoint.path][endpoint.method] = partial(routes.run_endpoint, endpoint)
    by_path[endpoints.REPLY_PATH]["GET"] = routes.read_reply
    by_path[endpoints.EXPORT_PATH]["GET"] = routes.export
    for endpoint in endpoints.ENDPOINTS:
        if endpoint.path == "/conversations/{conversation_id}":
            # API Gateway takes a conversation with the id "import" for the path of imports.
            of_import = partial(routes.run_endpoint, endpoint, conversation_id="import")
            by_path[endpoints.IMPORT_PATH][endpoint.method] = of_import
    for path, by_method in by_path.items():
        add(path, by_method)
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
        self.conversation_id: str | None = None
        """The conversation in which the request's message is stored; None until it is."""
        self.status = 200
        """The status of the response."""
        self.headers: dict[str, str | list[str]] = {
            "Content-Type": "application/json",
            **api.SECURITY_HEADERS,
        }
        """The headers of the response."""

    def header_values(self, name: str) -> list[str]:
        """Return all values of the header ``name``; ``chalice local`` passes on only one."""
        headers = self._request.to_original_event().get("multiValueHeaders") or {}
        values = [value for given in headers if given.lower() == name for value in headers[given]]
        if not values and name in self._request.headers:
            values = [self._request.headers[name]]
        return values

    @property
    def caller(self) -> str:
        """The signed-in user, or else the client's address, whose limits apply."""
        if self.user is not None:
            return self.user
        return caller_at(self._request.context.get("identity", {}).get("sourceIp"))

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

    def query(self, known: Sequence[api.Parameter]) -> api.Query:
        given = self._request.query_params
        pairs = []
        if given is not None:  # Chalice's value for a request without a query
            pairs = [(name, value) for name in given for value in given.getlist(name)]
        return api.Query(pairs, known=known, signed_in_user=self.user)

    def path_parameters(self) -> dict[str, str]:
        # API Gateway and chalice local both leave path parameters percent-encoded.
        encoded = self._request.uri_params or {}
        try:
            return {name: unquote(encoded[name], errors="strict") for name in encoded}
        except UnicodeDecodeError:
            raise NotFound(self._request.path) from None  # it is not UTF-8

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
    rules: Rules
    hosts: Collection[str] | None
    sign_in: SignIn | None
    browser_sign_in: BrowserSignIn | None
    has_authorizer: bool
    time_limit: timedelta
    _chat_factory: ChatFactory | None = None
    _opening: Lock = field(default_factory=Lock)

    def respond(
        self, request: Request, by_method: _RouteByMethod, *, is_public: bool = False
    ) -> Response:
        """Run the route for the request's method and turn errors into the API's format."""
        gateway_request = GatewayRequest(request)
        headers = gateway_request.headers
        try:
            if self.hosts is not None:
                api.check_host(request.headers.get("host", ""), self.hosts)
            if not is_public:
                gateway_request.user = self._user(gateway_request)
            if request.method not in by_method:
                headers["Allow"] = ", ".join(by_method)
                raise method_not_allowed()
            body = by_method[request.method](gateway_request)
        except Exception as error:  # the last handler: clients must not get the error's text
            api_error = handle_error(error, f"{request.method} {request.path!r}")
            gateway_request.status = api_error.status
            body = api_error.body(conversation_id=gateway_request.conversation_id)
            headers |= {"Content-Type": "application/json", **api_error.headers}
        text = body.decode() if isinstance(body, bytes) else dumps(body)
        # A client would take a body after a HEAD response for the start of the next response.
        text = "" if request.method == "HEAD" else text
        return Response(text, headers, gateway_request.status)

    # Routes ---------------------------------------------------------------------------------------
    #
    # They check a request first, so that an invalid one does not open the store.

    def welcome(self, request: GatewayRequest) -> object:
        return WELCOME

    def describe(self, request: GatewayRequest) -> object:
        return self._document

    def read_reference(self, request: GatewayRequest) -> object:
        page = self._reference
        request.headers |= page.headers
        if page.is_known(", ".join(request.header_values("if-none-match"))):
            request.status = 304
            return b""
        return page.html

    def health(self, request: GatewayRequest) -> object:
        return run(endpoints.check_health(self._open_chat(request).store))

    def describe_sign_in(self, request: GatewayRequest) -> object:
        if self.browser_sign_in is not None:
            return self.browser_sign_in.describe()
        return {"kind": "token" if self.sign_in or self.has_authorizer else "none"}

    def run_turn(self, endpoint: TurnEndpoint, request: GatewayRequest) -> object:
        if endpoint.streams:
            raise ApiError(
                501, "no_streaming", "This server does not stream; send the same request to /chat."
            )
        with self.rules.limits.running_turn(request.caller):
            given = self._parse(request, endpoint)
            with endpoints.explain_refusal(given):
                events = run(endpoint.steps(given, **request.path_parameters()))
                started = next(events)
            assert isinstance(started, Started)
            if started.reply_id is not None:
                request.conversation_id = started.conversation_id
            return reply_body(started, reply_from([started, *events]))

    def run_endpoint(
        self, endpoint: Endpoint, request: GatewayRequest, **parameters: str
    ) -> object:
        given = self._parse(request, endpoint)
        parameters |= request.path_parameters()
        answer = run(endpoint.steps(given, **parameters))
        request.status = endpoint.status
        request.headers.update(answer.headers)
        return answer.body

    def export(self, request: GatewayRequest) -> object:
        given = self._given(request, endpoints.EXPORT_QUERY)
        [id] = request.path_parameters().values()
        export = run(endpoints.export_conversation(given, conversation_id=id))
        parts, size = [], 0
        while not export.is_complete:
            parts.append(run(export.next_part()))
            size += len(json.dumps(parts[-1]))  # as in the response of a Lambda function
            if size > MAX_EXPORT_BYTES:
                raise ApiError(
                    413,
                    "too_large",
                    "The conversation is too large to be returned as a whole; read it page by page "
                    "instead, as GET /conversations/{id} returns it.",
                )
        request.headers["Content-Type"] = f"{export.format.media_type}; charset=utf-8"
        request.headers["Content-Disposition"] = export.content_disposition
        return "".join(parts).encode()

    def read_reply(self, request: GatewayRequest) -> object:
        """Return the events of the last reply as far as they are known, all at once.

        A client that gets no end of the reply is told to ask again in a second.
        """
        given = self._given(request, endpoints.REPLY_QUERY)
        [id] = request.path_parameters().values()
        last = run(endpoints.read_last_turn(given, conversation_id=id))
        last_event_id = next(iter(request.header_values("last-event-id")), None)
        offset = endpoints.offset_in(last.reply_id, last_event_id)
        request.headers["Content-Type"] = "text/event-stream"
        if offset is None:
            request.status = 204
            return b""
        if last.reply is None:
            return b"retry: 1000\n" + stored_start_frame(id, last, offset=offset)
        return b"".join(stored_frames(id, last, offset=offset))

    def _given(self, request: GatewayRequest, known: Sequence[api.Parameter]) -> Given:
        """Return a request without its body, whose query may have the ``known`` parameters."""
        open_chat, query = partial(self._open_chat, request), request.query(known)
        return Given(open_chat, self.rules, request.user, request.caller, query)

    def _parse(self, request: GatewayRequest, endpoint: Endpoint | TurnEndpoint) -> Given:
        given = self._given(request, endpoint.query)
        if endpoint.takes_key:
            given = given._replace(idempotency_key=request.idempotency_key())
        if endpoint.takes_version:
            values = request.header_values("if-match")
            given = given._replace(version=api.parse_if_match(values))
        if endpoint.body is not None:
            given = given._replace(body=request.body(endpoint.body))
        return given

    def no_such_route(self, request: GatewayRequest) -> object:
        raise no_such_route()

    # The description of the API -------------------------------------------------------------------
    #
    # Its modules are imported when it is first read, because most instances never return it.

    @cached_property
    def _document(self) -> dict[str, Any]:
        from chatledger.http.openapi import describe_api

        has_sign_in = self.sign_in is not None or self.has_authorizer
        return describe_api(has_sign_in=has_sign_in, is_serverless=True)

    @cached_property
    def _reference(self) -> "Reference":
        from chatledger.http.reference import render_reference

        return render_reference(self._document)

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
