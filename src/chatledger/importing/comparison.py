"""Import of conversations from elsewhere: compare what the store has, append the rest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from chatledger.conversations import Conversation
from chatledger.errors import NotFound, StoreMismatch
from chatledger.messages import Message, encode
from chatledger.stores.contract import Store

IsSame: TypeAlias = Callable[[Message, Message], bool]
"""Returns whether the first message, from the store, is a copy of the second, from the source."""

PAGE_MESSAGES = 100
WRITE_MESSAGES = 1_000
WRITE_CHARACTERS = 4 * 1024 * 1024


class Comparison(NamedTuple):
    """Result of comparing a conversation with the one in the store."""

    messages: list[Message]
    """All messages of the source, with the seqs that they have or will have in the store."""
    through: int
    """The seq after which messages are missing in the store."""
    revision: int | None
    """The revision in the store, higher than ``through`` if the conversation was continued there;
    None if the store does not have the conversation."""

    @property
    def missing(self) -> list[Message]:
        """The messages that the store does not have: the last ones."""
        return [message for message in self.messages if message.seq > self.through]


def compare(
    store: Store, conversation: Conversation, messages: Sequence[Message], is_same: IsSame
) -> Comparison:
    """Compare a conversation of the source with the one of the same id in the store.

    Raises:
        StoreMismatch: The store's conversation has another owner or other messages.
    """
    try:
        stored = store.get(conversation.id)
    except NotFound:
        return Comparison(_with_seqs(messages, 1), 0, None)
    if stored.owner != conversation.owner:
        raise StoreMismatch("The store has a conversation with this id and another owner.")
    page = store.page(stored.id, limit=PAGE_MESSAGES).messages
    # A conversation that was created without messages has used up seq 1.
    first_seq = 1 if page and page[0].seq == 1 else 2
    expected = _with_seqs(messages, first_seq)
    compared = 0
    while True:
        for theirs, ours in zip(page, expected[compared : compared + len(page)], strict=False):
            if theirs.seq != ours.seq or not is_same(theirs, ours):
                raise _other_messages_error(compared)
            compared += 1
        through = first_seq - 1 + compared
        if compared == len(expected) or through >= stored.revision:
            return Comparison(expected, through, stored.revision)
        page = store.page(stored.id, after=through, limit=PAGE_MESSAGES).messages
        if not page:
            raise _other_messages_error(compared)


def import_missing(
    store: Store, conversation: Conversation, comparison: Comparison
) -> Iterator[int]:
    """Append the missing messages to the store; after each write, yield how many it wrote."""
    if comparison.revision is None and not comparison.messages:
        store.restore(replace(conversation, revision=1), (), revision=0)
    after = comparison.through
    missing = comparison.missing
    while missing:
        batch: list[Message] = []
        characters = 0
        for message in missing[:WRITE_MESSAGES]:
            characters += len(encode(message))
            if batch and characters > WRITE_CHARACTERS:
                break
            batch.append(message)
        end = after + len(batch)
        store.restore(replace(conversation, revision=end), batch, revision=after)
        yield len(batch)
        missing, after = missing[len(batch) :], end


def canonical_text(message: Message, *, with_id: bool = True) -> str:
    """Return a text that is equal for messages with equal content, whatever their times.

    The order of names in dicts does not count, because DynamoDB does not keep it. Unlike ``==``,
    the text tells 1 from 1.0.
    """
    id = message.id if with_id else None
    return repr(_sorted_names([id, message.role, message.content, message.extra]))


def _sorted_names(value: Any) -> Any:
    match value:
        case dict():
            return sorted((name, _sorted_names(each)) for name, each in value.items())
        case list():
            return [_sorted_names(each) for each in value]
    return value


def _with_seqs(messages: Sequence[Message], first_seq: int) -> list[Message]:
    return [message.with_seq(seq) for seq, message in enumerate(messages, first_seq)]


def _other_messages_error(compared: int) -> StoreMismatch:
    return StoreMismatch(
        f"The store has another conversation with this id: it differs after message {compared}."
    )
