"""The lease of a turn, and the metadata of messages that contains it, for other turns to read.

The last message that a turn asks the model to answer is its question. ``extra["turn"]`` of a
question has these keys:

- ``reply``: the id that the reply to it has or will have;
- ``until``: the end of the turn's lease, in ms since 1970, and ``by``: the label of the process
  that has it, if there is one; or
- ``ended``: the outcome of a turn that ended without a reply; beside ``until`` and ``by``, that the
  turn was stopped by another process: it has no lease any more, but may still store its reply;
- ``key`` and ``of``: the idempotency key, and the digest of the request that used it;
- ``again``: the idempotency key of the request that asked for another reply, and its digest;
- ``branch``: the copy of the conversation as it was before the question was edited;
- ``spent``: the usage of the replies that were removed when the question was stored.

``extra`` of a reply has its ``model``, ``stop_reason``, ``latency_ms`` and ``usage``, and in
``spent`` the usage of all replies up to this one.

The names are short so that a message of a thousand characters and its metadata fit one write unit
of DynamoDB.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from chatledger.chat.process import is_known_to_have_ended, label_process
from chatledger.chat.protocol import (
    CallerLeft,
    ChatOptions,
    Reply,
    RequestKey,
    Started,
    TurnRequest,
    TurnSteps,
)
from chatledger.conversations import RESERVED_PREFIX, Conversation, Page, Tail
from chatledger.entries import Entry
from chatledger.errors import ChatledgerError, Conflict, KeyReused, NotFound
from chatledger.messages import Message, StoredMessage
from chatledger.models.protocol import Finished, Usage
from chatledger.sansio import Steps
from chatledger.stores.contract import AnyStore
from chatledger.stores.idempotency import fingerprint
from chatledger.values import Json, dumps, new_id

STOPS = f"{RESERVED_PREFIX}stops"
"""The entry of a conversation that remembers the calls to stop a turn that had a key."""
MAX_STOPS = 100
"""The most calls that it remembers."""
STOPS_EXPIRE_IN = timedelta(days=1)
_OF_LEASE = ("until", "by", "ended")
"""The keys of a question that say whether its turn has a lease."""

MessageT = TypeVar("MessageT", bound=Message)


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
    branch_id: str | None = None
    """The copy of the conversation as it was before the question was edited."""
    regeneration_key: RequestKey | None = None
    """The key of the request for another reply to the stored question."""


class LastTurn(NamedTuple):
    """The last turn of a conversation, as it is stored."""

    question: StoredMessage
    reply_id: str
    reply: StoredMessage | None
    """None if there is no reply, or none yet."""
    is_running: bool
    """True if some process is writing the reply now.

    If another process has stopped it, the reply so far is still to be stored.
    """


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

    @property
    def started(self) -> Started:
        """The event that says that the turn has its lease."""
        metadata = _metadata(self.question)
        return Started(
            self.conversation_id, metadata.get("reply"), self.question_seq, metadata.get("branch")
        )

    def acquire(self, start: TurnStart) -> TurnSteps[None]:
        """Store the question with a lease, or add the lease to the question already stored.

        A single write stores the lease and removes the messages that the turn replaces.

        Raises ``Conflict`` or ``NotFound`` if the conversation has changed since it was read.
        """
        self.conversation_id, self._total_usage = start.conversation.id, start.total_usage
        revision = start.conversation.revision
        *earlier, question = start.messages
        if start.question_seq is not None and start.truncate_after is None:
            self.question = with_lease(question, self._new_lease_end())
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
        key = self._request.key if start.question_seq is None else None
        self.question = with_lease(
            question,
            self._new_lease_end(),
            key=key,
            removed_usage=removed_usage,
            branch_id=start.branch_id,
            regeneration_key=start.regeneration_key,
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
        """Extend the lease; return False if the turn was stopped or its question removed."""
        until = self._new_lease_end()
        try:
            change = partial(with_lease_until, until=until)
            return (yield from self._update_question(change, only_if=is_running))
        except _QuestionRemoved:
            return False

    def abandon(self) -> TurnSteps[None]:
        """End the lease if there is one, after an ``acquire`` whose outcome is unknown."""
        for message in (yield from self._last_messages()) if self.conversation_id else []:
            if message.seq and message.id == self.question.id:
                self.question_seq = message.seq
                yield from self.release("stopped")

    def release(self, outcome: str) -> TurnSteps[None]:
        """End the lease of a turn that has no reply; ``outcome`` says why it has none."""
        try:
            yield from self._update_question(
                partial(with_outcome, outcome=outcome), only_if=is_open
            )
        except (ChatledgerError, _QuestionRemoved):
            return  # the lease ends by itself

    def put_back(self, replaced: Sequence[Message]) -> TurnSteps[None]:
        """End the lease of a turn that has no reply, and store the messages that it had replaced.

        They are the question and those that followed it. If others have changed the conversation
        meanwhile, they are not stored.
        """
        try:
            yield partial(
                self._store.append,
                self.conversation_id,
                [*replaced],
                revision=self._revision,
                truncate_after=self.question_seq - 1,
            )
        except Conflict:
            yield from self.release("failed")
        except ChatledgerError:
            return  # the lease ends by itself

    def save_reply(self, reply: Reply) -> TurnSteps[bool]:
        """Store the reply, which also ends the lease.

        Return False without storing it if the question was removed or now belongs to another turn.
        """
        while True:
            message = reply_message(
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
                if current is None or not is_same_turn(self.question, current):
                    return False
                self._revision = conflict.revision
                messages = yield from self._last_messages()
                if reply_to(self.question, messages) is not None:
                    return True
                self._total_usage = total_usage(messages) or self._total_usage
            else:
                return True

    def _update_question(
        self, change: Callable[[Message], Message], *, only_if: Callable[[Message, Message], bool]
    ) -> TurnSteps[bool]:
        """Store the changed question.

        Return False if others have changed it and ``only_if`` does not hold for it and for the
        question as it is stored now. Raises ``_QuestionRemoved``.
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
                if not only_if(self.question, current):
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
        # By the clocks of all others, the lease lasts for its whole duration or longer.
        duration = self._options.lease + self._store.clock_difference
        return self._options.clock() + round(duration.total_seconds() * 1000)


