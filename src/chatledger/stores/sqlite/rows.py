"""The rows of the file: the SQL of every operation, within one transaction."""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

from chatledger.conversations import (
    DEFAULT_DESCRIPTION,
    MAX_REVISION,
    RESERVED_PREFIX,
    Appended,
    Conversation,
    Description,
    fields_of,
)
from chatledger.errors import REVISIONS_TAKEN, AlreadyExists, Conflict, InvalidArgument, NotFound
from chatledger.messages import StoredMessage, decode
from chatledger.stores.cursors import SearchPlace, decode_cursor
from chatledger.stores.idempotency import Creation, check_key_use
from chatledger.stores.sqlite.entries import EntryRows, Scope
from chatledger.stores.sqlite.words import NO_LIMIT, WordRows
from chatledger.values import dumps, milliseconds, to_datetime

RETENTION = 24 * 60 * 60 * 1000
"""How long idempotency keys and revisions of deleted conversations are kept, in milliseconds."""

MAX_FREED_ROWS = 1_000
"""The most rows of removed messages and keys that one transaction frees."""
MAX_FREEING_SECONDS = 0.025
"""After this time, a transaction frees no further rows: long messages take longer than short ones,
because SQLite overwrites them."""

IS_LIVE = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > :time)"
"""The SQL condition for a live conversation."""
IS_VISIBLE = (
    "NOT EXISTS (SELECT 1 FROM garbage WHERE garbage.conversation = messages.conversation"
    " AND seq > above AND seq <= up_to)"
)
"""The SQL condition for a message that was not removed."""


class Column(NamedTuple):
    """How a field of the description is stored in the column with its name."""

    encode: Callable[[Any], str | int | None]
    decode: Callable[[Any], Any]


def _as_it_is(value: Any) -> Any:
    return value


DESCRIPTION_COLUMNS = {"title": Column(_as_it_is, _as_it_is), "metadata": Column(dumps, json.loads)}


def encode_fields(values: Mapping[str, Any]) -> dict[str, str | int | None]:
    """Return what is stored of these fields of a description, by column."""
    return {name: DESCRIPTION_COLUMNS[name].encode(value) for name, value in values.items()}


def assignments_of(columns: Mapping[str, object]) -> str:
    """Return SQL that sets each of the columns to the parameter with its name."""
    return ", ".join(f"{name} = :{name}" for name in columns)


def conversation_from(row: sqlite3.Row) -> Conversation:
    """Return the conversation in the row."""
    return Conversation(
        id=row["id"],
        owner=row["owner"],
        **{name: column.decode(row[name]) for name, column in DESCRIPTION_COLUMNS.items()},
        created_at=to_datetime(row["created_at"]),
        updated_at=to_datetime(row["updated_at"]),
        message_count=row["message_count"],
        revision=row["revision"],
        expires_at=None if row["expires_at"] is None else to_datetime(row["expires_at"]),
        metadata_revision=row["metadata_revision"],
    )


def creation_of(row: sqlite3.Row) -> Creation | None:
    """Return the creation of the conversation in the row, if it was created with a key."""
    return None if row["created_by"] is None else Creation(*json.loads(row["created_by"]))


class Range(NamedTuple):
    """The seqs between two others."""

    after: int
    before: int


class Swept(NamedTuple):
    """The number of entries that were freed, and whether there are more to free."""

    freed: int
    has_more: bool


