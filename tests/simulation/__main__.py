"""Run the simulation from the command line: ``python -m tests.simulation --help``."""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.simulation.coverage import Coverage
from tests.simulation.langchain import schedules as history_schedules
from tests.simulation.langchain.checker import Violation as HistoryViolation
from tests.simulation.langgraph import schedules as saver_schedules
from tests.simulation.parallel import SimulationSummary, run_schedules
from tests.simulation.scheduler import Violation
from tests.simulation.schedules import trace_schedule

PROGRESS_INTERVAL = 10.0  # seconds
SAMPLE = 200
"""The number of schedules whose coverage is measured at the end, which makes them slower."""
HISTORY_SCHEDULES = 500
"""The number of schedules of the LangChain drop-in that are run after those of the store."""
SAVER_SCHEDULES = 500
"""The number of schedules of LangGraph's saver that are run then."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run schedules, print every failure, and exit with status 1 if there was one."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run seeded schedules of several clients on a simulated DynamoDB table, with "
        "everything that can go wrong, and check that the answers they get can be explained. Some "
        "schedules of the LangChain drop-in and of LangGraph's saver follow.",
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
        help="run 1,000 schedules in this process, and print the lines that none of them reached",
    )
    options = parser.parse_args(arguments)
    if options.seed is not None:
        print(trace_schedule(options.seed))
        return
    first = int(time.time()) * 1_000 if options.first is None else options.first
    seconds = 60.0 if options.seconds is options.schedules is None else options.seconds
    print(f"Running schedules from seed {first}.", flush=True)
    if options.coverage:
        _print_missed_lines(first, options.schedules or 1_000)
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
    if not summary.failures:
        coverage = Coverage()
        coverage.run(first, SAMPLE)
        print(
            f"{SAMPLE} of them reach {coverage.share():.0%} of the lines of the plans; --coverage "
            "prints the others."
        )
    others_failed = [
        _run_others(
            "the LangChain drop-in", history_schedules, HistoryViolation, first, HISTORY_SCHEDULES
        ),
        _run_others("LangGraph's saver", saver_schedules, Violation, first, SAVER_SCHEDULES),
    ]
    sys.exit(bool(summary.failures) or any(others_failed))


def _run_others(
    what: str, schedules: Any, violation: type[Exception], first: int, number: int
) -> bool:
    """Run schedules of something else, and print the first failure; return if there is one.

    They run in this process, because there are few of them.
    """
    for seed in range(first, first + number):
        try:
            schedules.run_schedule(seed)
        except violation as failure:
            print(f"\n{schedules.trace_schedule(seed)}")
            print(f"A schedule of {what} failed: {failure}")
            return True
    print(f"{number:,} schedules of {what}, 0 of them failed.")
    return False


def _print_missed_lines(first: int, schedules: int) -> None:
    """Run schedules in this process, and print the lines that none of them reached."""
    coverage = Coverage()
    failure = coverage.run(first, schedules)
    if failure is not None:
        print(f"\n{failure}")
        sys.exit(1)
    print(f"{schedules:,} schedules did not reach:", *coverage.missed(), sep="\n")


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
