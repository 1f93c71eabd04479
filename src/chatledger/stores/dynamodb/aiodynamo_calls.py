"""Calls over aiodynamo and aiohttp, which are awaited and need no thread."""

import asyncio
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar

import aiohttp
from aiodynamo.client import Client
from aiodynamo.errors import AIODynamoError, InternalDynamoError, ServiceUnavailable, UnknownError
from aiodynamo.http.types import Request, Response
from aiodynamo.models import RetryConfig, RetryTimeout
from botocore.exceptions import BotoCoreError, ClientError
from yarl import URL

from chatledger.aws.ca_bundle import InvalidCABundle, ssl_argument
from chatledger.errors import AccessRefused, StoreUnavailable
from chatledger.library_logs import keep_messages_out_of_logs
from chatledger.stores.dynamodb.base64_bytes import decode_bytes, encode_bytes
from chatledger.stores.dynamodb.boto3_calls import failure_from_boto3
from chatledger.stores.dynamodb.calls import NO_ANSWER, Call, CallFailed, Plan, arun, patient
from chatledger.stores.dynamodb.clients import (
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    Session,
    boto3_session,
    make_client,
)
from chatledger.stores.dynamodb.credentials import RenewingCredentials
from chatledger.stores.dynamodb.errors import (
    NO_CREDENTIALS,
    failure_from_reply,
    failure_without_reply,
    store_error,
)
from chatledger.stores.dynamodb.table import Table

T = TypeVar("T")

MAX_CONNECTIONS = 256
"""The most connections that are open at once; further calls wait for one."""
MAX_SINGLE_WRITE = 1024 * 1024
"""Bytes of a body that are written at once; a larger one is written in chunks, so that it does not
block the event loop."""


class AiodynamoCalls:
    """Runs plans in one event loop; the first call connects.

    A call that fails temporarily is tried again for ``patience`` seconds.
    """

    def __init__(
        self, *, session: Session | None, region: str | None, endpoint: str | None, patience: float
    ) -> None:
        keep_messages_out_of_logs()
        self._session = session
        self._region = region
        self._endpoint = endpoint
        self._patience = patience
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting: asyncio.Task[Client] | None = None
        self._client: Client | None = None
        self._http: aiohttp.ClientSession | None = None
        self._closed = False

    async def run(self, plan: Plan[T], table: Table) -> T:
        """Run ``plan`` to its result, and translate a failure that it does not handle."""
        retrying = patient(
            plan,
            seconds=self._patience,
            monotonic=table.monotonic,
            random=table.random,
            time=table.time,
        )
        try:
            return await arun(retrying, self.perform, asyncio.sleep)
        except CallFailed as failed:
            raise store_error(failed, table.name) from failed.__cause__

    async def close(self) -> None:
        self._closed = True
        self._client = None
        if self._connecting is not None and not self._connecting.done():
            await asyncio.wait([self._connecting])
        if self._http is not None:
            await self._http.close()

    async def perform(self, call: Call) -> Any:
        """Make one call and return the reply. Raises ``CallFailed``."""
        client = self._client
        if client is None or self._loop is not asyncio.get_running_loop():
            client = await self._connected_client()
        try:
            return decode_bytes(
                await client.send_request(action=call.operation, payload=encode_bytes(call.params))
            )
        except CallFailed as failed:
            if self._closed:
                raise _closed_error(may_have_landed=failed.unknown) from failed
            raise
        except AIODynamoError as error:
            raise _failure_from_aiodynamo(error) from error
        except (BotoCoreError, ClientError) as error:
            # The credentials could not be renewed, which is not an operation of DynamoDB.
            raise failure_from_boto3(error, call.operation, single_attempt=True) from error
        except ValueError as error:
            raise failure_without_reply(error, connected=True) from error  # the body is not JSON

    async def _connected_client(self) -> Client:
        if self._closed:
            raise _closed_error()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError(
                    "A store works in one event loop; open another store for this one."
                )
            old_session = self._http
            self._loop, self._connecting, self._http = loop, None, None
            if old_session is not None:  # its loop has ended: an earlier asyncio.run, for example
                await old_session.close()
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())
        # Shielded, because other calls wait for the same task and this one may be cancelled.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Client:
        try:
            settings = await asyncio.to_thread(
                find_client_settings, self._session, self._region, self._endpoint
            )
        except BaseException:
            self._connecting = None  # so that the next call tries again
            raise
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=settings.tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            proxy=settings.proxy,
            timeout=aiohttp.ClientTimeout(
                sock_connect=CONNECT_TIMEOUT,
                sock_read=min(READ_TIMEOUT, self._patience),
                # sock_read alone would never end a reply that arrives byte by byte.
                total=CONNECT_TIMEOUT + 2 * READ_TIMEOUT,
            ),
        )
        client = Client(
            AiohttpSender(self._http),
            settings.credentials,
            settings.region,
            settings.endpoint,
            throttle_config=SingleAttempt(),
        )
        if not self._closed:
            self._client = client
        return client


