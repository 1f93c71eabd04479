"""The operations of the store, without a connection: reads, writes, and plans of many transactions.

A plan is a generator: it yields transactions and pauses, is sent each transaction's result (or
thrown its error), and returns its own result. So each operation is written once, and is run by
callers that block and by callers that await.
"""

import sqlite3
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from functools import partial
from math import inf
from time import monotonic
from typing import Any, NamedTuple, TypeAlias, TypeVar

from chatledger.conversations import (
    MAX_READ_BYTES,
    MAX_REVISION,
    Appended,
    Conversation,
    Found,
    Listing,
    Page,
    Tail,
)
from chatledger.entries import Entries, Entry
from chatledger.errors import AlreadyExists, NotFound, StoreUnavailable
from chatledger.messages import StoredMessage
from chatledger.stores import operations
from chatledger.stores.arguments import checked_cleanup, checked_default_lifetime
from chatledger.stores.cursors import SearchPlace, decode_cursor, encode_cursor
from chatledger.stores.idempotency import Creation
from chatledger.stores.operations import Operation
from chatledger.stores.sqlite.entries import Scope
from chatledger.stores.sqlite.rows import (
    MAX_FREED_ROWS,
    Rows,
    conversation_from,
    creation_of,
    require_revision,
)
from chatledger.stores.sqlite.search import Progress, add_words, continue_search
from chatledger.values import milliseconds, milliseconds_since_epoch

T = TypeVar("T")

CLEANUP_SECONDS = 2.0
"""The default of ``Settings.cleanup``."""


MAX_ADDING_TRANSACTIONS = 15
"""The most transactions in which a search adds to the index of words; with the pauses after them,
they take about a second."""


class Pause(NamedTuple):
    """A time in which others can write."""

    seconds: float


class Read(NamedTuple):
    """A transaction of a plan that only reads, and so waits for no writer."""

    transaction: "Transaction[Any]"


PAUSE = Pause(0.03)
"""Longer than ``writer.MAX_POLL_SECONDS``, so that other processes find the file unlocked."""

Transaction: TypeAlias = Callable[[Rows], T]
Step: TypeAlias = Transaction[Any] | Read | Pause
Plan: TypeAlias = Generator[Step, Any, T]


class Settings(NamedTuple):
    """The settings of a store."""

    lifetime: int | None
    """The lifetime (ms) of a conversation that begins without one of its own; None: for ever."""
    cleanup: float
    """How long (s) a removal may go on freeing rows after it has taken effect."""
    clock: Callable[[], datetime]
    """Returns the current time."""

    @classmethod
    def checked(
        cls, expire_after: timedelta | None, cleanup: float, clock: Callable[[], datetime]
    ) -> "Settings":
        """Return the settings; raise ``InvalidArgument`` if one is invalid."""
        return cls(checked_default_lifetime(expire_after), checked_cleanup(cleanup), clock)


def perform(settings: Settings, transaction: Transaction[T], db: sqlite3.Connection) -> T:
    """Perform a transaction that has begun on the connection, and return its result."""
    time = milliseconds_since_epoch(settings.clock())
    return transaction(Rows(db, time, default_lifetime=settings.lifetime))


# Reads: one transaction each ----------------------------------------------------------------------


def get(rows: Rows, operation: operations.Get) -> Conversation:
    return conversation_from(rows.require_live(operation.conversation_id, operation.owner))


def tail(rows: Rows, operation: operations.ReadTail) -> Tail:
    row = rows.require_live(operation.conversation_id, operation.owner)
    messages = rows.last_messages(row, operation.limit, most_bytes=MAX_READ_BYTES)
    return Tail(conversation_from(row), messages)


def page(rows: Rows, operation: operations.ReadPage) -> Page:
    messages, has_more = rows.messages_between(
        rows.require_live(operation.conversation_id, operation.owner),
        after=operation.after or 0,
        before=MAX_REVISION if operation.before is None else operation.before,
        limit=operation.limit,
        most_bytes=MAX_READ_BYTES,
        backward=operation.is_backward,
    )
    return Page(messages, messages[-1].seq if has_more else None)


