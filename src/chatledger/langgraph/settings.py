"""The types that the saver's plans share: its settings, addresses in configs, and steps."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from threading import Lock
from typing import Any, Final, Literal, TypeAlias, TypeVar

from chatledger.langgraph.records import PREFIX
from chatledger.langgraph.thread import ThreadCache
from chatledger.stores.contract import Store

RECENT_CHECKPOINTS: Final = 10_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pause:
    """A step that waits."""

    seconds: float


Steps: TypeAlias = Generator[Callable[[], Any] | Pause, Any, T]
"""A generator that yields store operations and pauses."""


class Runs:
    """The runs that have put the last checkpoints of this process, up to ``RECENT_CHECKPOINTS``."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[str, bool]] = {}
        self._lock = Lock()

    def add(self, checkpoint_id: str, run: str, *, refused: bool = False) -> None:
        """Add a checkpoint that the run has put, or that was refused."""
        with self._lock:
            self._runs[checkpoint_id] = run, refused
            while len(self._runs) > RECENT_CHECKPOINTS:
                del self._runs[next(iter(self._runs))]

    def has_put(self, checkpoint_id: str, run: str) -> bool:
        return self._runs.get(checkpoint_id) == (run, False)

    def was_refused(self, checkpoint_id: str) -> bool:
        return self._runs.get(checkpoint_id, ("", False))[1]


def both_clocks() -> tuple[float, float]:
    """Return the time by the wall clock and by the monotonic clock, in seconds.

    The one may be set back, and the other stands still while the process is frozen.
    """
    return time.time(), time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The arguments of ``ChatledgerSaver``, and the state that the saver keeps.

    Attributes:
        cache: The threads that it has used last.
        runs: Which run has put which checkpoint.
        clock: Returns what ``both_clocks`` does.
    """

    store: Store
    rivals: Literal["fork", "refuse"]
    messages: Literal["conversation"] | None
    owner_key: str | None
    expires_in: timedelta | None
    cache: ThreadCache
    runs: Runs = field(default_factory=Runs)
    random: Random = field(default_factory=Random)
    clock: Callable[[], tuple[float, float]] = both_clocks


class OwnedThreadId(str):
    """The id of a thread in a config that was read for its owner.

    LangGraph makes the configs of a subgraph's state from the id of the thread alone.
    """

    owner: str | None = None

    def __str__(self) -> str:
        return self  # LangGraph calls str() on ids


@dataclass(frozen=True, slots=True)
class Address:
    """The thread, namespace and checkpoint that a config names."""

    thread_id: str
    namespace: str
    checkpoint_id: str | None
    owner: str | None
    run: str
    """Identifies the run, if rivals are refused and it began with a checkpoint; else empty."""
    started_seq: int
    """The seq of the thread's last record as the run began; 0 if ``run`` is empty."""
    newest_id: str | None
    """The newest checkpoint as the run began, which may have begun with an older one."""
    begins_anew: bool
    """True for a subgraph that runs again without its later checkpoints (see ``REPLAY_KEY``)."""

    @property
    def conversation_id(self) -> str:
        return PREFIX + self.thread_id
