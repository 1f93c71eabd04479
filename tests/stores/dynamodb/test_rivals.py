"""Many threads and processes on one conversation: no acknowledged write is lost or duplicated.

Every write returns the revision that it made. So the acknowledged writes, applied to a plain dict
in the order of their revisions, give the messages that a reader must have seen at each revision.
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
from chatledger.testing.dynamodb_local import ENDPOINT_VARIABLE, DynamoDBLocal
from chatledger.testing.store_contract.helpers import (
    TIMEOUT_SECONDS,
    numbers_by_writer,
    race,
    read_all,
    texts_of,
    user_messages,
    write_numbers,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CONVERSATION = "talk"
THREADS = 8
APPENDS = 20
PROCESSES = ["ada", "bob"]

Operation: TypeAlias = Callable[[DynamoDBStore, "History"], None]


@dataclass(slots=True)
class History:
    """The acknowledged writes, and the results of reads."""

    appended: dict[int, str] = field(default_factory=dict)
    """The text of every message, by the seq that its append returned."""
    truncations: dict[int, int] = field(default_factory=dict)
    """The last seq that each truncation kept, by the revision that it returned."""
    tails: list[Tail] = field(default_factory=list)
    forks: list[list[str]] = field(default_factory=list)

    def states(self) -> dict[int, dict[int, str]]:
        """Return the texts by seq that the conversation held at each revision."""
        state: dict[int, str] = {}
        states: dict[int, dict[int, str]] = {0: {}}
        for revision in sorted({*self.appended, *self.truncations}):
            if revision in self.appended:
                state = state | {revision: self.appended[revision]}
            else:
                last_kept = self.truncations[revision]
                state = {seq: text for seq, text in state.items() if seq <= last_kept}
            states[revision] = state
        return states

    def add_truncation(self, revision: int, after: int) -> None:
        # A truncation that removed nothing returns the revision of the change before it.
        self.truncations[revision] = min(after, self.truncations.get(revision, after))


def truncate(store: DynamoDBStore, history: History) -> None:
    if messages := store.tail(CONVERSATION, 5).messages:
        after = messages[0].seq
        history.add_truncation(store.truncate(CONVERSATION, after=after).revision, after)


def clear(store: DynamoDBStore, history: History) -> None:
    history.add_truncation(store.clear(CONVERSATION).revision, 0)


def fork(store: DynamoDBStore, history: History) -> None:
    history.forks.append(texts_of(read_all(store, store.fork(CONVERSATION).id)))


def read(store: DynamoDBStore, history: History) -> None:
    history.tails.append(store.tail(CONVERSATION, 1_000))


MEANWHILE: dict[str, list[Operation]] = {
    "reads": [read],
    "reads, truncations, clears and forks": [read, truncate, clear, fork],
}
PAUSE = 0.1
"""Seconds between two operations of one thread: enough for some messages to be appended."""


@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
def test_no_acknowledged_append_of_any_thread_or_process_is_lost_duplicated_or_reordered(
    dynamodb_local: DynamoDBLocal, client: "DynamoDBClient", table: str, meanwhile: list[Operation]
) -> None:
    store = DynamoDBStore(client, table)
    store.append(CONVERSATION, user_messages("first 0"))
    history = History(appended={1: "first 0"})
    done = Event()

    def repeat(operation: Operation) -> None:
        other = DynamoDBStore(client, table)
        while not done.wait(PAUSE):
            operation(other, history)

    def write() -> None:
        try:
            with writer_processes(dynamodb_local, table) as results:
                threads = [
                    partial(write_numbers, store, CONVERSATION, str(thread), appends=APPENDS)
                    for thread in range(THREADS)
                ]
                outcomes = [*race(threads), *results()]
        finally:
            done.set()
        for outcome in outcomes:
            assert isinstance(outcome, dict), outcome
            assert not history.appended.keys() & outcome.keys(), "a seq was assigned twice"
            history.appended.update(outcome)

    calls: list[Callable[[], None]] = [
        write,
        *(partial(repeat, operation) for operation in meanwhile),
    ]
    assert race(calls) == [None] * len(calls)
    assert len(history.appended) == 1 + (THREADS + len(PROCESSES)) * APPENDS

    states = history.states()
    read(store, history)
    for tail in history.tails:
        state = states[tail.conversation.revision]
        assert {message.seq: message.text for message in tail.messages} == state
        assert tail.conversation.message_count == len(state)
    final = states[max(states)]
    assert {message.seq: message.text for message in read_all(store, CONVERSATION)} == final
    for copy in history.forks:
        assert copy in [list(state.values()) for state in states.values()]
    in_order = user_messages(*(text for _, text in sorted(history.appended.items())))
    for writer, numbers in numbers_by_writer(in_order).items():
        assert numbers == list(range(len(numbers))), writer
    if meanwhile == [read]:
        assert final == history.appended
    else:
        assert len(history.truncations) >= 4
        assert len(history.forks) >= 2
    assert len(history.tails) >= 4


# Processes ----------------------------------------------------------------------------------------


@contextmanager
def writer_processes(
    dynamodb: DynamoDBLocal, table: str
) -> Iterator[Callable[[], list[dict[int, str]]]]:
    """Start processes that write as the threads do.

    Yields a function that waits for them and returns the text by seq that each has appended.
    """
    program = f"import sys; from {__name__} import run_writer; run_writer(*sys.argv[1:])"
    with ExitStack() as stack:
        started = []
        for name in PROCESSES:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program, table, name],
                    env=os.environ | {ENDPOINT_VARIABLE: dynamodb.endpoint},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            timeout = Timer(TIMEOUT_SECONDS, process.kill)
            timeout.start()
            stack.callback(timeout.cancel)
            started.append(process)
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "ready\n", "the process ended or hung"
        for process in started:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()

        def results() -> list[dict[int, str]]:
            outputs = [process.communicate()[0] for process in started]
            return [
                {int(seq): text for seq, text in json.loads(output).items()} for output in outputs
            ]

        yield results


def run_writer(table: str, name: str) -> None:
    """Run one of the writer processes."""
    with DynamoDBLocal() as dynamodb:
        store = DynamoDBStore(dynamodb.client(), table)
        store.get(CONVERSATION)
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(write_numbers(store, CONVERSATION, name, appends=APPENDS)))
