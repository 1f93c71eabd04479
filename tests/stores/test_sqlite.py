"""Files that an SQLite store cannot use, or not at present, and the errors that it raises."""

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import pytest

from chatledger.errors import ChatledgerError, DiskFull, StoreMismatch, StoreUnavailable
from chatledger.messages import Message
from chatledger.stores.sqlite import SQLiteStore
from chatledger.stores.sqlite.layout import APPLICATION_ID, MIGRATIONS
from chatledger.testing.store_contract.helpers import read_all, texts_of, user_messages


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chatledger.db"


def file_with(path: Path, *texts: str) -> Path:
    """Append these texts to the conversation ``talk`` in the file; return its path."""
    with SQLiteStore(path) as store:
        store.append("talk", user_messages(*texts))
    return path


def stored_texts(path: Path) -> list[str]:
    with SQLiteStore(path) as store:
        return texts_of(store.tail("talk", 1_000).messages)


def error_message(kind: type[ChatledgerError], path: Path) -> str:
    """Return the text of the error that opening and using the file raises."""
    with pytest.raises(kind) as raised, SQLiteStore(path) as store:
        store.append("talk", user_messages("another"))
    assert isinstance(raised.value, kind)
    return str(raised.value)


# Files that are not stores


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"The history of my chats\n" * 1_000,
        random.Random(1).randbytes(10_000),
        b"\0" * 600,
    ],
    ids=["a few characters", "a text", "noise", "zeros"],
)
def test_a_file_that_is_not_a_database_is_left_unchanged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert error_message(StoreMismatch, path) == (
        f"The file {str(path)!r} is not an SQLite database; name another file."
    )
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE TABLE conversations (id TEXT); INSERT INTO conversations VALUES ('mine')",
        "CREATE TABLE messages (id TEXT); PRAGMA user_version = 1",
        "PRAGMA application_id = 7; CREATE TABLE a (b)",
        "PRAGMA user_version = 1; VACUUM",
        "PRAGMA journal_mode = WAL; CREATE TABLE a (b)",
    ],
)
def test_a_database_of_another_program_is_left_unchanged(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(statements)
    before = path.read_bytes()
    assert error_message(StoreMismatch, path) == (
        f"The file {str(path)!r} is the SQLite database of another program; name another file."
    )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_file_of_a_later_version_is_left_unchanged(path: Path) -> None:
    file_with(path, "hello")
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    assert error_message(StoreMismatch, path) == (
        f"The file {str(path)!r} has layout {len(MIGRATIONS) + 1}, made by a later version of "
        f"Chatledger; this version supports layouts up to {len(MIGRATIONS)}. Upgrade Chatledger."
    )
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    assert stored_texts(file_with(path, "hello")) == ["hello"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


# Missing folders and permissions


def test_the_error_says_that_the_folder_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "chatledger.db"
    assert error_message(StoreUnavailable, path) == (
        f"The file {str(path)!r} could not be opened; its folder must exist and be writable."
    )
    assert os.listdir(tmp_path) == []


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Yield a folder that other users can read, unlike those that pytest makes."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@contextmanager
def unprivileged_user() -> Iterator[None]:
    """Run the block as a user to whom permissions apply, unlike root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_the_error_says_that_the_folder_must_be_writable(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    with unprivileged_user():
        message = error_message(StoreUnavailable, public_folder / "chatledger.db")
    assert message.endswith("could not be opened; its folder must exist and be writable.")
    assert os.listdir(public_folder) == []


@pytest.mark.parametrize("where", ["file", "folder"])
def test_a_file_that_is_not_writable_is_left_unchanged(public_folder: Path, where: str) -> None:
    path = file_with(public_folder / "chatledger.db", "hello")
    if where == "file":
        path.chmod(0o444)
        public_folder.chmod(0o777)
    else:
        path.chmod(0o666)
        public_folder.chmod(0o555)
    with unprivileged_user():
        message = error_message(StoreUnavailable, path)
    assert "is not writable; nothing was written. Give write permission to the file and" in message
    public_folder.chmod(0o755)
    path.chmod(0o644)
    assert stored_texts(path) == ["hello"]


# Damaged files


@pytest.mark.parametrize("damage", ["overwritten", "cut short"])
def test_the_error_says_what_to_do_about_a_damaged_file(path: Path, damage: str) -> None:
    file_with(path, *("some text " * 100 for _ in range(50)))
    sound = path.read_bytes()
    head, rest = sound[:4096], sound[4096:]
    path.write_bytes(
        sound[: len(sound) // 2] if damage == "cut short" else head + b"\xff" * len(rest)
    )
    assert error_message(StoreUnavailable, path) == (
        f"The file {str(path)!r} is damaged; restore it from a backup, "
        "or recover what is readable with the sqlite3 shell's .recover command."
    )


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that stores open in this test; some pragmas can only be seen on their own."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def record_connection(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", record_connection)
    return opened


# Full disks and files

WRITE_UNTIL_FULL = """
import json, resource, sys
from chatledger import Message, StoreUnavailable, open_store

def append(number):
    batch = [Message.user(f"{number} {part} " + "." * 5_000) for part in range(3)]
    return list(store.append("talk", batch, idempotency_key=f"{number}").seqs)

def limit(size):
    # The system lets no file grow beyond this, as if the disk were full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

acknowledged, failed = {}, []
with open_store(sys.argv[1]) as store:
    limit(300_000)
    while len(failed) < 5:
        number = len(acknowledged) + len(failed)
        try:
            acknowledged[number] = append(number)
        except StoreUnavailable as unavailable:
            failed.append([number, str(unavailable), unavailable.may_have_landed])
            readable = store.get("talk").message_count
    limit(resource.RLIM_INFINITY)
    acknowledged[failed[0][0]] = append(failed[0][0])
    acknowledged["more"] = append("more")
print(json.dumps({"acknowledged": acknowledged, "failed": failed, "readable": readable}))
"""


def test_a_full_disk_neither_loses_nor_splits_a_batch_and_the_store_works_again_with_space(
    path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE_UNTIL_FULL, f"sqlite:///{path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    result = json.loads(done.stdout)

    for _, sentence, may_have_landed in result["failed"]:
        assert sentence.startswith(f"The file {str(path)!r} could not be used: ")
        assert may_have_landed
    assert result["readable"] == 3 * result["failed"][0][0]
    stored: dict[str, list[int | None]] = {}
    with SQLiteStore(path) as store:
        for message in store.page("talk", limit=1_000).messages:
            stored.setdefault(message.text.split()[0], []).append(message.seq)
    assert stored == result["acknowledged"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_file_reports_that_nothing_was_written_and_works_again_with_space(
    path: Path, connections: list[sqlite3.Connection]
) -> None:
    with SQLiteStore(path) as store:
        for db in connections:
            db.execute("PRAGMA max_page_count = 20")
        acknowledged: list[int] = []

        def fill() -> None:
            for number in count():
                store.append("talk", user_messages(f"{number} " + "." * 1_000, f"{number}"))
                acknowledged.append(number)

        with pytest.raises(DiskFull) as raised:
            fill()
        assert str(raised.value) == (
            f"The file {str(path)!r} cannot grow: the disk is full. "
            "Nothing was written; free some space."
        )
        assert not raised.value.may_have_landed
        assert store.get("talk").message_count == 2 * len(acknowledged)

        store.truncate("talk", after=2)  # frees space
        store.append("talk", user_messages("more"))
        assert len(store.page("talk").messages) == 3


# Closed stores


def test_a_closed_store_reports_that_it_was_closed(path: Path) -> None:
    store = SQLiteStore(path)
    store.append("talk", user_messages("hello"))
    store.close()
    for use in (
        lambda: store.get("talk"),
        lambda: store.append("talk", user_messages("more")),
        store.sweep,
    ):
        with pytest.raises(StoreUnavailable, match=r"was closed; open the store again\.$"):
            use()
    store.close()
    assert stored_texts(path) == ["hello"]
    assert os.listdir(path.parent) == [path.name]


def test_a_store_closed_while_threads_write_keeps_what_it_acknowledged(path: Path) -> None:
    store = SQLiteStore(path)
    started = Event()

    def write(writer: int) -> list[str]:
        acknowledged: list[str] = []
        while True:
            text = f"{writer} {len(acknowledged)}"
            try:
                store.append("talk", user_messages(text))
            except StoreUnavailable:
                return acknowledged
            acknowledged.append(text)
            if len(acknowledged) == 5:
                started.set()

    with ThreadPoolExecutor(4) as threads:
        writing = [threads.submit(write, writer) for writer in range(4)]
        assert started.wait(60)
        store.close()
        acknowledged = [text for each in writing for text in each.result()]
    with SQLiteStore(path) as store:
        assert sorted(texts_of(read_all(store, "talk"))) == sorted(acknowledged)


# Durability


def test_acknowledged_writes_survive_a_power_failure(
    path: Path, connections: list[sqlite3.Connection]
) -> None:
    # SQLite tests that this mode keeps the promise; this tests that the mode is on.
    with SQLiteStore(path):
        assert connections
        for db in connections:
            assert db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
            assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_message_of_any_characters_comes_back(path: Path) -> None:
    text = "".join(map(chr, range(0x300))) + "\u2028\uffff\U0010ffff"
    file_with(path, text)
    assert stored_texts(path) == [text]
    with SQLiteStore(path) as store:
        store.append("\0'; DROP TABLE messages; --", [Message.user(text)])
        assert store.get("\0'; DROP TABLE messages; --").message_count == 1


# Settings of the file


def pragmas_of(db: sqlite3.Connection) -> dict[str, object]:
    names = ("secure_delete", "journal_size_limit", "fullfsync", "checkpoint_fullfsync")
    return {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in names}


def test_every_connection_overwrites_deleted_text_and_bounds_the_log(
    path: Path, connections: list[sqlite3.Connection]
) -> None:
    with SQLiteStore(path) as store:
        store.append("talk", user_messages("hello"))
        store.get("talk")
        assert len(connections) == 2
        for db in connections:
            assert pragmas_of(db) == {
                "secure_delete": 1,
                "journal_size_limit": 64 * 1024 * 1024,
                "fullfsync": 1,
                "checkpoint_fullfsync": 1,
            }


def test_deleted_text_is_not_in_the_file(path: Path) -> None:
    file_with(path, "a secret text", *("." * 5_000 for _ in range(3)))
    assert b"a secret text" in path.read_bytes()
    with SQLiteStore(path) as store:
        store.delete("talk")
    assert b"a secret text" not in path.read_bytes()


def test_connections_that_read_cannot_write(path: Path) -> None:
    with SQLiteStore(path) as store, pytest.raises(StoreUnavailable, match="is not writable"):
        store._database.read(lambda db: db.execute("DELETE FROM conversations"))


def test_a_new_file_is_for_its_owner_alone(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.append("talk", user_messages("hello"))
        names = sorted(os.listdir(path.parent))
        assert names == [path.name, f"{path.name}-shm", f"{path.name}-wal"]
        assert {(path.parent / name).stat().st_mode & 0o777 for name in names} == {0o600}


def test_an_existing_file_keeps_its_mode(path: Path) -> None:
    file_with(path, "hello").chmod(0o660)
    with SQLiteStore(path) as store:
        store.append("talk", user_messages("more"))
        names = os.listdir(path.parent)
        assert {(path.parent / name).stat().st_mode & 0o777 for name in names} == {0o660}


def test_the_error_says_if_the_file_system_has_no_shared_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def connect_without_shared_memory(path: str, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(f"file:{path}?vfs=unix-dotfile", uri=True, **options)
        return db

    monkeypatch.setattr(sqlite3, "connect", connect_without_shared_memory)
    with pytest.raises(StoreMismatch) as raised:
        SQLiteStore(path)
    assert str(raised.value) == (
        f"The file {str(path)!r} cannot have a write-ahead log, because its file system has no "
        "shared memory (SQLite stayed in journal mode 'delete'); use a local disk."
    )
