"""Run the simulation from the command line: ``python -m tests.simulation --help``."""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import count

from tests.simulation.coverage import Coverage
from tests.simulation.parallel import SimulationSummary, run_schedules
from tests.simulation.schedules import run_schedule, trace_schedule

PROGRESS_INTERVAL = 10.0  # seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Run schedules, print every failure, and exit with status 1 if there was one."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run seeded schedules of several clients on a simulated DynamoDB table, with "
        "everything that can go wrong, and check that the answers they get can be explained.",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--seconds", type=float, help="how long to run (default: 60)")
    amount.add_argument("--schedules", type=int, help="how many schedules to run")
    amount.add_argument("--seed", type=int, help="run only this schedule, and print its trace")
    parser.add_argument("--first", type=int, help="the first seed (default: from the clock)")
    parser.add_argument(
        "--processes", type=int, help="how many processes to use (default: one for each CPU)"
    )
    parser.add_argument(
        "--failures", type=int, default=1, help="stop after this many failures (default: 1)"
    )
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="run in this process, and print the lines of the store that no schedule reached",
    )
    options = parser.parse_args(arguments)
    if options.seed is not None:
        print(trace_schedule(options.seed))
        return
    first = int(time.time()) * 1_000 if options.first is None else options.first
    seconds = 60.0 if options.seconds is options.schedules is None else options.seconds
    print(f"Running schedules from seed {first}.", flush=True)
    if options.coverage:
        _run_with_coverage(first, options.schedules, seconds)
        return
    summary = run_schedules(
        first,
        schedules=options.schedules,
        seconds=seconds,
        failures=options.failures,
        processes=options.processes,
        on_progress=_ProgressPrinter().update,
    )
    for failure in summary.failures:
        print(f"\n{failure}")
    print(f"{summary.schedules:,} schedules, {len(summary.failures)} of them failed.")
    sys.exit(bool(summary.failures))


def _run_with_coverage(first: int, schedules: int | None, seconds: float | None) -> None:
    """Run schedules in this process, and print the lines that none of them reached."""
    coverage = Coverage()
    deadline = None if seconds is None else time.monotonic() + seconds
    run = 0
    with coverage.measure():
        for seed in count(first):
            if run == schedules or (deadline is not None and time.monotonic() > deadline):
                break
            failure = run_schedule(seed)
            run += 1
            if failure is not None:
                print(f"\n{failure}")
                sys.exit(1)
    print(f"{run:,} schedules did not reach:\n{coverage.report()}")


class _ProgressPrinter:
    """Prints a line of progress every ``PROGRESS_INTERVAL`` seconds."""

    def __init__(self) -> None:
        self._started = self._last_printed = time.monotonic()

    def update(self, summary: SimulationSummary) -> None:
        now = time.monotonic()
        if now - self._last_printed > PROGRESS_INTERVAL:
            self._last_printed = now
            per_minute = summary.schedules / (now - self._started) * 60
            print(f"{summary.schedules:,} schedules, {per_minute:,.0f} a minute", flush=True)


if __name__ == "__main__":
    main()
