"""A real server with sign-in, over a socket, and an issuer of tokens."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from starlette.routing import Mount, Route

from chatledger.chat import Chat
from chatledger.chat.chat import conversation_id_for
from chatledger.errors import InvalidArgument
from chatledger.http.fastapi import create_app
from chatledger.http.sign_in import open_sign_in
from chatledger.models import Models
from chatledger.settings import Settings, read_settings
from chatledger.stores.urls import open_async_store
from tests.http.bad_input import named_params
from tests.http.client import (
    CHAT_ROUTES,
    CONVERSATION_ROUTES,
    ID,
    JSON,
    MARKER,
    PRIVATE_ROUTES,
    PUBLIC_ROUTES,
    REQUIRED_QUERIES,
    Fields,
    conversation_ids,
    create_conversation,
    delete_conversation,
    expect_error,
    expect_no_server_error,
    new_user,
    open_client,
    open_stream,
    read_conversation,
    read_events,
    read_reply,
    request_route,
    send_message,
    success_body,
)
from tests.http.tokens import (
    AUDIENCE,
    ISSUER,
    KeyServer,
    auth_headers,
    bearer,
    claims,
    key_server,
    rsa_key,
    token,
)
from tests.serving import Server, StartServer
from tests.test_imports import PRINT_LOADED, run
from tests.test_serve import startup_error

every_private_route = pytest.mark.parametrize("route", PRIVATE_ROUTES)


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyServer]:
    with key_server() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def server(start_server: StartServer, issuer: KeyServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0", **issuer.settings)


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def bob(url: str) -> Iterator[httpx.Client]:
    yield from open_signed_in_client(url, new_user())


@pytest.fixture
def eve(url: str) -> Iterator[httpx.Client]:
    yield from open_signed_in_client(url, new_user())


def open_signed_in_client(url: str, user: str) -> Iterator[httpx.Client]:
    with open_client(url) as client:
        client.headers.update(auth_headers(user))
        client.params = {}
        yield client


# Every route --------------------------------------------------------------------------------------


def test_the_tests_know_every_route() -> None:
    store = open_async_store("sqlite:///:memory:")
    models = Models(["offline"])
    app = create_app(Chat(store, models.get()), models)
    there = set()
    for route in app.routes:
        if isinstance(route, Mount):
            there.add(route.path)
        else:
            assert isinstance(route, Route)
            path = route.path.replace(":conversation_id", "")
            there |= {f"{method} {path}" for method in route.methods or ()}
    heads = {route.replace("GET ", "HEAD ") for route in PRIVATE_ROUTES}
    assert there == set(PRIVATE_ROUTES) | heads | PUBLIC_ROUTES


BAD_HEADERS = named_params(
    {
        "nothing": dict,
        "an empty header": lambda: {"Authorization": ""},
        "a password": lambda: {"Authorization": "Basic Ym9iOnNlY3JldA=="},
        "a broken token": lambda: {"Authorization": bearer(token()[:-5])},
        "a token signed by another issuer": lambda: {
            "Authorization": bearer(token(key=rsa_key("rogue")))
        },
        "a token for another audience": lambda: auth_headers("bob", aud="somebody else"),
        "an expired token": lambda: auth_headers("bob", exp=int(time.time()) - 3600),
        "a huge token": lambda: auth_headers("bob", more="x" * 20_000),
        "a token in a cookie": lambda: {"Cookie": f"Authorization={token()}"},
    }
)


@every_private_route
@pytest.mark.parametrize("made", BAD_HEADERS)
def test_nobody_gets_in_without_a_valid_token(
    client: httpx.Client, route: str, made: type[dict[str, str]]
) -> None:
    client.headers.update(made())
    response = request_route(client, route, PRIVATE_ROUTES[route], user_id="bob")
    assert expect_error(response, 401)["code"] in ("not_signed_in", "invalid_token")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@every_private_route
def test_two_tokens_sign_nobody_in(client: httpx.Client, route: str) -> None:
    method, path = route.split(" ")
    two = [("Authorization", bearer(token())), ("Authorization", bearer(token()))]
    expect_error(client.request(method, path, headers=two, json={"message": MARKER}), 401)


ODD_REQUESTS = named_params(
    {
        "a body that is not JSON": ("POST", "/chat", b"{"),
        "a body that is too long": ("POST", "/chat", b" " * (256 * 1024 + 1)),
        "a bad parameter": ("GET", "/conversations?limit=0&limit=1", b""),
        "no such route": ("GET", "/nowhere", b""),
        "a wrong method": ("PUT", "/chat", b""),
        "a preflight": ("OPTIONS", "/chat", b""),
        "an open path and more": ("GET", "/health/../conversations", b""),
        "an open path, in capitals": ("GET", "/HEALTH", b""),
        "the page's folder": ("GET", "/page", b""),
        "up from the page": ("GET", "/%70age%2F..%2Fconversations", b""),
    }
)


@pytest.mark.parametrize("request_", ODD_REQUESTS)
def test_the_token_is_checked_before_anything_else(
    client: httpx.Client, request_: tuple[str, str, bytes]
) -> None:
    method, path, body = request_
    response = client.request(method, path, content=body, headers=JSON)
    if path.startswith("/%70age"):
        expect_error(response, 404)  # a file that the page does not have
    else:
        expect_error(response, 401)


def test_public_paths_need_no_token(client: httpx.Client) -> None:
    for route in PUBLIC_ROUTES - {"/page"}:
        method, path = route.split(" ")
        assert client.request(method, path).status_code == 200
    assert client.get("/page/server.js").status_code == 200


@pytest.mark.parametrize("route", CONVERSATION_ROUTES)
def test_another_users_conversation_does_not_exist(
    bob: httpx.Client, eve: httpx.Client, route: str
) -> None:
    conversation_id = send_message(bob, "Hi, I am Bob")["conversation_id"]
    before = read_conversation(bob, conversation_id)
    answer = expect_error(
        request_route(eve, route, CONVERSATION_ROUTES[route], conversation_id), 404
    )
    assert read_conversation(bob, conversation_id) == before
    assert conversation_ids(own_conversations(eve)) == []
    if CONVERSATION_ROUTES[route] is None:
        delete_conversation(bob, conversation_id)
        assert (
            expect_error(
                request_route(eve, route, CONVERSATION_ROUTES[route], conversation_id), 404
            )
            == answer
        )


@every_private_route
@pytest.mark.parametrize("named", ["bob", "anonymous", "BOB", "nobody "])
def test_a_user_cannot_act_as_another(eve: httpx.Client, route: str, named: str) -> None:
    response = request_route(eve, route, PRIVATE_ROUTES[route], user_id=named)
    assert expect_error(response, 403)["code"] == "wrong_user"
    assert conversation_ids(own_conversations(eve)) == []


@every_private_route
def test_users_may_name_themselves(url: str, route: str) -> None:
    user = new_user()
    for client in open_signed_in_client(url, user):
        for named in ({}, {"user_id": user}):
            query = named | REQUIRED_QUERIES.get(route, {})
            conversation_id = send_message(client, "Hi")["conversation_id"]
            response = request_route(client, route, PRIVATE_ROUTES[route], conversation_id, **query)
            assert response.is_success, response.text


def own_conversations(client: httpx.Client) -> Fields:
    return success_body(client.get("/conversations"))


# Turns of a signed-in user ------------------------------------------------------------------------


def test_signed_in_users_need_no_user_id(url: str) -> None:
    user = new_user()
    for client in open_signed_in_client(url, user):
        conversation_id = send_message(client, "Hi, I am Bob")["conversation_id"]
        assert (
            "Bob"
            in send_message(client, "What is my name?", conversation_id=conversation_id)["response"]
        )
        assert read_conversation(client, conversation_id)["user_id"] == user
        assert conversation_ids(own_conversations(client)) == [conversation_id]
        with open_stream(
            client, message="What is my name?", conversation_id=conversation_id
        ) as response:
            assert "Bob" in read_reply(read_events(response))[1]
        delete_conversation(client, conversation_id)
        assert conversation_ids(own_conversations(client)) == []


def test_history_is_saved_for_the_subject_unless_the_request_declines(bob: httpx.Client) -> None:
    assert send_message(bob, "Hi", save_history=False)["conversation_id"] is None
    assert conversation_ids(own_conversations(bob)) == []
    conversation_id = send_message(bob, "Hi", save_history=True)["conversation_id"]
    assert not read_conversation(bob, conversation_id)["user_id"].startswith("anonymous")
    assert conversation_ids(own_conversations(bob)) == [conversation_id]


@pytest.mark.parametrize("route", CHAT_ROUTES)
@pytest.mark.parametrize("fields", [{}, {"save_history": False}], ids=str)
def test_nobody_learns_whether_an_id_that_is_not_theirs_is_taken(
    bob: httpx.Client, eve: httpx.Client, route: str, fields: Fields
) -> None:
    taken = send_message(bob, "Hi")["conversation_id"]
    body = {"message": MARKER, "conversation_id": ID} | fields
    errors = [
        expect_error(request_route(eve, route, body, conversation_id), 404)
        for conversation_id in (taken, str(uuid4()), "chatledger:reserved")
    ]
    assert errors[0] == errors[1] == errors[2]


def test_nobody_can_take_the_id_that_anothers_idempotency_key_leads_to(
    url: str, eve: httpx.Client
) -> None:
    key, user = "order-1001", new_user()
    theirs = conversation_id_for(key, user)
    expect_error(eve.post("/chat", json={"message": MARKER, "conversation_id": theirs}), 404)
    for bob in open_signed_in_client(url, user):
        answer = bob.post("/chat", json={"message": "Hi"}, headers={"Idempotency-Key": key})
        assert success_body(answer)["conversation_id"] == theirs


def test_two_users_with_the_same_idempotency_key_get_different_conversations(
    bob: httpx.Client, eve: httpx.Client
) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    places = [
        success_body(client.post("/chat", json={"message": "Hi"}, headers=key))["conversation_id"]
        for client in (bob, bob, eve)
    ]
    assert places[0] == places[1] != places[2]


def test_another_users_cursor_shows_none_of_their_conversations(
    bob: httpx.Client, eve: httpx.Client
) -> None:
    bobs = [create_conversation(bob) for _ in range(3)]
    create_conversation(eve)
    cursor = success_body(bob.get("/conversations", params={"limit": "1"}))["cursor"]
    response = eve.get("/conversations", params={"cursor": cursor})
    expect_no_server_error(response)
    assert not any(conversation_id in response.text for conversation_id in bobs)


def test_the_log_has_no_tokens_and_no_messages(
    bob: httpx.Client, client: httpx.Client, server: Server
) -> None:
    text = token(claims(MARKER))
    for authorization in (bearer(text), bearer(text[:-5]), f"Basic {text}"):
        client.post("/chat", json={"message": MARKER}, headers={"Authorization": authorization})
    assert text[:60] not in server.log()
    assert text.split(".")[1] not in server.log()
    assert MARKER not in server.log()


def test_without_keys_requests_get_a_retry_time_and_the_health_check_works(
    start_server: StartServer,
) -> None:
    server = start_server(
        CHATLEDGER_AUTH="jwt",
        CHATLEDGER_JWT_ISSUER=ISSUER,
        CHATLEDGER_JWT_AUDIENCE=AUDIENCE,
        CHATLEDGER_JWT_JWKS_URL="http://127.0.0.1:9/keys.json",
    )
    with open_client(server.url) as client:
        response = client.get("/conversations", headers=auth_headers("bob"))
        assert expect_error(response, 503)["code"] == "sign_in_unavailable"
        assert int(response.headers["Retry-After"]) >= 1
        assert success_body(client.get("/health")) == {"status": "healthy"}
    assert "http://127.0.0.1:9/keys.json" in server.log()
    assert "Traceback" not in server.log()
    server.kill()


# Settings -----------------------------------------------------------------------------------------

ALL = {
    "CHATLEDGER_AUTH": "jwt",
    "CHATLEDGER_JWT_ISSUER": ISSUER,
    "CHATLEDGER_JWT_AUDIENCE": AUDIENCE,
}
POOL = "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu-west-1_aBcDeFgHi"
NAMELESS = {"CHATLEDGER_JWT_ISSUER": "", "CHATLEDGER_JWT_AUDIENCE": ""}


@pytest.mark.parametrize(
    ("wrong", "changed"),
    [
        ("CHATLEDGER_AUTH", {"CHATLEDGER_AUTH": "yes"}),
        ("CHATLEDGER_JWT_ISSUER", {"CHATLEDGER_JWT_ISSUER": ""}),
        ("CHATLEDGER_JWT_ISSUER", {"CHATLEDGER_JWT_ISSUER": "issuer.example"}),
        ("CHATLEDGER_JWT_ISSUER", {"CHATLEDGER_JWT_ISSUER": "http://issuer.example"}),
        ("CHATLEDGER_JWT_AUDIENCE", {"CHATLEDGER_JWT_AUDIENCE": " , "}),
        ("CHATLEDGER_JWT_JWKS_URL", {"CHATLEDGER_JWT_JWKS_URL": "http://issuer.example/keys"}),
        ("CHATLEDGER_COGNITO_USER_POOL", {"CHATLEDGER_COGNITO_USER_POOL": "eu-west-1_aBcDeFgHi"}),
        ("CHATLEDGER_JWT_ISSUER", {"CHATLEDGER_COGNITO_USER_POOL": POOL}),
        (
            "CHATLEDGER_COGNITO_USER_POOL",
            {"CHATLEDGER_COGNITO_USER_POOL": POOL.replace("eu-west-1:", "us-east-1:")},
        ),
        ("CHATLEDGER_JWT_AUDIENCE", {"CHATLEDGER_COGNITO_USER_POOL": POOL} | NAMELESS),
        ("CHATLEDGER_JWT_ISSUER", {"CHATLEDGER_OIDC_CLIENT_ID": "page"} | NAMELESS),
        (
            "CHATLEDGER_JWT_ISSUER",
            {
                "CHATLEDGER_JWT_ISSUER": "http://issuer.example",
                "CHATLEDGER_JWT_JWKS_URL": "https://issuer.example/keys",
                "CHATLEDGER_OIDC_CLIENT_ID": "page",
            },
        ),
        ("CHATLEDGER_OIDC_CLIENT_ID", {"CHATLEDGER_OIDC_CLIENT_ID": "pagé"}),
        ("CHATLEDGER_OIDC_CLIENT_ID", {"CHATLEDGER_OIDC_SCOPE": "openid profile"}),
        ("CHATLEDGER_OIDC_SCOPE", {"CHATLEDGER_OIDC_SCOPE": "profile"}),
        # Operators who set these expect users to sign in.
        ("CHATLEDGER_JWT_ISSUER", {"CHATLEDGER_AUTH": "none"}),
        ("CHATLEDGER_AUTH", {"CHATLEDGER_AUTH": ""}),
    ],
)
def test_the_server_refuses_an_invalid_sign_in_setting_and_names_it(
    tmp_path: Path, wrong: str, changed: dict[str, str]
) -> None:
    assert wrong in startup_error(tmp_path, **(ALL | changed))
    assert list(tmp_path.iterdir()) == [], "settings must be checked before anything is created"


def test_the_issuer_is_derived_from_the_user_pool() -> None:
    given = {"CHATLEDGER_AUTH": "jwt", "CHATLEDGER_JWT_AUDIENCE": "app"}
    pool = read_settings(given | {"CHATLEDGER_COGNITO_USER_POOL": POOL})
    assert pool.issuer == "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_aBcDeFgHi"
    with pytest.raises(InvalidArgument, match="set only one of them"):
        read_settings(ALL | {"CHATLEDGER_COGNITO_USER_POOL": POOL})


@pytest.mark.parametrize(
    "left", ["CHATLEDGER_JWT_AUDIENCE", "CHATLEDGER_COGNITO_USER_POOL", "CHATLEDGER_OIDC_CLIENT_ID"]
)
def test_sign_in_settings_without_sign_in_are_an_error(left: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{left} is set, but CHATLEDGER_AUTH is not jwt"):
        read_settings({left: POOL})


def test_any_address_is_served_with_sign_in(tmp_path: Path) -> None:
    # No machine has this address (RFC 5737): it fails, but not because the flag is missing.
    line = startup_error(tmp_path, **ALL, CHATLEDGER_HOST="192.0.2.1")
    assert "192.0.2.1" in line
    assert "--allow-unauthenticated" not in line


def test_a_server_without_sign_in_does_not_load_its_library(tmp_path: Path) -> None:
    done = run("import chatledger.cli.serving" + PRINT_LOADED, tmp_path)
    assert done.stderr == ""
    assert "fastapi" in done.stdout
    assert not {"joserfc", "cryptography"} & set(done.stdout.split())


def test_the_error_names_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joserfc", None)
    for module in ("auth", "signing_keys"):
        monkeypatch.delitem(sys.modules, f"chatledger.http.{module}", raising=False)
    settings = Settings(auth="jwt", jwt_issuer=ISSUER, jwt_audience=[AUDIENCE])
    with pytest.raises(InvalidArgument) as refused:
        open_sign_in(settings)
    assert str(refused.value) == (
        "CHATLEDGER_AUTH is jwt, which needs joserfc; "
        f"install it with {sys.executable} -m pip install 'joserfc>=1.8'."
    )
