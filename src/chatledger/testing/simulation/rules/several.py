"""What operations on several conversations may make of each, and show of it."""

from collections.abc import Iterator

from chatledger.conversations import LAST_REVISION, Conversation
from chatledger.errors import AlreadyExists
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.model import (
    NEVER,
    Life,
    Moment,
    Once,
    State,
    become,
    begun,
    behind,
    beyond,
    floor,
    seen_as,
    time_of,
    views,
)
from chatledger.testing.simulation.rules.common import answered


def listed(
    state: State, op: Operation, moment: Moment, shown: Conversation | None
) -> Iterator[State]:
    """A list showed the conversation so, or not at all."""
    start = _surely_shown(state, op)
    for place in range(start, len(state.shown)):
        life = state.shown[place].life
        if life is not None and life.owner != op.arguments["owner"]:
            life = None
        if shown is None:
            # One that changes meanwhile moves to the front, and a page may miss it on its way.
            moved = len(state.shown) - start > 1
            over = life is None or (life.expiry is not None and moment.high >= life.expiry[0])
            fits = over or moved
        else:
            fits = (
                life is not None
                and seen_as(life, shown, moment) is not None
                and (shown.expires_at is None or moment.low < time_of(shown.expires_at))
            )
        if fits:
            # What lists show never goes back.
            yield state._replace(shown=state.shown[place:])
            return


def owner_deleted(state: State, op: Operation, moment: Moment) -> Iterator[tuple[State, int]]:
    """The conversation went with all its owner's, or did not; and how many that were."""
    owner = op.arguments["owner"]
    for life in views(state, moment):
        if life is None:
            yield state, 0
            if state.life is not None and state.life.owner == owner:
                yield become(state, None, moment), 0  # it had expired
        elif life.owner != owner:
            yield state, 0
        else:
            yield become(state, None, moment), 1
            hidden = state.shown[_surely_shown(state, op) :]
            if any(seen.life is None or seen.life.owner != owner for seen in hidden):
                yield state, 0  # started by somebody who did not come to list it


def _surely_shown(state: State, op: Operation) -> int:
    """Since when, at the latest, lists show it that begin with the operation."""
    for place in range(len(state.shown) - 1, 0, -1):
        if state.shown[place].until < op.begun:
            return place
    return 0


"""What a fork took with it of its source."""


def copied(state: State, op: Operation, moment: Moment) -> Iterator[tuple[State, Life]]:
    """The source, which stays as it is, and what a fork may take of it."""
    at = op.arguments["at"]
    for life in views(state, moment):
        if life is None or op.arguments["owner"] not in (None, life.owner):
            continue
        for many in behind(life.messages, LAST_REVISION if at is None else at):
            yield state, life._replace(messages=life.messages[:many])


def forked(state: State, op: Operation, moment: Moment, copy: Life) -> Iterator[State]:
    for life in views(state, moment):
        if life is not None:
            continue
        least = floor(state, moment)
        first = beyond(least)
        messages = tuple((first - n, text) for n, (_, text) in enumerate(copy.messages))
        new = begun(
            state,
            moment,
            op.default,
            beyond(least, max(len(messages), 1)),
            op.number,
            owner=copy.owner,
            lifetime=copy.lifetime,
            messages=messages,
        )
        titles = {once.text for once in copy.titles if once.until >= moment.begun}
        for title in titles | moment.titles:
            metadata = {once.text for once in copy.metadata if once.until >= moment.begun}
            for text in metadata | moment.metadata:
                described = new._replace(
                    titles=(Once(title, NEVER),), metadata=(Once(text, NEVER),)
                )
                yield from answered(state, described, op, moment)


def fork_refused(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    """By the source, as ``NotFound``, or by the target, as ``AlreadyExists``."""
    for life in views(state, moment):
        if isinstance(op.answer, AlreadyExists):
            if life is not None:
                yield state
        elif life is None or op.arguments["owner"] not in (None, life.owner):
            yield state
