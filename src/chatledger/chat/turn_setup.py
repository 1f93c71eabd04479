"""The setup of a turn: it reads the conversation and decides what the turn answers and stores."""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from chatledger.chat import turn_metadata
from chatledger.chat.effects import Effect
from chatledger.chat.options import ChatOptions, TurnRequest
from chatledger.conversations import Conversation, Tail
from chatledger.errors import AlreadyExists, InvalidArgument, KeyReused, NotFound, TurnInProgress
from chatledger.messages import Message
from chatledger.models.protocol import Usage
from chatledger.stores.arguments import encode_batch
from chatledger.stores.contract import AsyncStore, Store

T = TypeVar("T")
TurnSteps: TypeAlias = Generator[Effect, Any, T]
"""A part of a turn: yields effects and returns a value."""
AnyStore: TypeAlias = Store | AsyncStore

TITLE_LENGTH = 60


class TurnStart(NamedTuple):
    """The messages that a turn answers, and the conversation as it was when it was read."""

    conversation: Conversation
    earlier: list[Message]
    """The messages before those to answer, as far as they were read."""
    messages: list[Message]
    """The messages to answer; the last of them is the turn's question."""
    question_seq: int | None = None
    """The seq of the question if it is already stored."""
    truncate_after: int | None = None
    """The seq after which all messages are removed when the question is stored."""
    total_usage: Usage | None = None
    """The usage of all replies of the conversation so far."""


class Replay(NamedTuple):
    """The stored reply of an earlier turn with the same idempotency key."""

    conversation_id: str
    reply: Message


TurnSetup: TypeAlias = Callable[[], TurnSteps[TurnStart | Replay]]


def send_setup(
    store: AnyStore,
    options: ChatOptions,
    request: TurnRequest,
    key: turn_metadata.RequestKey | None,
) -> TurnSetup:
    """Return the setup of a turn that appends the messages of ``request``.

    If the conversation already ends with the same messages, without a reply, the turn answers those
    instead of storing them twice.
    """

    def set_up() -> TurnSteps[TurnStart | Replay]:
        tail = yield from _read_or_create(store, options, request)
        conversation, messages = tail.conversation, tail.messages
        total_usage = turn_metadata.total_usage(messages)
        if key is not None:
            n = turn_metadata.question_index_with_key(key, messages)
            if n is not None:
                earlier, question, following = messages[:n], messages[n], messages[n + 1 :]
                replay = earlier_reply(options, conversation.id, key, question, following)
                if replay is not None:
                    return replay
                if n != turn_metadata.last_question_index(messages) or any(
                    map(turn_metadata.is_complete_reply, following)
                ):
                    raise moved_on_error()
                return TurnStart(
                    conversation,
                    earlier,
                    [question],
                    question_seq=question.seq,
                    total_usage=total_usage,
                )
        check_no_turn_in_progress(options, tail)
        count = len(request.messages)
        earlier, last = messages[:-count], messages[-count:]
        if key is None and last and turn_metadata.is_repetition(request.messages, last):
            return TurnStart(
                conversation, earlier, last, question_seq=last[-1].seq, total_usage=total_usage
            )
        return TurnStart(conversation, messages, request.messages, total_usage=total_usage)

    return set_up


def edit_setup(
    store: AnyStore,
    options: ChatOptions,
    conversation_id: str,
    seq: int,
    message: Message,
    owner: str | None,
) -> TurnSetup:
    """Return the setup of a turn that replaces the user's message at ``seq`` and all after it."""

    def set_up() -> TurnSteps[TurnStart | Replay]:
        tail: Tail = yield lambda: store.tail(conversation_id, options.read_limit, owner=owner)
        check_no_turn_in_progress(options, tail)
        page = yield lambda: store.page(
            conversation_id, before=seq + 1, limit=options.read_limit + 1, owner=owner
        )
        if not page.messages or page.messages[0].seq != seq:
            raise NotFound(conversation_id, seq=seq)
        if page.messages[0].role != "user":
            raise InvalidArgument(
                f"Message {seq} is not the user's; only the user's messages can be edited."
            )
        # Newest first: the message itself, then those before it.
        earlier = page.messages[:0:-1]
        return TurnStart(
            tail.conversation,
            earlier,
            [message],
            truncate_after=seq - 1,
            total_usage=turn_metadata.total_usage(tail.messages),
        )

    return set_up


