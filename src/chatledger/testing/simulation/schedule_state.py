"""How rough a schedule is, and how far it has come."""

from dataclasses import dataclass
from random import Random

from chatledger.testing.simulation.formatting import START


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What may go wrong. Numbers from 0 to 1 are chances, and most of them of every step."""

    clients: int = 1
    operations: int = 0
    """How many all clients together try."""
    shared: float = 0
    """That a client runs in the process of the one before, with its clocks and memory."""
    cold: float = 0
    """That a process starts anew before an operation, and remembers nothing."""
    sticky: float = 1
    """That whoever had the last turn has the next one too."""
    faults: float = 0
    """That a call fails, in one way or another."""
    late: float = 0
    """That a call which was given up on arrives after all, within an hour."""
    dying: float = 0
    """That a client whose call fails dies of it."""
    slow: float = 0
    """That a query reads some of its items later than others."""
    unprocessed: float = 0
    """That a batch is done in part."""
    ticks: tuple[int, ...] = (1,)
    """How long a call may take (ms)."""
    short_jumps: float = 0
    """That up to an hour passes, while operations are under way."""
    long_jumps: float = 0
    """That up to some days pass, when no operation is."""
    spans: tuple[int, ...] = ()
    """How long these may be (ms)."""
    to_ends: float = 0
    """That of these, and of the short ones, one goes to about where a conversation expires."""
    reaping: float = 0
    """That TTL deletes an item that it may."""
    skews: tuple[int, ...] = (0,)
    """How far clocks are off (ms)."""
    patience: float = 20.0
    """How long a call is tried again (seconds)."""
    page_items: int | None = None
    """How many items a page of the table holds at most."""
    lifetimes: tuple[int | None, ...] = (None,)
    """How long conversations live, as stores are told to keep them (ms)."""


@dataclass(slots=True)
class Course:
    """What everything that happens in a schedule has in common."""

    random: Random
    rough: Circumstances
    script: list[str] | None = None
    now: int = START
    """The true time, in ms since 1970."""
    step: int = 0

    def tell(self, who: str, what: str) -> None:
        if self.script is not None:
            time = (self.now - START) / 1000
            self.script.append(f"{self.step:5} {time:12,.3f} s {who:4} {what}")
