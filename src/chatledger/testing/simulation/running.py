"""Many schedules, on all processors."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count, islice
from multiprocessing import get_context

from chatledger.testing.simulation.schedules import Failure, simulate

CHUNK = 100
"""Schedules that a process plays at one go: about a third of a second."""


@dataclass(slots=True)
class Played:
    """How many schedules were played, and what they showed."""

    schedules: int = 0
    failures: list[Failure] = field(default_factory=list)


def play(
    first: int = 0,
    *,
    schedules: int | None = None,
    seconds: float | None = None,
    failures: int = 1,
    processes: int | None = None,
    progress: Callable[[Played], None] | None = None,
) -> Played:
    """Play the schedules from number ``first`` on: so many, or for so long.

    Ends early once there are so many ``failures``.
    """
    if schedules is None and seconds is None:
        raise ValueError("say how many schedules, or for how many seconds")
    end = None if seconds is None else time.monotonic() + seconds
    played = Played()
    chunks = _chunks(first, schedules)
    workers = processes or os.cpu_count() or 1
    # Not by fork: the caller may run threads.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        under_way = {pool.submit(_play, *chunk) for chunk in islice(chunks, 2 * workers)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                number, found = future.result()
                played.schedules += number
                played.failures += found
            enough = len(played.failures) >= failures or (end and time.monotonic() > end)
            if not enough:
                under_way |= {pool.submit(_play, *chunk) for chunk in islice(chunks, len(done))}
            if progress is not None:
                progress(played)
    played.failures.sort(key=lambda failure: failure.seed)
    return played


def _chunks(first: int, schedules: int | None) -> Iterator[tuple[int, int]]:
    starts = count(first, CHUNK) if schedules is None else range(first, first + schedules, CHUNK)
    for start in starts:
        yield start, CHUNK if schedules is None else min(CHUNK, first + schedules - start)


def _play(first: int, schedules: int) -> tuple[int, list[Failure]]:
    # Histories are short-lived and hold no cycles worth looking for meanwhile.
    gc.disable()
    try:
        found = [simulate(seed) for seed in range(first, first + schedules)]
    finally:
        gc.enable()
    return schedules, [failure for failure in found if failure is not None]
