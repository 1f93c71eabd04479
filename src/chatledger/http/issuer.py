"""The documents that the issuer of tokens publishes: its signing keys, and its endpoints."""

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, Thread
from typing import Generic, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from chatledger.errors import InvalidArgument
from chatledger.http.api import is_loopback
from chatledger.http.errors import ApiError

logger = logging.getLogger("chatledger.http")

FETCH_TIMEOUT_SECONDS = 5.0
"""The longest time that a fetch may take."""
FETCH_INTERVAL_SECONDS = 10.0
"""The shortest time between the starts of two fetches of a document, whatever requests come."""
REFRESH_SECONDS = 60 * 60.0
"""The age at which a document is fetched again, while it stays in use."""
MAX_AGE_SECONDS = 24 * 60 * 60.0
"""The age up to which a document is used if no newer one can be fetched."""
MAX_DOCUMENT_BYTES = 256 * 1024
"""The longest document that is read."""

ContentT = TypeVar("ContentT")


def check_issuer_url(url: str, subject: str) -> None:
    """Raise ``InvalidArgument`` unless ``url`` is an https or a loopback URL.

    What is fetched over plain HTTP from elsewhere could be changed on the way.

    Args:
        url: The URL.
        subject: What is at the URL, for the error's text.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not url.isascii() or any(blank in url for blank in " \t\r\n"):
        raise InvalidArgument(
            f"the address of {subject} is not a URL; write one such as https://issuer.example."
        )
    if parts.username is not None:
        raise InvalidArgument(f"the address of {subject} must not contain a user name.")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InvalidArgument(f"the address of {subject} must start with https://.")


def fetch_document(url: str) -> bytes:
    """Download the document at ``url``, which ``check_issuer_url`` accepts.

    Any exception that it raises means that there is no new document.
    """
    end = time.monotonic() + FETCH_TIMEOUT_SECONDS
    request = Request(  # noqa: S310 - check_issuer_url has checked the scheme
        url, headers={"Accept": "application/json", "User-Agent": "chatledger"}
    )
    with _url_opener(url).open(request, timeout=FETCH_TIMEOUT_SECONDS) as response:
        body = b""
        # The timeout applies to each read and not to the whole response, so read in chunks.
        while chunk := response.read1(64 * 1024):
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ValueError("too long")
            if time.monotonic() > end:
                raise TimeoutError
        return body


class IssuerDocument(Generic[ContentT]):
    """The document at ``url``, fetched when needed; threads may share it.

    A document stays in use for up to a day while the issuer's server is down.

    Args:
        url: The URL of the document, an https or a loopback URL.
        parse: A function that returns the content, or raises any exception if it is not valid. The
            log gets the text of an ``InvalidArgument``.
        name: What the document is, for the log and for errors.
        fetch: A function that downloads the document. It may block, because it runs in a thread of
            its own.
        clock: A function that returns the time in seconds since 1970.

    Raises:
        InvalidArgument: The URL is not allowed.
    """

    def __init__(
        self,
        url: str,
        parse: Callable[[bytes], ContentT],
        *,
        name: str,
        fetch: Callable[[str], bytes] = fetch_document,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_issuer_url(url, f"the {name}")
        self._url = url
        self._parse = parse
        self._name = name
        self._fetch = fetch
        # Wall clock: the monotonic clock stands still while a Lambda function is frozen.
        self._clock = clock
        self._lock = Lock()
        self._content: ContentT | None = None
        self._fetched_at = self._requested_at = -math.inf
        self._fetching: Future[None] | None = None

    def read(self, is_enough: Callable[[ContentT], bool] = lambda _: True) -> ContentT:
        """Return the content; if there is none or it is not enough, wait for a newer one first.

        Raises ``ApiError`` if there is none.
        """
        if fetching := self._fetch_if_needed(is_enough):
            with suppress(TimeoutError):
                fetching.result(FETCH_TIMEOUT_SECONDS)
        return self._present_content()

    async def aread(self, is_enough: Callable[[ContentT], bool] = lambda _: True) -> ContentT:
        """Return the content as ``read`` does, without blocking the event loop."""
        # Imported on first use: programs without an event loop need not load asyncio.
        from asyncio import wait, wrap_future

        if fetching := self._fetch_if_needed(is_enough):
            await wait({wrap_future(fetching)}, timeout=FETCH_TIMEOUT_SECONDS)
        return self._present_content()

    def _fetch_if_needed(self, is_enough: Callable[[ContentT], bool]) -> "Future[None] | None":
        """Start a fetch if there is no content, or if it is old or not enough.

        Returns the fetch to wait for; None if the content is enough, even if it is old.
        """
        with self._lock:
            content = self._usable_content()
            is_known = content is not None and is_enough(content)
            if is_known and self._is_within(self._fetched_at, REFRESH_SECONDS):
                return None
            fetching = self._start_fetch()
            return None if is_known else fetching

    def _present_content(self) -> ContentT:
        with self._lock:
            content = self._usable_content()
            if content is None:
                raise ApiError(
                    503,
                    "sign_in_unavailable",
                    "Sign-in is not available at the moment; try again in a moment.",
                    retry_after=self._requested_at + FETCH_INTERVAL_SECONDS - self._clock(),
                )
            return content

    def _usable_content(self) -> ContentT | None:
        return self._content if self._is_within(self._fetched_at, MAX_AGE_SECONDS) else None

    def _is_within(self, since: float, seconds: float) -> bool:
        return 0 <= self._clock() - since < seconds  # negative if the clock was set back

    def _start_fetch(self) -> "Future[None] | None":
        """Start a fetch, unless the last one still runs or is too recent; return the latest."""
        # A server that sends a byte now and then can keep a fetch running for days.
        is_running = self._fetching is not None and not self._fetching.done()
        if is_running or self._is_within(self._requested_at, FETCH_INTERVAL_SECONDS):
            return self._fetching
        self._requested_at = self._clock()
        self._fetching = fetching = Future[None]()
        Thread(
            target=self._fetch_content, args=(fetching,), name="chatledger-issuer", daemon=True
        ).start()
        return fetching

    def _fetch_content(self, fetching: "Future[None]") -> None:
        try:
            content = self._parse(self._fetch(self._url))
        except Exception as error:
            logger.warning(
                "Cannot fetch the %s from %s: %s",
                self._name,
                self._url.partition("?")[0],
                _error_summary(error),
            )
        else:
            with self._lock:
                self._content, self._fetched_at = content, self._clock()
        finally:
            fetching.set_result(None)


def _error_summary(error: Exception) -> str:
    if isinstance(error, InvalidArgument):
        return str(error)
    # The text of another error is left out, because it may quote the server's response.
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
        """Reject the redirect: a document must come from the configured URL."""
