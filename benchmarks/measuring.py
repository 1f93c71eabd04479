"""Ratios of what two pieces of work take, side by side on one machine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TypeAlias

FEWEST_ROUNDS = 10
SECONDS = 12.0
"""How long one benchmark may go on beyond its fewest rounds."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of the whole process's CPU time, and of the time that passed."""

    cpu: float
    wall: float


Work: TypeAlias = Callable[[], object]
"""Does one piece of work, each time it is called. If another process does it, that one's ``Taken``
is returned.
"""


@dataclass(frozen=True, slots=True)
class Ratio:
    """What ``of`` takes, as a multiple of what ``to`` takes."""

    name: str
    of: Work
    to: Work

    @property
    def works(self) -> tuple[Work, ...]:
        return self.of, self.to

    def measured(self, benchmark: str, taken: Mapping[Work, Sequence[Taken]]) -> "Measured":
        rounds = list(zip(taken[self.of], taken[self.to], strict=True))
        cpu = median(of.cpu / to.cpu for of, to in rounds)
        wall = median(of.wall / to.wall for of, to in rounds)
        return Measured(f"{benchmark}, {self.name}", f"{cpu:.2f}", f"{wall:.2f}")


@dataclass(frozen=True, slots=True)
class Milliseconds:
    """What ``work`` takes."""

    name: str
    work: Work

    @property
    def works(self) -> tuple[Work, ...]:
        return (self.work,)

    def measured(self, benchmark: str, taken: Mapping[Work, Sequence[Taken]]) -> "Measured":
        cpu = median(turn.cpu for turn in taken[self.work])
        wall = median(turn.wall for turn in taken[self.work])
        name = f"{benchmark}, {self.name}"
        return Measured(name, f"{cpu * 1000:.0f} ms", f"{wall * 1000:.0f} ms")


Figure: TypeAlias = Ratio | Milliseconds


@dataclass(frozen=True, slots=True)
class Measured:
    """A line of the results: medians, of the CPU time and of the time that passed."""

    name: str
    cpu: str
    wall: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    name: str
    rounds: int
    prepared: Callable[[Path], AbstractContextManager[Sequence[Figure]]]

    def run(self, folder: Path) -> list[Measured]:
        with self.prepared(folder) as figures:
            works = list(dict.fromkeys(work for figure in figures for work in figure.works))
            taken = _taken(works, self.rounds)
        return [figure.measured(self.name, taken) for figure in figures]


BENCHMARKS: list[Benchmark] = []


def benchmark(
    name: str, *, rounds: int
) -> Callable[[Callable[[Path], Iterator[Sequence[Figure]]]], object]:
    """Have the function's figures measured, in at most so many rounds; each does each work once."""

    def register(prepared: Callable[[Path], Iterator[Sequence[Figure]]]) -> object:
        BENCHMARKS.append(Benchmark(name, rounds, contextmanager(prepared)))
        return prepared

    return register


def _taken(works: Sequence[Work], rounds: int) -> dict[Work, list[Taken]]:
    """What each takes, round by round. They take turns, and each turn is short, so that whatever
    else the machine is doing meets them all, and the median is one that it did not meet."""
    taken: dict[Work, list[Taken]] = {work: [] for work in works}
    for work in works:
        _timed(work)
    end = perf_counter() + SECONDS
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and perf_counter() > end:
            break
        start = number % len(works)
        for work in [*works[start:], *works[:start]]:
            taken[work].append(_timed(work))
    return taken


def _timed(work: Work) -> Taken:
    cpu, wall = process_time(), perf_counter()
    elsewhere = work()
    here = Taken(process_time() - cpu, perf_counter() - wall)
    return elsewhere if isinstance(elsewhere, Taken) else here
