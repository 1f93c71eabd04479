"""Drives turns in an event loop."""

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from chatledger.chat.effects import (
    STOPPED,
    Ask,
    CallerGone,
    Course,
    Failed,
    Heard,
    Hush,
    Listen,
    Operation,
    Signal,
    Turn,
    failed,
    said,
)
from chatledger.chat.events import UNFINISHED, Event, Started
from chatledger.errors import ModelUnavailable
from chatledger.models.protocol import Finished, Model, Piece

logger = logging.getLogger("chatledger.chat")

SECONDS_TO_END = 1.0
"""How long a model may take to end its call once nobody listens any more."""
LOOPS_TO_CLOSE = 10
"""A generator that was dropped is closed in the next loop of the event loop, and one within it in
the one after that.
"""


class Ear:
    """Hears a model, which goes on while the turn does something else."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._heard: asyncio.Queue[Heard | None] = asyncio.Queue()
        self._call: asyncio.Task[None] | None = None
        self._stopped = False
        self._alarm: asyncio.TimerHandle | None = None

    def ask(self, asked: Ask) -> None:
        self._heard = asyncio.Queue()
        self._call = asyncio.create_task(self._listen(asked, self._heard))

    async def hear(self, seconds: float | None) -> Piece | Finished | Signal | None:
        """What comes next; None where nothing did for so long, or less.

        Raises what the model raises.
        """
        if self._heard.empty() and seconds is not None:
            self._ring_in(seconds)
        heard = STOPPED if self._stopped else await self._heard.get()
        return None if heard is None else said(heard)

    def stop(self) -> None:
        self._stopped = True  # before all that was heard and not handed on yet
        self._heard.put_nowait(STOPPED)

    async def hush(self) -> None:
        """End the call, where it can be ended; a model that takes no notice is left alone."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._call is not None and not self._call.done():
            self._call.cancel()
            await asyncio.wait({self._call}, timeout=SECONDS_TO_END)

    def _ring_in(self, seconds: float) -> None:
        # One alarm for many pieces: it may ring early, and the turn looks at the clock again.
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._alarm is None or self._alarm.when() > when:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._heard.put_nowait(None)

    async def _listen(self, asked: Ask, heard: asyncio.Queue[Heard | None]) -> None:
        try:
            reply = self._model.stream(asked.messages, system_prompt=asked.system_prompt)
            async with aclosing(reply) as pieces:
                async for piece in pieces:
                    heard.put_nowait(piece)
        except BaseException as error:
            heard.put_nowait(failed(error))  # where it was not ``hush``, somebody waits
            if not isinstance(error, Exception):
                raise
        else:
            heard.put_nowait(Failed(ModelUnavailable(UNFINISHED)))


class Driver:
    """Drives the turns of a chat; those that their callers leave are seen to the end."""

    def __init__(self) -> None:
        self._running: dict[str, Ear] = {}
        self._open = 0
        self._endings: set[asyncio.Task[None]] = set()

    async def events(
        self, turn: Turn, model: Model, *, stoppable: bool = True
    ) -> AsyncGenerator[Event, None]:
        """What the turn tells its caller. Raises what it ends with.

        One that is ``stoppable`` is the one that runs in its conversation.
        """
        driven = _Driven(turn, Ear(model))
        conversation_id: str | None = None
        self._open += 1
        try:
            while (event := await driven.event()) is not None:
                if stoppable and isinstance(event, Started) and event.conversation_id:
                    conversation_id = event.conversation_id
                    self._running[conversation_id] = driven.ear
                yield event
        except (GeneratorExit, asyncio.CancelledError) as left:
            ending = asyncio.create_task(driven.end())
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            if isinstance(left, GeneratorExit):
                await asyncio.shield(ending)
            raise
        except Exception:
            await driven.ear.hush()
            raise
        finally:
            self._open -= 1
            if conversation_id and self._running.get(conversation_id) is driven.ear:
                del self._running[conversation_id]

    def stop(self, conversation_id: str) -> bool:
        """Stop the turn that runs here in the conversation; whether there is one."""
        ear = self._running.get(conversation_id)
        if ear is not None:
            ear.stop()
        return ear is not None

    async def close(self) -> None:
        """Wait until the turns that callers have left are at their ends."""
        for _ in range(LOOPS_TO_CLOSE):
            if not self._open:
                break
            await asyncio.sleep(0)
        while self._endings:
            await asyncio.wait(self._endings)


class _Driven:
    """One turn and its ear."""

    def __init__(self, turn: Turn, ear: Ear) -> None:
        self.ear = ear
        self._course = Course(turn)
        self._operation: asyncio.Task[Any] | None = None

    async def event(self) -> Event | None:
        """The next event; None at the end."""
        while True:
            match effect := self._course.next():
                case None | Started() | str() | Finished():
                    return effect
                case Ask():
                    self.ear.ask(effect)
                case Hush():
                    await self._do(self.ear.hush)
                case Listen():
                    await self._listen(effect.seconds)
                case operation:
                    await self._do(operation)

    async def end(self) -> None:
        """Drive the turn to its end for nobody: what was said is kept, nothing else begins."""
        try:
            if self._operation is not None:
                await self._outcome()  # of what was under way when the caller left
            else:
                self._course.throw(CallerGone())
            while (effect := self._course.next()) is not None:
                match effect:
                    case Started() | str() | Finished() | Ask() | Listen():
                        self._course.throw(CallerGone())
                    case Hush():
                        await self._do(self.ear.hush)
                    case operation:
                        await self._do(operation)
        except CallerGone:
            pass
        except Exception as error:  # its text may hold a message
            logger.error("A turn that its caller left could not end: %s", type(error).__name__)
        finally:
            await self.ear.hush()

    async def _listen(self, seconds: float | None) -> None:
        try:
            self._course.answer(await self.ear.hear(seconds))
        except Exception as error:
            self._course.throw(error)

    async def _do(self, operation: Operation) -> None:
        # In a task of its own: a write cancelled with its caller would have an unknown outcome.
        self._operation = asyncio.create_task(_called(operation))
        await self._outcome()

    async def _outcome(self) -> None:
        assert self._operation is not None
        await asyncio.wait({self._operation})
        operation, self._operation = self._operation, None
        try:
            self._course.answer(operation.result())
        except Exception as error:
            self._course.throw(error)


async def _called(operation: Operation) -> Any:
    answer = operation()
    return await answer if inspect.isawaitable(answer) else answer
