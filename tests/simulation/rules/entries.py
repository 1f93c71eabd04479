"""Rules for entries: each name of a conversation or owner is a register of its own."""

from collections.abc import Iterator

from chatledger.entries import Entry
from chatledger.errors import ChatledgerError, Conflict, NotFound
from tests.simulation.history import Operation
from tests.simulation.model import (
    ConversationState,
    Generation,
    Interval,
    ModelEntry,
    Number,
    Range,
    can_be,
    possible_views,
    time_in_ms,
    unknown_above,
)
from tests.simulation.operations import OWNER_PLACES
from tests.simulation.rules.common import Rule

OWNED = 0
"""Stands for the generation of an owner's entries."""


def put_entry(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``put_entry``."""
    arguments, answer = operation.arguments, operation.answer
    name = arguments["name"]
    for generation, before in _views(state, operation, interval, name):
        if generation is None:
            if isinstance(answer, NotFound):
                yield state
            continue
        if isinstance(answer, ChatledgerError) and operation.is_acknowledged:
            yield from _states_of_conflict(state, before, operation)
            continue
        if not _is_at(before, arguments["revision"]):
            continue
        last = state.entry(name)
        revision: Number
        if before is None:
            revision = unknown_above(last.revision if last else 0)
        elif arguments["revision"]:
            revision = arguments["revision"] + 1
        else:
            revision = before.revision + 1 if before.revision > 0 else before.revision - 1
        lifetime = arguments["lifetime"]
        low, high = interval.clock_low, interval.clock_high
        entry = ModelEntry(
            name=name,
            value=arguments["value"],
            revision=revision,
            generation=generation,
            updated=(low, high),
            expiry=None if lifetime is None else (low + lifetime, high + lifetime),
        )
        if not operation.is_acknowledged:
            yield state.with_entry(entry)
        elif isinstance(answer, Entry) and (matched := _match(entry, answer)):
            yield state.with_entry(matched)


def entry(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``entry``."""
    answer = operation.answer
    for generation, found in _views(state, operation, interval, operation.arguments["name"]):
        if generation is None or found is None:
            if isinstance(answer, NotFound):
                yield state
        elif isinstance(answer, Entry) and (matched := _match(found, answer)):
            yield state.with_entry(matched)


def delete_entry(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``delete_entry``."""
    answer = operation.answer
    for generation, before in _views(state, operation, interval, operation.arguments["name"]):
        if generation is None or before is None:
            if isinstance(answer, NotFound):
                yield state
        elif isinstance(answer, ChatledgerError) and operation.is_acknowledged:
            yield from _states_of_conflict(state, before, operation)
        elif _is_at(before, operation.arguments["revision"]):
            yield state.with_entry(before._replace(value=None, expiry=None))


def list_entry(
    state: ConversationState,
    operation: Operation,
    interval: Interval,
    name: str,
    listed: Entry | None,
) -> Iterator[ConversationState]:
    """Rule for ``entries``: it showed the entry ``name`` as ``listed``, or not (None)."""
    for generation, found in _views(state, operation, interval, name):
        if generation is None or found is None:
            if listed is None:
                yield state
        elif listed is not None and (matched := _match(found, listed)):
            yield state.with_entry(matched)


def find_place(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``entries``: whether the conversation exists for the caller."""
    for generation in _generations(state, operation, interval):
        if (generation is None) is isinstance(operation.answer, NotFound):
            yield state


def delete_owned_entry(state: ConversationState, name: str) -> Iterator[ConversationState]:
    """Rule for an entry of the owner in ``delete_owner``."""
    entry = state.entry(name)
    yield state if entry is None else state.with_entry(entry._replace(value=None, expiry=None))


def copied_entry(
    state: ConversationState, interval: Interval, name: str
) -> Iterator[tuple[ConversationState, ModelEntry | None]]:
    """Rule for an entry of the source of ``fork``: its state, and what the fork copies of it."""
    for generation in possible_views(state, interval):
        if generation is None:
            yield state, None
            continue
        for found in _possible_entries(state.entry(name), generation.number, interval):
            yield state, found


def with_copies(
    state: ConversationState,
    copy: Generation,
    copies: tuple[ModelEntry, ...],
    operation: Operation,
    interval: Interval,
) -> ConversationState | None:
    """Return the state of a fork with its entries; None if it cannot have copied these."""
    if any(entry.generation != copy.number for entry in copies):
        return None
    for entry in copies:
        last = state.entry(entry.name)
        state = state.with_entry(
            entry._replace(
                revision=unknown_above(last.revision if last else 0),
                generation=operation.number,
                updated=(interval.clock_low, interval.clock_high),
            )
        )
    return state


def _generations(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[int | None]:
    """Yield the number of each generation that may have answered; None if there may be none."""
    if operation.conversation in OWNER_PLACES:
        yield OWNED
        return
    for generation in possible_views(state, interval):
        if generation is None or operation.arguments["owner"] not in (None, generation.owner):
            yield None
        else:
            yield generation.number


def _views(
    state: ConversationState, operation: Operation, interval: Interval, name: str
) -> Iterator[tuple[int | None, ModelEntry | None]]:
    """Yield what an operation may find: a generation, or None, and its entry, or None."""
    for generation in _generations(state, operation, interval):
        if generation is None:
            yield None, None
            continue
        for found in _possible_entries(state.entry(name), generation, interval):
            yield generation, found


def _possible_entries(
    entry: ModelEntry | None, generation: int, interval: Interval
) -> Iterator[ModelEntry | None]:
    """Yield the entry, None for no entry, or both if it may have expired meanwhile."""
    if entry is None or entry.value is None or entry.generation != generation:
        yield None
        return
    if entry.expiry is None or interval.clock_low < entry.expiry[1]:
        yield entry
    if entry.expiry is not None and interval.clock_high >= entry.expiry[0]:
        yield None


def _is_at(entry: ModelEntry | None, revision: int | None) -> bool:
    """Return whether the entry may have the revision that the caller gave, if any."""
    if revision is None:
        return True
    return revision == 0 if entry is None else can_be(entry.revision, revision)


def _states_of_conflict(
    state: ConversationState, before: ModelEntry | None, operation: Operation
) -> Iterator[ConversationState]:
    answer, expected = operation.answer, operation.arguments["revision"]
    if not isinstance(answer, Conflict) or answer.expected != expected:
        return
    if before is None:
        if answer.revision == 0 != expected:
            yield state
    elif answer.revision != expected and can_be(before.revision, answer.revision):
        yield state.with_entry(before._replace(revision=answer.revision))


def _match(entry: ModelEntry, answer: Entry) -> ModelEntry | None:
    """Return the entry with what ``answer`` reveals; None if they contradict each other."""
    updated = time_in_ms(answer.updated_at)
    if (
        (answer.name, answer.value) != (entry.name, entry.value)
        or not can_be(entry.revision, answer.revision)
        or not entry.updated[0] <= updated <= entry.updated[1]
    ):
        return None
    expiry: Range | None = None
    if answer.expires_at is not None:
        expires_at = time_in_ms(answer.expires_at)
        if entry.expiry is None or not entry.expiry[0] <= expires_at <= entry.expiry[1]:
            return None
        expiry = (expires_at, expires_at)
    elif entry.expiry is not None:
        return None
    return entry._replace(revision=answer.revision, updated=(updated, updated), expiry=expiry)


RULES: dict[str, Rule] = {"put_entry": put_entry, "entry": entry, "delete_entry": delete_entry}
