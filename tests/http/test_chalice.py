"""The Chalice server beyond the contract: time limits, opening, sign-in, CORS, long responses."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from chalice.app import Chalice, CognitoUserPoolAuthorizer

from chatledger import Message
from chatledger.chat import SyncChat
from chatledger.errors import (
    AccessRefused,
    ClockSkewed,
    InvalidArgument,
    StoreUnavailable,
    TableMissing,
    UnknownModel,
)
from chatledger.http.api import MAX_MESSAGE_CHARACTERS, MAX_PAGE_SIZE, SECURITY_HEADERS
from chatledger.http.chalice import ChatFactory, register
from chatledger.http.errors import ApiError
from chatledger.models import Models, OpenedModel, open_model
from chatledger.models.offline import OfflineModel
from chatledger.stores.contract import Store
from chatledger.stores.sqlite import SQLiteStore
from tests.http.client import (
    MARKER,
    PRIVATE_ROUTES,
    Fields,
    conversation_ids,
    conversation_path,
    create_conversation,
    expect_error,
    list_conversations,
    new_user,
    read_conversation,
    request_route,
    send_message,
    success_body,
    transcript,
)
from tests.serverless.gateway import Context, Gateway

LONG_QUESTION = "Hi, I am Bob and I would like to hear all that you can do"
"""A message that the offline model answers with about 50 words."""
ROUTES = [*PRIVATE_ROUTES, "PUT /chat", "GET /nowhere"]
every_route = pytest.mark.parametrize("route", ROUTES)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EXECUTION_ENV", "")  # Chalice writes to it


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with SQLiteStore(tmp_path / "chatledger.db") as store:
        yield store


def models(pace: float = 0.0) -> Models:
    return Models(["offline"], open=partial(open_model, offline_pace=pace))


def make_app(
    store: Store,
    *,
    pace: float = 0.0,
    open: Callable[[], ChatFactory] | None = None,
    debug: bool = False,
    **options: Any,
) -> Chalice:
    allowed = models(pace)
    app = Chalice("chatbot", debug=debug, configure_logs=False)
    register(app, open or (lambda: partial(SyncChat, store, allowed.get())), allowed, **options)
    return app


def open_gateway_client(app: Chalice, **gateway: Any) -> httpx.Client:
    return Gateway(lambda: app, **gateway).client()


# Configuration errors ---------------------------------------------------------------------


def test_the_log_and_not_the_client_is_told_why_a_model_cannot_be_opened(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def open(name: str) -> OpenedModel:
        if name == "offline":
            return OfflineModel()
        raise UnknownModel("It needs langchain; pip install it.")

    allowed = Models(["offline", "openai:gpt-5"], open=open)
    app = Chalice("chatbot", configure_logs=False)
    register(app, lambda: partial(SyncChat, store, allowed.get()), allowed)
    body = {"message": MARKER, "user_id": "bob", "model_id": "openai:gpt-5"}
    with open_gateway_client(app) as client:
        answer = client.post("/chat", json=body)
        assert expect_error(answer, 502)["code"] == "model_refused"
        expect_error(client.post("/chat", json=body | {"model_id": "telepathy"}), 400)
    assert "langchain" not in answer.text
    assert "pip install it" in caplog.text
    assert MARKER not in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TableMissing("chats"), 500),
        (AccessRefused("Set AWS_PROFILE."), 500),
        (ClockSkewed(7.5), 503),
    ],
)
def test_the_log_and_not_the_client_is_told_what_is_wrong_with_the_table_or_the_clock(
    store: Store,
    error: Exception,
    status: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(store, "get", get)
    with open_gateway_client(make_app(store)) as client:
        answer = client.get("/health")
    expect_error(answer, status)
    assert str(error) in caplog.text
    assert str(error) not in answer.text


# Time -------------------------------------------------------------------------------------------


def expect_cut_short(client: httpx.Client, *, within: float) -> None:
    """Assert that a reply of ten seconds is cut short ``within`` seconds, saved and returned."""
    body = {"message": LONG_QUESTION, "user_id": new_user()}
    began = time.monotonic()
    answer = success_body(client.post("/chat", json=body))
    assert time.monotonic() - began < within
    assert answer["stop_reason"] == "timed_out"
    conversation_id = answer["conversation_id"]
    conversation = read_conversation(client, conversation_id)
    assert transcript(conversation) == [("user", LONG_QUESTION), ("assistant", answer["response"])]
    assert conversation["messages"][1]["stop_reason"] == "timed_out"
    again = client.post("/chat", json={"message": "And you?", "conversation_id": conversation_id})
    assert again.status_code == 200, "the next turn works"


def test_the_reply_so_far_is_saved_and_returned_at_the_time_limit(store: Store) -> None:
    app = make_app(store, pace=0.2, time_limit=timedelta(seconds=0.7))
    with open_gateway_client(app) as client:
        expect_cut_short(client, within=5)


def test_a_turn_ends_before_the_function_times_out(store: Store) -> None:
    app = make_app(store, pace=0.2)
    with open_gateway_client(app, context=partial(Context, seconds=2.7)) as client:
        expect_cut_short(client, within=2)  # the rest is reserved for saving


class SlowSignIn:
    """Sign everyone in after 0.2 seconds, as if the issuer's keys had to be fetched."""

    def user(self, authorization: str | None) -> str:
        time.sleep(0.2)
        return "bob"

    async def auser(self, authorization: str | None) -> str:
        return self.user(authorization)


