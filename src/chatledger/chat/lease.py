"""How a turn holds its conversation: by its question, which says so, and until when."""

from collections.abc import Callable
from functools import partial

from chatledger.chat import turn_metadata
from chatledger.chat.effects import CallerGone
from chatledger.chat.events import Reply
from chatledger.chat.options import Terms
from chatledger.chat.turn_setup import AnyStore, Beginning, Steps
from chatledger.conversations import Page, Tail
from chatledger.errors import ChatledgerError, Conflict, NotFound
from chatledger.messages import Message
from chatledger.models.protocol import Usage


class _Gone(Exception):
    """The question is no longer there."""


class Holding:
    """The conversation of one turn, and the question that the turn holds it by."""

    def __init__(
        self, store: AnyStore, terms: Terms, *, owner: str | None, key: turn_metadata.Key | None
    ) -> None:
        self._store = store
        self._terms = terms
        self._owner = owner
        self._key = key
        self.id = ""
        self.seq = 0
        self.question = Message.user("")
        self._revision = 0
        self._spent: Usage | None = None

    def begin(self, begun: Beginning) -> Steps[None]:
        """Store the question with the turn's lease, or have the one that is there bear it.

        Raises ``Conflict`` or ``NotFound`` where the conversation has changed since it was read.
        """
        self.id, self._spent = begun.conversation.id, begun.spent
        revision = begun.conversation.revision
        *before, question = begun.question
        if begun.at is not None:
            self.question = turn_metadata.held(question, self._lease_end())
            changed = yield partial(
                self._store.replace,
                self.id,
                begun.at,
                self.question,
                revision=revision,
                owner=self._owner,
            )
            self.seq, self._revision = begun.at, changed.revision
            return
        gone = None if begun.truncate_after is None else begun.spent
        self.question = turn_metadata.held(question, self._lease_end(), self._key, gone)
        appended = yield partial(
            self._store.append,
            self.id,
            [*before, self.question],
            owner=self._owner,
            after=revision,
            idempotency_key=None if self._key is None else self._key.text,
            truncate_after=begun.truncate_after,
            reply_follows=True,
        )
        self.seq, self._revision = appended.seqs[-1], appended.revision

    def renew(self) -> Steps[bool]:
        """Hold the conversation for longer; False where the turn was stopped meanwhile, or the
        question is gone.

        Where the store cannot be reached it is tried again later.
        """
        until = self._lease_end()
        try:
            return (yield from self._mark(partial(turn_metadata.renewed, until=until)))
        except _Gone:
            return False
        except ChatledgerError:
            return True

    def abandon(self) -> Steps[None]:
        """Hold the conversation no longer, where nobody knows whether ``begin`` came to hold it."""
        for message in (yield from self._last()) if self.id else []:
            if message.seq and message.id == self.question.id:
                self.seq = message.seq
                yield from self.release("stopped")

    def release(self, how: str) -> Steps[None]:
        """Hold the conversation no longer; there is no reply."""
        try:
            yield from self._mark(partial(turn_metadata.ended, how=how))
        except (ChatledgerError, _Gone):
            return  # the lease ends by itself

    def keep(self, reply: Reply, model: str) -> Steps[bool]:
        """Store the reply behind its question; False where that is no longer there, or is asked
        anew by another turn.
        """
        while True:
            message = turn_metadata.answer(
                self.question, reply.text, reply.finished, model=model, spent=self._spent
            )
            try:
                yield partial(self._store.append, self.id, [message], after=self._revision)
            except NotFound:
                return False
            except CallerGone:
                continue  # it may be in: then there is a conflict, and it is found
            except Conflict as conflict:
                now = yield from self._standing()
                if now is None or not turn_metadata.are_of_one_turn(self.question, now):
                    return False
                self._revision = conflict.revision
                last = yield from self._last()
                if turn_metadata.reply_to(self.question, last) is not None:
                    return True
                self._spent = turn_metadata.spent(last) or self._spent
            else:
                return True

    def _mark(self, mark: Callable[[Message], Message]) -> Steps[bool]:
        """Mark the question; False where its turn is not the one that runs. Raises ``_Gone``."""
        while True:
            marked = mark(self.question)
            try:
                changed = yield partial(
                    self._store.replace, self.id, self.seq, marked, revision=self._revision
                )
            except NotFound:
                raise _Gone from None
            except Conflict as conflict:
                now = yield from self._standing()
                if now is None:
                    raise _Gone from None
                if not turn_metadata.runs(self.question, now):
                    return False
                # As others may have left it.
                self.question, self._revision = now, conflict.revision
            else:
                self.question, self._revision = marked, changed.revision
                return True

    def _standing(self) -> Steps[Message | None]:
        """The question as it stands now; None where it is no longer there."""
        try:
            page: Page = yield partial(self._store.page, self.id, after=self.seq - 1, limit=1)
        except NotFound:
            return None
        for message in page.messages:
            if (message.seq, message.id) == (self.seq, self.question.id):
                return message
        return None

    def _last(self) -> Steps[list[Message]]:
        try:
            tail: Tail = yield partial(self._store.tail, self.id, self._terms.reads)
        except NotFound:
            return []
        return tail.messages

    def _lease_end(self) -> int:
        return self._terms.clock() + round(self._terms.lease.total_seconds() * 1000)
