"""The clock of a store under test."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from chatledger.values import normalize_time


class Clock:
    """A clock that runs with real time, and that a test can advance and stop.

    Calling it returns the time in UTC, to the millisecond. ::

        clock.advance(timedelta(hours=23))
        with clock.stopped():
            ...  # here only ``advance`` moves it
    """

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._stopped_at: datetime | None = None

    def __call__(self) -> datetime:
        return normalize_time((self._stopped_at or datetime.now(UTC)) + self._ahead)

    def advance(self, time: timedelta) -> None:
        """Move the clock ahead by ``time``."""
        self._ahead += time

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the clock within the block."""
        self._stopped_at = datetime.now(UTC)
        try:
            yield
        finally:
            # Real time has passed meanwhile, so this clock does not go back.
            self._stopped_at = None
