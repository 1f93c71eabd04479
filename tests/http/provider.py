"""An OpenID Connect provider for tests: it signs users in, and gives and renews their tokens."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.http.tokens import claims, jwk_set, rsa_key, token

CLIENT = "chat page"
AUDIENCE = "https://chat.example/api"


@dataclass
class Grant:
    """A sign-in: its user, its code and its refresh tokens."""

    user: str
    redirect_uri: str
    challenge: str
    nonce: str
    refresh_token: str | None = None
    is_revoked: bool = False


@dataclass
class Provider:
    """The provider at ``url``; tests change how it answers."""

    url: str
    user: str = "bob"
    """The user who signs in next."""
    expires_in: int = 3600
    """The lifetime of access tokens, as it tells the client."""
    lifetime: int = 3600
    """The lifetime of access tokens in truth; it may be over when they are issued."""
    id_lifetime: int = 3600
    """The lifetime of ID tokens."""
    has_end_session: bool = True
    renews: bool = True
    """Whether it gives refresh tokens."""
    nonce: str | None = None
    """The nonce of ID tokens, if not the right one."""
    failure: tuple[int, dict[str, str]] | None = None
    """The answer to requests for tokens, if not the right one."""
    grants: list[Grant] = field(default_factory=list)
    exchanges: int = 0
    renewals: int = 0
    reused: int = 0
    """The number of refresh tokens that came twice."""
    ended: list[dict[str, str]] = field(default_factory=list)
    """The parameters of the requests to end a session."""
    secrets: list[str] = field(default_factory=list)
    """All codes and tokens that it has given."""
    _codes: dict[str, Grant] = field(default_factory=dict)
    _refresh_tokens: dict[str, Grant] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables with which a server's page signs users in here."""
        return {
            "CHATLEDGER_AUTH": "jwt",
            "CHATLEDGER_JWT_ISSUER": self.url,
            "CHATLEDGER_JWT_AUDIENCE": AUDIENCE,
            "CHATLEDGER_JWT_JWKS_URL": f"{self.url}/keys.json",
            "CHATLEDGER_OIDC_CLIENT_ID": CLIENT,
            "CHATLEDGER_OIDC_SCOPE": "openid  profile",
        }

    @property
    def configuration(self) -> dict[str, Any]:
        ends = {"end_session_endpoint": f"{self.url}/logout"} if self.has_end_session else {}
        return ends | {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "authorization_response_iss_parameter_supported": True,
        }

    def access_token(self, user: str) -> str:
        expiry = int(time.time()) + self.lifetime
        payload = claims(user, iss=self.url, aud=AUDIENCE, exp=expiry, jti=secrets.token_hex(8))
        return token(payload)

    def revoke(self) -> None:
        """Refuse all refresh tokens that it has given."""
        with self._lock:
            for grant in self.grants:
                grant.is_revoked = True

    # Endpoints ------------------------------------------------------------------------------------

    def authorize(self, query: dict[str, str]) -> str:
        """Return a page on which the user signs in or refuses."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert query["scope"] == "openid profile"
        assert query["audience"] == AUDIENCE
        assert query["code_challenge_method"] == "S256"
        uri, code = query["redirect_uri"], secrets.token_urlsafe()
        with self._lock:
            self._codes[code] = Grant(self.user, uri, query["code_challenge"], query["nonce"])
            self.secrets.append(code)
        same = {"state": query["state"], "iss": self.url}
        answers = {
            "Sign in": {"code": code},
            "Refuse": {"error": "access_denied", "error_description": "<b>No</b>"},
            "Be busy": {"error": "temporarily_unavailable"},
            "Reject the scope": {"error": "invalid_scope"},
            "Write anything": {"error": "<b>Call 555-0100</b>"},
            "Name no issuer": {"code": code, "iss": ""},
            "Name another issuer": {"code": code, "iss": "https://evil.example"},
            "Change the state": {"code": code, "state": "made-up"},
        }
        links = []
        for label, answer in answers.items():
            parameters = {name: value for name, value in (same | answer).items() if value}
            address = f"{uri}?{urlencode(parameters)}".replace("&", "&amp;")
            links.append(f'<p><a href="{address}">{label}</a></p>')
        return f"<!doctype html><title>Provider</title>{''.join(links)}"

    def give_tokens(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of the answer to a request for tokens."""
        with self._lock:
            if self.failure is not None:
                return self.failure
            if form.get("client_id") != CLIENT or "client_secret" in form:
                return 400, {"error": "invalid_client"}
            if form["grant_type"] == "authorization_code":
                self.exchanges += 1
                grant = self._codes.pop(form["code"], None)
                digest = hashlib.sha256(form["code_verifier"].encode()).digest()
                challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
                if grant is None or grant.challenge != challenge:
                    return 400, {"error": "invalid_grant"}
                if grant.redirect_uri != form["redirect_uri"]:
                    return 400, {"error": "invalid_grant"}
                self.grants.append(grant)
            else:
                self.renewals += 1
                grant = self._refresh_tokens.get(form["refresh_token"])
                if grant is not None and grant.refresh_token != form["refresh_token"]:
                    self.reused += 1
                    grant.is_revoked = True
                if grant is None or grant.is_revoked:
                    return 400, {"error": "invalid_grant", "error_description": "<b>Over</b>"}
            return 200, self._tokens(grant)

    def _tokens(self, grant: Grant) -> dict[str, Any]:
        id_claims = claims(
            grant.user,
            iss=self.url,
            aud=CLIENT,
            nonce=self.nonce or grant.nonce,
            exp=int(time.time()) + self.id_lifetime,
            name=f"{grant.user.title()} <b>Builder</b>",
        )
        body = {
            "access_token": self.access_token(grant.user),
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "id_token": token(id_claims),
        }
        if self.renews:
            grant.refresh_token = body["refresh_token"] = secrets.token_urlsafe()
            self._refresh_tokens[grant.refresh_token] = grant
        self.secrets += [str(body[name]) for name in body if name.endswith("_token")]
        return body


@contextmanager
def open_provider() -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = first_values(parts.query)
            match parts.path:
                case "/.well-known/openid-configuration":
                    self.send(200, "application/json", json.dumps(provider.configuration))
                case "/keys.json":
                    self.send(200, "application/json", jwk_set(rsa_key()).decode())
                case "/authorize":
                    self.send(200, "text/html", provider.authorize(query))
                case "/logout":
                    provider.ended.append(query)
                    self.send_response(302)
                    self.send_header("Location", query["post_logout_redirect_uri"])
                    self.end_headers()
                case _:
                    self.send(404, "text/plain", "")

        def do_POST(self) -> None:
            form = first_values(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status, body = provider.give_tokens(form)
            self.send(status, "application/json", json.dumps(body))

        def send(self, status: int, kind: str, text: str) -> None:
            with suppress(ConnectionError):  # the client has disconnected
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = Provider(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()


def first_values(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}
