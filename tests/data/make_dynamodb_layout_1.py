"""The script that made ``dynamodb-layout-1.json`` with the first version of the DynamoDB store:
``python -m tests.data.make_dynamodb_layout_1 FILE``.

Do not run it again: the file is what a user of that version may have, and every later version must
read it. A new layout gets a script and a file of its own.
"""

import base64
import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chatledger import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from tests.stores.dynamodb.faulty_clients import Crashed, crashing_client
from tests.stores.dynamodb.tables import items_of, new_table

MADE = datetime(2026, 5, 1, 12, 0, 0, 250_000, UTC)
TOKEN = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def items_as_json(write: Callable[[Any, str], None]) -> str:
    """Return the items that ``write(client, table)`` leaves in a table."""
    with DynamoDBLocal() as dynamodb:
        client = dynamodb.client()
        table = new_table(client)
        write(client, table)
        items = items_of(client, table)
        client.delete_table(TableName=table)
        client.close()
    text = json.dumps([written(item) for item in items], indent=1, sort_keys=True)
    # Tokens contain the time of the run; replaced, the file is the same every time.
    for n, token in enumerate(sorted(set(TOKEN.findall(text)))):
        text = text.replace(token, f"019de3b2-7a5a-7000-8000-{n:012}")
    return text + "\n"


def written(item: dict[str, Any]) -> dict[str, Any]:
    """Return the item with its bytes as base64 text."""
    return {
        name: {"B": base64.b64encode(value["B"]).decode()} if "B" in value else value
        for name, value in item.items()
    }


def write(client: Any, table: str) -> None:
    time = MADE

    def later(**by: int) -> None:
        nonlocal time
        time += timedelta(**by)

    def message(role: Any, content: Any, **fields: Any) -> Message:
        id = f"message-{role}-{time:%H%M}"
        return Message(role=role, content=content, id=id, created_at=time, **fields)

    def open(through: Any = client) -> DynamoDBStore:
        return DynamoDBStore(through, table, clock=lambda: time)

    store = open()
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
    store.append("trip", [message("user", "Count to 500.")])
    # Its body is compressed; in the copy it is stored in a body part.
    store.append("trip", [message("assistant", " ".join(map(str, range(1, 501))))])
    store.fork("trip", new_id="copy")
    later(minutes=1)
    store.replace("trip", 2, message("system", "Be very brief."))
    store.update("trip", title="A trip to Bergen")
    # The process ends before it replaces the truncated records by tombstones.
    store.append("trip", [message("assistant", "Never mind.")])
    with suppress(Crashed):
        open(crashing_client(client, 4, landed=False)).pop("trip")

    later(minutes=1)
    store.create("gone", owner="bob", title="Deleted")
    store.append("gone", [message("user", "A secret.")])
    store.delete("gone")
    store.create("brief", expires_in=timedelta(hours=1))
    store.append("brief", [message("user", "Good-bye.")])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(items_as_json(write), encoding="utf-8")
