"""Copy conversations from one store to another, of the same kind or a different one."""

from collections.abc import Callable
from typing import cast

from chatledger.conversations import MAX_LIMIT, Conversation
from chatledger.copying.conversation import ConversationCopy, TargetDiffers, call, copy_until_stable
from chatledger.copying.progress import (
    Copied,
    Mismatch,
    OnProgress,
    Progress,
    ProgressCallbackFailed,
    ProgressReporter,
)
from chatledger.errors import NotFound
from chatledger.sansio import Steps, arun, run
from chatledger.stores.contract import AsyncStore, Store

__all__ = ["Copied", "Mismatch", "OnProgress", "Progress", "acopy", "copy"]


def copy(
    source: Store,
    target: Store,
    *,
    owner: str | None = None,
    delete_extra: bool = False,
    progress: OnProgress | None = None,
) -> Copied:
    """Copy every conversation of ``source``, or all of one owner, to ``target``.

    Ids, seqs, times, owners, titles, metadata and revisions are kept, so a seq or revision that a
    client saved before the copy stays valid. Each conversation is read back from the target and
    compared. One that the target has with other content is left alone and reported. Nothing is
    written to the source.

    If the copy is interrupted, call it again: it continues after the messages that have arrived,
    and also copies what was added to the source since. At the end the target is read for
    conversations that the source does not have, such as those that users have deleted from the
    source since an earlier copy.

    Args:
        source: The store to copy from.
        target: The store to copy to.
        owner: Copy only the conversations of this owner.
        delete_extra: Delete conversations from the target that the source does not have, instead
            of only reporting them. Use it while nobody else writes to the target.
        progress: Called after each conversation, and within one after every few megabytes of
            messages. If it raises an error, the copy stops with that error.

    Returns:
        The number of conversations and messages copied, the conversations that were not, and those
        that only the target has.

    Raises:
        StoreUnavailable: A store did not answer in time.
    """
    try:
        return run(_copy_all(source, target, owner, delete_extra, progress))
    except ProgressCallbackFailed as failed:
        raise failed.error from None


async def acopy(
    source: AsyncStore,
    target: AsyncStore,
    *,
    owner: str | None = None,
    delete_extra: bool = False,
    progress: OnProgress | None = None,
) -> Copied:
    """Do the same as ``copy``, for async stores."""
    # Async stores have the same methods; only ``arun`` needs to know that they are awaited.
    stores = cast(Store, source), cast(Store, target)
    try:
        return await arun(_copy_all(*stores, owner, delete_extra, progress))
    except ProgressCallbackFailed as failed:
        raise failed.error from None


def _copy_all(
    source: Store, target: Store, owner: str | None, delete_extra: bool, progress: OnProgress | None
) -> Steps[Copied]:
    reporter = ProgressReporter(progress)
    copied_ids: set[str] = set()

    def copy_one(listed: Conversation) -> Steps[None]:
        copied_ids.add(listed.id)
        conversation_copy = ConversationCopy(source, target, listed.id, owner, reporter)
        try:
            reporter.copied.conversations += yield from copy_until_stable(conversation_copy)
        except TargetDiffers as differs:
            reporter.copied.mismatches.append(Mismatch(listed.id, str(differs)))
        reporter.conversations_done += 1
        reporter.report(listed.id)

    def check_extra(listed: Conversation) -> Steps[None]:
        if listed.id in copied_ids:
            return
        try:
            yield from call(source.get, listed.id)
            return  # it was created since
        except NotFound:
            reporter.copied.extra.append(listed.id)
        if delete_extra:
            try:
                yield from call(target.delete, listed.id, owner=owner)
            except NotFound:
                return  # somebody else was faster

    yield from _for_each(source, owner, copy_one)
    yield from _for_each(target, owner, check_extra)
    return reporter.copied


def _for_each(
    store: Store, owner: str | None, visit: Callable[[Conversation], Steps[None]]
) -> Steps[None]:
    cursor: str | None = None
    while True:
        if owner is None:
            listing = yield from call(store.scan, limit=MAX_LIMIT, cursor=cursor)
        else:
            listing = yield from call(store.list, owner, limit=MAX_LIMIT, cursor=cursor)
        for listed in listing.conversations:
            yield from visit(listed)
        cursor = listing.cursor
        if cursor is None:
            return
