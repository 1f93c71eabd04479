"""The rows of a file within one transaction, at one moment."""

import sqlite3
from collections.abc import Sequence

from chatledger.conversations import LAST_REVISION, NUMBERS_TAKEN, Appended, Conversation
from chatledger.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from chatledger.messages import Message, decode
from chatledger.stores.cursors import decode_cursor
from chatledger.stores.sqlite.values import conversation

DAY = 24 * 60 * 60 * 1000
"""How long the revisions of an ended conversation, and idempotency keys, are kept: in ms."""

SHOWN = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > :time)"
"""The condition of SQL for a conversation that lives."""


class Rows:
    """What a transaction reads and changes; ``time`` is its moment in ms since 1970."""

    def __init__(self, db: sqlite3.Connection, time: int, default_lifetime: int | None) -> None:
        self.db = db
        self.time = time
        self._default_lifetime = default_lifetime

    def living(self, conversation_id: str, owner: str | None) -> sqlite3.Row:
        """The conversation's row. Raises ``NotFound``, also where it is somebody else's."""
        row = self.find(conversation_id)
        if row is None or owner not in (None, row["owner"]):
            raise NotFound(conversation_id)
        return row

    def find(self, conversation_id: str) -> sqlite3.Row | None:
        """The conversation's row where it lives."""
        row: sqlite3.Row | None = self.db.execute(
            f"SELECT * FROM conversations WHERE id = :id AND {SHOWN}",
            {"id": conversation_id, "time": self.time},
        ).fetchone()
        return row

    def start(
        self,
        conversation_id: str,
        *,
        owner: str | None,
        title: str | None = None,
        metadata: str = "{}",
        lifetime: int | None = None,
        time: int | None = None,
    ) -> sqlite3.Row:
        """A new conversation, with higher revisions than a former one of that id.

        ``time`` is when it was created, where that is not now.
        """
        if self.find(conversation_id) is not None:
            raise AlreadyExists(conversation_id)
        # A file that nobody sweeps frees the ended as new ones start, and does not grow for ever.
        self.free(limit=10)
        former = self.db.execute(
            "SELECT number, revision FROM conversations WHERE id = ?", (conversation_id,)
        ).fetchone()
        if former is not None:
            self.end(former["number"])
            self.db.execute("DELETE FROM conversations WHERE number = ?", (former["number"],))
        row: sqlite3.Row = self.db.execute(
            "INSERT INTO conversations (id, owner, title, metadata, created_at, updated_at,"
            " message_count, revision, lifetime)"
            " VALUES (:id, :owner, :title, :metadata, :time, :time, 0, :revision, :lifetime)"
            " RETURNING *",
            {
                "id": conversation_id,
                "owner": owner,
                "title": title,
                "metadata": metadata,
                "time": self.time if time is None else time,
                "revision": 0 if former is None else former["revision"],
                "lifetime": lifetime,
            },
        ).fetchone()
        return row

    def moved(self, row: sqlite3.Row, *, by: int = 1, count: int = 0) -> sqlite3.Row:
        """The row after a change of its messages: higher by ``by``, with ``count`` messages more.

        Its life is extended.
        """
        lifetime = row["lifetime"] or self._default_lifetime
        # A clock that was set back must not let activity sink in the list.
        updated_at = max(self.time, row["updated_at"])
        changed: sqlite3.Row = self.db.execute(
            "UPDATE conversations SET revision = revision + ?, message_count = message_count + ?,"
            " updated_at = ?, expires_at = ? WHERE number = ? RETURNING *",
            (by, count, updated_at, lifetime and self.time + lifetime, row["number"]),
        ).fetchone()
        return changed

    def add(self, row: sqlite3.Row, bodies: Sequence[str]) -> Appended:
        """Put the messages behind the last one."""
        first = row["revision"] + 1
        self.db.executemany(
            "INSERT INTO messages (conversation, seq, body) VALUES (?, ?, ?)",
            ((row["number"], seq, body) for seq, body in enumerate(bodies, first)),
        )
        revision = self.moved(row, by=len(bodies), count=len(bodies))["revision"]
        return Appended(range(first, revision + 1), revision)

    def put_back(
        self,
        row: sqlite3.Row,
        bodies: Sequence[str],
        *,
        first: int,
        revision: int,
        updated_at: int,
        expires_at: int | None,
        lifetime: int | None,
    ) -> Conversation:
        """The conversation with the messages from seq ``first`` on, standing at ``revision``.

        Raises ``Conflict`` where a former conversation of that id has taken these numbers.
        """
        if row["revision"] >= (first if bodies else revision):
            raise Conflict(
                row["id"], expected=first - 1, revision=row["revision"], advice=NUMBERS_TAKEN
            )
        self.db.executemany(
            "INSERT INTO messages (conversation, seq, body) VALUES (?, ?, ?)",
            ((row["number"], seq, body) for seq, body in enumerate(bodies, first)),
        )
        if expires_at is None and self._default_lifetime:
            expires_at = self.time + self._default_lifetime
        changed = self.db.execute(
            "UPDATE conversations SET revision = ?, message_count = message_count + ?,"
            " updated_at = ?, expires_at = ?, lifetime = ? WHERE number = ? RETURNING *",
            (
                revision,
                len(bodies),
                max(updated_at, row["updated_at"]),
                expires_at,
                lifetime,
                row["number"],
            ),
        ).fetchone()
        return conversation(changed)

    def copy(self, source: sqlite3.Row, target: sqlite3.Row, *, at: int) -> sqlite3.Row:
        """``target`` with the messages of ``source`` up to and with ``at``."""
        copied = self.db.execute(
            "INSERT INTO messages (conversation, seq, body)"
            " SELECT ?, ? + row_number() OVER (ORDER BY seq), body"
            " FROM messages WHERE conversation = ? AND seq <= ?",
            (target["number"], target["revision"], source["number"], at),
        ).rowcount
        return self.moved(target, by=copied, count=copied)

    def put(self, row: sqlite3.Row, seq: int, body: str) -> sqlite3.Row:
        """The row with another message at ``seq``. Raises ``NotFound`` where there is none."""
        replaced = self.db.execute(
            "UPDATE messages SET body = ? WHERE conversation = ? AND seq = ?",
            (body, row["number"], seq),
        ).rowcount
        if not replaced:
            raise NotFound(row["id"], seq=seq)
        return self.moved(row)

    def cut(self, row: sqlite3.Row, *, after: int) -> sqlite3.Row:
        """The row without the messages behind ``after``; unchanged where there are none."""
        removed = self.db.execute(
            "DELETE FROM messages WHERE conversation = ? AND seq > ?", (row["number"], after)
        ).rowcount
        return self.moved(row, count=-removed) if removed else row

    def last(self, row: sqlite3.Row, n: int) -> list[Message]:
        """The last ``n`` messages, oldest first."""
        return self.stretch(row, after=0, before=LAST_REVISION, limit=n, order="DESC")[::-1]

    def stretch(
        self, row: sqlite3.Row, *, after: int, before: int, limit: int, order: str
    ) -> list[Message]:
        """At most ``limit`` messages between the two, ``ASC`` or ``DESC``."""
        found = self.db.execute(
            "SELECT seq, body FROM messages WHERE conversation = ? AND seq > ? AND seq < ?"
            f" ORDER BY seq {order} LIMIT ?",
            (row["number"], after, before, limit),
        )
        return [decode(body, seq=seq) for seq, body in found]

    def owned(self, owner: str, *, limit: int, cursor: str | None) -> list[sqlite3.Row]:
        """At most ``limit`` conversations of ``owner`` behind ``cursor``, newest activity first."""
        start = (LAST_REVISION, "") if cursor is None else decode_cursor(cursor)
        return self.db.execute(
            f"SELECT * FROM conversations WHERE owner = :owner AND {SHOWN}"
            " AND (updated_at, id) < (:updated_at, :id)"
            " ORDER BY updated_at DESC, id DESC LIMIT :limit",
            {
                "owner": owner,
                "time": self.time,
                "updated_at": start[0],
                "id": start[1],
                "limit": limit,
            },
        ).fetchall()

    def every(self, *, limit: int, cursor: str | None) -> list[sqlite3.Row]:
        """At most ``limit`` conversations behind ``cursor``, in the order in which they began."""
        number, mark = (0, "") if cursor is None else decode_cursor(cursor)
        if mark:
            raise InvalidArgument("cursor is not one that a scan gave; start again without one.")
        return self.db.execute(
            f"SELECT * FROM conversations WHERE number > :number AND {SHOWN}"
            " ORDER BY number LIMIT :limit",
            {"number": number, "time": self.time, "limit": limit},
        ).fetchall()

    def described(self, row: sqlite3.Row, title: str | None, metadata: str) -> sqlite3.Row:
        """The row with that title and metadata."""
        changed: sqlite3.Row = self.db.execute(
            "UPDATE conversations SET title = ?, metadata = ? WHERE number = ? RETURNING *",
            (title, metadata, row["number"]),
        ).fetchone()
        return changed

    def remember(self, row: sqlite3.Row, key: str, appended: Appended) -> None:
        """Keep what the append with that idempotency key answered."""
        self.db.execute(
            "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?)",
            (row["number"], key, appended.seqs[0], appended.revision, self.time),
        )

    def remembered(self, row: sqlite3.Row, key: str) -> Appended | None:
        """What the append with that idempotency key answered."""
        done = self.db.execute(
            "SELECT first_seq, revision FROM idempotency_keys WHERE conversation = ? AND key = ?",
            (row["number"], key),
        ).fetchone()
        if done is None:
            return None
        return Appended(range(done["first_seq"], done["revision"] + 1), done["revision"])

    def end(self, number: int) -> int:
        """Empty the conversation and leave its id and revision; how many entries that freed."""
        freed = 0
        for table in ("messages", "idempotency_keys"):
            freed += self.db.execute(
                f"DELETE FROM {table} WHERE conversation = ?", (number,)
            ).rowcount
        self.db.execute(
            "UPDATE conversations SET deleted_at = :time, expires_at = NULL, owner = NULL,"
            " title = NULL, metadata = '{}', message_count = 0 WHERE number = :number",
            {"number": number, "time": self.time},
        )
        return freed

    def end_owned(self, owner: str) -> int:
        """End all conversations of ``owner``, expired ones too; how many lived."""
        owned = self.db.execute(
            f"SELECT number, {SHOWN} AS lived FROM conversations WHERE owner = :owner",
            {"owner": owner, "time": self.time},
        ).fetchall()
        for row in owned:
            self.end(row["number"])
        return sum(row["lived"] for row in owned)

    def free(self, *, limit: int) -> int:
        """Free what at most ``limit`` ended conversations and old keys take; how many entries."""
        expired = self.db.execute(
            "SELECT number FROM conversations WHERE expires_at <= ? LIMIT ?", (self.time, limit)
        ).fetchall()
        freed = sum(1 + self.end(number) for (number,) in expired)
        forgotten = self.time - DAY
        freed += self.db.execute(
            "DELETE FROM conversations WHERE number IN"
            " (SELECT number FROM conversations WHERE deleted_at < ? LIMIT ?)",
            (forgotten, limit),
        ).rowcount
        freed += self.db.execute(
            "DELETE FROM idempotency_keys WHERE (conversation, key) IN"
            " (SELECT conversation, key FROM idempotency_keys WHERE created_at < ? LIMIT ?)",
            (forgotten, limit),
        ).rowcount
        return freed


def check_stands_at(row: sqlite3.Row, revision: int | None) -> None:
    """Raise ``Conflict`` unless the conversation stands at ``revision``, where one is given."""
    if revision is not None and row["revision"] != revision:
        raise Conflict(row["id"], expected=revision, revision=row["revision"])