def list_owned(rows: Rows, operation: operations.ListOwned) -> Listing:
    limit = operation.limit
    cursor = operation.cursor
    place = SearchPlace() if cursor is None else SearchPlace(*decode_cursor(cursor))
    found = rows.conversations_of(operation.owner, place, limit=limit + 1).fetchall()
    conversations = [conversation_from(row) for row in found[:limit]]
    if len(found) <= limit:
        return Listing(conversations, None)
    last = found[limit - 1]
    return Listing(conversations, encode_cursor(last["updated_at"], last["id"]))


def scan(rows: Rows, operation: operations.Scan) -> Listing:
    limit = operation.limit
    found = rows.all_conversations(limit=limit + 1, cursor=operation.cursor)
    conversations = [conversation_from(row) for row in found[:limit]]
    # Unlike a list's cursor, that of a scan has no id.
    return Listing(
        conversations, encode_cursor(found[limit - 1]["number"], "") if len(found) > limit else None
    )


def entry(rows: Rows, operation: operations.GetEntry) -> Entry:
    key = operation.key
    found = rows.entries.find(_scope(rows, key.conversation_id, key.owner), key.name)
    if found is None:
        raise key.not_found()
    return found


def entries(rows: Rows, operation: operations.ListEntries) -> Entries:
    found, has_more = rows.entries.between(
        _scope(rows, operation.conversation_id, operation.owner),
        prefix=operation.prefix,
        after=operation.after,
        limit=operation.limit,
    )
    return Entries(found, encode_cursor(0, found[-1].name) if has_more else None)


# Writes: one transaction each ---------------------------------------------------------------------


def create(rows: Rows, operation: operations.Create) -> Conversation:
    row = rows.find_live(operation.conversation_id)
    if row is not None and _is_repeated(row, operation.owner, operation.creation):
        return conversation_from(row)
    row = rows.create(
        operation.conversation_id,
        owner=operation.owner,
        description=operation.beginning.description,
        lifetime=rows.lifetime_for(operation.beginning.expires_in),
        creation=operation.creation,
    )
    return conversation_from(rows.advance(row))


def append(rows: Rows, operation: operations.Append) -> Appended:
    key = operation.idempotency_key
    row = rows.find_live(operation.conversation_id)
    if row is None:
        if operation.revision:
            raise NotFound(operation.conversation_id)
        row = rows.create(
            operation.conversation_id,
            owner=operation.owner,
            description=operation.beginning.description,
            lifetime=rows.lifetime_for(operation.beginning.expires_in),
        )
    else:
        if operation.owner not in (None, row["owner"]):
            raise NotFound(operation.conversation_id)
        if key is not None:
            saved = rows.saved_result(row, key, operation.fingerprint)
            if saved is not None:
                return saved
        require_revision(row, operation.revision)
        if operation.truncate_after is not None:
            row = rows.truncate(row, after=operation.truncate_after)
    appended = rows.append(row, operation.texts)
    if key is not None:
        rows.save_result(row, key, operation.fingerprint, appended)
    return appended


def restore(rows: Rows, operation: operations.Restore) -> Conversation:
    given, revision = operation.conversation, operation.revision
    expires_at = None if given.expires_at is None else milliseconds_since_epoch(given.expires_at)
    if expires_at is not None and expires_at <= rows.time:
        raise NotFound(given.id)
    row = rows.find_live(given.id)
    if row is None:
        if revision:
            raise NotFound(given.id)
        row = rows.create(
            given.id,
            owner=given.owner,
            description=given,
            lifetime=rows.lifetime_for(operation.lifetime),
            time=milliseconds_since_epoch(given.created_at),
        )
    elif row["owner"] != given.owner:
        raise AlreadyExists(given.id)
    else:
        require_revision(row, revision)
    return rows.restore(
        row,
        operation.texts,
        first=revision + 1,
        revision=given.revision,
        updated_at=milliseconds_since_epoch(given.updated_at),
        expires_at=expires_at,
    )


