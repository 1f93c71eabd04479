"""The chatbot API on AWS Chalice: Amazon API Gateway (a REST API) in front of AWS Lambda."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from chalice.app import Authorizer, Chalice, CORSConfig, Request, Response

from chatledger.chat import SyncChat, whole_sync
from chatledger.conversations import LAST_REVISION, Page, Tail
from chatledger.errors import ChatledgerError, NotFound, StoreUnavailable
from chatledger.http import api, responses
from chatledger.http.api import ChatRequest, CreateRequest
from chatledger.http.api_gateway import Asked, claimed_user, claims_of, header_values
from chatledger.http.error_log import SECURITY_HEADERS, log_unknown
from chatledger.http.errors import Refused, refusal
from chatledger.http.turns import turn_sync
from chatledger.json_values import dumps
from chatledger.models import Models

if TYPE_CHECKING:  # its library comes with an extra
    from chatledger.http.auth import SignIn

logger = logging.getLogger("chatledger.http")

TIME_LIMIT = timedelta(seconds=25)
"""How long a turn may take: API Gateway gives up after 29 seconds, start of the function included.
"""
KEEPING_SECONDS = 2.0
"""How much of the function's own time is left for keeping what was said."""
ANSWER_BYTES = 5 * 1024 * 1024
"""The longest answer, as the function hands it on: Lambda takes no more than 6 MB."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
ELSEWHERE = "/{proxy+}"
"""All that is no route, as API Gateway calls it."""


class Chats(Protocol):
    """Makes a chat over what was opened, such as ``partial(SyncChat, store, model)``."""

    def __call__(self, *, time_limit: timedelta) -> SyncChat: ...


def register(
    app: Chalice,
    open: Callable[[], Chats],
    models: Models,
    *,
    sign_in: "SignIn | None" = None,
    authorizer: Authorizer | None = None,
    allow_origin: str | None = None,
    time_limit: timedelta = TIME_LIMIT,
) -> None:
    """Add the API's routes to ``app``, and an answer to every other address.

    ``open`` is called when a request first needs it, and once; where it fails, the next request
    tries again. A request may ask for one of ``models`` and for no other. A turn ends within
    ``time_limit`` and within the time that is left to the function: what was said by then is kept.

    With ``sign_in``, or an ``authorizer`` of Amazon Cognito, which API Gateway asks, users reach
    their own conversations and no other. With both API Gateway turns others away, and tokens are
    checked here again, which is the only check under ``chalice local``. Without either whoever can
    reach it can read and write every conversation. ``allow_origin`` is the site whose pages may
    call it.
    """
    cors = None
    if allow_origin is not None:
        cors = CORSConfig(
            allow_origin,
            allow_headers=list(api.SENT_HEADERS),
            expose_headers=list(api.SEEN_HEADERS),
            max_age=api.PREFLIGHT_SECONDS,
        )
    serving = _Serving(
        open, models, sign_in=sign_in, has_authorizer=authorizer is not None, time_limit=time_limit
    )
    # With CORS Chalice has OPTIONS answered by API Gateway itself.
    methods = list(METHODS if cors else (*METHODS, "OPTIONS"))

    def add(path: str, by_method: _Answers) -> None:
        is_open = api.is_open(path)

        def view(**captured: str) -> Response:
            request = app.current_request
            assert request is not None
            return serving.response(request, by_method, is_open=is_open)

        app.route(
            path,
            methods=methods,
            name=path,
            authorizer=None if is_open else authorizer,
            # Chalice would refuse other types itself, in a shape of its own; api.parsed looks.
            content_types=[],
            cors=cors,
        )(view)

    add("/", {"GET": serving.welcome, "HEAD": serving.welcome})
    add("/health", {"GET": serving.health, "HEAD": serving.health})
    add("/chat", {"POST": serving.answer})
    add("/chat/stream", {"POST": serving.stream})
    add("/conversations", {"GET": serving.conversations, "POST": serving.create})
    add("/conversations/{conversation_id}", {"GET": serving.conversation, "DELETE": serving.delete})
    add(ELSEWHERE, dict.fromkeys(methods, serving.nowhere))

    def known(request: Any, get_response: Callable[[Any], Any]) -> Any:
        # API Gateway may send what is elsewhere under a name that it has not been given.
        if isinstance(request, Request) and request.path not in app.routes:
            return serving.response(request, dict.fromkeys(methods, serving.nowhere))
        return get_response(request)

    app.register_middleware(known, "http")


class NotOpened(Exception):
    """What is served cannot be opened: it is the server's own affair, and no client's."""


_Answer: TypeAlias = Callable[[Asked], object]
_Answers: TypeAlias = Mapping[str, _Answer]


class _Serving:
    """What all requests share."""

    def __init__(
        self,
        open: Callable[[], Chats],
        models: Models,
        *,
        sign_in: "SignIn | None",
        has_authorizer: bool,
        time_limit: timedelta,
    ) -> None:
        self._open = open
        self._models = models
        self._sign_in = sign_in
        self._has_authorizer = has_authorizer
        self._time_limit = time_limit
        self._chats: Chats | None = None
        self._opening = Lock()

    def response(self, request: Request, by_method: _Answers, *, is_open: bool = False) -> Response:
        """The answer to ``request``; errors are in the API's shape."""
        status = 200
        headers: dict[str, str | list[str]] = {"Content-Type": "application/json"}
        headers |= SECURITY_HEADERS
        try:
            asked = Asked(request, None if is_open else self._user(request))
            body = _answer_to(request.method, by_method)(asked)
        except Exception as error:  # the last that sees it: its text must reach no log or client
            log_unknown(error, f"{request.method} {request.path!r}")
            refused = refusal(error)
            status, body = refused.status, refused.body
            headers |= refused.headers
            if status == 405:
                headers["Allow"] = ", ".join(by_method)
        # A body behind the answer to HEAD would be taken for the start of the next answer.
        return Response("" if request.method == "HEAD" else dumps(body), headers, status)

    # The routes ---------------------------------------------------------------------------------

    def welcome(self, asked: Asked) -> object:
        return {name: text for name, text in responses.WELCOME.items() if name != "documentation"}

    def health(self, asked: Asked) -> object:
        with suppress(NotFound):
            self._chat(asked).store.get("health")
        return responses.HEALTHY

    def answer(self, asked: Asked) -> object:
        began = time.monotonic()
        key = api.idempotency_key(asked.headers("idempotency-key"))
        request = asked.parsed(ChatRequest)
        chat = self._chat(asked, began)
        return responses.replied(
            whole_sync(turn_sync(chat, self._models, request, idempotency_key=key))
        )

    def stream(self, asked: Asked) -> object:
        raise Refused(
            501, "no_streaming", "This server sends replies as a whole; send the same to /chat."
        )

    def create(self, asked: Asked) -> object:
        request = asked.parsed(CreateRequest)
        created = self._chat(asked).store.create(owner=request.user_id, title=request.title)
        return {"conversation_id": created.id}

    def conversations(self, asked: Asked) -> object:
        query = asked.query(["user_id", "limit", "cursor"], ["user_id"])
        limit = api.number(query, "limit", most=api.LIMIT, default=20)
        store = self._chat(asked).store
        return responses.listed(
            store.list(query["user_id"], limit=limit, cursor=query.get("cursor"))
        )

    def conversation(self, asked: Asked) -> object:
        query = asked.query(["user_id", "limit", "before"])
        owner = query.get("user_id")
        limit = api.number(query, "limit", most=api.LIMIT, default=api.LIMIT)
        id, store = asked.conversation_id, self._chat(asked).store
        if "before" not in query:
            return _fitting(store.tail(id, limit, owner=owner))
        before = api.number(query, "before", most=LAST_REVISION)
        found = store.get(id, owner=owner)
        page = store.page(id, before=before, limit=limit, owner=owner)
        while _is_too_long(shown := responses.shown(found, page)) and len(page.messages) > 1:
            kept = page.messages[: len(page.messages) // 2]
            page = Page(kept, kept[-1].seq)
        return shown

    def delete(self, asked: Asked) -> object:
        owner = asked.query(["user_id"]).get("user_id")
        self._chat(asked).store.delete(asked.conversation_id, owner=owner)
        return responses.DELETED

    def nowhere(self, asked: Asked) -> object:
        raise Refused(404, "no_such_route", "There is nothing at this address.")

    # What they have in common -------------------------------------------------------------------

    def _user(self, request: Request) -> str | None:
        if self._sign_in is not None:
            # Two of them are none.
            return self._sign_in.user(", ".join(header_values(request, "authorization")) or None)
        # One that we were not told of is one too: a stage whose settings API Gateway has alone.
        if self._has_authorizer or claims_of(request) is not None:
            return claimed_user(request)
        return None

    def _chat(self, asked: Asked, began: float | None = None) -> SyncChat:
        """A chat whose turns end in the time that is left of a request that ``began`` then."""
        chats = self._opened()
        left = self._time_limit.total_seconds()
        if began is not None:
            left -= time.monotonic() - began
        if asked.seconds_left is not None:
            left = min(left, asked.seconds_left - KEEPING_SECONDS)
        return chats(time_limit=timedelta(seconds=max(left, 0.001)))

    def _opened(self) -> Chats:
        with self._opening:
            if self._chats is None:
                try:
                    self._chats = self._open()
                except StoreUnavailable:
                    raise
                except ChatledgerError as error:
                    # What is wrong is the server's affair: its text says it to whoever runs that.
                    logger.error("The chat cannot be opened: %s", error)
                    raise NotOpened from None
            return self._chats


def _answer_to(method: str, by_method: _Answers) -> _Answer:
    if method not in by_method:
        raise Refused(405, "method_not_allowed", "This address takes another method.")
    return by_method[method]


def _fitting(tail: Tail) -> dict[str, Any]:
    """The conversation with as many of its last messages as an answer holds."""
    while _is_too_long(shown := responses.shown_tail(tail)) and len(tail.messages) > 1:
        tail = Tail(tail.conversation, tail.messages[len(tail.messages) // 2 :])
    return shown


def _is_too_long(body: object) -> bool:
    # The function's answer is JSON with this JSON as text in it, and without other scripts.
    return len(json.dumps(dumps(body))) > ANSWER_BYTES
