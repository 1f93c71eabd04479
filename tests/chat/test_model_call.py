"""A call to a model hands its pieces to the turn at once, or several together if there are many."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from chatledger import Message
from chatledger.chat import runner
from chatledger.chat.protocol import CallModel, Signal
from chatledger.chat.runner import ModelCall
from chatledger.models.protocol import Finished, Piece

pytestmark = pytest.mark.anyio


class QueueModel:
    """A model whose pieces a test puts in a queue."""

    id = "queue"

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[str | Finished] = asyncio.Queue()

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[str | Finished, None]:
        while True:
            piece = await self.pieces.get()
            yield piece
            if isinstance(piece, Finished):
                return

    async def close(self) -> None:
        pass


async def iterate(times: int = 10) -> None:
    """Let the event loop run, but no timer of a tenth of a second."""
    for _ in range(times):
        await asyncio.sleep(0)


async def next_piece(call: ModelCall) -> "asyncio.Future[Piece | Finished | Signal | None]":
    """Return the call's next output, for which the turn already waits."""
    waiting = asyncio.ensure_future(call.next_piece(60))
    await iterate()
    return waiting


async def start_with_a_piece() -> tuple[QueueModel, ModelCall]:
    """Return a call that has just handed over its first piece, and its model."""
    model = QueueModel()
    call = ModelCall(model)
    call.start(CallModel([Message.user("Hi")], None))
    first = await next_piece(call)
    model.pieces.put_nowait("a")
    await iterate()
    assert first.done()
    assert await first == "a"
    return model, call


async def test_a_piece_is_handed_over_at_once_if_there_was_none_just_before() -> None:
    _, call = await start_with_a_piece()
    await call.cancel()


async def test_pieces_that_come_shortly_after_another_are_handed_over_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "HANDOVERS_A_SECOND", 10)
    model, call = await start_with_a_piece()
    waiting = await next_piece(call)
    for piece in ("b", "c", "d"):
        await iterate()
        model.pieces.put_nowait(piece)
    await iterate()
    assert not waiting.done()
    assert await waiting == "b"
    assert [await call.next_piece(0), await call.next_piece(0)] == ["c", "d"]
    await call.cancel()


async def test_neither_a_stop_nor_the_end_of_the_reply_waits_for_more_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "HANDOVERS_A_SECOND", 1e-6)
    for end in ("stop", "finish"):
        model, call = await start_with_a_piece()
        waiting = await next_piece(call)
        model.pieces.put_nowait("b")
        await iterate()
        assert not waiting.done()
        if end == "stop":
            call.stop()
        else:
            model.pieces.put_nowait(Finished("end_turn"))
        await iterate()
        assert waiting.done()
        await call.cancel()
    assert ModelCall._calls_running == 0
