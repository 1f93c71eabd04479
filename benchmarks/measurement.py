"""Measuring pieces of work side by side on one machine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TypeAlias

MIN_ROUNDS = 10
MAX_SECONDS = 12.0
"""The time after which a benchmark stops, once it has made ``MIN_ROUNDS``."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The CPU seconds of the whole process, and the wall-clock seconds."""

    cpu: float
    wall: float


Work: TypeAlias = Callable[[], object]
"""A function that does one piece of work per call. If another process does the work, it returns
the ``Elapsed`` of that process."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A row of the results: the medians of CPU and wall-clock time, as text."""

    name: str
    cpu: str
    wall: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """The time of ``subject`` as a multiple of the time of ``baseline``."""

    name: str
    subject: Work
    baseline: Work

    @property
    def works(self) -> tuple[Work, ...]:
        return self.subject, self.baseline

    def row(self, benchmark: str, times: Mapping[Work, Sequence[Elapsed]]) -> ResultRow:
        rounds = list(zip(times[self.subject], times[self.baseline], strict=True))
        cpu = median(subject.cpu / baseline.cpu for subject, baseline in rounds)
        wall = median(subject.wall / baseline.wall for subject, baseline in rounds)
        return ResultRow(f"{benchmark}, {self.name}", f"{cpu:.2f}", f"{wall:.2f}")


@dataclass(frozen=True, slots=True)
class Milliseconds:
    """The time of ``work`` in milliseconds."""

    name: str
    work: Work

    @property
    def works(self) -> tuple[Work, ...]:
        return (self.work,)

    def row(self, benchmark: str, times: Mapping[Work, Sequence[Elapsed]]) -> ResultRow:
        cpu = median(elapsed.cpu for elapsed in times[self.work])
        wall = median(elapsed.wall for elapsed in times[self.work])
        name = f"{benchmark}, {self.name}"
        return ResultRow(name, f"{cpu * 1000:.0f} ms", f"{wall * 1000:.0f} ms")


Figure: TypeAlias = Ratio | Milliseconds


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Figures that are measured together, in at most ``rounds`` rounds."""

    name: str
    rounds: int
    setup: Callable[[Path], AbstractContextManager[Sequence[Figure]]]

    def run(self, folder: Path) -> list[ResultRow]:
        with self.setup(folder) as figures:
            works = list(dict.fromkeys(work for figure in figures for work in figure.works))
            times = _measure(works, self.rounds)
        return [figure.row(self.name, times) for figure in figures]


@dataclass(frozen=True, slots=True)
class LimitedFigure:
    """A figure that must not exceed its limit."""

    name: str
    measured: float
    limit: float
    unit: str = ""

    @property
    def is_over(self) -> bool:
        return self.measured > self.limit

    @property
    def row(self) -> tuple[str, str, str, str]:
        return (
            self.name,
            self._text(self.measured),
            self._text(self.limit),
            "over" if self.is_over else "ok",
        )

    def _text(self, number: float) -> str:
        digits = f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.2g}"
        return f"{digits} {self.unit}".rstrip()


BENCHMARKS: list[Benchmark] = []


def benchmark(
    name: str, *, rounds: int
) -> Callable[[Callable[[Path], Iterator[Sequence[Figure]]]], object]:
    """Register the decorated function's figures; each round does each piece of work once."""

    def register(setup: Callable[[Path], Iterator[Sequence[Figure]]]) -> object:
        BENCHMARKS.append(Benchmark(name, rounds, contextmanager(setup)))
        return setup

    return register


def _measure(works: Sequence[Work], rounds: int) -> dict[Work, list[Elapsed]]:
    """Return the time of each piece of work in each round.

    The pieces alternate, and each is short. Other load on the machine thus affects all of them
    alike, and the median comes from rounds that it did not affect.
    """
    times: dict[Work, list[Elapsed]] = {work: [] for work in works}
    for work in works:
        _time(work)
    deadline = perf_counter() + MAX_SECONDS
    for number in range(rounds):
        if number >= MIN_ROUNDS and perf_counter() > deadline:
            break
        start = number % len(works)
        for work in [*works[start:], *works[:start]]:
            times[work].append(_time(work))
    return times


def _time(work: Work) -> Elapsed:
    cpu, wall = process_time(), perf_counter()
    result = work()
    elapsed = Elapsed(process_time() - cpu, perf_counter() - wall)
    return result if isinstance(result, Elapsed) else elapsed
