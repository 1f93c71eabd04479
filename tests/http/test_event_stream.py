"""A streamed reply beyond the contract: what ends with the connection."""

from collections.abc import AsyncGenerator

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from chatledger.chat import Event, Started
from chatledger.http.events import EventStream

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_client_that_leaves_before_the_response_starts_ends_the_turn() -> None:
    ended = []

    async def turn() -> AsyncGenerator[Event, None]:
        try:
            yield Started("trip")
            yield "Hello"
        finally:
            ended.append(True)

    async def receive() -> Message:
        raise AssertionError("a server with spec_version 2.4 is not asked for a disconnect")

    async def send(message: Message) -> None:
        raise OSError

    events = turn()
    stream = EventStream(await anext(events), events)
    with pytest.raises(ClientDisconnect):
        await stream({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    assert ended
