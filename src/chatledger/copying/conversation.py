"""One conversation, brought over and compared.

This only says which operations come one after the other: it yields them, not yet called, and is
sent their answers, or thrown their errors.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

from chatledger.conversations import Conversation
from chatledger.copying.progress import Tally
from chatledger.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from chatledger.messages import Message, encode
from chatledger.sansio import Steps
from chatledger.stores.contract import Store

FIRST_PAGE = 16
PAGE_MESSAGES = 256
PAGE_CHARACTERS = 4 * 1024 * 1024
"""What is read, or restored, at once, about; at the least one message."""
TRIES = 5
"""How often a conversation is begun again that changed while it was copied."""

P = ParamSpec("P")
T = TypeVar("T")


class Differs(Exception):
    """The target holds something else; the text says what."""


def ask(operation: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> Steps[T]:
    answer: T = yield partial(operation, *arguments, **options)
    return answer


@dataclass(frozen=True, slots=True)
class One:
    """One conversation, here and there."""

    source: Store
    target: Store
    id: str
    owner: str | None
    tally: Tally

    def original(self) -> Steps[Conversation | None]:
        return (yield from _found(ask(self.source.get, self.id, owner=self.owner)))

    def arrived(self) -> Steps[Conversation | None]:
        return (yield from _found(ask(self.target.get, self.id)))


def _found(asking: Steps[T]) -> Steps[T | None]:
    try:
        return (yield from asking)
    except NotFound:
        return None


def settled(one: One) -> Steps[bool]:
    """Bring the conversation over, until neither side changes meanwhile.

    False: it ended in the source. Raises ``Differs``.
    """
    why = ""
    for _ in range(TRIES):
        original = yield from one.original()
        if original is None:
            return False
        there = yield from one.arrived()
        try:
            yield from _bring(one, original, there)
            return True
        except (Differs, Conflict, AlreadyExists, NotFound) as failed:
            why = str(failed)
        except InvalidArgument as refused:
            raise Differs(str(refused)) from refused
        if (yield from one.original()) == original and (yield from one.arrived()) == there:
            break
    raise Differs(why)


def _bring(one: One, original: Conversation, there: Conversation | None) -> Steps[None]:
    """Bring what is missing there of the conversation as it stood, and compare all of it."""
    revision = 0
    if there is not None:
        revision = there.revision
        _check_same(original, there, ("owner", "created_at"))
        if revision > original.revision:
            raise Differs(
                f"in the target it is at revision {revision}, ahead of the source's "
                f"{original.revision}"
            )
        yield from _compare(one, after=0, until=revision)
        described = (original.title, original.metadata)
        if (there.title, there.metadata) != described:
            yield from ask(
                one.target.update,
                one.id,
                title=original.title or "",
                metadata=original.metadata,
                revision=revision,
            )
    if revision < original.revision:
        yield from _restore(one, original, revision)
        yield from _compare(one, after=revision, until=original.revision)
    # Last: what moved meanwhile is seen here.
    now, there = (yield from one.original()), (yield from one.arrived())
    if now is None or there is None:
        raise Differs("it was deleted while it was copied")
    _check_same(now, there, _KEPT if now.expires_at is None else (*_KEPT, "expires_at"))


_KEPT = ("revision", "message_count", "owner", "title", "metadata", "created_at", "updated_at")


def _check_same(original: Conversation, there: Conversation, names: Sequence[str]) -> None:
    for name in names:
        ours, theirs = getattr(original, name), getattr(there, name)
        if ours != theirs:
            # No titles and no names of users: this may end in a log.
            raise Differs(f"its {name} differs in the target")


def _restore(one: One, original: Conversation, after: int) -> Steps[None]:
    """Put what lies behind ``after`` into the target, page by page.

    A page of the source is of one moment; what changes in between, the comparison finds.
    """
    limit = FIRST_PAGE
    seq: int | None = after
    standing = after
    while seq is not None:
        page = yield from ask(
            one.source.page,
            one.id,
            after=seq,
            before=original.revision + 1,
            limit=limit,
            owner=one.owner,
        )
        sizes = [len(encode(message)) for message in page.messages]
        limit = _next_limit(limit, sizes)
        runs = list(_runs(page.messages, sizes))
        # A gap behind a run goes along with it: one write less.
        ends = [_seq(following[0]) - 1 for following in runs[1:]]
        if runs:
            ends.append(original.revision if page.next is None else _seq(runs[-1][-1]))
        for messages, end in zip(runs, ends, strict=True):
            first = _seq(messages[0])
            if first > standing + 1:
                gap = replace(original, revision=first - 1)
                yield from ask(one.target.restore, gap, (), after=standing)
            stretch = replace(original, revision=end)
            yield from ask(one.target.restore, stretch, messages, after=first - 1)
            standing = end
            one.tally.copied.messages += len(messages)
            one.tally.tell(one.id)
        seq = page.next
    if standing < original.revision:
        yield from ask(one.target.restore, original, (), after=standing)


def _runs(messages: Sequence[Message], sizes: Sequence[int]) -> Generator[list[Message]]:
    """The messages in stretches without a gap, and of no more than a page's characters."""
    run: list[Message] = []
    characters = 0
    for message, size in zip(messages, sizes, strict=True):
        gap = run and _seq(message) != _seq(run[-1]) + 1
        if gap or (run and characters + size > PAGE_CHARACTERS):
            yield run
            run, characters = [], 0
        run.append(message)
        characters += size
    if run:
        yield run


def _compare(one: One, *, after: int, until: int) -> Steps[None]:
    """Raise ``Differs`` unless both hold the same messages behind ``after`` up to ``until``."""
    limit = FIRST_PAGE
    while True:
        ours = yield from ask(
            one.source.page, one.id, after=after, before=until + 1, limit=limit, owner=one.owner
        )
        theirs = yield from ask(one.target.page, one.id, after=after, before=until + 1, limit=limit)
        # As they are kept: == takes 1 for 1.0, and leaves the seq out.
        here = [(_seq(message), encode(message)) for message in ours.messages]
        there = [(_seq(message), encode(message)) for message in theirs.messages]
        common = min(len(here), len(there))
        for mine, other in zip(here, there, strict=False):
            if mine != other:
                raise Differs(f"message {min(mine[0], other[0])} differs in the target")
        if len(here) > common and theirs.next is None:
            raise Differs(f"message {here[common][0]} is missing in the target")
        if len(there) > common and ours.next is None:
            raise Differs(f"message {there[common][0]} of the target is not in the source")
        if ours.next is None and theirs.next is None:
            return
        if common:
            after = here[common - 1][0]
        limit = _next_limit(limit, [len(text) for _, text in here])


def _next_limit(limit: int, sizes: Sequence[int]) -> int:
    """How many messages to read next: more, while they are short."""
    return max(1, min(2 * limit, PAGE_MESSAGES, PAGE_CHARACTERS // max(sizes, default=1)))


def _seq(message: Message) -> int:
    assert message.seq is not None  # it was read
    return message.seq
