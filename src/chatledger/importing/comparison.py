"""Conversations that come into a store from elsewhere: what is there is compared, the rest put."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from chatledger.conversations import Conversation
from chatledger.errors import NotFound, StoreMismatch
from chatledger.messages import Message, encode
from chatledger.stores.contract import Store

Same: TypeAlias = Callable[[Message, Message], bool]
"""Whether a message of the store, the first, is the one that would be brought."""

PAGE = 100
STRETCH_MESSAGES = 1_000
STRETCH_CHARACTERS = 4 * 1024 * 1024


class Standing(NamedTuple):
    """How far a conversation has arrived."""

    messages: list[Message]
    """All of it, with the seqs that they have in the store, or will have."""
    through: int
    """The seq behind which they are missing."""
    revision: int | None
    """Where it stands in the store, which is further if it went on there; None: it is not there."""

    @property
    def missing(self) -> int:
        """How many messages of it are not there; the last ones."""
        return 0 if not self.messages else max(_seq(self.messages[-1]) - self.through, 0)


def standing(
    store: Store, conversation: Conversation, messages: Sequence[Message], same: Same
) -> Standing:
    """What the store has of it. Raises ``StoreMismatch`` if that is another conversation."""
    try:
        there = store.get(conversation.id)
    except NotFound:
        return Standing(_placed(messages, 0), 0, None)
    if there.owner != conversation.owner:
        raise StoreMismatch("The store has a conversation of that id with another owner.")
    found = store.page(there.id, limit=PAGE).messages
    # One that was brought, or made, without messages has taken a number for that.
    before = 0 if found and found[0].seq == 1 else 1
    placed = _placed(messages, before)
    compared = 0
    while True:
        ours = placed[compared : compared + len(found)]
        for theirs, mine in zip(found, ours, strict=False):
            if theirs.seq != mine.seq or not same(theirs, mine):
                raise _another(compared)
            compared += 1
        through = before + compared
        if compared == len(placed) or through >= there.revision:
            return Standing(placed, through, there.revision)
        found = store.page(there.id, after=through, limit=PAGE).messages
        if not found:
            raise _another(compared)


def bring(store: Store, conversation: Conversation, standing: Standing) -> Iterator[int]:
    """Put what is missing behind what is there; says after each write how many messages it had."""
    if standing.revision is None and not standing.messages:
        store.restore(replace(conversation, revision=1), (), after=0)
    after = standing.through
    missing = standing.messages[len(standing.messages) - standing.missing :]
    while missing:
        stretch: list[Message] = []
        size = 0
        for message in missing[:STRETCH_MESSAGES]:
            size += len(encode(message))
            if stretch and size > STRETCH_CHARACTERS:
                break
            stretch.append(message)
        end = after + len(stretch)
        store.restore(replace(conversation, revision=end), stretch, after=after)
        yield len(stretch)
        missing, after = missing[len(stretch) :], end


def unordered(value: Any) -> Any:
    """``value`` with each dict as a sorted list of entries: DynamoDB keeps no order in a map."""
    match value:
        case dict():
            return sorted((name, unordered(each)) for name, each in value.items())
        case list():
            return [unordered(each) for each in value]
    return value


def _placed(messages: Sequence[Message], before: int) -> list[Message]:
    return [message.at(seq) for seq, message in enumerate(messages, before + 1)]


def _seq(message: Message) -> int:
    assert message.seq is not None  # it was placed
    return message.seq


def _another(compared: int) -> StoreMismatch:
    return StoreMismatch(
        f"The store has another conversation of that id: it differs behind message {compared}."
    )