class Rows:
    """The reads and writes of one transaction.

    Args:
        db: The connection, within a transaction.
        time: The time of the transaction, in milliseconds since 1970.
        default_lifetime: The lifetime (ms) of a conversation that begins without one of its own;
            None if it does not expire.

    Attributes:
        entries: The reads and writes of entries.
        words: The reads and writes of the words of messages.
        left_garbage: True if a removal did not free all of its rows.
    """

    def __init__(self, db: sqlite3.Connection, time: int, *, default_lifetime: int | None) -> None:
        self._db = db
        self.time = time
        self._default_lifetime = default_lifetime
        self.entries = EntryRows(db, time)
        self.words = WordRows(db)
        self.left_garbage = False

    def rewrite_header(self) -> None:
        """Write the version of the layout again, so that the commit has something to write."""
        (layout,) = self._db.execute("PRAGMA user_version").fetchone()
        self._db.execute(f"PRAGMA user_version = {layout}")

    def require_live(self, conversation_id: str, owner: str | None) -> sqlite3.Row:
        """Return the row of the live conversation; raise ``NotFound`` if ``owner`` has none."""
        row = self.find_live(conversation_id)
        if row is None or owner not in (None, row["owner"]):
            raise NotFound(conversation_id)
        return row

    def find_live(self, conversation_id: str) -> sqlite3.Row | None:
        """Return the row of the live conversation, or None."""
        row: sqlite3.Row | None = self._db.execute(
            f"SELECT * FROM conversations WHERE id = :id AND {IS_LIVE}",
            {"id": conversation_id, "time": self.time},
        ).fetchone()
        return row

    def lifetime_for(self, expires_in: timedelta | None) -> int | None:
        """Return the lifetime (ms) of a conversation that begins with ``expires_in``."""
        return self._default_lifetime if expires_in is None else milliseconds(expires_in)

    def create(
        self,
        conversation_id: str,
        *,
        owner: str | None,
        description: Description,
        lifetime: int | None,
        time: int | None = None,
        creation: Creation | None = None,
    ) -> sqlite3.Row:
        """Insert a conversation, at the revision of an earlier one with its id or at 0.

        Args:
            conversation_id: Its id.
            owner: Its owner.
            description: Its description.
            lifetime: Its lifetime in milliseconds; None if it does not expire.
            time: When it was created, if not now.
            creation: The call that creates it, if that has an idempotency key.

        Returns:
            The new row.

        Raises:
            AlreadyExists: A live conversation has this id.
        """
        if self.find_live(conversation_id) is not None:
            raise AlreadyExists(conversation_id)
        earlier = self._db.execute(
            "SELECT number, revision, deleted_at FROM conversations WHERE id = ?",
            (conversation_id,),
        ).fetchone()
        if earlier is not None:
            if earlier["deleted_at"] is None:
                self._end([earlier["number"]])
            self._db.execute("DELETE FROM conversations WHERE number = ?", (earlier["number"],))
        # So that a file that nobody sweeps does not grow without bound.
        self.sweep(entries=10, rows=100)
        row: sqlite3.Row = self._db.execute(
            f"INSERT INTO conversations (number, id, owner, {', '.join(DESCRIPTION_COLUMNS)},"
            " metadata_revision, created_at, updated_at, message_count, revision, lifetime,"
            " created_by)"
            f" VALUES (:number, :id, :owner, :{', :'.join(DESCRIPTION_COLUMNS)}, max(:time, 0),"
            " :time, :time, 0, :revision, :lifetime, :creation) RETURNING *",
            {
                **encode_fields(fields_of(description)),
                "number": self.last_number() + 1,
                "id": conversation_id,
                "owner": owner,
                "time": self.time if time is None else time,
                "revision": 0 if earlier is None else earlier["revision"],
                "lifetime": lifetime,
                "creation": None if creation is None else dumps(creation),
            },
        ).fetchone()
        return row

    def claim(self, row: sqlite3.Row, owner: str) -> sqlite3.Row:
        """Give the conversation this owner; return the row."""
        self._db.execute(
            "UPDATE conversations SET owner = ? WHERE number = ?", (owner, row["number"])
        )
        return self.advance(row)

    def advance(self, row: sqlite3.Row, *, by: int = 1, count: int = 0) -> sqlite3.Row:
        """Record a change of the conversation's messages, which renews its expiry.

        Args:
            row: The conversation.
            by: How far its revision moves up.
            count: How many messages it gains; negative if it loses some.

        Returns:
            The row as changed.
        """
        lifetime = row["lifetime"]
        # If the clock was set back, activity must not move the conversation down the list.
        updated_at = max(self.time, row["updated_at"])
        changed: sqlite3.Row = self._db.execute(
            "UPDATE conversations SET revision = revision + ?, message_count = message_count + ?,"
            " updated_at = ?, expires_at = ? WHERE number = ? RETURNING *",
            (by, count, updated_at, lifetime and self.time + lifetime, row["number"]),
        ).fetchone()
        return changed

    def append(self, row: sqlite3.Row, bodies: Sequence[str]) -> Appended:
        """Insert messages after the conversation's last revision."""
        first = row["revision"] + 1
        self._insert_messages(row, bodies, first)
        revision = self.advance(row, by=len(bodies), count=len(bodies))["revision"]
        # More than was added, so that what removals leave does not stay for ever.
        self._free(len(bodies) + 10)
        return Appended(range(first, revision + 1), revision)

    def restore(
        self,
        row: sqlite3.Row,
        bodies: Sequence[str],
        *,
        first: int,
        revision: int,
        updated_at: int,
        expires_at: int | None,
    ) -> Conversation:
        """Insert messages from seq ``first`` on, set the row's other values, and return the result.

        The expiry is ``expires_at`` if the conversation expires and that is not None.

        Raises:
            Conflict: An earlier conversation with this id has taken these numbers.
        """
        if row["revision"] >= (first if bodies else revision):
            raise Conflict(
                row["id"], expected=first - 1, revision=row["revision"], advice=REVISIONS_TAKEN
            )
        self._insert_messages(row, bodies, first)
        lifetime = row["lifetime"]
        if lifetime is None:
            expires_at = None
        elif expires_at is None:
            expires_at = self.time + lifetime
        changed = self._db.execute(
            "UPDATE conversations SET revision = ?, message_count = message_count + ?,"
            " updated_at = ?, expires_at = ? WHERE number = ? RETURNING *",
            (revision, len(bodies), max(updated_at, row["updated_at"]), expires_at, row["number"]),
        ).fetchone()
        return conversation_from(changed)

    def _insert_messages(self, row: sqlite3.Row, bodies: Sequence[str], first: int) -> None:
        self._db.executemany(
            "INSERT INTO messages (conversation, seq, body) VALUES (?, ?, ?)",
            ((row["number"], seq, body) for seq, body in enumerate(bodies, first)),
        )

    def copy_messages(self, source: sqlite3.Row, target: sqlite3.Row, *, at: int) -> sqlite3.Row:
        """Copy the messages of ``source`` whose seq is at most ``at``; return the target's row."""
        copied = self._db.execute(
            "INSERT INTO messages (conversation, seq, body)"
            " SELECT ?, ? + row_number() OVER (ORDER BY seq), body"
            f" FROM messages WHERE conversation = ? AND seq <= ? AND {IS_VISIBLE}",
            (target["number"], target["revision"], source["number"], at),
        ).rowcount
        return self.advance(target, by=copied, count=copied)

    def replace(self, row: sqlite3.Row, seq: int, body: str) -> sqlite3.Row:
        """Replace the message at ``seq``; raise ``NotFound`` if there is none."""
        replaced = self._db.execute(
            f"UPDATE messages SET body = ? WHERE conversation = ? AND seq = ? AND {IS_VISIBLE}",
            (body, row["number"], seq),
        ).rowcount
        if not replaced:
            raise NotFound(row["id"], seq=seq)
        self.words.forget(row["number"], seq)
        return self.advance(row)

    def remove(self, row: sqlite3.Row, seq: int) -> sqlite3.Row:
        """Remove the message at ``seq``; raise ``NotFound`` if there is none."""
        removed = self._db.execute(
            f"DELETE FROM messages WHERE conversation = ? AND seq = ? AND {IS_VISIBLE}",
            (row["number"], seq),
        ).rowcount
        if not removed:
            raise NotFound(row["id"], seq=seq)
        self.words.forget(row["number"], seq)
        return self.advance(row, count=-1)

    def truncate(self, row: sqlite3.Row, *, after: int) -> sqlite3.Row:
        """Remove the messages after ``after``; return the row, unchanged if there are none."""
        number = row["number"]
        removed = 0
        for visible in self._visible_ranges(number, after, MAX_REVISION):
            (count,) = self._db.execute(
                "SELECT count(*) FROM messages WHERE conversation = ? AND seq > ? AND seq < ?",
                (number, *visible),
            ).fetchone()
            removed += count
        if not removed:
            return row
        (above,) = self._db.execute(
            "SELECT min(above) FROM garbage WHERE conversation = ? AND up_to > ?", (number, after)
        ).fetchone()
        above = after if above is None else min(above, after)
        self._db.execute(
            "DELETE FROM garbage WHERE conversation = ? AND up_to > ?", (number, after)
        )
        self._db.execute("INSERT INTO garbage VALUES (?, ?, ?)", (number, above, row["revision"]))
        self._free_now(number)
        return self.advance(row, count=-removed)

    def last_messages(self, row: sqlite3.Row, n: int, *, most_bytes: float) -> list[StoredMessage]:
        """Return the last ``n`` messages, oldest first, or fewer as ``messages_between`` does."""
        found, _ = self.messages_between(
            row, after=0, before=MAX_REVISION, limit=n, most_bytes=most_bytes, backward=True
        )
        return found[::-1]

    def messages_between(
        self,
        row: sqlite3.Row,
        *,
        after: int,
        before: int,
        limit: int,
        most_bytes: float,
        backward: bool = False,
    ) -> tuple[list[StoredMessage], bool]:
        """Return messages between the two seqs, and whether there are more of them.

        Args:
            row: The conversation.
            after: Only messages with a higher seq.
            before: Only messages with a lower seq.
            limit: The most messages to return.
            most_bytes: The most bytes of JSON to return, but one message in any case.
            backward: Whether to return the last ones first.
        """
        found: list[StoredMessage] = []
        ranges = self._visible_ranges(row["number"], after, before)
        for visible in reversed(ranges) if backward else ranges:
            # Read one by one, because they may not all fit into memory.
            for seq, body in self._db.execute(
                "SELECT seq, body FROM messages WHERE conversation = ? AND seq > ? AND seq < ?"
                f" ORDER BY seq {'DESC' if backward else 'ASC'} LIMIT ?",
                (row["number"], *visible, limit - len(found) + 1),
            ):
                most_bytes -= len(body) if body.isascii() else len(body.encode())
                if len(found) == limit or (found and most_bytes < 0):
                    return found, True
                found.append(decode(body, seq=seq))
        return found, False

    def conversations_of(
        self, owner: str, place: SearchPlace, *, lacking_words: bool = False, limit: int = NO_LIMIT
    ) -> sqlite3.Cursor:
        """Return the rows of the conversations from ``place`` on, most recently active first.

        Each has in ``up_to`` the seq up to which the words of its messages are kept, if any are.

        Args:
            owner: The owner.
            place: Where to begin.
            lacking_words: Return only conversations some of whose words may not be kept.
            limit: The most conversations to return.
        """
        return self._db.execute(
            "SELECT conversations.*, up_to FROM conversations"
            " LEFT JOIN word_indexes ON conversation = number"
            f" WHERE owner = :owner AND {IS_LIVE}"
            f" AND (updated_at, id) {'<' if place.before is None else '<='} (:updated_at, :id)"
            " AND substr(id, 1, length(:reserved)) <> :reserved"
            f"{' AND up_to IS NOT revision' if lacking_words else ''}"
            " ORDER BY updated_at DESC, id DESC LIMIT :limit",
            {
                "owner": owner,
                "time": self.time,
                "updated_at": place.updated_at,
                "id": place.conversation_id,
                "reserved": RESERVED_PREFIX,
                "limit": limit,
            },
        )

    def bodies_after(self, number: int, seq: int) -> sqlite3.Cursor:
        """Return the seqs and bodies of the messages after ``seq``, in order."""
        return self._db.execute(
            f"SELECT seq, body FROM messages WHERE conversation = ? AND seq > ? AND {IS_VISIBLE}"
            " ORDER BY seq",
            (number, seq),
        )

    def find_message(self, number: int, seq: int) -> StoredMessage | None:
        """Return the message of the conversation, or None if there is none with this seq."""
        row = self._db.execute(
            f"SELECT body FROM messages WHERE conversation = ? AND seq = ? AND {IS_VISIBLE}",
            (number, seq),
        ).fetchone()
        return None if row is None else decode(row["body"], seq=seq)

    def all_conversations(self, *, limit: int, cursor: str | None) -> list[sqlite3.Row]:
        """Return at most ``limit`` conversations after ``cursor``, in order of creation."""
        number, conversation_id = (0, "") if cursor is None else decode_cursor(cursor)
        if conversation_id:  # a list's cursor
            raise InvalidArgument("cursor does not come from a scan; scan again without a cursor.")
        return self._db.execute(
            f"SELECT * FROM conversations WHERE number > :number AND {IS_LIVE}"
            " ORDER BY number LIMIT :limit",
            {"number": number, "time": self.time, "limit": limit},
        ).fetchall()

    def update(self, row: sqlite3.Row, changes: Mapping[str, Any]) -> sqlite3.Row:
        """Set these fields of the description, at least one; return the row."""
        columns = encode_fields(changes)
        changed: sqlite3.Row = self._db.execute(
            f"UPDATE conversations SET {assignments_of(columns)},"
            " metadata_revision = max(metadata_revision + 1, :time) WHERE number = :number"
            " RETURNING *",
            {**columns, "time": self.time, "number": row["number"]},
        ).fetchone()
        return changed

    def save_result(self, row: sqlite3.Row, key: str, call: str, appended: Appended) -> None:
        """Save the result of the append with this idempotency key and fingerprint."""
        self._db.execute(
            "INSERT INTO idempotency_keys"
            " (conversation, key, call, first_seq, revision, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (row["number"], key, call, appended.seqs[0], appended.revision, self.time),
        )
        self._free_old_keys(2)  # more than was added

    def saved_result(self, row: sqlite3.Row, key: str, call: str) -> Appended | None:
        """Return the result of the append with this idempotency key, or None if it is new.

        Raises:
            KeyReused: That append had another fingerprint.
        """
        saved = self._db.execute(
            "SELECT call, first_seq, revision FROM idempotency_keys"
            " WHERE conversation = ? AND key = ?",
            (row["number"], key),
        ).fetchone()
        if saved is None:
            return None
        seqs = range(saved["first_seq"], saved["revision"] + 1)
        check_key_use(saved["call"], call, seqs=seqs)
        return Appended(seqs, saved["revision"])

    def delete(self, number: int) -> None:
        """Delete the conversation, except for its id and revision."""
        self._end([number])
        self._free_now(number)

    def delete_owned(self, owner: str, *, up_to: int) -> tuple[int, bool]:
        """Delete conversations of ``owner``, also expired ones, with numbers up to ``up_to``.

        The owner's entries are deleted too.

        Returns:
            How many live ones were deleted, and whether there are more of either.
        """
        owned = self._db.execute(
            f"SELECT number, {IS_LIVE} AS is_live FROM conversations"
            " WHERE owner = :owner AND number <= :up_to LIMIT :limit",
            {"owner": owner, "up_to": up_to, "time": self.time, "limit": MAX_FREED_ROWS},
        ).fetchall()
        self._end([row["number"] for row in owned])
        entries = _free_in_steps(partial(self.entries.free, Scope("owner", owner)), MAX_FREED_ROWS)
        has_more = len(owned) == MAX_FREED_ROWS or entries.has_more
        self.left_garbage = has_more or self.free()
        return sum(row["is_live"] for row in owned), has_more

    def sweep(self, *, entries: int, rows: int) -> Swept:
        """Free the space of ended conversations, of old keys and of expired entries.

        Args:
            entries: The most conversations, ids, keys and entries to free.
            rows: The most rows of removed messages to free.
        """
        expired = self._db.execute(
            "SELECT number FROM conversations WHERE expires_at <= ? LIMIT ?", (self.time, entries)
        ).fetchall()
        self._end([number for (number,) in expired])
        ids = self._db.execute(
            "DELETE FROM conversations WHERE number IN"
            " (SELECT number FROM conversations WHERE deleted_at < ? LIMIT ?)",
            (self.time - RETENTION, entries),
        ).rowcount
        keys = self._free_old_keys(entries)
        values = _free_in_steps(self.entries.free_expired, entries)
        freed = len(expired) + ids + keys + values.freed + self._free(rows)
        has_more = entries in (len(expired), ids, keys) or values.has_more or self.has_garbage()
        return Swept(freed, has_more)

    def free(self) -> bool:
        """Free rows of removed messages and keys; return whether there are more."""
        self._free(MAX_FREED_ROWS)
        return self.has_garbage()

    def has_garbage(self) -> bool:
        """Return whether there are rows of removed messages or keys."""
        return self._db.execute("SELECT 1 FROM garbage LIMIT 1").fetchone() is not None

    def last_number(self) -> int:
        """Return the highest number of a conversation, or 0; the next one gets a higher one."""
        # Also higher than those whose rows are not freed yet, which would appear in it.
        numbers = self._db.execute(
            "SELECT max(number) FROM conversations UNION ALL SELECT max(conversation) FROM garbage"
        )
        return max(number or 0 for (number,) in numbers)

    def _end(self, numbers: Sequence[int]) -> None:
        """Remove the conversations for readers; their rows are freed later."""
        columns = encode_fields(fields_of(DEFAULT_DESCRIPTION))
        self._db.executemany(
            f"UPDATE conversations SET {assignments_of(columns)}, deleted_at = :time,"
            " expires_at = NULL, owner = NULL, message_count = 0, created_by = NULL"
            " WHERE number = :number",
            ({**columns, "time": self.time, "number": number} for number in numbers),
        )
        self._db.executemany(
            "DELETE FROM garbage WHERE conversation = ?", ((number,) for number in numbers)
        )
        self._db.executemany(
            "INSERT INTO garbage VALUES (?, 0, ?)", ((number, MAX_REVISION) for number in numbers)
        )

    def _visible_ranges(self, number: int, after: int, before: int) -> list[Range]:
        """Return the ranges between the two seqs in which no message was removed, in order."""
        ranges = []
        for above, up_to in self._db.execute(
            "SELECT above, up_to FROM garbage WHERE conversation = ? ORDER BY above", (number,)
        ):
            ranges.append(Range(after, min(before, above + 1)))
            after = max(after, up_to)
        ranges.append(Range(after, before))
        return [each for each in ranges if each.before - each.after > 1]

    def _free_now(self, number: int) -> None:
        """Free the removed rows of the conversation, as far as one transaction may."""
        self._free(MAX_FREED_ROWS, number)
        left = self._db.execute("SELECT 1 FROM garbage WHERE conversation = ?", (number,))
        self.left_garbage = self.left_garbage or left.fetchone() is not None

    def _free(self, limit: int, number: int | None = None) -> int:
        """Free rows of removed messages and keys, at most about ``limit``; return how many.

        Args:
            limit: The most rows to free.
            number: Free those of this conversation only.
        """
        where = "" if number is None else "WHERE conversation = :number"
        freed, step, end = 0, 1, monotonic() + MAX_FREEING_SECONDS
        while limit > 0 and monotonic() < end:
            garbage = self._db.execute(
                f"SELECT * FROM garbage {where} LIMIT 1", {"number": number}
            ).fetchone()
            if garbage is None:
                break
            # In growing steps, because the first ones tell how long a row takes.
            step = min(step, limit)
            rows = self._free_rows(garbage, step)
            if rows < step:
                self._db.execute(
                    "DELETE FROM garbage WHERE conversation = ? AND above = ?", garbage[:2]
                )
            freed += rows
            limit -= max(rows, 1)
            step *= 4
        return freed

    def _free_rows(self, garbage: sqlite3.Row, limit: int) -> int:
        """Free at most ``limit`` rows of the range; return how many, fewer if it is empty then."""
        freed = self._db.execute(
            "DELETE FROM messages WHERE rowid IN (SELECT rowid FROM messages"
            " WHERE conversation = ? AND seq > ? AND seq <= ? LIMIT ?)",
            (*garbage, limit),
        ).rowcount
        freed += self.words.free(
            garbage["conversation"],
            above=garbage["above"],
            up_to=garbage["up_to"],
            limit=limit - freed,
        )
        if freed < limit and garbage["up_to"] == MAX_REVISION:
            scope = Scope("conversation", garbage["conversation"])
            freed += self.entries.free(scope, limit - freed)
            freed += self._db.execute(
                "DELETE FROM idempotency_keys WHERE (conversation, key) IN (SELECT conversation,"
                " key FROM idempotency_keys WHERE conversation = ? LIMIT ?)",
                (garbage["conversation"], limit - freed),
            ).rowcount
        return freed

    def _free_old_keys(self, limit: int) -> int:
        """Free at most ``limit`` idempotency keys that are older than a day; return how many."""
        return self._db.execute(
            "DELETE FROM idempotency_keys WHERE (conversation, key) IN"
            " (SELECT conversation, key FROM idempotency_keys WHERE created_at < ? LIMIT ?)",
            (self.time - RETENTION, limit),
        ).rowcount


def _free_in_steps(free: Callable[[int], int], limit: int) -> Swept:
    """Free entries by ``free``, which takes the most to free and returns how many it has freed.

    At most ``limit`` are freed, in growing steps, because the first ones tell how long one takes.
    """
    freed, step, end = 0, 1, monotonic() + MAX_FREEING_SECONDS
    while True:
        count = free(step)
        freed += count
        if count < step:
            return Swept(freed, has_more=False)
        if freed == limit or monotonic() > end:
            return Swept(freed, has_more=True)
        step = min(step * 4, limit - freed)


def require_revision(
    row: sqlite3.Row, revision: int | None, metadata_revision: int | None = None
) -> None:
    """Raise ``Conflict`` unless the conversation has these revisions; None fits any."""
    if revision is not None and row["revision"] != revision:
        raise Conflict(row["id"], expected=revision, revision=row["revision"])
    if metadata_revision is not None and row["metadata_revision"] != metadata_revision:
        raise Conflict(
            row["id"],
            expected=metadata_revision,
            revision=row["metadata_revision"],
            of_metadata=True,
        )
