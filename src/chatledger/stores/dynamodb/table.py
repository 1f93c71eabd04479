"""The table as plans see it: its clocks and randomness, a cache of log ends, and its partitions."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from random import Random
from threading import Lock
from typing import Any, NamedTuple

from chatledger.backoff import backoff
from chatledger.errors import InvalidArgument, StoreUnavailable
from chatledger.stores.arguments import checked_cleanup, checked_default_lifetime
from chatledger.stores.dynamodb.calls import PATIENCE, Attribute, Call, Item, Plan, T, Wait
from chatledger.stores.dynamodb.clock import MAX_DIFFERENCE, ClockComparison
from chatledger.stores.dynamodb.records import Head, Record, Tombstone
from chatledger.values import milliseconds, milliseconds_since_epoch, new_id, now

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
        clock_difference: The most (ms) by which another process's clock is ahead or behind.
        clock_comparison: Compares ``clock`` with DynamoDB's; None if that is not wanted.
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
    clock_difference: int = 0
    clock_comparison: ClockComparison | None = None
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
        compare_clock: bool | None = None,
    ) -> "Table":
        """Return the table ``name``, with a monotonic clock and randomness of this process.

        The arguments are those of ``DynamoDBStore``.

        Raises:
            InvalidArgument: ``name``, ``expire_after`` or ``cleanup`` is invalid.
        """
        check_table_name(name)
        table = cls(
            name=name,
            lifetime=checked_default_lifetime(expire_after),
            consistent=consistent,
            clock=clock,
            monotonic=time.monotonic,
            random=Random(),  # noqa: S311  for jitter, not for secrets
            patience=patience,
            cleanup_seconds=checked_cleanup(cleanup),
        )
        if clock is now if compare_clock is None else compare_clock:
            table.clock_difference = MAX_DIFFERENCE
            table.clock_comparison = ClockComparison(table.time, table.monotonic)
        return table

    def compare_clock(self, plan: Plan[T]) -> Plan[T]:
        """Run ``plan``, and compare ``clock`` with DynamoDB's during it if that is due."""
        return plan if self.clock_comparison is None else self.clock_comparison.during(plan)

    def require_clock(self) -> None:
        """Raise ``ClockSkewed`` if the clock is known to differ too much from DynamoDB's."""
        if self.clock_comparison is not None:
            self.clock_comparison.require()

    def wait_until_expired(self, expiry: int | None) -> Plan[None]:
        """Wait until what has expired at ``expiry`` (ms) has done so by every process's clock.

        Until then others may see it and write to it, so nothing may begin in its place.

        Raises:
            ClockSkewed: This clock is too far off to tell.
        """
        if expiry is None:
            return
        self.require_clock()
        remaining = expiry + self.clock_difference - self.time()
        if remaining > 0:
            yield Wait(remaining / SECOND)

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
        if self.clock_comparison is not None and self.clock_comparison.is_skewed:
            return None  # read it instead: the reply shows whether the clock has been set since
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


class Partition:
    """The items of ``table`` whose partition key is ``pk``.

    Args:
        table: The table.
        pk: The partition key.
        label: Whose items they are, for messages: ``conversation 'trip'``.
        consistent: Whether queries are strongly consistent.
    """

    def __init__(self, table: Table, pk: str, label: str, *, consistent: bool = True) -> None:
        self.table = table
        self.pk = pk
        self.label = label
        self.consistent = consistent

    def key(self, sort: str) -> Item:
        """Return the primary key of the item with this sort key."""
        return {"pk": {"S": self.pk}, "sk": {"S": sort}}

    def get(self, sort: str) -> Plan[Item | None]:
        """Return the item with this sort key, by a consistent read; None if there is none."""
        params = {"TableName": self.table.name, "Key": self.key(sort), "ConsistentRead": True}
        item: Item | None = (yield Call("GetItem", params)).get("Item")
        return item

    def query(
        self, low: str, high: str, *, limit: int, forward: bool, names: Sequence[str] = ()
    ) -> Plan[list[Item]]:
        """Return at most ``limit`` items whose sort keys lie from ``low`` to ``high``.

        Only the attributes ``names`` are returned, if any are given.
        """
        items: list[Item] = []
        params: dict[str, Any] = {
            "TableName": self.table.name,
            "KeyConditionExpression": "#pk = :pk AND #sk BETWEEN :low AND :high",
            "ExpressionAttributeNames": {f"#{name}": name for name in ("pk", "sk", *names)},
            "ExpressionAttributeValues": {
                ":pk": {"S": self.pk},
                ":low": {"S": low},
                ":high": {"S": high},
            },
            "ConsistentRead": self.consistent,  # a chatbot must see the message it just saved
            "ScanIndexForward": forward,
        }
        if names:
            params["ProjectionExpression"] = ", ".join(f"#{name}" for name in names)
        # A reply ends at 1 MB, whatever the limit (AWS: Query).
        while low <= high and len(items) < limit:
            reply = yield Call("Query", params | {"Limit": limit - len(items)})
            items += reply["Items"]
            if "LastEvaluatedKey" not in reply:
                break
            params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]
        return items

    def put_params(self, item: Item, condition: str, **values: Attribute) -> dict[str, Any]:
        """Return the parameters of a conditional put."""
        return self.conditional_params(condition, **values) | {"Item": item}

    def update_params(
        self,
        sort: str,
        attributes: Mapping[str, Attribute | None],
        condition: str,
        **values: Attribute,
    ) -> dict[str, Any]:
        """Return the parameters of a conditional update; an attribute given as None is removed."""
        sets = [f"#{name} = :{name}_" for name, value in attributes.items() if value is not None]
        removes = [f"#{name}" for name, value in attributes.items() if value is None]
        expression = (f"SET {', '.join(sets)} " if sets else "") + (
            f"REMOVE {', '.join(removes)}" if removes else ""
        )
        values |= {f"{name}_": value for name, value in attributes.items() if value is not None}
        return self.conditional_params(f"{condition} {expression}", **values) | {
            "Key": self.key(sort),
            "UpdateExpression": expression.strip(),
            "ConditionExpression": condition,
        }

    def conditional_params(self, condition: str, **values: Attribute) -> dict[str, Any]:
        """Return the parameters of a conditional write, except its key.

        The condition refers to an attribute as ``#name``, and to one of ``values`` as ``:name``. If
        the condition fails, the error carries the existing item.
        """
        params: dict[str, Any] = {
            "TableName": self.table.name,
            "ConditionExpression": condition,
            # Every name is written this way: many words are reserved, and more may become so.
            "ExpressionAttributeNames": dict(_names_in(condition)),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if values:
            params["ExpressionAttributeValues"] = {f":{name}": v for name, v in values.items()}
        return params


@cache
def _names_in(text: str) -> dict[str, str]:
    """Return the names in an expression; cached, because plans use few different expressions."""
    return {f"#{name}": name for name in re.findall(r"#(\w+)", text)}


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


def check_table_name(name: str) -> None:
    """Raise ``InvalidArgument`` unless ``name`` can be the name or ARN of a table."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{name!r} is not a table name; pass 3 to 255 letters, digits, dots, dashes and "
            "underscores, or an ARN."
        )


def ttl_at(time: int) -> int:
    """Return ``time`` (ms) in seconds, the unit of DynamoDB's TTL, rounded up."""
    return -(-time // SECOND)


_NAME = re.compile(r"[\w.-]{3,255}|arn:[\w-]+:dynamodb:[\w-]*:\d*:table/[\w.-]{3,255}", re.ASCII)
