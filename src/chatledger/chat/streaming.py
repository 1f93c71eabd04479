"""Streaming the model's reply, with renewals of the lease and a time limit."""

from collections.abc import Callable
from typing import TypeAlias

from chatledger.chat.effects import STOPPED, NextPiece, TurnSteps
from chatledger.chat.options import ChatOptions
from chatledger.errors import ModelTimeout
from chatledger.models.protocol import Finished

RENEWALS_PER_LEASE = 3
"""The number of renewals within the duration of one lease; a single one of them may fail."""

RenewLease: TypeAlias = Callable[[], TurnSteps[bool]]
"""Extends the turn's lease; returns False if the turn was stopped meanwhile."""


class Deadlines:
    """The time of the next renewal of a turn's lease, and the end of its time limit."""

    def __init__(self, options: ChatOptions) -> None:
        self._timer = options.timer
        self._renewal_interval = options.lease.total_seconds() / RENEWALS_PER_LEASE
        limit = options.time_limit
        self._next_renewal = self._timer() + self._renewal_interval
        self._end = None if limit is None else self._timer() + limit.total_seconds()

    @property
    def is_over_time_limit(self) -> bool:
        return self._end is not None and self._timer() >= self._end

    @property
    def is_renewal_due(self) -> bool:
        return self._timer() >= self._next_renewal

    @property
    def seconds_left(self) -> float:
        """The seconds until the next renewal or the end of the time limit, whichever is earlier."""
        next = self._next_renewal if self._end is None else min(self._next_renewal, self._end)
        return max(next - self._timer(), 0.0)

    def schedule_renewal(self) -> None:
        self._next_renewal = self._timer() + self._renewal_interval


def stream_reply(
    pieces: list[str], deadlines: Deadlines, renew_lease: RenewLease
) -> TurnSteps[Finished]:
    """Yield the pieces of the reply, add them to ``pieces``, and return how the reply ended.

    Raises ``ModelTimeout`` if the time limit ends before the first piece.
    """
    while True:
        if deadlines.is_over_time_limit:
            if pieces:
                return Finished("timed_out")
            raise ModelTimeout(
                "The model sent nothing within the turn's time limit; try again, or raise the "
                "limit."
            )
        if deadlines.is_renewal_due:
            if not (yield from renew_lease()):
                return Finished("stopped")
            deadlines.schedule_renewal()
        output = yield NextPiece(deadlines.seconds_left)
        if output is STOPPED:
            return Finished("stopped")
        if isinstance(output, Finished):
            return output
        if output:
            pieces.append(output)
            yield output
