"""Measures, prints the results, and writes ``RESULTS.md`` unless only some were asked for."""

import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import benchmarks.dynamodb
import benchmarks.serverless
import benchmarks.sqlite  # noqa: F401  (registers its benchmarks)
from benchmarks import langchain, turns
from benchmarks.markdown import table
from benchmarks.measuring import BENCHMARKS, Measured

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("boto3", "aiodynamo", "aiohttp", "langchain-core")


def main(words: Sequence[str]) -> None:
    """Run the benchmarks whose names hold any of ``words``, or all."""

    def wanted(name: str) -> bool:
        if words and not any(word in name for word in words):
            return False
        print(f"{name} ...", file=sys.stderr)
        return True

    sections = [each.section() for each in (turns, langchain) if wanted(each.NAME)]
    measured: list[Measured] = []
    for each in BENCHMARKS:
        if wanted(each.name):
            with TemporaryDirectory() as folder:
                measured += each.run(Path(folder))
    if measured:
        rows = [(each.name, each.cpu, each.wall) for each in measured]
        sections.insert(0, table(["", "CPU", "wall"], rows))
    print("\n\n".join(sections))
    if not words:
        RESULTS.write_text("\n\n".join([heading(), *sections]) + "\n", encoding="utf-8")


def heading() -> str:
    versions = [
        f"Chatledger {version('chatledger')}",
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        *(f"{name} {version(name)}" for name in PACKAGES),
        f"{platform.system()} {platform.machine()}",
        f"{os.cpu_count()} CPUs",
    ]
    return f"""\
# Benchmarks

What Chatledger takes as a multiple of the same work done by hand: 1.00 is as much, less is better.
Medians of rounds that take turns; CPU is that of the whole process, wall is the time that passed. A
message has 1,000 characters.

SQLite is against `sqlite3` and `json`, in the same rows and as durable; its wall time is mostly the
disk's. The long conversations are few and the short ones many, so that more of the long ones' pages
lie in SQLite's cache.

DynamoDB is against `boto3`, `json` and `zlib`, in the same requests, on DynamoDB Local: a process
of its own, whose CPU time does not count, and whose answers are most of the wall time. Turns at
once are 200 tasks, each a turn of a conversation of its own, against 50 threads: the throughput is
1 / wall of theirs. The messages are English prose.

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {", ".join(versions)}."""


if __name__ == "__main__":
    main(sys.argv[1:])