def update(rows: Rows, operation: operations.Update) -> Conversation:
    row = rows.require_live(operation.conversation_id, operation.owner)
    require_revision(row, operation.revision, operation.metadata_revision)
    return conversation_from(rows.update(row, operation.changes) if operation.changes else row)


def claim(rows: Rows, operation: operations.Claim) -> Conversation:
    owner = operation.owner
    row = rows.require_live(operation.conversation_id, None)
    if row["owner"] not in (None, owner):
        raise NotFound(operation.conversation_id)
    return conversation_from(row if row["owner"] == owner else rows.claim(row, owner))


def truncate(rows: Rows, operation: operations.Truncate) -> Conversation:
    row = rows.require_live(operation.conversation_id, operation.owner)
    return conversation_from(rows.truncate(row, after=operation.after))


def pop(rows: Rows, operation: operations.Pop) -> list[StoredMessage]:
    row = rows.require_live(operation.conversation_id, operation.owner)
    popped = rows.last_messages(row, operation.limit, most_bytes=inf)
    if popped:
        rows.truncate(row, after=popped[0].seq - 1)
    return popped


def rewrite_message(rows: Rows, operation: operations.Rewrite) -> Conversation:
    row = rows.require_live(operation.conversation_id, operation.owner)
    require_revision(row, operation.revision)
    if operation.text is None:
        return conversation_from(rows.remove(row, operation.seq))
    return conversation_from(rows.replace(row, operation.seq, operation.text))


def fork(rows: Rows, operation: operations.Fork) -> Conversation:
    existing = rows.find_live(operation.new_id)
    if existing is not None and _is_repeated(existing, operation.owner, operation.creation):
        return conversation_from(existing)
    source = rows.require_live(operation.conversation_id, operation.owner)
    expires_in = operation.expires_in
    created = rows.create(
        operation.new_id,
        owner=source["owner"],
        description=conversation_from(source),
        lifetime=source["lifetime"] if expires_in is None else milliseconds(expires_in),
        creation=operation.creation,
    )
    rows.entries.copy(
        Scope("conversation", source["number"]), Scope("conversation", created["number"])
    )
    last = MAX_REVISION if operation.at is None else operation.at
    return conversation_from(rows.copy_messages(source, rows.advance(created), at=last))


def delete(rows: Rows, operation: operations.Delete) -> None:
    row = rows.require_live(operation.conversation_id, operation.owner)
    require_revision(row, operation.revision)
    rows.delete(row["number"])


def put_entry(rows: Rows, operation: operations.PutEntry) -> Entry:
    key, expires_in = operation.key, operation.expires_in
    scope = _scope(rows, key.conversation_id, key.owner)
    former = rows.entries.find(scope, key.name)
    operation.check(None if former is None else former.revision)
    expires_at = None if expires_in is None else rows.time + milliseconds(expires_in)
    return rows.entries.put(scope, key.name, operation.text, former=former, expires_at=expires_at)


def delete_entry(rows: Rows, operation: operations.DeleteEntry) -> None:
    key = operation.key
    scope = _scope(rows, key.conversation_id, key.owner)
    former = rows.entries.find(scope, key.name)
    operation.check(None if former is None else former.revision)
    rows.entries.delete(scope, key.name)


def _scope(rows: Rows, conversation_id: str | None, owner: str | None) -> Scope:
    """Return whose entries are meant; raise ``NotFound`` if ``owner`` has no such conversation."""
    if conversation_id is None:
        assert owner is not None
        return Scope("owner", owner)
    return Scope("conversation", rows.require_live(conversation_id, owner)["number"])


# Operations of many transactions ------------------------------------------------------------------


def delete_owner(operation: operations.DeleteOwner, settings: Settings) -> Plan[int]:
    deleted, has_more, left_garbage = 0, True, False
    up_to: int | None = None

    def transaction(rows: Rows) -> None:
        nonlocal deleted, has_more, left_garbage, up_to
        up_to = rows.last_number() if up_to is None else up_to  # not those that begin meanwhile
        count, has_more = rows.delete_owned(operation.owner, up_to=up_to)
        deleted, left_garbage = deleted + count, rows.left_garbage

    yield transaction
    while has_more:
        yield PAUSE
        yield transaction
    if left_garbage:
        yield from _clean_up(settings.cleanup)
    return deleted


