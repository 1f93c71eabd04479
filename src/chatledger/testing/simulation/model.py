"""What conversations should be: plain values, and what each operation may make of them and answer.

The revisions and seqs are the store's to choose. Those of a write whose answer nobody saw are
unknown until somebody reads them: a number that is zero or less, ``-n``, stands for any from ``n``
on. Times are ms since 1970, and where only a range is known, a pair.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, TypeAlias

from chatledger.conversations import Conversation
from chatledger.json_values import Json, dumps
from chatledger.messages import Message
from chatledger.stores.dynamodb.table import DAY

NEVER = float("inf")
Number: TypeAlias = int
Range: TypeAlias = tuple[int, int]
Place: TypeAlias = tuple[Number, str]
"""A message: its seq and its text, which no other message has."""


def beyond(number: Number, by: int = 1) -> Number:
    """A number that is unknown, but for being at least so much higher."""
    return -abs(number) - by


def known(number: Number, value: int) -> bool:
    """Whether the number may be ``value``."""
    return number == value if number > 0 else value >= -number


class Once(NamedTuple):
    """A title, or metadata as JSON, and when the operation that replaced it had surely ended.

    They lie in another item than the messages, and reads are no snapshots. So of them, other than
    of the messages, an answer may hold whatever they were at some moment of the operation.
    """

    text: str | None
    until: float


class Life(NamedTuple):
    """A conversation from its start to its end; ``number`` is that of the operation it began by."""

    number: int
    owner: str | None
    titles: tuple[Once, ...]
    metadata: tuple[Once, ...]
    created: Range
    updated: Range
    lifetime: int | None
    expiry: Range | None
    messages: tuple[Place, ...]
    revision: Number
    keys: tuple[tuple[str, Number, int, int], ...] = ()
    """Idempotency keys: each with its first seq, how many, and when at the earliest."""


class Shown(NamedTuple):
    """How a list may show a conversation, or (``life`` is None) that it does not.

    No list that begins after ``until`` may show what came before this.
    """

    life: Life | None
    until: float


class State(NamedTuple):
    """All that matters of one id."""

    life: Life | None = None
    floor: Number = 0
    """With no life: what further revisions must be above, until a day after ``ended``."""
    ended: int = 0
    former: int = 0
    """When the life before began, at the latest; no new one begins before that."""
    shown: tuple[Shown, ...] = (Shown(None, 0),)
    """How lists may show it, oldest first."""


class Moment(NamedTuple):
    """When an operation was under way, by the clock of its client and by the count of steps."""

    low: int
    high: int
    begun: float
    done: float
    """Infinite where the operation was not acknowledged, or left the head to a later one."""
    titles: frozenset[str | None] = frozenset()
    """What updates that were under way at the same time set, and so it may have seen."""
    metadata: frozenset[str] = frozenset()


def views(state: State, moment: Moment) -> Iterator[Life | None]:
    """The conversation as it may be to an operation of that moment: alive, or not."""
    life = state.life
    if life is None:
        yield None
        return
    if life.expiry is None:
        yield life
        return
    first, last = life.expiry
    if moment.low < last:
        yield life
    if moment.high >= first:
        yield None


def floor(state: State, moment: Moment) -> Number:
    """What a new life's revisions must be above."""
    if state.life is None:
        number, ended = state.floor, state.ended
    else:
        assert state.life.expiry is not None
        number, ended = state.life.revision, state.life.expiry[0]
    return number if moment.high < ended + DAY else 0


def live(life: Life, moment: Moment, default: int | None) -> Life:
    """The life after activity."""
    lifetime = default if life.lifetime is None else life.lifetime
    low, high = moment.low, moment.high
    expiry = None if lifetime is None else (low + lifetime, high + lifetime)
    updated = (max(low, life.updated[0]), max(high, life.updated[1]))
    return life._replace(updated=updated, expiry=expiry)


