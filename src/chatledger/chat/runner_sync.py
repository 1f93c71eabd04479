"""The runner of turns for callers without an event loop."""

import inspect
import logging
import threading
from collections.abc import Generator
from contextlib import closing
from functools import partial
from queue import Empty, SimpleQueue

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
from chatledger.models.protocol import Finished, Piece, SyncModel

logger = logging.getLogger("chatledger.chat")


class SyncModelCall:
    """A call to the model in a thread of its own, so that the turn can stop or time out."""

    def __init__(self, model: SyncModel) -> None:
        self._model = model
        self._outputs: SimpleQueue[ModelOutput] = SimpleQueue()
        self._cancelled = threading.Event()
        self._is_stopped = False

    def start(self, request: CallModel) -> None:
        self._outputs, self._cancelled = SimpleQueue(), threading.Event()
        threading.Thread(
            target=self._read_reply, args=(request, self._outputs, self._cancelled), daemon=True
        ).start()

    def next_piece(self, seconds: float) -> Piece | Finished | Signal | None:
        """Return the next output, or None after ``seconds`` without one.

        Raises the model's error.
        """
        if self._is_stopped:
            return STOPPED
        try:
            output = self._outputs.get(timeout=max(seconds, 0))
        except Empty:
            return None
        return unwrap(output)

    def stop(self) -> None:
        self._is_stopped = True  # takes effect before the outputs that are still in the queue
        self._outputs.put(STOPPED)

    def cancel(self) -> None:
        """Cancel the call; it ends at its next piece, since a thread cannot be interrupted."""
        self._cancelled.set()

    def _read_reply(
        self, request: CallModel, outputs: SimpleQueue[ModelOutput], cancelled: threading.Event
    ) -> None:
        try:
            reply = self._model.stream_sync(request.messages, system_prompt=request.system_prompt)
            with closing(reply) as pieces:
                for piece in pieces:
                    if cancelled.is_set():
                        return
                    outputs.put(piece)
        except BaseException as error:  # any error: the turn may be waiting for an output
            outputs.put(model_failure(error))
        else:
            outputs.put(ModelFailure(ModelUnavailable(ENDED_WITHOUT_FINISHED)))


def run_turn(
    turn: Turn, model: SyncModel, stop_functions: StopFunctions
) -> Generator[Event, None, None]:
    """Run the turn in the caller's thread and yield its events; raise the turn's error.

    While a turn that is stored runs, ``stop_functions`` has a function that stops it.
    """
    stepper, model_call = TurnStepper(turn), SyncModelCall(model)
    key, stop = None, model_call.stop
    try:
        while (effect := stepper.next_effect()) is not None:
            match effect:
                case Started() | str() | Finished():
                    if isinstance(effect, Started) and effect.conversation_id and effect.reply_id:
                        key = effect.conversation_id, effect.reply_id
                        stop_functions[key] = stop
                    yield effect
                case CallModel():
                    model_call.start(effect)
                case StopModel():
                    model_call.cancel()
                case NextPiece():
                    _perform(stepper, partial(model_call.next_piece, effect.seconds))
                case pending_call:
                    _perform(stepper, pending_call)
    except (GeneratorExit, KeyboardInterrupt):
        _finish(stepper)
        raise
    finally:
        model_call.cancel()
        if key and stop_functions.get(key) is stop:
            del stop_functions[key]


def _perform(stepper: TurnStepper, pending_call: PendingCall) -> None:
    try:
        result = pending_call()
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("A SyncChat cannot call async hooks; make them sync, or use a Chat.")
        stepper.set_result(result)
    except Exception as error:
        stepper.set_error(error)


def _finish(stepper: TurnStepper) -> None:
    """Finish the turn after its caller left: store the reply so far and start nothing new."""
    stepper.set_error(CallerLeft())
    try:
        while (effect := stepper.next_effect()) is not None:
            match effect:
                case Started() | str() | Finished() | CallModel() | NextPiece():
                    stepper.set_error(CallerLeft())
                case StopModel():
                    pass
                case pending_call:
                    _perform(stepper, pending_call)
    except CallerLeft:
        pass
    except Exception as error:
        # Log the type alone: the error's text may quote a message.
        logger.error("A turn could not be finished after its caller left: %s", type(error).__name__)
