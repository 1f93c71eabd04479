"""The model of conversations that the rules work on: immutable values, and what is known of them.

The store chooses revisions and seqs. Those of a write whose answer nobody saw are unknown until a
read shows them, so the model represents a number in one of two ways: ``n`` greater than zero is
exactly ``n``, while zero or a negative number ``-n`` is unknown, but greater than or equal to
``n``. Times are ms since 1970; a time that is known only within a range is a pair.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from chatledger.conversations import (
    DEFAULT_DESCRIPTION,
    DESCRIPTION_FIELDS,
    Conversation,
    Description,
    fields_of,
)
from chatledger.messages import StoredMessage
from chatledger.stores.dynamodb.table import DAY
from chatledger.values import dumps

NEVER = float("inf")
Number: TypeAlias = int
"""A revision or seq, known or unknown: see the module."""
Range: TypeAlias = tuple[int, int]
"""The earliest and the latest possible time."""
ModelMessage: TypeAlias = tuple[Number, str]
"""A message: its seq, and its text, which no other message has."""


def unknown_above(number: Number, by: int = 1) -> Number:
    """Return an unknown number that is greater than ``number`` by at least ``by``."""
    return -abs(number) - by


def can_be(number: Number, value: int) -> bool:
    """Return whether ``number`` is, or may be, ``value``."""
    return number == value if number > 0 else value >= -number


def described_values(description: Description) -> dict[str, Hashable]:
    """Return the values of the description's fields, by name; a dict is JSON text."""
    return {name: _hashable(value) for name, value in fields_of(description).items()}


def changed_values(arguments: Mapping[str, Any]) -> dict[str, Hashable]:
    """Return the values that an operation with these arguments sets fields of a description to.

    A falsy argument sets the default; None leaves the field as it is.
    """
    return {
        name: _hashable(arguments[name] or getattr(DEFAULT_DESCRIPTION, name))
        for name in DESCRIPTION_FIELDS
        if arguments[name] is not None
    }


def _hashable(value: Any) -> Hashable:
    return dumps(value) if isinstance(value, dict) else value


DEFAULTS = described_values(DEFAULT_DESCRIPTION)


class FieldVersion(NamedTuple):
    """A value of a field of the description, and the step by which it had been replaced.

    Descriptions are stored in another item than the messages, and reads are not snapshots. So
    unlike messages, an answer may hold any version that was current during the operation.
    """

    value: Hashable
    until: float


DescriptionVersions: TypeAlias = tuple[tuple[FieldVersion, ...], ...]
"""For each field of the description, every value so far; the last is the current one."""


class KeyUse(NamedTuple):
    """An append with an idempotency key."""

    key: str
    first: Number
    """Its first seq."""
    texts: tuple[str, ...]
    time: int
    """Its earliest time."""


class Generation(NamedTuple):
    """One life of a conversation id between creation and deletion, at one moment."""

    number: int
    """The number of the operation that created it."""
    owner: str | None
    description: DescriptionVersions
    created: Range
    updated: Range
    lifetime: int | None
    expiry: Range | None
    messages: tuple[ModelMessage, ...]
    revision: Number
    keys: tuple["KeyUse", ...] = ()
    """The appends with idempotency keys."""
    metadata_revision: Number = 0
    creation: tuple[str, Hashable] | None = None
    """The idempotency key of the call that created it, and that call's other arguments."""


class ModelEntry(NamedTuple):
    """A named value of a conversation or an owner, or what is left of it."""

    name: str
    value: str | None
    """None if it was deleted."""
    revision: Number
    """The last revision that the name has had; those of later values are greater."""
    generation: int
    """The ``Generation.number`` of the conversation; 0 if it belongs to an owner."""
    updated: Range
    expiry: Range | None
    """When it expires by itself."""


class ListEntry(NamedTuple):
    """One way in which a list may show the conversation; ``generation`` is None if it does not.

    A list that starts after the step ``until`` must not show any earlier entry.
    """

    generation: Generation | None
    until: float


