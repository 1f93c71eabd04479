"""Async requests to Bedrock over aiohttp, which need no thread for each stream."""

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from struct import error as StructError
from typing import Any

import aiohttp
from botocore.eventstream import EventStreamBuffer, EventStreamMessage
from botocore.exceptions import ClientError, EventStreamError
from botocore.parsers import ResponseParserError

from chatledger.aws.errors import STREAM_ERRORS
from chatledger.aws.http import HttpClient
from chatledger.aws.session import Endpoint
from chatledger.models.bedrock.content import ConverseObject
from chatledger.models.bedrock.errors import model_error
from chatledger.models.bedrock.replies import Event, events_from_converse
from chatledger.models.bedrock.requests import encode_body

MAX_ERROR_BYTES = 64 * 1024
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/vnd.amazon.eventstream, application/json",
}


class AiohttpTransport:
    """Sends requests to one model from any event loop."""

    def __init__(
        self,
        find_endpoint: Callable[[], Endpoint],
        model_id: str,
        *,
        streaming: bool,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self._model_id = model_id
        self._streaming = streaming
        # No limit on connections: a stream occupies one for as long as the model writes.
        self._client = HttpClient(
            find_endpoint,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=connect_timeout, sock_read=timeout
            ),
        )

    async def events(self, body: ConverseObject) -> AsyncGenerator[Event, None]:
        """Yield the events of the reply; closing the generator early closes the connection."""
        try:
            async with self._client.post(_HEADERS, encode_body(body)) as response:
                if response.status != 200:
                    raise await _client_error(response)
                if not self._streaming:
                    for event in events_from_converse(_json_object(await response.read())):
                        yield event
                    return
                buffer = EventStreamBuffer()
                async for data in response.content.iter_any():
                    for event in decode_events(buffer, data):
                        yield event
        except STREAM_ERRORS as error:
            raise model_error(error, self._model_id) from error

    async def close(self) -> None:
        await self._client.close()


async def _client_error(response: aiohttp.ClientResponse) -> ClientError:
    """Return the error that boto3 would raise for the response.

    If its body is not Bedrock's JSON but, for example, a proxy's page, only its status is used.
    """
    try:
        details = _json_object(await response.content.read(MAX_ERROR_BYTES))
    except (aiohttp.ClientError, OSError):
        details = {}
    error_type = response.headers.get("x-amzn-ErrorType")
    error_type = error_type or details.get("__type") or details.get("code")
    code = str(error_type or "").partition(":")[0].rpartition("#")[2]
    text = str(details.get("message") or details.get("Message") or "")
    headers = {"retry-after": response.headers.get("Retry-After")}
    answer: Any = {
        "Error": {"Code": code, "Message": text},
        "ResponseMetadata": {"HTTPStatusCode": response.status, "HTTPHeaders": headers},
    }
    return ClientError(answer, "Converse")


def _json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``, or an empty one if it is something else."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# Event streams ------------------------------------------------------------------------------------


def decode_events(buffer: EventStreamBuffer, data: bytes) -> Iterator[Event]:
    """Yield the events that ``data`` completes, after the data that is in ``buffer``.

    Raises:
        EventStreamError: The service broke off its reply.
        ParserError: The stream is damaged.
        ResponseParserError: A message in the stream is not one of Bedrock's.
    """
    buffer.add_data(data)
    try:
        for message in buffer:
            yield _event(message)
    except (StructError, AttributeError, KeyError, ValueError) as error:
        raise ResponseParserError("The event stream has an unknown form.") from error


def _event(message: EventStreamMessage) -> Event:
    headers: Any = message.headers
    match headers.get(":message-type"):
        case "exception":
            text = json.loads(message.payload).get("message")
            raise _stream_error(headers[":exception-type"], text)
        case "error":
            raise _stream_error(headers[":error-code"], headers.get(":error-message"))
    return {str(headers[":event-type"]): json.loads(message.payload)}


def _stream_error(code: object, text: object) -> EventStreamError:
    return EventStreamError({"Error": {"Code": str(code), "Message": str(text)}}, "ConverseStream")
