"""What a conversation may become by messages that come and go."""

from collections.abc import Iterator

from chatledger.conversations import Appended, Conversation
from chatledger.errors import AlreadyExists, Conflict, NotFound
from chatledger.stores.dynamodb.table import DAY
from chatledger.testing.simulation.history import PENDING, Operation
from chatledger.testing.simulation.model import (
    Life,
    Moment,
    Place,
    State,
    become,
    begun,
    behind,
    beyond,
    floor,
    increasing,
    known,
    left_with,
    live,
    read_as,
    refined,
    seen_as,
    text_of,
    views,
)
from chatledger.testing.simulation.rules.common import answered, changing, mended


def create(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in views(state, moment):
        if life is not None:
            if isinstance(op.answer, AlreadyExists):
                yield state
            continue
        revision = beyond(floor(state, moment))
        given = op.arguments
        new = begun(
            state,
            moment,
            op.default,
            revision,
            op.number,
            owner=given["owner"],
            title=given["title"] or None,
            metadata=text_of(given["metadata"] or {}),
            lifetime=given["lifetime"],
        )
        yield from answered(state, new, op, moment)


def append(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    given = op.arguments
    after, key, texts = given["after"], given["idempotency_key"], given["texts"]
    for life in views(state, moment):
        if life is None:
            if not after:
                new = begun(
                    state, moment, op.default, floor(state, moment), op.number, owner=given["owner"]
                )
                yield from _appended(state, new, op, moment, texts, key)
            elif isinstance(op.answer, NotFound):
                yield state
            continue
        if given["owner"] not in (None, life.owner):
            if isinstance(op.answer, NotFound):
                yield state
            continue
        if key is not None:
            done = next((entry for entry in life.keys if entry[0] == key), None)
            if done is not None:
                yield from _again(state, life, op, done)
                if moment.high < done[3] + DAY:
                    continue
        if after is not None:
            if isinstance(op.answer, Conflict):
                found = op.answer.revision
                if found != after and known(life.revision, found):
                    yield refined(state, life._replace(revision=found))
                continue
            if not known(life.revision, after):
                continue
            life = life._replace(revision=after)
        changed = live(life, moment, op.default)
        cut = given["truncate_after"]
        if cut is None:
            yield from _appended(state, changed, op, moment, texts, key)
            continue
        for many in behind(life.messages, cut):
            left = changed._replace(messages=life.messages[:many])
            yield from _appended(state, left, op, moment, texts, key)


def _appended(
    state: State, life: Life, op: Operation, moment: Moment, texts: list[str], key: str | None
) -> Iterator[State]:
    """``life`` stands as before, but for its times."""
    first = beyond(life.revision)
    if op.answer is PENDING or op.may_have_landed:
        places = tuple((first - n, text) for n, text in enumerate(texts))
        revision = beyond(life.revision, len(texts))
    elif isinstance(op.answer, Appended):
        seqs = op.answer.seqs
        if len(seqs) != len(texts) or not known(first, seqs[0]) or op.answer.revision < seqs[-1]:
            return
        first = seqs[0]
        places = tuple(zip(seqs, texts, strict=True))
        revision = op.answer.revision
    else:
        return
    keys = life.keys
    if key is not None:
        kept = tuple(entry for entry in keys if entry[0] != key)
        keys = (*kept, (key, first, len(texts), moment.low))
    messages = life.messages + places
    changed = life._replace(messages=messages, revision=revision, keys=keys)
    yield become(state, changed, moment)


def _again(
    state: State, life: Life, op: Operation, done: tuple[str, int, int, int]
) -> Iterator[State]:
    """The answer of the append that had the same key."""
    if not isinstance(op.answer, Appended):
        return
    key, first, many, when = done
    seqs = op.answer.seqs
    if len(seqs) != many or not known(first, seqs[0]) or op.answer.revision < seqs[-1]:
        return
    if first > 0:
        yield state
        return
    messages = tuple(
        (seqs[0] + first - seq, text) if first - many < seq <= first else (seq, text)
        for seq, text in life.messages
    )
    if not increasing(messages):
        return
    keys = tuple((key, seqs[0], many, when) if entry[0] == key else entry for entry in life.keys)
    yield refined(state, life._replace(keys=keys))


def truncate(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in changing(state, op, moment):
        if life is None:
            yield state
            continue
        for many in behind(life.messages, op.arguments["after"]):
            if many < len(life.messages):
                changed = left_with(life, moment, op.default, life.messages[:many])
                yield from answered(state, changed, op, moment)
            elif isinstance(op.answer, Conversation) and (seen := seen_as(life, op.answer, moment)):
                yield mended(refined(state, seen), seen, moment)


def pop(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in changing(state, op, moment):
        if life is None:
            yield state
            continue
        many = max(len(life.messages) - op.arguments["n"], 0)
        if op.acknowledged:
            if not isinstance(op.answer, list) or len(op.answer) != len(life.messages) - many:
                continue
            read = read_as(life, many, op.answer)
            if read is None:
                continue
            life = read
        if many < len(life.messages):
            yield become(state, left_with(life, moment, op.default, life.messages[:many]), moment)
        elif op.acknowledged:
            yield state


def replace(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    wanted, text = op.arguments["seq"], op.arguments["text"]
    expected = op.arguments["revision"]
    for life in changing(state, op, moment):
        if life is None:
            yield state
            continue
        if expected is not None:
            if isinstance(op.answer, Conflict):
                found = op.answer.revision
                if found != expected and known(life.revision, found):
                    yield refined(state, life._replace(revision=found))
                continue
            if not known(life.revision, expected):
                continue
            life = life._replace(revision=expected)
        if isinstance(op.answer, NotFound):
            if all(seq != wanted for seq, _ in life.messages):
                yield state
            continue
        for index, (seq, _) in enumerate(life.messages):
            if known(seq, wanted):
                messages: list[Place] = list(life.messages)
                messages[index] = (wanted, text)
                if increasing(messages):
                    changed = left_with(life, moment, op.default, messages)
                    yield from answered(state, changed, op, moment)


def delete(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in changing(state, op, moment):
        if life is None:
            yield state
        elif not op.refused or not op.acknowledged:
            yield become(state, None, moment)
