"""A server that users sign in to: a real one, over a socket, beside an issuer of tokens."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from starlette.routing import Mount, Route

from chatledger.chat import Chat
from chatledger.errors import InvalidArgument
from chatledger.http.fastapi import create_app
from chatledger.http.opening import open_sign_in
from chatledger.models import Models
from chatledger.settings import Settings, read_settings
from chatledger.stores.urls import open_async_store
from tests.http.bad_input import table
from tests.http.client import (
    JSON,
    MARKER,
    Fields,
    answer_of,
    at,
    connected,
    created,
    deleted,
    events,
    ids,
    refused,
    said,
    shown,
    someone,
    streamed,
    survived,
    whole,
)
from tests.http.tokens import (
    AUDIENCE,
    ISSUER,
    KeyServer,
    bearer,
    claims,
    headers,
    key_server,
    rsa,
    token,
)
from tests.serving import Server, StartServer
from tests.test_imports import LOADED, run
from tests.test_serve import ended

PLACE = "{conversation_id}"

CLOSED = {
    "POST /chat": {"message": MARKER},
    "POST /chat/stream": {"message": MARKER},
    "POST /conversations": {"title": MARKER},
    "GET /conversations": None,
    f"GET /conversations/{PLACE}": None,
    f"DELETE /conversations/{PLACE}": None,
}
"""Each route that one must sign in for, and a body that it takes."""
OF_ONE = {
    "POST /chat": {"message": MARKER, "conversation_id": PLACE},
    "POST /chat/stream": {"message": MARKER, "conversation_id": PLACE},
    f"GET /conversations/{PLACE}": None,
    f"DELETE /conversations/{PLACE}": None,
}
"""Each route that reaches a conversation."""
OF_NONE = {"POST /conversations", "GET /conversations"}
OPEN = {
    *("GET /", "HEAD /", "GET /health", "HEAD /health"),
    *("GET /openapi.json", "HEAD /openapi.json", "/page"),
}

every_closed_route = pytest.mark.parametrize("route", CLOSED)


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
    yield from signed_in(url, someone())


@pytest.fixture
def eve(url: str) -> Iterator[httpx.Client]:
    yield from signed_in(url, someone())


def signed_in(url: str, user: str) -> Iterator[httpx.Client]:
    with connected(url) as client:
        client.headers.update(headers(user))
        client.params = {}
        yield client


def asked(
    client: httpx.Client, route: str, body: Fields | None, place: str = "nobody's", **query: str
) -> httpx.Response:
    """What a route answers; ``query`` also counts as fields of the body, where there is one."""
    method, path = route.split(" ")
    path = at(place) if PLACE in path else path
    if body is None:
        return client.request(method, path, params=query)
    fields = {name: place if value == PLACE else value for name, value in body.items()}
    return client.request(method, path, json=fields | query)


# Every route --------------------------------------------------------------------------------------


def test_these_tables_name_every_route() -> None:
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
    assert there == set(CLOSED) | OPEN
    assert set(CLOSED) == set(OF_ONE) | OF_NONE


BAD_HEADERS = table(
    {
        "nothing": dict,
        "an empty header": lambda: {"Authorization": ""},
        "a password": lambda: {"Authorization": "Basic Ym9iOnNlY3JldA=="},
        "a broken token": lambda: {"Authorization": bearer(token()[:-5])},
        "a foreign token": lambda: {"Authorization": bearer(token(key=rsa("rogue")))},
        "one for another": lambda: headers("bob", aud="somebody else"),
        "an expired token": lambda: headers("bob", exp=int(time.time()) - 3600),
        "a huge token": lambda: headers("bob", more="x" * 20_000),
        "a token in a cookie": lambda: {"Cookie": f"Authorization={token()}"},
    }
)


@every_closed_route
@pytest.mark.parametrize("made", BAD_HEADERS)
def test_nobody_gets_in_without_a_good_token(
    client: httpx.Client, route: str, made: type[dict[str, str]]
) -> None:
    client.headers.update(made())
    response = asked(client, route, CLOSED[route], user_id="bob")
    assert refused(response, 401)["code"] in ("not_signed_in", "invalid_token")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@every_closed_route
def test_two_tokens_are_none(client: httpx.Client, route: str) -> None:
    method, path = route.split(" ")
    two = [("Authorization", bearer(token())), ("Authorization", bearer(token()))]
    refused(client.request(method, path, headers=two, json={"message": MARKER}), 401)


ODD_REQUESTS = table(
    {
        "a body that is no JSON": ("POST", "/chat", b"{"),
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
def test_nothing_of_a_request_is_looked_at_before_its_token(
    client: httpx.Client, request_: tuple[str, str, bytes]
) -> None:
    method, path, body = request_
    response = client.request(method, path, content=body, headers=JSON)
    if path.startswith("/%70age"):
        refused(response, 404)  # a file of the page that is not there
    else:
        refused(response, 401)


def test_the_page_and_health_and_the_description_need_no_token(client: httpx.Client) -> None:
    for route in OPEN - {"/page"}:
        method, path = route.split(" ")
        assert client.request(method, path).status_code == 200
    assert client.get("/page/server.js").status_code == 200


@pytest.mark.parametrize("route", OF_ONE)
def test_somebody_elses_conversation_does_not_exist(
    bob: httpx.Client, eve: httpx.Client, route: str
) -> None:
    place = said(bob, "Hi, I am Bob")["conversation_id"]
    before = shown(bob, place)
    answer = refused(asked(eve, route, OF_ONE[route], place), 404)
    assert shown(bob, place) == before
    assert ids(listed_for(eve)) == []
    if OF_ONE[route] is None:
        deleted(bob, place)
        assert refused(asked(eve, route, OF_ONE[route], place), 404) == answer


@every_closed_route
@pytest.mark.parametrize("named", ["bob", "anonymous", "BOB", "nobody "])
def test_nobody_may_speak_for_another(eve: httpx.Client, route: str, named: str) -> None:
    response = asked(eve, route, CLOSED[route], user_id=named)
    assert refused(response, 403)["code"] == "wrong_user"
    assert ids(listed_for(eve)) == []


@every_closed_route
def test_who_names_themselves_is_answered_as_who_does_not(url: str, route: str) -> None:
    user = someone()
    for client in signed_in(url, user):
        for query in ({}, {"user_id": user}):
            place = created(client)
            response = asked(client, route, CLOSED[route], place, **query)
            assert response.status_code == 200, response.text


def listed_for(client: httpx.Client) -> Fields:
    return answer_of(client.get("/conversations"))


# Talking, signed in -------------------------------------------------------------------------------


def test_who_signs_in_need_not_say_who_they_are(url: str) -> None:
    user = someone()
    for client in signed_in(url, user):
        place = said(client, "Hi, I am Bob")["conversation_id"]
        assert "Bob" in said(client, "What is my name?", conversation_id=place)["response"]
        assert shown(client, place)["user_id"] == user
        assert ids(listed_for(client)) == [place]
        with streamed(client, message="What is my name?", conversation_id=place) as response:
            assert "Bob" in whole(events(response))[1]
        deleted(client, place)
        assert ids(listed_for(client)) == []


def test_history_is_kept_for_the_subject_unless_it_is_not_wanted(bob: httpx.Client) -> None:
    assert said(bob, "Hi", save_history=False)["conversation_id"] is None
    assert ids(listed_for(bob)) == []
    place = said(bob, "Hi", save_history=True)["conversation_id"]
    assert not shown(bob, place)["user_id"].startswith("anonymous")
    assert ids(listed_for(bob)) == [place]


def test_an_unknown_conversation_starts_for_the_subject(
    bob: httpx.Client, eve: httpx.Client
) -> None:
    place = str(uuid4())
    assert said(bob, "Hi", conversation_id=place)["conversation_id"] == place
    refused(eve.post("/chat", json={"message": MARKER, "conversation_id": place}), 404)


def test_one_key_of_two_users_does_not_bring_them_together(
    bob: httpx.Client, eve: httpx.Client
) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    places = [
        answer_of(client.post("/chat", json={"message": "Hi"}, headers=key))["conversation_id"]
        for client in (bob, bob, eve)
    ]
    assert places[0] == places[1] != places[2]


def test_a_cursor_of_another_shows_nothing_of_theirs(bob: httpx.Client, eve: httpx.Client) -> None:
    hers = [created(bob) for _ in range(3)]
    created(eve)
    cursor = answer_of(bob.get("/conversations", params={"limit": "1"}))["cursor"]
    response = eve.get("/conversations", params={"cursor": cursor})
    survived(response)
    assert not any(place in response.text for place in hers)


def test_no_token_and_no_message_is_in_the_log(
    bob: httpx.Client, client: httpx.Client, server: Server
) -> None:
    text = token(claims(MARKER))
    for authorization in (bearer(text), bearer(text[:-5]), f"Basic {text}"):
        client.post("/chat", json={"message": MARKER}, headers={"Authorization": authorization})
    assert text[:60] not in server.log()
    assert text.split(".")[1] not in server.log()
    assert MARKER not in server.log()


def test_the_description_says_that_there_are_tokens(client: httpx.Client) -> None:
    described = answer_of(client.get("/openapi.json"))
    assert [scheme["scheme"] for scheme in described["components"]["securitySchemes"].values()] == [
        "bearer"
    ]
    body = described["paths"]["/conversations"]["post"]["requestBody"]
    assert "user_id" not in json.dumps(body["content"]["application/json"]["schema"]["required"])


def test_without_keys_it_says_when_to_come_again_and_still_tells_its_health(
    start_server: StartServer,
) -> None:
    server = start_server(
        CHATLEDGER_AUTH="jwt",
        CHATLEDGER_JWT_ISSUER=ISSUER,
        CHATLEDGER_JWT_AUDIENCE=AUDIENCE,
        CHATLEDGER_JWT_JWKS_URL="http://127.0.0.1:9/keys.json",
    )
    with connected(server.url) as client:
        response = client.get("/conversations", headers=headers("bob"))
        assert refused(response, 503)["code"] == "sign_in_unavailable"
        assert int(response.headers["Retry-After"]) >= 1
        assert answer_of(client.get("/health")) == {"status": "healthy"}
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
        # Whoever sets these believes that users sign in.
        ("CHATLEDGER_JWT_ISSUER", {"CHATLEDGER_AUTH": "none"}),
        ("CHATLEDGER_AUTH", {"CHATLEDGER_AUTH": ""}),
    ],
)
def test_a_wrong_setting_of_sign_in_ends_it_with_a_sentence_that_names_it(
    tmp_path: Path, wrong: str, changed: dict[str, str]
) -> None:
    assert wrong in ended(tmp_path, **(ALL | changed))
    assert list(tmp_path.iterdir()) == [], "it looked at its settings only after it had begun"


def test_a_user_pool_issues_under_the_name_of_its_address() -> None:
    given = {"CHATLEDGER_AUTH": "jwt", "CHATLEDGER_JWT_AUDIENCE": "app"}
    pool = read_settings(given | {"CHATLEDGER_COGNITO_USER_POOL": POOL})
    assert pool.issuer == "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_aBcDeFgHi"
    with pytest.raises(InvalidArgument, match="leave one of them out"):
        read_settings(ALL | {"CHATLEDGER_COGNITO_USER_POOL": POOL})


@pytest.mark.parametrize("left", ["CHATLEDGER_JWT_AUDIENCE", "CHATLEDGER_COGNITO_USER_POOL"])
def test_what_is_set_for_sign_in_without_it_is_named(left: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{left} is set, and CHATLEDGER_AUTH is not jwt"):
        read_settings({left: POOL})


def test_any_address_is_served_where_users_sign_in(tmp_path: Path) -> None:
    # An address that no machine has (RFC 5737): it fails, but not for want of the flag.
    line = ended(tmp_path, **ALL, CHATLEDGER_HOST="192.0.2.1")
    assert "192.0.2.1" in line
    assert "--allow-unauthenticated" not in line


def test_a_server_without_sign_in_does_not_load_its_library(tmp_path: Path) -> None:
    done = run("import chatledger.cli.serving" + LOADED, tmp_path)
    assert done.stderr == ""
    assert "fastapi" in done.stdout
    assert not {"joserfc", "cryptography"} & set(done.stdout.split())


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joserfc", None)
    for module in ("auth", "keys"):
        monkeypatch.delitem(sys.modules, f"chatledger.http.{module}", raising=False)
    settings = Settings(auth="jwt", jwt_issuer=ISSUER, jwt_audience=[AUDIENCE])
    with pytest.raises(InvalidArgument, match=r"CHATLEDGER_AUTH.*joserfc.*chatledger\[auth\]"):
        open_sign_in(settings)
