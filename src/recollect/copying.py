"""Moving data: what one store holds, copied to another of any kind, and compared there."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ParamSpec, TypeAlias, TypeVar, cast

from recollect.conversations import LIMIT, Conversation
from recollect.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
)
from recollect.messages import Message, encode
from recollect.steps import Steps, arun, run
from recollect.stores.contract import AsyncStore, Store

FIRST_PAGE = 16
PAGE_MESSAGES = 256
PAGE_CHARACTERS = 4 * 1024 * 1024
"""What is read, or restored, at once, about; at the least one message."""
TRIES = 5
"""How often a conversation is begun again that changed while it was copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a copy is: conversations it is through with, messages it has brought over."""

    conversations: int
    messages: int
    conversation_id: str
    """The one it is at."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A conversation that does not stand in the target as it does in the source, and why."""

    conversation_id: str
    why: str


@dataclass(slots=True)
class Copied:
    """What a copy did.

    ``conversations`` is how many stand in the target as in the source, be it from this run or from
    one before; ``messages`` how many this run brought over. What is in ``mismatches`` needs
    somebody to look at it.
    """

    conversations: int = 0
    messages: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


Tell: TypeAlias = Callable[[Progress], object]


def copy(
    source: Store, target: Store, *, owner: str | None = None, progress: Tell | None = None
) -> Copied:
    """Copy every conversation of ``source``, or all of ``owner``'s, to ``target``.

    Ids, seqs, times, owners, titles, metadata and revisions are kept, so that what a client
    remembers of a conversation is as good afterwards as before. Each conversation is read back and
    compared once it has arrived. One that the target holds in another form is left alone and
    named in the answer.

    Nothing is changed in the source. Whatever ends it, call it again: it goes on behind what has
    arrived. It brings what came to the source meanwhile, too. ``progress`` is told after every
    stretch of messages, of some megabytes at most, and after every conversation.
    """
    return run(_everything(source, target, owner, progress))


async def acopy(
    source: AsyncStore,
    target: AsyncStore,
    *,
    owner: str | None = None,
    progress: Tell | None = None,
) -> Copied:
    """As ``copy``, for async stores."""
    # The same names and signatures: only who calls must know which of them are awaited.
    return await arun(_everything(cast(Store, source), cast(Store, target), owner, progress))


# What follows only says which operations come one after the other: it yields them, not yet called,
# and is sent their answers, or thrown their errors. -----------------------------------------------

P = ParamSpec("P")
T = TypeVar("T")


class _Differs(Exception):
    """The target holds something else; the text says what."""