# Connecting ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Everything that a client needs, as values."""

    region: str
    endpoint: URL
    credentials: RenewingCredentials
    proxy: str | None
    tls: ssl.SSLContext | bool


def find_client_settings(
    session: Session | None, region: str | None, endpoint: str | None
) -> ClientSettings:
    """Find the client's settings: this reads files, and may send requests to other services.

    Raises:
        AccessRefused: The AWS configuration is invalid, or the CA bundle cannot be read.
        CallFailed: There are no credentials.
        InvalidArgument: No region is configured, or the region or endpoint is invalid.
    """
    aws_session = boto3_session(session)
    client = make_client(aws_session, region=region, endpoint=endpoint)
    client.close()  # it was made only to find the endpoint
    credentials = aws_session.get_credentials()
    if credentials is None:
        raise CallFailed(NO_CREDENTIALS)
    url = URL(client.meta.endpoint_url)
    proxies = {} if urllib.request.proxy_bypass(url.host or "") else urllib.request.getproxies()
    try:
        tls = ssl_argument(aws_session)
    except InvalidCABundle as error:
        raise AccessRefused(str(error)) from error
    return ClientSettings(
        client.meta.region_name, url, RenewingCredentials(credentials), proxies.get(url.scheme), tls
    )


@dataclass(frozen=True, slots=True)
class AiohttpSender:
    """Sends the requests that aiodynamo has signed."""

    session: aiohttp.ClientSession

    async def __call__(self, request: Request) -> Response:
        body = request.body or b""
        if self.session.closed:
            raise CallFailed(NO_ANSWER, "no connection")
        try:
            async with self.session.post(
                request.url,
                data=body if len(body) <= MAX_SINGLE_WRITE else BytesIO(body),
                headers=request.headers,
                allow_redirects=False,
            ) as reply:
                return Response(reply.status, await reply.read())
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ClientHttpProxyError,
            aiohttp.ConnectionTimeoutError,
        ) as error:
            raise failure_without_reply(error, connected=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise failure_without_reply(error, connected=True) from error


class SingleAttempt(RetryConfig):
    """Makes aiodynamo try each call once; the store retries itself, and knows of each attempt."""

    def delays(self) -> Iterator[float]:
        return iter(())

    def attempts(self) -> AsyncIterator[None]:
        return _OneAttempt()


class _OneAttempt(AsyncIterator[None]):
    # Not an async generator: the event loop needs a task to close one that was not exhausted.
    def __init__(self) -> None:
        self._made = False

    async def __anext__(self) -> None:
        if self._made:
            raise RetryTimeout
        self._made = True


# Replies ------------------------------------------------------------------------------------------


def _failure_from_aiodynamo(error: AIODynamoError) -> CallFailed:
    match error:
        case InternalDynamoError():
            return failure_from_reply("InternalServerError", "", status=500, reply={})
        case ServiceUnavailable():
            return failure_from_reply("ServiceUnavailable", "", status=503, reply={})
        case UnknownError(status=status, body=body):
            reply = _json_object(body)
        case _:
            status, reply = 400, error.args[0]
    error_type = reply.get("__type", f"HTTP {status}")
    message = reply.get("message") or reply.get("Message") or ""
    code = error_type.rpartition("#")[2]
    return failure_from_reply(code, message, status=status, reply=decode_bytes(reply))


def _json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``; an empty one if it is something else."""
    try:
        reply = json.loads(body)
    except ValueError:
        return {}  # not from DynamoDB, but from a proxy, for example
    return reply if isinstance(reply, dict) else {}


def _closed_error(*, may_have_landed: bool = False) -> StoreUnavailable:
    return StoreUnavailable(
        "The DynamoDB store was closed; open it again.", may_have_landed=may_have_landed
    )
