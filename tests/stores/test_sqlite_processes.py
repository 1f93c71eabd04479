"""Several processes with one file: they wait for each other, and forks lose nothing."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from chatledger.errors import StoreUnavailable
from chatledger.stores.sqlite import SQLiteStore
from chatledger.testing.store_contract.helpers import (
    TIMEOUT_SECONDS,
    numbers_by_writer,
    read_all,
    texts_of,
    user_messages,
)

PROCESSES = 8
FILES = 25


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chatledger.db"


WRITE_AND_WAIT = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE conversations SET title = 'half written'")
print("writing", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
"""


@contextmanager
def another_process_writing(path: Path) -> Iterator[None]:
    """Keep a write transaction of another process open during the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield
    finally:
        process.communicate("\n", timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0


def test_a_write_fails_and_writes_nothing_if_the_file_stays_locked(path: Path) -> None:
    with SQLiteStore(path, timeout=0.1) as store:
        store.append("talk", user_messages("hello"))
        with another_process_writing(path):
            for write in (
                lambda: store.append("talk", user_messages("more")),
                lambda: store.create("other"),
                lambda: store.delete("talk"),
                store.sweep,
            ):
                with pytest.raises(StoreUnavailable) as raised:
                    write()
                assert str(raised.value) == (
                    f"The file {str(path)!r} stayed locked by another process; "
                    "nothing was written. Try again."
                )
                assert not raised.value.may_have_landed
        assert texts_of(store.page("talk").messages) == ["hello"]
        assert store.append("talk", user_messages("again")).seqs == range(2, 3)


def test_a_reader_does_not_wait_for_a_write_of_another_process(path: Path) -> None:
    with SQLiteStore(path, timeout=0.1) as store:
        store.append("talk", user_messages("hello"), owner="bob")
        with another_process_writing(path):
            assert texts_of(store.tail("talk", 5).messages) == ["hello"]
            assert store.get("talk").title is None
            assert len(store.list("bob").conversations) == 1
            # Opening the file does not wait either.
            with SQLiteStore(path, timeout=0.1) as other:
                assert texts_of(other.page("talk").messages) == ["hello"]


def test_a_writer_waits_for_a_write_of_another_process(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.append("talk", user_messages("hello"))
        # The transaction ends while the append waits for it.
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_AND_WAIT, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            process.stdin.write("\n")
            process.stdin.flush()
            store.append("talk", user_messages("more"))
        assert texts_of(store.page("talk").messages) == ["hello", "more"]


# In a process of its own: this one has threads, which a fork would interrupt at any point.
CHILDREN = """
import json, os, sys, threading
from multiprocessing import get_context
from chatledger import Message, open_store

def child(task):
    # Run task() in a forked child; return a function that waits for it and returns its result.
    reading, writing = os.pipe()
    if not os.fork():
        with os.fdopen(writing, "w") as output:
            json.dump(task(), output)
        os._exit(0)
    os.close(writing)
    def result():
        with os.fdopen(reading) as output:
            answer = json.load(output)
        os.wait()
        return answer
    return result

"""
OPEN_NEW_FILES = """
processes, files = map(int, sys.argv[2:])
together = get_context("fork").Barrier(processes)

def open_each(process):
    failed = []
    for file in range(files):
        together.wait(60)
        try:
            with open_store(f"sqlite:///{file}.db") as store:
                store.append("talk", [Message.user(f"{process} {file}")])
        except Exception as error:
            failed.append(repr(error))
    return failed

results = [child(lambda: open_each(process)) for process in range(processes)]
print(json.dumps([result() for result in results]))
"""


def test_many_processes_can_open_the_same_new_file_at_once(tmp_path: Path) -> None:
    failed = run(CHILDREN + OPEN_NEW_FILES, tmp_path, "", f"{PROCESSES}", f"{FILES}")
    assert failed == [[]] * PROCESSES
    for file in range(FILES):
        with SQLiteStore(tmp_path / f"{file}.db") as store:
            written = numbers_by_writer(store.page("talk").messages)
        assert written == {str(number): [file] for number in range(PROCESSES)}


FORK = """
def write(writer, appends=20):
    acknowledged = {}
    for number in range(appends):
        text = f"{writer} {number}"
        [seq] = store.append("talk", [Message.user(text)]).seqs
        acknowledged[seq] = text
    return acknowledged

store = open_store(sys.argv[1])
acknowledged = write("before")
"""
END = """
print(json.dumps(acknowledged))
"""
TOGETHER = """
children = [child(lambda: write(f"child-{number}")) for number in range(3)]
acknowledged |= write("parent")
for result in children:
    acknowledged |= result()
acknowledged |= write("after")
"""
CLOSED_BY_THE_PARENT = """
reading, writing = os.pipe()
def write_twice():
    acknowledged = write("child-0")
    os.close(writing)
    os.read(reading, 1)  # returns when the parent has closed its store
    return acknowledged | write("child-1")
result = child(write_twice)
acknowledged |= write("parent")
store.close()
os.close(writing)
acknowledged |= result()
"""
UNUSED_BY_THE_CHILD = """
def close():
    store.close()
    return {}
acknowledged |= child(dict)()
acknowledged |= child(close)()
acknowledged |= write("parent")
"""
WITH_BUSY_THREADS = """
def write_more(writer):
    found = write(writer)
    lock.acquire()
    acknowledged.update(found)
    lock.release()
lock = threading.Lock()
threads = [threading.Thread(target=write_more, args=(f"thread-{n}",)) for n in range(3)]
for thread in threads:
    thread.start()
children = [child(lambda: write(f"child-{number}", 5)) for number in range(5)]
for thread in threads:
    thread.join()
for result in children:
    acknowledged |= result()
"""
GRANDCHILDREN = """
acknowledged |= child(lambda: write("child") | child(lambda: write("grandchild"))())()
"""
ANOTHER_FOLDER = """
def elsewhere():
    os.chdir("/")
    return write("child")
acknowledged |= child(elsewhere)()
"""


@pytest.mark.parametrize(
    "what",
    [
        TOGETHER,
        CLOSED_BY_THE_PARENT,
        UNUSED_BY_THE_CHILD,
        WITH_BUSY_THREADS,
        GRANDCHILDREN,
        ANOTHER_FOLDER,
    ],
    ids=[
        "together",
        "closed by the parent",
        "unused by the child",
        "with busy threads",
        "grandchildren",
        "another folder",
    ],
)
def test_a_store_used_after_a_fork_keeps_everything_acknowledged_to_parent_and_child(
    path: Path, what: str
) -> None:
    acknowledged = run(CHILDREN + FORK + what + END, path.parent, "sqlite:///chatledger.db")
    with SQLiteStore(path) as store:
        stored = {str(message.seq): message.text for message in read_all(store, "talk")}
    assert stored == acknowledged
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


IN_MEMORY = """
def writers():
    return sorted({message.text.split()[0] for message in store.page("talk").messages})
seen = [child(lambda: write("child") and writers())()]
write("parent")
print(json.dumps([*seen, writers()]))
"""


def test_after_a_fork_each_process_has_its_own_in_memory_store(tmp_path: Path) -> None:
    seen = run(CHILDREN + FORK + IN_MEMORY, tmp_path, "sqlite:///:memory:")
    assert seen == [["before", "child"], ["before", "parent"]]


def run(code: str, folder: Path, *arguments: str) -> Any:
    """Run the code in a new process; return what it prints, decoded from JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)
