"""Moving data: what one store holds, copied to another of any kind, and compared there."""

from typing import cast

from chatledger.conversations import LIMIT
from chatledger.copying.conversation import Differs, One, ask, settled
from chatledger.copying.progress import Copied, Mismatch, NotTold, Progress, Tally, Tell
from chatledger.sansio import Steps, arun, run
from chatledger.stores.contract import AsyncStore, Store

__all__ = ["Copied", "Mismatch", "Progress", "Tell", "acopy", "copy"]


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
    try:
        return run(_everything(source, target, owner, progress))
    except NotTold as failed:
        raise failed.error from None


async def acopy(
    source: AsyncStore,
    target: AsyncStore,
    *,
    owner: str | None = None,
    progress: Tell | None = None,
) -> Copied:
    """As ``copy``, for async stores."""
    # The same names and signatures: only who calls must know which of them are awaited.
    try:
        return await arun(_everything(cast(Store, source), cast(Store, target), owner, progress))
    except NotTold as failed:
        raise failed.error from None


def _everything(
    source: Store, target: Store, owner: str | None, progress: Tell | None
) -> Steps[Copied]:
    tally = Tally(progress)
    cursor: str | None = None
    while True:
        if owner is None:
            listing = yield from ask(source.scan, limit=LIMIT, cursor=cursor)
        else:
            listing = yield from ask(source.list, owner, limit=LIMIT, cursor=cursor)
        for listed in listing.conversations:
            one = One(source, target, listed.id, owner, tally)
            try:
                tally.copied.conversations += yield from settled(one)
            except Differs as why:
                tally.copied.mismatches.append(Mismatch(listed.id, str(why)))
            tally.through += 1
            tally.tell(listed.id)
        cursor = listing.cursor
        if cursor is None:
            return tally.copied
