"""A turn: what is done in which order, and what is kept however it ends.

Written once, for async and sync callers: it yields what is to be done (``effects``), and whoever
drives it does that.
"""

import logging
from functools import partial

from chatledger.chat import turn_metadata
from chatledger.chat.effects import Ask, CallerGone, Hush, Turn
from chatledger.chat.events import Reply, Started
from chatledger.chat.lease import Holding
from chatledger.chat.options import Terms, answerable
from chatledger.chat.streaming import Timing, listen
from chatledger.chat.turn_setup import (
    AnyStore,
    Begin,
    Beginning,
    Replay,
    Steps,
    asked_before,
    gone_on,
)
from chatledger.conversations import Page, Tail
from chatledger.errors import ChatledgerError, Conflict, InvalidArgument, KeyReused, NotFound
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.windows import valid_for_models

logger = logging.getLogger("chatledger.chat")

RIVALS = 20
"""How many writers may be first, one after the other, before a turn gives up."""

FAR = 200
"""How many messages may lie between a question and its reply for a used key to find that."""


class KeptTurn:
    """One turn that is kept."""

    def __init__(
        self,
        store: AnyStore,
        terms: Terms,
        begin: Begin,
        *,
        model: str,
        owner: str | None,
        system_prompt: str | None = None,
        key: turn_metadata.Key | None = None,
    ) -> None:
        self._store = store
        self._terms = terms
        self._begin = begin
        self._model = model
        self._owner = owner
        self._system_prompt = system_prompt
        self._key = key
        self._held = Holding(store, terms, owner=owner, key=key)

    def steps(self) -> Turn:
        timing = Timing(self._terms)
        try:
            begun = yield from self._hold()
        except CallerGone:
            yield from self._held.abandon()
            raise
        if isinstance(begun, Replay):
            yield from _replayed(begun)
            return
        said: list[str] = []
        failure: Exception | None = None
        try:
            yield Started(self._held.id)
            if self._asks_late:
                yield from self._ask(begun)
            finished = yield from listen(said, timing, self._held.renew)
        except CallerGone as gone:
            finished, failure = Finished("stopped"), gone
        except Exception as error:
            finished, failure = Finished("failed"), error
        yield Hush()
        try:
            yield from self._keep(Reply(self._held.id, "".join(said), finished))
        except ChatledgerError as error:
            if isinstance(error, InvalidArgument):  # what the model said is nothing that is stored
                yield from self._held.release("failed")
            if failure is None:
                raise
        if failure is not None:
            raise failure
        yield finished

    @property
    def _asks_late(self) -> bool:
        """Whether the model is asked only once the question is stored, not while it is.

        Hooks may take long, and with a key it must be known first that it was not used before.
        """
        return bool(self._terms.hooks) or self._key is not None

    def _hold(self) -> Steps[Beginning | Replay]:
        """The question is stored, and the conversation held for its turn."""
        changed: ChatledgerError | None = None
        for _ in range(RIVALS):
            begun = yield from self._begin()
            if isinstance(begun, Replay):
                return begun
            if self._asks_late:
                self._terms.seen_by_model(begun.earlier, begun.question)
            else:
                yield from self._ask(begun)
            try:
                yield from self._held.begin(begun)
                if self._key is None or begun.at is not None:
                    return begun
                return (yield from self._first_with_key(self._key, begun))
            except (Conflict, NotFound) as error:
                changed = error
                yield Hush()
        assert changed is not None
        raise changed

    def _first_with_key(
        self, key: turn_metadata.Key, begun: Beginning
    ) -> Steps[Beginning | Replay]:
        """``begun``, where this turn is the first with its key; else the reply of that one."""
        messages = yield from self._from_question(begun)
        n = turn_metadata.asked_with(key, messages)
        if n is None:
            raise KeyReused("The reply to the message with this idempotency key has been removed.")
        question, behind = messages[n], messages[n + 1 :]
        if turn_metadata.are_of_one_turn(question, self._held.question):
            return begun
        found = asked_before(self._terms, self._held.id, key, question, behind)
        if found is None:
            raise gone_on()
        return found

    def _from_question(self, begun: Beginning) -> Steps[list[Message]]:
        """The messages from where the question with the key was stored, by this turn or before."""
        id, seq = self._held.id, self._held.seq
        if seq > begun.conversation.revision:  # just now: it is among the last
            tail: Tail = yield partial(self._store.tail, id, 4, owner=self._owner)
            if any(message.seq == seq for message in tail.messages):
                return tail.messages
        page: Page = yield partial(
            self._store.page, id, after=seq - 1, limit=FAR, owner=self._owner
        )
        return page.messages

    def _ask(self, begun: Beginning) -> Steps[None]:
        window = self._terms.seen_by_model(begun.earlier, begun.question)
        for hook in self._terms.hooks:
            window = answerable(valid_for_models((yield partial(hook.before_model, window))))
        yield Ask(window, self._terms.prompt(self._system_prompt))

    def _keep(self, reply: Reply) -> Steps[None]:
        """What there is of a reply is stored; where nothing is, the conversation is free again."""
        if not reply.text and reply.finished.stop_reason in ("stopped", "failed"):
            yield from self._held.release(reply.finished.stop_reason)
            return
        if not (yield from self._held.keep(reply, self._model)):
            return
        for hook in self._terms.hooks:
            try:
                yield partial(hook.after_reply, reply)
            except Exception as error:  # its text may hold a message
                logger.error("after_reply of %s: %s", type(hook).__name__, type(error).__name__)


def _replayed(replay: Replay) -> Turn:
    yield Started(replay.conversation_id)
    if replay.reply.text:
        yield replay.reply.text
    yield turn_metadata.finished(replay.reply)