def _ask(operation: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> Steps[T]:
    answer: T = yield partial(operation, *arguments, **options)
    return answer


def _everything(
    source: Store, target: Store, owner: str | None, progress: Tell | None
) -> Steps[Copied]:
    tally = _Tally(progress)
    cursor: str | None = None
    while True:
        if owner is None:
            listing = yield from _ask(source.scan, limit=LIMIT, cursor=cursor)
        else:
            listing = yield from _ask(source.list, owner, limit=LIMIT, cursor=cursor)
        for listed in listing.conversations:
            one = _One(source, target, listed.id, owner, tally)
            try:
                tally.copied.conversations += yield from _settled(one)
            except _Differs as why:
                tally.copied.mismatches.append(Mismatch(listed.id, str(why)))
            tally.through += 1
            tally.tell(listed.id)
        cursor = listing.cursor
        if cursor is None:
            return tally.copied


@dataclass(slots=True)
class _Tally:
    """What was done so far, for whoever wants to be told."""

    progress: Tell | None
    copied: Copied = field(default_factory=Copied)
    through: int = 0

    def tell(self, conversation_id: str) -> None:
        if self.progress is not None:
            self.progress(
                Progress(
                    conversations=self.through,
                    messages=self.copied.messages,
                    conversation_id=conversation_id,
                )
            )


@dataclass(frozen=True, slots=True)
class _One:
    """One conversation, here and there."""

    source: Store
    target: Store
    id: str
    owner: str | None
    tally: _Tally

    def original(self) -> Steps[Conversation | None]:
        return (yield from _found(_ask(self.source.get, self.id, owner=self.owner)))

    def arrived(self) -> Steps[Conversation | None]:
        return (yield from _found(_ask(self.target.get, self.id)))


def _found(asking: Steps[T]) -> Steps[T | None]:
    try:
        return (yield from asking)
    except NotFound:
        return None


def _settled(one: _One) -> Steps[bool]:
    """Bring the conversation over, until neither side changes meanwhile.

    False: it ended in the source. Raises ``_Differs``.
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
        except (_Differs, Conflict, AlreadyExists, NotFound) as failed:
            why = str(failed)
        except InvalidArgument as refused:
            raise _Differs(str(refused)) from refused
        if (yield from one.original()) == original and (yield from one.arrived()) == there:
            break
    raise _Differs(why)


def _bring(one: _One, original: Conversation, there: Conversation | None) -> Steps[None]:
    """Bring what is missing there of the conversation as it stood, and compare all of it."""
    revision = 0
    if there is not None:
        revision = there.revision
        _check_same(original, there, ("owner", "created_at"))
        if revision > original.revision:
            raise _Differs(
                f"in the target it is at revision {revision}, ahead of the source's "
                f"{original.revision}"
            )
        yield from _compare(one, after=0, until=revision)
        described = (original.title, original.metadata)
        if (there.title, there.metadata) != described:
            yield from _ask(
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
        raise _Differs("it was deleted while it was copied")
    _check_same(now, there, _KEPT if now.expires_at is None else (*_KEPT, "expires_at"))


_KEPT = ("revision", "message_count", "owner", "title", "metadata", "created_at", "updated_at")


def _check_same(original: Conversation, there: Conversation, names: Sequence[str]) -> None:
    for name in names:
        ours, theirs = getattr(original, name), getattr(there, name)
        if ours != theirs:
            # No titles and no names of users: this may end in a log.
            raise _Differs(f"its {name} differs in the target")


def _restore(one: _One, original: Conversation, after: int) -> Steps[None]:
    """Put what lies behind ``after`` into the target, page by page.

    A page of the source is of one moment; what changes in between, the comparison finds.
    """
    limit = FIRST_PAGE
    seq: int | None = after
    standing = after
    while seq is not None:
        page = yield from _ask(
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
                yield from _ask(one.target.restore, gap, (), after=standing)
            stretch = replace(original, revision=end)
            yield from _ask(one.target.restore, stretch, messages, after=first - 1)
            standing = end
            one.tally.copied.messages += len(messages)
            one.tally.tell(one.id)
        seq = page.next
    if standing < original.revision:
        yield from _ask(one.target.restore, original, (), after=standing)


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


def _compare(one: _One, *, after: int, until: int) -> Steps[None]:
    """Raise ``_Differs`` unless both hold the same messages behind ``after`` up to ``until``."""
    limit = FIRST_PAGE
    while True:
        ours = yield from _ask(
            one.source.page, one.id, after=after, before=until + 1, limit=limit, owner=one.owner
        )
        theirs = yield from _ask(
            one.target.page, one.id, after=after, before=until + 1, limit=limit
        )
        # As they are kept: == takes 1 for 1.0, and leaves the seq out.
        here = [(_seq(message), encode(message)) for message in ours.messages]
        there = [(_seq(message), encode(message)) for message in theirs.messages]
        common = min(len(here), len(there))
        for mine, other in zip(here, there, strict=False):
            if mine != other:
                raise _Differs(f"message {min(mine[0], other[0])} differs in the target")
        if len(here) > common and theirs.next is None:
            raise _Differs(f"message {here[common][0]} is missing in the target")
        if len(there) > common and ours.next is None:
            raise _Differs(f"message {there[common][0]} of the target is not in the source")
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
