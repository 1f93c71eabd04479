"""The script that made ``layout-2.db`` with the last version of layout 2: ``python make_layout_2.py
FILE``.

In that layout, idempotency keys had no fingerprints, and conversations no metadata revisions. Do
not run it again: the file is one that a user of that version may have, and every later version must
read it.
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
        store.create("trip", owner="bob", title="A trip", metadata={"n": 1})
        store.append("trip", [message("1"), message("2")], idempotency_key="a key")
        time += timedelta(minutes=1)
        store.append("trip", [message("3"), message("4")])
        store.pop("trip")
        store.update("trip", title="Another trip")
        store.append("anonymous", [message("1")], idempotency_key="a key")
        store.append("long", [message(str(number)) for number in range(1, 1_503)])
        store.truncate("long", after=2)
        store.append("deleted", [message("secret")])
        store.delete("deleted")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")


if __name__ == "__main__":
    make(sys.argv[1])
