"""The contents of the file: older layouts are read, and nothing of ended conversations remains."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chatledger.conversations import Appended, Conversation
from chatledger.errors import AlreadyExists, Conflict, KeyReused, NotFound, StoreUnavailable
from chatledger.messages import Message
from chatledger.stores.sqlite import SQLiteStore, layout, plans, rows, search
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    search_all,
    start_conversation,
    texts_of,
    user_messages,
)

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


# Files of older layouts

CREATED_AT = datetime(2026, 5, 1, 12, 0, 0, 250_000, UTC)
EXPECTED_CONVERSATION = Conversation(
    id="trip",
    owner="bob",
    title="A trip",
    metadata={"colour": "green", "n": 1},
    created_at=CREATED_AT,
    updated_at=CREATED_AT + timedelta(minutes=2),
    message_count=5,
    revision=9,
    expires_at=None,
)
EXPECTED_MESSAGES = [
    Message.system("Be brief.", id="message-system-1200", created_at=CREATED_AT),
    Message.user(
        "What time is it? ⏰",
        id="message-user-1200",
        created_at=CREATED_AT,
        metadata={"lang": "en"},
    ),
    Message.assistant(
        tool_calls=[{"id": "call_1", "name": "clock", "args": {"zone": None, "half": 0.5}}],
        id="message-assistant-1201",
        created_at=CREATED_AT + timedelta(minutes=1),
    ),
    Message.tool(
        "12:01",
        tool_call_id="call_1",
        id="message-tool-1201",
        created_at=CREATED_AT + timedelta(minutes=1),
    ),
    Message.assistant(
        ["It is 12:01.", {"type": "image", "url": "clock.png"}],
        id="message-assistant-1202",
        created_at=CREATED_AT + timedelta(minutes=2),
    ),
]


@pytest.fixture
def layout_1(path: Path) -> Iterator[SQLiteStore]:
    """The file that ``make_layout_1.py`` made, three minutes later."""
    shutil.copy(DATA / "layout-1.db", path)
    with SQLiteStore(path, clock=lambda: CREATED_AT + timedelta(minutes=3)) as store:
        yield store


def test_a_file_of_layout_1_can_be_read(layout_1: SQLiteStore) -> None:
    assert layout_1.list("bob").conversations == [EXPECTED_CONVERSATION]
    tail = layout_1.tail("trip", 10)
    assert tail.conversation == EXPECTED_CONVERSATION
    assert tail.messages == EXPECTED_MESSAGES
    assert [message.seq for message in tail.messages] == [2, 3, 4, 5, 9]
    empty = layout_1.get("empty")
    assert (empty.owner, empty.message_count) == (None, 0)
    assert empty.expires_at == CREATED_AT + timedelta(minutes=3) + HOUR
    with pytest.raises(NotFound):
        layout_1.get("gone")


def test_a_file_of_layout_1_can_be_written(layout_1: SQLiteStore) -> None:
    assert layout_1.append("trip", user_messages("Thanks!")).seqs == range(10, 11)
    assert texts_of(layout_1.tail("trip", 2).messages) == ["It is 12:01.", "Thanks!"]
    again = layout_1.append("trip", user_messages("twice"), idempotency_key="request-7")
    assert again == Appended(range(4, 6), 5)
    assert layout_1.append("gone", user_messages("back")).seqs == range(3, 4)
    assert layout_1.fork("trip", at=4).message_count == 3


@pytest.mark.parametrize(
    "file", ["layout-1.db", "layout-1-expiring.db", "layout-2.db", "layout 3", "layout-4.db"]
)
def test_a_file_of_an_older_layout_gets_the_current_tables_columns_and_indexes(
    path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if file == "layout 3":
        make_layout_3(path, monkeypatch)
    else:
        shutil.copy(DATA / file, path)
    for each in (path, path.parent / "new.db"):
        SQLiteStore(each).close()
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(":memory:")) as new:
        new.execute("ATTACH ? AS made", (str(path.parent / "new.db"),))
        for query in (
            "SELECT type, name FROM {schema}sqlite_master ORDER BY 1, 2",
            """
            SELECT tables.name, columns.name, columns.type, columns."notnull", columns.dflt_value
            FROM {schema}sqlite_master AS tables,
            pragma_table_info(tables.name, {argument}) AS columns ORDER BY 1, 2
            """,
        ):
            migrated = db.execute(query.format(schema="", argument="'main'")).fetchall()
            made = new.execute(query.format(schema="made.", argument="'made'")).fetchall()
            assert migrated == made


def make_layout_3(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file as the version did that knew no entries."""
    with monkeypatch.context() as earlier:
        earlier.setattr(layout, "MIGRATIONS", layout.MIGRATIONS[:3])
        with closing(sqlite3.connect(path)) as db, db:
            layout.migrate(db, "The file")
            db.execute(
                "INSERT INTO conversations (id, owner, metadata, created_at, updated_at,"
                " message_count, revision) VALUES ('trip', 'bob', '{}', 1, 1, 0, 1)"
            )


