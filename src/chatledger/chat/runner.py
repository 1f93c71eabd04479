"""The runner of turns in an event loop."""

import asyncio
import inspect
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar

from chatledger.chat.protocol import (
    ENDED_WITHOUT_FINISHED,
    STOPPED,
    CallerLeft,
    CallModel,
    Event,
    ModelFailure,
    ModelOutput,
    NextPiece,
    PendingCall,
    Signal,
    Started,
    StopFunctions,
    StopModel,
    Turn,
    TurnStepper,
    model_failure,
    unwrap,
)
from chatledger.errors import ModelUnavailable
from chatledger.models.protocol import Finished, Model, Piece

logger = logging.getLogger("chatledger.chat")

CANCEL_TIMEOUT = 1.0
"""The seconds that a model may take to end its call after it was cancelled."""
HANDOVERS_A_SECOND = 5_000
"""The most times a second that a process hands pieces to its turns; more would take most of a core.

With many replies at once, a turn gets the pieces that have become ready meanwhile together.
"""
CLOSE_ITERATIONS = 10
"""The iterations of the event loop that ``TurnRunner.close`` waits for dropped generators.

The event loop closes a dropped generator in its next iteration, and a generator nested in that one
in the iteration after.
"""


class ModelCall:
    """A call to the model, which continues while the turn does other work."""

    _calls_running: ClassVar[int] = 0

    def __init__(self, model: Model) -> None:
        self._model = model
        self._outputs: deque[ModelOutput] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._handover: asyncio.TimerHandle | None = None
        self._handed_over_at = -math.inf

    def start(self, request: CallModel) -> None:
        self._outputs = deque()
        self._task = asyncio.create_task(self._read_reply(request, self._outputs))

    async def next_piece(self, seconds: float) -> Piece | Finished | Signal | None:
        """Return the next output, or None after at most ``seconds`` without one.

        Raises the model's error.
        """
        if not self._outputs and not self._is_stopped:
            loop = asyncio.get_running_loop()
            self._set_timer(loop, seconds)
            self._waiting = loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if self._is_stopped:  # before the outputs that are still there
            return STOPPED
        return unwrap(self._outputs.popleft()) if self._outputs else None

    def stop(self) -> None:
        self._is_stopped = True
        self._wake()

    async def cancel(self) -> None:
        """Cancel the call, and wait at most ``CANCEL_TIMEOUT`` for it to end."""
        for timer in (self._timer, self._handover):
            if timer is not None:
                timer.cancel()
        self._timer = self._handover = None
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_TIMEOUT)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        # One timer serves many pieces. It may fire early; the turn then checks its deadlines again.
        when = loop.time() + seconds
        if self._timer is None or self._timer.when() > when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(when, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        self._wake()

    def _hand_over(self) -> None:
        """Wake the turn, or let it wait for more pieces if it has just had some."""
        if self._waiting is None or self._waiting.done() or self._handover is not None:
            return
        loop = asyncio.get_running_loop()
        due = self._handed_over_at + ModelCall._calls_running / HANDOVERS_A_SECOND
        if loop.time() < due:
            self._handover = loop.call_at(due, self._wake)
        else:
            self._wake()

    def _wake(self) -> None:
        if self._handover is not None:
            self._handover.cancel()
            self._handover = None
        if self._waiting is not None and not self._waiting.done():
            self._handed_over_at = asyncio.get_running_loop().time()
            self._waiting.set_result(None)

    async def _read_reply(self, request: CallModel, outputs: deque[ModelOutput]) -> None:
        ModelCall._calls_running += 1
        try:
            reply = self._model.stream(request.messages, system_prompt=request.system_prompt)
            async with aclosing(reply) as pieces:
                async for piece in pieces:
                    outputs.append(piece)
                    self._hand_over()
        except BaseException as error:
            outputs.append(model_failure(error))  # the turn may be waiting for an output
            self._wake()
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
                raise
        else:
            outputs.append(ModelFailure(ModelUnavailable(ENDED_WITHOUT_FINISHED)))
            self._wake()
        finally:
            ModelCall._calls_running -= 1


class TurnRunner:
    """Runs the turns of a chat, and finishes those whose callers leave."""

    def __init__(self) -> None:
        self._open_turns = 0
        self._finishing: set[asyncio.Task[None]] = set()

    async def run(
        self, turn: Turn, model: Model, stop_functions: StopFunctions
    ) -> AsyncGenerator[Event, None]:
        """Run the turn and yield its events; raise the turn's error.

        While a turn that is stored runs, ``stop_functions`` has a function that stops it.
        """
        running = _RunningTurn(turn, ModelCall(model))
        key, stop = None, running.model_call.stop
        self._open_turns += 1
        try:
            while (event := await running.next_event()) is not None:
                if isinstance(event, Started) and event.conversation_id and event.reply_id:
                    key = event.conversation_id, event.reply_id
                    stop_functions[key] = stop
                yield event
        except (GeneratorExit, asyncio.CancelledError) as left:
            finishing = asyncio.create_task(running.finish())
            self._finishing.add(finishing)
            finishing.add_done_callback(self._finishing.discard)
            if isinstance(left, GeneratorExit):
                await asyncio.shield(finishing)
            raise
        except Exception:
            await running.model_call.cancel()
            raise
        finally:
            self._open_turns -= 1
            if key and stop_functions.get(key) is stop:
                del stop_functions[key]

    async def close(self) -> None:
        """Wait until the turns whose callers left have ended."""
        for _ in range(CLOSE_ITERATIONS):
            if not self._open_turns:
                break
            await asyncio.sleep(0)
        while self._finishing:
            await asyncio.wait(self._finishing)


class _RunningTurn:
    """One turn and its call to the model."""

    def __init__(self, turn: Turn, model_call: ModelCall) -> None:
        self.model_call = model_call
        self._stepper = TurnStepper(turn)
        self._call_task: asyncio.Task[Any] | None = None

    async def next_event(self) -> Event | None:
        """Perform effects up to the next event and return it, or None at the end of the turn."""
        while True:
            match effect := self._stepper.next_effect():
                case NextPiece():  # first, because there are so many
                    try:
                        self._stepper.set_result(await self.model_call.next_piece(effect.seconds))
                    except Exception as error:
                        self._stepper.set_error(error)
                case str() | None | Started() | Finished():
                    return effect
                case CallModel():
                    self.model_call.start(effect)
                case StopModel():
                    await self._perform(self.model_call.cancel)
                case pending_call:
                    await self._perform(pending_call)

    async def finish(self) -> None:
        """Finish the turn after its caller left: store the reply so far and start nothing new."""
        try:
            if self._call_task is not None:
                await self._await_call()  # it was pending when the caller left
            else:
                self._stepper.set_error(CallerLeft())
            while (effect := self._stepper.next_effect()) is not None:
                match effect:
                    case Started() | str() | Finished() | CallModel() | NextPiece():
                        self._stepper.set_error(CallerLeft())
                    case StopModel():
                        await self._perform(self.model_call.cancel)
                    case pending_call:
                        await self._perform(pending_call)
        except CallerLeft:
            pass
        except Exception as error:
            # Log the type alone: the error's text may quote a message.
            logger.error(
                "A turn could not be finished after its caller left: %s", type(error).__name__
            )
        finally:
            await self.model_call.cancel()

    async def _perform(self, pending_call: PendingCall) -> None:
        # In a task of its own: if the caller is cancelled, a write still gets a known outcome.
        self._call_task = asyncio.create_task(_call(pending_call))
        await self._await_call()

    async def _await_call(self) -> None:
        assert self._call_task is not None
        await asyncio.wait({self._call_task})
        task, self._call_task = self._call_task, None
        try:
            self._stepper.set_result(task.result())
        except Exception as error:
            self._stepper.set_error(error)


async def _call(pending_call: PendingCall) -> Any:
    result = pending_call()
    return await result if inspect.isawaitable(result) else result
