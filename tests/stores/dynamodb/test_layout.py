"""Every version reads items of earlier layouts, and none changes items of a later one."""

import base64
import json
import re
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.conversations import Appended, Conversation
from chatledger.errors import NotFound, StoreMismatch
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.records import ENTRY_LAYOUT
from chatledger.testing.store_contract.helpers import Started, read_all, texts_of, user_messages
from chatledger.testing.store_contract.operation_table import CALLS, Call, each_of
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.tables import items_of, key_of, put_items
from tests.stores.dynamodb.ttl_reaper import TTLReaper

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LONG = "".join(map(chr, range(0x4E00, 0x9E00))) * 4
"""A text that does not fit into a record, so that it is stored in body parts."""
DATA = Path(__file__).parents[2] / "data"


def items_of_layout(layout: int) -> list[Item]:
    text = (DATA / f"dynamodb-layout-{layout}.json").read_text(encoding="utf-8")
    items: list[dict[str, dict[str, Any]]] = json.loads(text)
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
TRIP_MESSAGES = [
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
TRIP_CONVERSATION = Conversation(
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
def store(client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock) -> Any:
    clock.time = at(30)
    put_items(client, table, items_of_layout(1))
    return open_store()


def test_the_file_has_items_of_every_kind() -> None:
    kinds = {
        "record": lambda item: item.get("n") == {"N": "1"},
        "record of several messages": lambda item: item.get("n") == {"N": "2"},
        "record without messages": lambda item: "l" in item and "n" not in item,
        "record with a description": lambda item: "i" in item,
        "record with body parts": lambda item: "y" in item,
        "rewritten record": lambda item: "r" in item,
        "compressed record": lambda item: (
            "B" in item.get("b", {}) and item["sk"]["S"].startswith("m#")
        ),
        "body part": lambda item: item["sk"]["S"].startswith("b#"),
        "idempotency key": lambda item: item["sk"]["S"].startswith("k#"),
        "tombstone": lambda item: item["sk"]["S"].startswith("m#") and "l" not in item,
        "truncation": lambda item: "d" in item,
        "deletion": lambda item: "z" in item,
        "head": lambda item: item["sk"]["S"] == "~head" and "title" in item,
        "head of a deleted conversation": lambda item: "deleted" in item,
        "record with a lifetime": lambda item: {"t", "x", "f", "expires_at"} <= item.keys(),
    }
    items = items_of_layout(1)
    assert all(item["v"] == {"N": "1"} for item in items)
    for kind, is_of_kind in kinds.items():
        assert any(map(is_of_kind, items)), kind


def test_conversations_of_layout_1_can_be_read(store: DynamoDBStore) -> None:
    tail = store.tail("trip", 100, owner="bob")
    assert tail.conversation == TRIP_CONVERSATION
    assert [(message.seq, message) for message in tail.messages] == TRIP_MESSAGES
    assert [(message.seq, message) for message in read_all(store, "trip", limit=2)] == TRIP_MESSAGES
    backward = read_all(store, "trip", before=100, limit=3)
    assert [(message.seq, message) for message in backward] == TRIP_MESSAGES[::-1]

    copy = store.tail("copy", 100).messages
    assert copy[1:] == [message for _, message in TRIP_MESSAGES[1:]]
    assert copy[0].text == "Be brief."
    assert store.get("brief").expires_at == at(5) + timedelta(hours=1)
    assert texts_of(read_all(store, "brief")) == ["Good-bye."]
    with pytest.raises(NotFound):
        store.get("gone")
    conversations = store.list("bob").conversations
    assert [(listed.id, listed.title) for listed in conversations] == [
        ("trip", "A trip to Bergen"),
        ("copy", "A trip"),
    ]
    assert conversations[0] == TRIP_CONVERSATION


def test_conversations_of_layout_1_can_be_changed(
    client: "DynamoDBClient", table: str, store: DynamoDBStore, clock: ManualClock
) -> None:
    again = store.append("trip", user_messages("again"), idempotency_key="request-7")
    assert again == Appended(range(4, 6), 5)
    assert store.append("trip", user_messages("on"), revision=14) == Appended(range(15, 16), 15)
    assert texts_of(store.pop("trip", 2)) == [COUNT, "on"]
    assert store.replace("trip", 3, Message.user("Late?")).revision == 17
    assert store.truncate("trip", after=4).message_count == 3
    assert texts_of(read_all(store, "trip")) == ["Be very brief.", "Late?", ""]
    assert store.append("brief", user_messages("or not")).revision == 3
    assert store.append("gone", user_messages("back")).revision == 4
    assert store.update("copy", title="A copy").title == "A copy"
    clock.time = at(0, day=3)
    store.sweep()
    assert texts_of(read_all(store, "trip")) == ["Be very brief.", "Late?", ""]
    assert texts_of(store.tail("copy", 1).messages) == [COUNT]
    for conversation_id in ("trip", "copy", "gone"):
        store.delete(conversation_id)
    clock.time = at(0, day=6)
    store.sweep()
    assert items_of(client, table) == []


def test_a_conversation_of_layout_1_with_a_lifetime_is_renewed(
    client: "DynamoDBClient", table: str, store: DynamoDBStore, clock: ManualClock
) -> None:
    """Its TTLs do not grow with the number of items, so that they are renewed at once."""
    reaper = TTLReaper(client, table, clock)
    for n in range(90):
        store.append("brief", user_messages(f"{n}", LONG if n == 40 else "."))
        reaper.delete_all()
        expires_at = store.get("brief").expires_at
        assert expires_at == clock() + timedelta(hours=1)
        for item in items_of_conversation(client, table, "brief"):
            assert int(item["expires_at"]["N"]) > expires_at.timestamp(), item["sk"]
        clock.advance(minutes=59)
    texts = texts_of(read_all(store, "brief"))
    assert texts[0] == "Good-bye."
    assert texts[1::2] == [f"{n}" for n in range(90)]
    assert texts[82] == LONG


def test_body_parts_of_layout_1_are_rewritten_when_they_change(
    client: "DynamoDBClient", table: str, store: DynamoDBStore
) -> None:
    def tokens() -> set[str]:
        items = items_of_conversation(client, table, "copy")
        return {key_of(item)[1].split("#")[1] for item in items if key_of(item)[1][0] == "b"}

    def sorts() -> list[str]:
        return [key_of(item)[1] for item in items_of_conversation(client, table, "copy")]

    assert any(re.fullmatch(r"b#[\w-]+#\d{6}", sort) for sort in sorts())
    old = tokens()
    before = texts_of(read_all(store, "copy"))
    assert texts_of(store.pop("copy")) == before[-1:]
    store.replace("copy", 2, Message.user("Two"))
    assert texts_of(read_all(store, "copy")) == [before[0], "Two", *before[2:-1]]
    assert not tokens() & old
    store.delete("copy")
    assert not any(sort.startswith("b#") for sort in sorts())


# Items of layout 2 --------------------------------------------------------------------------------

TWO_MONTHS_LATER = datetime(2026, 6, 28, 12, 3, 0, 250_000, UTC)
NUMBERS = [f"{n} " * 800 for n in range(2, 8)]


@pytest.fixture
def store_2(client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock) -> Any:
    clock.time = TWO_MONTHS_LATER
    put_items(client, table, items_of_layout(2))
    return open_store()


def test_the_file_of_layout_2_has_items_of_every_kind() -> None:
    kinds = {
        "record of several messages": lambda item: item.get("n") == {"N": "2"},
        "record without messages": lambda item: "l" in item and "n" not in item,
        "record with a description": lambda item: "i" in item,
        "record with body parts": lambda item: "y" in item,
        "record with a replaced chunk": lambda item: "j" in item,
        "replacement": lambda item: "h" in item,
        "rewritten record": lambda item: "r" in item,
        "body part": lambda item: re.fullmatch(r"b#[\w-]+#\d{8}#\d{3}", item["sk"]["S"]),
        "idempotency key": lambda item: item["sk"]["S"].startswith("k#"),
        "tombstone": lambda item: item["sk"]["S"].startswith("m#") and "l" not in item,
        "truncation that was not freed": lambda item: "d" in item,
        "deletion": lambda item: "z" in item,
        "head": lambda item: item["sk"]["S"] == "~head" and "title" in item,
        "head of a deleted conversation": lambda item: "deleted" in item,
        "record with a lifetime": lambda item: {"t", "x", "g", "m", "expires_at"} <= item.keys(),
        "renewal": lambda item: "e" in item,
    }
    items = items_of_layout(2)
    assert all(item["v"] == {"N": "2"} for item in items)
    for kind, is_of_kind in kinds.items():
        assert any(map(is_of_kind, items)), kind


def test_conversations_of_layout_2_can_be_read(store_2: DynamoDBStore) -> None:
    trip = texts_of(read_all(store_2, "trip", limit=4))
    assert trip[:3] == ["Be very brief.", "What time is it? ⏰", "12:01"]
    assert len(trip[3]) == 120_000
    assert trip[4:] == [*NUMBERS[:2], "four", *NUMBERS[3:]]
    conversation = store_2.get("trip", owner="bob")
    assert (conversation.title, conversation.metadata) == (
        "A trip to Bergen",
        {"colour": "green", "n": 1},
    )
    assert (conversation.message_count, conversation.revision) == (10, 19)
    assert texts_of(read_all(store_2, "trip", before=100, limit=3)) == trip[::-1]
    assert texts_of(store_2.tail("copy", 100).messages) == trip[:-1]
    month = store_2.tail("month", 100)
    assert texts_of(month.messages) == [*map(str, range(40)), "a month later", "two months later"]
    assert month.conversation.expires_at == TWO_MONTHS_LATER + timedelta(days=30)
    for conversation_id in ("gone", "deleted"):
        with pytest.raises(NotFound):
            store_2.get(conversation_id)


def test_conversations_of_layout_2_can_be_changed(
    client: "DynamoDBClient", table: str, store_2: DynamoDBStore, clock: ManualClock
) -> None:
    reaper = TTLReaper(client, table, clock)
    again = store_2.append("trip", user_messages("again"), idempotency_key="request-7")
    assert again == Appended(range(4, 5), 4)
    assert list(store_2.append("trip", user_messages("on"), revision=19).seqs) == [20]
    store_2.replace("trip", 13, Message.user("six"))
    assert texts_of(store_2.pop("trip", 2)) == [NUMBERS[5], "on"]
    store_2.append("copy", user_messages("seven"), truncate_after=4)
    assert [len(text) for text in texts_of(read_all(store_2, "copy"))] == [14, 18, 5, 120_000, 5]
    for n in range(12):
        clock.advance(days=29)
        store_2.append("month", user_messages(f"{n}"))
        reaper.delete_all()
    assert store_2.get("month").message_count == 54
    assert len(read_all(store_2, "month")) == 54
    store_2.sweep()
    trip = texts_of(read_all(store_2, "trip"))
    assert [len(text) for text in trip[:4]] == [14, 18, 5, 120_000]
    assert trip[4:] == [*NUMBERS[:2], "four", NUMBERS[3], "six"]
    for conversation_id in ("trip", "copy", "month"):
        store_2.delete(conversation_id)
    clock.advance(days=3)
    store_2.sweep()
    assert items_of(client, table) == []


# Items of a later version -------------------------------------------------------------------------

TRIP = Started("trip", [seq for seq, _ in TRIP_MESSAGES], TRIP_CONVERSATION.revision, "bob")
CALLS_OF_TRIP = [
    *(call for call in CALLS if call.name != "create with a key"),  # creates another one
    Call(
        "append",
        lambda given: {"messages": user_messages("1"), "idempotency_key": "request-7"},
        variant="with a key used before",
    ),
    Call(
        "fork", lambda given: {"conversation_id": "copy", "new_id": given.id}, variant="to its id"
    ),
]


def with_later_layout(item: Item) -> Item:
    """Return the item as a later version may have written it, with an unknown attribute."""
    return item | {"v": {"N": str(ENTRY_LAYOUT + 1)}, "body2": {"S": "[]"}}


def items_of_conversation(client: "DynamoDBClient", table: str, conversation_id: str) -> list[Item]:
    return [item for item in items_of(client, table) if item["pk"]["S"] == f"c#{conversation_id}"]


@each_of(CALLS_OF_TRIP)
@pytest.mark.parametrize("changed_items", ["every item", "the last record", "the head"])
def test_items_of_a_later_version_are_never_changed(
    client: "DynamoDBClient",
    table: str,
    store: DynamoDBStore,
    clock: ManualClock,
    call: Call,
    changed_items: str,
) -> None:
    trip = items_of_conversation(client, table, "trip")
    changed = {
        "every item": trip,
        "the last record": [item for item in trip if key_of(item)[1].startswith("m#")][-1:],
        "the head": trip[-1:],
    }[changed_items]
    put_items(client, table, map(with_later_layout, changed))
    clock.time = at(0, day=2)  # late enough for sweep to delete garbage
    before = items_of_conversation(client, table, "trip")
    reads_only_heads = call.is_read and not call.needs_conversation and call.name != "search"
    refused = pytest.raises(StoreMismatch, match="Upgrade Chatledger")
    with nullcontext() if reads_only_heads and changed_items == "the last record" else refused:
        call(store, TRIP, caller="bob")
    after = items_of_conversation(client, table, "trip")
    assert after == before


def test_body_parts_that_a_later_version_references_by_another_attribute_are_not_swept(
    client: "DynamoDBClient", table: str, store: DynamoDBStore, clock: ManualClock
) -> None:
    copy = items_of_conversation(client, table, "copy")
    [record] = [item for item in copy if "y" in item]
    renamed = {name: value for name, value in with_later_layout(record).items() if name != "y"}
    put_items(client, table, [renamed | {"parts2": record["y"]}])
    before = items_of_conversation(client, table, "copy")
    clock.time = at(0, day=5)
    with pytest.raises(StoreMismatch, match="Upgrade Chatledger"):
        store.sweep()
    assert items_of_conversation(client, table, "copy") == before
