"""Steps that copy one conversation and compare it with the original.

The steps yield the operations of both stores without calling them, and receive their results or
errors.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

from chatledger.conversations import Conversation
from chatledger.copying.progress import ProgressReporter
from chatledger.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from chatledger.messages import Message, encode
from chatledger.sansio import Steps
from chatledger.stores.contract import Store

FIRST_PAGE_MESSAGES = 16
PAGE_MESSAGES = 256
PAGE_CHARACTERS = 4 * 1024 * 1024
"""Approximate limit on what is read, or restored, at once; a single message may exceed it."""
COPY_TRIES = 5
"""The most attempts to copy a conversation that changes meanwhile."""
_COMPARED_FIELDS = (
    "revision",
    "message_count",
    "owner",
    "title",
    "metadata",
    "created_at",
    "updated_at",
)

P = ParamSpec("P")
T = TypeVar("T")


class TargetDiffers(Exception):
    """The target has other content than the source; the message says what differs."""


def call(operation: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> Steps[T]:
    """Call an operation of a store and return its result."""
    result: T = yield partial(operation, *arguments, **options)
    return result


@dataclass(frozen=True, slots=True)
class ConversationCopy:
    """One conversation, in the source and in the target."""

    source: Store
    target: Store
    id: str
    owner: str | None
    reporter: ProgressReporter

    def read_original(self) -> Steps[Conversation | None]:
        return (yield from _none_if_missing(call(self.source.get, self.id, owner=self.owner)))

    def read_copy(self) -> Steps[Conversation | None]:
        return (yield from _none_if_missing(call(self.target.get, self.id)))


def _none_if_missing(steps: Steps[T]) -> Steps[T | None]:
    try:
        return (yield from steps)
    except NotFound:
        return None


def copy_until_stable(copy: ConversationCopy) -> Steps[bool]:
    """Copy a conversation, again if either side changed meanwhile.

    Returns False if the conversation no longer exists in the source.

    Raises:
        TargetDiffers: The target has other content.
    """
    why = ""
    for _ in range(COPY_TRIES):
        original = yield from copy.read_original()
        if original is None:
            return False
        copied = yield from copy.read_copy()
        try:
            yield from _copy_once(copy, original, copied)
            return True
        except (TargetDiffers, Conflict, AlreadyExists, NotFound) as failed:
            why = str(failed)
        except InvalidArgument as invalid:
            raise TargetDiffers(str(invalid)) from invalid
        original_now = yield from copy.read_original()
        if original_now == original and (yield from copy.read_copy()) == copied:
            break
    raise TargetDiffers(why)


def _copy_once(
    copy: ConversationCopy, original: Conversation, copied: Conversation | None
) -> Steps[None]:
    """Copy the messages and the description that the target lacks, and compare everything."""
    revision = 0
    if copied is not None:
        revision = copied.revision
        _check_same(original, copied, ("owner", "created_at"))
        if revision > original.revision:
            raise TargetDiffers(
                f"in the target it is at revision {revision}, ahead of the source's "
                f"{original.revision}"
            )
        yield from _compare(copy, after=0, until=revision)
        if (copied.title, copied.metadata) != (original.title, original.metadata):
            yield from call(
                copy.target.update,
                copy.id,
                title=original.title or "",
                metadata=original.metadata,
                revision=revision,
            )
    if revision < original.revision:
        yield from _restore(copy, original, revision)
        yield from _compare(copy, after=revision, until=original.revision)
    # This comes last to detect changes during the copy.
    original_now = yield from copy.read_original()
    copied_now = yield from copy.read_copy()
    if original_now is None or copied_now is None:
        raise TargetDiffers("it was deleted while it was copied")
    fields: tuple[str, ...] = _COMPARED_FIELDS
    if original_now.expires_at is not None:
        fields += ("expires_at",)
    _check_same(original_now, copied_now, fields)


def _check_same(original: Conversation, copied: Conversation, names: Sequence[str]) -> None:
    for name in names:
        if getattr(original, name) != getattr(copied, name):
            # Name no title, owner or metadata: the sentence may end up in a log.
            raise TargetDiffers(f"its {name} differs in the target")


def _restore(copy: ConversationCopy, original: Conversation, after: int) -> Steps[None]:
    """Restore the messages after ``after`` in the target, page by page.

    Each page of the source is consistent. Changes between two pages are found by ``_compare``.
    """
    limit = FIRST_PAGE_MESSAGES
    next_after: int | None = after
    revision = after  # of the target
    while next_after is not None:
        page = yield from call(
            copy.source.page,
            copy.id,
            after=next_after,
            before=original.revision + 1,
            limit=limit,
            owner=copy.owner,
        )
        sizes = [len(encode(message)) for message in page.messages]
        limit = _next_limit(limit, sizes)
        runs = list(_runs(page.messages, sizes))
        # A run is restored together with the gap after it, which saves a write.
        ends = [following[0].seq - 1 for following in runs[1:]]
        if runs:
            ends.append(original.revision if page.next is None else runs[-1][-1].seq)
        for messages, end in zip(runs, ends, strict=True):
            first = messages[0].seq
            if first > revision + 1:
                up_to_gap = replace(original, revision=first - 1)
                yield from call(copy.target.restore, up_to_gap, (), revision=revision)
            up_to_end = replace(original, revision=end)
            yield from call(copy.target.restore, up_to_end, messages, revision=first - 1)
            revision = end
            copy.reporter.copied.messages += len(messages)
            copy.reporter.report(copy.id)
        next_after = page.next
    if revision < original.revision:
        yield from call(copy.target.restore, original, (), revision=revision)


def _runs(messages: Sequence[Message], sizes: Sequence[int]) -> Generator[list[Message]]:
    """Split the messages into runs of consecutive seqs, each of at most ``PAGE_CHARACTERS``."""
    run: list[Message] = []
    characters = 0
    for message, size in zip(messages, sizes, strict=True):
        is_gap = run and message.seq != run[-1].seq + 1
        if is_gap or (run and characters + size > PAGE_CHARACTERS):
            yield run
            run, characters = [], 0
        run.append(message)
        characters += size
    if run:
        yield run


def _compare(copy: ConversationCopy, *, after: int, until: int) -> Steps[None]:
    """Raise ``TargetDiffers`` unless both have the same messages from ``after`` up to ``until``."""
    limit = FIRST_PAGE_MESSAGES
    while True:
        source_page = yield from call(
            copy.source.page, copy.id, after=after, before=until + 1, limit=limit, owner=copy.owner
        )
        target_page = yield from call(
            copy.target.page, copy.id, after=after, before=until + 1, limit=limit
        )
        # Compared as JSON, because == takes 1 for 1.0 and ignores the seq.
        originals = [(message.seq, encode(message)) for message in source_page.messages]
        copies = [(message.seq, encode(message)) for message in target_page.messages]
        common = min(len(originals), len(copies))
        for one, other in zip(originals, copies, strict=False):
            if one != other:
                raise TargetDiffers(f"message {min(one[0], other[0])} differs in the target")
        if len(originals) > common and target_page.next is None:
            raise TargetDiffers(f"message {originals[common][0]} is missing in the target")
        if len(copies) > common and source_page.next is None:
            raise TargetDiffers(f"message {copies[common][0]} of the target is not in the source")
        if source_page.next is None and target_page.next is None:
            return
        if common:
            after = originals[common - 1][0]
        limit = _next_limit(limit, [len(text) for _, text in originals])


def _next_limit(limit: int, sizes: Sequence[int]) -> int:
    """Return how many messages to read next: twice as many, while they are short enough."""
    return max(1, min(2 * limit, PAGE_MESSAGES, PAGE_CHARACTERS // max(sizes, default=1)))
