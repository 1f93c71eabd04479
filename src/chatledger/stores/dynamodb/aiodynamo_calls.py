"""Calls over aiodynamo and aiohttp: awaited, without a thread a call."""

import asyncio
import json
import os
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

from chatledger.errors import StoreUnavailable
from chatledger.library_logs import keep_messages_out_of_logs
from chatledger.stores.dynamodb.base64_bytes import decoded, encoded
from chatledger.stores.dynamodb.boto3_calls import failure
from chatledger.stores.dynamodb.calls import NO_ANSWER, Call, CallFailed, Plan, arun, patient
from chatledger.stores.dynamodb.clients import (
    CONNECT_SECONDS,
    READ_SECONDS,
    Session,
    make_client,
    session_of,
)
from chatledger.stores.dynamodb.credentials import Renewed
from chatledger.stores.dynamodb.errors import NO_CREDENTIALS, answered, translated, unanswered
from chatledger.stores.dynamodb.table import Table

T = TypeVar("T")

CONNECTIONS = 256
"""At once; further calls wait for one."""
AT_ONCE = 1024 * 1024
"""How many bytes are given to a connection without letting others have their turn."""


class AiodynamoCalls:
    """Makes each call in the event loop that runs; connects with the first.

    A call that fails for a while is tried again for ``patience`` seconds.
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
        """What the plan returns."""
        tried = patient(
            plan, seconds=self._patience, monotonic=table.monotonic, random=table.random
        )
        try:
            return await arun(tried, self.perform, asyncio.sleep)
        except CallFailed as failed:
            raise translated(failed, table.name) from failed.__cause__

    async def close(self) -> None:
        self._closed = True
        self._client = None
        if self._connecting is not None and not self._connecting.done():
            await asyncio.wait([self._connecting])
        if self._http is not None:
            await self._http.close()

    async def perform(self, call: Call) -> Any:
        """The reply. Raises ``CallFailed``."""
        client = self._client
        if client is None or self._loop is not asyncio.get_running_loop():
            client = await self._connected()
        try:
            return decoded(
                await client.send_request(action=call.operation, payload=encoded(call.params))
            )
        except CallFailed as failed:
            if self._closed:
                raise _closed(may_have_landed=failed.unknown) from failed
            raise
        except AIODynamoError as error:
            raise _refusal(error) from error
        except (BotoCoreError, ClientError) as error:
            # Credentials could not be renewed, which is no operation of DynamoDB's.
            raise failure(error, call.operation, tries_once=True) from error
        except ValueError as error:
            raise unanswered(error, connected=True) from error  # what came is no JSON

    async def _connected(self) -> Client:
        if self._closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("A store serves one event loop; make another for this one.")
            left, self._loop, self._connecting, self._http = self._http, loop, None, None
            if left is not None:  # of a loop that has ended: that of an asyncio.run before, say
                await left.close()
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())
        # One for all who wait, of whom some may be cancelled meanwhile.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Client:
        try:
            found = await asyncio.to_thread(find, self._session, self._region, self._endpoint)
        except BaseException:
            self._connecting = None  # the next call tries it again
            raise
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=found.trusted),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            proxy=found.proxy,
            timeout=aiohttp.ClientTimeout(
                sock_connect=CONNECT_SECONDS,
                sock_read=min(READ_SECONDS, self._patience),
                total=CONNECT_SECONDS + 2 * READ_SECONDS,  # it may come drop by drop
            ),
        )
        client = Client(
            Sender(self._http),
            found.credentials,
            found.region,
            found.endpoint,
            throttle_config=Once(),
        )
        if not self._closed:
            self._client = client
        return client


# The way there ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """All that a connection needs, and that takes reading files and maybe asking servers."""

    region: str
    endpoint: URL
    credentials: Renewed
    proxy: str | None
    trusted: ssl.SSLContext | bool


def find(given: Session | None, region: str | None, endpoint: str | None) -> Found:
    session = session_of(given)
    client = make_client(session, region=region, endpoint=endpoint)
    client.close()  # it has found the address
    credentials = session.get_credentials()
    if credentials is None:
        raise CallFailed(NO_CREDENTIALS)
    url = URL(client.meta.endpoint_url)
    proxies = {} if urllib.request.proxy_bypass(url.host or "") else urllib.request.getproxies()
    bundle = os.environ.get("AWS_CA_BUNDLE")
    return Found(
        client.meta.region_name,
        url,
        Renewed(credentials),
        proxies.get(url.scheme),
        ssl.create_default_context(cafile=bundle) if bundle else True,
    )


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends what aiodynamo has signed."""

    session: aiohttp.ClientSession

    async def __call__(self, request: Request) -> Response:
        body = request.body or b""
        if self.session.closed:
            raise CallFailed(NO_ANSWER, "no connection")
        try:
            async with self.session.post(
                request.url,
                data=body if len(body) <= AT_ONCE else BytesIO(body),
                headers=request.headers,
                allow_redirects=False,
            ) as reply:
                return Response(reply.status, await reply.read())
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ClientHttpProxyError,
            aiohttp.ConnectionTimeoutError,
        ) as error:
            raise unanswered(error, connected=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise unanswered(error, connected=True) from error


class Once(RetryConfig):
    """No second attempt: a store makes these, and knows of each."""

    def delays(self) -> Iterator[float]:
        return iter(())

    def attempts(self) -> AsyncIterator[None]:
        return _Attempt()


class _Attempt(AsyncIterator[None]):
    # No generator: one that is left before its end costs its event loop a task to close it.
    def __init__(self) -> None:
        self._made = False

    async def __anext__(self) -> None:
        if self._made:
            raise RetryTimeout
        self._made = True


# Answers ------------------------------------------------------------------------------------------


def _refusal(error: AIODynamoError) -> CallFailed:
    match error:
        case InternalDynamoError():
            return answered("InternalServerError", "", status=500, reply={})
        case ServiceUnavailable():
            return answered("ServiceUnavailable", "", status=503, reply={})
        case UnknownError(status=status, body=body):
            reply = _json(body)
        case _:
            status, reply = 400, error.args[0]
    kind = reply.get("__type", f"HTTP {status}")
    message = reply.get("message") or reply.get("Message") or ""
    return answered(kind.rpartition("#")[2], message, status=status, reply=decoded(reply))


def _json(body: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(body)
    except ValueError:
        return {}  # not of DynamoDB, but of something on the way
    return reply if isinstance(reply, dict) else {}


def _closed(*, may_have_landed: bool = False) -> StoreUnavailable:
    return StoreUnavailable(
        "The DynamoDB store was closed; open it again.", may_have_landed=may_have_landed
    )
