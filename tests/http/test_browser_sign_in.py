"""What a server tells pages about how users sign in, and what it reads at the issuer for that."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatledger.chat import Chat
from chatledger.errors import InvalidArgument
from chatledger.http.browser_sign_in import BrowserSignIn, token_origin
from chatledger.http.errors import ApiError
from chatledger.http.fastapi import create_app
from chatledger.http.issuer import FETCH_INTERVAL_SECONDS, MAX_AGE_SECONDS, REFRESH_SECONDS
from chatledger.models import Models
from chatledger.stores.sqlite import AsyncSQLiteStore
from tests.http.bad_input import named_params
from tests.http.client import expect_error, open_checking_client, success_body, wait_until
from tests.http.provider import AUDIENCE, CLIENT, open_provider
from tests.http.tokens import ISSUER, key_server
from tests.serverless.gateway import Gateway, app_factory
from tests.serving import StartServer

CONFIGURATION = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": "https://tokens.example:8443/token",
}
HTML = {"Accept": "text/html"}


def browser_sign_in(*fetched: dict[str, Any] | Exception, **options: Any) -> BrowserSignIn:
    """Return a sign-in whose issuer has these configurations, one after the other."""
    answers = list(fetched)

    def fetch(url: str) -> bytes:
        assert url == f"{ISSUER}/.well-known/openid-configuration"
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer).encode()

    given: dict[str, Any] = {"issuer": ISSUER, "client_id": CLIENT, "fetch": fetch} | options
    return BrowserSignIn(**given)


# What is read at the issuer -----------------------------------------------------------------------


def test_pages_get_the_endpoints_of_the_issuer() -> None:
    body = browser_sign_in(CONFIGURATION | {"more": 1}, audience=[AUDIENCE, "other"]).describe()
    assert body == {
        "kind": "oidc",
        "client_id": CLIENT,
        "scope": "openid",
        "audience": AUDIENCE,
        "sends_issuer": False,
        **CONFIGURATION,
    }
    assert token_origin(body) == "https://tokens.example:8443"


def test_no_audience_is_asked_for_if_tokens_are_for_the_client_itself() -> None:
    assert "audience" not in browser_sign_in(CONFIGURATION, audience=CLIENT).describe()


def test_the_event_loop_gets_the_same() -> None:
    known = browser_sign_in(CONFIGURATION)
    assert asyncio.run(known.adescribe()) == known.describe()


@pytest.mark.parametrize(
    "changed",
    named_params(
        {
            "another issuer": {"issuer": "https://evil.example"},
            "another spelling": {"issuer": f"{ISSUER}/"},
            "no endpoint": {"token_endpoint": None},
            "plain HTTP": {"token_endpoint": "http://issuer.example/token"},
            "a script": {"authorization_endpoint": "javascript:alert(1)"},
            "a script at the end": {"end_session_endpoint": "javascript:alert(1)"},
            "another directive": {"token_endpoint": "https://x.example;script-src"},
            "another source": {"token_endpoint": "https://x.example,https://y.example/"},
            "any host": {"token_endpoint": "https://*.example/token"},
            "a user": {"token_endpoint": "https://x:y@issuer.example/token"},
        }
    ),
)
def test_a_configuration_that_pages_must_not_use_is_refused(
    changed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ApiError) as refused:
        browser_sign_in(CONFIGURATION | changed).describe()
    assert (refused.value.status, refused.value.code) == (503, "sign_in_unavailable")
    assert "Cannot fetch the sign-in configuration" in caplog.text
    assert "evil" not in caplog.text


def test_a_configuration_is_used_while_the_issuer_is_away_and_replaced_later() -> None:
    now = 1_000_000.0
    moved = CONFIGURATION | {"token_endpoint": f"{ISSUER}/moved"}
    known = browser_sign_in(CONFIGURATION, OSError(), moved, clock=lambda: now)
    assert known.describe()["token_endpoint"] == CONFIGURATION["token_endpoint"]
    now += REFRESH_SECONDS
    assert known.describe()["token_endpoint"] == CONFIGURATION["token_endpoint"]
    now += FETCH_INTERVAL_SECONDS
    wait_until(lambda: known.describe()["token_endpoint"] == moved["token_endpoint"])


def test_without_a_configuration_sign_in_is_not_available_until_there_is_one() -> None:
    now = 1_000_000.0
    known = browser_sign_in(OSError(), CONFIGURATION, OSError(), clock=lambda: now)
    for _ in range(3):
        with pytest.raises(ApiError):
            known.describe()
    now += FETCH_INTERVAL_SECONDS
    assert known.describe()["issuer"] == ISSUER
    now += MAX_AGE_SECONDS
    with pytest.raises(ApiError):
        known.describe()


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": "issuer.example"},
        {"issuer": "http://issuer.example"},
        {"client_id": ""},
        {"scope": "profile"},
    ],
    ids=str,
)
def test_invalid_arguments_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        browser_sign_in(CONFIGURATION, **options)


def test_signing_in_without_a_check_of_tokens_is_refused(tmp_path: Path) -> None:
    models = Models(["offline"])
    chat = Chat(AsyncSQLiteStore(tmp_path / "chatledger.db"), models.get())
    with pytest.raises(InvalidArgument, match="browser_sign_in needs sign_in"):
        create_app(chat, models, browser_sign_in=browser_sign_in(CONFIGURATION))


# What servers say ---------------------------------------------------------------------------------


def test_both_servers_say_how_users_sign_in(start_server: StartServer, tmp_path: Path) -> None:
    with open_provider() as provider, key_server() as issuer:
        oidc = {
            "kind": "oidc",
            "client_id": CLIENT,
            "scope": "openid profile",
            "audience": AUDIENCE,
            "issuer": provider.url,
            "authorization_endpoint": f"{provider.url}/authorize",
            "token_endpoint": f"{provider.url}/token",
            "end_session_endpoint": f"{provider.url}/logout",
            "sends_issuer": True,
        }
        expected = [({}, {"kind": "none"}), (issuer.settings, {"kind": "token"})]
        for settings, body in [*expected, (provider.settings, oidc)]:
            server = start_server(**settings)
            with open_checking_client(server.url) as client:
                assert success_body(client.get("/sign-in")) == body
            server.kill()
            store = f"sqlite:///{tmp_path / 'chatledger.db'}"
            variables = settings | {"CHATLEDGER_STORE": store}
            with app_factory(**variables) as make, Gateway(make).client() as client:
                assert success_body(client.get("/sign-in")) == body


def test_the_page_may_send_requests_to_its_server_and_for_tokens_and_to_nobody_else(
    start_server: StartServer,
) -> None:
    with open_provider() as provider:
        server = start_server(**provider.settings)
        page = httpx.get(server.url, headers=HTML, trust_env=False)
        program = httpx.get(server.url, trust_env=False)
    policy = page.headers["Content-Security-Policy"]
    assert f"; connect-src 'self' {provider.url}; " in policy
    assert "script-src 'self';" in policy
    usual = program.headers["Content-Security-Policy"]
    assert usual == policy.replace(f" {provider.url}", "")
    server.kill()


def test_while_the_issuer_is_away_the_page_is_served_and_sign_in_has_a_retry_time(
    start_server: StartServer,
) -> None:
    with open_provider() as provider:
        settings = provider.settings
    server = start_server(**settings)
    page = httpx.get(server.url, headers=HTML, trust_env=False)
    assert page.status_code == 200
    assert "connect-src 'self';" in page.headers["Content-Security-Policy"]
    with open_checking_client(server.url) as client:
        response = client.get("/sign-in")
        assert expect_error(response, 503)["code"] == "sign_in_unavailable"
        assert int(response.headers["Retry-After"]) >= 1
    assert "Traceback" not in server.log()
    server.kill()
