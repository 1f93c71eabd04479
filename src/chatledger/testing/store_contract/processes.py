"""Laws for two processes that use the same store at the same time."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Timer

from chatledger.conversations import Appended
from chatledger.errors import ChatledgerError, Conflict
from chatledger.stores.urls import open_store
from chatledger.testing.store_contract.helpers import (
    TIMEOUT_SECONDS,
    numbers_by_writer,
    race,
    read_all,
    start_conversation,
    texts_of,
    user_messages,
    write_numbers,
)
from chatledger.values import new_id

PROCESSES = ["ada", "bob"]
THREADS = 8
APPENDS = 10


class ProcessesContract:
    """The contract between processes; your fixture ``store_url`` returns a URL for ``open_store``.

    Several processes open the same URL::

        class TestSQLiteProcesses(ProcessesContract):
            @pytest.fixture
            def store_url(self, tmp_path):
                return f"sqlite:///{tmp_path}/c.db"
    """

    def test_messages_of_two_processes_are_neither_lost_nor_duplicated_nor_reordered(
        self, store_url: str
    ) -> None:
        conversation_id = new_id()
        run_in_processes(store_url, "append_in_threads", conversation_id)
        with open_store(store_url) as store:
            messages = read_all(store, conversation_id)
            assert store.get(conversation_id).message_count == len(messages)
        assert numbers_by_writer(messages) == {
            f"{process}-{thread}": list(range(APPENDS))
            for process in PROCESSES
            for thread in range(THREADS)
        }

    def test_of_two_processes_with_the_same_revision_exactly_one_wins(self, store_url: str) -> None:
        with open_store(store_url) as store:
            conversation_id = start_conversation(store, "0 0").id
        outputs = run_in_processes(store_url, "append_at_the_revision", conversation_id)
        with open_store(store_url) as store:
            texts = texts_of(read_all(store, conversation_id))
        wins = [set(output.split()) for output in outputs]
        assert wins[0] | wins[1] == {str(number) for number in range(1, APPENDS + 1)}
        assert not wins[0] & wins[1]
        assert [text.split()[1] for text in texts] == [str(n) for n in range(APPENDS + 1)]

    def test_two_processes_with_one_idempotency_key_append_once_and_get_the_same_result(
        self, store_url: str
    ) -> None:
        conversation_id = new_id()
        outputs = run_in_processes(store_url, "append_with_keys", conversation_id)
        assert outputs[0] == outputs[1]
        with open_store(store_url) as store:
            texts = texts_of(read_all(store, conversation_id))
        assert sorted(texts) == sorted(str(number) for number in range(APPENDS))

    def test_two_processes_with_one_idempotency_key_create_once_and_get_the_same_conversation(
        self, store_url: str
    ) -> None:
        with open_store(store_url) as store:
            source = start_conversation(store, "1", "2")
        outputs = run_in_processes(store_url, "create_with_keys", source.id)
        assert outputs[0] == outputs[1]
        with open_store(store_url) as store:
            ids = {conversation.id for conversation in store.iter_conversations()}
            assert set(outputs[0].split()) == ids - {source.id}
            assert len(ids) == 1 + 2 * APPENDS

    def test_no_change_of_an_entry_by_two_processes_is_lost(self, store_url: str) -> None:
        with open_store(store_url) as store:
            conversation_id = start_conversation(store).id
            first = store.put_entry(conversation_id, "count", 0)
        run_in_processes(store_url, "increment_an_entry", conversation_id)
        with open_store(store_url) as store:
            last = store.entry(conversation_id, "count")
        assert last.value == len(PROCESSES) * APPENDS
        assert last.revision == first.revision + len(PROCESSES) * APPENDS

    def test_the_next_process_reads_what_one_process_wrote(self, store_url: str) -> None:
        with open_store(store_url) as store:
            conversation = start_conversation(store, "1", "2")
            store.close()
        with open_store(store_url) as store:
            assert texts_of(read_all(store, conversation.id)) == ["1", "2"]
            assert (
                store.append(
                    conversation.id, user_messages("3"), revision=conversation.revision
                ).seqs[0]
                > conversation.revision
            )


def run_in_processes(store_url: str, function: str, conversation_id: str) -> list[str]:
    """Run this module's ``function`` in each process at once; return what each printed."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(child_process(function, store_url, conversation_id, name))
            for name in PROCESSES
        ]
        for process in children:
            assert process.stdout
            assert process.stdout.readline() == "ready\n", "the process ended or is stuck"
        for process in children:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=TIMEOUT_SECONDS)[0] for process in children]
        assert [process.returncode for process in children] == [0, 0]
        return outputs


@contextmanager
def child_process(function: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run this module's ``function`` in a process, which is killed at the end of the block."""
    program = f"import sys; from {__name__} import {function}; {function}(*sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = Timer(TIMEOUT_SECONDS, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def wait_for_start() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def append_in_threads(store_url: str, conversation_id: str, name: str) -> None:
    with open_store(store_url) as store:
        wait_for_start()
        outcomes = race(
            [
                partial(write_numbers, store, conversation_id, f"{name}-{thread}", appends=APPENDS)
                for thread in range(THREADS)
            ]
        )
    for outcome in outcomes:
        if isinstance(outcome, ChatledgerError):
            raise outcome


def append_at_the_revision(store_url: str, conversation_id: str, name: str) -> None:
    """Append numbers at the latest revision; print those for which no rival was first."""
    with open_store(store_url) as store:
        wait_for_start()
        while (latest := store.get(conversation_id)).message_count <= APPENDS:
            text = f"{name} {latest.message_count}"
            try:
                store.append(conversation_id, user_messages(text), revision=latest.revision)
            except Conflict:
                continue
            print(latest.message_count)


def append_with_keys(store_url: str, conversation_id: str, name: str) -> None:
    """Append every number with a key of its own; print the results."""
    with open_store(store_url) as store:
        wait_for_start()
        for number in range(APPENDS):
            appended: Appended = store.append(
                conversation_id, user_messages(str(number)), idempotency_key=str(number)
            )
            print(list(appended.seqs), appended.revision)


def create_with_keys(store_url: str, conversation_id: str, name: str) -> None:
    """Create and fork conversations, each with a key of its own; print their ids."""
    with open_store(store_url) as store:
        wait_for_start()
        for number in range(APPENDS):
            print(store.create(title="Plans", idempotency_key=str(number)).id)
            print(store.fork(conversation_id, idempotency_key=str(number)).id)


def increment_an_entry(store_url: str, conversation_id: str, name: str) -> None:
    """Increment the entry ``count`` as often as ``APPENDS`` says."""
    with open_store(store_url) as store:
        wait_for_start()
        done = 0
        while done < APPENDS:
            read = store.entry(conversation_id, "count")
            assert isinstance(read.value, int)
            try:
                store.put_entry(conversation_id, "count", read.value + 1, revision=read.revision)
            except Conflict:
                continue
            done += 1
