"""The public keys that verify tokens, fetched from the issuer's JWK Set (RFC 7517)."""

import json
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from joserfc.jwk import ECKey, RSAKey

from chatledger.errors import InvalidArgument
from chatledger.http.api import is_loopback
from chatledger.http.errors import ApiError

logger = logging.getLogger("chatledger.http")

FETCH_TIMEOUT_SECONDS = 5.0
"""The longest time that a fetch of the keys may take."""
FETCH_INTERVAL_SECONDS = 10.0
"""The shortest time between the starts of two fetches, whatever keys the tokens name."""
REFRESH_SECONDS = 60 * 60.0
"""The age at which keys are fetched again, while they stay in use."""
MAX_AGE_SECONDS = 24 * 60 * 60.0
"""The age up to which keys are used if no newer ones can be fetched."""
MAX_KEY_SET_BYTES = 256 * 1024
"""The longest JWK Set that is read."""
MIN_RSA_BITS = 2048
"""The shortest RSA key that is used (RFC 7518, section 3.3)."""

ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
}
"""The accepted signature algorithms, and the kind of key that each needs.

All are asymmetric, so the server holds no secret. The algorithm "none" is not among them.
"""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key; ``kind`` is "RSA" or the name of its curve."""

    id: str | None
    algorithm: str | None
    kind: str
    value: RSAKey | ECKey

    def matches(self, id: str | None, algorithm: str) -> bool:
        """Return whether the key may have signed a token with this key id and algorithm."""
        return (
            id in (None, self.id)
            and self.algorithm in (None, algorithm)
            and self.kind == ALGORITHMS[algorithm]
        )


def check_key_url(url: str) -> None:
    """Raise ``InvalidArgument`` unless ``url`` is an https or a loopback URL.

    Keys fetched over plain HTTP from elsewhere could be changed on the way.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not url.isascii() or any(blank in url for blank in " \t\r\n"):
        raise InvalidArgument(
            "the address of the signing keys is not a URL; write one such as https://issuer.example."
        )
    if parts.username is not None:
        raise InvalidArgument("the address of the signing keys must not contain a user name.")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InvalidArgument("the address of the signing keys must start with https://.")


def fetch_key_set(url: str) -> bytes:
    """Download the JWK Set at ``url``.

    Any exception that it raises means that there are no new keys.
    """
    end = time.monotonic() + FETCH_TIMEOUT_SECONDS
    request = Request(  # noqa: S310 - check_key_url has checked the scheme
        url, headers={"Accept": "application/json", "User-Agent": "chatledger"}
    )
    with _url_opener(url).open(request, timeout=FETCH_TIMEOUT_SECONDS) as response:
        body = b""
        # The timeout applies to each read and not to the whole response, so read in chunks.
        while chunk := response.read1(64 * 1024):
            body += chunk
            if len(body) > MAX_KEY_SET_BYTES:
                raise ValueError("too long")
            if time.monotonic() > end:
                raise TimeoutError
        return body


def parse_key_set(body: bytes) -> list[SigningKey]:
    """Return the keys of a JWK Set that can verify a signature; skip the others (RFC 7517, 5)."""
    keys = [_parse_key(entry) for entry in json.loads(body)["keys"]]
    return [key for key in keys if key is not None]


class SigningKeys:
    """The keys at ``url``, fetched when needed; threads may share them.

    Known keys stay in use for up to a day while the issuer's server is down.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Callable[[str], bytes] = fetch_key_set,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_key_url(url)
        self._url = url
        self._fetch = fetch
        # Wall clock: the monotonic clock stands still while a Lambda function is frozen.
        self._clock = clock
        self._lock = Lock()
        self._keys: list[SigningKey] = []
        self._fetched_at = self._requested_at = -math.inf
        self._fetching: Future[None] | None = None

    def fetch_if_needed(self, id: str | None) -> "Future[None] | None":
        """Start a fetch if the key ``id`` is unknown or the keys are old.

        Returns:
            The fetch to wait for before ``find``, for at most ``FETCH_TIMEOUT_SECONDS``; None if
            the key is known, even if newer keys are being fetched.
        """
        with self._lock:
            is_known = any(id in (None, key.id) for key in self._usable_keys())
            if is_known and self._is_within(self._fetched_at, REFRESH_SECONDS):
                return None
            fetching = self._start_fetch()
            return None if is_known else fetching

    def find(self, id: str | None, algorithm: str) -> SigningKey | None:
        """Return the key that signed a token with this key id and algorithm, or None if unknown.

        Raises ``ApiError`` if there are no keys, so that no token can be checked.
        """
        with self._lock:
            keys = self._usable_keys()
            if not keys:
                raise ApiError(
                    503,
                    "sign_in_unavailable",
                    "Sign-in is not available at the moment; try again in a moment.",
                    retry_after=self._requested_at + FETCH_INTERVAL_SECONDS - self._clock(),
                )
        matching = [key for key in keys if key.matches(id, algorithm)]
        # A token without a key id is accepted only if exactly one key matches.
        return matching[0] if len(matching) == 1 or (matching and id is not None) else None

    def _usable_keys(self) -> list[SigningKey]:
        return self._keys if self._is_within(self._fetched_at, MAX_AGE_SECONDS) else []

    def _is_within(self, since: float, seconds: float) -> bool:
        return 0 <= self._clock() - since < seconds  # negative if the clock was set back

    def _start_fetch(self) -> "Future[None] | None":
        """Start a fetch, unless the last one started too recently; return the latest fetch."""
        if self._is_within(self._requested_at, FETCH_INTERVAL_SECONDS):
            return self._fetching
        self._requested_at = self._clock()
        self._fetching = fetching = Future[None]()
        Thread(
            target=self._fetch_keys, args=(fetching,), name="chatledger-keys", daemon=True
        ).start()
        return fetching

    def _fetch_keys(self, fetching: "Future[None]") -> None:
        try:
            keys = parse_key_set(self._fetch(self._url))
            if not keys:
                raise ValueError("no key")
        except Exception as error:
            logger.warning(
                "Cannot fetch the sign-in keys from %s: %s",
                self._url.partition("?")[0],
                _error_summary(error),
            )
        else:
            with self._lock:
                self._keys, self._fetched_at = keys, self._clock()
        finally:
            fetching.set_result(None)


def _parse_key(entry: Any) -> SigningKey | None:
    try:
        if entry.get("use", "sig") != "sig":
            return None
        value: RSAKey | ECKey
        match entry["kty"]:
            case "RSA" if len(entry["n"]) * 6 >= MIN_RSA_BITS:
                kind = "RSA"
                value = RSAKey.import_key({name: entry[name] for name in ("kty", "n", "e")})
            case "EC":
                kind = entry["crv"]
                value = ECKey.import_key({name: entry[name] for name in ("kty", "crv", "x", "y")})
            case _:
                return None
    except Exception:  # one malformed key must not invalidate the others
        return None
    return SigningKey(entry.get("kid"), entry.get("alg"), kind, value)


def _error_summary(error: Exception) -> str:
    # The error's text is left out, because it may quote the server's response.
    name = type(error).__name__
    if isinstance(error, HTTPError):
        error.close()
        return f"{name} {error.code}"
    if isinstance(error, URLError):
        return f"{name} ({type(error.reason).__name__})"
    return name


def _url_opener(url: str) -> OpenerDirector:
    # A proxy on another machine cannot reach this machine's loopback interface.
    is_local = is_loopback(urlsplit(url).hostname or "")
    return build_opener(_NoRedirect, *([ProxyHandler({})] if is_local else []))


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        """Reject the redirect: keys must come from the configured URL."""