def stop_turn(
    store: AnyStore,
    options: ChatOptions,
    conversation_id: str,
    owner: str | None,
    here: Mapping[str, Callable[[], None]],
    *,
    idempotency_key: str | None,
) -> Steps[bool]:
    """Stop the turn that runs in the conversation; return whether there was one.

    ``here`` has the functions that stop the turns that this process runs in it, by the ids of their
    replies. A turn of another process loses its lease, and ends at its next renewal, which is at
    most half of the lease's duration away. A call whose key was used before stops only the turns
    that the first call with it was to stop.
    """
    first: Sequence[str] | None = None
    while True:
        tail: Tail = yield partial(store.tail, conversation_id, options.read_limit, owner=owner)
        n = last_question_index(tail.messages)
        if n is None or lease_end(tail.messages) <= options.clock():
            # A turn of this process may still run: its lease may have ended, or be too far back.
            question, running = None, list(here)
        else:
            question = tail.messages[n]
            running = [_metadata(question)["reply"]]
        if first is None:
            first = running
            if idempotency_key is not None:
                first = yield from _first_to_stop(
                    store, conversation_id, owner, idempotency_key, running
                )
        to_stop = [reply for reply in running if reply in first]
        if question is None or not to_stop or to_stop[0] in here:
            for reply in to_stop:
                here[reply]()
            return bool(first)
        try:
            yield partial(
                store.replace,
                conversation_id,
                question.seq,
                with_stop(question),
                revision=tail.conversation.revision,
                owner=owner,
            )
        except Conflict:
            continue
        return True


def _first_to_stop(
    store: AnyStore,
    conversation_id: str,
    owner: str | None,
    idempotency_key: str,
    running: Sequence[str],
) -> Steps[Sequence[str]]:
    """Return the replies that the first call with the key was to stop; this is it if none was.

    They are remembered in an entry of the conversation. A copy of the conversation gets a copy of
    the entry, but its own calls have other fingerprints.
    """
    call = fingerprint(conversation_id, idempotency_key)
    while True:
        calls: list[Any] = []
        revision = 0
        with suppress(NotFound):
            entry: Entry = yield partial(store.entry, conversation_id, STOPS, owner=owner)
            calls, revision = cast(list[Any], entry.value), entry.revision
        for earlier, replies in calls:
            if earlier == call:
                return cast(Sequence[str], replies)
        with suppress(Conflict):
            yield partial(
                store.put_entry,
                conversation_id,
                STOPS,
                [*calls, [call, running]][-MAX_STOPS:],
                revision=revision,
                expires_in=STOPS_EXPIRE_IN,
                owner=owner,
            )
            return running


