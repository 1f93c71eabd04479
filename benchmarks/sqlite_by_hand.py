"""Hand-written code for the work of the SQLite store: sqlite3 and json, without any checks.

It has the rows, the transactions and the durability of Chatledger's file, like the code that a
careful programmer would write for one application.
"""

import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any


class SQLiteByHand:
    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        self._db.close()

    def append(self, conversation_id: str, texts: Sequence[str]) -> int:
        now = datetime.now(UTC)
        bodies = [
            json.dumps(
                {
                    "role": "user",
                    "content": text,
                    "id": str(uuid.uuid4()),
                    "created_at": now.isoformat(),
                }
            )
            for text in texts
        ]
        with self._transaction("BEGIN IMMEDIATE") as db:
            number, revision = db.execute(
                "SELECT number, revision FROM conversations WHERE id = ?", (conversation_id,)
            ).fetchone()
            db.executemany(
                "INSERT INTO messages (conversation, seq, body) VALUES (?, ?, ?)",
                ((number, seq, body) for seq, body in enumerate(bodies, revision + 1)),
            )
            db.execute(
                "UPDATE conversations SET revision = revision + ?,"
                " message_count = message_count + ?, updated_at = ? WHERE number = ?",
                (len(bodies), len(bodies), int(now.timestamp() * 1000), number),
            )
        return int(revision) + len(bodies)

    def tail(self, conversation_id: str, n: int) -> tuple[Any, list[dict[str, Any]]]:
        with self._transaction("BEGIN") as db:
            conversation = db.execute(
                "SELECT * FROM conversations WHERE id = ?", (conversation_id,)
            ).fetchone()
            bodies = db.execute(
                "SELECT seq, body FROM messages WHERE conversation = ? ORDER BY seq DESC LIMIT ?",
                (conversation[0], n),
            ).fetchall()
        return conversation, [{"seq": seq} | json.loads(body) for seq, body in reversed(bodies)]

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute(begin)
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
