"""The script that made ``layout-4.db`` with the last version of layout 4: ``python make_layout_4.py
FILE``.

In that layout, there was no index of words. Do not run it again: the file is one that a user of
that version may have, and every later version must read it.
"""

import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

from chatledger import Message
from chatledger.stores.sqlite import SQLiteStore

MADE = datetime(2026, 12, 1, 12, 0, 0, 250_000, UTC)


def make(path: str) -> None:
    time = MADE

    def message(text: str) -> Message:
        return Message.user(text, id=f"message {text}", created_at=time)

    # Without time for cleanup, removed messages stay in the file as garbage.
    with SQLiteStore(path, clock=lambda: time, cleanup=0) as store:
        store.create("trip", owner="bob", title="A trip to Málaga", idempotency_key="a key")
        store.append("trip", [message("Where is it warm?"), message("Málaga")])
        time += timedelta(minutes=1)
        store.append("long", [message(f"warm {number}") for number in range(1, 1_503)], owner="bob")
        store.truncate("long", after=2)
        store.put_entry("trip", "topic", "plans")
        store.append("deleted", [message("warm secret")], owner="bob")
        store.delete("deleted")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")


if __name__ == "__main__":
    make(sys.argv[1])
