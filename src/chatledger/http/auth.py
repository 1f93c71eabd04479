"""Who sent a request: the subject of the token that comes with it."""

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jws import JWSRegistry

from chatledger.conversations import check_id
from chatledger.errors import InvalidArgument
from chatledger.http.errors import Refused
from chatledger.http.signing_keys import ALGORITHMS, FETCH_SECONDS, Key, Keys, NoKeys
from chatledger.http.signing_keys import fetch as fetch_keys

TOKEN_BYTES = 8 * 1024
"""The longest token that is looked at."""
LEEWAY_SECONDS = 60
"""How far the clocks of issuer and server may differ."""

TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
"""What a token may call itself: others, such as one of a logout, are signed with the same keys."""

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_REGISTRY = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)


class SignIn(Protocol):
    """Tells who sent a request, by its header ``Authorization``."""

    def user(self, authorization: str | None) -> str:
        """The user who sent it. Raises ``Refused``: 401 with ``WWW-Authenticate`` (RFC 6750), or
        503 where nothing can be told of anybody now."""
        ...

    async def auser(self, authorization: str | None) -> str:
        """The same; it never blocks the event loop."""
        ...


class JWTSignIn:
    """Signs in with the JSON Web Tokens of one issuer, in ``Authorization: Bearer <token>``.

    A token must be signed by a key at ``jwks_url``, must not have expired, must be for one of
    ``audience``, and its subject is the user. ``fetch`` gets the keys, and may block.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Sequence[str],
        jwks_url: str | None = None,
        fetch: Callable[[str], bytes] = fetch_keys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audience = frozenset([audience] if isinstance(audience, str) else audience)
        if not issuer:
            raise InvalidArgument("issuer is empty: tokens of whom?")
        if not self._audience or "" in self._audience:
            raise InvalidArgument("audience is empty: a token for any service would do.")
        url = jwks_url or f"{issuer.rstrip('/')}/.well-known/jwks.json"
        self._keys = Keys(url, fetch=fetch, clock=clock)
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            sub={"essential": True},
            exp={"essential": True},
        )

    def user(self, authorization: str | None) -> str:
        token = _token(authorization)
        if fetching := self._keys.missing(token.key_id):
            with suppress(TimeoutError):
                fetching.result(FETCH_SECONDS)
        return self._subject(token)

    async def auser(self, authorization: str | None) -> str:
        token = _token(authorization)
        if fetching := self._keys.missing(token.key_id):
            await _end_of(fetching)
        return self._subject(token)

    def _subject(self, token: "_Token") -> str:
        try:
            key = self._keys.find(token.key_id, token.algorithm)
        except NoKeys as without:
            raise Refused(
                503,
                "sign_in_unavailable",
                "Nobody can be signed in just now; try again in a moment.",
                retry_after=without.retry_after,
            ) from None
        if key is None:
            raise _invalid()
        try:
            claims = _signed_claims(token, key)
            self._claims.validate(claims)
            self._check_audience(claims)
            check_id(claims["sub"])
        except ExpiredTokenError:
            raise _invalid("The token has expired; sign in again.") from None
        # A hostile token may break what reads it in many ways, and none of them lets it in.
        except (JoseError, ValueError, TypeError, RecursionError):
            raise _invalid() from None
        subject: str = claims["sub"]
        return subject

    def _check_audience(self, claims: dict[str, Any]) -> None:
        audience = claims.get("aud")
        # Amazon Cognito's access tokens have no audience; they say which client they are for.
        if audience is None and claims.get("token_use") == "access":
            audience = claims.get("client_id")
        named = audience if isinstance(audience, list) else [audience]
        if self._audience.isdisjoint(named):
            raise ValueError("for somebody else")


@dataclass(frozen=True, slots=True)
class _Token:
    """A token as it came, and what it says of itself, which proves nothing."""

    text: str
    algorithm: str
    key_id: str | None


def _token(authorization: str | None) -> _Token:
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Refused(
            401,
            "not_signed_in",
            "Sign in: send a token, with the header Authorization: Bearer.",
            challenge="Bearer",
        )
    text = text.strip(" ")
    parts = _PARTS.fullmatch(text) if len(text) <= TOKEN_BYTES else None
    if parts is None:
        raise _invalid()
    try:
        header = json.loads(base64.b64decode(parts[1] + "==", b"-_"))
    except (ValueError, RecursionError):
        raise _invalid() from None
    match header:
        # What is critical in a header must be understood (RFC 7515), and we understand nothing.
        case {"crit": _} | {"b64": _}:
            raise _invalid()
        case {"alg": str(algorithm)} if algorithm in ALGORITHMS:
            kind, key_id = header.get("typ"), header.get("kid")
            kind = kind.lower() if isinstance(kind, str) else kind
            if kind in TYPES and isinstance(key_id, str | None):
                return _Token(text, algorithm, key_id)
    raise _invalid()


def _signed_claims(token: _Token, key: Key) -> dict[str, Any]:
    return jwt.decode(token.text, key.value, registry=_REGISTRY).claims


def _invalid(sentence: str = "The token is not valid here; sign in again.") -> Refused:
    return Refused(
        401,
        "invalid_token",
        sentence,
        challenge=f'Bearer error="invalid_token", error_description="{sentence}"',
    )


async def _end_of(fetching: "Future[None]") -> None:
    # With the first use: programs without an event loop need not wait for its import.
    from asyncio import wait, wrap_future

    await wait({wrap_future(fetching)}, timeout=FETCH_SECONDS)
