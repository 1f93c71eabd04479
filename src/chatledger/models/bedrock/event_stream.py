"""Decoding the bytes of a streamed reply into events, with botocore's parser and without I/O."""

import json
from collections.abc import Iterator
from struct import error as StructError
from typing import Any

from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from chatledger.models.bedrock.error_messages import MALFORMED_REPLY
from chatledger.models.bedrock.errors import Failure
from chatledger.models.bedrock.replies import Event


class EventStreamDecoder:
    """Decodes the event stream of one reply."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()

    def feed(self, data: bytes) -> Iterator[Event | Failure]:
        """Yield the events that ``data`` completes; a failure is always the last one."""
        self._buffer.add_data(data)
        try:
            for message in self._buffer:
                yield _event(message)
        except (ParserError, StructError, AttributeError, KeyError, ValueError):
            yield Failure(MALFORMED_REPLY)


def _event(message: EventStreamMessage) -> Event | Failure:
    headers: Any = message.headers
    match headers.get(":message-type"):
        case "exception":
            text = json.loads(message.payload).get("message")
            return Failure(str(headers[":exception-type"]), str(text))
        case "error":
            text = headers.get(":error-message")
            return Failure(str(headers[":error-code"]), str(text))
    return {str(headers[":event-type"]): json.loads(message.payload)}