def test_the_time_that_sign_in_and_opening_take_counts_towards_the_time_limit(store: Store) -> None:
    given = []

    def open() -> ChatFactory:
        time.sleep(0.3)

        def chat(*, time_limit: timedelta) -> SyncChat:
            given.append(time_limit.total_seconds())
            return SyncChat(store, open_model("offline"), time_limit=time_limit)

        return chat

    app = make_app(store, open=open, sign_in=SlowSignIn(), time_limit=timedelta(seconds=5))
    with open_gateway_client(app) as client:
        send_message(client, "Hi")
    assert 3 < given[0] <= 4.5


def test_a_model_without_a_piece_in_time_is_a_timeout_and_the_next_turn_works(store: Store) -> None:
    app = make_app(store, pace=0.3, time_limit=timedelta(seconds=0.1))
    with open_gateway_client(app) as client:
        conversation_id = create_conversation(client, user_id=new_user())
        answer = client.post("/chat", json={"message": MARKER, "conversation_id": conversation_id})
        error = expect_error(answer, 504, conversation_id=conversation_id)
        assert error["code"] == "model_timeout"
        assert int(answer.headers["Retry-After"]) >= 1
        assert transcript(read_conversation(client, conversation_id)) == [("user", MARKER)]
    with open_gateway_client(make_app(store)) as client:
        send_message(client, MARKER, conversation_id=conversation_id)
        assert [role for role, _ in transcript(read_conversation(client, conversation_id))] == [
            "user",
            "assistant",
        ]


def test_an_invocation_without_a_lambda_context_works(store: Store) -> None:
    with open_gateway_client(make_app(store), context=lambda: None) as client:
        send_message(client, "Hi")


# Opening ----------------------------------------------------------------------------------------


def test_the_store_is_opened_once_by_the_first_request_that_needs_it(store: Store) -> None:
    opened = []

    def open() -> ChatFactory:
        opened.append(True)
        return partial(SyncChat, store, open_model("offline"))

    with open_gateway_client(make_app(store, open=open)) as client:
        client.get("/")
        client.get("/nowhere")
        client.post("/chat", json={"message": 7})
        assert not opened
        send_message(client, "Hi")
        send_message(client, "Hi")
    assert len(opened) == 1


