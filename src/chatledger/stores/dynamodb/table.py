"""The table as plans see it: its name, clocks and randomness, and a cache of log ends."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from threading import Lock
from typing import NamedTuple

from chatledger.backoff import backoff
from chatledger.errors import InvalidArgument, StoreUnavailable
from chatledger.stores.arguments import checked_lifetime
from chatledger.stores.dynamodb.calls import PATIENCE, Plan, Wait
from chatledger.stores.dynamodb.records import Head, Record, Tombstone
from chatledger.values import milliseconds, milliseconds_since_epoch, new_id

INDEX = "by_owner"
SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000

TOMBSTONE_LIFETIME = DAY + HOUR
"""How long (ms) the position of a removed record stays taken."""
CACHED_FOR = HOUR
"""How long (ms) after it was read a log end may still be used for a write."""
CACHED_CONVERSATIONS = 10_000
CLEANUP_SECONDS = 2.0
"""How long (s) a write may spend on freeing storage after it has taken effect."""
RACE_PATIENCE = 3
"""An operation that keeps losing races is retried for this many times ``Table.patience``."""
MIN_RETRIES = 3
"""The least number of such retries, however long they take: a cached log end may be stale."""
WARNING_SECONDS = 60.0
"""The shortest time (s) between two warnings that follow-up work failed."""
FIRST_WAIT, LONGEST_WAIT = 0.004, 0.25
"""Bounds (s) of the waits after lost races."""


class LogEnd(NamedTuple):
    """The end of a log as it was read: its last item, and the conversation's head."""

    last: Record | Tombstone | None = None
    head: Head | None = None
    read_at: tuple[int, float] = (0, 0.0)
    """The time at which it was read, by the wall clock (ms) and the monotonic clock (s)."""

    @property
    def next(self) -> int:
        """The next free position."""
        return 1 if self.last is None else self.last.revision + 1

    @property
    def record(self) -> Record | None:
        """The last item, if it is a record."""
        return self.last if isinstance(self.last, Record) else None

    def live_record(self, time: int) -> Record | None:
        """Return the last record if the conversation is live at ``time`` (ms), else None."""
        record = self.record
        return record if record is not None and record.is_live(time) else None


class LogEndCache:
    """The log ends of the most recently used conversations, without message bodies."""

    def __init__(self, limit: int = CACHED_CONVERSATIONS) -> None:
        self._limit = limit
        self._lock = Lock()
        self._log_ends: OrderedDict[str, LogEnd] = OrderedDict()

    def get(self, conversation_id: str) -> LogEnd | None:
        with self._lock:
            found = self._log_ends.get(conversation_id)
            if found is not None:
                self._log_ends.move_to_end(conversation_id)
            return found

    def put(self, conversation_id: str, log_end: LogEnd) -> None:
        with self._lock:
            self._log_ends[conversation_id] = log_end
            self._log_ends.move_to_end(conversation_id)
            if len(self._log_ends) > self._limit:
                self._log_ends.popitem(last=False)

    def forget(self, conversation_id: str) -> None:
        with self._lock:
            self._log_ends.pop(conversation_id, None)


