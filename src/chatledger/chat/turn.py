"""A turn: the messages it answers, the order of its steps, and the outcome it stores.

Async and sync callers share this code: a turn yields the effects of ``chatledger.chat.protocol``,
and a runner performs them.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from chatledger.chat.lease import (
    TurnLease,
    TurnStart,
    finished_event,
    is_complete_reply,
    is_repetition,
    is_same_turn,
    last_question_index,
    lease_end,
    lease_end_of,
    question_index_with_key,
    regeneration_key_of,
    reply_to,
    stored_digest,
    total_usage,
    without_failed_reply,
)
from chatledger.chat.protocol import (
    QUESTION_ROLES,
    STOPPED,
    CallerLeft,
    CallModel,
    ChatOptions,
    NextPiece,
    Reply,
    RequestKey,
    Started,
    StopModel,
    Turn,
    TurnRequest,
    TurnSteps,
    checked_window,
)
from chatledger.conversations import Conversation, Page, Tail
from chatledger.errors import (
    AlreadyExists,
    ChatledgerError,
    Conflict,
    InvalidArgument,
    KeyReused,
    ModelTimeout,
    NotFound,
    ReplyNotStored,
    TurnInProgress,
)
from chatledger.messages import Message, StoredMessage
from chatledger.models.protocol import Finished
from chatledger.sansio import Steps
from chatledger.stores.arguments import encode_batch
from chatledger.stores.contract import AnyStore
from chatledger.windows import valid_for_models

logger = logging.getLogger("chatledger.chat")

MAX_ATTEMPTS = 20
"""The number of attempts to store the question before a turn gives up to its rivals."""
MAX_REPLY_DISTANCE = 200
"""The number of messages that are searched for the reply if an idempotency key is used again."""
TITLE_LENGTH = 60
RENEWAL_INTERVAL = 0.5
"""The part of a lease's duration after which it is renewed; most replies are complete by then."""
RETRY_INTERVAL = 0.25
"""The part of it after which a renewal that failed is tried again; the lease has not ended then."""
MAX_RETRY_AFTER = 2.0
"""The most seconds after which to try again while another turn runs; it may end at any moment."""


class Replay(NamedTuple):
    """The stored reply of an earlier turn with the same idempotency key."""

    conversation_id: str
    seq: int | None
    """The seq of the message that it answers."""
    reply: Message


