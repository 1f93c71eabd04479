"""What the Chalice server does beyond the contract: time, sign-in, CORS, opening, long answers."""

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
    InvalidArgument,
    StoreUnavailable,
    TableMissing,
    UnknownModel,
)
from chatledger.http import error_log
from chatledger.http.api import LIMIT, MESSAGE_CHARACTERS
from chatledger.http.chalice import Chats, register
from chatledger.http.errors import Refused
from chatledger.models import Models, OpenedModel, open_model
from chatledger.models.offline import OfflineModel
from chatledger.stores.contract import Store
from chatledger.stores.sqlite import SQLiteStore
from tests.http.client import (
    MARKER,
    Fields,
    answer_of,
    at,
    created,
    ids,
    listed,
    refused,
    said,
    shown,
    someone,
    talk,
)
from tests.serverless.gateway import Context, Gateway

LONG_QUESTION = "Hi, I am Bob and I would like to hear all that you can do"
"""What the offline model answers in some 50 words."""
ROUTES = [
    ("POST", "/chat"),
    ("POST", "/chat/stream"),
    ("POST", "/conversations"),
    ("GET", "/conversations"),
    ("GET", "/conversations/trip"),
    ("DELETE", "/conversations/trip"),
    ("PUT", "/chat"),
    ("GET", "/nowhere"),
]
every_route = pytest.mark.parametrize("route", ROUTES, ids=" ".join)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EXECUTION_ENV", "")  # Chalice writes to it


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with SQLiteStore(tmp_path / "chatledger.db") as store:
        yield store


def models(pace: float = 0.0) -> Models:
    return Models(["offline"], open=partial(open_model, offline_pace=pace))


def served(
    store: Store,
    *,
    pace: float = 0.0,
    open: Callable[[], Chats] | None = None,
    debug: bool = False,
    **options: Any,
) -> Chalice:
    allowed = models(pace)
    app = Chalice("chatbot", debug=debug, configure_logs=False)
    register(app, open or (lambda: partial(SyncChat, store, allowed.get())), allowed, **options)
    return app


def reached(app: Chalice, **gateway: Any) -> httpx.Client:
    return Gateway(lambda: app, **gateway).client()


# What is wrong on this side ---------------------------------------------------------------------


