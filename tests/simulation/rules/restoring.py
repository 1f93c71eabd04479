"""Rule for ``restore``, which writes messages at seqs that the caller chooses."""

from collections.abc import Iterator

from chatledger.errors import AlreadyExists, Conflict, NotFound
from tests.simulation.history import Operation
from tests.simulation.model import (
    ConversationState,
    Generation,
    Interval,
    ModelMessage,
    can_be,
    can_increase,
    changed_values,
    new_generation,
    possible_views,
    refine,
    revision_floor,
)
from tests.simulation.operations import restored_lifetime
from tests.simulation.rules.common import Rule, states_after_write


def restore(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``restore``."""
    arguments, answer = operation.arguments, operation.answer
    after, expires_at = arguments["after"], arguments["expires_at"]
    if expires_at is not None:
        if interval.clock_high >= expires_at and isinstance(answer, NotFound):
            yield state
        if interval.clock_low >= expires_at:
            return
    for generation in possible_views(state, interval):
        if generation is None:
            if after:
                if isinstance(answer, NotFound):
                    yield state
            else:
                yield from _begin(state, operation, interval)
        elif generation.owner != arguments["owner"]:
            if isinstance(answer, AlreadyExists):
                yield state
        elif isinstance(answer, Conflict):
            if answer.revision != after and can_be(generation.revision, answer.revision):
                yield refine(state, generation._replace(revision=answer.revision))
        elif can_be(generation.revision, after):
            yield from _continue(state, generation, operation, interval)


def _begin(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Yield the state in which the restored conversation exists, or its numbers were taken."""
    arguments, answer = operation.arguments, operation.answer
    revision, expires_at = arguments["revision"], arguments["expires_at"]
    floor = revision_floor(state, interval)
    if isinstance(answer, Conflict):
        # The store may remember the numbers of an earlier conversation for longer than a day, or
        # some of them.
        if (state.generation or state.former_revision) and answer.revision >= max(abs(floor), 1):
            yield state
        return
    if floor and (arguments["texts"] or revision <= abs(floor)):
        return
    updated_at = arguments["updated_at"]
    lifetime = operation.default_lifetime
    if expires_at is not None:
        lifetime = restored_lifetime(updated_at, expires_at)
    new = new_generation(
        state,
        interval,
        revision,
        operation.number,
        owner=arguments["owner"],
        description=changed_values(arguments),
        lifetime=lifetime,
        messages=_restored_messages(operation),
    )
    new = new._replace(
        created=(arguments["created_at"],) * 2,
        updated=(updated_at, updated_at),
        expiry=new.expiry if expires_at is None else (expires_at, expires_at),
    )
    yield from states_after_write(state, new, operation, interval)


def _continue(
    state: ConversationState, generation: Generation, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Yield the state in which the messages follow those of the generation."""
    arguments = operation.arguments
    updated_at, expires_at = arguments["updated_at"], arguments["expires_at"]
    messages = (*generation.messages, *_restored_messages(operation))
    if not can_increase(messages):
        return
    expiry = None
    if generation.lifetime is not None:
        low, high = interval.clock_low, interval.clock_high
        expiry = (low + generation.lifetime, high + generation.lifetime)
        if expires_at is not None:
            expiry = (expires_at, expires_at)
    earliest, latest = generation.updated
    changed = generation._replace(
        updated=(max(updated_at, earliest), max(updated_at, latest)),
        expiry=expiry,
        messages=messages,
        revision=arguments["revision"],
    )
    yield from states_after_write(state, changed, operation, interval)


def _restored_messages(operation: Operation) -> tuple[ModelMessage, ...]:
    return tuple(enumerate(operation.arguments["texts"], operation.arguments["after"] + 1))


RULES: dict[str, Rule] = {"restore": restore}
