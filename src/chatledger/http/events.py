"""A reply as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chatledger.chat import Event, Started
from chatledger.http.error_log import log_unknown
from chatledger.http.errors import refusal
from chatledger.http.responses import done
from chatledger.json_values import dumps
from chatledger.models.protocol import Finished

PING_SECONDS = 15.0
"""How long a stream may be silent: proxies close one that is for longer, often after 30 s."""

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Streams a turn that has ``Started``; it ends when the client goes away."""

    def __init__(self, started: Event, turn: AsyncGenerator[Event, None]) -> None:
        self._events = _encoded(started, turn)
        super().__init__(self._events, media_type="text/event-stream", headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # A client that went away leaves the generators where they wait; closing them keeps
            # what was said so far.
            await self._events.aclose()


async def _encoded(started: Event, turn: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    yield _encode(started)
    waiting: asyncio.Task[Event] | None = None
    try:
        while True:
            waiting = asyncio.ensure_future(anext(turn))
            while not (await asyncio.wait({waiting}, timeout=PING_SECONDS))[0]:
                yield ": ping\n\n"
            yield _encode(waiting.result())
    except StopAsyncIteration:
        pass
    except Exception as error:  # the status is sent: what went wrong is an event now
        log_unknown(error, "a stream")
        yield _event("error", refusal(error).body)
    finally:
        if waiting is not None and waiting.cancel():
            await asyncio.wait({waiting})
        await turn.aclose()


def _encode(event: Event) -> str:
    match event:
        case Started():
            return _event("start", asdict(event))
        case Finished():
            return _event("done", done(event))
        case str():
            return _event("piece", {"text": event})


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {dumps(data)}\n\n"
