"""A token issuer for tests: its keys, a server that publishes them, and tokens of every kind."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://issuer.example"
AUDIENCE = "chatledger-tests"


@cache
def rsa_key(id: str = "rsa") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": id, "use": "sig"})


@cache
def ec_key(id: str = "elliptic", curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, {"kid": id, "use": "sig"})


def jwk_set(*keys: Key) -> bytes:
    """Return the JWK Set of these keys."""
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def claims(subject: object = "bob", /, **changed: Any) -> dict[str, Any]:
    """Return valid claims with ``changed`` ones; a claim changed to ``...`` is left out."""
    now = int(time.time())
    payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 3600}
    return {name: value for name, value in (payload | changed).items() if value is not ...}


def token(
    payload: dict[str, Any] | None = None, /, key: Key | None = None, **header: object
) -> str:
    """Return a token with the claims ``payload`` (valid ones by default), signed with ``key``."""
    key = key or rsa_key()
    algorithm = {"RSA": "RS256", "EC": "ES256", "oct": "HS256"}[key.key_type]
    named = {"alg": algorithm, "kid": key.kid} | header
    present = {name: value for name, value in named.items() if value is not None}
    registry = JWSRegistry(algorithms=[str(named["alg"])], strict_check_header=False)
    return jwt.encode(present, claims() if payload is None else payload, key, registry=registry)


def bearer(text: str) -> str:
    return f"Bearer {text}"


def auth_headers(subject: str, **changed: Any) -> dict[str, str]:
    """Return the headers of a signed-in user's request."""
    return {"Authorization": bearer(token(claims(subject, **changed)))}


SECRET = OctKey.import_key("a secret of thirty-two bytes ....")


class KeyServer:
    """Serve ``answer`` at ``url``; ``request_count`` counts the requests."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/keys.json"
        self.answer: bytes | Callable[[BaseHTTPRequestHandler], None] = jwk_set(rsa_key(), ec_key())
        self.request_count = 0

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        self.request_count += 1
        if callable(self.answer):
            self.answer(request)
            return
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.end_headers()
        request.wfile.write(self.answer)

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables with which a server accepts the tokens."""
        return {
            "CHATLEDGER_AUTH": "jwt",
            "CHATLEDGER_JWT_ISSUER": ISSUER,
            "CHATLEDGER_JWT_AUDIENCE": f"another, {AUDIENCE}",
            "CHATLEDGER_JWT_JWKS_URL": self.url,
        }


@contextmanager
def key_server() -> Iterator[KeyServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # the client has disconnected
                keys.respond(self)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        keys = KeyServer(server.server_port)
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield keys
        finally:
            server.shutdown()
            thread.join()
