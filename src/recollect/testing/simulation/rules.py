"""What each operation of the contract may make of a conversation, given what it answered.

A rule yields every state that may follow; none says that the answer cannot be explained there. Of
an operation without an answer it yields the states in which it took effect.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from recollect.conversations import LAST_REVISION, Appended, Conversation, Page, Tail
from recollect.errors import AlreadyExists, Conflict, NotFound
from recollect.stores.dynamodb.table import DAY
from recollect.testing.simulation.history import PENDING, Operation
from recollect.testing.simulation.model import (
    NEVER,
    Life,
    Moment,
    Once,
    Place,
    Shown,
    State,
    become,
    begun,
    behind,
    beyond,
    floor,
    increasing,
    known,
    live,
    read_as,
    refined,
    seen_as,
    text_of,
    time_of,
    views,
)

MENDED_AFTER = 60_000
"""How long ago (ms) a conversation must have changed until a reader mends what lists show."""

Rule: TypeAlias = Callable[[State, Operation, Moment], Iterator[State]]


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
        yield from _answered(state, new, op, moment)


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
        yield from _appended(state, changed, op, moment, texts, key)


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


def get(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in _reading(state, op, moment):
        if life is None:
            yield state
        elif isinstance(op.answer, Conversation) and (seen := seen_as(life, op.answer, moment)):
            yield _mended(refined(state, seen), seen, moment)


def tail(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in _reading(state, op, moment):
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
                yield _mended(refined(state, read), read, moment)


def page(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in _reading(state, op, moment):
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


def truncate(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in _changing(state, op, moment):
        if life is None:
            yield state
            continue
        for many in behind(life.messages, op.arguments["after"]):
            if many < len(life.messages):
                changed = live(
                    life,
                    moment,
                    op.default,
                    messages=life.messages[:many],
                    revision=beyond(life.revision),
                )
                yield from _answered(state, changed, op, moment)
            elif isinstance(op.answer, Conversation) and (seen := seen_as(life, op.answer, moment)):
                yield _mended(refined(state, seen), seen, moment)


def pop(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in _changing(state, op, moment):
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
            changed = live(
                life,
                moment,
                op.default,
                messages=life.messages[:many],
                revision=beyond(life.revision),
            )
            yield become(state, changed, moment)
        elif op.acknowledged:
            yield state


def replace(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    wanted, text = op.arguments["seq"], op.arguments["text"]
    for life in _changing(state, op, moment):
        if life is None:
            yield state
            continue
        if isinstance(op.answer, NotFound):
            if all(seq != wanted for seq, _ in life.messages):
                yield state
            continue
        for index, (seq, _) in enumerate(life.messages):
            if known(seq, wanted):
                messages: list[Place] = list(life.messages)
                messages[index] = (wanted, text)
                if increasing(messages):
                    changed = live(
                        life,
                        moment,
                        op.default,
                        messages=tuple(messages),
                        revision=beyond(life.revision),
                    )
                    yield from _answered(state, changed, op, moment)


def update(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    given = op.arguments
    for life in _changing(state, op, moment):
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


def delete(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    for life in _changing(state, op, moment):
        if life is None:
            yield state
        elif not op.refused or not op.acknowledged:
            yield become(state, None, moment)


RULES: dict[str, Rule] = {
    "create": create,
    "append": append,
    "get": get,
    "tail": tail,
    "page": page,
    "truncate": truncate,
    "pop": pop,
    "replace": replace,
    "update": update,
    "delete": delete,
}


# An owner's conversations -------------------------------------------------------------------------


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


# Forks --------------------------------------------------------------------------------------------

Copied: TypeAlias = Life
"""What a fork took with it of its source."""


def copied(state: State, op: Operation, moment: Moment) -> Iterator[tuple[State, Copied]]:
    at = op.arguments["at"]
    for life in views(state, moment):
        if life is None or op.arguments["owner"] not in (None, life.owner):
            continue
        for many in behind(life.messages, LAST_REVISION if at is None else at):
            yield state, life._replace(messages=life.messages[:many])


def forked(state: State, op: Operation, moment: Moment, copy: Copied) -> Iterator[State]:
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
                yield from _answered(state, described, op, moment)


def fork_refused(state: State, op: Operation, moment: Moment) -> Iterator[State]:
    """By the source, as ``NotFound``, or by the target, as ``AlreadyExists``."""
    for life in views(state, moment):
        if isinstance(op.answer, AlreadyExists):
            if life is not None:
                yield state
        elif life is None or op.arguments["owner"] not in (None, life.owner):
            yield state


# What they have in common -------------------------------------------------------------------------


def _reading(state: State, op: Operation, moment: Moment) -> Iterator[Life | None]:
    """The lives that may have answered; None where the answer says that there was none."""
    refused = isinstance(op.answer, NotFound)
    for life in views(state, moment):
        exists = life is not None and op.arguments["owner"] in (None, life.owner)
        if refused:
            if not exists:
                yield None
        elif exists:
            yield life


def _changing(state: State, op: Operation, moment: Moment) -> Iterator[Life | None]:
    """As ``_reading``; but a life too may answer that a message is not there."""
    refused = isinstance(op.answer, NotFound)
    for life in views(state, moment):
        exists = life is not None and op.arguments["owner"] in (None, life.owner)
        if refused and not exists:
            yield None
        if exists and not (refused and op.answer.seq is None):
            yield life


def _answered(state: State, changed: Life, op: Operation, moment: Moment) -> Iterator[State]:
    """The state after a write that answers with the conversation."""
    if not op.acknowledged:
        yield become(state, changed, moment)
    elif isinstance(op.answer, Conversation):
        seen = seen_as(changed, op.answer, moment)
        if seen is not None:
            yield become(state, seen, moment)


def _mended(state: State, life: Life, moment: Moment) -> State:
    if moment.low <= life.updated[1] + MENDED_AFTER:
        return state
    return state._replace(shown=(*state.shown, Shown(life, moment.done)))
