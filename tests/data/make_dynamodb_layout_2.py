"""The script that made ``dynamodb-layout-2.json`` with the first version that wrote layout 2:
``python -m tests.data.make_dynamodb_layout_2 FILE``.

Do not run it again: the file is what a user of that version may have, and every later version must
read it. A new layout gets a script and a file of its own.
"""

import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from chatledger import Message
from chatledger.stores.dynamodb import DynamoDBStore
from tests.data.make_dynamodb_layout_1 import MADE, items_as_json
from tests.stores.dynamodb.faulty_clients import Crashed, crashing_client


def write(client: Any, table: str) -> None:
    time = MADE

    def later(**by: float) -> None:
        nonlocal time
        time += timedelta(**by)

    def message(role: Any, content: Any, **fields: Any) -> Message:
        id = f"message-{role}-{time:%H%M}"
        return Message(role=role, content=content, id=id, created_at=time, **fields)

    def open(through: Any = client, **options: Any) -> DynamoDBStore:
        return DynamoDBStore(through, table, clock=lambda: time, **options)

    store = open()
    store.create("trip", owner="bob", title="A trip", metadata={"colour": "green", "n": 1})
    question = message("user", "What time is it? \N{ALARM CLOCK}", metadata={"lang": "en"})
    store.append("trip", [message("system", "Be brief."), question])
    later(minutes=1)
    store.append("trip", [message("assistant", "12:01")], idempotency_key="request-7")
    store.append("trip", [message("assistant", "A mistake."), message("user", "No.")])
    store.pop("trip", 2)
    later(minutes=1)
    # A body in three chunks.
    numbers = [message("user", f"{n} " * 800) for n in range(1, 8)]
    numbers[0] = message("user", incompressible_text())
    store.append("trip", numbers)
    store.replace("trip", 2, message("system", "Be very brief."))
    store.replace("trip", 11, message("user", "four"))
    store.update("trip", title="A trip to Bergen")
    store.fork("trip", new_id="copy")
    store.pop("copy")
    later(minutes=1)
    # It is truncated, but nothing is freed.
    store.append("trip", [message("assistant", "Never mind."), message("user", "Well.")])
    open(cleanup=0).truncate("trip", after=14)

    store.create("gone", owner="bob", title="Deleted")
    store.append("gone", [message("user", "A secret.")])
    store.delete("gone")
    store.create("deleted", owner="bob")
    store.append("deleted", [message("user", "Another secret.")])
    with suppress(Crashed):
        open(crashing_client(client, 2, landed=False)).delete("deleted")
    # Its TTLs are being renewed.
    store.create("month", expires_in=timedelta(days=30))
    for n in range(40):
        store.append("month", [message("user", f"{n}")], reply_follows=True)
    later(days=29)
    store.append("month", [message("user", "a month later")])
    later(days=29)
    store.append("month", [message("user", "two months later")])


def incompressible_text() -> str:
    return Random(1).randbytes(60_000).hex()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(items_as_json(write), encoding="utf-8")