def test_the_next_request_tries_again_after_opening_failed(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = [
        InvalidArgument("CHATLEDGER_STORE names no table"),
        StoreUnavailable("elsewhere.example does not answer"),
    ]

    def open() -> ChatFactory:
        if failures:
            raise failures.pop(0)
        return partial(SyncChat, store, open_model("offline"))

    with open_gateway_client(make_app(store, open=open)) as client:
        error = expect_error(client.get("/health"), 500)
        assert error["code"] == "internal_error"
        assert "CHATLEDGER_STORE names no table" in caplog.text  # for the operator
        assert expect_error(client.get("/health"), 503)["code"] == "store_unavailable"
        success_body(client.get("/health"))


INVALID_REQUESTS = {
    "GET /conversations": {"user_id": "bob", "limit": "0"},
    "GET /conversations/{conversation_id}": {"before": "x"},
    "DELETE /conversations/{conversation_id}": {"user_id": ""},
    "POST /conversations": {"user_id": "bob", "title": "\0" * 10_000},
    "POST /chat": {"user_id": "bob", "model_id": "telepathy"},
    "GET /conversations/{conversation_id}/export": {"format": "pdf"},
    "POST /conversations/import": {"user_id": ""},
}


@pytest.mark.parametrize("route", INVALID_REQUESTS)
def test_an_invalid_request_is_the_clients_error_even_if_the_store_cannot_be_opened(
    store: Store, route: str
) -> None:
    def open() -> ChatFactory:
        raise StoreUnavailable("elsewhere.example does not answer")

    with open_gateway_client(make_app(store, open=open)) as client:
        body, query = PRIVATE_ROUTES[route], INVALID_REQUESTS[route]
        expect_error(request_route(client, route, body, **query), 400, 422)
        expect_error(request_route(client, route, body, user_id="bob"), 503)


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_is_logged_by_type_without_its_text(
    store: Store, caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    def open() -> ChatFactory:
        raise ZeroDivisionError(MARKER)

    caplog.set_level(logging.DEBUG)
    with open_gateway_client(make_app(store, open=open, debug=debug)) as client:
        body = {"message": MARKER, "user_id": new_user()}
        assert expect_error(client.post("/chat", json=body), 500)["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text
    assert MARKER not in caplog.text


def test_an_unexpected_error_names_the_conversation_of_the_stored_message(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> Iterator[str]:
        yield "Well, "
        raise ZeroDivisionError(MARKER)

    monkeypatch.setattr(OfflineModel, "stream_sync", fail)
    with open_gateway_client(make_app(store)) as client:
        conversation_id = create_conversation(client, user_id="bob")
        body = {"message": MARKER, "conversation_id": conversation_id}
        expect_error(client.post("/chat", json=body), 500, conversation_id=conversation_id)


def test_the_error_for_a_stream_says_what_to_do(store: Store) -> None:
    with open_gateway_client(make_app(store)) as client:
        error = expect_error(client.post("/chat/stream", json={"message": MARKER}), 501)
        assert error["code"] == "no_streaming"
        assert "/chat" in error["error"]
        expect_error(client.get("/chat/stream"), 405)


def test_the_error_for_a_wrong_method_lists_the_right_ones(store: Store) -> None:
    with open_gateway_client(make_app(store)) as client:
        allowed = client.put("/conversations").headers["Allow"].split(", ")
        assert set(allowed) == {"DELETE", "GET", "HEAD", "POST"}


def test_an_unknown_resource_name_is_not_a_route(store: Store) -> None:
    app = make_app(store)
    gateway = Gateway(lambda: app)
    event = gateway.event(httpx.Request("GET", f"{gateway.url}/nowhere/at/all"))
    event["requestContext"]["resourcePath"] = "/{proxy*}"
    answer = app(event, Context())
    assert answer["statusCode"] == 404
    assert json.loads(answer["body"])["code"] == "no_such_route"


def test_other_routes_of_the_app_still_work(store: Store) -> None:
    app = make_app(store)

    @app.route("/theirs")
    def theirs() -> dict[str, str]:
        return {"mine": "no"}

    with open_gateway_client(app) as client:
        assert client.get("/theirs").json() == {"mine": "no"}


# Headers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/conversations"])
def test_every_response_has_the_security_headers(store: Store, path: str) -> None:
    with open_gateway_client(make_app(store)) as client:
        headers = client.get(path).headers
    assert (
        SECURITY_HEADERS.items() <= {name: headers.get(name) for name in SECURITY_HEADERS}.items()
    )


def test_header_names_are_case_insensitive(store: Store) -> None:
    user = new_user()
    with open_gateway_client(make_app(store)) as client:
        answers = [
            success_body(
                client.post(
                    "/chat", json={"message": "Hi", "user_id": user}, headers={name: "one key"}
                )
            )
            for name in ("Idempotency-Key", "idempotency-key", "IDEMPOTENCY-KEY")
        ]
    assert answers[0] == answers[1] == answers[2]


@every_route
def test_pages_of_the_allowed_site_can_read_responses_and_errors(store: Store, route: str) -> None:
    site = "https://chat.example.org"
    with open_gateway_client(make_app(store, allow_origin=site)) as client:
        headers = request_route(client, route, None).headers
    assert headers["Access-Control-Allow-Origin"] == site
    assert "Idempotency-Key" in headers["Access-Control-Allow-Headers"]
    assert "Retry-After" in headers["Access-Control-Expose-Headers"]


@every_route
def test_pages_of_other_sites_can_read_nothing(store: Store, route: str) -> None:
    with open_gateway_client(make_app(store)) as client:
        answer = request_route(client, route, None)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        asked = client.options("/chat", headers={"Origin": "https://eve.example.org"})
        assert not [name for name in asked.headers if name.startswith("access-control")]


def test_events_with_missing_parts_work(store: Store) -> None:
    # Tests in the console of API Gateway and direct invocations send such events.
    app = make_app(store)
    gateway = Gateway(lambda: app)
    event = gateway.event(httpx.Request("GET", f"{gateway.url}/conversations?user_id=bob"))
    event["headers"] = event["multiValueHeaders"] = None
    assert app(event, Context())["statusCode"] == 200
    event["multiValueQueryStringParameters"] = None
    answer = app(event, Context())
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["code"] == "invalid_request"


# Sign-in -----------------------------------------------------------------------------------


class NameSignIn:
    """Sign in everyone who sends a name."""

    def user(self, authorization: str | None) -> str:
        if authorization is None or not authorization.startswith("Name "):
            raise ApiError(401, "not_signed_in", "Send your name.", challenge="Name")
        return authorization.removeprefix("Name ")

    async def auser(self, authorization: str | None) -> str:
        return self.user(authorization)


POOL = CognitoUserPoolAuthorizer("pool", provider_arns=["arn:aws:cognito-idp:eu-west-1:1:p/1"])


def open_signed_in_client(store: Store, kind: str, user: str | None) -> httpx.Client:
    if kind != "cognito":
        app = make_app(store, sign_in=NameSignIn(), authorizer=POOL if kind == "both" else None)
        client = open_gateway_client(app)
        if user is not None:
            client.headers["Authorization"] = f"Name {user}"
        return client
    claims = None if user is None else {"sub": user, "cognito:username": "b"}
    return open_gateway_client(make_app(store, authorizer=POOL), claims=claims)


every_kind = pytest.mark.parametrize("kind", ["tokens", "cognito", "both"])


@every_kind
@every_route
def test_a_request_without_sign_in_gets_only_401(store: Store, kind: str, route: str) -> None:
    with open_signed_in_client(store, kind, None) as client:
        answer = request_route(client, route, {"message": MARKER})
        assert expect_error(answer, 401)["code"] == "not_signed_in"
        assert answer.headers["WWW-Authenticate"]


@every_kind
def test_the_welcome_and_the_health_check_need_no_sign_in(store: Store, kind: str) -> None:
    with open_signed_in_client(store, kind, None) as client:
        success_body(client.get("/"))
        success_body(client.get("/health"))


@every_kind
def test_users_reach_only_their_own_conversations(store: Store, kind: str) -> None:
    with (
        open_signed_in_client(store, kind, "alice") as alice,
        open_signed_in_client(store, kind, "eve") as eve,
    ):
        conversation_id = send_message(alice, "Hi, I am Alice")["conversation_id"]
        other = success_body(alice.post("/conversations", json={}))["conversation_id"]
        assert read_conversation(alice, conversation_id)["user_id"] == "alice"
        mine: Fields = success_body(alice.get("/conversations"))
        assert set(conversation_ids(mine)) == {conversation_id, other}
        assert conversation_ids(success_body(eve.get("/conversations"))) == []
        expect_error(eve.get(conversation_path(conversation_id)), 404)
        expect_error(eve.delete(conversation_path(conversation_id)), 404)
        expect_error(
            eve.post("/chat", json={"message": MARKER, "conversation_id": conversation_id}), 404
        )
        for attempt in (
            eve.get("/conversations", params={"user_id": "alice"}),
            eve.get(conversation_path(conversation_id), params={"user_id": "alice"}),
            eve.post("/chat", json={"message": MARKER, "user_id": "alice"}),
            eve.post("/conversations", json={"user_id": "alice"}),
        ):
            expect_error(attempt, 403)
        assert conversation_ids(list_conversations(alice, "alice")) == conversation_ids(mine)


def test_authorizer_claims_are_ignored_if_tokens_are_checked(store: Store) -> None:
    """``chalice local`` passes on the claims of unsigned tokens."""
    with open_gateway_client(
        make_app(store, sign_in=NameSignIn(), authorizer=POOL), claims={"sub": "eve"}
    ) as client:
        expect_error(client.get("/conversations"), 401)
        client.headers["Authorization"] = "Name bob"
        assert (
            read_conversation(client, send_message(client, "Hi")["conversation_id"])["user_id"]
            == "bob"
        )


@pytest.mark.parametrize("claims", [{}, {"sub": ""}, {"sub": 7}, {"sub": None}])
def test_claims_of_an_unconfigured_authorizer_identify_the_sender(
    store: Store, claims: Fields
) -> None:
    """Otherwise, with an authorizer configured only in API Gateway, users could name any user."""
    with open_gateway_client(make_app(store), claims={"sub": "bob"}) as client:
        assert (
            read_conversation(client, send_message(client, "Hi")["conversation_id"])["user_id"]
            == "bob"
        )
        expect_error(client.get("/conversations", params={"user_id": "alice"}), 403)
    with open_gateway_client(make_app(store), claims=claims) as client:
        expect_error(client.get("/conversations", params={"user_id": "alice"}), 401)


def test_two_authorization_headers_sign_nobody_in(store: Store) -> None:
    with open_gateway_client(make_app(store, sign_in=NameSignIn())) as client:
        headers = [("Authorization", "Basic eve"), ("Authorization", "Name alice")]
        expect_error(client.get("/conversations", headers=headers), 401)


def test_every_route_except_the_public_ones_has_the_authorizer(store: Store) -> None:
    app = make_app(store, authorizer=POOL)
    without = {
        path
        for path, methods in app.routes.items()
        if any(entry.authorizer is None for entry in methods.values())
    }
    assert without == {"/", "/docs", "/health", "/openapi.json", "/sign-in"}


# Long responses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "é", "🧠", '"', "\x00"], ids=ascii)
def test_no_page_is_longer_than_a_function_may_return(store: Store, letter: str) -> None:
    messages = [
        Message.user(f"{n} " + letter * (MAX_MESSAGE_CHARACTERS - 4)) for n in range(MAX_PAGE_SIZE)
    ]
    store.append("long", messages, owner="bob")
    store.append("long", [Message.user("the last")])
    with open_gateway_client(make_app(store)) as client:
        page = read_conversation(client, "long")
        told = transcript(page)
        while "next" in page:
            page = read_conversation(client, "long", before=page["next"])
            told = transcript(page) + told
    assert [text for _, text in told] == [message.content for message in messages] + ["the last"]
