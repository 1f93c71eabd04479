"""A turn that is stored: the order of its steps, and what it stores in each outcome.

Async and sync callers share this code: a turn yields ``effects``, and a runner performs them.
"""

import logging
from functools import partial

from chatledger.chat import turn_metadata
from chatledger.chat.effects import CallerLeft, CallModel, StopModel, Turn
from chatledger.chat.events import Reply, Started
from chatledger.chat.lease import TurnLease
from chatledger.chat.options import ChatOptions, checked_window
from chatledger.chat.streaming import Deadlines, stream_reply
from chatledger.chat.turn_setup import (
    AnyStore,
    Replay,
    TurnSetup,
    TurnStart,
    TurnSteps,
    earlier_reply,
    moved_on_error,
)
from chatledger.conversations import Page, Tail
from chatledger.errors import ChatledgerError, Conflict, InvalidArgument, KeyReused, NotFound
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.windows import valid_for_models

logger = logging.getLogger("chatledger.chat")

MAX_ATTEMPTS = 20
"""The number of attempts to store the question before a turn gives up to its rivals."""

MAX_REPLY_DISTANCE = 200
"""The number of messages that are searched for the reply if an idempotency key is used again."""


class SavedTurn:
    """One turn that is stored."""

    def __init__(
        self,
        store: AnyStore,
        options: ChatOptions,
        set_up: TurnSetup,
        *,
        model: str,
        owner: str | None,
        system_prompt: str | None = None,
        key: turn_metadata.RequestKey | None = None,
    ) -> None:
        self._store = store
        self._options = options
        self._set_up = set_up
        self._model = model
        self._owner = owner
        self._system_prompt = system_prompt
        self._key = key
        self._lease = TurnLease(store, options, owner=owner, key=key)

    def steps(self) -> Turn:
        deadlines = Deadlines(self._options)
        try:
            start = yield from self._acquire_lease()
        except CallerLeft:
            yield from self._lease.abandon()
            raise
        if isinstance(start, Replay):
            yield from _replay_events(start)
            return
        pieces: list[str] = []
        failure: Exception | None = None
        try:
            yield Started(self._lease.conversation_id)
            if self._is_question_stored_first:
                yield from self._call_model(start)
            finished = yield from stream_reply(pieces, deadlines, self._lease.renew)
        except CallerLeft as left:
            finished, failure = Finished("stopped"), left
        except Exception as error:
            finished, failure = Finished("failed"), error
        yield StopModel()
        try:
            reply = Reply(self._lease.conversation_id, "".join(pieces), finished)
            yield from self._save_reply(reply)
        except ChatledgerError as error:
            if isinstance(error, InvalidArgument):  # the reply cannot be stored
                yield from self._lease.release("failed")
            if failure is None:
                raise
        if failure is not None:
            raise failure
        yield finished

    @property
    def _is_question_stored_first(self) -> bool:
        """True if the question is stored before the model is called, not at the same time.

        Hooks run in between and may take long, and with a key the turn must first know that the key
        is new.
        """
        return bool(self._options.hooks) or self._key is not None

    def _acquire_lease(self) -> TurnSteps[TurnStart | Replay]:
        """Store the question with the turn's lease; set the turn up again after each lost race."""
        lost_race: ChatledgerError | None = None
        for _ in range(MAX_ATTEMPTS):
            start = yield from self._set_up()
            if isinstance(start, Replay):
                return start
            if self._is_question_stored_first:
                self._options.window_for(start.earlier, start.messages)  # raises if not valid
            else:
                yield from self._call_model(start)
            try:
                yield from self._lease.acquire(start)
                if self._key is None or start.question_seq is not None:
                    return start
                return (yield from self._start_or_replay(self._key, start))
            except (Conflict, NotFound) as error:
                lost_race = error
                yield StopModel()
        assert lost_race is not None
        raise lost_race

    def _start_or_replay(
        self, key: turn_metadata.RequestKey, start: TurnStart
    ) -> TurnSteps[TurnStart | Replay]:
        """Return ``start`` if this turn is the first with its key, else the earlier turn's reply.

        An append with a key that was used before stores nothing and reports the earlier seq.
        """
        messages = yield from self._messages_from_question(start)
        n = turn_metadata.question_index_with_key(key, messages)
        if n is None:
            raise KeyReused(
                "The message with this idempotency key has been removed; send it with a new key."
            )
        question, following = messages[n], messages[n + 1 :]
        if turn_metadata.is_same_turn(question, self._lease.question):
            return start
        replay = earlier_reply(self._options, self._lease.conversation_id, key, question, following)
        if replay is None:
            raise moved_on_error()
        return replay

    def _messages_from_question(self, start: TurnStart) -> TurnSteps[list[Message]]:
        """Return the question with the key and the messages after it, whichever turn stored it."""
        conversation_id, seq = self._lease.conversation_id, self._lease.question_seq
        if seq > start.conversation.revision:  # just stored, so it is among the last messages
            tail: Tail = yield partial(self._store.tail, conversation_id, 4, owner=self._owner)
            if any(message.seq == seq for message in tail.messages):
                return tail.messages
        page: Page = yield partial(
            self._store.page,
            conversation_id,
            after=seq - 1,
            limit=MAX_REPLY_DISTANCE,
            owner=self._owner,
        )
        return page.messages

    def _call_model(self, start: TurnStart) -> TurnSteps[None]:
        window = self._options.window_for(start.earlier, start.messages)
        for hook in self._options.hooks:
            window = checked_window(valid_for_models((yield partial(hook.before_model, window))))
        yield CallModel(window, self._options.system_prompt_for(self._system_prompt))

    def _save_reply(self, reply: Reply) -> TurnSteps[None]:
        """Store the reply received so far, or only end the lease if there is none."""
        if not reply.text and reply.finished.stop_reason in ("stopped", "failed"):
            yield from self._lease.release(reply.finished.stop_reason)
            return
        if not (yield from self._lease.save_reply(reply, self._model)):
            return
        for hook in self._options.hooks:
            try:
                yield partial(hook.after_reply, reply)
            except Exception as error:
                # Log the type alone: the error's text may quote a message.
                logger.error(
                    "The hook %s failed in after_reply: %s",
                    type(hook).__name__,
                    type(error).__name__,
                )


def _replay_events(replay: Replay) -> Turn:
    yield Started(replay.conversation_id)
    if replay.reply.text:
        yield replay.reply.text
    yield turn_metadata.finished_event(replay.reply)
