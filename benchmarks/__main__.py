"""Run the benchmarks and print the results; write ``RESULTS.md`` if all of them ran."""

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
import benchmarks.page
import benchmarks.serverless
import benchmarks.sqlite
import benchmarks.streams  # noqa: F401  (registers its benchmarks)
from benchmarks import langchain, langgraph, limits, turns
from benchmarks.markdown import markdown_table
from benchmarks.measurement import BENCHMARKS, ResultRow

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("boto3", "aiohttp", "langchain-core", "langgraph")


def main(words: Sequence[str]) -> None:
    """Run the benchmarks whose names contain any of ``words``, or all."""

    def is_selected(name: str) -> bool:
        if words and not any(word in name for word in words):
            return False
        print(f"{name} ...", file=sys.stderr)
        return True

    sections = [
        each.section() for each in (turns, langchain, langgraph, limits) if is_selected(each.NAME)
    ]
    results: list[ResultRow] = []
    for each in BENCHMARKS:
        if is_selected(each.name):
            with TemporaryDirectory() as folder:
                results += each.run(Path(folder))
    if results:
        rows = [(each.name, each.cpu, each.wall) for each in results]
        sections.insert(0, markdown_table(["", "CPU", "wall"], rows))
    print("\n\n".join(sections))
    if not words:
        RESULTS.write_text("\n\n".join([introduction(), *sections]) + "\n", encoding="utf-8")


def introduction() -> str:
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

The figures compare Chatledger with hand-written code that does the same work: 1.00 means the same
time, and lower is better. They are medians of rounds in which both sides alternate. CPU is the CPU
time of the whole process, and wall is the wall-clock time. Each message has 1,000 characters.

The SQLite store is compared with `sqlite3` and `json`, with the same rows and the same durability.
Its wall-clock time is mostly spent on the disk. There are few long conversations and many short
ones, so more pages of the long ones are in SQLite's cache.

The DynamoDB stores are compared with `boto3`, `json` and `zlib`, with the same requests, on
DynamoDB Local. It runs in a process of its own: its CPU time is not included, but most of the
wall-clock time is spent waiting for it. Concurrent turns are 200 tasks, each with a turn of its own
conversation, compared with 50 threads; the relative throughput is 1 / wall. The messages are
English prose.

The page runs in headless Chromium, until the last message is shown and the box takes keys. Its CPU
time is that of the main thread.

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {", ".join(versions)}."""


if __name__ == "__main__":
    main(sys.argv[1:])
