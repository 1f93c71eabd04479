"""The parts that rules share."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from chatledger.conversations import Conversation
from chatledger.errors import NotFound
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.model import (
    ConversationState,
    Generation,
    Interval,
    ListEntry,
    after_write,
    match_conversation,
    possible_views,
)

REBUILT_AFTER = 60_000
"""The age (ms) of a conversation's last change from which a reader rebuilds a stale head, and so
brings lists up to date."""

Rule: TypeAlias = Callable[[ConversationState, Operation, Interval], Iterator[ConversationState]]


def generations_read(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[Generation | None]:
    """Yield each generation that may have answered a read; None if ``NotFound`` is right."""
    is_refused = isinstance(operation.answer, NotFound)
    for generation in possible_views(state, interval):
        exists = _is_visible(generation, operation)
        if is_refused and not exists:
            yield None
        elif exists and not is_refused:
            yield generation


def generations_changed(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[Generation | None]:
    """Yield each generation that may have answered a write; None if ``NotFound`` is right.

    Unlike for a read, an existing generation may answer ``NotFound`` with a seq: that it has no
    such message.
    """
    is_refused = isinstance(operation.answer, NotFound)
    for generation in possible_views(state, interval):
        exists = _is_visible(generation, operation)
        if is_refused and not exists:
            yield None
        if exists and not (is_refused and operation.answer.seq is None):
            yield generation


def _is_visible(generation: Generation | None, operation: Operation) -> bool:
    return generation is not None and operation.arguments["owner"] in (None, generation.owner)


def states_after_write(
    state: ConversationState, changed: Generation, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Yield the state after a write that left ``changed`` and answers with the conversation."""
    if not operation.is_acknowledged:
        yield after_write(state, changed, interval)
    elif isinstance(operation.answer, Conversation):
        generation = match_conversation(changed, operation.answer, interval)
        if generation is not None:
            yield after_write(state, generation, interval)


def with_head_rebuilt(
    state: ConversationState, generation: Generation, interval: Interval
) -> ConversationState:
    """Return the state after a read of ``generation``, which may have rebuilt the head."""
    if interval.clock_low <= generation.updated[1] + REBUILT_AFTER:
        return state
    entry = ListEntry(generation, interval.rebuilt_by)
    return state._replace(list_entries=(*state.list_entries, entry))
