"""The layout of a Chatledger file, and the migrations that bring an older file to it."""

import sqlite3

from chatledger.errors import StoreMismatch

APPLICATION_ID = 0x52634C74
"""The application id in the header of our files (``RcLt``), which tells them from those of other
programs; the ``file`` command shows it."""


def m001_initial(db: sqlite3.Connection) -> None:
    """Create the first layout.

    Times are in milliseconds since 1970. Messages refer to their conversation by a short number,
    because its id may have 2,000 bytes. A conversation keeps its row for a day after it ends, so
    that the next one with the same id continues with higher revisions.
    """
    _execute_all(
        db,
        """
        CREATE TABLE conversations (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            owner TEXT,
            title TEXT,
            metadata TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            updated_at INTEGER NOT NULL,
            message_count INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            lifetime INTEGER,
            expires_at INTEGER,
            deleted_at INTEGER
        ) STRICT
        """,
        "CREATE INDEX by_owner ON conversations (owner, updated_at, id) WHERE owner IS NOT NULL",
        "CREATE INDEX by_expiry ON conversations (expires_at) WHERE expires_at IS NOT NULL",
        "CREATE INDEX by_deletion ON conversations (deleted_at) WHERE deleted_at IS NOT NULL",
        """
        CREATE TABLE messages (
            conversation INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            body TEXT NOT NULL,
            UNIQUE (conversation, seq)
        ) STRICT
        """,
        """
        CREATE TABLE idempotency_keys (
            conversation INTEGER NOT NULL,
            key TEXT NOT NULL,
            first_seq INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            created_at INTEGER NOT NULL,
            PRIMARY KEY (conversation, key)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX by_age ON idempotency_keys (created_at)",
    )


def m002_garbage_and_fixed_lifetimes(db: sqlite3.Connection) -> None:
    """Let rows be freed after the write that removed them, and fix the lifetimes.

    A row of ``garbage`` says that the messages of the conversation with a seq higher than ``above``
    and not higher than ``up_to`` are removed, although their rows are not freed yet. Ranges of one
    conversation do not overlap. A range up to ``MAX_REVISION`` means that the conversation has
    ended: its idempotency keys are to be freed too. Numbers in ``garbage`` are not given to other
    conversations.

    Until now, a conversation without a lifetime of its own had that of the store which wrote to it.
    It keeps the one that it had at its last activity.
    """
    _execute_all(
        db,
        """
        CREATE TABLE garbage (
            conversation INTEGER NOT NULL,
            above INTEGER NOT NULL,
            up_to INTEGER NOT NULL,
            PRIMARY KEY (conversation, above)
        ) STRICT, WITHOUT ROWID
        """,
        """
        UPDATE conversations SET lifetime = max(expires_at - updated_at, 1000)
        WHERE lifetime IS NULL AND expires_at IS NOT NULL
        """,
    )


def m003_metadata_revisions_and_fingerprints(db: sqlite3.Connection) -> None:
    """Count changes of title and metadata, and remember the calls that used idempotency keys.

    ``created_by`` is the ``Creation`` of the conversation, as a JSON list. ``call`` is the
    fingerprint of an append; it is empty if that was made before.
    """
    _execute_all(
        db,
        "ALTER TABLE conversations ADD COLUMN metadata_revision INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE conversations ADD COLUMN created_by TEXT",
        "ALTER TABLE idempotency_keys ADD COLUMN call TEXT NOT NULL DEFAULT ''",
    )


def m004_entries(db: sqlite3.Connection) -> None:
    """Keep entries: named JSON values of a conversation, by its number, or of an owner.

    ``entry_revisions`` has the highest revision that any entry of the file has had, so that none
    comes back after the entry, or its conversation, was deleted.
    """
    _execute_all(
        db,
        """
        CREATE TABLE entries (
            conversation INTEGER,
            owner TEXT,
            name TEXT NOT NULL,
            value TEXT NOT NULL,
            revision INTEGER NOT NULL,
            updated_at INTEGER NOT NULL,
            expires_at INTEGER,
            CHECK ((conversation IS NULL) <> (owner IS NULL))
        ) STRICT
        """,
        "CREATE UNIQUE INDEX entries_of_conversation ON entries (conversation, name)"
        " WHERE conversation IS NOT NULL",
        "CREATE UNIQUE INDEX entries_of_owner ON entries (owner, name) WHERE owner IS NOT NULL",
        "CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL",
        "CREATE TABLE entry_revisions (last INTEGER NOT NULL) STRICT",
        "INSERT INTO entry_revisions VALUES (0)",
    )


def m005_words(db: sqlite3.Connection) -> None:
    """Keep the words of messages, for searches, which add them.

    Messages with neighboring seqs are a block; ``seqs`` has a bit for each of them that has the
    word. ``word_blocks`` has the blocks with words, and ``word_indexes`` the seq up to which the
    words of a conversation's messages are kept.
    """
    _execute_all(
        db,
        """
        CREATE TABLE words (
            conversation INTEGER NOT NULL,
            block INTEGER NOT NULL,
            word TEXT NOT NULL,
            seqs INTEGER NOT NULL,
            PRIMARY KEY (conversation, block, word)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE word_blocks (
            conversation INTEGER NOT NULL,
            block INTEGER NOT NULL,
            PRIMARY KEY (conversation, block)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE word_indexes (
            conversation INTEGER PRIMARY KEY,
            up_to INTEGER NOT NULL
        ) STRICT
        """,
    )


MIGRATIONS = (
    m001_initial,
    m002_garbage_and_fixed_lifetimes,
    m003_metadata_revisions_and_fingerprints,
    m004_entries,
    m005_words,
)
"""The migrations in order; a file's layout is the number of those applied to it.

Each is applied to a file once and must never be changed: files that it migrated exist.
"""


def is_current(db: sqlite3.Connection, label: str) -> bool:
    """Return whether the file has the current layout; False for an older layout or an empty file.

    Args:
        db: The open file.
        label: The file as error messages call it, such as ``The file 'chatledger.db'``.

    Raises:
        StoreMismatch: The file is another program's, or was made by a later version.
    """
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (layout,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID:
        if application_id or layout or tables:
            raise StoreMismatch(
                f"{label} is the SQLite database of another program; name another file."
            )
        return False
    if layout > len(MIGRATIONS):
        raise StoreMismatch(
            f"{label} has layout {layout}, made by a later version of Chatledger; this version "
            f"supports layouts up to {len(MIGRATIONS)}. Upgrade Chatledger."
        )
    return bool(layout == len(MIGRATIONS))


def migrate(db: sqlite3.Connection, label: str) -> None:
    """Apply the migrations that the file lacks; must be called within a write transaction."""
    if is_current(db, label):
        return
    (layout,) = db.execute("PRAGMA user_version").fetchone()
    for migration in MIGRATIONS[layout:]:
        migration(db)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _execute_all(db: sqlite3.Connection, *statements: str) -> None:
    # One by one: executescript would commit the transaction first.
    for statement in statements:
        db.execute(statement)
