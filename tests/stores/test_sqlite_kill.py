"""Acknowledged writes survive, however the process that made them ends.

The writer is this file, run as a program: it appends batches endlessly and prints each one that the
store acknowledges. The test kills it (SIGKILL, so that nothing in the process can tidy up) fifty
times on one file, each time a moment after a different number of acknowledgements.
"""

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Timer
from typing import NamedTuple

from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.stores.urls import open_store

KILLS = 50
SECONDS = 30.0
"""The time limit of the test; it starts no further rounds after that."""
FEWEST_KILLS = 10
"""The fewest kills that even a very slow machine must manage in that time."""
CONVERSATION = "written until killed"


class Batch(NamedTuple):
    """One append: the number of its writer, its number there, and the number of its messages."""

    writer: int
    number: int
    size: int


class Acknowledged(NamedTuple):
    batch: Batch
    seqs: range


def test_fifty_kills_neither_lose_nor_duplicate_nor_split_an_acknowledged_batch(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'chatledger.db'}"
    random_source = random.Random(20)
    end = time.monotonic() + SECONDS
    acknowledged: list[Acknowledged] = []
    kills = 0
    while kills < KILLS and time.monotonic() < end:
        acknowledged += run_and_kill_writer(
            url,
            kills,
            # 0: the writer is killed while it opens the file, or recovers what the last one left.
            after=random_source.choice([0, 0, 1, 2, 5, 10]),
            delay=random_source.expovariate(1 / 0.004),
        )
        kills += 1

    assert kills >= FEWEST_KILLS
    # Otherwise the writers were killed before they wrote, and the test proves nothing.
    assert len(acknowledged) > 2 * kills
    with open_store(url) as store:
        messages = list(all_messages(store))
        conversation = store.get(CONVERSATION)
    assert conversation.message_count == len(messages)
    assert conversation.revision >= messages[-1].seq
    seqs_stored = [message.seq for message in messages]
    assert seqs_stored == sorted(set(seqs_stored)), "a seq was used twice"

    stored: dict[Batch, list[Stored]] = defaultdict(list)
    for message in messages:
        stored[message.batch].append(message)
    for batch, parts in stored.items():
        # All parts or none, once each, in order, and not interleaved with another batch.
        assert [part.part for part in parts] == list(range(batch.size)), batch
    for batch, seqs in acknowledged:
        assert [part.seq for part in stored[batch]] == list(seqs), batch
    assert list(stored) == sorted(stored), "batches are out of order"

    # Only the last batch of each writer may have landed without being acknowledged.
    for writer in range(kills):
        written = [batch.number for batch in stored if batch.writer == writer]
        acknowledged_numbers = [batch.number for batch, _ in acknowledged if batch.writer == writer]
        assert written in (
            acknowledged_numbers,
            [*acknowledged_numbers, len(acknowledged_numbers)],
        ), f"writer {writer}"

    with closing(sqlite3.connect(tmp_path / "chatledger.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def run_and_kill_writer(url: str, writer: int, *, after: int, delay: float) -> list[Acknowledged]:
    """Kill a writer ``delay`` seconds after its acknowledgement number ``after``.

    Returns all batches that were acknowledged to it.
    """
    command = [sys.executable, __file__, url, str(writer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watchdog = Timer(SECONDS, process.kill)
        watchdog.start()
        try:
            lines = [process.stdout.readline() for _ in range(1 + after)]
            time.sleep(delay)
            assert process.poll() is None, "the writer ended by itself"
        finally:
            watchdog.cancel()
            process.kill()
        # From the same stream: communicate() would miss what it has already buffered.
        lines += process.stdout
    assert lines[0] == "ready\n"
    # A line without an end was being written when the process was killed, so it does not count.
    return [parse_acknowledgement(line) for line in lines[1:] if line.endswith("\n")]


def parse_acknowledgement(line: str) -> Acknowledged:
    batch, start, stop = json.loads(line)
    return Acknowledged(Batch(*batch), range(start, stop))


class Stored(NamedTuple):
    """A stored message: the batch it belongs to, the number of its part there, and its seq."""

    batch: Batch
    part: int
    seq: int


def all_messages(store: Store) -> Iterator[Stored]:
    after: int | None = 0
    while after is not None:
        page = store.page(CONVERSATION, after=after, limit=1_000)
        for message in page.messages:
            assert message.seq is not None
            *batch, part, _ = json.loads(message.text)
            yield Stored(Batch(*batch), part, message.seq)
        after = page.next


def write_until_killed(url: str, writer: int) -> None:
    """Run as the writer: append batches of various sizes, and print those acknowledged."""
    random_source = random.Random(writer)
    print("ready", flush=True)
    with open_store(url) as store:
        number = 0
        while True:
            # Some batches take many pages of the file, so that a kill may leave them half written.
            batch = Batch(writer, number, size=random_source.choice([1, 2, 2, 3, 20]))
            filling = "." * random_source.choice([0, 100, 1_000, 20_000])
            messages = [
                Message.user(json.dumps([*batch, part, filling])) for part in range(batch.size)
            ]
            seqs = store.append(CONVERSATION, messages).seqs
            print(json.dumps([batch, seqs.start, seqs.stop]), flush=True)
            number += 1


if __name__ == "__main__":
    write_until_killed(sys.argv[1], int(sys.argv[2]))
