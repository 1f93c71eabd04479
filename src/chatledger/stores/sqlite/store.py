"""The SQLite store: conversations in one local file."""

import builtins
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from time import sleep
from typing import Any, Self, TypeVar

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.json_values import Json
from chatledger.messages import Message, now
from chatledger.stores.contract import Store
from chatledger.stores.sqlite import plans
from chatledger.stores.sqlite.database import Database
from chatledger.stores.sqlite.plans import CLEANUP_SECONDS, Pause, Plan, Settings, Transaction
from chatledger.stores.sqlite.rows import Rows
from chatledger.stores.times import milliseconds_since_epoch

T = TypeVar("T")


class SQLiteStore(Store):
    """A store in an SQLite file, which is created if it does not exist.

    Any number of threads may share one store, and any number of processes one file. A write is on
    the disk when it returns.

    Args:
        path: The file; ``:memory:`` keeps everything in this object.
        expire_after: The lifetime of conversations that begin without one of their own; None means
            that they do not expire. It does not change conversations that exist.
        timeout: The seconds to wait while others write.
        cleanup: The seconds that a call which removes messages or conversations goes on freeing
            their space after readers see them no longer; later calls free the rest.
        clock: Returns the current time; tests pass their own.

    Raises:
        StoreMismatch: The file is not a Chatledger store, was made by a later version, or is on a
            file system that SQLite cannot share between processes.
        StoreUnavailable: The file cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        expire_after: timedelta | None = None,
        timeout: float = 10.0,
        cleanup: float = CLEANUP_SECONDS,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._settings = Settings.checked(expire_after, cleanup)
        self._clock = clock
        self._database = Database(os.fspath(path), timeout=timeout)

    def create(
        self,
        conversation_id: str | None = None,
        *,
        owner: str | None = None,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return self._run(
            plans.create(
                self._settings,
                conversation_id,
                owner=owner,
                title=title,
                metadata=metadata,
                expires_in=expires_in,
                idempotency_key=idempotency_key,
            )
        )

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
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        expires_in: timedelta | None = None,
    ) -> Appended:
        return self._run(
            plans.append(
                self._settings,
                conversation_id,
                messages,
                owner=owner,
                after=after,
                idempotency_key=idempotency_key,
                truncate_after=truncate_after,
                title=title,
                metadata=metadata,
                expires_in=expires_in,
            )
        )

    def get(self, conversation_id: str, *, owner: str | None = None) -> Conversation:
        return self._read(plans.get(conversation_id, owner=owner))

    def tail(self, conversation_id: str, n: int, *, owner: str | None = None) -> Tail:
        return self._read(plans.tail(conversation_id, n, owner=owner))

    def page(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> Page:
        return self._read(
            plans.page(conversation_id, after=after, before=before, limit=limit, owner=owner)
        )

    def list(self, owner: str, *, limit: int = 20, cursor: str | None = None) -> Listing:
        return self._read(plans.list_owned(owner, limit=limit, cursor=cursor))

    def scan(self, *, limit: int = 100, cursor: str | None = None) -> Listing:
        return self._read(plans.scan(limit=limit, cursor=cursor))

    def restore(
        self, conversation: Conversation, messages: Sequence[Message], *, after: int
    ) -> Conversation:
        return self._run(plans.restore(self._settings, conversation, messages, after=after))

    def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, Json] | None = None,
        revision: int | None = None,
        metadata_revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return self._run(
            plans.update(
                self._settings,
                conversation_id,
                title=title,
                metadata=metadata,
                revision=revision,
                metadata_revision=metadata_revision,
                owner=owner,
            )
        )

    def claim(self, conversation_id: str, owner: str) -> Conversation:
        return self._run(plans.claim(self._settings, conversation_id, owner))

    def truncate(
        self, conversation_id: str, *, after: int, owner: str | None = None
    ) -> Conversation:
        return self._run(plans.truncate(self._settings, conversation_id, after=after, owner=owner))

    def pop(
        self, conversation_id: str, n: int = 1, *, owner: str | None = None
    ) -> builtins.list[Message]:
        return self._run(plans.pop(self._settings, conversation_id, n, owner=owner))

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
        return self._run(
            plans.replace(
                self._settings, conversation_id, seq, message, revision=revision, owner=owner
            )
        )

    def remove(
        self,
        conversation_id: str,
        seq: int,
        *,
        revision: int | None = None,
        owner: str | None = None,
    ) -> Conversation:
        return self._run(
            plans.remove(self._settings, conversation_id, seq, revision=revision, owner=owner)
        )

    def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        new_id: str | None = None,
        expires_in: timedelta | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return self._run(
            plans.fork(
                self._settings,
                conversation_id,
                at=at,
                new_id=new_id,
                expires_in=expires_in,
                owner=owner,
                idempotency_key=idempotency_key,
            )
        )

    def delete(self, conversation_id: str, *, owner: str | None = None) -> None:
        self._run(plans.delete(self._settings, conversation_id, owner=owner))

    def delete_owner(self, owner: str) -> int:
        return self._run(plans.delete_owner(self._settings, owner))

    def sweep(self) -> int:
        return self._run(plans.sweep())

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, transaction: Transaction[T]) -> T:
        return self._database.read(partial(self._perform, transaction))

    def _run(self, plan: Plan[T]) -> T:
        """Run the plan to its result."""
        result: Any = None
        failed: Exception | None = None
        while True:
            try:
                step = plan.throw(failed) if failed else plan.send(result)
            except StopIteration as end:
                returned: T = end.value
                return returned
            result, failed = None, None
            try:
                if isinstance(step, Pause):
                    sleep(step.seconds)
                else:
                    result = self._database.write(partial(self._perform, step))
            except Exception as error:
                failed = error

    def _perform(self, transaction: Transaction[T], db: sqlite3.Connection) -> T:
        return transaction(Rows(db, milliseconds_since_epoch(self._clock())))
