"""What may become of title and metadata, which lie beside the messages."""

from collections.abc import Iterator
from typing import Any

from chatledger.conversations import Conversation
from chatledger.errors import Conflict
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.model import (
    NEVER,
    Life,
    Moment,
    Once,
    State,
    known,
    refined,
    seen_as,
    text_of,
    views,
)
from chatledger.testing.simulation.rules.common import changing


def update(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    given = op.arguments
    for life in changing(state, op, moment):
        if life is None:
            yield state
            continue
        if given["revision"] is not None:
            if isinstance(op.answer, Conflict):
                found = op.answer.revision
                if found != given["revision"] and known(life.revision, found):
                    yield refined(state, life._replace(revision=found))
                continue
            if not known(life.revision, given["revision"]):
                continue
            life = life._replace(revision=given["revision"])
        if op.acknowledged and not _shows(op.answer, given):
            continue
        # Lists show it at once, however far they lag behind otherwise.
        shown = tuple(
            old._replace(life=_described(old.life, given, op.done))
            if old.life is not None and old.life.number == life.number
            else old
            for old in state.shown
        )
        yield state._replace(life=_described(life, given, op.done), shown=shown)


def update_read(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    """What an update answers beside what it changed: that lies in another item."""
    for life in views(state, moment):
        if life is not None and isinstance(op.answer, Conversation):
            seen = seen_as(life, op.answer, moment)
            if seen is not None:
                yield refined(state, seen)


def _described(life: Life, given: dict[str, Any], done: float) -> Life:
    titles, metadata = life.titles, life.metadata
    if given["title"] is not None:
        titles = _replaced(titles, given["title"] or None, done)
    if given["metadata"] is not None:
        metadata = _replaced(metadata, text_of(given["metadata"]), done)
    return life._replace(titles=titles, metadata=metadata)


def _shows(answer: Any, given: dict[str, Any]) -> bool:
    """Whether an update answers with what it was given itself."""
    return (
        isinstance(answer, Conversation)
        and (given["title"] is None or answer.title == (given["title"] or None))
        and (given["metadata"] is None or answer.metadata == given["metadata"])
    )


def _replaced(texts: tuple[Once, ...], text: str | None, done: float) -> tuple[Once, ...]:
    return (*texts[:-1], Once(texts[-1].text, done), Once(text, NEVER))
