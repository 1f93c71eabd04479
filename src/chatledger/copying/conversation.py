"""Steps that copy one conversation and compare it with the original.

The steps yield the operations of both sides without calling them, and receive their results or
errors.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from chatledger.conversations import DESCRIPTION_FIELDS, Conversation, Page, fields_of
from chatledger.copying.entries import EntriesCopy
from chatledger.copying.progress import Problem, ProgressReporter, TargetDiffers
from chatledger.errors import (
    AlreadyExists,
    Conflict,
    ConversationDamaged,
    InvalidArgument,
    NotFound,
    StoreMismatch,
    TableMismatch,
    TableMissing,
)
from chatledger.messages import Message, StoredMessage, encode
from chatledger.sansio import Steps, call
from chatledger.stores.contract import Store

FIRST_PAGE_MESSAGES = 16
PAGE_MESSAGES = 256
PAGE_CHARACTERS = 4 * 1024 * 1024
"""Approximate limit on what is read, or restored, at once; a single message may exceed it."""
MAX_ATTEMPTS = 5
"""The most attempts to copy a conversation that changes meanwhile."""

T = TypeVar("T")


@runtime_checkable
class Source(Protocol):
    """Conversations that were not stored by Chatledger; ``copy`` copies them to a store.

    The seqs and revisions that a source gives are ignored: a message gets the next seq of the
    target.
    """

    def conversations(self) -> Iterator[Conversation | Problem]:
        """Yield every conversation, or the problem that makes it unreadable.

        A conversation's ``message_count`` is the number of messages to copy.
        """
        ...

    def page(self, conversation_id: str, *, after: int, limit: int) -> Page:
        """Return messages of the conversation that was yielded last, oldest first.

        A message must be the same each time it is read, except for its ``created_at``.

        Args:
            conversation_id: That conversation.
            after: The number of the message to continue after, counted from 1; 0 starts at the
                first.
            limit: The most messages to return; at least 1.

        Returns:
            The messages. ``next`` is ignored.
        """
        ...


def _none_if_missing(steps: Steps[T]) -> Steps[T | None]:
    try:
        return (yield from steps)
    except NotFound:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(ABC):
    """A conversation in the source, and the one with the same id in the target."""

    target: Store
    id: str
    reporter: ProgressReporter

    fixed_fields: ClassVar[tuple[str, ...]]
    """Fields that are compared before anything is written."""
    changing_fields: ClassVar[tuple[str, ...]]
    """Fields that must be the same in the end as well."""

    @abstractmethod
    def read_original(self, copied: Conversation | None) -> Steps[Conversation | None]:
        """Return the source's conversation; None if it no longer exists.

        Args:
            copied: The conversation in the target, which this one is to continue.
        """

    @abstractmethod
    def read_page(
        self, original: Conversation, *, after: int, until: int, limit: int
    ) -> Steps[Page]:
        """Return messages of the source, with the seqs that they should have in the target."""

    @abstractmethod
    def text(self, message: Message) -> str:
        """Return a text that is equal for a message and its copy."""

    def copy_description(self, original: Conversation, copied: Conversation) -> Steps[None]:
        """Copy the description if it differs."""
        yield from ()

    def copy_entries(self) -> Steps[None]:
        """Copy the entries that differ."""
        yield from ()

    def read_copy(self) -> Steps[Conversation | None]:
        return (yield from _none_if_missing(call(self.target.get, self.id)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCopy(Pair):
    """A conversation that is copied from one store to another, as it is."""

    source: Store
    owner: str | None

    fixed_fields = ("owner", "created_at")
    changing_fields = (
        *("revision", "message_count", *DESCRIPTION_FIELDS, "updated_at", "expires_at"),
    )

    def read_original(self, copied: Conversation | None) -> Steps[Conversation | None]:
        return (yield from _none_if_missing(call(self.source.get, self.id, owner=self.owner)))

    def read_page(
        self, original: Conversation, *, after: int, until: int, limit: int
    ) -> Steps[Page]:
        return (
            yield from call(
                self.source.page,
                self.id,
                after=after,
                before=until + 1,
                limit=limit,
                owner=self.owner,
            )
        )

    def text(self, message: Message) -> str:
        # JSON, because == takes 1 for 1.0.
        return encode(message)

    def copy_description(self, original: Conversation, copied: Conversation) -> Steps[None]:
        description = fields_of(original)
        if fields_of(copied) != description:
            # None would leave the title as it is; an empty one removes it.
            changes: dict[str, Any] = {
                name: "" if value is None else value for name, value in description.items()
            }
            yield from call(self.target.update, self.id, **changes, revision=copied.revision)

    def copy_entries(self) -> Steps[None]:
        copy = EntriesCopy(
            source=self.source,
            target=self.target,
            conversation_id=self.id,
            owner=self.owner,
            reporter=self.reporter,
        )
        yield from copy.copy()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationImport(Pair):
    """A conversation of a ``Source``, whose messages get the seqs 1, 2 and so on in the target.

    If it had no messages when it was first copied, they get the seqs 2, 3 and so on, because a
    conversation without messages has used up seq 1.
    """

    source: Source
    conversation: Conversation

    fixed_fields = ("owner",)
    changing_fields = ("revision", "message_count")

    def read_original(self, copied: Conversation | None) -> Steps[Conversation | None]:
        yield from ()  # a source shows each conversation as it was at one moment
        began_empty = copied is not None and copied.revision == copied.message_count + 1
        revision = max(self.conversation.message_count + began_empty, 1)
        return replace(self.conversation, revision=revision)

    def read_page(
        self, original: Conversation, *, after: int, until: int, limit: int
    ) -> Steps[Page]:
        unused = original.revision - original.message_count  # seqs before the first message
        position = max(after - unused, 0)
        end = min(until - unused, original.message_count)
        limit = min(limit, end - position)
        if limit <= 0:
            return Page([], None)
        page = yield from call(self.source.page, self.id, after=position, limit=limit)
        if not page.messages:
            raise TargetDiffers(
                f"The source has only {position} messages of it, not {original.message_count}."
            )
        messages = [
            message.with_seq(seq)
            for seq, message in enumerate(page.messages[:limit], position + unused + 1)
        ]
        is_last = position + len(messages) >= end
        return Page(messages, None if is_last else messages[-1].seq)

    def text(self, message: Message) -> str:
        # Without the time, which is that of the copy if the source has none. Names are sorted,
        # because DynamoDB does not keep their order.
        parts = [message.role, message.content, message.id, message.metadata, message.extra]
        return json.dumps(parts, sort_keys=True, ensure_ascii=False)


def copy_until_stable(pair: Pair) -> Steps[bool]:
    """Copy a conversation, again if either side changed meanwhile.

    Returns False if the conversation no longer exists in the source.

    Raises:
        TargetDiffers: The target has other content, or the conversation is damaged or invalid.
    """
    why = ""
    try:
        for _ in range(MAX_ATTEMPTS):
            copied = yield from pair.read_copy()
            original = yield from pair.read_original(copied)
            if original is None:
                return False
            try:
                yield from _copy_once(pair, original, copied)
                return True
            except (TargetDiffers, Conflict, AlreadyExists) as failed:
                why = str(failed)
            except NotFound:
                why = "It expired or was deleted while it was copied."
            original_now = yield from pair.read_original(copied)
            if original_now == original and (yield from pair.read_copy()) == copied:
                break
    except (TableMissing, TableMismatch):
        raise  # no other conversation can be read either
    except (InvalidArgument, ConversationDamaged, StoreMismatch) as error:
        raise TargetDiffers(str(error)) from error
    raise TargetDiffers(why)


def _copy_once(pair: Pair, original: Conversation, copied: Conversation | None) -> Steps[None]:
    """Copy the messages and the description that the target lacks, and compare everything."""
    revision = 0
    if copied is not None:
        revision = copied.revision
        _check_same(original, copied, pair.fixed_fields)
        if revision > original.revision:
            raise TargetDiffers(
                "In the target it was changed or continued: it is at revision "
                f"{revision}, ahead of the source's {original.revision}."
            )
        yield from _compare(pair, original, after=0, until=revision)
        yield from pair.copy_description(original, copied)
    if revision < original.revision:
        yield from _restore(pair, original, revision)
        yield from _compare(pair, original, after=revision, until=original.revision)
    yield from pair.copy_entries()
    # This comes last to detect changes during the copy.
    original_now = yield from pair.read_original(copied)
    copied_now = yield from pair.read_copy()
    if original_now is None or copied_now is None:
        raise TargetDiffers("It was deleted while it was copied.")
    _check_same(original_now, copied_now, (*pair.fixed_fields, *pair.changing_fields))


def _check_same(original: Conversation, copied: Conversation, names: Sequence[str]) -> None:
    for name in names:
        if name == "expires_at" and original.expires_at is None:
            continue  # the copy has the default lifetime of its store
        if getattr(original, name) != getattr(copied, name):
            # Name no title, owner or metadata: the sentence may end up in a log.
            raise TargetDiffers(f"Its {name} differs in the target.")


def _restore(pair: Pair, original: Conversation, after: int) -> Steps[None]:
    """Restore the messages after ``after`` in the target, page by page.

    Each page of the source is consistent. Changes between two pages are found by ``_compare``.
    """
    limit = FIRST_PAGE_MESSAGES
    next_after: int | None = after
    revision = after  # of the target
    while next_after is not None:
        page = yield from pair.read_page(
            original, after=next_after, until=original.revision, limit=limit
        )
        sizes = [len(pair.text(message)) for message in page.messages]
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
                yield from call(pair.target.restore, up_to_gap, (), revision=revision)
            up_to_end = replace(original, revision=end)
            yield from call(pair.target.restore, up_to_end, messages, revision=first - 1)
            revision = end
            pair.reporter.copied.messages += len(messages)
            pair.reporter.report(pair.id)
        next_after = page.next
    if revision < original.revision:
        yield from call(pair.target.restore, original, (), revision=revision)


def _runs(
    messages: Sequence[StoredMessage], sizes: Sequence[int]
) -> Generator[list[StoredMessage]]:
    """Split the messages into runs of consecutive seqs, each of at most ``PAGE_CHARACTERS``."""
    run: list[StoredMessage] = []
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


def _compare(pair: Pair, original: Conversation, *, after: int, until: int) -> Steps[None]:
    """Raise ``TargetDiffers`` unless both have the same messages from ``after`` up to ``until``."""
    limit = FIRST_PAGE_MESSAGES
    while True:
        source_page = yield from pair.read_page(original, after=after, until=until, limit=limit)
        target_page = yield from call(
            pair.target.page, pair.id, after=after, before=until + 1, limit=limit
        )
        originals = [(message.seq, pair.text(message)) for message in source_page.messages]
        copies = [(message.seq, pair.text(message)) for message in target_page.messages]
        common = min(len(originals), len(copies))
        for one, other in zip(originals, copies, strict=False):
            if one != other:
                raise TargetDiffers(f"Message {min(one[0], other[0])} differs in the target.")
        if len(originals) > common and target_page.next is None:
            raise TargetDiffers(f"Message {originals[common][0]} is missing in the target.")
        if len(copies) > common and source_page.next is None:
            raise TargetDiffers(f"Message {copies[common][0]} of the target is not in the source.")
        if source_page.next is None and target_page.next is None:
            return
        if common:
            after = originals[common - 1][0]
        limit = _next_limit(limit, [len(text) for _, text in originals])


def _next_limit(limit: int, sizes: Sequence[int]) -> int:
    """Return how many messages to read next: twice as many, while they are short enough."""
    return max(1, min(2 * limit, PAGE_MESSAGES, PAGE_CHARACTERS // max(sizes, default=1)))