def fork_without_turn(
    store: AnyStore,
    options: ChatOptions,
    conversation_id: str,
    *,
    at: int | None,
    owner: str | None,
    idempotency_key: str | None,
) -> Steps[Conversation]:
    """Copy the conversation as ``Store.fork`` does, but not the lease of a turn that runs in it.

    The store copies the lease with the question, but only the original gets the reply.
    """
    copy: Conversation = yield partial(
        store.fork, conversation_id, at=at, owner=owner, idempotency_key=idempotency_key
    )
    while True:
        try:
            tail: Tail = yield partial(store.tail, copy.id, options.read_limit, owner=owner)
            turn = last_turn(tail.messages, options)
            if turn is None or not turn.is_running:
                return copy
            question = turn.question
            original: Tail = yield partial(
                store.tail, conversation_id, options.read_limit, owner=owner
            )
            if not any(is_same_turn(question, message) for message in original.messages):
                return copy  # made by an earlier call with the key; its turn is its own
            changed: Conversation = yield partial(
                store.replace,
                copy.id,
                question.seq,
                with_outcome(question, "stopped"),
                revision=tail.conversation.revision,
                owner=owner,
            )
            return changed
        except Conflict:
            continue
        except NotFound:
            return copy  # the original or the copy has been deleted meanwhile


# Metadata of messages -----------------------------------------------------------------------------


def request_digest(messages: Sequence[Message], *more: str | None) -> str:
    """Return the digest of a request, which reveals that a key is reused for another request."""
    return hashlib.sha256(dumps([*_contents(messages), *more]).encode()).hexdigest()[:24]


def with_lease(
    question: Message,
    until: int,
    *,
    key: RequestKey | None = None,
    removed_usage: Usage | None = None,
    branch_id: str | None = None,
    regeneration_key: RequestKey | None = None,
) -> Message:
    """Return ``question`` as the question of a new turn, with a lease that ends at ``until``.

    ``until`` is in ms since 1970. ``removed_usage`` is the usage of the replies that are removed
    when the question is stored. The other fields are those of ``TurnStart``.
    """
    more: dict[str, Json] = {} if key is None else {"key": key.text, "of": key.digest}
    if branch_id is not None:
        more["branch"] = branch_id
    if regeneration_key is not None:
        more["again"] = list(regeneration_key)
    if removed_usage is not None:
        more["spent"] = removed_usage.counts
    reply = new_id()
    if (process := label_process(reply)) is not None:
        more["by"] = process
    removed = ("again", *_OF_LEASE)
    return _with_metadata(question, removed, until=until, reply=reply, **more)


def with_lease_until(question: Message, until: int) -> Message:
    """Return ``question`` with its turn's lease extended to ``until``, in ms since 1970."""
    return _with_metadata(question, until=until)


def with_outcome(question: Message, outcome: str) -> Message:
    """Return ``question`` as the question of a turn that ended without a reply."""
    return _with_metadata(question, _OF_LEASE, ended=outcome)


def with_stop(question: Message) -> Message:
    """Return ``question`` as the question of a turn that another process has stopped."""
    return _with_metadata(question, ended="stopped")


def is_running(question: Message, current: Message) -> bool:
    """Return whether the turn of ``question``, now stored as ``current``, is still running."""
    return "ended" not in _metadata(current) and is_same_turn(question, current)


def is_open(question: Message, current: Message) -> bool:
    """Return whether the turn of ``question``, stored as ``current``, may still store a reply."""
    return "until" in _metadata(current) and is_same_turn(question, current)


def is_same_turn(question: Message, other: Message) -> bool:
    """Return whether both belong to the same turn; asking a question again starts a new turn."""
    return _metadata(question).get("reply") == _metadata(other).get("reply")


def without_metadata(message: Message) -> Message:
    """Return ``message`` without the metadata of its turn.

    A message that was read from a store and is sent again starts a new turn.
    """
    if not _metadata(message):
        return message
    extra = {name: value for name, value in message.extra.items() if name != "turn"}
    return replace(message, extra=extra)


def _with_metadata(question: Message, removed: Collection[str] = (), **changes: Json) -> Message:
    unchanged = {name: value for name, value in _metadata(question).items() if name not in removed}
    return replace(question, extra={**question.extra, "turn": {**unchanged, **changes}})


def _metadata(message: Message) -> dict[str, Any]:
    # Applications and other frameworks may store a "turn" of their own.
    metadata = message.extra.get("turn")
    if isinstance(metadata, dict) and isinstance(metadata.get("reply"), str):
        return metadata
    return {}


def reply_message(
    question: Message, text: str, finished: Finished, *, model: str, earlier_usage: Usage | None
) -> Message:
    """Return the reply to ``question`` as it is stored.

    ``earlier_usage`` is the usage of all replies before this one.
    """
    extra: dict[str, Json] = {"model": model, "stop_reason": finished.stop_reason}
    if finished.latency_ms is not None:
        extra["latency_ms"] = finished.latency_ms
    total = earlier_usage
    if finished.usage is not None:
        extra["usage"] = finished.usage.counts
        total = finished.usage if total is None else total + finished.usage
    if total is not None:
        extra["spent"] = total.counts
    id = _metadata(question)["reply"]
    return Message.assistant(text, id=id, tool_calls=finished.tool_calls, extra=extra)


