"""What was written with layout 1 is read by every later version; what a later one wrote is left."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.conversations import Appended, Conversation
from chatledger.errors import NotFound, StoreMismatch
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.calls import Item
from chatledger.testing.store_contract.helpers import read_all, said, say
from tests.stores.dynamodb.conftest import OpenStore, SetClock
from tests.stores.dynamodb.tables import items_of, place, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LAYOUT_1 = Path(__file__).parents[2] / "data" / "dynamodb-layout-1.json"


def layout_1() -> list[Item]:
    items: list[dict[str, dict[str, Any]]] = json.loads(LAYOUT_1.read_text(encoding="utf-8"))
    return [
        {
            name: {"B": base64.b64decode(value["B"])} if "B" in value else value
            for name, value in item.items()
        }
        for item in items
    ]


def at(minute: int, day: int = 1) -> datetime:
    return datetime(2026, 5, day, 12, minute, 0, 250_000, UTC)


COUNT = " ".join(str(number) for number in range(1, 501))
TRIP = [
    (
        2,
        Message(
            role="system", content="Be very brief.", id="message-system-1204", created_at=at(4)
        ),
    ),
    (
        3,
        Message(
            role="user",
            content="What time is it? ⏰",
            id="message-user-1200",
            created_at=at(0),
            metadata={"lang": "en"},
        ),
    ),
    (
        4,
        Message(
            role="assistant",
            content="",
            id="message-assistant-1201",
            created_at=at(1),
            extra={
                "tool_calls": [
                    {"id": "call_1", "name": "clock", "args": {"zone": None, "half": 0.5}}
                ]
            },
        ),
    ),
    (
        5,
        Message(
            role="tool",
            content="12:01",
            id="message-tool-1201",
            created_at=at(1),
            extra={"tool_call_id": "call_1"},
        ),
    ),
    (
        9,
        Message(
            role="assistant",
            content=["It is 12:01.", {"type": "image", "url": "clock.png"}],
            id="message-assistant-1202",
            created_at=at(2),
        ),
    ),
    (10, Message(role="user", content="Count to 500.", id="message-user-1203", created_at=at(3))),
    (11, Message(role="assistant", content=COUNT, id="message-assistant-1203", created_at=at(3))),
]
CONVERSATION = Conversation(
    id="trip",
    owner="bob",
    title="A trip to Bergen",
    metadata={"colour": "green", "n": 1},
    created_at=at(0),
    updated_at=at(4),
    message_count=7,
    revision=14,
    expires_at=None,
)


@pytest.fixture
def store(client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock) -> Any:
    clock.time = at(30)
    put_items(client, table, layout_1())
    return open_store()


def test_the_file_holds_every_kind_of_item() -> None:
    kinds = {
        "record": lambda item: item.get("n") == {"N": "1"},
        "record of many messages": lambda item: item.get("n") == {"N": "2"},
        "record of none": lambda item: "l" in item and "n" not in item,
        "record with the title": lambda item: "i" in item,
        "record that names parts": lambda item: "y" in item,
        "record that was rewritten": lambda item: "r" in item,
        "compressed": lambda item: "B" in item.get("b", {}) and item["sk"]["S"].startswith("m#"),
        "part": lambda item: item["sk"]["S"].startswith("b#"),
        "key": lambda item: item["sk"]["S"].startswith("k#"),
        "fence": lambda item: item["sk"]["S"].startswith("m#") and "l" not in item,
        "cut": lambda item: "d" in item,
        "closing": lambda item: "z" in item,
        "head": lambda item: item["sk"]["S"] == "~head" and "title" in item,
        "head of a deleted one": lambda item: "deleted" in item,
        "with a lifetime": lambda item: {"t", "x", "f", "expires_at"} <= item.keys(),
    }
    items = layout_1()
    assert all(item["v"] == {"N": "1"} for item in items)
    for kind, holds in kinds.items():
        assert any(map(holds, items)), kind


def test_conversations_of_layout_1_are_read(store: DynamoDBStore) -> None:
    tail = store.tail("trip", 100, owner="bob")
    assert tail.conversation == CONVERSATION
    assert [(message.seq, message) for message in tail.messages] == TRIP
    assert [(message.seq, message) for message in read_all(store, "trip", limit=2)] == TRIP
    back = read_all(store, "trip", before=100, limit=3)
    assert [(message.seq, message) for message in back] == TRIP[::-1]

    copy = store.tail("copy", 100).messages
    assert copy[1:] == [message for _, message in TRIP[1:]]
    assert copy[0].text == "Be brief."
    assert store.get("brief").expires_at == at(5) + timedelta(hours=1)
    assert said(read_all(store, "brief")) == ["Good-bye."]
    with pytest.raises(NotFound):
        store.get("gone")
    listed = store.list("bob").conversations
    assert [(found.id, found.title) for found in listed] == [
        ("trip", "A trip to Bergen"),
        ("copy", "A trip"),
    ]
    assert listed[0] == CONVERSATION


def test_conversations_of_layout_1_go_on(
    client: "DynamoDBClient", table: str, store: DynamoDBStore, clock: SetClock
) -> None:
    again = store.append("trip", say("again"), idempotency_key="request-7")
    assert again == Appended(range(4, 6), 5)
    assert store.append("trip", say("on"), after=14) == Appended(range(15, 16), 15)
    assert said(store.pop("trip", 2)) == [COUNT, "on"]
    assert store.replace("trip", 3, Message.user("Late?")).revision == 17
    assert store.truncate("trip", after=4).message_count == 3
    assert said(read_all(store, "trip")) == ["Be very brief.", "Late?", ""]
    assert store.append("brief", say("or not")).revision == 3
    assert store.append("gone", say("back")).revision == 4
    assert store.update("copy", title="A copy").title == "A copy"
    clock.time = at(0, day=3)
    store.sweep()
    assert said(read_all(store, "trip")) == ["Be very brief.", "Late?", ""]
    assert said(store.tail("copy", 1).messages) == [COUNT]
    for conversation_id in ("trip", "copy", "gone"):
        store.delete(conversation_id)
    clock.time = at(0, day=6)
    store.sweep()
    assert items_of(client, table) == []


# A later version's -------------------------------------------------------------------------------

MEETING_IT: dict[str, Callable[[DynamoDBStore], object]] = {
    "get": lambda store: store.get("trip"),
    "tail": lambda store: store.tail("trip", 100),
    "page": lambda store: store.page("trip"),
    "page back": lambda store: store.page("trip", before=100),
    "append": lambda store: store.append("trip", say("1")),
    "append after": lambda store: store.append("trip", say("1"), after=14),
    "append with a key": lambda store: store.append("trip", say("1"), idempotency_key="request-7"),
    "update": lambda store: store.update("trip", title="1"),
    "truncate": lambda store: store.truncate("trip", after=2),
    "pop": lambda store: store.pop("trip", 7),
    "clear": lambda store: store.clear("trip"),
    "replace": lambda store: store.replace("trip", 2, Message.user("1")),
    "fork": lambda store: store.fork("trip"),
    "fork to": lambda store: store.fork("copy", new_id="trip"),
    "create": lambda store: store.create("trip"),
    "delete": lambda store: store.delete("trip"),
    "delete_owner": lambda store: store.delete_owner("bob"),
    "list": lambda store: store.list("bob"),
    "sweep": lambda store: store.sweep(),
}


def of_layout_2(item: Item) -> Item:
    """As a later version may have written it: with what this one does not know."""
    return item | {"v": {"N": "2"}, "body2": {"S": "[]"}}


@pytest.mark.parametrize("operation", MEETING_IT.values(), ids=MEETING_IT)
@pytest.mark.parametrize("written", ["all of it", "the last record", "the head"])
def test_what_a_later_version_wrote_is_left_as_it_is(
    client: "DynamoDBClient",
    table: str,
    store: DynamoDBStore,
    clock: SetClock,
    operation: Callable[[DynamoDBStore], object],
    written: str,
) -> None:
    trip = [item for item in items_of(client, table) if item["pk"]["S"] == "c#trip"]
    changed = {
        "all of it": trip,
        "the last record": [item for item in trip if place(item)[1].startswith("m#")][-1:],
        "the head": trip[-1:],
    }[written]
    put_items(client, table, map(of_layout_2, changed))
    clock.time = at(0, day=2)  # when what is superfluous is swept
    before = [item for item in items_of(client, table) if item["pk"]["S"] == "c#trip"]
    if written != "the last record" or operation is not MEETING_IT["list"]:
        with pytest.raises(StoreMismatch, match="Upgrade Chatledger"):
            operation(store)
    after = [item for item in items_of(client, table) if item["pk"]["S"] == "c#trip"]
    assert after == before


def test_parts_that_a_later_versions_record_names_in_its_own_way_are_not_swept(
    client: "DynamoDBClient", table: str, store: DynamoDBStore, clock: SetClock
) -> None:
    copy = [item for item in items_of(client, table) if item["pk"]["S"] == "c#copy"]
    [record] = [item for item in copy if "y" in item]
    renamed = {name: value for name, value in of_layout_2(record).items() if name != "y"}
    put_items(client, table, [renamed | {"parts2": record["y"]}])
    before = [item for item in items_of(client, table) if item["pk"]["S"] == "c#copy"]
    clock.time = at(0, day=5)
    with pytest.raises(StoreMismatch, match="Upgrade Chatledger"):
        store.sweep()
    assert [item for item in items_of(client, table) if item["pk"]["S"] == "c#copy"] == before