class ConversationState(NamedTuple):
    """Everything about one conversation id that can affect an answer."""

    generation: Generation | None = None
    former_revision: Number = 0
    """If there is no generation: the last revision of the former one. For a day after ``ended_at``,
    revisions of a new generation are greater."""
    ended_at: int = 0
    former_created_at: int = 0
    """The latest time at which the former generation may have been created; a new one is never
    created earlier."""
    list_entries: tuple[ListEntry, ...] = (ListEntry(None, 0),)
    """The ways in which lists may show the conversation, oldest first."""
    entries: tuple[ModelEntry, ...] = ()
    """The last value of each name, also of earlier generations. An owner's entries are the only
    field of a state of their own."""

    def entry(self, name: str) -> ModelEntry | None:
        return next((entry for entry in self.entries if entry.name == name), None)

    def with_entry(self, changed: ModelEntry) -> "ConversationState":
        others = [entry for entry in self.entries if entry.name != changed.name]
        return self._replace(entries=tuple(sorted((*others, changed))))


class Interval(NamedTuple):
    """The time of an operation, by its client's clock (ms since 1970) and in schedule steps."""

    clock_low: int
    clock_high: int
    start_step: float
    listed_by: float
    """The step after which lists must show what the operation wrote; infinite if it was not
    acknowledged, or if it left the update of the head to a later operation."""
    rebuilt_by: float = NEVER
    """The step after which lists must show what the operation read, if it found a stale head;
    infinite if a deletion may have been begun, which it does not finish."""
    concurrent: tuple[frozenset[Hashable], ...] = (frozenset(),) * len(DESCRIPTION_FIELDS)
    """For each field of the description, the values set by updates that ran at the same time, and
    so may have been seen."""


def possible_views(state: ConversationState, interval: Interval) -> Iterator[Generation | None]:
    """Yield what an operation may find: the live generation, None for no conversation, or both.

    Both are possible if the conversation may have expired during the operation.
    """
    generation = state.generation
    if generation is None:
        yield None
        return
    if generation.expiry is None:
        yield generation
        return
    earliest, latest = generation.expiry
    if interval.clock_low < latest:
        yield generation
    if interval.clock_high >= earliest:
        yield None


def revision_floor(state: ConversationState, interval: Interval) -> Number:
    """Return the number that the revisions of a new generation must exceed."""
    if state.generation is None:
        number, ended_at = state.former_revision, state.ended_at
    else:
        assert state.generation.expiry is not None
        number, ended_at = state.generation.revision, state.generation.expiry[0]
    return number if interval.clock_high < ended_at + DAY else 0


def with_activity(generation: Generation, interval: Interval) -> Generation:
    """Return the generation after activity: with a new time of update, and a new expiry."""
    low, high = interval.clock_low, interval.clock_high
    return generation._replace(
        updated=(max(low, generation.updated[0]), max(high, generation.updated[1])),
        expiry=_expiry(interval, generation.lifetime),
    )


def with_messages(
    generation: Generation, interval: Interval, messages: Iterable[ModelMessage]
) -> Generation:
    """Return the generation after a write that left it these messages, at an unknown revision."""
    return with_activity(generation, interval)._replace(
        messages=tuple(messages), revision=unknown_above(generation.revision)
    )


def new_generation(
    state: ConversationState,
    interval: Interval,
    revision: Number,
    number: int,
    *,
    owner: str | None = None,
    description: Mapping[str, Hashable] = DEFAULTS,
    lifetime: int | None = None,
    messages: tuple[ModelMessage, ...] = (),
    creation: tuple[str, Hashable] | None = None,
) -> Generation:
    """Return a generation that the operation with that number creates."""
    former_created_at = (
        state.former_created_at if state.generation is None else state.generation.created[1]
    )
    created = (interval.clock_low, max(interval.clock_high, former_created_at))
    return Generation(
        number=number,
        owner=owner,
        description=tuple(
            (FieldVersion(description.get(name, default), NEVER),)
            for name, default in DEFAULTS.items()
        ),
        created=created,
        updated=created,
        lifetime=lifetime,
        expiry=_expiry(interval, lifetime),
        messages=messages,
        revision=revision,
        creation=creation,
    )