def test_conversations_of_layout_3_can_have_entries(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_layout_3(path, monkeypatch)
    with SQLiteStore(path) as store:
        assert list(store.entries("trip", owner="bob")) == []
        entry = store.put_entry("trip", "topic", "plans", owner="bob")
        assert store.entry("trip", "topic") == entry
        assert store.delete_owner("bob") == 1


MADE_IN_LAYOUT_2 = datetime(2026, 12, 1, 12, 0, 0, 250_000, UTC)


@pytest.fixture
def layout_2(path: Path) -> Iterator[SQLiteStore]:
    """The file that ``make_layout_2.py`` made, two minutes later."""
    shutil.copy(DATA / "layout-2.db", path)
    with SQLiteStore(path, clock=lambda: MADE_IN_LAYOUT_2 + timedelta(minutes=2)) as store:
        yield store


def test_a_file_of_layout_2_can_be_read(layout_2: SQLiteStore) -> None:
    [trip] = layout_2.list("bob").conversations
    assert (trip.title, trip.metadata, trip.message_count) == ("Another trip", {"n": 1}, 3)
    assert layout_2.tail("trip", 9).conversation == trip
    assert texts_of(layout_2.iter_messages("trip")) == ["1", "2", "3"]
    assert texts_of(layout_2.iter_messages("long")) == ["1", "2"]
    assert {found.id for found in layout_2.iter_conversations()} == {"trip", "anonymous", "long"}
    with pytest.raises(NotFound):
        layout_2.get("deleted")


def test_a_file_of_layout_2_can_be_written(layout_2: SQLiteStore) -> None:
    trip = layout_2.get("trip")
    updated = layout_2.update("trip", metadata={"n": 2}, metadata_revision=trip.metadata_revision)
    assert updated.metadata_revision > trip.metadata_revision
    with pytest.raises(Conflict):
        layout_2.update("trip", metadata={"n": 3}, metadata_revision=trip.metadata_revision)
    assert layout_2.claim("anonymous", "bob").owner == "bob"
    assert layout_2.remove("trip", 2).message_count == 2
    assert texts_of(layout_2.iter_messages("trip")) == ["2", "3"]
    with pytest.raises(NotFound):
        layout_2.remove("long", 2_000)  # still in the file, as garbage
    with pytest.raises(AlreadyExists):
        layout_2.create("trip", owner="bob", title="A trip", idempotency_key="a key")
    layout_2.sweep()
    assert layout_2.append("long", user_messages("new")).seqs[0] > 1_502
    assert layout_2.append("deleted", user_messages("back")).seqs[0] > 1


def test_keys_of_layout_2_return_their_results_for_any_messages(layout_2: SQLiteStore) -> None:
    for texts in (["1", "2"], ["other"]):
        again = layout_2.append("trip", user_messages(*texts), idempotency_key="a key")
        assert again == Appended(range(2, 4), 3)
    layout_2.append("trip", user_messages("new"), idempotency_key="a new key")
    with pytest.raises(KeyReused):
        layout_2.append("trip", user_messages("other"), idempotency_key="a new key")


def test_a_file_of_layout_4_can_be_searched(path: Path) -> None:
    shutil.copy(DATA / "layout-4.db", path)
    with SQLiteStore(path, clock=lambda: MADE_IN_LAYOUT_2 + timedelta(minutes=2)) as store:
        found = search_all(store, "bob", "warm")
        assert [(match.conversation_id, match.seq) for match in found] == [
            ("long", 2),
            ("long", 1),
            ("trip", 2),
        ]
        assert [match.seq for match in store.search("bob", "malaga")] == [None, 3]
        assert store.entry("trip", "topic").value == "plans"
        store.sweep()
        assert search_all(store, "bob", "warm") == found


MADE_EXPIRING = datetime(2026, 11, 1, 12, 0, 0, 250_000, UTC)


@pytest.mark.parametrize("expire_after", [None, 3 * DAY])
def test_conversations_of_layout_1_keep_the_lifetime_that_their_store_gave_them(
    path: Path, expire_after: timedelta | None
) -> None:
    shutil.copy(DATA / "layout-1-expiring.db", path)
    time = MADE_EXPIRING + 2 * DAY
    with SQLiteStore(path, expire_after=expire_after, clock=lambda: time) as store:
        lifetimes = {"of the store": 30 * DAY, "its own": 7 * DAY, "for ever": None}
        listed = store.list("bob").conversations
        assert {found.id: found.expires_at for found in listed} == {
            "of the store": MADE_EXPIRING + DAY + 30 * DAY,
            "its own": MADE_EXPIRING + 7 * DAY,
            "for ever": None,
        }
        assert texts_of(store.tail("of the store", 9).messages) == ["1", "2", "3"]
        for conversation_id, lifetime in lifetimes.items():
            store.append(conversation_id, user_messages("more"))
            assert store.get(conversation_id).expires_at == (lifetime and time + lifetime)
        again = store.append("of the store", user_messages("twice"), idempotency_key="a key")
        assert again == Appended(range(3, 4), 3)
        assert store.append("deleted", user_messages("back")).seqs == range(2, 3)


def m003_with_semicolons(db: sqlite3.Connection) -> None:
    """A later migration, with semicolons in a literal and in a trigger."""
    db.execute("CREATE TABLE notes (text TEXT DEFAULT 'none; yet') STRICT")
    db.execute(
        """
        CREATE TRIGGER note_conversation AFTER INSERT ON conversations
        BEGIN
            INSERT INTO notes (text) VALUES (new.id || '; created');
            INSERT INTO notes (text) VALUES ('one; two');
        END
        """
    )


def test_a_migration_may_contain_semicolons(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DATA / "layout-1.db", path)
    monkeypatch.setattr(layout, "MIGRATIONS", (*layout.MIGRATIONS, m003_with_semicolons))
    with SQLiteStore(path, clock=lambda: CREATED_AT) as store:
        assert store.get("trip").message_count == 5
        store.create("new")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(layout.MIGRATIONS),)
        notes = [text for (text,) in db.execute("SELECT text FROM notes ORDER BY rowid")]
        assert notes == ["new; created", "one; two"]


