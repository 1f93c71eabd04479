"""Run the simulation by hand: ``python -m chatledger.testing.simulation --help``."""

import argparse
import sys
import time
from collections.abc import Sequence

from chatledger.testing.simulation.running import Played, play
from chatledger.testing.simulation.schedules import script

NEWS = 10.0  # seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chatledger.testing.simulation",
        description="Play seeded schedules of many clients on a simulated DynamoDB table, with "
        "everything that may go wrong, and check that what they are answered can be explained.",
    )
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--seconds", type=float, help="for how long (default: 60)")
    many.add_argument("--schedules", type=int, help="how many")
    many.add_argument("--seed", type=int, help="play this one, and print its history")
    parser.add_argument("--first", type=int, help="the first seed (default: by the clock)")
    parser.add_argument("--processes", type=int, help="how many at once (default: all there are)")
    parser.add_argument("--failures", type=int, default=1, help="end after so many (default: 1)")
    wanted = parser.parse_args(arguments)
    if wanted.seed is not None:
        print(script(wanted.seed))
        return
    first = int(time.time()) * 1_000 if wanted.first is None else wanted.first
    seconds = 60.0 if wanted.seconds is wanted.schedules is None else wanted.seconds
    print(f"Playing schedules from {first} on.", flush=True)
    played = play(
        first,
        schedules=wanted.schedules,
        seconds=seconds,
        failures=wanted.failures,
        processes=wanted.processes,
        progress=_News().tell,
    )
    for failure in played.failures:
        print(f"\n{failure}")
    print(f"{played.schedules:,} schedules, {len(played.failures)} of them not to be explained.")
    sys.exit(bool(played.failures))


class _News:
    """A line every now and then."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()

    def tell(self, played: Played) -> None:
        now = time.monotonic()
        if now - self._last > NEWS:
            self._last = now
            pace = played.schedules / (now - self._begun) * 60
            print(f"{played.schedules:,} schedules, {pace:,.0f} a minute", flush=True)


if __name__ == "__main__":
    main()
