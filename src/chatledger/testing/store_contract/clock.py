"""The time that a store under test is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from chatledger.messages import to_milliseconds


class Clock:
    """Calling it gives the time in UTC, to the millisecond: the real one and what was advanced.

    ::

        clock.advance(timedelta(hours=23))
        with clock.stopped():
            ...  # moved by advance alone
    """

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._stands_at: datetime | None = None

    def __call__(self) -> datetime:
        return to_milliseconds((self._stands_at or datetime.now(UTC)) + self._ahead)

    def advance(self, time: timedelta) -> None:
        self._ahead += time

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self._stands_at = datetime.now(UTC)
        try:
            yield
        finally:
            # Real time went on meanwhile, so that this clock too never goes back.
            self._stands_at = None
