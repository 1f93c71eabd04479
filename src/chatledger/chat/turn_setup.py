"""How a turn begins: what it asks, in view of what, and where that goes."""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from chatledger.chat import turn_metadata
from chatledger.chat.effects import Effect
from chatledger.chat.options import Asked, Terms
from chatledger.conversations import Conversation, Tail, encode_batch
from chatledger.errors import AlreadyExists, InvalidArgument, KeyReused, NotFound, TurnInProgress
from chatledger.messages import Message
from chatledger.models.protocol import Usage
from chatledger.stores.contract import AsyncStore, Store

T = TypeVar("T")
Steps: TypeAlias = Generator[Effect, Any, T]
AnyStore: TypeAlias = Store | AsyncStore

TITLE_LENGTH = 60


class Beginning(NamedTuple):
    """What a turn is to ask in the conversation, as that stood when it was read."""

    conversation: Conversation
    earlier: list[Message]
    """What was said before, as far as it was read."""
    question: list[Message]
    """The last of them is the one that is marked as the turn's."""
    at: int | None = None
    """The seq of the question, where it is there already."""
    truncate_after: int | None = None
    spent: Usage | None = None
    """What all replies took so far."""


class Replay(NamedTuple):
    """The turn has been made before, and this is its reply."""

    conversation_id: str
    reply: Message


Begin: TypeAlias = Callable[[], Steps[Beginning | Replay]]


def sending(store: AnyStore, terms: Terms, asked: Asked, key: turn_metadata.Key | None) -> Begin:
    """New messages behind the last one; or the last one again, if it is the same and unanswered."""

    def begin() -> Steps[Beginning | Replay]:
        tail = yield from _opened(store, terms, asked)
        conversation, messages = tail.conversation, tail.messages
        spent = turn_metadata.spent(messages)
        if key is not None and (n := turn_metadata.asked_with(key, messages)) is not None:
            before, question, behind = messages[:n], messages[n], messages[n + 1 :]
            found = asked_before(terms, conversation.id, key, question, behind)
            if found is not None:
                return found
            if n != turn_metadata.last_asked(messages) or any(
                map(turn_metadata.is_whole_reply, behind)
            ):
                raise gone_on()
            return Beginning(conversation, before, [question], at=question.seq, spent=spent)
        check_free(terms, tail)
        before, last = messages[: -len(asked.messages)], messages[-len(asked.messages) :]
        if key is None and last and turn_metadata.are_repeated(asked.messages, last):
            return Beginning(conversation, before, last, at=last[-1].seq, spent=spent)
        return Beginning(conversation, messages, asked.messages, spent=spent)

    return begin


def editing(
    store: AnyStore,
    terms: Terms,
    conversation_id: str,
    seq: int,
    message: Message,
    owner: str | None,
) -> Begin:
    """``message`` in the place of the user's at ``seq``, and of all behind it."""

    def begin() -> Steps[Beginning | Replay]:
        tail: Tail = yield lambda: store.tail(conversation_id, terms.reads, owner=owner)
        check_free(terms, tail)
        page = yield lambda: store.page(
            conversation_id, before=seq + 1, limit=terms.reads + 1, owner=owner
        )
        if not page.messages or page.messages[0].seq != seq:
            raise NotFound(conversation_id, seq=seq)
        if page.messages[0].role != "user":
            raise InvalidArgument(f"Message {seq} is not the user's; only the user's are edited.")
        earlier = page.messages[:0:-1]
        return Beginning(
            tail.conversation,
            earlier,
            [message],
            truncate_after=seq - 1,
            spent=turn_metadata.spent(tail.messages),
        )

    return begin


def regenerating(store: AnyStore, terms: Terms, conversation_id: str, owner: str | None) -> Begin:
    """The last message that was not the model's, in its place and that of the replies to it."""

    def begin() -> Steps[Beginning | Replay]:
        tail: Tail = yield lambda: store.tail(conversation_id, terms.reads, owner=owner)
        check_free(terms, tail)
        messages = tail.messages
        while messages and messages[-1].role not in ("user", "tool"):
            messages = messages[:-1]
        if not messages:
            raise InvalidArgument("There is no message to reply to; send one.")
        *earlier, question = messages
        assert question.seq is not None
        return Beginning(
            tail.conversation,
            earlier,
            [question],
            truncate_after=question.seq - 1,
            spent=turn_metadata.spent(tail.messages),
        )

    return begin


def check_free(terms: Terms, tail: Tail) -> None:
    """Raise ``TurnInProgress`` where another turn holds the conversation."""
    _check_over(terms, tail.conversation.id, turn_metadata.held_until(tail.messages))


def asked_before(
    terms: Terms,
    conversation_id: str,
    key: turn_metadata.Key,
    question: Message,
    behind: list[Message],
) -> Replay | None:
    """The reply to ``question``, which was asked with ``key``; None where it is to be tried again.

    Raises ``KeyReused`` and ``TurnInProgress``.
    """
    if turn_metadata.digest_of(question) != key.digest:
        raise KeyReused(
            "The idempotency key was used for another message; use a new key for each message."
        )
    _check_over(terms, conversation_id, turn_metadata.holds_until(question, behind))
    reply = turn_metadata.reply_to(question, behind)
    if reply is None or reply.extra.get("stop_reason") == "failed":
        return None
    return Replay(conversation_id, reply)


def gone_on() -> KeyReused:
    """Why a question that had no reply is not tried again: its place is no longer at the end."""
    return KeyReused(
        "The message with this idempotency key had no reply, and the conversation has gone on; "
        "send it with a new key."
    )


def seen(store: AnyStore, terms: Terms, asked: Asked) -> Steps[Tail | None]:
    """The conversation's last messages, or None where the owner could start it."""
    conversation_id, owner = asked.conversation_id, asked.owner
    if conversation_id is None:
        return None
    try:
        tail: Tail = yield lambda: store.tail(conversation_id, terms.reads, owner=owner)
    except NotFound:
        if owner is None:
            raise
        try:
            yield lambda: store.get(conversation_id)
        except NotFound:
            return None
        raise
    return tail


def _check_over(terms: Terms, conversation_id: str, until: int) -> None:
    left = until - terms.clock()
    if left > 0:
        # Of a clock that is ahead, or a lease that was longer, no more than our own.
        seconds = min(left / 1000, terms.lease.total_seconds())
        raise TurnInProgress(conversation_id, retry_after=seconds)


def _opened(store: AnyStore, terms: Terms, asked: Asked) -> Steps[Tail]:
    """The conversation, started where there is none, and what was said in it before."""
    conversation_id, owner = asked.conversation_id, asked.owner
    title = asked.title or _title(asked.messages[-1].text)
    if conversation_id is not None:
        try:
            tail: Tail = yield lambda: store.tail(conversation_id, terms.reads, owner=owner)
        except NotFound:
            if owner is None:
                raise
        else:
            conversation = tail.conversation
            if title and conversation.title is None and not conversation.message_count:
                yield lambda: store.update(conversation.id, title=title, owner=owner)
            return tail
    # What would be refused starts nothing.
    terms.seen_by_model([], asked.messages)
    encode_batch(asked.messages)
    try:
        started = yield lambda: store.create(conversation_id, owner=owner, title=title)
    except AlreadyExists:
        assert conversation_id is not None
        # Somebody else's, which raises NotFound here, or started by a rival just now.
        tail = yield lambda: store.tail(conversation_id, terms.reads, owner=owner)
        return tail
    return Tail(started, [])


def _title(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0] + "…"
