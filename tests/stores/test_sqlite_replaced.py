"""A file that is removed or replaced under an open SQLite store, as by restoring a backup."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from chatledger.errors import StoreMismatch, StoreUnavailable
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore, connection
from chatledger.testing.store_contract.helpers import (
    TIMEOUT_SECONDS,
    read_all,
    texts_of,
    user_messages,
)

LONG = "." * 3_000
"""With many messages of this length, the files of two stores differ in all pages."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "chatledger.db"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return file_with(tmp_path / "backup.db", *(f"backup {n} {LONG}" for n in range(40)))


def file_with(path: Path, *texts: str) -> Path:
    """Append these texts to the conversation ``talk`` in the file; return its path."""
    with SQLiteStore(path) as store:
        store.append("talk", user_messages(*texts))
    return path


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A store that has written to its file and has read it; much of it is in the log."""
    path.parent.mkdir()
    with SQLiteStore(path) as store:
        for n in range(20):
            store.append("talk", user_messages(f"original {n} {LONG}"))
        assert store.get("talk").message_count == 20
        yield store


def labels_in(path: Path) -> list[str]:
    """Return the first two words of each text, after checking that the file is sound."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with SQLiteStore(path) as store:
        return [" ".join(text.split()[:2]) for text in texts_of(read_all(store, "talk"))]


BACKUP = [f"backup {n}" for n in range(40)]
ORIGINAL = [f"original {n}" for n in range(20)]


# Removed


@pytest.mark.parametrize("with_folder", [False, True], ids=["file", "folder"])
def test_nothing_is_acknowledged_into_a_file_that_was_removed(
    path: Path, store: Store, with_folder: bool
) -> None:
    if with_folder:
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    for use in (
        lambda: store.append("talk", user_messages("lost")),
        lambda: store.create("new"),
        lambda: store.get("talk"),
    ):
        with pytest.raises(StoreUnavailable) as raised:
            use()
        assert not raised.value.may_have_landed
        assert str(raised.value) == (
            f"The file {str(path)!r} was removed or replaced while the store was open; "
            "nothing was written. Restore it from a backup, or open the store again."
        )
    store.close()
    assert not path.exists()
    if not with_folder:
        assert list(path.parent.iterdir()) == [], "no log waits to be applied to a restored file"


def test_a_file_removed_before_a_fork_is_not_created_again(path: Path, store: SQLiteStore) -> None:
    path.unlink()
    store._database.pause()
    store._database.resume()
    with pytest.raises(StoreUnavailable, match="was removed or replaced"):
        store.append("talk", user_messages("lost"))
    with pytest.raises(StoreUnavailable, match="was removed or replaced"):
        store.get("talk")
    assert not path.exists()


def test_a_store_works_again_once_its_removed_file_is_restored(
    path: Path, backup: Path, store: Store
) -> None:
    path.unlink()
    with pytest.raises(StoreUnavailable):
        store.append("talk", user_messages("lost"))
    backup.rename(path)
    store.append("talk", user_messages("written later"))
    store.close()
    assert labels_in(path) == [*BACKUP, "written later"]


# Replaced


@pytest.mark.parametrize("first", ["read", "write", "fork"])
def test_the_next_call_uses_the_file_that_has_replaced_the_opened_one(
    path: Path, backup: Path, store: SQLiteStore, first: str
) -> None:
    backup.rename(path)
    if first == "read":
        assert store.get("talk").message_count == 40
    elif first == "fork":
        store._database.pause()
        store._database.resume()
    store.append("talk", user_messages("written later"))
    assert store.get("talk").message_count == 41
    store.close()
    assert labels_in(path) == [*BACKUP, "written later"]


def test_an_async_store_uses_the_file_that_has_replaced_the_opened_one(
    path: Path, backup: Path
) -> None:
    file_with(path_in_new_folder(path), "original 0")

    async def replace() -> None:
        async with AsyncSQLiteStore(path) as store:
            await store.append("talk", [Message.user("original 1")])
            assert (await store.get("talk")).message_count == 2
            shutil.move(backup, path)
            counts = await asyncio.gather(*(store.get("talk") for _ in range(20)))
            assert {found.message_count for found in counts} == {40}
            await store.append("talk", [Message.user("written later")])

    asyncio.run(replace())
    assert labels_in(path) == [*BACKUP, "written later"]


