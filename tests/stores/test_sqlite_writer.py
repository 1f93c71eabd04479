"""The thread that writes to an SQLite file: group commit, errors within a group, bounded waits."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chatledger.conversations import Appended
from chatledger.errors import Conflict, NotFound, StoreUnavailable
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore, database, writer
from chatledger.testing.store_contract.helpers import (
    TIMEOUT_SECONDS,
    read_all,
    texts_of,
    user_messages,
)
from chatledger.values import now

CALLERS = 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chatledger.db"


class TracedConnection(sqlite3.Connection):
    """A connection that counts its commits, and can be told to fail at the next one."""

    commits = 0
    failing = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            TracedConnection.commits += 1
            if TracedConnection.failing:
                TracedConnection.failing = False
                raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *arguments)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> type[TracedConnection]:
    monkeypatch.setattr(TracedConnection, "commits", 0)
    monkeypatch.setattr(TracedConnection, "failing", False)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=TracedConnection))
    return TracedConnection


class Gate:
    """A clock that can stop the thread that writes: each write asks it for the time."""

    def __init__(self) -> None:
        self._opened, self._reached = threading.Event(), threading.Event()
        self._opened.set()

    def __call__(self) -> datetime:
        if threading.current_thread().name == "chatledger-sqlite":
            self._reached.set()
            assert self._opened.wait(TIMEOUT_SECONDS)
        return now()

    @contextmanager
    def closed(self, write: Callable[[], object]) -> Iterator[None]:
        """Call ``write``, and stop the thread within it until the end of the block."""
        self._opened.clear()
        self._reached.clear()
        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(write)
            assert self._reached.wait(TIMEOUT_SECONDS)
            try:
                yield
            finally:
                self._opened.set()
            writing.result(TIMEOUT_SECONDS)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    # So that a slow machine does not split a group.
    monkeypatch.setattr(writer, "MAX_TRANSACTION_SECONDS", TIMEOUT_SECONDS)
    return Gate()


Call = Callable[[], Any]


def queue_calls(store: SQLiteStore, threads: ThreadPoolExecutor, calls: list[Call]) -> list[Any]:
    """Start the calls in threads, one after the other; return once all of them are queued."""
    futures: list[Future[Any]] = []
    for call in calls:
        futures.append(threads.submit(call))
        wait_until(lambda: store._database.writer._queue.qsize() == len(futures))
    return futures


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def write_together(
    store: SQLiteStore, gate: Gate, *calls: Call, first: Call | None = None
) -> list[Any]:
    """Make the calls in one transaction, after an append of "first"; return their futures."""
    first = first or append(store, "first")
    with ThreadPoolExecutor(len(calls)) as threads, gate.closed(first):
        return queue_calls(store, threads, list(calls))


def append(store: SQLiteStore, *texts: str, **options: Any) -> Call:
    return lambda: store.append("talk", user_messages(*texts), **options)


# Group commit


def test_tasks_that_append_at_once_share_transactions(
    path: Path, traced: type[TracedConnection]
) -> None:
    async def append_together() -> list[Appended]:
        async with AsyncSQLiteStore(path) as store:
            await store.create("talk")
            traced.commits = 0
            return await asyncio.gather(
                *(store.append("talk", user_messages(f"{n}")) for n in range(CALLERS))
            )

    appended = asyncio.run(append_together())
    assert traced.commits <= 7
    with SQLiteStore(path) as store:
        text_by_seq = {message.seq: message.text for message in read_all(store, "talk")}
    assert text_by_seq == {one.seqs[0]: f"{n}" for n, one in enumerate(appended)}


def test_threads_that_append_while_another_write_runs_share_its_transaction(
    path: Path, traced: type[TracedConnection], gate: Gate
) -> None:
    with SQLiteStore(path, clock=gate) as store:
        store.create("talk")
        traced.commits = 0
        appends = write_together(store, gate, *[append(store, "more")] * 8)
        assert [each.result().revision for each in appends] == list(range(3, 11))
        assert traced.commits == 1


def test_an_append_alone_is_one_transaction(path: Path, traced: type[TracedConnection]) -> None:
    with SQLiteStore(path) as store:
        store.create("talk")
        traced.commits = 0
        for number in range(5):
            store.append("talk", user_messages("hello"), idempotency_key=f"{number}")
        assert traced.commits == 5


def test_a_long_transaction_takes_no_further_writes(
    path: Path, traced: type[TracedConnection], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_TRANSACTION_SECONDS", 0.001)
    with SQLiteStore(path, clock=gate) as store:
        store.create("talk")
        traced.commits = 0
        write_together(
            store, gate, *[lambda: store._database.write(lambda _: time.sleep(0.01))] * 5
        )
        assert traced.commits >= 5


# Errors within a group


def test_an_error_undoes_only_its_own_write(path: Path, gate: Gate) -> None:
    def fail_after_writing(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM messages")
        raise LookupError("on purpose")

    with SQLiteStore(path, clock=gate) as store:
        store.append("talk", user_messages("0"))
        first, failed, conflict, missing, second = write_together(
            store,
            gate,
            append(store, "1"),
            lambda: store._database.write(fail_after_writing),
            append(store, "no", revision=1),
            lambda: store.delete("missing"),
            append(store, "2", revision=3),
        )
        assert (first.result().revision, second.result().revision) == (3, 4)
        for future, error in ((failed, LookupError), (conflict, Conflict), (missing, NotFound)):
            assert type(future.exception()) is error
        assert texts_of(read_all(store, "talk")) == ["0", "first", "1", "2"]


def test_the_other_writes_are_made_if_sqlite_rolls_back_all_because_of_one(
    path: Path, gate: Gate
) -> None:
    def roll_back_all(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")  # SQLite may do this by itself, such as when the disk is full
        raise sqlite3.OperationalError("disk I/O error")

    with SQLiteStore(path, clock=gate) as store:
        first, failed, second = write_together(
            store,
            gate,
            append(store, "1"),
            lambda: store._database.write(roll_back_all),
            append(store, "2"),
        )
        assert (first.result().revision, second.result().revision) == (2, 3)
        assert str(failed.exception()) == (
            f"The file {str(path)!r} could not be used: disk I/O error."
        )
        assert texts_of(read_all(store, "talk")) == ["first", "1", "2"]


def test_no_write_of_a_group_is_acknowledged_if_its_commit_fails(
    path: Path, traced: type[TracedConnection], gate: Gate
) -> None:
    with SQLiteStore(path, clock=gate) as store:
        store.append("talk", user_messages("0"))
        traced.failing = True
        errors: list[StoreUnavailable] = []

        def failing(call: Call) -> Call:
            return lambda: errors.append(error_of(call))

        write_together(
            store,
            gate,
            failing(append(store, "1")),
            failing(append(store, "no", revision=99)),  # a conflict with a state that never was
            first=failing(append(store, "first")),
        )
        assert len(set(errors)) == 3
        assert all(error.may_have_landed for error in errors)
        assert texts_of(read_all(store, "talk")) == ["0"]
        store.append("talk", user_messages("1"))


def error_of(call: Call) -> Any:
    with pytest.raises(StoreUnavailable) as raised:
        call()
    return raised.value


# Bounded waits, and callers that leave


def test_a_caller_that_gives_up_is_removed_from_the_queue(
    path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GRACE_SECONDS", 0.0)
    with SQLiteStore(path, clock=gate, timeout=60) as store:
        with gate.closed(append(store, "first")):
            monkeypatch.setattr(store._database.writer, "timeout", 0.05)
            error = error_of(append(store, "too late"))
        assert not error.may_have_landed
        assert str(error) == (
            f"The file {str(path)!r} was busy with other writes for too long; nothing was "
            "written. Try again."
        )
        store._database.writer.timeout = 60
        store.append("talk", user_messages("second"))
        assert texts_of(read_all(store, "talk")) == ["first", "second"]


def test_a_cancelled_task_is_removed_from_the_queue(path: Path, gate: Gate) -> None:
    async def cancel_one() -> list[str]:
        async with AsyncSQLiteStore(path, clock=gate) as store:
            gate._opened.clear()
            first = asyncio.create_task(store.append("talk", user_messages("first")))
            await asyncio.to_thread(gate._reached.wait, TIMEOUT_SECONDS)
            second = asyncio.create_task(store.append("talk", user_messages("cancelled")))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            gate._opened.set()
            await first
            await store.append("talk", user_messages("third"))
            return texts_of((await store.tail("talk", 9)).messages)

    assert asyncio.run(cancel_one()) == ["first", "third"]


def test_all_that_wait_for_another_process_fail_at_their_own_deadline(path: Path) -> None:
    with SQLiteStore(path, timeout=0.3) as store, ThreadPoolExecutor(8) as threads:
        store.append("talk", user_messages("0"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        errors = list(threads.map(lambda _: error_of(append(store, "no")), range(8)))
        waited = time.monotonic() - start
        other.execute("ROLLBACK")
        other.close()
        assert all("stayed locked by another process" in str(error) for error in errors)
        assert not any(error.may_have_landed for error in errors)
        assert waited < 8 * 0.3  # not one after the other
        assert texts_of(read_all(store, "talk")) == ["0"]


def test_a_read_waits_for_no_writer_and_for_readers_within_bounds(
    path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MAX_READERS", 1)
    with SQLiteStore(path, clock=gate, timeout=60) as store, ThreadPoolExecutor(8) as threads:
        store.append("talk", user_messages("0"))
        with gate.closed(append(store, "first")):
            queue_calls(store, threads, [append(store, "more")] * 7)
            assert texts_of(store.tail("talk", 9).messages) == ["0"]
        monkeypatch.setattr(store._database, "_timeout", 0.01)
        with (
            store._database._reader(),
            pytest.raises(StoreUnavailable, match="busy with other reads"),
        ):
            store.get("talk")
        assert store.get("talk").message_count == 9


def test_closing_finishes_what_is_queued(path: Path, gate: Gate) -> None:
    store = SQLiteStore(path, clock=gate)
    with ThreadPoolExecutor(8) as threads:
        with gate.closed(append(store, "first")):
            appends = queue_calls(store, threads, [append(store, "more")] * 5)
            closing = threads.submit(store.close)
            wait_until(lambda: store._database.writer._is_closed)
            assert str(error_of(append(store, "late"))).endswith("closed; open the store again.")
        closing.result(TIMEOUT_SECONDS)
        assert [each.result().revision for each in appends] == [2, 3, 4, 5, 6]
    assert os.listdir(path.parent) == [path.name]
    with SQLiteStore(path) as store:
        assert store.get("talk").message_count == 6


def test_a_thread_without_work_ends_and_the_next_write_starts_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(writer.Writer._work, "__defaults__", (0.01,))
    with SQLiteStore(path) as store:
        for _ in range(3):
            store.append("talk", user_messages("hello"))
            wait_until(lambda: store._database.writer._thread is None)
        assert store.get("talk").message_count == 3


def test_a_store_can_be_written_while_no_thread_can_be_started(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with SQLiteStore(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            store.append("talk", user_messages("hello"))
        store.append("talk", user_messages("again"))
        assert texts_of(read_all(store, "talk")) == ["hello", "again"]
