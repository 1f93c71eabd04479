"""What is in the file: of every layout that there was, and nothing of what has ended."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chatledger.conversations import Appended, Conversation
from chatledger.errors import NotFound
from chatledger.messages import Message
from chatledger.stores.sqlite import SQLiteStore
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import begin, said, say, seq_of

DATA = Path(__file__).parent.parent / "data"
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chatledger.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[SQLiteStore]:
    with SQLiteStore(path, clock=clock) as store:
        yield store


# Files of older versions

MADE = datetime(2026, 5, 1, 12, 0, 0, 250_000, UTC)
TRIP = Conversation(
    id="trip",
    owner="bob",
    title="A trip",
    metadata={"colour": "green", "n": 1},
    created_at=MADE,
    updated_at=MADE + timedelta(minutes=2),
    message_count=5,
    revision=9,
    expires_at=None,
)
TALK = [
    Message.system("Be brief.", id="message-system-1200", created_at=MADE),
    Message.user(
        "What time is it? ⏰", id="message-user-1200", created_at=MADE, metadata={"lang": "en"}
    ),
    Message.assistant(
        tool_calls=[{"id": "call_1", "name": "clock", "args": {"zone": None, "half": 0.5}}],
        id="message-assistant-1201",
        created_at=MADE + timedelta(minutes=1),
    ),
    Message.tool(
        "12:01",
        tool_call_id="call_1",
        id="message-tool-1201",
        created_at=MADE + timedelta(minutes=1),
    ),
    Message.assistant(
        ["It is 12:01.", {"type": "image", "url": "clock.png"}],
        id="message-assistant-1202",
        created_at=MADE + timedelta(minutes=2),
    ),
]


@pytest.fixture
def layout_1(path: Path) -> Iterator[SQLiteStore]:
    """What ``make_layout_1.py`` made, three minutes on."""
    shutil.copy(DATA / "layout-1.db", path)
    with SQLiteStore(path, clock=lambda: MADE + timedelta(minutes=3)) as store:
        yield store


def test_a_file_of_the_first_layout_is_read(layout_1: SQLiteStore) -> None:
    assert layout_1.list("bob").conversations == [TRIP]
    tail = layout_1.tail("trip", 10)
    assert tail.conversation == TRIP
    assert tail.messages == TALK
    assert [seq_of(message) for message in tail.messages] == [2, 3, 4, 5, 9]
    empty = layout_1.get("empty")
    assert (empty.owner, empty.message_count) == (None, 0)
    assert empty.expires_at == MADE + timedelta(minutes=3) + HOUR
    with pytest.raises(NotFound):
        layout_1.get("gone")


def test_a_file_of_the_first_layout_goes_on(layout_1: SQLiteStore) -> None:
    assert layout_1.append("trip", say("Thanks!")).seqs == range(10, 11)
    assert said(layout_1.tail("trip", 2).messages) == ["It is 12:01.", "Thanks!"]
    again = layout_1.append("trip", say("twice"), idempotency_key="request-7")
    assert again == Appended(range(4, 6), 5)
    assert layout_1.append("gone", say("back")).seqs == range(3, 4)
    assert layout_1.fork("trip", at=4).message_count == 3


def test_a_file_of_the_first_layout_gets_todays(layout_1: SQLiteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(":memory:")) as new:
        with SQLiteStore(path.parent / "new.db"):
            new.execute("ATTACH ? AS made", (str(path.parent / "new.db"),))
        tables = "SELECT type, name FROM {}sqlite_master ORDER BY 1, 2"
        assert (
            db.execute(tables.format("")).fetchall()
            == new.execute(tables.format("made.")).fetchall()
        )


# What has ended


def rows(path: Path) -> dict[str, int]:
    """How many rows each table has."""
    with closing(sqlite3.connect(path)) as db:
        return {
            table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("conversations", "messages", "idempotency_keys")
        }


def dump(path: Path) -> str:
    """Everything that any table holds, as text."""
    with closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump())


def private(store: SQLiteStore, conversation_id: str, *, expires_in: timedelta | None) -> None:
    store.create(
        conversation_id,
        owner="private owner",
        title="private title",
        metadata={"private": "private metadata"},
        expires_in=expires_in,
    )
    store.append(conversation_id, say("private text"), idempotency_key="private key")


def test_nothing_of_a_deleted_conversation_is_in_any_table(store: SQLiteStore, path: Path) -> None:
    private(store, "talk", expires_in=None)
    assert dump(path).count("private") == 6
    store.delete("talk")
    assert "private" not in dump(path)
    # Its id is, for a day, so that the next one of that id goes on with higher revisions.
    assert rows(path) == {"conversations": 1, "messages": 0, "idempotency_keys": 0}


def test_nothing_of_a_deleted_owner_is_in_any_table_the_expired_too(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for number in range(3):
        private(store, f"expired {number}", expires_in=HOUR)
    private(store, "living", expires_in=None)
    begin(store, "kept", owner="somebody else")
    clock.advance(2 * HOUR)
    assert store.delete_owner("private owner") == 1
    assert "private" not in dump(path)
    assert "kept" in dump(path)


def test_nothing_of_a_former_life_is_in_any_table(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    private(store, "talk", expires_in=HOUR)
    clock.advance(2 * HOUR)
    store.append("talk", say("anew"))
    assert "private" not in dump(path)
    assert rows(path) == {"conversations": 1, "messages": 1, "idempotency_keys": 0}


@pytest.mark.parametrize("change", ["truncate", "pop", "clear", "replace"])
def test_nothing_of_a_removed_message_is_in_any_table(
    store: SQLiteStore, path: Path, change: str
) -> None:
    it = begin(store, "stays", "private text")
    match change:
        case "truncate":
            store.truncate(it.id, after=it.seqs[0])
        case "pop":
            store.pop(it.id)
        case "clear":
            store.clear(it.id)
        case "replace":
            store.replace(it.id, it.seqs[1], Message.user("better"))
    assert "private" not in dump(path)


def test_the_expired_are_freed_as_new_ones_start(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for _ in range(30):
        begin(store, "hello", "there", expires_in=HOUR)
    clock.advance(2 * HOUR)
    assert rows(path)["messages"] == 60
    for _ in range(3):
        store.create()
    assert rows(path)["messages"] == 0
    # A day later their ids too.
    clock.advance(DAY + HOUR)
    for _ in range(3):
        store.create()
    assert rows(path)["conversations"] == 6


def test_a_file_with_short_lived_conversations_does_not_grow(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for _ in range(100):
        it = begin(store, "hello", expires_in=timedelta(minutes=30))
        store.append(it.id, say("once"), idempotency_key="once")
        clock.advance(HOUR)
    # A day's worth of ids, and what lives.
    assert sum(rows(path).values()) <= 30


def test_a_sweep_frees_all_at_once(store: SQLiteStore, path: Path, clock: Clock) -> None:
    for number in range(120):
        store.append(f"{number}", say("hello"), idempotency_key="key")
        store.delete(f"{number}")
        store.create(f"expires {number}", expires_in=HOUR)
    it = begin(store, "stays")
    clock.advance(2 * HOUR)
    assert store.sweep() == 120
    clock.advance(2 * DAY)
    assert store.sweep() == 240
    assert store.sweep() == 0
    assert rows(path) == {"conversations": 1, "messages": 1, "idempotency_keys": 0}
    assert store.get(it.id).message_count == 1
