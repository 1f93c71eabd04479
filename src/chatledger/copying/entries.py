"""Steps that copy the entries of a conversation or of an owner, and compare them."""

from dataclasses import dataclass, field
from datetime import timedelta

from chatledger.copying.progress import ProgressReporter, TargetDiffers
from chatledger.entries import Entries, Entry
from chatledger.errors import Conflict, NotFound
from chatledger.sansio import Steps, call
from chatledger.stores.contract import Store
from chatledger.values import dumps

PAGE_ENTRIES = 50
MAX_ATTEMPTS = 5
"""The most attempts to copy entries that change meanwhile."""
SHORTEST_LIFE = timedelta(seconds=1)
TOLERANCE = timedelta(minutes=1)
"""The most by which a copy may outlive the original, since its lifetime begins on its arrival."""


@dataclass(slots=True, kw_only=True)
class EntriesCopy:
    """The entries of a conversation, or of an owner, that the target is to have.

    Attributes:
        source: The store to copy from.
        target: The store to copy to.
        conversation_id: The conversation; None for the entries of ``owner``.
        owner: The owner that the caller of the copy has given, or whose entries are copied.
        reporter: Counts what is copied.
    """

    source: Store
    target: Store
    conversation_id: str | None
    owner: str | None
    reporter: ProgressReporter

    def copy(self) -> Steps[None]:
        """Make the entries of the target equal to those of the source.

        Raises:
            TargetDiffers: Either side kept changing.
            NotFound: The conversation was deleted on one side.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                if not (yield from self._copy_differences()):
                    return
            except Conflict:
                continue  # somebody else has changed the target's entry
        raise TargetDiffers("Its entries changed while they were copied.")

    def _copy_differences(self) -> Steps[bool]:
        """Compare all entries, and copy those that differ; return whether any did."""
        has_differed = False
        originals = _Reader(self.source, self.conversation_id, self.owner)
        copies = _Reader(self.target, self.conversation_id, self.owner)
        original, copied = (yield from originals.next()), (yield from copies.next())
        while original is not None or copied is not None:
            if original is None or (copied is not None and copied.name < original.name):
                assert copied is not None
                has_differed = True
                yield from self._delete(copied)
                copied = yield from copies.next()
            elif copied is None or original.name < copied.name:
                has_differed = True
                yield from self._put(original, revision=0)
                original = yield from originals.next()
            else:
                if not _are_same(original, copied):
                    has_differed = True
                    yield from self._put(original, revision=copied.revision)
                original, copied = (yield from originals.next()), (yield from copies.next())
        return has_differed

    def _put(self, original: Entry, *, revision: int) -> Steps[None]:
        lifetime = None
        if original.expires_at is not None:
            lifetime = max(original.expires_at - original.updated_at, SHORTEST_LIFE)
        put = yield from self._put_once(original, revision, lifetime)
        self.reporter.copied.entries += 1
        if original.expires_at is None or _are_same(original, put):
            return
        # The answer tells the time on the target's clock.
        lifetime = original.expires_at - put.updated_at
        if lifetime < SHORTEST_LIFE:
            yield from self._delete(put)
        else:
            yield from self._put_once(original, put.revision, lifetime)

    def _put_once(self, original: Entry, revision: int, lifetime: timedelta | None) -> Steps[Entry]:
        return (
            yield from call(
                self.target.put_entry,
                self.conversation_id,
                original.name,
                original.value,
                revision=revision,
                expires_in=lifetime,
                owner=self.owner,
            )
        )

    def _delete(self, copied: Entry) -> Steps[None]:
        try:
            yield from call(
                self.target.delete_entry,
                self.conversation_id,
                copied.name,
                revision=copied.revision,
                owner=self.owner,
            )
        except NotFound as missing:
            if missing.entry is None:
                raise


@dataclass(slots=True)
class _Reader:
    """Reads entries one by one, a page at a time."""

    store: Store
    conversation_id: str | None
    owner: str | None
    page: list[Entry] = field(default_factory=list)
    cursor: str | None = None
    is_last: bool = False

    def next(self) -> Steps[Entry | None]:
        """Return the next entry, in the order of names; None after the last one."""
        if not self.page and not self.is_last:
            read: Entries = yield from call(
                self.store.entries,
                self.conversation_id,
                limit=PAGE_ENTRIES,
                cursor=self.cursor,
                owner=self.owner,
            )
            self.page, self.cursor = list(read.entries), read.cursor
            self.is_last = read.cursor is None
        return self.page.pop(0) if self.page else None


def _are_same(original: Entry, copied: Entry) -> bool:
    # JSON, because == takes 1 for 1.0.
    if dumps(original.value) != dumps(copied.value):
        return False
    if original.expires_at is None or copied.expires_at is None:
        return original.expires_at is copied.expires_at
    return abs(original.expires_at - copied.expires_at) <= TOLERANCE