class SavedTurn(ABC):
    """One turn that is stored; its subclasses decide what it answers."""

    def __init__(self, store: AnyStore, options: ChatOptions, request: TurnRequest) -> None:
        self._store = store
        self._options = options
        self._request = request
        self._lease = TurnLease(store, options, request)

    def steps(self) -> Turn:
        """Yield the effects of the turn."""
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
            yield self._lease.started
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
            if isinstance(error, InvalidArgument):
                yield from self._end_without_reply("failed")
                if failure is None:
                    raise ReplyNotStored(self._lease.conversation_id) from error
            if failure is None:
                raise
            # Log the type alone: the error's text may quote a message.
            logger.error(
                "A turn was cut short, and its end could not be stored: %s", type(error).__name__
            )
        if failure is not None:
            raise failure
        yield finished

    @abstractmethod
    def _set_up(self) -> TurnSteps[TurnStart | Replay]:
        """Read the conversation and decide what the turn answers and stores."""

    @property
    def _is_question_stored_first(self) -> bool:
        """True if the question is stored before the model is called, not at the same time.

        Hooks run in between and may take long, and with a key the turn must first know that the key
        is new.
        """
        return bool(self._options.hooks) or self._request.key is not None

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
                key = self._request.key
                if key is None or start.question_seq is not None:
                    return start
                return (yield from self._start_or_replay(key, start))
            except (Conflict, NotFound) as error:
                lost_race = error
                yield StopModel()
                if self._request.revision is not None:
                    break
        assert lost_race is not None
        raise lost_race

    def _start_or_replay(self, key: RequestKey, start: TurnStart) -> TurnSteps[TurnStart | Replay]:
        """Return ``start`` if this turn is the first with its key, else the earlier turn's reply.

        An append with a key that was used before stores nothing and reports the earlier seq.
        """
        messages = yield from self._messages_from_question(start)
        n = question_index_with_key(key, messages)
        if n is None:
            raise KeyReused(
                "The message with this idempotency key has been removed; send it with a new key."
            )
        question, following = messages[n], messages[n + 1 :]
        if is_same_turn(question, self._lease.question):
            return start
        id, digest = self._lease.conversation_id, stored_digest(question)
        replay = self._earlier_reply(key, digest, id, question, following)
        if replay is None:
            raise _moved_on_error()
        return replay

    def _messages_from_question(self, start: TurnStart) -> TurnSteps[Sequence[Message]]:
        """Return the question with the key and the messages after it, whichever turn stored it."""
        conversation_id, seq = self._lease.conversation_id, self._lease.question_seq
        owner = self._request.owner
        if seq > start.conversation.revision:  # just stored, so it is among the last messages
            tail: Tail = yield partial(self._store.tail, conversation_id, 4, owner=owner)
            if any(message.seq == seq for message in tail.messages):
                return tail.messages
        page: Page = yield partial(
            self._store.page, conversation_id, after=seq - 1, limit=MAX_REPLY_DISTANCE, owner=owner
        )
        return page.messages

    def _earlier_reply(
        self,
        key: RequestKey,
        digest: str | None,
        conversation_id: str,
        question: Message,
        following: Sequence[Message],
    ) -> Replay | None:
        """Return the reply to ``question``, or None if its turn must be tried again.

        Raises ``KeyReused`` if ``key`` was used for a different request than this one, which had
        ``digest``, and ``TurnInProgress`` if the turn of the question is still running.
        """
        if digest != key.digest:
            raise KeyReused(
                "The idempotency key was used for a different request; use a new key for each "
                "message."
            )
        self._check_lease_ended(conversation_id, lease_end_of(question, following))
        reply = reply_to(question, following)
        if reply is None or reply.extra.get("stop_reason") == "failed":
            return None
        return Replay(conversation_id, question.seq, reply)

    def _check_revision(self, conversation: Conversation) -> None:
        """Raise ``Conflict`` unless the conversation has the revision that the request names."""
        expected, revision = self._request.revision, conversation.revision
        if expected is not None and expected != revision:
            raise Conflict(conversation.id, expected=expected, revision=revision)

    def _check_no_turn_in_progress(self, tail: Tail) -> None:
        """Raise ``TurnInProgress`` if another turn has a lease on the conversation."""
        self._check_lease_ended(tail.conversation.id, lease_end(tail.messages))

    def _check_lease_ended(self, conversation_id: str, end: int) -> None:
        remaining_ms = end - self._options.clock()
        if remaining_ms > 0:
            seconds = min(remaining_ms / 1000, MAX_RETRY_AFTER)
            raise TurnInProgress(conversation_id, retry_after=seconds)

    def _call_model(self, start: TurnStart) -> TurnSteps[None]:
        window = self._options.window_for(start.earlier, start.messages)
        for hook in self._options.hooks:
            window = checked_window(valid_for_models((yield partial(hook.before_model, window))))
        yield CallModel(window, self._options.system_prompt_for(self._request.system_prompt))

    def _save_reply(self, reply: Reply) -> TurnSteps[None]:
        """Store the reply received so far, or only end the lease if there is none."""
        if not reply.text and reply.finished.stop_reason in ("stopped", "failed"):
            yield from self._end_without_reply(reply.finished.stop_reason)
            return
        if not (yield from self._lease.save_reply(reply)):
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

    def _end_without_reply(self, outcome: str) -> TurnSteps[None]:
        """End the turn, which has no reply; ``outcome`` says why."""
        yield from self._lease.release(outcome)


class SendTurn(SavedTurn):
    """A turn that appends the messages of its request.

    If the conversation already ends with the same messages, without a reply or with a failed one,
    the turn answers those instead of storing them twice, and replaces the failed reply.
    """

    def _set_up(self) -> TurnSteps[TurnStart | Replay]:
        tail = yield from self._read_or_create()
        conversation, messages = tail.conversation, tail.messages
        key = self._request.key
        if key is not None:
            n = question_index_with_key(key, messages)
            if n is not None:
                question, following = messages[n], messages[n + 1 :]
                digest = stored_digest(question)
                replay = self._earlier_reply(key, digest, conversation.id, question, following)
                if replay is not None:
                    return replay
                if n != last_question_index(messages) or any(map(is_complete_reply, following)):
                    raise _moved_on_error()
                return _answer_again(tail, n, n + 1)
        self._check_no_turn_in_progress(tail)
        sent = self._request.messages
        if key is None:
            asked = without_failed_reply(messages)
            first = max(len(asked) - len(sent), 0)
            if asked[first:] and is_repetition(sent, asked[first:]):
                return _answer_again(tail, first, len(asked))
        return TurnStart(conversation, messages, sent, total_usage=total_usage(messages))

    def _read_or_create(self) -> TurnSteps[Tail]:
        """Return the conversation and its last messages; create it if it does not exist."""
        store, messages = self._store, self._request.messages
        conversation_id, owner = self._request.conversation_id, self._request.owner
        title = self._request.title or _title_from(messages[-1].text)
        if conversation_id is not None:
            try:
                tail = yield from _read_tail(store, self._options, self._request)
            except NotFound:
                if owner is None or self._request.must_exist:
                    raise
            else:
                conversation = tail.conversation
                if title and conversation.title is None and not conversation.message_count:
                    yield partial(store.update, conversation.id, title=title, owner=owner)
                return tail
        # Check the messages first: a request that is rejected must not create a conversation.
        self._options.window_for([], messages)
        encode_batch(messages)
        try:
            created = yield partial(store.create, conversation_id, owner=owner, title=title)
        except AlreadyExists:
            assert conversation_id is not None
            # A rival has just created it, or it belongs to another owner: then this raises
            # NotFound.
            return (yield from _read_tail(store, self._options, self._request))
        return Tail(created, [])


