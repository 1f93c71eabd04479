"""Drives turns for callers without an event loop."""

import inspect
import logging
import threading
from collections.abc import Generator
from contextlib import closing
from functools import partial
from queue import Empty, SimpleQueue

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
from chatledger.models.protocol import Finished, Piece, SyncModel

logger = logging.getLogger("chatledger.chat")


class SyncEar:
    """Hears a model in a thread of its own: so it can be stopped, and be silent for too long."""

    def __init__(self, model: SyncModel) -> None:
        self._model = model
        self._heard: SimpleQueue[Heard] = SimpleQueue()
        self._over = threading.Event()
        self._stopped = False

    def ask(self, asked: Ask) -> None:
        self._heard, self._over = SimpleQueue(), threading.Event()
        threading.Thread(
            target=self._listen, args=(asked, self._heard, self._over), daemon=True
        ).start()

    def hear(self, seconds: float | None) -> Piece | Finished | Signal | None:
        """What comes next; None where nothing did for so long. Raises what the model raises."""
        if self._stopped:
            return STOPPED
        try:
            heard = self._heard.get(timeout=None if seconds is None else max(seconds, 0))
        except Empty:
            return None
        return said(heard)

    def stop(self) -> None:
        self._stopped = True  # before all that was heard and not handed on yet
        self._heard.put(STOPPED)

    def hush(self) -> None:
        """Nobody listens any more; the call ends with the next piece."""
        self._over.set()

    def _listen(self, asked: Ask, heard: SimpleQueue[Heard], over: threading.Event) -> None:
        try:
            reply = self._model.stream_sync(asked.messages, system_prompt=asked.system_prompt)
            with closing(reply) as pieces:
                for piece in pieces:
                    if over.is_set():
                        return
                    heard.put(piece)
        except BaseException as error:  # whatever it is, somebody waits
            heard.put(failed(error))
        else:
            heard.put(Failed(ModelUnavailable(UNFINISHED)))


class SyncDriver:
    """Drives the turns of a chat, each in its caller's thread."""

    def __init__(self) -> None:
        self._running: dict[str, SyncEar] = {}

    def events(
        self, turn: Turn, model: SyncModel, *, stoppable: bool = True
    ) -> Generator[Event, None, None]:
        """What the turn tells its caller. Raises what it ends with.

        One that is ``stoppable`` is the one that runs in its conversation.
        """
        course, ear = Course(turn), SyncEar(model)
        conversation_id: str | None = None
        try:
            while (effect := course.next()) is not None:
                match effect:
                    case Started() | str() | Finished():
                        if stoppable and isinstance(effect, Started) and effect.conversation_id:
                            conversation_id = effect.conversation_id
                            self._running[conversation_id] = ear
                        yield effect
                    case Ask():
                        ear.ask(effect)
                    case Hush():
                        ear.hush()
                    case Listen():
                        _answered(course, partial(ear.hear, effect.seconds))
                    case operation:
                        _answered(course, operation)
        except (GeneratorExit, KeyboardInterrupt):
            _end(course)
            raise
        finally:
            ear.hush()
            if conversation_id and self._running.get(conversation_id) is ear:
                del self._running[conversation_id]

    def stop(self, conversation_id: str) -> bool:
        """Stop the turn that runs here in the conversation; whether there is one."""
        ear = self._running.get(conversation_id)
        if ear is not None:
            ear.stop()
        return ear is not None


def _answered(course: Course, operation: Operation) -> None:
    try:
        answer = operation()
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError("The hooks of a SyncChat are not async; use a Chat.")
        course.answer(answer)
    except Exception as error:
        course.throw(error)


def _end(course: Course) -> None:
    """Drive the turn to its end for nobody: what was said is kept, nothing else begins."""
    course.throw(CallerGone())
    try:
        while (effect := course.next()) is not None:
            match effect:
                case Started() | str() | Finished() | Ask() | Listen():
                    course.throw(CallerGone())
                case Hush():
                    pass
                case operation:
                    _answered(course, operation)
    except CallerGone:
        pass
    except Exception as error:  # its text may hold a message
        logger.error("A turn that its caller left could not end: %s", type(error).__name__)
