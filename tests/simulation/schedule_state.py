"""The environment of a schedule, and the state shared by everything that happens in it."""

from dataclasses import dataclass
from random import Random

from tests.simulation.formatting import START


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The number of clients, and everything that can go wrong.

    Numbers from 0 to 1 are probabilities, and apply to each step unless stated otherwise. All
    durations are in milliseconds, except ``patience``.
    """

    clients: int = 1
    operations: int = 0
    """The number of operations that all clients together call."""
    shared_process: float = 0
    """The probability that a client runs in the process of the client before it, and so shares its
    clocks and its cache."""
    restart: float = 0
    """The probability that a client continues in a new process, with an empty cache, before its
    next operation."""
    same_client: float = 1
    """The probability that the client which took the last step takes the next one too."""
    call_failure: float = 0
    """The probability that a call fails, in one way or another."""
    late_call: float = 0
    """The probability that a call its client has given up on stays under way, and may arrive up to
    an hour later."""
    crash: float = 0
    """The probability that a client crashes when its call fails."""
    split_query: float = 0
    """The probability that a query reads its items in two steps, with others' steps between."""
    partial_batch: float = 0
    """The probability that a batch is only partly processed."""
    split_transaction: float = 0
    """The probability that queries see only some parts of a transaction until it is answered."""
    partial_reasons: float = 0
    """The probability that a cancelled transaction reports only one of the parts that failed."""
    index_lag: float = 0
    """The probability that the index stays as it is; else it takes in some of the changes."""
    stale_reads: float = 0
    """The probability that an eventually consistent query misses changes of the last minute."""
    consistent: tuple[bool, ...] = (True,)
    """Whether stores are opened with consistent reads, drawn for each process."""
    call_durations: tuple[int, ...] = (1,)
    short_jump: float = 0
    """The probability that up to an hour passes while operations are under way."""
    long_jump: float = 0
    """The probability that up to some days pass as soon as no operation is under way."""
    long_jump_durations: tuple[int, ...] = ()
    jump_to_expiry: float = 0
    """The probability that a jump, short or long, goes to about the expiry of a conversation."""
    ttl_deletion: float = 0
    """The probability that TTL deletes one of the items it may delete."""
    clock_skews: tuple[int, ...] = (0,)
    """The differences between the clocks of processes and the true time, to choose from."""
    clock_change: float = 0
    """The probability that the wall clock of a process is set, to another of these differences."""
    sleep: float = 0
    """The probability that a process falls asleep after a reply, for up to some days."""
    patience: float = 20.0
    """The time for which a failing call is tried again, in seconds."""
    page_items: int | None = None
    """The maximum number of items on a page of a query or scan; None: no limit."""
    default_lifetimes: tuple[int | None, ...] = (None,)
    """The lifetimes that stores are opened with, one of them drawn for each process."""
    cleanup_seconds: tuple[float, ...] = (2.0,)
    """The times (s) for which writes may free storage, one of them drawn for each process."""


@dataclass(slots=True)
class ScheduleState:
    """The state shared by everything that happens in a schedule."""

    random: Random
    environment: Environment
    trace: list[str] | None = None
    """One line for each event; None if no trace is kept."""
    now: int = START
    """The true time, in ms since 1970."""
    step: int = 0
    synced_step: int = 0
    """The step by which every change was to be seen by eventually consistent reads."""

    def add_to_trace(self, client: str, event: str) -> None:
        if self.trace is not None:
            seconds = (self.now - START) / 1000
            self.trace.append(f"{self.step:5} {seconds:12,.3f} s {client:4} {event}")
