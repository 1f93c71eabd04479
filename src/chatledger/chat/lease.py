"""The lease of a turn, stored in the metadata of the turn's question."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from chatledger.chat import turn_metadata
from chatledger.chat.events import CallerLeft, Reply, TurnSteps
from chatledger.chat.options import ChatOptions, TurnRequest
from chatledger.conversations import Conversation, Page, Tail
from chatledger.errors import ChatledgerError, Conflict, KeyReused, NotFound
from chatledger.messages import Message
from chatledger.models.protocol import Usage
from chatledger.sansio import Steps
from chatledger.stores.contract import AnyStore


class TurnStart(NamedTuple):
    """The messages that a turn answers, and the conversation as it was when it was read."""

    conversation: Conversation
    earlier: Sequence[Message]
    """The messages before those to answer, as far as they were read."""
    messages: Sequence[Message]
    """The messages to answer; the last of them is the turn's question."""
    question_seq: int | None = None
    """The seq of the question if it is already stored."""
    truncate_after: int | None = None
    """The seq after which all messages are removed when the question is stored."""
    total_usage: Usage | None = None
    """The usage of all replies of the conversation so far."""


class _QuestionRemoved(Exception):
    """The turn's question is no longer in the conversation."""


class TurnLease:
    """The time-limited right of one turn to run in its conversation.

    The lease is stored with ``question``, the last of the messages that the turn asks the model to
    answer. At most one turn of a conversation has a lease that has not ended.
    """

    def __init__(self, store: AnyStore, options: ChatOptions, request: TurnRequest) -> None:
        self._store = store
        self._options = options
        self._request = request
        self.conversation_id = ""
        self.question_seq = 0
        self.question = Message.user("")
        self._revision = 0
        self._total_usage: Usage | None = None

    def acquire(self, start: TurnStart) -> TurnSteps[None]:
        """Store the question with a lease, or add the lease to the question already stored.

        Raises ``Conflict`` or ``NotFound`` if the conversation has changed since it was read.
        """
        self.conversation_id, self._total_usage = start.conversation.id, start.total_usage
        revision = start.conversation.revision
        *earlier, question = start.messages
        if start.question_seq is not None:
            self.question = turn_metadata.with_lease(question, self._new_lease_end())
            replaced = yield partial(
                self._store.replace,
                self.conversation_id,
                start.question_seq,
                self.question,
                revision=revision,
                owner=self._request.owner,
            )
            self.question_seq, self._revision = start.question_seq, replaced.revision
            return
        # The write removes replies, and with them their usage; the question keeps the sum.
        removed_usage = None if start.truncate_after is None else start.total_usage
        key = self._request.key
        self.question = turn_metadata.with_lease(
            question, self._new_lease_end(), key=key, removed_usage=removed_usage
        )
        try:
            appended = yield partial(
                self._store.append,
                self.conversation_id,
                [*earlier, self.question],
                owner=self._request.owner,
                revision=revision,
                idempotency_key=None if key is None else key.text,
                truncate_after=start.truncate_after,
                reply_follows=True,
            )
        except KeyReused as reused:
            # An earlier turn used the key. Even for the same question, the turn metadata in
            # ``extra`` differs.
            if reused.seqs is None:
                raise
            self.question_seq = self._revision = reused.seqs[-1]
            return
        self.question_seq, self._revision = appended.seqs[-1], appended.revision

    def renew(self) -> TurnSteps[bool]:
        """Extend the lease; return False if the turn was stopped or its question removed.

        If the store fails, return True: the next renewal may succeed before the lease ends.
        """
        until = self._new_lease_end()
        try:
            return (
                yield from self._update_question(
                    partial(turn_metadata.with_lease_until, until=until)
                )
            )
        except _QuestionRemoved:
            return False
        except ChatledgerError:
            return True

    def abandon(self) -> TurnSteps[None]:
        """End the lease if there is one, after an ``acquire`` whose outcome is unknown."""
        for message in (yield from self._last_messages()) if self.conversation_id else []:
            if message.seq and message.id == self.question.id:
                self.question_seq = message.seq
                yield from self.release("stopped")

    def release(self, outcome: str) -> TurnSteps[None]:
        """End the lease of a turn that has no reply; ``outcome`` says why it has none."""
        try:
            yield from self._update_question(partial(turn_metadata.with_outcome, outcome=outcome))
        except (ChatledgerError, _QuestionRemoved):
            return  # the lease ends by itself

    def save_reply(self, reply: Reply) -> TurnSteps[bool]:
        """Store the reply, which also ends the lease.

        Return False without storing it if the question was removed or now belongs to another turn.
        """
        while True:
            message = turn_metadata.reply_message(
                self.question,
                reply.text,
                reply.finished,
                model=self._request.model_id,
                earlier_usage=self._total_usage,
            )
            try:
                yield partial(
                    self._store.append, self.conversation_id, [message], revision=self._revision
                )
            except NotFound:
                return False
            except CallerLeft:
                continue  # if the reply was stored, the next attempt conflicts and finds it
            except Conflict as conflict:
                current = yield from self._current_question()
                if current is None or not turn_metadata.is_same_turn(self.question, current):
                    return False
                self._revision = conflict.revision
                messages = yield from self._last_messages()
                if turn_metadata.reply_to(self.question, messages) is not None:
                    return True
                self._total_usage = turn_metadata.total_usage(messages) or self._total_usage
            else:
                return True

    def _update_question(self, change: Callable[[Message], Message]) -> TurnSteps[bool]:
        """Store the changed question; return False if its turn is no longer running.

        Raises ``_QuestionRemoved``.
        """
        while True:
            changed = change(self.question)
            try:
                replaced = yield partial(
                    self._store.replace,
                    self.conversation_id,
                    self.question_seq,
                    changed,
                    revision=self._revision,
                )
            except NotFound:
                raise _QuestionRemoved from None
            except Conflict as conflict:
                current = yield from self._current_question()
                if current is None:
                    raise _QuestionRemoved from None
                if not turn_metadata.is_running(self.question, current):
                    return False
                # Keep the changes that others made to it.
                self.question, self._revision = current, conflict.revision
            else:
                self.question, self._revision = changed, replaced.revision
                return True

    def _current_question(self) -> TurnSteps[Message | None]:
        """Return the question as it is stored now, or None if it was removed."""
        try:
            page: Page = yield partial(
                self._store.page, self.conversation_id, after=self.question_seq - 1, limit=1
            )
        except NotFound:
            return None
        for message in page.messages:
            if (message.seq, message.id) == (self.question_seq, self.question.id):
                return message
        return None

    def _last_messages(self) -> TurnSteps[Sequence[Message]]:
        try:
            tail: Tail = yield partial(
                self._store.tail, self.conversation_id, self._options.read_limit
            )
        except NotFound:
            return []
        return tail.messages

    def _new_lease_end(self) -> int:
        return self._options.clock() + round(self._options.lease.total_seconds() * 1000)


def force_release(
    store: AnyStore, options: ChatOptions, conversation_id: str, owner: str | None
) -> Steps[bool]:
    """End the lease of the turn that runs in the conversation; return whether there was one.

    The turn, in this or another process, ends at its next renewal, which is at most a third of the
    lease's duration away.
    """
    while True:
        tail: Tail = yield lambda: store.tail(conversation_id, options.read_limit, owner=owner)
        n = turn_metadata.last_question_index(tail.messages)
        if n is None or turn_metadata.lease_end(tail.messages) <= options.clock():
            return False
        question = tail.messages[n]
        assert question.seq is not None
        try:
            yield partial(
                store.replace,
                conversation_id,
                question.seq,
                turn_metadata.with_outcome(question, "stopped"),
                revision=tail.conversation.revision,
                owner=owner,
            )
        except Conflict:
            continue
        return True
