"""Run many schedules on all CPUs."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count, islice
from multiprocessing import get_context

from tests.simulation.schedules import ScheduleFailure, run_schedule

CHUNK = 100
"""Number of schedules handed to a worker process at a time: about a third of a second of work."""


@dataclass(slots=True)
class SimulationSummary:
    """The number of schedules run so far, and those that failed."""

    schedules: int = 0
    failures: list[ScheduleFailure] = field(default_factory=list)


def run_schedules(
    first: int = 0,
    *,
    schedules: int | None = None,
    seconds: float | None = None,
    failures: int = 1,
    processes: int | None = None,
    on_progress: Callable[[SimulationSummary], None] | None = None,
) -> SimulationSummary:
    """Run the schedules from seed ``first`` on, in several processes.

    Args:
        first: The first seed; each further schedule takes the next one.
        schedules: How many schedules to run.
        seconds: How long to start new schedules. Give this, ``schedules`` or both.
        failures: Stop after this many failures.
        processes: How many processes to use; by default one for each CPU.
        on_progress: Called with the summary so far whenever a chunk of schedules is done.

    Raises:
        ValueError: Neither ``schedules`` nor ``seconds`` is given.
    """
    if schedules is None and seconds is None:
        raise ValueError("Give the number of schedules, or for how many seconds to run them.")
    deadline = None if seconds is None else time.monotonic() + seconds
    summary = SimulationSummary()
    chunks = _chunks(first, schedules)
    workers = processes or os.cpu_count() or 1
    # "spawn" instead of "fork", because the caller may run threads.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        pending = {pool.submit(_run_chunk, *chunk) for chunk in islice(chunks, 2 * workers)}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                number, found = future.result()
                summary.schedules += number
                summary.failures += found
            is_late = deadline is not None and time.monotonic() > deadline
            if not is_late and len(summary.failures) < failures:
                pending |= {pool.submit(_run_chunk, *chunk) for chunk in islice(chunks, len(done))}
            if on_progress is not None:
                on_progress(summary)
    summary.failures.sort(key=lambda failure: failure.seed)
    return summary


def _chunks(first: int, schedules: int | None) -> Iterator[tuple[int, int]]:
    """Yield the first seed and the size of each chunk."""
    starts = count(first, CHUNK) if schedules is None else range(first, first + schedules, CHUNK)
    for start in starts:
        yield start, CHUNK if schedules is None else min(CHUNK, first + schedules - start)


def _run_chunk(first: int, schedules: int) -> tuple[int, list[ScheduleFailure]]:
    # Schedules are short-lived and make few reference cycles, so collecting would only cost time.
    gc.disable()
    try:
        found = [run_schedule(seed) for seed in range(first, first + schedules)]
    finally:
        gc.enable()
    return schedules, [failure for failure in found if failure is not None]
