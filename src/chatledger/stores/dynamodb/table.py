"""A table as the plans see it, and what they remember of its conversations."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Lock
from typing import NamedTuple

from chatledger.conversations import check_lifetime
from chatledger.errors import InvalidArgument
from chatledger.messages import new_id
from chatledger.stores.dynamodb.records import Fence, Head, Record

INDEX = "by_owner"
SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000

# A position once taken stays taken for a day, and one that is remembered is used for an hour.
FENCED = DAY + HOUR
REMEMBERED = HOUR
REMEMBERED_CONVERSATIONS = 10_000


class Standing(NamedTuple):
    """How a log stood when it was read: what its last item was, and its head."""

    last: Record | Fence | None = None
    head: Head | None = None

    @property
    def next(self) -> int:
        """The next free position."""
        return 1 if self.last is None else self.last.revision + 1

    @property
    def record(self) -> Record | None:
        """The last record, where it is no fence."""
        return self.last if isinstance(self.last, Record) else None

    def living(self, time: int) -> Record | None:
        """The last record, where it is that of a conversation which exists for readers."""
        record = self.record
        return record if record is not None and record.lives(time) else None


class Memory:
    """The last standing of each conversation, of the many that were used last."""

    def __init__(self, limit: int = REMEMBERED_CONVERSATIONS) -> None:
        self._limit = limit
        self._lock = Lock()
        self._standings: OrderedDict[str, tuple[Standing, int, float]] = OrderedDict()

    def get(self, conversation_id: str, time: int, monotonic: float) -> Standing | None:
        """What may be tried upon: an hour old at most by both clocks, of a life not over.

        By both, since the wall clock may be set back, and a frozen process's monotonic one stands.
        """
        with self._lock:
            found = self._standings.get(conversation_id)
            if found is None:
                return None
            self._standings.move_to_end(conversation_id)
        standing, then, monotonic_then = found
        fresh = 0 <= time - then < REMEMBERED and monotonic - monotonic_then < REMEMBERED / SECOND
        if not fresh or standing.living(time) is None:
            self.forget(conversation_id)
            return None
        return standing

    def put(self, conversation_id: str, standing: Standing, time: int, monotonic: float) -> None:
        with self._lock:
            self._standings[conversation_id] = (standing, time, monotonic)
            self._standings.move_to_end(conversation_id)
            if len(self._standings) > self._limit:
                self._standings.popitem(last=False)

    def forget(self, conversation_id: str) -> None:
        with self._lock:
            self._standings.pop(conversation_id, None)


@dataclass(slots=True, kw_only=True)
class Table:
    """Where the plans' calls go, and the clocks and chance that they go by.

    ``lifetime`` is how long a conversation lives after its last activity (ms), where it has no
    lifetime of its own.
    """

    name: str
    lifetime: int | None
    consistent: bool
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    random: Random
    new_token: Callable[[], str]
    memory: Memory = field(default_factory=Memory)

    @classmethod
    def of(
        cls,
        name: str,
        *,
        expire_after: timedelta | None,
        consistent: bool,
        clock: Callable[[], datetime],
    ) -> "Table":
        """The table of that name, by this process's clock and chance."""
        check_lifetime(expire_after, "expire_after")
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"{name!r} is no table's name; it has 3 to 255 letters, digits, dots, dashes and "
                "underscores, or is an ARN."
            )
        return cls(
            name=name,
            lifetime=None if expire_after is None else milliseconds(expire_after),
            consistent=consistent,
            clock=clock,
            monotonic=time.monotonic,
            random=Random(),  # noqa: S311  for jitter, no secret
            new_token=new_id,
        )

    def time(self) -> int:
        """Now, in ms since 1970."""
        return since_epoch(self.clock())

    def remembered(self, conversation_id: str) -> Standing | None:
        return self.memory.get(conversation_id, self.time(), self.monotonic())

    def remember(self, conversation_id: str, standing: Standing, *, since: int) -> None:
        """Keep what was seen, read no earlier than ``since``."""
        self.memory.put(conversation_id, standing, since, self.monotonic())


def milliseconds(time: timedelta) -> int:
    return time // timedelta(milliseconds=1)


def moment(time: int) -> datetime:
    """The time of so many ms since 1970."""
    return _EPOCH + timedelta(milliseconds=time)


def since_epoch(time: datetime) -> int:
    """A time as ms since 1970."""
    since = time - _EPOCH
    return since.days * DAY + since.seconds * SECOND + since.microseconds // 1_000


def stamp_at(time: int) -> int:
    """The first whole second not before ``time``, as TTL wants it."""
    return -(-time // SECOND)


_NAME = re.compile(r"[\w.-]{3,255}|arn:[\w-]+:dynamodb:[\w-]*:\d*:table/[\w.-]{3,255}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
