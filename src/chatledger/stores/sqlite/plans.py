"""Plans: the operations of the store, one transaction after another, without a connection.

A plan is a generator: it yields transactions and pauses, is sent each transaction's result (or
thrown its error), and returns its own result. So each operation is written once, and is run by
callers that block and by callers that await.
"""

import sqlite3
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from math import inf
from time import monotonic
from typing import Any, NamedTuple, TypeAlias, TypeVar

from chatledger.conversations import (
    MAX_LIMIT,
    MAX_READ_BYTES,
    MAX_REVISION,
    Appended,
    Conversation,
    Creation,
    Listing,
    Page,
    Tail,
    check_beginning,
    check_id,
    check_idempotency_key,
    check_ids,
    check_lifetime,
    check_number,
    check_revision,
    check_title,
    checked_metadata,
    encode_batch,
    encode_message,
    fingerprint_of_messages,
    lifetime_of,
    new_id_for,
    prepare_restore,
)
from chatledger.errors import AlreadyExists, InvalidArgument, NotFound, StoreUnavailable
from chatledger.json_values import Json, dumps
from chatledger.messages import Message
from chatledger.stores.sqlite.rows import MAX_FREED_ROWS, Rows, require_revision
from chatledger.stores.sqlite.values import conversation_from, creation_of, list_cursor, scan_cursor
from chatledger.stores.times import milliseconds, milliseconds_since_epoch

T = TypeVar("T")

CLEANUP_SECONDS = 2.0


class Pause(NamedTuple):
    """A time in which others can write."""

    seconds: float


PAUSE = Pause(0.03)
"""Longer than ``writer.MAX_POLL_SECONDS``, so that other processes find the file unlocked."""

Transaction: TypeAlias = Callable[[Rows], T]
Plan: TypeAlias = Generator[Transaction[Any] | Pause, Any, T]


class Settings(NamedTuple):
    """What the caller of a store has set."""

    lifetime: int | None
    """The lifetime (ms) of a conversation that begins without one of its own; None: for ever."""
    cleanup: float
    """How many seconds a removal goes on freeing rows after its promise is kept."""

    @classmethod
    def checked(cls, expire_after: timedelta | None, cleanup: float) -> "Settings":
        check_lifetime(expire_after, "expire_after")
        if not cleanup >= 0:
            raise InvalidArgument("cleanup is a number of seconds, 0 or more.")
        return cls(None if expire_after is None else milliseconds(expire_after), cleanup)

    def lifetime_for(self, expires_in: timedelta | None) -> int | None:
        """Return the lifetime of a conversation that begins with ``expires_in``."""
        return self.lifetime if expires_in is None else milliseconds(expires_in)


# Reads


def get(conversation_id: str, *, owner: str | None) -> Transaction[Conversation]:
    check_ids(conversation_id, owner)
    return lambda rows: conversation_from(rows.require_live(conversation_id, owner))


def tail(conversation_id: str, n: int, *, owner: str | None) -> Transaction[Tail]:
    check_ids(conversation_id, owner)
    check_number(n, "n", least=1, most=MAX_LIMIT)

    def transaction(rows: Rows) -> Tail:
        row = rows.require_live(conversation_id, owner)
        messages = rows.last_messages(row, n, most_bytes=MAX_READ_BYTES)
        return Tail(conversation_from(row), messages)

    return transaction


def page(
    conversation_id: str, *, after: int | None, before: int | None, limit: int, owner: str | None
) -> Transaction[Page]:
    check_ids(conversation_id, owner)
    check_number(limit, "limit", least=1, most=MAX_LIMIT)
    check_revision(after, "after")
    check_revision(before, "before")

    def transaction(rows: Rows) -> Page:
        messages, has_more = rows.messages_between(
            rows.require_live(conversation_id, owner),
            after=0 if after is None else after,
            before=MAX_REVISION if before is None else before,
            limit=limit,
            most_bytes=MAX_READ_BYTES,
            backward=after is None and before is not None,
        )
        return Page(messages, messages[-1].seq if has_more else None)

    return transaction


def list_owned(owner: str, *, limit: int, cursor: str | None) -> Transaction[Listing]:
    check_id(owner, "owner")
    check_number(limit, "limit", least=1, most=MAX_LIMIT)

    def transaction(rows: Rows) -> Listing:
        found = rows.conversations_of(owner, limit=limit + 1, cursor=cursor)
        return Listing(
            [conversation_from(row) for row in found[:limit]],
            list_cursor(found[limit - 1]) if len(found) > limit else None,
        )

    return transaction


def scan(*, limit: int, cursor: str | None) -> Transaction[Listing]:
    check_number(limit, "limit", least=1, most=MAX_LIMIT)

    def transaction(rows: Rows) -> Listing:
        found = rows.all_conversations(limit=limit + 1, cursor=cursor)
        return Listing(
            [conversation_from(row) for row in found[:limit]],
            scan_cursor(found[limit - 1]) if len(found) > limit else None,
        )

    return transaction


# Writes


