"""Requests over aiohttp: awaited, without a thread a stream."""

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

from chatledger.models.bedrock.botocore_errors import RAISED, failure, not_made
from chatledger.models.bedrock.connection import Access, Found
from chatledger.models.bedrock.error_messages import BROKEN_OFF, SILENT, UNREACHABLE
from chatledger.models.bedrock.errors import Failure, translated
from chatledger.models.bedrock.frames import Frames
from chatledger.models.bedrock.replies import Event, events_of
from chatledger.models.bedrock.requests import encoded
from chatledger.models.bedrock.settings import Block
from chatledger.models.bedrock.signing import Signer
from chatledger.models.headers import retry_after

AT_ONCE = 1024 * 1024
"""How many bytes are given to a connection without letting others have their turn."""
LONGEST_REFUSAL = 64 * 1024
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/vnd.amazon.eventstream, application/json",
    "Accept-Encoding": "identity",
}


class AiohttpTransport:
    """Sends requests to one model, in whichever event loop runs; connects with the first."""

    def __init__(
        self,
        access: Access,
        model_id: str,
        *,
        streaming: bool,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self._access = access
        self._model_id = model_id
        self._streaming = streaming
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout, sock_read=timeout
        )
        self._connections: dict[AbstractEventLoop, asyncio.Task[_Connection]] = {}

    async def events(self, body: Block) -> AsyncGenerator[Event, None]:
        """The reply's events. Closing the generator closes the connection."""
        connection = await self._connected()
        reply = await self._sent(connection, encoded(body))
        frames = Frames()
        try:
            if not self._streaming:
                for told in events_of(await _answer(reply)):
                    yield told
                return
            async for data in reply.content.iter_any():
                for event in frames.add(data):
                    if isinstance(event, Failure):
                        raise translated(event, self._model_id)
                    yield event
        except (aiohttp.ClientError, OSError) as error:
            raise translated(_failure(error), self._model_id) from error
        finally:
            reply.close()  # which does nothing where it was read to its end

    async def close(self) -> None:
        connections, self._connections = self._connections, {}
        for loop, connecting in connections.items():
            if loop is asyncio.get_running_loop():
                await asyncio.wait([connecting])
            made = connecting.done() and not connecting.cancelled() and not connecting.exception()
            if made and loop.is_running():  # one that has ended has closed it
                await connecting.result().close()

    async def _sent(self, connection: "_Connection", body: bytes) -> aiohttp.ClientResponse:
        operation = "converse-stream" if self._streaming else "converse"
        url = f"{connection.endpoint}/model/{quote(self._model_id, safe='')}/{operation}"
        try:
            headers = await connection.signer.headers(url, body, _HEADERS)
            reply = await connection.http.post(
                URL(url, encoded=True),
                data=body if len(body) <= AT_ONCE else BytesIO(body),
                headers=headers,
                allow_redirects=False,
            )
        except (BotoCoreError, ClientError) as error:
            raise translated(failure(error), self._model_id) from error
        except (aiohttp.ClientError, OSError) as error:
            raise translated(_failure(error), self._model_id) from error
        if reply.status != 200:
            raise translated(await _refusal(reply), self._model_id)
        return reply

    async def _connected(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        connecting = self._connections.get(loop)
        if connecting is None or (
            connecting.done() and (connecting.cancelled() or connecting.exception())
        ):
            for left in [left for left in list(self._connections) if left.is_closed()]:
                self._connections.pop(left, None)  # other threads may be at it as well
            connecting = self._connections[loop] = loop.create_task(self._connect())
        # One for all who wait, of whom some may be cancelled meanwhile.
        return await asyncio.shield(connecting)

    async def _connect(self) -> "_Connection":
        try:
            found = await asyncio.to_thread(self._access.found)
        except RAISED as error:
            raise translated(not_made(error), self._model_id) from error
        return await _Connection(found, self._timeout).start()


class _Connection:
    """Of one event loop: aiohttp's session is."""

    def __init__(self, found: Found, timeout: aiohttp.ClientTimeout) -> None:
        self.endpoint = found.endpoint.rstrip("/")
        self.signer = Signer(found)
        self._sessions = _sessions(found, timeout)
        self._loop = asyncio.get_running_loop()

    async def start(self) -> "_Connection":
        self.http = await anext(self._sessions)
        return self

    async def close(self) -> None:
        closing = self._sessions.aclose()
        if self._loop is asyncio.get_running_loop():
            await closing
        else:  # in another thread
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_done(closing), self._loop))


async def _sessions(
    found: Found, silence: aiohttp.ClientTimeout
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """One session. A generator, as an event loop closes those when it ends, and no sessions."""
    async with aiohttp.ClientSession(
        # No limit: a stream holds its connection for as long as the model writes.
        connector=aiohttp.TCPConnector(limit=0, ssl=found.trusted),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=found.proxy,
        timeout=silence,
    ) as session:
        yield session


async def _done(closing: Awaitable[None]) -> None:
    await closing


async def _answer(reply: aiohttp.ClientResponse) -> dict[str, Any]:
    """What came as a whole; nothing that is read of it where it is no JSON object."""
    try:
        answer = json.loads(await reply.content.read())
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _failure(error: Exception) -> Failure:
    match error:
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            return Failure(UNREACHABLE)
        case aiohttp.ClientHttpProxyError():
            return Failure(UNREACHABLE)
        case TimeoutError():
            return Failure(SILENT)
    return Failure(BROKEN_OFF)


async def _refusal(reply: aiohttp.ClientResponse) -> Failure:
    """What a reply that is no stream says; of a proxy's, say, it is its status alone."""
    try:
        text = await reply.content.read(LONGEST_REFUSAL)
        answer = json.loads(text)
    except (aiohttp.ClientError, OSError, ValueError):
        answer = None
    finally:
        reply.close()
    if not isinstance(answer, dict):
        answer = {}
    named = reply.headers.get("x-amzn-ErrorType") or answer.get("__type") or answer.get("code")
    code = str(named or "").partition(":")[0].rpartition("#")[2]
    said = answer.get("message") or answer.get("Message") or ""
    return Failure(code, str(said), reply.status, retry_after(reply.headers.get("Retry-After")))