def test_a_read_that_holds_the_earlier_file_while_another_opens_its_replacement_reads_that(
    path: Path, backup: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_reader = store._database._take_reader

    def take_reader_before_the_file_is_replaced() -> Any:
        taken = take_reader()
        monkeypatch.undo()
        backup.rename(path)
        store.append("talk", user_messages("written meanwhile"))
        return taken

    monkeypatch.setattr(store._database, "_take_reader", take_reader_before_the_file_is_replaced)
    assert store.get("talk").message_count == 41


def path_in_new_folder(path: Path) -> Path:
    path.parent.mkdir()
    return path


def test_a_file_that_was_renamed_has_every_acknowledged_write(
    path: Path, backup: Path, store: Store
) -> None:
    renamed = path.with_name("renamed.db")
    path.rename(renamed)
    backup.rename(path)
    store.append("talk", user_messages("written later"))
    assert labels_in(renamed) == ORIGINAL
    store.close()
    assert labels_in(path) == [*BACKUP, "written later"]


def test_the_log_of_the_earlier_file_is_not_applied_to_its_replacement_after_the_store_is_closed(
    path: Path, backup: Path, store: Store
) -> None:
    backup.rename(path)
    store.close()
    assert labels_in(path) == BACKUP


def test_a_replacement_that_is_no_store_is_refused_until_it_is_replaced_too(
    path: Path, backup: Path, store: Store
) -> None:
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE mine (value TEXT)")
    content = other.read_bytes()
    other.rename(path)
    for use in (lambda: store.append("talk", user_messages("lost")), lambda: store.get("talk")):
        with pytest.raises(StoreMismatch, match="is the SQLite database of another program"):
            use()
    assert path.read_bytes() == content
    backup.rename(path)
    assert store.get("talk").message_count == 40


APPEND_ON_DEMAND = """
import sys
from chatledger import ChatledgerError, Message, open_store

with open_store(sys.argv[1]) as store:
    print("open", store.get("talk").message_count, flush=True)
    for line in sys.stdin:
        for part in range(5):
            store.append("talk", [Message.user(f"{line.strip()}.{part} " + "." * 3_000)])
        print("appended", flush=True)
"""


@contextmanager
def appending_process(path: Path) -> Iterator[tuple[Callable[[str], None], Callable[[], str]]]:
    """Yield functions that tell another process to append a text, and read its next answer."""
    process = subprocess.Popen(
        [sys.executable, "-c", APPEND_ON_DEMAND, f"sqlite:///{path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def tell(text: str) -> None:
        stdin.write(f"{text}\n")
        stdin.flush()

    try:
        yield tell, stdout.readline
    finally:
        process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0


def test_all_processes_use_the_replacement_and_lose_none_of_each_others_writes(
    path: Path, tmp_path: Path
) -> None:
    file_with(path_in_new_folder(path), "original 0")
    processes, rounds = 4, 4
    with ExitStack() as stack:
        others = [stack.enter_context(appending_process(path)) for _ in range(processes)]
        assert {answer() for _, answer in others} == {"open 1\n"}
        for round in range(rounds):
            file_with(tmp_path / f"{round}.db", f"backup {round}").rename(path)
            for n, (tell, _) in enumerate(others):
                tell(f"{round} {n}")
            assert {answer() for _, answer in others} == {"appended\n"}
    first, *labels = labels_in(path)
    assert first == f"backup {rounds - 1}"
    assert sorted(labels) == [
        f"{rounds - 1} {n}.{part}" for n in range(processes) for part in range(5)
    ]


# The log


@pytest.fixture
def checked_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have stores check at every call that their log is still there."""
    monkeypatch.setattr(connection, "LOG_CHECK_SECONDS", 0)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_nothing_is_acknowledged_or_lost_without_the_log(
    checked_log: None, path: Path, store: Store, suffix: str
) -> None:
    store.append("talk", user_messages("last"))
    Path(f"{path}{suffix}").unlink()
    for use in (lambda: store.append("talk", user_messages("lost")), lambda: store.get("talk")):
        with pytest.raises(StoreUnavailable, match="has lost its -wal or -shm file") as raised:
            use()
        assert not raised.value.may_have_landed
    store.close()
    assert labels_in(path) == [*ORIGINAL, "last"]


@pytest.mark.parametrize("is_open", [True, False])
def test_a_backup_without_a_log_of_its_own_is_used_for_more_than_a_call(
    path: Path, tmp_path: Path, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOG_CHECK_SECONDS", 0.0)
    path.parent.mkdir()
    with SQLiteStore(path) as store:
        store.append("talk", user_messages("backup"))
        with closing(sqlite3.connect(path)) as db:
            db.execute("VACUUM INTO ?", (str(tmp_path / "vacuumed.db"),))
        vacuumed = tmp_path / "vacuumed.db"
        with ExitStack() as stack:
            if is_open:
                vacuumed.rename(path)
            else:
                store = stack.enter_context(SQLiteStore(vacuumed))
            for n in range(3):
                store.append("talk", user_messages(f"later {n}"))
                assert store.get("talk").message_count == n + 2