def create(
    settings: Settings,
    conversation_id: str | None,
    *,
    owner: str | None,
    title: str | None,
    metadata: dict[str, Json] | None,
    expires_in: timedelta | None,
    idempotency_key: str | None,
) -> Plan[Conversation]:
    if owner is not None:
        check_id(owner, "owner")
    metadata = check_beginning(title, metadata, expires_in)
    creation = Creation.of(idempotency_key, "create", owner, title or None, metadata, expires_in)
    new_id = new_id_for(creation, "create", owner) if conversation_id is None else conversation_id
    check_id(new_id)

    def transaction(rows: Rows) -> Conversation:
        row = rows.find_live(new_id)
        if row is not None and _is_repeated(row, owner, creation):
            return conversation_from(row)
        row = rows.create(
            new_id,
            owner=owner,
            lifetime=settings.lifetime_for(expires_in),
            title=title or None,
            metadata=dumps(metadata),
            creation=creation,
        )
        return conversation_from(rows.advance(row))

    return (yield from _write(settings, transaction))


def append(
    settings: Settings,
    conversation_id: str,
    messages: Sequence[Message],
    *,
    owner: str | None,
    after: int | None,
    idempotency_key: str | None,
    truncate_after: int | None,
    title: str | None,
    metadata: dict[str, Json] | None,
    expires_in: timedelta | None,
) -> Plan[Appended]:
    check_ids(conversation_id, owner)
    check_idempotency_key(idempotency_key)
    check_revision(after, "after")
    check_revision(truncate_after, "truncate_after")
    initial_metadata = dumps(check_beginning(title, metadata, expires_in))
    bodies = encode_batch(messages)
    call = "" if idempotency_key is None else fingerprint_of_messages(messages)

    def transaction(rows: Rows) -> Appended:
        row = rows.find_live(conversation_id)
        if row is None:
            if after:
                raise NotFound(conversation_id)
            row = rows.create(
                conversation_id,
                owner=owner,
                lifetime=settings.lifetime_for(expires_in),
                title=title or None,
                metadata=initial_metadata,
            )
        else:
            if owner not in (None, row["owner"]):
                raise NotFound(conversation_id)
            if idempotency_key is not None:
                saved = rows.saved_result(row, idempotency_key, call)
                if saved is not None:
                    return saved
            require_revision(row, after)
            if truncate_after is not None:
                row = rows.truncate(row, after=truncate_after)
        appended = rows.append(row, bodies)
        if idempotency_key is not None:
            rows.save_result(row, idempotency_key, call, appended)
        return appended

    return (yield from _write(settings, transaction))


def restore(
    settings: Settings, conversation: Conversation, messages: Sequence[Message], *, after: int
) -> Plan[Conversation]:
    given, bodies = prepare_restore(conversation, messages, after)
    expires_at = None if given.expires_at is None else milliseconds_since_epoch(given.expires_at)

    def transaction(rows: Rows) -> Conversation:
        if expires_at is not None and expires_at <= rows.time:
            raise NotFound(given.id)
        row = rows.find_live(given.id)
        if row is None:
            if after:
                raise NotFound(given.id)
            row = rows.create(
                given.id,
                owner=given.owner,
                lifetime=settings.lifetime_for(lifetime_of(given)),
                title=given.title,
                metadata=dumps(given.metadata),
                time=milliseconds_since_epoch(given.created_at),
            )
        elif row["owner"] != given.owner:
            raise AlreadyExists(given.id)
        else:
            require_revision(row, after)
        return rows.restore(
            row,
            bodies,
            first=after + 1,
            revision=given.revision,
            updated_at=milliseconds_since_epoch(given.updated_at),
            expires_at=expires_at,
        )

    return (yield from _write(settings, transaction))


def update(
    settings: Settings,
    conversation_id: str,
    *,
    title: str | None,
    metadata: dict[str, Json] | None,
    revision: int | None,
    metadata_revision: int | None,
    owner: str | None,
) -> Plan[Conversation]:
    check_ids(conversation_id, owner)
    check_title(title)
    metadata_text = None if metadata is None else dumps(checked_metadata(metadata))
    check_revision(revision, "revision")
    check_revision(metadata_revision, "metadata_revision")

    def transaction(rows: Rows) -> Conversation:
        row = rows.require_live(conversation_id, owner)
        require_revision(row, revision, metadata_revision)
        if title is None and metadata_text is None:
            return conversation_from(row)
        return conversation_from(
            rows.update(
                row,
                row["title"] if title is None else title or None,
                row["metadata"] if metadata_text is None else metadata_text,
            )
        )

    return (yield from _write(settings, transaction))


def claim(settings: Settings, conversation_id: str, owner: str) -> Plan[Conversation]:
    check_id(conversation_id)
    check_id(owner, "owner")

    def transaction(rows: Rows) -> Conversation:
        row = rows.require_live(conversation_id, None)
        if row["owner"] not in (None, owner):
            raise NotFound(conversation_id)
        return conversation_from(row if row["owner"] == owner else rows.claim(row, owner))

    return (yield from _write(settings, transaction))


