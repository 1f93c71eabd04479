"""Async requests to Bedrock over aiohttp, which need no thread for each stream."""

import asyncio
import json
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Awaitable
from io import BytesIO
from typing import Any
from urllib.parse import quote

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError
from yarl import URL

from chatledger.aws.ca_bundle import InvalidCABundle
from chatledger.errors import ModelRefused
from chatledger.models.bedrock.botocore_errors import (
    CALL_ERRORS,
    failure_from_botocore,
    setup_failure,
)
from chatledger.models.bedrock.connection import ConnectionSettings, Connector
from chatledger.models.bedrock.error_messages import CONNECTION_LOST, NO_RESPONSE, UNREACHABLE
from chatledger.models.bedrock.errors import Failure, error_from_failure
from chatledger.models.bedrock.event_stream import EventStreamDecoder
from chatledger.models.bedrock.replies import Event, events_from_converse
from chatledger.models.bedrock.requests import encode_body
from chatledger.models.bedrock.settings import ConverseObject
from chatledger.models.bedrock.signing import Signer
from chatledger.models.headers import parse_retry_after

MAX_SINGLE_WRITE = 1024 * 1024
"""The most bytes of a body that are written at once.

A larger body is written in chunks, so that it does not block the event loop.
"""
MAX_ERROR_BYTES = 64 * 1024
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/vnd.amazon.eventstream, application/json",
    "Accept-Encoding": "identity",
}


class AiohttpTransport:
    """Sends requests to one model from any event loop; each loop has its own connection."""

    def __init__(
        self,
        connector: Connector,
        model_id: str,
        *,
        streaming: bool,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self._connector = connector
        self._model_id = model_id
        self._streaming = streaming
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout, sock_read=timeout
        )
        self._connections: dict[AbstractEventLoop, asyncio.Task[_Connection]] = {}

    async def events(self, body: ConverseObject) -> AsyncGenerator[Event, None]:
        """Yield the events of the reply; closing the generator early closes the connection."""
        connection = await self._connection()
        response = await self._send(connection, encode_body(body))
        decoder = EventStreamDecoder()
        try:
            if not self._streaming:
                for converse_event in events_from_converse(await _json_object(response)):
                    yield converse_event
                return
            async for data in response.content.iter_any():
                for event in decoder.feed(data):
                    if isinstance(event, Failure):
                        raise error_from_failure(event, self._model_id)
                    yield event
        except (aiohttp.ClientError, OSError) as error:
            raise error_from_failure(_failure_from_aiohttp(error), self._model_id) from error
        finally:
            response.close()  # has no effect on a response that was read to its end

    async def close(self) -> None:
        connections, self._connections = self._connections, {}
        for loop, connecting in connections.items():
            if loop is asyncio.get_running_loop():
                await asyncio.wait([connecting])
            is_open = (
                connecting.done() and not connecting.cancelled() and not connecting.exception()
            )
            if is_open and loop.is_running():  # a loop that has ended has closed its connection
                await connecting.result().close()

    async def _send(self, connection: "_Connection", body: bytes) -> aiohttp.ClientResponse:
        operation = "converse-stream" if self._streaming else "converse"
        url = f"{connection.endpoint}/model/{quote(self._model_id, safe='')}/{operation}"
        try:
            headers = await connection.signer.headers(url, body, _HEADERS)
            response = await connection.http.post(
                URL(url, encoded=True),
                data=body if len(body) <= MAX_SINGLE_WRITE else BytesIO(body),
                headers=headers,
                allow_redirects=False,
            )
        except (BotoCoreError, ClientError) as error:
            raise error_from_failure(failure_from_botocore(error), self._model_id) from error
        except (aiohttp.ClientError, OSError) as error:
            raise error_from_failure(_failure_from_aiohttp(error), self._model_id) from error
        if response.status != 200:
            raise error_from_failure(await _failure_from_response(response), self._model_id)
        return response

    async def _connection(self) -> "_Connection":
        """Return the running event loop's connection, which the first call creates."""
        loop = asyncio.get_running_loop()
        connecting = self._connections.get(loop)
        if connecting is None or (
            connecting.done() and (connecting.cancelled() or connecting.exception())
        ):
            for closed in [each for each in list(self._connections) if each.is_closed()]:
                self._connections.pop(closed, None)  # another thread may have removed it already
            connecting = self._connections[loop] = loop.create_task(self._connect())
        # Shielded, because other requests wait for the same task and this one may be cancelled.
        return await asyncio.shield(connecting)

    async def _connect(self) -> "_Connection":
        try:
            settings = await asyncio.to_thread(self._connector.connection_settings)
        except InvalidCABundle as error:
            raise ModelRefused(str(error)) from error
        except CALL_ERRORS as error:
            raise error_from_failure(setup_failure(error), self._model_id) from error
        return await _Connection(settings, self._timeout).start()


class _Connection:
    """An aiohttp session of one event loop, with the endpoint and the signer for its requests."""

    def __init__(self, settings: ConnectionSettings, timeout: aiohttp.ClientTimeout) -> None:
        self.endpoint = settings.endpoint.rstrip("/")
        self.signer = Signer(settings)
        self._session = _open_session(settings, timeout)
        self._loop = asyncio.get_running_loop()

    async def start(self) -> "_Connection":
        self.http = await anext(self._session)
        return self

    async def close(self) -> None:
        closing = self._session.aclose()
        if self._loop is asyncio.get_running_loop():
            await closing
        else:  # the loop runs in another thread
            future = asyncio.run_coroutine_threadsafe(_as_coroutine(closing), self._loop)
            await asyncio.wrap_future(future)


async def _open_session(
    settings: ConnectionSettings, limits: aiohttp.ClientTimeout
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Yield one session, and close it afterwards.

    It is a generator because an event loop closes generators when it ends, but not sessions.
    """
    async with aiohttp.ClientSession(
        # No limit: a stream occupies its connection for as long as the model writes.
        connector=aiohttp.TCPConnector(limit=0, ssl=settings.tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=settings.proxy,
        timeout=limits,
    ) as session:
        yield session


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def _json_object(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return the response's JSON object, or an empty one if its body is something else."""
    try:
        value = json.loads(await response.content.read())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _failure_from_aiohttp(error: Exception) -> Failure:
    match error:
        case (
            aiohttp.ConnectionTimeoutError()
            | aiohttp.ClientConnectorError()
            | aiohttp.ClientHttpProxyError()
        ):
            return Failure(UNREACHABLE)
        case TimeoutError():
            return Failure(NO_RESPONSE)
    return Failure(CONNECTION_LOST)


async def _failure_from_response(response: aiohttp.ClientResponse) -> Failure:
    """Return the failure that an error response describes.

    If its body is not Bedrock's JSON but, for example, a proxy's page, only its status is used.
    """
    try:
        text = await response.content.read(MAX_ERROR_BYTES)
        details = json.loads(text)
    except (aiohttp.ClientError, OSError, ValueError):
        details = None
    finally:
        response.close()
    if not isinstance(details, dict):
        details = {}
    error_type = response.headers.get("x-amzn-ErrorType")
    error_type = error_type or details.get("__type") or details.get("code")
    code = str(error_type or "").partition(":")[0].rpartition("#")[2]
    service_text = details.get("message") or details.get("Message") or ""
    return Failure(
        code,
        str(service_text),
        response.status,
        parse_retry_after(response.headers.get("Retry-After")),
    )
