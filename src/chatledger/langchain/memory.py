"""Which item of a history takes appends, as this process saw it last."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock

REMEMBERED = 300.0
"""Seconds: so long may a writer not notice that other software deleted the first item."""
HISTORIES = 10_000


class Places:
    """The places of the many histories that were used last, of those that have segments."""

    def __init__(self, limit: int = HISTORIES) -> None:
        self._limit = limit
        self._lock = Lock()
        self._places: OrderedDict[Hashable, tuple[str, float, float]] = OrderedDict()

    def get(self, history: Hashable) -> str | None:
        with self._lock:
            found = self._places.get(history)
        if found is None:
            return None
        place, then, monotonic_then = found
        # By both: the wall clock may be set back, and a frozen process's monotonic one stands.
        fresh = 0 <= time.time() - then < REMEMBERED
        if not fresh or time.monotonic() - monotonic_then >= REMEMBERED:
            self.forget(history)
            return None
        return place

    def seen(self, history: Hashable, place: str) -> None:
        with self._lock:
            self._places[history] = (place, time.time(), time.monotonic())
            self._places.move_to_end(history)
            if len(self._places) > self._limit:
                self._places.popitem(last=False)

    def forget(self, history: Hashable) -> None:
        with self._lock:
            self._places.pop(history, None)


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of one history."""

    places: Places
    history: Hashable

    def get(self) -> str | None:
        """The id of the segment that takes appends; None: try the first item."""
        return self.places.get(self.history)

    def seen(self, place: str | None) -> None:
        """Keep what the first item said."""
        if place is None:
            self.places.forget(self.history)
        else:
            self.places.seen(self.history, place)

    def forget(self) -> None:
        self.places.forget(self.history)