def test_a_model_that_cannot_be_opened_is_told_to_the_log_and_not_to_the_client(
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
    with reached(app) as client:
        answer = client.post("/chat", json=body)
        assert refused(answer, 502)["code"] == "model_refused"
        refused(client.post("/chat", json=body | {"model_id": "telepathy"}), 400)
    assert "langchain" not in answer.text
    assert "pip install it" in caplog.text
    assert MARKER not in caplog.text


@pytest.mark.parametrize("error", [TableMissing("chats"), AccessRefused("Set AWS_PROFILE.")])
def test_what_is_wrong_with_the_table_is_told_to_the_log_and_not_to_the_client(
    store: Store,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(store, "get", get)
    with reached(served(store)) as client:
        answer = client.get("/health")
    refused(answer, 500)
    assert str(error) in caplog.text
    assert str(error) not in answer.text


# Time -------------------------------------------------------------------------------------------


def cut_short(client: httpx.Client, *, within: float) -> None:
    """Say what takes ten seconds to be answered, and assert what comes of it."""
    body = {"message": LONG_QUESTION, "user_id": someone()}
    began = time.monotonic()
    answer = answer_of(client.post("/chat", json=body))
    assert time.monotonic() - began < within
    assert answer["stop_reason"] == "timed_out"
    place = answer["conversation_id"]
    conversation = shown(client, place)
    assert talk(conversation) == [("user", LONG_QUESTION), ("assistant", answer["response"])]
    assert conversation["messages"][1]["stop_reason"] == "timed_out"
    again = client.post("/chat", json={"message": "And you?", "conversation_id": place})
    assert again.status_code == 200, "the conversation is free again"


def test_what_was_said_when_the_time_is_over_is_kept_and_answered(store: Store) -> None:
    app = served(store, pace=0.2, time_limit=timedelta(seconds=0.7))
    with reached(app) as client:
        cut_short(client, within=5)


def test_a_turn_ends_before_the_function_is_ended(store: Store) -> None:
    app = served(store, pace=0.2)
    with reached(app, context=partial(Context, seconds=2.7)) as client:
        cut_short(client, within=2)  # what is left is for keeping what was said


def test_opening_counts_among_the_time_of_a_turn(store: Store) -> None:
    given = []

    def open() -> Chats:
        time.sleep(0.3)

        def chat(*, time_limit: timedelta) -> SyncChat:
            given.append(time_limit.total_seconds())
            return SyncChat(store, open_model("offline"), time_limit=time_limit)

        return chat

    with reached(served(store, open=open, time_limit=timedelta(seconds=5))) as client:
        said(client, "Hi")
    assert 4 < given[0] <= 4.7


def test_a_model_that_says_nothing_in_time_is_a_timeout_and_the_next_turn_works(
    store: Store,
) -> None:
    app = served(store, pace=0.3, time_limit=timedelta(seconds=0.1))
    with reached(app) as client:
        place = created(client, user_id=someone())
        answer = client.post("/chat", json={"message": MARKER, "conversation_id": place})
        assert refused(answer, 504)["code"] == "model_timeout"
        assert int(answer.headers["Retry-After"]) >= 1
        assert talk(shown(client, place)) == [("user", MARKER)]
    with reached(served(store)) as client:
        said(client, MARKER, conversation_id=place)
        assert [role for role, _ in talk(shown(client, place))] == ["user", "assistant"]


def test_a_caller_without_a_context_is_answered(store: Store) -> None:
    with reached(served(store), context=lambda: None) as client:
        said(client, "Hi")


# Opening ----------------------------------------------------------------------------------------


def test_nothing_is_opened_before_a_request_needs_it_and_then_once(store: Store) -> None:
    opened = []

    def open() -> Chats:
        opened.append(True)
        return partial(SyncChat, store, open_model("offline"))

    with reached(served(store, open=open)) as client:
        client.get("/")
        client.get("/nowhere")
        client.post("/chat", json={"message": 7})
        assert not opened
        said(client, "Hi")
        said(client, "Hi")
    assert len(opened) == 1


def test_what_could_not_be_opened_is_tried_again_with_the_next_request(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = [
        InvalidArgument("CHATLEDGER_STORE names no table"),
        StoreUnavailable("elsewhere.example does not answer"),
    ]

    def open() -> Chats:
        if failures:
            raise failures.pop(0)
        return partial(SyncChat, store, open_model("offline"))

    with reached(served(store, open=open)) as client:
        error = refused(client.get("/health"), 500)
        assert error["code"] == "internal_error"
        assert "CHATLEDGER_STORE names no table" in caplog.text  # to whoever runs it
        assert refused(client.get("/health"), 503)["code"] == "store_unavailable"
        answer_of(client.get("/health"))


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
def test_an_unknown_error_shows_no_text_and_logs_its_kind(
    store: Store, caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    def open() -> Chats:
        raise ZeroDivisionError(MARKER)

    caplog.set_level(logging.DEBUG)
    with reached(served(store, open=open, debug=debug)) as client:
        body = {"message": MARKER, "user_id": someone()}
        assert refused(client.post("/chat", json=body), 500)["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text
    assert MARKER not in caplog.text


def test_a_stream_is_refused_in_words_that_say_what_to_do(store: Store) -> None:
    with reached(served(store)) as client:
        error = refused(client.post("/chat/stream", json={"message": MARKER}), 501)
        assert error["code"] == "no_streaming"
        assert "/chat" in error["error"]
        refused(client.get("/chat/stream"), 405)


def test_a_wrong_method_says_which_are_right(store: Store) -> None:
    with reached(served(store)) as client:
        allowed = client.put("/conversations").headers["Allow"].split(", ")
        assert set(allowed) == {"GET", "POST"}


def test_a_resource_by_another_name_is_no_route(store: Store) -> None:
    app = served(store)
    gateway = Gateway(lambda: app)
    event = gateway.event(httpx.Request("GET", f"{gateway.url}/nowhere/at/all"))
    event["requestContext"]["resourcePath"] = "/{proxy*}"
    answer = app(event, Context())
    assert answer["statusCode"] == 404
    assert json.loads(answer["body"])["code"] == "no_such_route"


def test_the_routes_of_others_are_left_alone(store: Store) -> None:
    app = served(store)

    @app.route("/theirs")
    def theirs() -> dict[str, str]:
        return {"mine": "no"}

    with reached(app) as client:
        assert client.get("/theirs").json() == {"mine": "no"}


# Headers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/conversations"])
def test_every_answer_has_the_headers_of_the_other_server(store: Store, path: str) -> None:
    with reached(served(store)) as client:
        headers = client.get(path).headers
    assert (
        error_log.SECURITY_HEADERS.items()
        <= {name: headers.get(name) for name in error_log.SECURITY_HEADERS}.items()
    )


def test_a_header_is_found_by_its_name_in_any_case(store: Store) -> None:
    user = someone()
    with reached(served(store)) as client:
        answers = [
            answer_of(
                client.post(
                    "/chat", json={"message": "Hi", "user_id": user}, headers={name: "one key"}
                )
            )
            for name in ("Idempotency-Key", "idempotency-key", "IDEMPOTENCY-KEY")
        ]
    assert answers[0] == answers[1] == answers[2]


@every_route
def test_pages_of_one_other_site_may_read_answers_and_errors(
    store: Store, route: tuple[str, str]
) -> None:
    site = "https://chat.example.org"
    with reached(served(store, allow_origin=site)) as client:
        headers = client.request(*route).headers
    assert headers["Access-Control-Allow-Origin"] == site
    assert "Idempotency-Key" in headers["Access-Control-Allow-Headers"]
    assert "Retry-After" in headers["Access-Control-Expose-Headers"]


@every_route
def test_pages_of_other_sites_may_read_nothing_unless_they_are_named(
    store: Store, route: tuple[str, str]
) -> None:
    with reached(served(store)) as client:
        answer = client.request(*route)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        asked = client.options("/chat", headers={"Origin": "https://eve.example.org"})
        assert not [name for name in asked.headers if name.startswith("access-control")]


def test_what_api_gateway_leaves_out_is_not_missed(store: Store) -> None:
    # As a test in its console does, and other callers of the function.
    app = served(store)
    gateway = Gateway(lambda: app)
    event = gateway.event(httpx.Request("GET", f"{gateway.url}/conversations?user_id=bob"))
    event["headers"] = event["multiValueHeaders"] = None
    assert app(event, Context())["statusCode"] == 200
    event["multiValueQueryStringParameters"] = None
    answer = app(event, Context())
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["code"] == "invalid_request"


# Who sends it -----------------------------------------------------------------------------------


class Names:
    """Signs in whoever says a name."""

    def user(self, authorization: str | None) -> str:
        if authorization is None or not authorization.startswith("Name "):
            raise Refused(401, "not_signed_in", "Say your name.", challenge="Name")
        return authorization.removeprefix("Name ")

    async def auser(self, authorization: str | None) -> str:
        return self.user(authorization)


POOL = CognitoUserPoolAuthorizer("pool", provider_arns=["arn:aws:cognito-idp:eu-west-1:1:p/1"])


def signed_in(store: Store, kind: str, user: str | None) -> httpx.Client:
    if kind != "cognito":
        app = served(store, sign_in=Names(), authorizer=POOL if kind == "both" else None)
        client = reached(app)
        if user is not None:
            client.headers["Authorization"] = f"Name {user}"
        return client
    claims = None if user is None else {"sub": user, "cognito:username": "b"}
    return reached(served(store, authorizer=POOL), claims=claims)


every_kind = pytest.mark.parametrize("kind", ["tokens", "cognito", "both"])


@every_kind
@every_route
def test_who_is_not_signed_in_hears_nothing_else(
    store: Store, kind: str, route: tuple[str, str]
) -> None:
    with signed_in(store, kind, None) as client:
        answer = client.request(*route, content=b"{")
        assert refused(answer, 401)["code"] == "not_signed_in"
        assert answer.headers["WWW-Authenticate"]


@every_kind
def test_the_welcome_and_the_health_are_for_all(store: Store, kind: str) -> None:
    with signed_in(store, kind, None) as client:
        answer_of(client.get("/"))
        answer_of(client.get("/health"))


@every_kind
def test_a_user_reaches_their_own_conversations_and_no_other(store: Store, kind: str) -> None:
    with signed_in(store, kind, "alice") as alice, signed_in(store, kind, "eve") as eve:
        place = said(alice, "Hi, I am Alice")["conversation_id"]
        other = answer_of(alice.post("/conversations", json={}))["conversation_id"]
        assert shown(alice, place)["user_id"] == "alice"
        mine: Fields = answer_of(alice.get("/conversations"))
        assert set(ids(mine)) == {place, other}
        assert ids(answer_of(eve.get("/conversations"))) == []
        refused(eve.get(at(place)), 404)
        refused(eve.delete(at(place)), 404)
        refused(eve.post("/chat", json={"message": MARKER, "conversation_id": place}), 404)
        for attempt in (
            eve.get("/conversations", params={"user_id": "alice"}),
            eve.get(at(place), params={"user_id": "alice"}),
            eve.post("/chat", json={"message": MARKER, "user_id": "alice"}),
            eve.post("/conversations", json={"user_id": "alice"}),
        ):
            refused(attempt, 403)
        assert ids(listed(alice, "alice")) == ids(mine)


def test_what_a_gateway_claims_is_not_believed_where_tokens_are_checked(store: Store) -> None:
    """chalice local takes claims from tokens that nobody has signed."""
    with reached(served(store, sign_in=Names(), authorizer=POOL), claims={"sub": "eve"}) as client:
        refused(client.get("/conversations"), 401)
        client.headers["Authorization"] = "Name bob"
        assert shown(client, said(client, "Hi")["conversation_id"])["user_id"] == "bob"


@pytest.mark.parametrize("claims", [{}, {"sub": ""}, {"sub": 7}, {"sub": None}])
def test_claims_of_an_authorizer_that_nobody_told_of_are_who_sent_it(
    store: Store, claims: Fields
) -> None:
    """Else, where API Gateway alone has the setting, all its users could name any user."""
    with reached(served(store), claims={"sub": "bob"}) as client:
        assert shown(client, said(client, "Hi")["conversation_id"])["user_id"] == "bob"
        refused(client.get("/conversations", params={"user_id": "alice"}), 403)
    with reached(served(store), claims=claims) as client:
        refused(client.get("/conversations", params={"user_id": "alice"}), 401)


def test_two_headers_sign_nobody_in(store: Store) -> None:
    with reached(served(store, sign_in=Names())) as client:
        headers = [("Authorization", "Basic eve"), ("Authorization", "Name alice")]
        refused(client.get("/conversations", headers=headers), 401)


def test_api_gateway_asks_the_pool_for_every_route_but_the_two(store: Store) -> None:
    app = served(store, authorizer=POOL)
    without = {
        path
        for path, methods in app.routes.items()
        if any(entry.authorizer is None for entry in methods.values())
    }
    assert without == {"/", "/health"}


# Long answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "é", "🧠", '"', "\x00"], ids=ascii)
def test_no_page_is_longer_than_a_function_may_answer(store: Store, letter: str) -> None:
    messages = [Message.user(f"{n} " + letter * (MESSAGE_CHARACTERS - 4)) for n in range(LIMIT)]
    store.append("long", messages, owner="bob")
    store.append("long", [Message.user("the last")])
    with reached(served(store)) as client:
        page = shown(client, "long")
        told = talk(page)
        while "next" in page:
            page = shown(client, "long", before=page["next"])
            told = talk(page) + told
    assert [text for _, text in told] == [message.content for message in messages] + ["the last"]