def _expiry(interval: Interval, lifetime: int | None) -> Range | None:
    if lifetime is None:
        return None
    return interval.clock_low + lifetime, interval.clock_high + lifetime


def after_write(
    state: ConversationState, generation: Generation | None, interval: Interval
) -> ConversationState:
    """Return the state after a write that left this generation, or none."""
    list_entries = (*state.list_entries, ListEntry(generation, interval.listed_by))
    if generation is not None:
        return ConversationState(generation, list_entries=list_entries, entries=state.entries)
    former = state.generation
    assert former is not None
    return ConversationState(
        generation=None,
        former_revision=former.revision,
        ended_at=interval.clock_low,
        former_created_at=former.created[1],
        list_entries=list_entries,
        entries=state.entries,
    )


def refine(state: ConversationState, generation: Generation) -> ConversationState:
    """Return the state with what an answer has revealed about its generation."""
    return state if generation == state.generation else state._replace(generation=generation)


def match_conversation(
    generation: Generation, answer: Conversation, interval: Interval
) -> Generation | None:
    """Return the generation with what ``answer`` reveals; None if they contradict each other."""
    if (
        answer.owner != generation.owner
        or answer.message_count != len(generation.messages)
        or not can_be(generation.revision, answer.revision)
        or not all(
            _was_current(versions, value, concurrent, interval.start_step)
            for versions, value, concurrent in zip(
                generation.description,
                described_values(answer).values(),
                interval.concurrent,
                strict=True,
            )
        )
    ):
        return None
    expiry: Range | None = None
    if answer.expires_at is not None:
        expires_at = time_in_ms(answer.expires_at)
        if generation.expiry is None or not _is_within(generation.expiry, expires_at):
            return None
        expiry = (expires_at, expires_at)
    elif generation.expiry is not None:
        return None
    created, updated = time_in_ms(answer.created_at), time_in_ms(answer.updated_at)
    if not _is_within(generation.created, created) or not _is_within(generation.updated, updated):
        return None
    return generation._replace(
        created=(created, created),
        updated=(updated, updated),
        expiry=expiry,
        revision=answer.revision,
    )


def _was_current(
    versions: tuple[FieldVersion, ...],
    value: Hashable,
    concurrent: frozenset[Hashable],
    start_step: float,
) -> bool:
    """Return whether the value may have been current during an operation that started then."""
    return value in concurrent or any(
        version.value == value and version.until >= start_step for version in versions
    )


def _is_within(times: Range, time: int) -> bool:
    return times[0] <= time <= times[1]


def match_messages(
    generation: Generation, start: int, messages: list[StoredMessage]
) -> Generation | None:
    """Return the generation with the seqs of ``messages``; None if they cannot be its own.

    ``start`` is the index of the first of them within the generation's messages.
    """
    if start < 0:
        return None
    known = list(generation.messages)
    for index, message in enumerate(messages, start):
        seq, text = known[index]
        if message.content != text or message.seq is None or not can_be(seq, message.seq):
            return None
        known[index] = (message.seq, text)
    if known == list(generation.messages):
        return generation
    if not can_increase(known):
        return None
    return generation._replace(messages=tuple(known))


def can_increase(messages: Sequence[ModelMessage]) -> bool:
    """Return whether the seqs can be in strictly increasing order."""
    lowest = 0
    for seq, _ in messages:
        if seq > 0:
            if seq <= lowest:
                return False
            lowest = seq
        else:
            lowest = max(lowest + 1, -seq)
    return True


def possible_counts(messages: tuple[ModelMessage, ...], seq: int) -> range:
    """Return how many messages can have a seq less than or equal to ``seq``."""
    fewest = most = 0
    for count, (message_seq, _) in enumerate(messages, 1):
        if message_seq > 0:
            if message_seq <= seq:
                fewest = most = count
            else:
                break
        elif -message_seq <= seq:
            most = count
        else:
            break
    return range(fewest, most + 1)


def time_in_ms(time: datetime) -> int:
    """Return the time in ms since 1970."""
    return round(time.timestamp() * 1000)