def truncate(
    settings: Settings, conversation_id: str, *, after: int, owner: str | None
) -> Plan[Conversation]:
    check_ids(conversation_id, owner)
    check_number(after, "after", least=0)

    def transaction(rows: Rows) -> Conversation:
        row = rows.require_live(conversation_id, owner)
        return conversation_from(rows.truncate(row, after=after))

    return (yield from _write(settings, transaction))


def pop(
    settings: Settings, conversation_id: str, n: int, *, owner: str | None
) -> Plan[list[Message]]:
    check_ids(conversation_id, owner)
    check_number(n, "n", least=1, most=MAX_LIMIT)

    def transaction(rows: Rows) -> list[Message]:
        row = rows.require_live(conversation_id, owner)
        popped = rows.last_messages(row, n, most_bytes=inf)
        if popped and popped[0].seq:
            rows.truncate(row, after=popped[0].seq - 1)
        return popped

    return (yield from _write(settings, transaction))


def replace(
    settings: Settings,
    conversation_id: str,
    seq: int,
    message: Message,
    *,
    revision: int | None,
    owner: str | None,
) -> Plan[Conversation]:
    check_ids(conversation_id, owner)
    check_number(seq, "seq", least=1)
    check_revision(revision, "revision")
    body = encode_message(message)

    def transaction(rows: Rows) -> Conversation:
        row = rows.require_live(conversation_id, owner)
        require_revision(row, revision)
        return conversation_from(rows.replace(row, seq, body))

    return (yield from _write(settings, transaction))


def remove(
    settings: Settings, conversation_id: str, seq: int, *, revision: int | None, owner: str | None
) -> Plan[Conversation]:
    check_ids(conversation_id, owner)
    check_number(seq, "seq", least=1)
    check_revision(revision, "revision")

    def transaction(rows: Rows) -> Conversation:
        row = rows.require_live(conversation_id, owner)
        require_revision(row, revision)
        return conversation_from(rows.remove(row, seq))

    return (yield from _write(settings, transaction))


def fork(
    settings: Settings,
    conversation_id: str,
    *,
    at: int | None,
    new_id: str | None,
    expires_in: timedelta | None,
    owner: str | None,
    idempotency_key: str | None,
) -> Plan[Conversation]:
    check_ids(conversation_id, owner)
    check_revision(at, "at")
    check_lifetime(expires_in)
    creation = Creation.of(idempotency_key, "fork", conversation_id, at, expires_in)
    copy_id = new_id_for(creation, "fork", conversation_id) if new_id is None else new_id
    check_id(copy_id, "new_id")

    def transaction(rows: Rows) -> Conversation:
        existing = rows.find_live(copy_id)
        if existing is not None and _is_repeated(existing, owner, creation):
            return conversation_from(existing)
        source = rows.require_live(conversation_id, owner)
        created = rows.create(
            copy_id,
            owner=source["owner"],
            lifetime=source["lifetime"] if expires_in is None else milliseconds(expires_in),
            title=source["title"],
            metadata=source["metadata"],
            creation=creation,
        )
        last = MAX_REVISION if at is None else at
        return conversation_from(rows.copy_messages(source, rows.advance(created), at=last))

    return (yield from _write(settings, transaction))


def delete(settings: Settings, conversation_id: str, *, owner: str | None) -> Plan[None]:
    check_ids(conversation_id, owner)
    yield from _write(
        settings, lambda rows: rows.delete(rows.require_live(conversation_id, owner)["number"])
    )


def delete_owner(settings: Settings, owner: str) -> Plan[int]:
    check_id(owner, "owner")
    deleted, has_more, left_garbage = 0, True, False
    up_to: int | None = None

    def transaction(rows: Rows) -> None:
        nonlocal deleted, has_more, left_garbage, up_to
        up_to = rows.last_number() if up_to is None else up_to  # not those that begin meanwhile
        count, has_more = rows.delete_owned(owner, up_to=up_to)
        deleted, left_garbage = deleted + count, rows.left_garbage

    yield transaction
    while has_more:
        yield PAUSE
        yield transaction
    if left_garbage:
        yield from _clean_up(settings.cleanup)
    return deleted


def sweep() -> Plan[int]:
    freed, has_more = 0, True
    while has_more:
        batch, has_more = yield lambda rows: rows.sweep(entries=MAX_FREED_ROWS, rows=MAX_FREED_ROWS)
        freed += batch
        if has_more:
            yield PAUSE
    return freed


def _is_repeated(row: sqlite3.Row, owner: str | None, creation: Creation | None) -> bool:
    """Return whether the conversation was created by an earlier call with the same key.

    Raises:
        KeyReused: That call had other arguments.
    """
    created = creation_of(row)
    if created is None or owner not in (None, row["owner"]):
        return False
    return created.is_repeated_by(creation)


def _write(settings: Settings, transaction: Transaction[T]) -> Plan[T]:
    """Return the transaction's result; first free the rows that it left, as far as time allows."""
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
