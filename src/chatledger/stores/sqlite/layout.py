"""What a Chatledger file looks like inside, and how an older one becomes today's."""

import sqlite3

from chatledger.errors import StoreMismatch

APPLICATION_ID = 0x52634C74
"""``RcLt`` in the file's header: what tells our files from other programs' (``file`` shows it)."""

# Each migration is applied once, in order, and stays as it is for ever: files made by it exist.
MIGRATIONS = (
    # 1: the first layout. A conversation keeps its row for a day after its end, so that the next
    # one of that id goes on with higher revisions. Times are milliseconds since 1970. Messages are
    # found by a short number, not by an id that may have 2,000 bytes.
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
    ) STRICT;
    CREATE INDEX by_owner ON conversations (owner, updated_at, id) WHERE owner IS NOT NULL;
    CREATE INDEX by_expiry ON conversations (expires_at) WHERE expires_at IS NOT NULL;
    CREATE INDEX by_deletion ON conversations (deleted_at) WHERE deleted_at IS NOT NULL;
    CREATE TABLE messages (
        conversation INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (conversation, seq)
    ) STRICT;
    CREATE TABLE idempotency_keys (
        conversation INTEGER NOT NULL,
        key TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        PRIMARY KEY (conversation, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX by_age ON idempotency_keys (created_at);
    """,
)


def is_current(db: sqlite3.Connection, place: str) -> bool:
    """Whether the file has today's layout; False for an older one or an empty file.

    Raises ``StoreMismatch`` for a file that is another program's, or a later version's.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID:
        if application or version or tables:
            raise StoreMismatch(
                f"{place} is the SQLite database of another program; name another file."
            )
        return False
    if version > len(MIGRATIONS):
        raise StoreMismatch(
            f"{place} has layout {version}, made by a later version of Chatledger; this one knows "
            f"layouts up to {len(MIGRATIONS)}. Upgrade Chatledger."
        )
    return bool(version == len(MIGRATIONS))


def migrate(db: sqlite3.Connection, place: str) -> None:
    """Bring the file to today's layout. To be called within a write transaction."""
    if is_current(db, place):
        return
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for migration in MIGRATIONS[version:]:
        # executescript would commit first.
        for statement in migration.split(";"):
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
