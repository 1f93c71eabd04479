"""The public keys that tokens are signed with, as their issuer publishes them (a JWK Set)."""

import json
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Lock, Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from joserfc.jwk import ECKey, RSAKey

from chatledger.errors import InvalidArgument

logger = logging.getLogger("chatledger.http")

FETCH_SECONDS = 5.0
"""How long the key server may take."""
PAUSE_SECONDS = 10.0
"""The key server is asked once in this time, whatever tokens ask for."""
FRESH_SECONDS = 60 * 60.0
"""Keys that are older are fetched again, while they go on being used."""
LASTING_SECONDS = 24 * 60 * 60.0
"""How long keys are used when no newer ones can be had."""
SET_BYTES = 256 * 1024
"""The longest answer that is read."""
RSA_BITS = 2048
"""The shortest RSA key that is used (RFC 7518, section 3.3)."""

ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
}
"""The algorithms of signatures that are taken, and the kind of key of each: none has a secret that
a server of ours would have to know, and "none" is not among them."""


class NoKeys(Exception):
    """Nothing can be told of any token now; ``retry_after`` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Key:
    """A public key; ``kind`` is RSA or the name of its curve."""

    id: str | None
    algorithm: str | None
    kind: str
    value: RSAKey | ECKey

    def fits(self, id: str | None, algorithm: str) -> bool:
        return (
            id in (None, self.id)
            and self.algorithm in (None, algorithm)
            and self.kind == ALGORITHMS[algorithm]
        )


def check_key_url(url: str) -> None:
    """Raise ``InvalidArgument`` unless keys may be fetched from ``url``: nobody may change them on
    their way."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not url.isascii() or any(blank in url for blank in " \t\r\n"):
        raise InvalidArgument("the address of the keys is no URL.")
    if parts.username is not None:
        raise InvalidArgument("the address of the keys must hold no password.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise InvalidArgument("the address of the keys must start with https://.")


def fetch(url: str) -> bytes:
    """What the key server answers. Raises any exception; each is one reason to have no new keys."""
    end = time.monotonic() + FETCH_SECONDS
    request = Request(  # noqa: S310 - check_key_url has seen it
        url, headers={"Accept": "application/json", "User-Agent": "chatledger"}
    )
    with _opener(url).open(request, timeout=FETCH_SECONDS) as response:
        body = b""
        # Piece by piece: the time-out is that of a piece.
        while piece := response.read1(64 * 1024):
            body += piece
            if len(body) > SET_BYTES:
                raise ValueError("too long")
            if time.monotonic() > end:
                raise TimeoutError
        return body


def parse(body: bytes) -> list[Key]:
    """The keys of a JWK Set that can check a signature; others are passed over (RFC 7517, 5)."""
    found = [_key(entry) for entry in json.loads(body)["keys"]]
    return [key for key in found if key is not None]


class Keys:
    """The keys at ``url``. Safe to share between threads; what it waits for never takes long.

    A key server that does not answer locks nobody out whose key is known.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Callable[[str], bytes] = fetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_key_url(url)
        self._url = url
        self._fetch = fetch
        # Not the monotonic one, which stands still while a Lambda function is frozen.
        self._clock = clock
        self._lock = Lock()
        self._keys: list[Key] = []
        self._fetched = self._asked = -math.inf
        self._fetching: Future[None] | None = None

    def missing(self, id: str | None) -> "Future[None] | None":
        """What to wait for, ``FETCH_SECONDS`` at most, before ``find``; mostly nothing.

        Keys that begin to age are fetched again, and nobody waits for that.
        """
        with self._lock:
            known = any(id in (None, key.id) for key in self._lasting())
            if known and self._within(self._fetched, FRESH_SECONDS):
                return None
            fetching = self._begun()
            return None if known else fetching

    def find(self, id: str | None, algorithm: str) -> Key | None:
        """The key that signed; None where nobody knows it. Raises ``NoKeys``."""
        with self._lock:
            keys = self._lasting()
            if not keys:
                raise NoKeys(max(self._asked + PAUSE_SECONDS - self._clock(), 1.0))
        fitting = [key for key in keys if key.fits(id, algorithm)]
        # A token need not name its key where there is but one.
        return fitting[0] if len(fitting) == 1 or (fitting and id is not None) else None

    def _lasting(self) -> list[Key]:
        return self._keys if self._within(self._fetched, LASTING_SECONDS) else []

    def _within(self, since: float, seconds: float) -> bool:
        return 0 <= self._clock() - since < seconds  # a clock that was set back proves nothing

    def _begun(self) -> "Future[None] | None":
        """The fetch that is under way, begun now if need be; None where it is too early for one."""
        if self._within(self._asked, PAUSE_SECONDS):
            return self._fetching
        self._asked = self._clock()
        self._fetching = fetching = Future[None]()
        Thread(target=self._run, args=(fetching,), name="chatledger-keys", daemon=True).start()
        return fetching

    def _run(self, fetching: "Future[None]") -> None:
        try:
            keys = parse(self._fetch(self._url))
            if not keys:
                raise ValueError("no key")
        except Exception as error:
            logger.warning(
                "The keys of sign-in cannot be had from %s: %s",
                self._url.partition("?")[0],
                _reason(error),
            )
        else:
            with self._lock:
                self._keys, self._fetched = keys, self._clock()
        finally:
            fetching.set_result(None)


def _key(entry: Any) -> Key | None:
    try:
        if entry.get("use", "sig") != "sig":
            return None
        value: RSAKey | ECKey
        match entry["kty"]:
            case "RSA" if len(entry["n"]) * 6 >= RSA_BITS:
                kind = "RSA"
                value = RSAKey.import_key({name: entry[name] for name in ("kty", "n", "e")})
            case "EC":
                kind = entry["crv"]
                value = ECKey.import_key({name: entry[name] for name in ("kty", "crv", "x", "y")})
            case _:
                return None
    except Exception:  # whatever is wrong with one key, the others are as good
        return None
    return Key(entry.get("kid"), entry.get("alg"), kind, value)


def _reason(error: Exception) -> str:
    # No texts of errors: they may hold what the server said.
    name = type(error).__name__
    if isinstance(error, HTTPError):
        error.close()
        return f"{name} {error.code}"
    if isinstance(error, URLError):
        return f"{name} ({type(error.reason).__name__})"
    return name


def _opener(url: str) -> OpenerDirector:
    # A proxy is another machine's; it does not know our loopback.
    loopback = _is_loopback(urlsplit(url).hostname or "")
    return build_opener(_NoRedirect, *([ProxyHandler({})] if loopback else []))


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        """Keys come from the address that was given, or not at all."""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
