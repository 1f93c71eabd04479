"""Rules for operations on several conversations, each applied to one conversation at a time."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import TypeAlias

from chatledger.conversations import MAX_REVISION, Conversation
from chatledger.errors import NotFound
from tests.simulation.history import Operation
from tests.simulation.model import (
    NEVER,
    ConversationState,
    FieldVersion,
    Generation,
    Interval,
    ModelEntry,
    after_write,
    match_conversation,
    new_generation,
    possible_counts,
    possible_views,
    refine,
    revision_floor,
    time_in_ms,
    unknown_above,
)
from tests.simulation.rules.common import (
    creation_of,
    states_after_write,
    states_of_existing,
    with_head_rebuilt,
)
from tests.simulation.rules.entries import with_copies

ListingRule: TypeAlias = Callable[
    [ConversationState, Operation, Interval, Conversation | None], Iterator[ConversationState]
]


def list_conversation(
    state: ConversationState, operation: Operation, interval: Interval, listed: Conversation | None
) -> Iterator[ConversationState]:
    """Rule for ``list``: it showed the conversation as ``listed``, or not (None)."""
    first = 0 if operation.lists_lag else _first_entry(state, operation)
    if operation.lists_lag:
        interval = interval._replace(start_step=0)
    for index in range(first, len(state.list_entries)):
        generation = state.list_entries[index].generation
        if generation is not None and generation.owner != operation.arguments["owner"]:
            generation = None
        if listed is None:
            # A conversation that changes moves to the front of the index, so a list that is read
            # meanwhile may miss it.
            has_moved = len(state.list_entries) - first > 1
            is_over = generation is None or (
                generation.expiry is not None and interval.clock_high >= generation.expiry[0]
            )
            fits = is_over or has_moved
        else:
            fits = (
                generation is not None
                and match_conversation(generation, listed, interval) is not None
                and (
                    listed.expires_at is None or interval.clock_low < time_in_ms(listed.expires_at)
                )
            )
        if fits:
            # Lists never go back to an earlier entry.
            yield state._replace(list_entries=state.list_entries[index:])
            if not operation.lists_lag:
                return


def scan_conversation(
    state: ConversationState, operation: Operation, interval: Interval, listed: Conversation | None
) -> Iterator[ConversationState]:
    """Rule for ``scan``: it showed the conversation as ``listed``, or not (None).

    It looks a conversation without a head up, so it misses none; a head that it finds may lag.
    """
    for generation in possible_views(state, interval):
        if generation is None or listed is None:
            if generation is None and listed is None:
                yield state
        elif matched := match_conversation(generation, listed, interval):
            yield with_head_rebuilt(refine(state, matched), matched, interval)
    if listed is None:
        return
    for entry in state.list_entries[_first_entry(state, operation) :]:
        if (
            entry.generation is not None
            and match_conversation(entry.generation, listed, interval) is not None
            and (listed.expires_at is None or interval.clock_low < time_in_ms(listed.expires_at))
        ):
            yield state
            return


def delete_owned(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[tuple[ConversationState, int]]:
    """Rule for ``delete_owner``: the new state, and by how much the conversation counts."""
    owner = operation.arguments["owner"]
    for generation in possible_views(state, interval):
        if generation is None:
            yield state, 0
            if state.generation is not None and state.generation.owner == owner:
                yield after_write(state, None, interval), 0  # it had expired, and does not count
        elif generation.owner != owner:
            yield state, 0
        else:
            yield after_write(state, None, interval), 1
            first = 0 if operation.lists_lag else _first_entry(state, operation)
            entries = state.list_entries[first:]
            if any(
                entry.generation is None or entry.generation.owner != owner for entry in entries
            ):
                yield state, 0  # its creator has not added it to the index yet


def _first_entry(state: ConversationState, operation: Operation) -> int:
    """Return the index of the earliest entry that a list starting with ``operation`` may show."""
    for index in range(len(state.list_entries) - 1, 0, -1):
        if state.list_entries[index].until < operation.earliest_step:
            return index
    return 0


def fork_source(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[tuple[ConversationState, Generation | None]]:
    """Rule for the source of ``fork``: its unchanged state, and what the fork may copy of it."""
    at = operation.arguments["at"]
    if operation.arguments["idempotency_key"] is not None:
        yield state, None  # an earlier call made the copy
    for generation in possible_views(state, interval):
        if generation is None or operation.arguments["owner"] not in (None, generation.owner):
            continue
        for count in possible_counts(generation.messages, MAX_REVISION if at is None else at):
            yield state, generation._replace(messages=generation.messages[:count])


def fork_target(
    state: ConversationState,
    operation: Operation,
    interval: Interval,
    copy: Generation | None,
    entries: tuple[ModelEntry, ...],
) -> Iterator[ConversationState]:
    """Rule for the target of ``fork``, given what it copied; None if it did not."""
    for generation in possible_views(state, interval):
        if generation is not None:
            yield from states_of_existing(state, generation, operation, interval)
            continue
        if copy is None:
            continue
        floor = revision_floor(state, interval)
        first = unknown_above(floor)
        messages = tuple((first - n, text) for n, (_, text) in enumerate(copy.messages))
        new = new_generation(
            state,
            interval,
            unknown_above(floor, max(len(messages), 1)),
            operation.number,
            owner=copy.owner,
            lifetime=copy.lifetime if (own := operation.arguments["lifetime"]) is None else own,
            messages=messages,
            creation=creation_of(operation),
        )
        copied = (
            {version.value for version in versions if version.until >= interval.start_step}
            | concurrent
            for versions, concurrent in zip(copy.description, interval.concurrent, strict=True)
        )
        for values in product(*copied):
            description = tuple((FieldVersion(value, NEVER),) for value in values)
            described = new._replace(description=description)
            for after in states_after_write(state, described, operation, interval):
                with_entries = with_copies(after, copy, entries, operation, interval)
                if with_entries is not None:
                    yield with_entries


def refuse_fork(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for a refused ``fork``: by the source with ``NotFound``, else by the target."""
    for generation in possible_views(state, interval):
        if not isinstance(operation.answer, NotFound):
            if generation is not None:
                yield from states_of_existing(state, generation, operation, interval)
        elif generation is None or operation.arguments["owner"] not in (None, generation.owner):
            yield state