def test_a_migration_that_fails_leaves_the_file_unchanged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def m003_failing(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE notes (text TEXT) STRICT")
        db.execute("INSERT INTO missing VALUES (1)")

    shutil.copy(DATA / "layout-1.db", path)
    before = dump(path)
    with monkeypatch.context() as patch:
        patch.setattr(layout, "MIGRATIONS", (*layout.MIGRATIONS, m003_failing))
        with pytest.raises(StoreUnavailable, match="no such table"):
            SQLiteStore(path)
    assert dump(path) == before
    with SQLiteStore(path, clock=lambda: CREATED_AT) as store:
        assert store.get("trip").message_count == 5


# Ended conversations


TABLES = ("conversations", "messages", "idempotency_keys", "garbage", "entries")


def row_counts(path: Path) -> dict[str, int]:
    """Return the number of rows in each table."""
    with closing(sqlite3.connect(path)) as db:
        return {
            table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES
        }


def dump(path: Path) -> str:
    """Return the contents of all tables as text."""
    with closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump())


def create_private_conversation(
    store: SQLiteStore, conversation_id: str, *, expires_in: timedelta | None
) -> None:
    store.create(
        conversation_id,
        owner="private owner",
        title="private title",
        metadata={"private": "private metadata"},
        expires_in=expires_in,
        idempotency_key="private key of the creation",
    )
    store.append(conversation_id, user_messages("private text"), idempotency_key="private key")
    store.put_entry(conversation_id, "private name", "private value")


