"""A streamed reply beyond the contract: silence, and clients that leave early."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import pytest
from starlette.types import Message

from chatledger.chat import Event, Started
from chatledger.http.bodies import piece_frame
from chatledger.http.events import EventStream
from chatledger.http.requests import RequestRecord
from chatledger.http.turns import RunningTurn, RunningTurns
from chatledger.models.protocol import Finished

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def start(events: AsyncGenerator[Event, None]) -> RunningTurn:
    return await RunningTurns(lambda _: False).start(
        events, RequestRecord("1", "POST", 0.0), ExitStack()
    )


async def receive_nothing() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def refuse(message: Message) -> None:
    raise OSError


@pytest.mark.parametrize("stops_turn", [True, False])
async def test_a_client_that_leaves_before_the_response_starts(stops_turn: bool) -> None:
    gate, ended = asyncio.Event(), []

    async def events() -> AsyncGenerator[Event, None]:
        try:
            yield Started("trip", "reply", 1)
            yield "Hello"
            await gate.wait()
            yield Finished("end_turn")
        finally:
            ended.append(True)

    turn = await start(events())
    await EventStream(turn, stops_turn=stops_turn)({"type": "http"}, receive_nothing, refuse)
    await asyncio.sleep(0.05)
    assert ended == ([True] if stops_turn else [])
    gate.set()
    has_ended = asyncio.Event()
    turn.call_at_end(has_ended.set)
    await asyncio.wait_for(has_ended.wait(), 10)
    assert turn.reply().finished == Finished("stopped" if stops_turn else "end_turn")


async def test_a_stream_is_never_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatledger.http.events.PING_SECONDS", 0.02)
    pinged = asyncio.Event()
    bodies = []

    async def events() -> AsyncGenerator[Event, None]:
        yield Started("trip", "reply", 1)
        await pinged.wait()
        yield "Hello"
        yield Finished("end_turn")

    async def send(message: Message) -> None:
        bodies.append(message.get("body", b""))
        if message.get("body") == b": ping\n\n":
            pinged.set()

    await EventStream(await start(events()))({"type": "http"}, receive_nothing, send)
    assert b"".join(bodies).replace(b": ping\n\n", b"").count(b"event: ") == 3
    assert b"event: done" in bodies[-1]


async def test_pieces_that_are_ready_together_are_sent_together() -> None:
    bodies = []

    async def events() -> AsyncGenerator[Event, None]:
        yield Started("trip", "reply", 1)
        for n in range(100):
            yield f"{n} "
        yield Finished("end_turn")

    async def send(message: Message) -> None:
        bodies.append(message.get("body", b""))

    await EventStream(await start(events()))({"type": "http"}, receive_nothing, send)
    assert b"".join(bodies).count(b"event: piece") < 10
    assert b'"0 1 2 3 ' in b"".join(bodies)


def test_no_text_ends_a_line_of_an_event_for_any_client() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh\ni é😀"
    *lines, end = piece_frame("reply", text, end=len(text)).decode().splitlines()
    assert end == ""
    assert [line.partition(":")[0] for line in lines] == ["id", "event", "data"]
    assert json.loads(lines[-1].removeprefix("data: ")) == {"text": text}


@pytest.mark.parametrize("offset", [0, 1, 65_536, 65_599, 199_999, 200_000])
async def test_a_long_text_that_is_ready_is_sent_in_parts_from_any_place(offset: int) -> None:
    """A client that does not read holds up one part, not a copy of the whole reply."""
    bodies: list[bytes] = []
    whole = "".join(f"{n:4} " for n in range(40_000))[:200_000]
    ended = asyncio.Event()

    async def events() -> AsyncGenerator[Event, None]:
        yield Started("trip", "reply", 1)
        for place in range(0, 200_000, 100):
            yield whole[place : place + 100]
        yield Finished("end_turn")

    async def send(message: Message) -> None:
        bodies.append(message.get("body", b""))

    turn = await start(events())
    turn.call_at_end(ended.set)
    await ended.wait()
    await EventStream(turn, offset=offset)({"type": "http"}, receive_nothing, send)
    assert max(map(len, bodies)) < 66_000
    texts = re.findall(rb'^data: (\{"text":.*)', b"".join(bodies), re.MULTILINE)
    assert "".join(json.loads(text)["text"] for text in texts) == whole[offset:]
    assert b"event: done" in bodies[-1]
