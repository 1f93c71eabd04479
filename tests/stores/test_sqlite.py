"""What lies at a path and cannot be used, or not for now, and what a user is told."""

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

from chatledger.errors import ChatledgerError, StoreMismatch, StoreUnavailable
from chatledger.messages import Message
from chatledger.stores.sqlite import SQLiteStore
from chatledger.stores.sqlite.layout import APPLICATION_ID, MIGRATIONS
from chatledger.testing.store_contract.helpers import read_all, said, say


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chatledger.db"


def written(path: Path, *texts: str) -> Path:
    """The file, with these in the conversation ``talk``."""
    with SQLiteStore(path) as store:
        store.append("talk", say(*texts))
    return path


def talk(path: Path) -> list[str]:
    with SQLiteStore(path) as store:
        return said(store.tail("talk", 1_000).messages)


def refusal(kind: type[ChatledgerError], path: Path) -> str:
    """What is said to who opens the file and uses it."""
    with pytest.raises(kind) as refused, SQLiteStore(path) as store:
        store.append("talk", say("another"))
    assert isinstance(refused.value, kind)
    return str(refused.value)


# Not a store


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
def test_a_file_that_is_no_database_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert refusal(StoreMismatch, path) == (
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
def test_another_programs_database_is_left_as_it_is(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(statements)
    before = path.read_bytes()
    assert refusal(StoreMismatch, path) == (
        f"The file {str(path)!r} is the SQLite database of another program; name another file."
    )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_later_versions_file_is_left_as_it_is(path: Path) -> None:
    written(path, "hello")
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    assert refusal(StoreMismatch, path) == (
        f"The file {str(path)!r} has layout {len(MIGRATIONS) + 1}, made by a later version of "
        f"Chatledger; this one knows layouts up to {len(MIGRATIONS)}. Upgrade Chatledger."
    )
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    assert talk(written(path, "hello")) == ["hello"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


# Not there, or not ours to write


def test_a_missing_folder_is_named_as_what_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "chatledger.db"
    assert refusal(StoreUnavailable, path) == (
        f"The file {str(path)!r} could not be opened; its folder must exist and be writable."
    )
    assert os.listdir(tmp_path) == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may look into; those of pytest are its user's alone."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Permissions hold: they do not for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_written_to_is_named_as_such(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with somebody_else():
        told = refusal(StoreUnavailable, open_folder / "chatledger.db")
    assert told.endswith("could not be opened; its folder must exist and be writable.")
    assert os.listdir(open_folder) == []


@pytest.mark.parametrize("where", ["file", "folder"])
def test_what_may_not_be_written_to_stays_as_it_is(open_folder: Path, where: str) -> None:
    path = written(open_folder / "chatledger.db", "hello")
    if where == "file":
        path.chmod(0o444)
        open_folder.chmod(0o777)
    else:
        path.chmod(0o666)
        open_folder.chmod(0o555)
    with somebody_else():
        told = refusal(StoreUnavailable, path)
    assert "may not be written to; nothing was. Give write permission to the file and" in told
    open_folder.chmod(0o755)
    path.chmod(0o644)
    assert talk(path) == ["hello"]


# Damaged


@pytest.mark.parametrize("damage", ["overwritten", "cut short"])
def test_a_damaged_file_is_named_as_such_and_what_to_do(path: Path, damage: str) -> None:
    written(path, *("some text " * 100 for _ in range(50)))
    sound = path.read_bytes()
    head, rest = sound[:4096], sound[4096:]
    path.write_bytes(
        sound[: len(sound) // 2] if damage == "cut short" else head + b"\xff" * len(rest)
    )
    assert refusal(StoreUnavailable, path) == (
        f"The file {str(path)!r} is damaged; restore it from a backup, "
        "or save what can be read with the sqlite3 shell's .recover."
    )


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Those that stores open meanwhile: what is set for a connection shows on no other."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def connect_and_tell(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connect_and_tell)
    return opened


# Full

WRITE_UNTIL_FULL = """
import json, resource, sys
from chatledger import Message, StoreUnavailable, open_store

def append(number):
    batch = [Message.user(f"{number} {part} " + "." * 5_000) for part in range(3)]
    return list(store.append("talk", batch, idempotency_key=f"{number}").seqs)

def limit(size):
    # What the system refuses to let a file grow beyond, as if the disk ended there.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

told, refused = {}, []
with open_store(sys.argv[1]) as store:
    limit(300_000)
    while len(refused) < 5:
        number = len(told) + len(refused)
        try:
            told[number] = append(number)
        except StoreUnavailable as unavailable:
            refused.append([number, str(unavailable), unavailable.may_have_landed])
            readable = store.get("talk").message_count
    limit(resource.RLIM_INFINITY)
    told[refused[0][0]] = append(refused[0][0])
    told["more"] = append("more")
print(json.dumps({"told": told, "refused": refused, "readable": readable}))
"""


def test_a_full_disk_loses_nothing_and_splits_nothing_and_works_again_with_room(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE_UNTIL_FULL, f"sqlite:///{path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    seen = json.loads(done.stdout)

    for _, sentence, may_have_landed in seen["refused"]:
        assert sentence.startswith(f"The file {str(path)!r} could not be used: ")
        assert may_have_landed
    assert seen["readable"] == 3 * seen["refused"][0][0]
    stored: dict[str, list[int | None]] = {}
    with SQLiteStore(path) as store:
        for message in store.page("talk", limit=1_000).messages:
            stored.setdefault(message.text.split()[0], []).append(message.seq)
    assert stored == seen["told"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_file_says_that_nothing_was_written_and_works_again_with_room(
    path: Path, connections: list[sqlite3.Connection]
) -> None:
    with SQLiteStore(path) as store:
        for db in connections:
            db.execute("PRAGMA max_page_count = 20")
        told: list[int] = []

        def fill() -> None:
            for number in count():
                store.append("talk", say(f"{number} " + "." * 1_000, f"{number}"))
                told.append(number)

        with pytest.raises(StoreUnavailable) as refused:
            fill()
        assert str(refused.value) == (
            f"The file {str(path)!r} has no room: the disk is full. "
            "Nothing was written; free some space."
        )
        assert not refused.value.may_have_landed
        assert store.get("talk").message_count == 2 * len(told)

        store.truncate("talk", after=2)  # makes room
        store.append("talk", say("on it goes"))
        assert len(store.page("talk").messages) == 3


# Closed


def test_a_closed_store_says_so(path: Path) -> None:
    store = SQLiteStore(path)
    store.append("talk", say("hello"))
    store.close()
    for use in (lambda: store.get("talk"), lambda: store.append("talk", say("more")), store.sweep):
        with pytest.raises(StoreUnavailable, match=r"was closed; open the store again\.$"):
            use()
    store.close()
    assert talk(path) == ["hello"]
    assert os.listdir(path.parent) == [path.name]


def test_a_store_closed_while_threads_write_keeps_what_it_acknowledged(path: Path) -> None:
    store = SQLiteStore(path)
    begun = Event()

    def write(writer: int) -> list[str]:
        told: list[str] = []
        while True:
            text = f"{writer} {len(told)}"
            try:
                store.append("talk", say(text))
            except StoreUnavailable:
                return told
            told.append(text)
            if len(told) == 5:
                begun.set()

    with ThreadPoolExecutor(4) as threads:
        writing = [threads.submit(write, writer) for writer in range(4)]
        assert begun.wait(60)
        store.close()
        told = [text for each in writing for text in each.result()]
    with SQLiteStore(path) as store:
        assert sorted(said(read_all(store, "talk"))) == sorted(told)


# On the disk


def test_what_was_acknowledged_survives_a_loss_of_power(
    path: Path, connections: list[sqlite3.Connection]
) -> None:
    # That SQLite keeps this promise in this mode is SQLite's to test; that it is on is ours.
    with SQLiteStore(path):
        assert connections
        for db in connections:
            assert db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
            assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_message_of_any_characters_comes_back(path: Path) -> None:
    text = "".join(map(chr, range(0x300))) + "\u2028\uffff\U0010ffff"
    written(path, text)
    assert talk(path) == [text]
    with SQLiteStore(path) as store:
        store.append("\0'; DROP TABLE messages; --", [Message.user(text)])
        assert store.get("\0'; DROP TABLE messages; --").message_count == 1