def test_nothing_of_a_deleted_conversation_is_in_any_table(store: SQLiteStore, path: Path) -> None:
    create_private_conversation(store, "talk", expires_in=None)
    assert dump(path).count("private") == 8
    store.delete("talk")
    assert "private" not in dump(path)
    # Its id remains for a day, so that the next one of that id has higher revisions.
    assert row_counts(path) == {
        "conversations": 1,
        "messages": 0,
        "idempotency_keys": 0,
        "garbage": 0,
        "entries": 0,
    }


def test_nothing_of_a_deleted_owner_is_in_any_table_including_expired_conversations(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for number in range(3):
        create_private_conversation(store, f"expired {number}", expires_in=HOUR)
    create_private_conversation(store, "live", expires_in=None)
    store.put_entry(None, "private settings", 1, owner="private owner")
    start_conversation(store, "kept", owner="somebody else")
    clock.advance(2 * HOUR)
    assert store.delete_owner("private owner") == 1
    assert "private" not in dump(path)
    assert "kept" in dump(path)


def test_nothing_of_an_expired_conversation_is_in_any_table_once_its_id_is_reused(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    create_private_conversation(store, "talk", expires_in=HOUR)
    clock.advance(2 * HOUR)
    store.append("talk", user_messages("new"))
    assert "private" not in dump(path)
    assert row_counts(path) == {
        "conversations": 1,
        "messages": 1,
        "idempotency_keys": 0,
        "garbage": 0,
        "entries": 0,
    }


@pytest.mark.parametrize("change", ["truncate", "pop", "clear", "replace", "remove"])
def test_nothing_of_a_removed_message_is_in_any_table(
    store: SQLiteStore, path: Path, change: str
) -> None:
    conversation = start_conversation(store, "stays", "private text")
    match change:
        case "truncate":
            store.truncate(conversation.id, after=conversation.seqs[0])
        case "pop":
            store.pop(conversation.id)
        case "clear":
            store.clear(conversation.id)
        case "replace":
            store.replace(conversation.id, conversation.seqs[1], Message.user("better"))
        case "remove":
            store.remove(conversation.id, conversation.seqs[1])
    assert "private" not in dump(path)


def test_expired_conversations_are_freed_as_new_ones_are_created(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for _ in range(30):
        start_conversation(store, "hello", "there", expires_in=HOUR)
    clock.advance(2 * HOUR)
    assert row_counts(path)["messages"] == 60
    for _ in range(3):
        store.create()
    assert row_counts(path)["messages"] == 0
    # A day later, their ids are freed too.
    clock.advance(DAY + HOUR)
    for _ in range(3):
        store.create()
    assert row_counts(path)["conversations"] == 6


def test_a_file_with_short_lived_conversations_does_not_grow(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for _ in range(100):
        conversation = start_conversation(store, "hello", expires_in=timedelta(minutes=30))
        store.append(conversation.id, user_messages("once"), idempotency_key="once")
        clock.advance(HOUR)
    # The ids of one day, and the live conversation.
    assert sum(row_counts(path).values()) <= 30


def test_a_sweep_frees_everything_at_once(store: SQLiteStore, path: Path, clock: Clock) -> None:
    for number in range(120):
        store.append(f"{number}", user_messages("hello"), idempotency_key="key")
        store.delete(f"{number}")
        store.create(f"expires {number}", expires_in=HOUR)
    conversation = start_conversation(store, "stays")
    clock.advance(2 * HOUR)
    assert store.sweep() == 120
    clock.advance(2 * DAY)
    assert store.sweep() == 240
    assert store.sweep() == 0
    assert row_counts(path) == {
        "conversations": 1,
        "messages": 1,
        "idempotency_keys": 0,
        "garbage": 0,
        "entries": 0,
    }
    assert store.get(conversation.id).message_count == 1


# Words


def test_nothing_of_removed_text_is_in_the_index_of_words(store: SQLiteStore, path: Path) -> None:
    messages = user_messages("stays", "private text")

    def start(owner: str = "bob") -> str:
        conversation_id = store.create(owner=owner).id
        store.append(conversation_id, messages)
        assert len(store.search(owner, "private").matches) == 1
        assert "'private'" in dump(path)
        return conversation_id

    for remove in (
        lambda talk: store.truncate(talk, after=1),
        lambda talk: store.pop(talk),
        lambda talk: store.clear(talk),
        lambda talk: store.replace(talk, store.get(talk).revision, Message.user("better")),
        lambda talk: store.remove(talk, store.get(talk).revision),
        lambda talk: store.append(talk, user_messages("better"), truncate_after=2),
        lambda talk: store.delete(talk),
    ):
        remove(start())
        assert "private" not in dump(path), remove
        assert store.search("bob", "private").matches == ()
        assert "private" not in dump(path), remove
    start("eve")
    store.delete_owner("eve")
    assert "private" not in dump(path)


def test_words_of_a_deleted_conversation_are_overwritten_in_the_file(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.append("talk", user_messages("xylophone"), owner="bob")
        assert len(store.search("bob", "xylo").matches) == 1
        store.delete("talk")
    assert b"xylophone" not in path.read_bytes()


def test_words_of_expired_conversations_are_freed_with_them(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    create_private_conversation(store, "talk", expires_in=HOUR)
    assert len(store.search("private owner", "private").matches) == 2
    clock.advance(2 * HOUR)
    store.sweep()
    assert "private" not in dump(path)
    with closing(sqlite3.connect(path)) as db:
        for table in ("words", "word_blocks", "word_indexes"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_words_of_a_long_conversation_are_freed_in_pieces_and_found_no_more(
    patient_store: SQLiteStore, path: Path
) -> None:
    store = patient_store
    fill_conversation(store, "talk", 3_000)
    assert found_in(store, "12") == 1
    store.truncate("talk", after=100)
    assert found_in(store, "12") == 1
    assert found_in(store, "1200") == 0
    store.append("talk", user_messages("1200"))
    assert found_in(store, "1200") == 1
    store.sweep()
    assert found_in(store, "1200") == 1
    assert "'2999'" not in dump(path)
    store.delete("talk")
    store.sweep()
    assert "'1200'" not in dump(path)


def found_in(store: SQLiteStore, query: str) -> int:
    """Return the number of messages of ``talk`` with exactly this text."""
    return sum(match.excerpt == query for match in search_all(store, "bob", query))


def test_a_search_says_how_far_it_came_and_the_next_one_goes_on(
    store: SQLiteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "MAX_ADDING_TRANSACTIONS", 1)
    monkeypatch.setattr(search, "MAX_ADDING_SECONDS", 0)  # as if each message took long
    for number in range(3):
        clock.advance(HOUR)
        store.append(f"{number}", user_messages("hello", "hello"), owner="bob")
    calls, matches, cursor = 0, list[str](), None
    while True:
        found = store.search("bob", "hello", cursor=cursor)
        matches += [match.conversation_id for match in found]
        calls, cursor = calls + 1, found.cursor
        assert found.complete == (cursor is None)
        if cursor is None:
            break
    assert matches == ["2", "2", "1", "1", "0", "0"]
    assert calls > 3
    assert len(store.search("bob", "hello").matches) == 6


def test_a_search_that_finds_enough_adds_no_words_of_older_conversations(
    store: SQLiteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_CONVERSATIONS", 1)
    for number in range(3):
        clock.advance(HOUR)
        store.append(f"{number}", user_messages(f"hello {number}"), owner="bob")
    monkeypatch.setattr(plans, "MAX_ADDING_TRANSACTIONS", 1)
    assert [match.conversation_id for match in store.search("bob", "hello", limit=1)] == ["2"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM word_indexes").fetchone() == (1,)


# Lifetimes


def test_a_conversation_keeps_the_lifetime_of_the_store_that_it_began_in(
    path: Path, clock: Clock
) -> None:
    def expiry_after_append(store: SQLiteStore, conversation_id: str) -> timedelta | None:
        store.append(conversation_id, user_messages("hello"))
        expires_at = store.get(conversation_id).expires_at
        return None if expires_at is None else expires_at - clock()

    with clock.stopped():
        for lifetime, new_id in ((None, "a"), (3 * DAY, "b"), (9 * DAY, "c"), (None, "d")):
            with SQLiteStore(path, expire_after=lifetime, clock=clock) as store:
                assert expiry_after_append(store, new_id) == lifetime
                assert store.fork("a").expires_at is None
                assert expiry_after_append(store, "a") is None
                if new_id != "a":
                    assert expiry_after_append(store, "b") == 3 * DAY
                    assert store.fork("b").expires_at == clock() + 3 * DAY
                    assert store.fork("b", expires_in=HOUR).expires_at == clock() + HOUR
        with SQLiteStore(path, clock=clock) as store:
            assert expiry_after_append(store, "c") == 9 * DAY


# Long deletions


def fill_conversation(store: SQLiteStore, conversation_id: str, messages: int) -> None:
    for start in range(0, messages, 1_000):
        texts = map(str, range(start, min(start + 1_000, messages)))
        store.append(conversation_id, user_messages(*texts), owner="bob")


@pytest.fixture
def patient_store(path: Path, clock: Clock) -> Iterator[SQLiteStore]:
    """A store whose removals free only what one transaction may."""
    with SQLiteStore(path, clock=clock, cleanup=0) as store:
        yield store


KEPT = [str(number) for number in range(10)]
REMOVALS: dict[str, tuple[Callable[[SQLiteStore], object], list[str] | None]] = {
    "delete": (lambda store: store.delete("talk"), None),
    "delete_owner": (lambda store: store.delete_owner("bob"), None),
    "clear": (lambda store: store.clear("talk"), []),
    "truncate": (lambda store: store.truncate("talk", after=10), KEPT),
    "append and truncate": (
        lambda store: store.append("talk", user_messages("new"), truncate_after=10),
        [*KEPT, "new"],
    ),
}
"""Each removal, and the texts that it leaves of 3,500 messages; None if no conversation is left."""


@pytest.mark.parametrize(("remove", "texts"), REMOVALS.values(), ids=REMOVALS)
def test_a_long_removal_is_freed_in_pieces_that_no_reader_sees(
    patient_store: SQLiteStore,
    path: Path,
    remove: Callable[[SQLiteStore], object],
    texts: list[str] | None,
) -> None:
    store = patient_store
    fill_conversation(store, "talk", 3_500)
    remove(store)

    def check() -> None:
        if texts is None:
            with pytest.raises(NotFound):
                store.get("talk")
            return
        tail = store.tail("talk", 1_000)
        assert texts_of(tail.messages) == texts
        assert tail.conversation.message_count == len(texts)
        assert texts_of(store.page("talk").messages) == texts
        backward = store.page("talk", before=tail.conversation.revision + 1).messages
        assert texts_of(backward) == texts[::-1]
        fork = store.fork("talk")
        assert texts_of(store.page(fork.id).messages) == texts
        store.delete(fork.id)
        with pytest.raises(NotFound):
            store.replace("talk", 2_000, Message.user("hidden"))
        with pytest.raises(NotFound):
            store.remove("talk", 2_000)

    # One transaction frees 1,000 rows at most.
    assert row_counts(path)["messages"] >= 2_490
    check()
    # Each later write takes up a small piece.
    before = row_counts(path)["messages"]
    store.append("other", user_messages("hello"))
    assert before - 120 <= row_counts(path)["messages"] < before
    check()
    assert store.sweep() > 2_000
    assert row_counts(path)["garbage"] == 0
    assert row_counts(path)["messages"] == 1 + len(texts or [])
    check()


def test_removed_messages_stay_removed_under_any_further_changes(
    patient_store: SQLiteStore, path: Path
) -> None:
    store = patient_store
    fill_conversation(store, "talk", 2_500)
    store.truncate("talk", after=1_200)  # (1200, 2500] is not freed entirely
    store.append("talk", user_messages("a", "b"))
    assert texts_of(store.tail("talk", 3).messages) == ["1199", "a", "b"]
    assert store.truncate("talk", after=2_000).message_count == 1_200
    store.append("talk", user_messages("c"))
    assert store.truncate("talk", after=100).message_count == 100
    store.append("talk", user_messages("d"))
    assert texts_of(store.tail("talk", 2).messages) == ["99", "d"]
    popped = store.pop("talk", 3)
    assert texts_of(popped) == ["98", "99", "d"]
    assert store.clear("talk").message_count == 0
    assert store.tail("talk", 5).messages == []
    store.sweep()
    assert row_counts(path) == {
        "conversations": 1,
        "messages": 0,
        "idempotency_keys": 0,
        "garbage": 0,
        "entries": 0,
    }


def test_rows_that_are_not_freed_never_appear_in_another_conversation(
    patient_store: SQLiteStore, clock: Clock
) -> None:
    store = patient_store
    fill_conversation(store, "talk", 3_000)
    store.delete("talk")
    clock.advance(2 * DAY)
    for conversation_id in ("first", "second", "talk"):
        store.create(conversation_id)
        store.append(conversation_id, user_messages("hello"))
        assert texts_of(store.tail(conversation_id, 9).messages) == ["hello"]
        store.append(conversation_id, user_messages("x"), idempotency_key="key")


def test_what_a_removal_leaves_is_freed_by_later_appends(
    patient_store: SQLiteStore, path: Path
) -> None:
    store = patient_store
    fill_conversation(store, "talk", 1_500)
    store.delete("talk")
    for _ in range(60):
        store.append("other", user_messages("hello"))
    assert row_counts(path)["garbage"] == 0
    assert row_counts(path)["messages"] == 60


def test_a_removal_frees_all_within_its_time_for_cleanup(store: SQLiteStore, path: Path) -> None:
    fill_conversation(store, "talk", 3_000)
    store.delete("talk")
    assert row_counts(path)["messages"] == 0


def test_owners_with_many_conversations_are_deleted_in_several_transactions(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for number in range(2_500):
        store.append(f"{number}", user_messages("secret"), owner="bob")
    store.create("expired", owner="bob", expires_in=HOUR)
    start_conversation(store, "kept", owner="somebody else")
    clock.advance(HOUR)
    assert store.delete_owner("bob") == 2_500
    assert store.list("bob").conversations == []
    assert store.delete_owner("bob") == 0
    store.sweep()
    assert row_counts(path)["messages"] == 1
    assert "secret" not in dump(path)


def test_starting_a_conversation_frees_a_bounded_number_of_rows(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for number in range(3):
        store.create(f"{number}", expires_in=HOUR)
        store.append(f"{number}", user_messages(*map(str, range(2_000))))
    clock.advance(2 * HOUR)
    store.create("new")
    assert row_counts(path)["messages"] >= 6_000 - 100
    assert store.list("bob").conversations == []


def test_large_entries_are_freed_in_several_transactions(
    store: SQLiteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        store.put_entry(None, f"{number}", "secret", owner="bob", expires_in=HOUR)
    clock.advance(2 * HOUR)
    monkeypatch.setattr(rows, "MAX_FREEING_SECONDS", 0)  # as if each of them took long
    store.create("new")
    assert row_counts(path)["entries"] == 7
    assert store.sweep() == 7
    for number in range(8):
        store.put_entry(None, f"{number}", "secret", owner="bob")
    assert store.delete_owner("bob") == 0
    assert row_counts(path)["entries"] == 0


def test_idempotency_keys_are_freed_as_fast_as_they_come(
    store: SQLiteStore, path: Path, clock: Clock
) -> None:
    for _ in range(20):
        for number in range(10):
            store.append("talk", user_messages("hello"), idempotency_key=f"{clock()} {number}")
        clock.advance(DAY / 2)
    # Those of the last day, and those that the day's appends have not reached yet.
    assert row_counts(path)["idempotency_keys"] <= 40