def sweep(operation: operations.Sweep, settings: Settings) -> Plan[int]:
    freed, has_more = 0, True
    while has_more:
        batch, has_more = yield lambda rows: rows.sweep(entries=MAX_FREED_ROWS, rows=MAX_FREED_ROWS)
        freed += batch
        if has_more:
            yield PAUSE
    return freed


def search(operation: operations.Search, settings: Settings) -> Plan[Found]:
    """Search as ``Store.search`` promises, and keep the words of messages that lack them.

    A conversation is searched once the words of all its messages are kept. So what has been
    searched is always a beginning of the owner's list.
    """
    progress = Progress((), operation.place)
    transactions = MAX_ADDING_TRANSACTIONS
    while True:
        progress = yield Read(partial(continue_search, operation=operation, progress=progress))
        if not progress.lacks_words or not transactions:
            found: Found = progress.result(operation.limit)
            return found
        add = partial(add_words, owner=operation.owner, place=progress.place)
        has_more = True
        while has_more and transactions:
            has_more = yield add
            transactions -= 1
            if has_more:
                yield PAUSE


READS: dict[type[Operation[Any]], Callable[[Rows, Any], Any]] = {
    operations.Get: get,
    operations.GetEntry: entry,
    operations.ListEntries: entries,
    operations.ListOwned: list_owned,
    operations.ReadPage: page,
    operations.ReadTail: tail,
    operations.Scan: scan,
}
WRITES: dict[type[Operation[Any]], Callable[[Rows, Any], Any]] = {
    operations.Append: append,
    operations.Claim: claim,
    operations.Create: create,
    operations.Delete: delete,
    operations.DeleteEntry: delete_entry,
    operations.Fork: fork,
    operations.Pop: pop,
    operations.PutEntry: put_entry,
    operations.Restore: restore,
    operations.Rewrite: rewrite_message,
    operations.Truncate: truncate,
    operations.Update: update,
}
PLANS: dict[type[Operation[Any]], Callable[[Any, Settings], Plan[Any]]] = {
    operations.DeleteOwner: delete_owner,
    operations.Search: search,
    operations.Sweep: sweep,
}


def plan_for(operation: Operation[T], settings: Settings) -> Plan[T]:
    """Return the plan that performs the operation."""
    kind = type(operation)
    if kind in READS:
        return _read(lambda rows: READS[kind](rows, operation))
    if kind in WRITES:
        return _write(lambda rows: WRITES[kind](rows, operation), settings)
    if kind in PLANS:
        return PLANS[kind](operation, settings)
    raise TypeError(f"{kind.__name__} is not an operation of the contract.")


def _read(transaction: Transaction[T]) -> Plan[T]:
    result: T = yield Read(transaction)
    return result


def _is_repeated(row: sqlite3.Row, owner: str | None, creation: Creation | None) -> bool:
    """Return whether the conversation was created by an earlier call with the same key.

    Raises:
        KeyReused: That call had other arguments.
    """
    created = creation_of(row)
    if created is None or owner not in (None, row["owner"]):
        return False
    return created.is_repeated_by(creation)


def _write(transaction: Transaction[T], settings: Settings) -> Plan[T]:
    """Run a transaction, free the rows that it left if time allows, and return its result."""
    left_garbage = False

    def watched(rows: Rows) -> T:
        nonlocal left_garbage
        result = transaction(rows)
        left_garbage = rows.left_garbage
        return result

    result: T = yield watched
    if left_garbage:
        yield from _clean_up(settings.cleanup)
    return result


def _clean_up(seconds: float) -> Plan[None]:
    """Free removed rows; what is left after ``seconds`` is for later writes and ``sweep``."""
    end, has_more = monotonic() + seconds, True
    while has_more and monotonic() < end:
        yield PAUSE
        try:
            has_more = yield Rows.free
        except StoreUnavailable:  # the write itself was made
            return