@dataclass(slots=True, kw_only=True)
class Table:
    """The table that a store's plans work on.

    Attributes:
        name: Its name or ARN.
        lifetime: The lifetime (ms) of conversations that begin without one of their own; None if
            these do not expire.
        consistent: Whether reads are strongly consistent.
        clock: The wall clock.
        monotonic: The monotonic clock, in seconds.
        random: The source of jitter.
        new_token: Makes a write token that carries the given time (ms).
        patience: How long (s) an inconsistent read is retried; an operation that keeps losing races
            is retried ``RACE_PATIENCE`` times as long.
        cleanup_seconds: How long (s) a write may spend on freeing storage after it has taken
            effect.
        log_end_cache: The ends of the logs to which this store has written last.
    """

    name: str
    lifetime: int | None
    consistent: bool
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    random: Random
    new_token: Callable[[int], str] = new_id
    patience: float = PATIENCE
    cleanup_seconds: float = CLEANUP_SECONDS
    log_end_cache: LogEndCache = field(default_factory=LogEndCache)
    _warned_at: float | None = None

    def lifetime_for(self, expires_in: timedelta | None) -> int | None:
        """Return the lifetime (ms) of a conversation that begins with ``expires_in``."""
        return self.lifetime if expires_in is None else milliseconds(expires_in)

    @classmethod
    def of(
        cls,
        name: str,
        *,
        expire_after: timedelta | None,
        consistent: bool,
        clock: Callable[[], datetime],
        patience: float = PATIENCE,
        cleanup: float = CLEANUP_SECONDS,
    ) -> "Table":
        """Return the table ``name``, with a monotonic clock and randomness of this process.

        Raises:
            InvalidArgument: ``name``, ``expire_after`` or ``cleanup`` is invalid.
        """
        expire_after = checked_lifetime(expire_after, "expire_after")
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"{name!r} is not a table name; pass 3 to 255 letters, digits, dots, dashes and "
                "underscores, or an ARN."
            )
        if not cleanup >= 0:
            raise InvalidArgument("cleanup must be a number of seconds, 0 or more.")
        return cls(
            name=name,
            lifetime=None if expire_after is None else milliseconds(expire_after),
            consistent=consistent,
            clock=clock,
            monotonic=time.monotonic,
            random=Random(),  # noqa: S311  for jitter, not for secrets
            patience=patience,
            cleanup_seconds=cleanup,
        )

    def time(self) -> int:
        """Return the current time in ms since 1970."""
        return milliseconds_since_epoch(self.clock())

    def token(self) -> str:
        """Return a new write token."""
        return self.new_token(self.time())

    def now(self) -> tuple[int, float]:
        """Return the current time by both clocks, for ``LogEnd.read_at``."""
        return self.time(), self.monotonic()

    def is_fresh(self, read_at: tuple[int, float]) -> bool:
        """Return whether a log end that was read at ``read_at`` may still be used for a write.

        Both clocks must agree: the wall clock may be set back, and the monotonic clock may stop
        while the process is frozen.
        """
        time, monotonic = read_at
        return (
            0 <= self.time() - time < CACHED_FOR
            and self.monotonic() - monotonic < CACHED_FOR / SECOND
        )

    def has_slept(self, read_at: tuple[int, float]) -> bool:
        """Return whether an hour has passed since ``read_at``, by either clock."""
        time, monotonic = read_at
        return (
            self.time() - time >= CACHED_FOR or self.monotonic() - monotonic >= CACHED_FOR / SECOND
        )

    def may_warn(self) -> bool:
        """Return whether a warning may be logged now; if so, none may for ``WARNING_SECONDS``."""
        if self._warned_at is not None and self.monotonic() - self._warned_at < WARNING_SECONDS:
            return False
        self._warned_at = self.monotonic()
        return True

    def cached_end(self, conversation_id: str) -> LogEnd | None:
        """Return the cached log end if it is fresh and its conversation is live, else None."""
        found = self.log_end_cache.get(conversation_id)
        if found is None:
            return None
        if not self.is_fresh(found.read_at) or found.live_record(self.time()) is None:
            self.log_end_cache.forget(conversation_id)
            return None
        return found

    def cache_end(
        self, conversation_id: str, record: Record, *, read_at: tuple[int, float]
    ) -> None:
        """Cache ``record``, without its messages, as a log end that was read at ``read_at``.

        Args:
            conversation_id: The conversation.
            record: Its last record.
            read_at: A time, as of ``now``, not later than that of the write of ``record``.
        """
        slim = record._replace(body=None, initial_description=None)
        self.log_end_cache.put(conversation_id, LogEnd(slim, None, read_at))


class RaceRetries:
    """Counts the lost races of one operation, and ends it when it has been retried for too long."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._deadline = table.monotonic() + RACE_PATIENCE * table.patience
        self.count = 0

    def back_off(self) -> Plan[None]:
        """Back off after a lost race: not after the first, and longer after each further one.

        Raises:
            StoreUnavailable: The operation has lost races for ``RACE_PATIENCE`` times
                ``Table.patience``. Nothing was written: every attempt is known to have failed.
        """
        table = self._table
        self.count += 1
        if self.count > MIN_RETRIES and table.monotonic() > self._deadline:
            raise StoreUnavailable(
                f"Other writers were faster {self.count} times in a row; try again later.",
                may_have_landed=False,
            )
        if self.count > 1:
            yield Wait(
                backoff(table.random, self.count - 1, first=FIRST_WAIT, longest=LONGEST_WAIT)
            )


def ttl_at(time: int) -> int:
    """Return ``time`` (ms) in seconds, the unit of DynamoDB's TTL, rounded up."""
    return -(-time // SECOND)


_NAME = re.compile(r"[\w.-]{3,255}|arn:[\w-]+:dynamodb:[\w-]*:\d*:table/[\w.-]{3,255}", re.ASCII)
