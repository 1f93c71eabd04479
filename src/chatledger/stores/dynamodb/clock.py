"""The comparison of a store's clock with DynamoDB's, which dates each of its replies.

A store compares them at its first call, after an hour, and once its clock was set. That takes no
request of its own: the time before and after a call is compared with the ``Date`` of its reply.
That has whole seconds and was made at any moment of the call, so a comparison tells by how much the
clocks differ at least. A clock that passes it is at most ``MAX_SKEW`` ahead of DynamoDB's or
behind it.
"""

import logging
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from chatledger.errors import ClockSkewed
from chatledger.stores.dynamodb.calls import Call, Plan, T, Wait, through
from chatledger.values import milliseconds_since_epoch

logger = logging.getLogger("chatledger.stores")

MAX_SKEW = 5_000
"""The most (ms) by which a clock that passes the comparison differs from DynamoDB's."""
MAX_DIFFERENCE = 2 * MAX_SKEW
"""The most (ms) by which two such clocks differ from each other."""
WARNED_SKEW = 2_000
"""The skew (ms) from which on a warning is logged."""
COMPARED_FOR = 3_600.0
"""The time (s) for which a comparison holds, and the shortest between two warnings."""
LONGEST_CALL = 1_000
"""The longest call (ms) whose reply is used: the longer it took, the less its date tells."""
RESOLUTION = 1_000
"""The resolution (ms) of a date."""
SET_BY = 1_000
"""A clock that has moved by this much (ms) more or less than the monotonic clock was set."""


class ClockComparison:
    """Compares a store's clock with DynamoDB's.

    Args:
        time: The store's clock, in ms since 1970.
        monotonic: The monotonic clock, in seconds.
    """

    def __init__(self, time: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._time = time
        self._monotonic = monotonic
        self._compared_at: tuple[int, float] | None = None
        self._skew = 0
        self._warned_at: float | None = None

    @property
    def is_due(self) -> bool:
        """True if there was no comparison yet, or the last one says nothing about the time now."""
        if self._compared_at is None:
            return True
        time, monotonic = self._compared_at
        elapsed = self._monotonic() - monotonic
        # A process that was frozen, whose monotonic clock stood still, counts as well.
        return elapsed >= COMPARED_FOR or abs(self._time() - time - elapsed * 1_000) > SET_BY

    @property
    def is_skewed(self) -> bool:
        """True if the last comparison found the clock too far off."""
        return abs(self._skew) > MAX_SKEW - RESOLUTION - LONGEST_CALL

    def require(self) -> None:
        """Raise ``ClockSkewed`` if the clock is known to be too far off."""
        if self.is_skewed and not self.is_due:
            raise ClockSkewed(self._skew / 1_000)

    def during(self, plan: Plan[T]) -> Plan[T]:
        """Run ``plan``; if a comparison is due, compare the clocks with its first useful reply."""
        return through(plan, self._compare) if self.is_due else plan

    def _compare(self, step: Call | Wait) -> Plan[Any]:
        if isinstance(step, Wait) or not self.is_due:
            return (yield step)
        sent = self._time()
        reply = yield step
        received = self._time()
        date = _date_of(reply)
        if date is None or not 0 <= received - sent <= LONGEST_CALL:
            return reply
        self._compared_at = received, self._monotonic()
        # DynamoDB's clock showed a time within the second of the date, at a moment of the call.
        self._skew = max(sent - date - RESOLUTION, 0) or min(received - date, 0)
        if abs(self._skew) >= WARNED_SKEW and self._may_warn():
            logger.warning("%s", ClockSkewed(self._skew / 1_000))
        return reply

    def _may_warn(self) -> bool:
        now = self._monotonic()
        if self._warned_at is not None and now - self._warned_at < COMPARED_FOR:
            return False
        self._warned_at = now
        return True


def _date_of(reply: dict[str, Any]) -> int | None:
    """Return the date of the reply in ms since 1970; None if it has none that can be read."""
    date = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return milliseconds_since_epoch(parsedate_to_datetime(date))
    except (TypeError, ValueError, OverflowError):
        return None