class RegenerateTurn(SavedTurn):
    """A turn that replaces the replies to the last user or tool message.

    The message is stored again, with the metadata of the new turn. If there is no new reply, the
    former messages are put back.
    """

    _replaced: Sequence[Message] = ()
    """The message and the replies to it, as they were before the turn."""

    def _set_up(self) -> TurnSteps[TurnStart | Replay]:
        tail = yield from _read_tail(self._store, self._options, self._request)
        messages, following = tail.messages, list[StoredMessage]()
        while messages and messages[-1].role not in QUESTION_ROLES:
            *messages, last = messages
            following.insert(0, last)
        if not messages:
            raise InvalidArgument("There is no message to reply to; send one.")
        *earlier, question = messages
        key, earlier_key = self._request.key, regeneration_key_of(question)
        if key is not None and earlier_key is not None and key.text == earlier_key.text:
            id, digest = tail.conversation.id, earlier_key.digest
            replay = self._earlier_reply(key, digest, id, question, following)
            if replay is not None:
                return replay
        else:
            self._check_revision(tail.conversation)
        self._check_no_turn_in_progress(tail)
        self._replaced = [question, *following]
        return TurnStart(
            tail.conversation,
            earlier,
            [question],
            question_seq=question.seq,
            truncate_after=question.seq - 1,
            total_usage=total_usage(tail.messages),
            regeneration_key=key,
        )

    def _end_without_reply(self, outcome: str) -> TurnSteps[None]:
        if len(self._replaced) > 1:
            yield from self._lease.put_back(self._replaced)
        else:
            yield from super()._end_without_reply(outcome)


class EditTurn(SavedTurn):
    """A turn that replaces the user's message at ``seq``, and all after it, with its request's.

    With ``keep_branch``, it first copies the conversation as it is.
    """

    def __init__(
        self,
        store: AnyStore,
        options: ChatOptions,
        request: TurnRequest,
        seq: int,
        *,
        keep_branch: bool,
    ) -> None:
        super().__init__(store, options, request)
        self._seq = seq
        self._keep_branch = keep_branch

    def _set_up(self) -> TurnSteps[TurnStart]:
        tail = yield from _read_tail(self._store, self._options, self._request)
        self._check_revision(tail.conversation)
        self._check_no_turn_in_progress(tail)
        id, seq, limit = tail.conversation.id, self._seq, self._options.read_limit + 1
        page: Page = yield partial(
            self._store.page, id, before=seq + 1, limit=limit, owner=self._request.owner
        )
        if not page.messages or page.messages[0].seq != seq:
            raise NotFound(id, seq=seq)
        if page.messages[0].role != "user":
            raise InvalidArgument(
                f"Message {seq} is not the user's; only the user's messages can be edited."
            )
        # Newest first: the message itself, then those before it.
        earlier = page.messages[:0:-1]
        # Check the message first: a request that is rejected must not create a copy.
        self._options.window_for(earlier, self._request.messages)
        encode_batch(self._request.messages)
        return TurnStart(
            tail.conversation,
            earlier,
            self._request.messages,
            truncate_after=seq - 1,
            total_usage=total_usage(tail.messages),
            branch_id=(yield from self._copy(tail.conversation)) if self._keep_branch else None,
        )

    def _copy(self, conversation: Conversation) -> TurnSteps[str]:
        """Copy the conversation at its present revision, and return the id of the copy."""
        # An edit that is tried again finds the copy of the first attempt.
        key = f"before edit of {self._seq} at revision {conversation.revision}"
        copy: Conversation = yield partial(
            self._store.fork, conversation.id, idempotency_key=key, owner=self._request.owner
        )
        return copy.id


def _answer_again(tail: Tail, first: int, end: int) -> TurnStart:
    """Return the start of a turn that answers the messages ``[first:end]`` of ``tail`` once more.

    They have no reply, or a failed one. If that is the only message after them, the write that
    starts the turn also removes it: it stores the messages again in place of both.
    """
    earlier, messages = tail.messages[:first], tail.messages[first:end]
    question, following = messages[-1], tail.messages[end:]
    has_only_its_reply = len(following) == 1 and reply_to(question, following) is not None
    return TurnStart(
        tail.conversation,
        earlier,
        messages,
        question_seq=question.seq,
        truncate_after=messages[0].seq - 1 if has_only_its_reply else None,
        total_usage=total_usage(tail.messages),
    )


