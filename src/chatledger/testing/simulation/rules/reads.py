"""What reading a conversation may answer."""

from collections.abc import Iterator
from typing import Any

from chatledger.conversations import LAST_REVISION, Conversation, Page, Tail
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.model import (
    Life,
    Moment,
    State,
    behind,
    read_as,
    refined,
    seen_as,
)
from chatledger.testing.simulation.rules.common import mended, reading


def get(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in reading(state, op, moment):
        if life is None:
            yield state
        elif isinstance(op.answer, Conversation) and (seen := seen_as(life, op.answer, moment)):
            yield mended(refined(state, seen), seen, moment)


def tail(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in reading(state, op, moment):
        if life is None:
            yield state
        elif isinstance(op.answer, Tail) and (
            seen := seen_as(life, op.answer.conversation, moment)
        ):
            messages = op.answer.messages
            if len(messages) != min(op.arguments["n"], len(seen.messages)):
                continue
            read = read_as(seen, len(seen.messages) - len(messages), messages)
            if read is not None:
                yield mended(refined(state, read), read, moment)


def page(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in reading(state, op, moment):
        if life is None:
            yield state
        elif isinstance(op.answer, Page):
            for read in _paged(life, op.arguments, op.answer):
                yield refined(state, read)


def _paged(life: Life, given: dict[str, Any], answer: Page) -> Iterator[Life]:
    after, before, limit = given["after"], given["before"], given["limit"]
    back = after is None and before is not None
    messages = list(reversed(answer.messages)) if back else answer.messages
    for start in behind(life.messages, after or 0):
        for end in behind(life.messages, LAST_REVISION if before is None else before - 1):
            many = max(end - start, 0)
            if len(messages) != min(many, limit):
                continue
            following = answer.messages[-1].seq if many > limit else None
            if answer.next != following:
                continue
            read = read_as(life, end - len(messages) if back else start, messages)
            if read is not None:
                yield read
