"""Rules for ``update``, which changes the description; that is stored apart from messages."""

from collections.abc import Hashable, Iterator
from typing import Any

from chatledger.conversations import DESCRIPTION_FIELDS, Conversation
from chatledger.errors import Conflict
from tests.simulation.history import Operation
from tests.simulation.model import (
    NEVER,
    ConversationState,
    FieldVersion,
    Generation,
    Interval,
    can_be,
    changed_values,
    described_values,
    match_conversation,
    possible_views,
    refine,
    unknown_above,
)
from tests.simulation.rules.common import Rule, generations_changed


def update(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for the write of ``update``."""
    arguments, answer = operation.arguments, operation.answer
    for generation in generations_changed(state, operation, interval):
        if generation is None:
            yield state
            continue
        if isinstance(answer, Conflict):
            yield from _states_of_conflict(state, generation, answer, arguments)
            continue
        if (expected := arguments["revision"]) is not None:
            if not can_be(generation.revision, expected):
                continue
            generation = generation._replace(revision=expected)
        if (expected := arguments["metadata_revision"]) is not None:
            if not can_be(generation.metadata_revision, expected):
                continue
            generation = generation._replace(metadata_revision=expected)
        if operation.is_acknowledged and not _has_new_description(answer, arguments):
            continue
        # Lists show the update at once, even if they lag otherwise.
        list_entries = tuple(
            entry._replace(generation=_updated(entry.generation, operation))
            if entry.generation is not None and entry.generation.number == generation.number
            else entry
            for entry in state.list_entries
        )
        yield state._replace(generation=_updated(generation, operation), list_entries=list_entries)


def _states_of_conflict(
    state: ConversationState, generation: Generation, answer: Conflict, arguments: dict[str, Any]
) -> Iterator[ConversationState]:
    """Yield the state if one of the two revisions differs from the one that the caller gave."""
    actual = answer.revision
    if answer.expected == actual:
        return
    if arguments["revision"] == answer.expected and can_be(generation.revision, actual):
        yield refine(state, generation._replace(revision=actual))
    if arguments["metadata_revision"] == answer.expected and can_be(
        generation.metadata_revision, actual
    ):
        yield refine(state, generation._replace(metadata_revision=actual))


def read_by_update(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for the read of ``update``: the rest of its answer, which is stored in another item."""
    for generation in possible_views(state, interval):
        if generation is not None and isinstance(operation.answer, Conversation):
            matched = match_conversation(generation, operation.answer, interval)
            if matched is not None:
                yield refine(state, matched)


def _updated(generation: Generation, operation: Operation) -> Generation:
    """Return the generation with the description that the update leaves."""
    changes = changed_values(operation.arguments)
    if not changes:
        return generation
    return generation._replace(
        description=tuple(
            _with_version(versions, changes[name], operation.end_step)
            if name in changes
            else versions
            for name, versions in zip(DESCRIPTION_FIELDS, generation.description, strict=True)
        ),
        metadata_revision=(
            operation.answer.metadata_revision
            if isinstance(operation.answer, Conversation)
            else unknown_above(generation.metadata_revision)
        ),
    )


def _with_version(
    versions: tuple[FieldVersion, ...], value: Hashable, end_step: float
) -> tuple[FieldVersion, ...]:
    return (*versions[:-1], versions[-1]._replace(until=end_step), FieldVersion(value, NEVER))


def _has_new_description(answer: Any, arguments: dict[str, Any]) -> bool:
    """Return whether the answer shows the values that the update was given."""
    return (
        isinstance(answer, Conversation)
        and changed_values(arguments).items() <= described_values(answer).items()
    )


RULES: dict[str, Rule] = {"update": update}