def finished_event(reply: Message) -> Finished:
    """Return the ``Finished`` with which the stored reply ended."""
    latency = reply.extra.get("latency_ms")
    return Finished(
        str(reply.extra.get("stop_reason", "end_turn")),
        _usage(reply.extra.get("usage")),
        tuple(reply.tool_calls),
        latency if isinstance(latency, int) else None,
    )


def total_usage(messages: Sequence[Message]) -> Usage | None:
    """Return the usage of all replies so far, as stored in the last of ``messages`` to have it."""
    totals = (
        _usage(message.extra.get("spent") or _metadata(message).get("spent"))
        for message in reversed(messages)
    )
    return next(filter(None, totals), None)


def reply_to(question: Message, following: Sequence[MessageT]) -> MessageT | None:
    """Return the reply to ``question`` among the messages after it, or None."""
    id = _metadata(question).get("reply")
    return next((message for message in following if message.id == id), None)


def is_complete_reply(message: Message) -> bool:
    """Return whether the message is a reply, by any writer, that did not fail."""
    return message.role == "assistant" and message.extra.get("stop_reason") != "failed"


def last_question_index(messages: Sequence[Message]) -> int | None:
    """Return the index of the last message that is the question of a turn, or None."""
    return next((n for n in reversed(range(len(messages))) if _metadata(messages[n])), None)


def last_turn(messages: Sequence[StoredMessage], options: ChatOptions) -> LastTurn | None:
    """Return the last turn of the conversation that ends with ``messages``, or None."""
    n = last_question_index(messages)
    if n is None:
        return None
    question, following = messages[n], messages[n + 1 :]
    is_running = _end_of_writing(question, following) > options.clock()
    reply = reply_to(question, following)
    return LastTurn(question, _metadata(question)["reply"], reply, is_running)


def branch_of(message: Message) -> str | None:
    """Return the copy of the conversation as it was before the message was edited, or None."""
    return _metadata(message).get("branch")


def lease_end(messages: Sequence[Message]) -> int:
    """Return the end of the lease on the conversation that ends with ``messages``.

    It is in ms since 1970, and 0 if no turn has a lease.
    """
    n = last_question_index(messages)
    return 0 if n is None else lease_end_of(messages[n], messages[n + 1 :])


def lease_end_of(question: Message, following: Sequence[Message]) -> int:
    """Return the end of the lease that the turn of ``question`` has, or 0 if it has none.

    The turn of a process that is known to have ended has none.
    """
    return 0 if "ended" in _metadata(question) else _end_of_writing(question, following)


def _end_of_writing(question: Message, following: Sequence[Message]) -> int:
    """Return the time until which some process may store the reply to ``question``, or 0."""
    if reply_to(question, following) is not None:
        return 0
    metadata = _metadata(question)
    process = metadata.get("by")
    if isinstance(process, str) and is_known_to_have_ended(process, metadata["reply"]):
        return 0
    return cast(int, metadata.get("until", 0))


def question_index_with_key(key: RequestKey, messages: Sequence[Message]) -> int | None:
    """Return the index of the last question that was stored with ``key``, or None."""
    numbers = reversed(range(len(messages)))
    return next((n for n in numbers if _metadata(messages[n]).get("key") == key.text), None)


def stored_digest(question: Message) -> str | None:
    """Return the digest of the request that was made with the question's key."""
    return _metadata(question).get("of")


def regeneration_key_of(question: Message) -> RequestKey | None:
    """Return the key of the request for the present reply, if that replaced an earlier one."""
    key = _metadata(question).get("again")
    return None if key is None else RequestKey(*key)


def without_failed_reply(messages: Sequence[StoredMessage]) -> Sequence[StoredMessage]:
    """Return ``messages`` without the last one if it is the failed reply to the one before it."""
    match messages:
        case [*_, question, reply] if not is_complete_reply(reply) and reply_to(question, [reply]):
            return messages[:-1]
    return messages


def is_repetition(messages: Sequence[Message], last: Sequence[Message]) -> bool:
    """Return whether ``messages`` repeat ``last``, the messages that a turn answered."""
    return bool(_metadata(last[-1])) and _contents(messages) == _contents(last)


def _contents(messages: Sequence[Message]) -> list[object]:
    return [[message.role, message.content, message.tool_call_id] for message in messages]


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = {name: value.get(name, 0) for name in Usage.__dataclass_fields__}
    return Usage(**counts) if all(isinstance(count, int) for count in counts.values()) else None
