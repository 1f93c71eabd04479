"""Ratios of what two pieces of work take, side by side on one machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TypeAlias

FEWEST_ROUNDS = 10
SECONDS = 12.0
"""How long one benchmark may go on beyond its fewest rounds."""

Work: TypeAlias = Callable[[], object]
"""Does one piece of work, each time it is called."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """What ``of`` takes, as a multiple of what ``to`` takes."""

    name: str
    of: Work
    to: Work


@dataclass(frozen=True, slots=True)
class Measured:
    """Ratios of the medians: of the whole process's CPU time, and of the time that passed."""

    benchmark: str
    ratio: str
    cpu: float
    wall: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    name: str
    rounds: int
    prepared: Callable[[Path], AbstractContextManager[Sequence[Ratio]]]

    def run(self, folder: Path) -> list[Measured]:
        with self.prepared(folder) as ratios:
            works = list(dict.fromkeys(work for ratio in ratios for work in (ratio.of, ratio.to)))
            taken = _taken(works, self.rounds)
        return [
            Measured(
                self.name,
                ratio.name,
                cpu=taken[ratio.of].cpu / taken[ratio.to].cpu,
                wall=taken[ratio.of].wall / taken[ratio.to].wall,
            )
            for ratio in ratios
        ]


BENCHMARKS: list[Benchmark] = []


def benchmark(
    name: str, *, rounds: int
) -> Callable[[Callable[[Path], Iterator[Sequence[Ratio]]]], object]:
    """Have the function's ratios measured, in at most so many rounds; each does each work once."""

    def register(prepared: Callable[[Path], Iterator[Sequence[Ratio]]]) -> object:
        BENCHMARKS.append(Benchmark(name, rounds, contextmanager(prepared)))
        return prepared

    return register


@dataclass(frozen=True, slots=True)
class _Taken:
    cpu: float
    wall: float


def _taken(works: Sequence[Work], rounds: int) -> dict[Work, _Taken]:
    """What each takes in the median. They take turns, and each turn is short, so that whatever
    else the machine is doing meets them all, and the median is one that it did not meet."""
    taken: dict[Work, list[_Taken]] = {work: [] for work in works}
    for work in works:
        _timed(work)
    end = perf_counter() + SECONDS
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and perf_counter() > end:
            break
        start = number % len(works)
        for work in [*works[start:], *works[:start]]:
            taken[work].append(_timed(work))
    return {
        work: _Taken(median(each.cpu for each in turns), median(each.wall for each in turns))
        for work, turns in taken.items()
    }


def _timed(work: Work) -> _Taken:
    cpu, wall = process_time(), perf_counter()
    work()
    return _Taken(process_time() - cpu, perf_counter() - wall)
