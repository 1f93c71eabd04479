"""Signed requests to AWS over aiohttp, which are awaited and need no thread."""

import asyncio
import time
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from io import BytesIO

import aiohttp
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
)
from yarl import URL

from chatledger.aws.session import Endpoint
from chatledger.aws.signing import Signer, bearer_token, with_bearer_token

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
        if token := bearer_token(self.endpoint.service):
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
