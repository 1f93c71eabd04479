"""The script that made ``layout-1.db`` with the first version: ``python make_layout_1.py FILE``.

Do not run it again: the file is one that a user of that version may have, and every later version
must read it. A new layout gets a script and a file of its own.
"""

import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from chatledger import Message
from chatledger.stores.sqlite import SQLiteStore

MADE = datetime(2026, 5, 1, 12, 0, 0, 250_000, UTC)


def make(path: str) -> None:
    time = MADE

    def later(**by: int) -> None:
        nonlocal time
        time += timedelta(**by)

    def message(role: Any, content: Any, **fields: Any) -> Message:
        id = f"message-{role}-{time:%H%M}"
        return Message(role=role, content=content, id=id, created_at=time, **fields)

    with SQLiteStore(path, clock=lambda: time) as store:
        store.create("trip", owner="bob", title="A trip", metadata={"colour": "green", "n": 1})
        question = message("user", "What time is it? \N{ALARM CLOCK}", metadata={"lang": "en"})
        store.append("trip", [message("system", "Be brief."), question])
        later(minutes=1)
        call = {"id": "call_1", "name": "clock", "args": {"zone": None, "half": 0.5}}
        store.append(
            "trip",
            [
                message("assistant", "", extra={"tool_calls": [call]}),
                message("tool", "12:01", extra={"tool_call_id": "call_1"}),
            ],
            idempotency_key="request-7",
        )
        later(minutes=1)
        store.append("trip", [message("assistant", "A mistake."), message("user", "No.")])
        store.pop("trip", 2)
        picture = {"type": "image", "url": "clock.png"}
        store.append("trip", [message("assistant", ["It is 12:01.", picture])])

        later(minutes=1)
        store.create("gone", owner="bob", title="Deleted")
        store.append("gone", [message("user", "A secret.")])
        store.delete("gone")
        store.create("empty", expires_in=timedelta(hours=1))
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")


if __name__ == "__main__":
    make(sys.argv[1])
