"""A reply as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chatledger.chat import Event, Started
from chatledger.http.api import done_body
from chatledger.http.errors import handle_error
from chatledger.models.protocol import Finished
from chatledger.values import dumps

PING_SECONDS = 15.0
"""The longest silence in a stream; proxies close idle connections, often after 30 seconds."""

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """A response that streams a turn; the turn ends if the client disconnects.

    Args:
        started: The first event of the turn.
        turn: The generator of the events after it.
    """

    def __init__(self, started: Event, turn: AsyncGenerator[Event, None]) -> None:
        self._turn = turn
        self._events = _encoded_events(started, turn)
        super().__init__(self._events, media_type="text/event-stream", headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # If the client disconnected, the generators are still suspended. Closing them saves
            # the reply so far. The turn would not be closed by the events if those never started.
            await self._events.aclose()
            await self._turn.aclose()


async def _encoded_events(
    started: Event, turn: AsyncGenerator[Event, None]
) -> AsyncGenerator[str, None]:
    yield _encode(started)
    next_event: asyncio.Task[Event] | None = None
    try:
        while True:
            next_event = asyncio.ensure_future(anext(turn))
            while not (await asyncio.wait({next_event}, timeout=PING_SECONDS))[0]:
                yield ": ping\n\n"
            yield _encode(next_event.result())
    except StopAsyncIteration:
        pass
    except Exception as error:  # the status has been sent, so the error becomes an event
        yield _frame("error", handle_error(error, "a stream").body)
    finally:
        if next_event is not None and next_event.cancel():
            await asyncio.wait({next_event})


def _encode(event: Event) -> str:
    match event:
        case Started():
            return _frame("start", asdict(event))
        case Finished():
            return _frame("done", done_body(event))
        case str():
            return _frame("piece", {"text": event})


def _frame(name: str, data: object) -> str:
    return f"event: {name}\ndata: {dumps(data)}\n\n"
