"""Sign-in with JSON Web Tokens: the token's subject is the user."""

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jws import JWSRegistry

from chatledger.errors import InvalidArgument
from chatledger.http.errors import ApiError
from chatledger.http.issuer import IssuerDocument, fetch_document
from chatledger.http.signing_keys import ALGORITHMS, SigningKey, find_key, parse_key_set
from chatledger.stores.arguments import checked_id

MAX_TOKEN_BYTES = 8 * 1024
"""The longest token that is accepted."""
LEEWAY_SECONDS = 60
"""The seconds by which the clocks of the issuer and the server may differ."""

TOKEN_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
"""The accepted values of a token's ``typ`` header.

Issuers use the same keys to sign other kinds of tokens, such as logout tokens.
"""

_TOKEN_PATTERN = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_REGISTRY = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)


class JWTSignIn:
    """Sign-in with the JSON Web Tokens of one issuer, sent as ``Authorization: Bearer``.

    A token must be signed by one of the issuer's keys, must be for one of the audiences and must
    not have expired. Its subject (``sub``) is the user.

    Args:
        issuer: The issuer, exactly as in the tokens' ``iss`` claim.
        audience: One or more accepted audiences (``aud``).
        jwks_url: The URL of the issuer's keys, a JWK Set (RFC 7517);
            ``<issuer>/.well-known/jwks.json`` by default. It must be https, except on loopback.
        fetch: A function that downloads the keys from that URL. It may block, because it runs in a
            thread of its own.
        clock: A function that returns the time in seconds since 1970.

    Raises:
        InvalidArgument: An argument is empty, or the URL is not allowed.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Sequence[str],
        jwks_url: str | None = None,
        fetch: Callable[[str], bytes] = fetch_document,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audience = frozenset([audience] if isinstance(audience, str) else audience)
        if not issuer:
            raise InvalidArgument("issuer is empty; name the issuer (iss) of the tokens.")
        if not self._audience or "" in self._audience:
            raise InvalidArgument("audience is empty; name the audience (aud) of the tokens.")
        url = jwks_url or f"{issuer.rstrip('/')}/.well-known/jwks.json"
        self._keys = IssuerDocument(
            url, parse_key_set, name="sign-in keys", fetch=fetch, clock=clock
        )
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            sub={"essential": True},
            exp={"essential": True},
        )

    def user(self, authorization: str | None) -> str:
        """Return the subject of the token in the header's value.

        Raises:
            ApiError: 401 if there is no valid token, 503 if the issuer's keys are unavailable.
        """
        token = _parse_token(authorization)
        return self._subject(token, self._keys.read(token.has_key_in))

    async def auser(self, authorization: str | None) -> str:
        """Return the subject as ``user`` does, without blocking the event loop."""
        token = _parse_token(authorization)
        return self._subject(token, await self._keys.aread(token.has_key_in))

    def _subject(self, token: "_Token", keys: Sequence[SigningKey]) -> str:
        key = find_key(keys, token.key_id, token.algorithm)
        if key is None:
            raise _invalid_token()
        try:
            claims = jwt.decode(token.text, key.value, registry=_REGISTRY).claims
            self._claims.validate(claims)
            self._check_audience(claims)
            checked_id(claims["sub"])
        except ExpiredTokenError:
            raise _invalid_token("The token has expired; sign in again.") from None
        # A malicious token can make the parser fail in many ways; each means that it is invalid.
        except (JoseError, ValueError, TypeError, RecursionError):
            raise _invalid_token() from None
        subject: str = claims["sub"]
        return subject

    def _check_audience(self, claims: dict[str, Any]) -> None:
        audience = claims.get("aud")
        # Amazon Cognito's access tokens have a client_id in place of an audience.
        if audience is None and claims.get("token_use") == "access":
            audience = claims.get("client_id")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._audience.isdisjoint(audiences):
            raise ValueError("wrong audience")


@dataclass(frozen=True, slots=True)
class _Token:
    """A token, and the unverified parameters of its header."""

    text: str
    algorithm: str
    key_id: str | None

    def has_key_in(self, keys: Sequence[SigningKey]) -> bool:
        return any(self.key_id in (None, key.id) for key in keys)


def _parse_token(authorization: str | None) -> _Token:
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise ApiError(
            401,
            "not_signed_in",
            "Sign in: send a token in the header Authorization: Bearer.",
            challenge="Bearer",
        )
    text = text.strip(" ")
    parts = _TOKEN_PATTERN.fullmatch(text) if len(text) <= MAX_TOKEN_BYTES else None
    if parts is None:
        raise _invalid_token()
    try:
        header = json.loads(base64.b64decode(parts[1] + "==", b"-_"))
    except (ValueError, RecursionError):
        raise _invalid_token() from None
    match header:
        # A token with critical parameters that are not understood must be rejected (RFC 7515,
        # 4.1.11), and this server understands none.
        case {"crit": _} | {"b64": _}:
            raise _invalid_token()
        case {"alg": str(algorithm)} if algorithm in ALGORITHMS:
            kind, key_id = header.get("typ"), header.get("kid")
            kind = kind.lower() if isinstance(kind, str) else kind
            if kind in TOKEN_TYPES and isinstance(key_id, str | None):
                return _Token(text, algorithm, key_id)
    raise _invalid_token()


def _invalid_token(
    sentence: str = "The token is not valid for this server; sign in again.",
) -> ApiError:
    return ApiError(
        401,
        "invalid_token",
        sentence,
        challenge=f'Bearer error="invalid_token", error_description="{sentence}"',
    )