def regenerate_setup(
    store: AnyStore, options: ChatOptions, conversation_id: str, owner: str | None
) -> TurnSetup:
    """Return the setup of a turn that replaces the replies to the last user or tool message.

    The message is stored again, with the metadata of the new turn.
    """

    def set_up() -> TurnSteps[TurnStart | Replay]:
        tail: Tail = yield lambda: store.tail(conversation_id, options.read_limit, owner=owner)
        check_no_turn_in_progress(options, tail)
        messages = tail.messages
        while messages and messages[-1].role not in ("user", "tool"):
            messages = messages[:-1]
        if not messages:
            raise InvalidArgument("There is no message to reply to; send one.")
        *earlier, question = messages
        assert question.seq is not None
        return TurnStart(
            tail.conversation,
            earlier,
            [question],
            truncate_after=question.seq - 1,
            total_usage=turn_metadata.total_usage(tail.messages),
        )

    return set_up


def check_no_turn_in_progress(options: ChatOptions, tail: Tail) -> None:
    """Raise ``TurnInProgress`` if another turn has a lease on the conversation."""
    _check_lease_ended(options, tail.conversation.id, turn_metadata.lease_end(tail.messages))


def earlier_reply(
    options: ChatOptions,
    conversation_id: str,
    key: turn_metadata.RequestKey,
    question: Message,
    following: list[Message],
) -> Replay | None:
    """Return the reply to ``question``, or None if its turn must be tried again.

    Raises ``KeyReused`` if ``key`` was used for a different request, and ``TurnInProgress`` if the
    turn of the question is still running.
    """
    if turn_metadata.stored_digest(question) != key.digest:
        raise KeyReused(
            "The idempotency key was used for a different request; use a new key for each message."
        )
    _check_lease_ended(options, conversation_id, turn_metadata.lease_end_of(question, following))
    reply = turn_metadata.reply_to(question, following)
    if reply is None or reply.extra.get("stop_reason") == "failed":
        return None
    return Replay(conversation_id, reply)


def moved_on_error() -> KeyReused:
    """Return the error for a turn without a reply that can no longer be tried again.

    Its question is no longer at the end of the conversation.
    """
    return KeyReused(
        "The message with this idempotency key had no reply, and the conversation has moved on "
        "since; send the message with a new key."
    )


def read_tail_if_any(
    store: AnyStore, options: ChatOptions, request: TurnRequest
) -> TurnSteps[Tail | None]:
    """Return the conversation and its last messages, or None if it does not exist yet.

    Raises ``NotFound`` if it belongs to another owner, or does not exist and no owner is given.
    """
    conversation_id, owner = request.conversation_id, request.owner
    if conversation_id is None:
        return None
    try:
        tail: Tail = yield lambda: store.tail(conversation_id, options.read_limit, owner=owner)
    except NotFound:
        if owner is None:
            raise
        try:
            yield lambda: store.get(conversation_id)
        except NotFound:
            return None
        raise  # it belongs to another owner
    return tail


def _check_lease_ended(options: ChatOptions, conversation_id: str, lease_end: int) -> None:
    remaining_ms = lease_end - options.clock()
    if remaining_ms > 0:
        # Cap the wait at our own lease: the other turn's clock may be ahead, or its lease longer.
        seconds = min(remaining_ms / 1000, options.lease.total_seconds())
        raise TurnInProgress(conversation_id, retry_after=seconds)


def _read_or_create(store: AnyStore, options: ChatOptions, request: TurnRequest) -> TurnSteps[Tail]:
    """Return the conversation and its last messages; create it if it does not exist."""
    conversation_id, owner = request.conversation_id, request.owner
    title = request.title or _title_from(request.messages[-1].text)
    if conversation_id is not None:
        try:
            tail: Tail = yield lambda: store.tail(conversation_id, options.read_limit, owner=owner)
        except NotFound:
            if owner is None:
                raise
        else:
            conversation = tail.conversation
            if title and conversation.title is None and not conversation.message_count:
                yield lambda: store.update(conversation.id, title=title, owner=owner)
            return tail
    # Check the messages first: a request that is rejected must not create a conversation.
    options.window_for([], request.messages)
    encode_batch(request.messages)
    try:
        created = yield lambda: store.create(conversation_id, owner=owner, title=title)
    except AlreadyExists:
        assert conversation_id is not None
        # A rival has just created it, or it belongs to another owner: then this raises NotFound.
        tail = yield lambda: store.tail(conversation_id, options.read_limit, owner=owner)
        return tail
    return Tail(created, [])


def _title_from(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0] + "…"
