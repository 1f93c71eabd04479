"""Copy conversations to a store, from another store or from a table of other software."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from chatledger.conversations import Conversation
from chatledger.copying.conversation import (
    ConversationCopy,
    ConversationImport,
    Pair,
    Source,
    copy_until_stable,
)
from chatledger.copying.entries import EntriesCopy
from chatledger.copying.progress import (
    Copied,
    OnProgress,
    Problem,
    Progress,
    ProgressCallbackFailed,
    ProgressReporter,
    TargetDiffers,
)
from chatledger.errors import InvalidArgument, NotFound, StoreMismatch, TableMismatch, TableMissing
from chatledger.sansio import Steps, arun, call, run
from chatledger.stores.contract import AsyncStore, Store

__all__ = ["Copied", "OnProgress", "Problem", "Progress", "Source", "acopy", "copy"]


def copy(
    source: Store | Source,
    target: Store,
    *,
    owner: str | None = None,
    delete_extra: bool = False,
    progress: OnProgress | None = None,
) -> Copied:
    """Copy every conversation of ``source`` to ``target``. Nothing is written to the source.

    Each conversation is read back from the target and compared. One that the target has with other
    content, or that cannot be read, is left alone and reported; the others are copied.

    From a store, ids, seqs, times, owners, titles, metadata and revisions are kept, so a seq or
    revision that a client saved before the copy stays valid. Entries are copied too, those of
    conversations and those of their owners, or of ``owner``; they get new revisions, and entries
    that the source does not have are deleted from the target. At the end the target is read for
    conversations that the source does not have, such as those that users have deleted from the
    source since an earlier copy. From another source, such as ``TutorialTable``, the messages get
    the next seqs of the target.

    If the copy is interrupted, call it again: it compares what has arrived, continues after it, and
    also copies what was added to the source since.

    Args:
        source: The store, or other source, to copy from.
        target: The store to copy to.
        owner: Copy only the conversations of this owner; only if ``source`` is a store.
        delete_extra: Delete conversations from the target that the source does not have, instead
            of only reporting them; only if ``source`` is a store. Use it while nobody else writes
            to the target.
        progress: Called after each conversation, and within one after every few megabytes of
            messages. If it raises an error, the copy stops with that error.

    Returns:
        The number of conversations and messages copied, and the conversations that were not.

    Raises:
        AccessRefused: AWS refused the credentials, or they lack a permission.
        InvalidArgument: ``owner`` or ``delete_extra`` was given for a source that is not a store.
        StoreUnavailable: The source or the target did not answer in time.
        TableMissing: The table of a source does not exist.
    """
    for name, store in (("source", source), ("target", target)):
        # A store that only wraps another one does not inherit from Store.
        is_store = isinstance(store, Source) or callable(getattr(store, "restore", None))
        if not is_store or isinstance(store, AsyncStore | type):
            raise InvalidArgument(
                f"{name} is of type {type(store).__name__}; pass a store, such as open_store(url) "
                "returns. For two async stores there is acopy."
            )
    reporter = ProgressReporter(progress)
    if isinstance(source, Source):
        if owner is not None or delete_extra:
            raise InvalidArgument("owner and delete_extra are for copies from a store.")
        steps = _import_all(source, target, reporter)
    else:
        steps = _copy_all(source, target, owner, delete_extra, reporter, next)
    try:
        run(steps)
    except ProgressCallbackFailed as failed:
        raise failed.error from None
    return reporter.copied


async def acopy(
    source: AsyncStore,
    target: AsyncStore,
    *,
    owner: str | None = None,
    delete_extra: bool = False,
    progress: OnProgress | None = None,
) -> Copied:
    """Do the same as ``copy``, for async stores."""
    reporter = ProgressReporter(progress)
    # Async stores have the same methods; only ``arun`` needs to know that they are awaited.
    stores = cast(Store, source), cast(Store, target)
    try:
        await arun(_copy_all(*stores, owner, delete_extra, reporter, anext))
    except ProgressCallbackFailed as failed:
        raise failed.error from None
    return reporter.copied


def _copy_all(
    source: Store,
    target: Store,
    owner: str | None,
    delete_extra: bool,
    reporter: ProgressReporter,
    next_of: Callable[..., Any],
) -> Steps[None]:
    """Copy the conversations of a store; ``next_of`` is ``next``, or ``anext`` for async stores."""
    copied_ids: set[str] = set()
    owners = set() if owner is None else {owner}
    listed: Conversation | None
    originals = source.iter_conversations(owner)
    while (listed := (yield partial(next_of, originals, None))) is not None:
        copied_ids.add(listed.id)
        if listed.owner is not None:
            owners.add(listed.owner)
        yield from _copy_one(
            ConversationCopy(
                source=source, target=target, id=listed.id, owner=owner, reporter=reporter
            )
        )
    for each in sorted(owners):
        yield from _copy_entries_of(each, source, target, reporter)
    copies = target.iter_conversations(owner)
    while (listed := (yield partial(next_of, copies, None))) is not None:
        if listed.id in copied_ids:
            continue
        try:
            yield from call(source.get, listed.id)
            continue  # it was created since
        except NotFound:
            reporter.copied.extra.append(listed.id)
        if delete_extra:
            try:
                yield from call(target.delete, listed.id, owner=owner)
            except NotFound:
                continue  # somebody else was faster


def _copy_entries_of(
    owner: str, source: Store, target: Store, reporter: ProgressReporter
) -> Steps[None]:
    copy = EntriesCopy(
        source=source, target=target, conversation_id=None, owner=owner, reporter=reporter
    )
    try:
        yield from copy.copy()
    except (TableMissing, TableMismatch):
        raise
    except (TargetDiffers, InvalidArgument, StoreMismatch) as failed:
        reporter.copied.problems.append(Problem(f"entries of owner {owner}", str(failed)))


def _import_all(source: Source, target: Store, reporter: ProgressReporter) -> Steps[None]:
    for found in source.conversations():
        if isinstance(found, Problem):
            reporter.copied.problems.append(found)
            reporter.report(found.conversation_id, is_done=True)
            continue
        yield from _copy_one(
            ConversationImport(
                source=source, target=target, id=found.id, conversation=found, reporter=reporter
            )
        )


def _copy_one(pair: Pair) -> Steps[None]:
    try:
        pair.reporter.copied.conversations += yield from copy_until_stable(pair)
    except TargetDiffers as differs:
        pair.reporter.copied.problems.append(Problem(pair.id, str(differs)))
    pair.reporter.report(pair.id, is_done=True)
