"""From the bytes of a reply to its events, by botocore's own parser. Pure."""

import json
from collections.abc import Iterator
from struct import error as NotAFrame
from typing import Any

from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from chatledger.models.bedrock.error_messages import GARBLED
from chatledger.models.bedrock.errors import Failure
from chatledger.models.bedrock.replies import Event


class Frames:
    """The frames of one reply."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()

    def add(self, data: bytes) -> Iterator[Event | Failure]:
        """The events that are whole with ``data``; a failure is the last."""
        self._buffer.add_data(data)
        try:
            for message in self._buffer:
                yield _event(message)
        except (ParserError, NotAFrame, AttributeError, KeyError, ValueError):
            yield Failure(GARBLED)


def _event(message: EventStreamMessage) -> Event | Failure:
    headers: Any = message.headers
    match headers.get(":message-type"):
        case "exception":
            said = json.loads(message.payload).get("message")
            return Failure(str(headers[":exception-type"]), str(said))
        case "error":
            said = headers.get(":error-message")
            return Failure(str(headers[":error-code"]), str(said))
    return {str(headers[":event-type"]): json.loads(message.payload)}
