"""Two processes that use the same place at the same time."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Timer

from chatledger.conversations import Appended
from chatledger.errors import ChatledgerError, Conflict
from chatledger.messages import new_id
from chatledger.stores.urls import open_store
from chatledger.testing.store_contract.helpers import (
    SECONDS,
    begin,
    numbers_of_writers,
    race,
    read_all,
    said,
    say,
    write_numbers,
)

PROCESSES = ["ada", "bob"]
THREADS = 8
APPENDS = 10


class ProcessesContract:
    """What holds between processes. Give the URL of a place that ``open_store`` can open twice::

    class TestSQLiteProcesses(ProcessesContract):
        @pytest.fixture
        def store_url(self, tmp_path):
            return f"sqlite:///{tmp_path}/c.db"
    """

    def test_no_message_of_two_processes_is_lost_doubled_or_out_of_its_order(
        self, store_url: str
    ) -> None:
        conversation_id = new_id()
        run_at_once(store_url, "append_in_threads", conversation_id)
        with open_store(store_url) as store:
            messages = read_all(store, conversation_id)
            assert store.get(conversation_id).message_count == len(messages)
        assert numbers_of_writers(messages) == {
            f"{process}-{thread}": list(range(APPENDS))
            for process in PROCESSES
            for thread in range(THREADS)
        }

    def test_of_two_processes_with_the_same_after_exactly_one_is_in(self, store_url: str) -> None:
        with open_store(store_url) as store:
            conversation_id = begin(store, "0 0").id
        answers = run_at_once(store_url, "append_after", conversation_id)
        with open_store(store_url) as store:
            texts = said(read_all(store, conversation_id))
        wins = [set(answer.split()) for answer in answers]
        assert wins[0] | wins[1] == {str(number) for number in range(1, APPENDS + 1)}
        assert not wins[0] & wins[1]
        assert [text.split()[1] for text in texts] == [str(n) for n in range(APPENDS + 1)]

    def test_two_processes_with_one_idempotency_key_append_once_and_hear_the_same(
        self, store_url: str
    ) -> None:
        conversation_id = new_id()
        answers = run_at_once(store_url, "append_with_keys", conversation_id)
        assert answers[0] == answers[1]
        with open_store(store_url) as store:
            texts = said(read_all(store, conversation_id))
        assert sorted(texts) == sorted(str(number) for number in range(APPENDS))

    def test_what_one_process_wrote_is_there_for_the_next(self, store_url: str) -> None:
        with open_store(store_url) as store:
            it = begin(store, "1", "2")
            store.close()
        with open_store(store_url) as store:
            assert said(read_all(store, it.id)) == ["1", "2"]
            assert store.append(it.id, say("3"), after=it.revision).seqs[0] > it.revision


def run_at_once(store_url: str, what: str, conversation_id: str) -> list[str]:
    """What each process printed that ran this module's function ``what``, let go at one moment."""
    with ExitStack() as ends:
        children = [
            ends.enter_context(child(what, store_url, conversation_id, name)) for name in PROCESSES
        ]
        for process in children:
            assert process.stdout
            assert process.stdout.readline() == "ready\n", "the process ended, or was stuck"
        for process in children:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=SECONDS)[0] for process in children]
        assert [process.returncode for process in children] == [0, 0]
        return answers


@contextmanager
def child(what: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this module's function ``what``, and that ends with the block."""
    program = f"import sys; from {__name__} import {what}; {what}(*sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        too_long = Timer(SECONDS, process.kill)
        too_long.start()
        try:
            yield process
        finally:
            too_long.cancel()
            process.kill()


def wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def append_in_threads(store_url: str, conversation_id: str, name: str) -> None:
    with open_store(store_url) as store:
        wait_for_go()
        outcomes = race(
            [
                partial(write_numbers, store, conversation_id, f"{name}-{thread}", appends=APPENDS)
                for thread in range(THREADS)
            ]
        )
    for outcome in outcomes:
        if isinstance(outcome, ChatledgerError):
            raise outcome


def append_after(store_url: str, conversation_id: str, name: str) -> None:
    """Append with ``after`` until there are enough; print the numbers that this process won."""
    with open_store(store_url) as store:
        wait_for_go()
        while (standing := store.get(conversation_id)).message_count <= APPENDS:
            text = f"{name} {standing.message_count}"
            try:
                store.append(conversation_id, say(text), after=standing.revision)
            except Conflict:
                continue
            print(standing.message_count)


def append_with_keys(store_url: str, conversation_id: str, name: str) -> None:
    """Append every number under its key; print what was answered."""
    with open_store(store_url) as store:
        wait_for_go()
        for number in range(APPENDS):
            appended: Appended = store.append(
                conversation_id, say(str(number)), idempotency_key=str(number)
            )
            print(list(appended.seqs), appended.revision)