def unsaved_turn(store: AnyStore, options: ChatOptions, request: TurnRequest) -> Turn:
    """Yield the effects of a turn that stores nothing; the model sees the named conversation."""
    deadlines = Deadlines(options)
    tail: Tail | None = None
    conversation_id, owner = request.conversation_id, request.owner
    if conversation_id is not None:
        try:
            tail = yield from _read_tail(store, options, request)
        except NotFound:
            if owner is None or request.must_exist or (yield from exists(store, conversation_id)):
                raise  # without an owner it must exist, and it must not belong to another one
    window = options.window_for(tail.messages if tail else [], request.messages)
    yield CallModel(window, options.system_prompt_for(request.system_prompt))
    yield Started(tail.conversation.id if tail else None)
    finished = yield from stream_reply([], deadlines, _renew_nothing)
    yield StopModel()
    yield finished


def _read_tail(store: AnyStore, options: ChatOptions, request: TurnRequest) -> TurnSteps[Tail]:
    """Return the conversation that the request names, and its last messages."""
    id = request.conversation_id
    assert id is not None
    tail: Tail = yield partial(store.tail, id, options.read_limit, owner=request.owner)
    return tail


def exists(store: AnyStore, conversation_id: str) -> Steps[bool]:
    """Return whether there is such a conversation, of any owner."""
    try:
        yield partial(store.get, conversation_id)
    except NotFound:
        return False
    return True


def _renew_nothing() -> TurnSteps[bool]:
    """Return True: a turn that is not stored has no lease to renew."""
    return True
    yield  # makes this function a generator


def _replay_events(replay: Replay) -> Turn:
    yield Started(replay.conversation_id, replay.reply.id, replay.seq)
    if replay.reply.text:
        yield replay.reply.text
    yield finished_event(replay.reply)


def _moved_on_error() -> KeyReused:
    """Return the error for a turn without a reply that can no longer be tried again.

    Its question is no longer at the end of the conversation.
    """
    return KeyReused(
        "The message with this idempotency key had no reply, and the conversation has moved on "
        "since; send the message with a new key."
    )


def _title_from(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0] + "…"


# Streaming the model's reply ----------------------------------------------------------------------


RenewLease: TypeAlias = Callable[[], TurnSteps[bool]]
"""Extends the turn's lease; returns False if the turn was stopped meanwhile.

Raises a ``ChatledgerError`` if the store fails.
"""


class Deadlines:
    """The time of the next renewal of a turn's lease, and the end of its time limit."""

    def __init__(self, options: ChatOptions) -> None:
        self._timer = options.timer
        self._lease_seconds = options.lease.total_seconds()
        limit = options.time_limit
        self.schedule_renewal(RENEWAL_INTERVAL)
        self._end = None if limit is None else self._timer() + limit.total_seconds()

    @property
    def seconds_left(self) -> float:
        """The seconds until the next renewal or the end of the time limit, whichever is earlier."""
        next = self._next_renewal if self._end is None else min(self._next_renewal, self._end)
        return next - self._timer()

    @property
    def is_over_time_limit(self) -> bool:
        return self._end is not None and self._timer() >= self._end

    def schedule_renewal(self, interval: float) -> None:
        """Set the next renewal to be due after ``interval``, a part of the lease's duration."""
        self._next_renewal = self._timer() + interval * self._lease_seconds


def stream_reply(
    pieces: list[str], deadlines: Deadlines, renew_lease: RenewLease
) -> TurnSteps[Finished]:
    """Yield the pieces of the reply, add them to ``pieces``, and return how the reply ended.

    Raises ``ModelTimeout`` if the time limit ends before the first piece.
    """
    while True:
        seconds = deadlines.seconds_left
        if seconds <= 0:
            if deadlines.is_over_time_limit:
                if pieces:
                    return Finished("timed_out")
                raise ModelTimeout(
                    "The model sent nothing within the turn's time limit; try again, or raise the "
                    "limit."
                )
            try:
                if not (yield from renew_lease()):
                    return Finished("stopped")
            except ChatledgerError:
                deadlines.schedule_renewal(RETRY_INTERVAL)
            else:
                deadlines.schedule_renewal(RENEWAL_INTERVAL)
            continue
        output = yield NextPiece(seconds)
        if output is STOPPED:
            return Finished("stopped")
        if isinstance(output, Finished):
            return output
        if output:
            pieces.append(output)
            yield output
