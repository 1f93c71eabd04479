"""Cache of the segments that take appends, so that an append needs no read before it."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock

CACHE_SECONDS = 300.0
"""Limit on how long a writer may fail to notice that other software deleted the first item."""
CACHE_HISTORIES = 10_000


class ActiveSegmentCache:
    """Active segments of the most recently used histories; those of one item are left out."""

    def __init__(self, limit: int = CACHE_HISTORIES) -> None:
        self._limit = limit
        self._lock = Lock()
        self._entries: OrderedDict[Hashable, tuple[str, float, float]] = OrderedDict()

    def get(self, history: Hashable) -> str | None:
        with self._lock:
            entry = self._entries.get(history)
        if entry is None:
            return None
        segment_id, cached_at, monotonic_cached_at = entry
        # Check both clocks: the wall clock can be set back, and the monotonic clock may stop while
        # the process is frozen.
        is_fresh = 0 <= time.time() - cached_at < CACHE_SECONDS
        if not is_fresh or time.monotonic() - monotonic_cached_at >= CACHE_SECONDS:
            self.forget(history)
            return None
        return segment_id

    def set(self, history: Hashable, segment_id: str) -> None:
        with self._lock:
            self._entries[history] = (segment_id, time.time(), time.monotonic())
            self._entries.move_to_end(history)
            if len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def forget(self, history: Hashable) -> None:
        with self._lock:
            self._entries.pop(history, None)


@dataclass(frozen=True, slots=True)
class CachedSegment:
    """The cache entry of one history."""

    cache: ActiveSegmentCache
    history: Hashable

    def get(self) -> str | None:
        """Return the id of the active segment, or None to try the first item."""
        return self.cache.get(self.history)

    def set(self, segment_id: str | None) -> None:
        """Cache the active segment; None, the first item, removes the entry."""
        if segment_id is None:
            self.cache.forget(self.history)
        else:
            self.cache.set(self.history, segment_id)

    def forget(self) -> None:
        self.cache.forget(self.history)
