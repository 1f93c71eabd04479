"""What rules have in common."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from chatledger.conversations import Conversation
from chatledger.errors import NotFound
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.model import Life, Moment, Shown, State, become, seen_as, views

MENDED_AFTER = 60_000
"""How long ago (ms) a conversation must have changed until a reader mends what lists show."""

Rule: TypeAlias = Callable[[State, Operation, Moment], Iterator[State]]


def reading(state: State, op: Operation, moment: Moment) -> Iterator[Life | None]:
    """The lives that may have answered; None where the answer says that there was none."""
    refused = isinstance(op.answer, NotFound)
    for life in views(state, moment):
        exists = life is not None and op.arguments["owner"] in (None, life.owner)
        if refused:
            if not exists:
                yield None
        elif exists:
            yield life


def changing(state: State, op: Operation, moment: Moment) -> Iterator[Life | None]:
    """As ``_reading``; but a life too may answer that a message is not there."""
    refused = isinstance(op.answer, NotFound)
    for life in views(state, moment):
        exists = life is not None and op.arguments["owner"] in (None, life.owner)
        if refused and not exists:
            yield None
        if exists and not (refused and op.answer.seq is None):
            yield life


def answered(state: State, changed: Life, op: Operation, moment: Moment) -> Iterator[State]:
    """The state after a write that answers with the conversation."""
    if not op.acknowledged:
        yield become(state, changed, moment)
    elif isinstance(op.answer, Conversation):
        seen = seen_as(changed, op.answer, moment)
        if seen is not None:
            yield become(state, seen, moment)


def mended(state: State, life: Life, moment: Moment) -> State:
    if moment.low <= life.updated[1] + MENDED_AFTER:
        return state
    return state._replace(shown=(*state.shown, Shown(life, moment.done)))
