"""What was acknowledged is there, however the process that wrote it ends.

The writer is this file, run as a program: it appends batches for ever and prints each one that the
store acknowledged. The test kills it (SIGKILL, so that nothing in the process can tidy up) fifty
times on one file, each time after another number of acknowledgements and a moment more.
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
"""The whole test; each kill has its share, and the rounds end when all are spent."""
FEWEST_KILLS = 10
"""What a very slow machine must still get done in that time."""
CONVERSATION = "written until killed"


class Batch(NamedTuple):
    """One append, as its messages tell: which writer's, its number there, how many messages."""

    writer: int
    number: int
    size: int


class Acknowledged(NamedTuple):
    batch: Batch
    seqs: range


def test_fifty_kills_lose_double_and_split_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'chatledger.db'}"
    chance = random.Random(20)
    end = time.monotonic() + SECONDS
    acknowledged: list[Acknowledged] = []
    kills = 0
    while kills < KILLS and time.monotonic() < end:
        acknowledged += killed_writer(
            url,
            kills,
            # None at all: it is killed while it opens the file, or mends what its forerunner left.
            after=chance.choice([0, 0, 1, 2, 5, 10]),
            delay=chance.expovariate(1 / 0.004),
        )
        kills += 1

    assert kills >= FEWEST_KILLS
    # Else the writers were killed before they wrote, and this test shows nothing.
    assert len(acknowledged) > 2 * kills
    with open_store(url) as store:
        messages = list(every_message(store))
        conversation = store.get(CONVERSATION)
    assert conversation.message_count == len(messages)
    assert conversation.revision >= messages[-1].place
    places = [message.place for message in messages]
    assert places == sorted(set(places)), "a seq was given twice"

    stored: dict[Batch, list[Stored]] = defaultdict(list)
    for message in messages:
        stored[message.batch].append(message)
    for batch, parts in stored.items():
        # All or none, once, in their order, with no other writer's between them.
        assert [part.part for part in parts] == list(range(batch.size)), batch
    for batch, seqs in acknowledged:
        assert [part.place for part in stored[batch]] == list(seqs), batch
    assert list(stored) == sorted(stored), "batches are out of their order"

    # Of each writer's batches the last may have landed without the word getting out: no other.
    for writer in range(kills):
        written = [batch.number for batch in stored if batch.writer == writer]
        told = [batch.number for batch, _ in acknowledged if batch.writer == writer]
        assert written in (told, [*told, len(told)]), f"writer {writer}"

    with closing(sqlite3.connect(tmp_path / "chatledger.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def killed_writer(url: str, writer: int, *, after: int, delay: float) -> list[Acknowledged]:
    """What a writer had acknowledged when it was killed, ``delay`` behind its ``after``-th."""
    command = [sys.executable, __file__, url, str(writer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stuck = Timer(SECONDS, process.kill)
        stuck.start()
        try:
            lines = [process.stdout.readline() for _ in range(1 + after)]
            time.sleep(delay)
            assert process.poll() is None, "the writer ended by itself"
        finally:
            stuck.cancel()
            process.kill()
        # From the same stream: what that has read ahead, communicate() would not see.
        lines += process.stdout
    assert lines[0] == "ready\n"
    # A line without its end was being written when the process died: nobody was told.
    return [acknowledgement(line) for line in lines[1:] if line.endswith("\n")]


def acknowledgement(line: str) -> Acknowledged:
    batch, first, behind = json.loads(line)
    return Acknowledged(Batch(*batch), range(first, behind))


class Stored(NamedTuple):
    """A message of the file: the batch that it says it is of, its part there, and its seq."""

    batch: Batch
    part: int
    place: int


def every_message(store: Store) -> Iterator[Stored]:
    after: int | None = 0
    while after is not None:
        page = store.page(CONVERSATION, after=after, limit=1_000)
        for message in page.messages:
            assert message.seq is not None
            *batch, part, _ = json.loads(message.text)
            yield Stored(Batch(*batch), part, message.seq)
        after = page.next


def write_until_killed(url: str, writer: int) -> None:
    """The writer's side: append batches of any size, and say which ones the store took."""
    chance = random.Random(writer)
    print("ready", flush=True)
    with open_store(url) as store:
        number = 0
        while True:
            # Some batches take many pages of the file, so that a kill finds them half written.
            batch = Batch(writer, number, size=chance.choice([1, 2, 2, 3, 20]))
            filling = "." * chance.choice([0, 100, 1_000, 20_000])
            messages = [
                Message.user(json.dumps([*batch, part, filling])) for part in range(batch.size)
            ]
            seqs = store.append(CONVERSATION, messages).seqs
            print(json.dumps([batch, seqs.start, seqs.stop]), flush=True)
            number += 1


if __name__ == "__main__":
    write_until_killed(sys.argv[1], int(sys.argv[2]))
