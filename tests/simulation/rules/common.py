"""The parts that rules share."""

from collections.abc import Callable, Hashable, Iterator
from typing import TypeAlias

from chatledger.conversations import Conversation
from chatledger.errors import AlreadyExists, KeyReused, NotFound
from chatledger.values import dumps
from tests.simulation.history import Operation
from tests.simulation.model import (
    ConversationState,
    Generation,
    Interval,
    ListEntry,
    after_write,
    match_conversation,
    possible_views,
    refine,
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


def creation_of(operation: Operation) -> tuple[str, Hashable] | None:
    """Return the ``Generation.creation`` of what the operation creates."""
    key = operation.arguments["idempotency_key"]
    if key is None:
        return None
    ignored = ("idempotency_key", "owner") if operation.kind == "fork" else ("idempotency_key",)
    others = {name: value for name, value in operation.arguments.items() if name not in ignored}
    return key, dumps([operation.kind, operation.conversation, others])


def states_of_existing(
    state: ConversationState, existing: Generation, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Yield the state after a call that was to create a conversation whose id is in use."""
    creation, answer = creation_of(operation), operation.answer
    is_repeated = (
        creation is not None
        and existing.creation is not None
        and existing.creation[0] == creation[0]
        and _is_visible(existing, operation)
    )
    if not operation.is_acknowledged:
        yield state
    elif not is_repeated:
        if isinstance(answer, AlreadyExists):
            yield state
    elif existing.creation != creation:
        if isinstance(answer, KeyReused):
            yield state
    elif isinstance(answer, Conversation) and (
        matched := match_conversation(existing, answer, interval)
    ):
        yield with_head_rebuilt(refine(state, matched), matched, interval, at_once=True)


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
    state: ConversationState, generation: Generation, interval: Interval, *, at_once: bool = False
) -> ConversationState:
    """Return the state after a read of ``generation``, which may have rebuilt the head.

    It has certainly done so with ``at_once``, and otherwise if the head was old.
    """
    if not at_once and interval.clock_low <= generation.updated[1] + REBUILT_AFTER:
        return state
    entry = ListEntry(generation, interval.rebuilt_by)
    return state._replace(list_entries=(*state.list_entries, entry))
