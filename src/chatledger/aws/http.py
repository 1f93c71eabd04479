"""Signed requests to AWS over aiohttp, which are awaited and need no thread."""

import asyncio
import os
import time
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from hmac import digest
from io import BytesIO
from time import gmtime, strftime
from urllib.parse import SplitResult, quote, urlsplit

import aiohttp
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    InvalidEndpointConfigurationError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
)
from botocore.utils import normalize_url_path
from yarl import URL

from chatledger.aws.session import Endpoint

MAX_SINGLE_WRITE = 1024 * 1024
"""Bytes of a body that are written at once; a larger one is written in chunks, so that it does not
block the event loop."""


class HttpClient:
    """Sends POST requests to one endpoint, from any event loop; each loop has its own connections.

    The connections of a loop are closed when the loop ends, at the latest.

    Args:
        find_endpoint: Returns the endpoint; it is called in a thread before a loop's first request.
        timeout: The time limits of each request.
        max_connections: The most connections of a loop that are open at once, for which further
            requests wait; 0 for no limit.
    """

    def __init__(
        self,
        find_endpoint: Callable[[], Endpoint],
        *,
        timeout: aiohttp.ClientTimeout,
        max_connections: int = 0,
    ) -> None:
        self._find_endpoint = find_endpoint
        self._timeout = timeout
        self._max_connections = max_connections
        self._connections: dict[AbstractEventLoop, asyncio.Task[_Connections]] = {}

    @asynccontextmanager
    async def post(
        self, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the response, whatever its status; read it within the block.

        Leaving the block before the response was read to its end closes the connection.

        Raises:
            BotoCoreError: The error that boto3 would have raised in this case. Also, whatever
                ``find_endpoint`` raises.
        """
        connections = await self._connect()
        url = connections.endpoint.url
        try:
            async with await connections.post(headers, body) as response:
                yield response
        except (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError) as error:
            raise ProxyConnectionError(proxy_url=connections.endpoint.proxy or url) from error
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.InvalidURL,
        ) as error:
            raise EndpointConnectionError(endpoint_url=url) from error
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=url) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionClosedError(endpoint_url=url) from error

    async def close(self) -> None:
        """Close all connections; a later request connects again."""
        connections, self._connections = self._connections, {}
        for loop, connecting in connections.items():
            if loop is asyncio.get_running_loop():
                await asyncio.wait([connecting])
            # A loop that has ended has closed its connections.
            if loop.is_running() and connecting.done() and not _has_failed(connecting):
                await connecting.result().close()

    async def _connect(self) -> "_Connections":
        """Return the running event loop's connections, which its first request makes."""
        loop = asyncio.get_running_loop()
        connecting = self._connections.get(loop)
        if connecting is None or (connecting.done() and _has_failed(connecting)):
            for ended in [each for each in list(self._connections) if each.is_closed()]:
                self._connections.pop(ended, None)  # another thread may have removed it already
            connecting = self._connections[loop] = loop.create_task(self._open())
        # Shielded, because other requests wait for the same task and this one may be cancelled.
        return await asyncio.shield(connecting)

    async def _open(self) -> "_Connections":
        endpoint = await asyncio.to_thread(self._find_endpoint)
        session = _open_session(endpoint, self._timeout, self._max_connections)
        return _Connections(endpoint, session, await anext(session))


class _Connections:
    """The connections of one event loop to an endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        opened: AsyncGenerator[aiohttp.ClientSession, None],
        session: aiohttp.ClientSession,
    ) -> None:
        self.endpoint = endpoint
        self._opened = opened
        self._session = session
        self._url = URL(endpoint.url, encoded=True)
        self._signer = Signer(endpoint.url, service=endpoint.service, region=endpoint.region)
        self._credentials = _RenewingCredentials(endpoint.credentials)
        self._loop = asyncio.get_running_loop()

    async def post(self, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        variable = self.endpoint.bearer_variable
        # It is read for each request, as botocore does.
        if variable is not None and (token := os.environ.get(variable)):
            sent = with_bearer_token(headers, token, self.endpoint.url)
        else:
            credentials = await self._credentials.get()
            sent = self._signer.sign(headers, body, credentials, time.time())
        if self._session.closed:  # since this request waited
            raise EndpointConnectionError(endpoint_url=self.endpoint.url)
        return await self._session.post(
            self._url,
            data=body if len(body) <= MAX_SINGLE_WRITE else BytesIO(body),
            headers=sent,
            allow_redirects=False,
        )

    async def close(self) -> None:
        closing = self._opened.aclose()
        if self._loop is asyncio.get_running_loop():
            await closing
        else:  # the loop runs in another thread
            future = asyncio.run_coroutine_threadsafe(_as_coroutine(closing), self._loop)
            await asyncio.wrap_future(future)


class _RenewingCredentials:
    """botocore's credentials for one event loop; they are renewed in a thread, as that blocks."""

    def __init__(self, source: Credentials | None) -> None:
        self._source = source
        self._current: ReadOnlyCredentials | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def get(self) -> ReadOnlyCredentials:
        """Return credentials that are valid now; raise botocore's errors if there are none."""
        if self._current is None or (
            isinstance(self._source, RefreshableCredentials) and self._source.refresh_needed()
        ):
            if self._renewal is None:
                self._renewal = asyncio.create_task(self._renew())
            # Shielded, because other calls wait for the same task and this one may be cancelled.
            await asyncio.shield(self._renewal)
        assert self._current is not None
        return self._current

    async def _renew(self) -> None:
        try:
            if self._source is None:
                raise NoCredentialsError
            current = await asyncio.to_thread(self._source.get_frozen_credentials)
            if not current.access_key or not current.secret_key:
                raise NoCredentialsError
            self._current = current
        finally:
            self._renewal = None


async def _open_session(
    endpoint: Endpoint, limits: aiohttp.ClientTimeout, max_connections: int
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Yield one session, and close it afterwards.

    It is a generator because an event loop closes generators when it ends, but not sessions.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections, ssl=endpoint.tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
        proxy=endpoint.proxy,
        timeout=limits,
    ) as session:
        yield session


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


def _has_failed(task: asyncio.Task[_Connections]) -> bool:
    """Return whether a task that is done was cancelled or raised an error."""
    return task.cancelled() or task.exception() is not None


# Signatures ---------------------------------------------------------------------------------------

_ALGORITHM = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Signer:
    """Signs POST requests to one URL with Signature Version 4.

    The signatures are those of botocore's ``SigV4Auth``, which takes several times as long. Here,
    everything that depends only on the URL is computed once. The signing key, derived from the
    secret key and the date, is computed once a day (UTC).

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(self, url: str, *, service: str, region: str) -> None:
        parts = urlsplit(url)
        self._host = _host(parts)
        # The path is encoded once more, although it is encoded in the URL: only S3 does without.
        path = quote(normalize_url_path(parts.path), safe="/~")
        self._canonical_target = f"POST\n{path}\n{_canonical_query(parts.query)}\n"
        self._service = service
        self._region = region
        self._cached_key = ("", "", b"")

    def sign(
        self, headers: Mapping[str, str], body: bytes, credentials: ReadOnlyCredentials, now: float
    ) -> dict[str, str]:
        """Return ``headers`` and those that sign them and ``body`` at the time ``now``."""
        timestamp = strftime("%Y%m%dT%H%M%SZ", gmtime(now))
        date = timestamp[:8]
        added = {"X-Amz-Date": timestamp}
        if credentials.token:
            added["X-Amz-Security-Token"] = credentials.token
        sent = {**headers, **added}
        canonical = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
        canonical["host"] = self._host
        names = sorted(canonical)
        lines = "".join([f"{name}:{canonical[name]}\n" for name in names])
        signed_names = ";".join(names)
        request = f"{self._canonical_target}{lines}\n{signed_names}\n{sha256(body).hexdigest()}"
        scope = f"{date}/{self._region}/{self._service}/aws4_request"
        hashed = sha256(request.encode()).hexdigest()
        string_to_sign = f"{_ALGORITHM}\n{timestamp}\n{scope}\n{hashed}"
        assert credentials.secret_key is not None  # botocore's types allow it
        key = self._key(credentials.secret_key, date)
        signature = digest(key, string_to_sign.encode(), "sha256").hex()
        sent["Authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed_names}, Signature={signature}"
        )
        return sent

    def _key(self, secret_key: str, date: str) -> bytes:
        """Return the key that signs requests on that day."""
        secret_of_key, day, key = self._cached_key
        if secret_of_key != secret_key or day != date:
            key = f"AWS4{secret_key}".encode()
            for part in (date, self._region, self._service, "aws4_request"):
                key = digest(key, part.encode(), "sha256")
            self._cached_key = (secret_key, date, key)
        return key


def _host(parts: SplitResult) -> str:
    """Return the value of the ``Host`` header that HTTP clients send."""
    host = parts.hostname or ""
    if ":" in host:  # an IPv6 address
        host = f"[{host}]"
    if parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme):
        return host
    return f"{host}:{parts.port}"


def _canonical_query(query: str) -> str:
    parameters = [each.partition("=") for each in query.split("&")] if query else []
    return "&".join(f"{name}={value}" for name, _, value in sorted(parameters))


def with_bearer_token(headers: Mapping[str, str], token: str, url: str) -> dict[str, str]:
    """Return ``headers`` and the one with the token.

    Raises:
        InvalidEndpointConfigurationError: The URL is not https, so that others could read the
            token.
    """
    if not url.startswith("https:"):
        raise InvalidEndpointConfigurationError(msg="A bearer token needs https.")
    return {**headers, "Authorization": f"Bearer {token}"}