def left_with(life: Life, moment: Moment, default: int | None, messages: Iterable[Place]) -> Life:
    """The life after what left it these messages."""
    changed = live(life, moment, default)
    return changed._replace(messages=tuple(messages), revision=beyond(life.revision))


def begun(
    state: State,
    moment: Moment,
    default: int | None,
    revision: Number,
    number: int,
    *,
    owner: str | None = None,
    title: str | None = None,
    metadata: str = "{}",
    lifetime: int | None = None,
    messages: tuple[Place, ...] = (),
) -> Life:
    """A new life."""
    lives = default if lifetime is None else lifetime
    low, high = moment.low, moment.high
    former = state.former if state.life is None else state.life.created[1]
    created = (low, max(high, former))
    return Life(
        number,
        owner,
        (Once(title, NEVER),),
        (Once(metadata, NEVER),),
        created,
        created,
        lifetime,
        None if lives is None else (low + lives, high + lives),
        messages,
        revision,
    )


def become(state: State, life: Life | None, moment: Moment) -> State:
    """The state after a write that left this life, or none."""
    shown = (*state.shown, Shown(life, moment.done))
    if life is not None:
        return State(life, shown=shown)
    assert state.life is not None
    return State(None, state.life.revision, moment.low, state.life.created[1], shown)


def refined(state: State, life: Life) -> State:
    """The state, of which more is known by now."""
    return state if life == state.life else state._replace(life=life)


def seen_as(life: Life, answer: Conversation, moment: Moment) -> Life | None:
    """The life where it may be what was answered, with what is known of it by that."""
    if (
        answer.owner != life.owner
        or answer.message_count != len(life.messages)
        or not known(life.revision, answer.revision)
        or not _was(life.titles, answer.title, moment.titles, moment)
        or not _was(life.metadata, text_of(answer.metadata), moment.metadata, moment)
    ):
        return None
    created, updated = time_of(answer.created_at), time_of(answer.updated_at)
    expiry: Range | None = None
    if answer.expires_at is not None:
        expires = time_of(answer.expires_at)
        if life.expiry is None or not life.expiry[0] <= expires <= life.expiry[1]:
            return None
        expiry = (expires, expires)
    elif life.expiry is not None:
        return None
    if not (life.created[0] <= created <= life.created[1]):
        return None
    if not (life.updated[0] <= updated <= life.updated[1]):
        return None
    return life._replace(
        created=(created, created),
        updated=(updated, updated),
        expiry=expiry,
        revision=answer.revision,
    )


def _was(
    texts: tuple[Once, ...],
    text: str | None,
    concurrent: frozenset[str] | frozenset[str | None],
    moment: Moment,
) -> bool:
    return text in concurrent or any(
        once.text == text and once.until >= moment.begun for once in texts
    )


def read_as(life: Life, start: int, messages: list[Message]) -> Life | None:
    """The life where its messages from that index on may be those, with their seqs known."""
    if start < 0:
        return None
    places = life.messages
    news = list(places)
    for index, message in enumerate(messages, start):
        seq, text = places[index]
        if message.content != text or message.seq is None or not known(seq, message.seq):
            return None
        news[index] = (message.seq, text)
    if news == list(places):
        return life
    if not increasing(news):
        return None
    return life._replace(messages=tuple(news))


def increasing(places: list[Place] | tuple[Place, ...]) -> bool:
    """Whether the seqs may be in their order."""
    lowest = 0
    for seq, _ in places:
        if seq > 0:
            if seq <= lowest:
                return False
            lowest = seq
        else:
            lowest = max(lowest + 1, -seq)
    return True


def behind(messages: tuple[Place, ...], seq: int) -> range:
    """How many messages may have a seq of at most that."""
    least_many = most = 0
    for number, (place, _) in enumerate(messages, 1):
        if place > 0:
            if place <= seq:
                least_many = most = number
            else:
                break
        elif -place <= seq:
            most = number
        else:
            break
    return range(least_many, most + 1)


def text_of(metadata: dict[str, Json]) -> str:
    return dumps(metadata) if metadata else "{}"


def time_of(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
