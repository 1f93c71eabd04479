"""Conversations in one local SQLite file, with the guarantees of every store."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Self

from chatledger.conversations import (
    LAST_REVISION,
    LIMIT,
    Appended,
    Conversation,
    Listing,
    Page,
    Tail,
    check_id,
    check_idempotency_key,
    check_lifetime,
    check_names,
    check_number,
    check_place,
    check_title,
    checked_metadata,
    checked_restored,
    encode_batch,
    encode_one,
    lifetime_of,
)
from chatledger.errors import AlreadyExists, NotFound
from chatledger.json_values import Json, dumps
from chatledger.messages import Message, now
from chatledger.messages import new_id as a_new_id
from chatledger.stores.contract import Store
from chatledger.stores.sqlite.connection import MEMORY, Connection
from chatledger.stores.sqlite.rows import Rows, check_stands_at
from chatledger.stores.sqlite.values import conversation, cursor_at, milliseconds, scan_cursor_at


class SQLiteStore(Store):
    """Conversations in the SQLite file at ``path``, made where there is none.

    Any number of threads may share one store, and any number of processes one file; a write is on
    the disk when it returns. ``path`` ``:memory:`` keeps everything in this object alone.
    ``expire_after`` is how long a conversation lives after its last activity, where it was not
    created with a lifetime of its own; ``timeout`` how many seconds to wait for another process's
    write. Raises ``StoreMismatch`` and ``StoreUnavailable``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        expire_after: timedelta | None = None,
        timeout: float = 10.0,
        clock: Callable[[], datetime] = now,
    ) -> None:
        check_lifetime(expire_after, "expire_after")
        self._lifetime = _lifetime(expire_after)
        self._clock = clock
        path = os.fspath(path)
        self._writer = Connection(path, timeout=timeout)
        # One more for readers, who need not wait for writers; what is in memory has but one.
        self._reader = self._writer if path == MEMORY else Connection(path, timeout=timeout)

    def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Conversation:
        conversation_id = a_new_id() if conversation_id is None else conversation_id
        check_names(conversation_id, owner)
        check_title(title)
        check_lifetime(expires_in)
        metadata_text = dumps(checked_metadata(metadata))
        with self._writing() as rows:
            row = rows.start(
                conversation_id,
                owner=owner,
                title=title or None,
                metadata=metadata_text,
                lifetime=_lifetime(expires_in),
            )
            return conversation(rows.moved(row))

    def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        owner: str | None = None,
        after: int | None = None,
        idempotency_key: str | None = None,
        truncate_after: int | None = None,
        reply_follows: bool = False,
    ) -> Appended:
        check_names(conversation_id, owner)
        check_idempotency_key(idempotency_key)
        check_place(after, "after")
        check_place(truncate_after, "truncate_after")
        bodies = encode_batch(messages)
        with self._writing() as rows:
            row = rows.find(conversation_id)
            if row is None:
                if after:
                    raise NotFound(conversation_id)
                row = rows.start(conversation_id, owner=owner)
            else:
                row = rows.living(conversation_id, owner)
                if idempotency_key is not None:
                    done = rows.remembered(row, idempotency_key)
                    if done is not None:
                        return done
                check_stands_at(row, after)
                if truncate_after is not None:
                    row = rows.cut(row, after=truncate_after)
            appended = rows.add(row, bodies)
            if idempotency_key is not None:
                rows.remember(row, idempotency_key, appended)
            return appended

    def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        check_names(conversation_id, owner)
        with self._reading() as rows:
            return conversation(rows.living(conversation_id, owner))

    def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail:
        check_names(conversation_id, owner)
        check_number(n, "n", least=1, most=LIMIT)
        with self._reading() as rows:
            row = rows.living(conversation_id, owner)
            return Tail(conversation(row), rows.last(row, n))

    def page(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> Page:
        check_names(conversation_id, owner)
        check_number(limit, "limit", least=1, most=LIMIT)
        check_place(after, "after")
        check_place(before, "before")
        with self._reading() as rows:
            found = rows.stretch(
                rows.living(conversation_id, owner),
                after=0 if after is None else after,
                before=LAST_REVISION if before is None else before,
                limit=limit + 1,
                order="DESC" if after is None and before is not None else "ASC",
            )
        return Page(found[:limit], found[limit - 1].seq if len(found) > limit else None)

    def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing:
        check_id(owner, "owner")
        check_number(limit, "limit", least=1, most=LIMIT)
        with self._reading() as rows:
            found = rows.owned(owner, limit=limit + 1, cursor=cursor)
        return Listing(
            [conversation(row) for row in found[:limit]],
            cursor_at(found[limit - 1]) if len(found) > limit else None,
        )

    def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing:
        check_number(limit, "limit", least=1, most=LIMIT)
        with self._reading() as rows:
            found = rows.every(limit=limit + 1, cursor=cursor)
        return Listing(
            [conversation(row) for row in found[:limit]],
            scan_cursor_at(found[limit - 1]) if len(found) > limit else None,
        )

    def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation:
        given, bodies = checked_restored(conversation, messages, after)
        with self._writing() as rows:
            expires_at = None if given.expires_at is None else milliseconds(given.expires_at)
            if expires_at is not None and expires_at <= rows.time:
                raise NotFound(given.id)
            row = rows.find(given.id)
            if row is None:
                if after:
                    raise NotFound(given.id)
                row = rows.start(
                    given.id,
                    owner=given.owner,
                    title=given.title,
                    metadata=dumps(given.metadata),
                    time=milliseconds(given.created_at),
                )
            elif row["owner"] != given.owner:
                raise AlreadyExists(given.id)
            else:
                check_stands_at(row, after)
            return rows.put_back(
                row,
                bodies,
                first=after + 1,
                revision=given.revision,
                updated_at=milliseconds(given.updated_at),
                expires_at=expires_at,
                lifetime=_lifetime(lifetime_of(given)),
            )

    def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        check_names(conversation_id, owner)
        check_title(title)
        metadata_text = None if metadata is None else dumps(checked_metadata(metadata))
        check_place(revision, "revision")
        with self._writing() as rows:
            row = rows.living(conversation_id, owner)
            check_stands_at(row, revision)
            return conversation(
                rows.described(
                    row,
                    row["title"] if title is None else title or None,
                    row["metadata"] if metadata_text is None else metadata_text,
                )
            )

    def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        check_names(conversation_id, owner)
        check_number(after, "after", least=0)
        with self._writing() as rows:
            return conversation(rows.cut(rows.living(conversation_id, owner), after=after))

    def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> Sequence[Message]:
        check_names(conversation_id, owner)
        check_number(n, "n", least=1, most=LIMIT)
        with self._writing() as rows:
            row = rows.living(conversation_id, owner)
            popped = rows.last(row, n)
            if popped and popped[0].seq:
                rows.cut(row, after=popped[0].seq - 1)
            return popped

    def clear(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return self.truncate(conversation_id, after=0, owner=owner)

    def replace(
        self,
        conversation_id: str,
        seq: int,
        message: Message,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        check_names(conversation_id, owner)
        check_number(seq, "seq", least=1)
        check_place(revision, "revision")
        body = encode_one(message)
        with self._writing() as rows:
            row = rows.living(conversation_id, owner)
            check_stands_at(row, revision)
            return conversation(rows.put(row, seq, body))

    def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        owner: str | None = None,
    ) -> Conversation:
        check_names(conversation_id, owner)
        new_id = a_new_id() if new_id is None else new_id
        check_id(new_id, "new_id")
        check_place(at, "at")
        with self._writing() as rows:
            source = rows.living(conversation_id, owner)
            started = rows.start(
                new_id,
                owner=source["owner"],
                title=source["title"],
                metadata=source["metadata"],
                lifetime=source["lifetime"],
            )
            at = LAST_REVISION if at is None else at
            return conversation(rows.copy(source, rows.moved(started), at=at))

    def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        check_names(conversation_id, owner)
        with self._writing() as rows:
            rows.end(rows.living(conversation_id, owner)["number"])

    def delete_owner(self, owner: str) -> int:
        check_id(owner, "owner")
        with self._writing() as rows:
            return rows.end_owned(owner)

    def sweep(self) -> int:
        freed = 0
        while True:
            # Many short transactions, so that writers get their turns in between.
            with self._writing() as rows:
                batch = rows.free(limit=100)
            if not batch:
                return freed
            freed += batch

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[Rows]:
        with self._reader.reading() as db:
            yield Rows(db, milliseconds(self._clock()), self._lifetime)

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        with self._writer.writing() as db:
            yield Rows(db, milliseconds(self._clock()), self._lifetime)


def _lifetime(time: timedelta | None) -> int | None:
    return None if time is None else milliseconds(time)
