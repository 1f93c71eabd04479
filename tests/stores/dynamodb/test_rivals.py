"""Many threads and processes on one conversation: nothing acknowledged is lost or comes twice.

Every answer says at which revision the conversation then stood. So what each reader saw is compared
with what all acknowledged changes, put in the order of their revisions, make of a plain dict.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Timer
from typing import TYPE_CHECKING, TypeAlias

import pytest

from chatledger.conversations import Tail
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import ENDPOINT, DynamoDBLocal
from chatledger.testing.store_contract.helpers import (
    SECONDS,
    numbers_of_writers,
    race,
    read_all,
    said,
    say,
    seq_of,
    write_numbers,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TALK = "talk"
THREADS = 8
APPENDS = 20
PROCESSES = ["ada", "bob"]

Change: TypeAlias = Callable[[DynamoDBStore, "History"], None]


@dataclass(slots=True)
class History:
    """What was acknowledged, and what was read."""

    told: dict[int, str] = field(default_factory=dict)
    """The text of every message by the seq that its append answered."""
    cuts: dict[int, int] = field(default_factory=dict)
    """By the revision that a cut answered, the last seq that it left."""
    tails: list[Tail] = field(default_factory=list)
    forks: list[list[str]] = field(default_factory=list)

    def standings(self) -> dict[int, dict[int, str]]:
        """What the conversation held at each revision."""
        held: dict[int, str] = {}
        standings: dict[int, dict[int, str]] = {0: {}}
        for revision in sorted({*self.told, *self.cuts}):
            if revision in self.told:
                held = held | {revision: self.told[revision]}
            else:
                held = {seq: text for seq, text in held.items() if seq <= self.cuts[revision]}
            standings[revision] = held
        return standings

    def cut(self, revision: int, after: int) -> None:
        # One that had nothing to cut answers the revision of the change before it.
        self.cuts[revision] = min(after, self.cuts.get(revision, after))


def truncate(store: DynamoDBStore, history: History) -> None:
    if messages := store.tail(TALK, 5).messages:
        after = seq_of(messages[0])
        history.cut(store.truncate(TALK, after=after).revision, after)


def clear(store: DynamoDBStore, history: History) -> None:
    history.cut(store.clear(TALK).revision, 0)


def fork(store: DynamoDBStore, history: History) -> None:
    history.forks.append(said(read_all(store, store.fork(TALK).id)))


def read(store: DynamoDBStore, history: History) -> None:
    history.tails.append(store.tail(TALK, 1_000))


MEANWHILE: dict[str, list[Change]] = {
    "it is read": [read],
    "it is read, truncated, cleared and forked": [read, truncate, clear, fork],
}
PAUSE = 0.1
"""Seconds between two changes by the same: enough for some messages to come together."""


@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
def test_nothing_acknowledged_to_threads_and_processes_is_lost_doubled_or_out_of_order(
    dynamodb_local: DynamoDBLocal, client: "DynamoDBClient", table: str, meanwhile: list[Change]
) -> None:
    store = DynamoDBStore(client, table)
    store.append(TALK, say("first 0"))
    history = History(told={1: "first 0"})
    done = Event()

    def disturb(change: Change) -> None:
        other = DynamoDBStore(client, table)
        while not done.wait(PAUSE):
            change(other, history)

    def write() -> None:
        try:
            with processes(dynamodb_local, table) as answers:
                threads = [
                    partial(write_numbers, store, TALK, str(thread), appends=APPENDS)
                    for thread in range(THREADS)
                ]
                told = [*race(threads), *answers()]
        finally:
            done.set()
        for outcome in told:
            assert isinstance(outcome, dict), outcome
            assert not history.told.keys() & outcome.keys(), "a seq was given out twice"
            history.told.update(outcome)

    calls: list[Callable[[], None]] = [write, *(partial(disturb, each) for each in meanwhile)]
    assert race(calls) == [None] * len(calls)
    assert len(history.told) == 1 + (THREADS + len(PROCESSES)) * APPENDS

    standings = history.standings()
    read(store, history)
    for tail in history.tails:
        stood = standings[tail.conversation.revision]
        assert {seq_of(message): message.text for message in tail.messages} == stood
        assert tail.conversation.message_count == len(stood)
    stood = standings[max(standings)]
    assert {seq_of(message): message.text for message in read_all(store, TALK)} == stood
    for copy in history.forks:
        assert copy in [list(stood.values()) for stood in standings.values()]
    in_order = say(*(text for _, text in sorted(history.told.items())))
    for writer, numbers in numbers_of_writers(in_order).items():
        assert numbers == list(range(len(numbers))), writer
    if meanwhile == [read]:
        assert stood == history.told
    else:
        assert len(history.cuts) >= 4
        assert len(history.forks) >= 2
    assert len(history.tails) >= 4


# Processes ----------------------------------------------------------------------------------------


@contextmanager
def processes(dynamodb: DynamoDBLocal, table: str) -> Iterator[Callable[[], list[dict[int, str]]]]:
    """Processes that write as the threads do, from now on; call it for what they were told."""
    program = f"import sys; from {__name__} import write_alone; write_alone(*sys.argv[1:])"
    with ExitStack() as ends:
        started = []
        for name in PROCESSES:
            process = ends.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program, table, name],
                    env=os.environ | {ENDPOINT: dynamodb.endpoint},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            ends.callback(process.kill)
            too_long = Timer(SECONDS, process.kill)
            too_long.start()
            ends.callback(too_long.cancel)
            started.append(process)
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "ready\n", "the process ended, or was stuck"
        for process in started:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()

        def answers() -> list[dict[int, str]]:
            said = [process.communicate()[0] for process in started]
            return [{int(seq): text for seq, text in json.loads(told).items()} for told in said]

        yield answers


def write_alone(table: str, name: str) -> None:
    """What each of the processes does."""
    with DynamoDBLocal() as dynamodb:
        store = DynamoDBStore(dynamodb.client(), table)
        store.get(TALK)
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(write_numbers(store, TALK, name, appends=APPENDS)))
