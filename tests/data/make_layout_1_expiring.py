"""The script that made ``layout-1-expiring.db``: ``python make_layout_1_expiring.py FILE``.

It ran with the last version of layout 1, in which a conversation without a lifetime of its own had
that of the store it was last written with. Do not run it again: the file is one that a user of that
version may have, and every later version must read it.
"""

import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

from chatledger import Message
from chatledger.stores.sqlite import SQLiteStore

MADE = datetime(2026, 11, 1, 12, 0, 0, 250_000, UTC)
DAY = timedelta(days=1)


def make(path: str) -> None:
    time = MADE

    def message(text: str) -> Message:
        return Message.user(text, id=f"message {text}", created_at=time)

    with SQLiteStore(path, expire_after=30 * DAY, clock=lambda: time) as store:
        store.append("of the store", [message("1"), message("2")], owner="bob")
        store.create("its own", owner="bob", expires_in=7 * DAY)
        store.append("its own", [message("1")])
    with SQLiteStore(path, clock=lambda: time) as store:
        store.append("for ever", [message("1")], owner="bob")
    time += DAY
    with SQLiteStore(path, expire_after=30 * DAY, clock=lambda: time) as store:
        store.append("of the store", [message("3")], idempotency_key="a key")
        store.append("deleted", [message("secret")])
        store.delete("deleted")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")


if __name__ == "__main__":
    make(sys.argv[1])
