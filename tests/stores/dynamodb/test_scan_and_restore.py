"""``scan`` and ``restore`` in the cases that DynamoDB makes difficult."""

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.conversations import Conversation
from chatledger.messages import Message
from chatledger.stores.dynamodb.records import HEAD, key
from chatledger.testing.store_contract.helpers import (
    foreign_conversation,
    ids_of,
    messages_from,
    scan_all,
    snapshot,
    user_messages,
)
from tests.stores.dynamodb.conftest import OpenStore
from tests.stores.dynamodb.faulty_clients import (
    Crashed,
    client_with_hooks,
    crashing_client,
    lose_reply,
)
from tests.stores.dynamodb.tables import keys_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_a_scan_finds_conversations_whose_head_is_missing_stale_or_of_an_earlier_generation(
    open_store: OpenStore, client: "DynamoDBClient", table: str, clock: Any, limit: int
) -> None:
    store = open_store()
    for n in range(6):
        store.append(f"plain {n}", user_messages("hello"))
    for name in ("no head", "no head either"):
        store.append(name, user_messages("hello"), owner="ann")
        client.delete_item(TableName=table, Key=key(name, HEAD))
    store.append("anew", user_messages("1"))
    store.delete("anew")
    with pytest.raises(Crashed):  # after the new first record, before its head
        open_store(crashing_client(client, 2, landed=False)).append("anew", user_messages("2"))
    # By its head it has expired; its log shows that it was used after that.
    store.create("used", expires_in=timedelta(hours=1))
    clock.advance(minutes=50)
    store.append("used", user_messages("hello"), reply_follows=True)
    store.append("deleted", user_messages("hello"))
    store.delete("deleted")
    store.create("expired", expires_in=timedelta(minutes=1))
    clock.advance(minutes=30)
    scanned = scan_all(store, limit=limit)
    assert sorted(ids_of(scanned)) == sorted(
        [*(f"plain {n}" for n in range(6)), "no head", "no head either", "anew", "used"]
    )
    assert {each.id: each for each in scanned}["no head"] == store.get("no head")


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_scan_misses_no_conversation_that_spans_several_pages(
    open_store: OpenStore, client: "DynamoDBClient", table: str, limit: int
) -> None:
    store = open_store()
    random = Random(1)
    # DynamoDB ends a page at 1 MB.
    names = [f"long {n}" for n in range(6)]
    for name in names:
        for _ in range(2):
            store.append(name, [Message.user(random.randbytes(120_000).hex())])
            store.append(name, user_messages(*(random.randbytes(20_000).hex() for _ in range(8))))
    for name in names[::2]:
        client.delete_item(TableName=table, Key=key(name, HEAD))
    assert sorted(ids_of(scan_all(store, limit=limit))) == names


def test_restored_messages_are_one_record_and_leave_no_free_position(
    open_store: OpenStore, client: "DynamoDBClient", table: str
) -> None:
    store = open_store()
    store.restore(foreign_conversation(9, id="a"), messages_from(1, "1", "2"), revision=0)
    store.restore(
        foreign_conversation(20, id="a", owner=snapshot(store, "a").conversation.owner),
        [],
        revision=9,
    )
    assert [sort for _, sort in keys_of(client, table)] == [
        "m#0000000000000001",
        "m#0000000000000010",
        "~head",
    ]
    # Both a store with an empty cache and one that has cached the log end append after the gap.
    assert list(open_store().append("a", user_messages("21")).seqs) == [21]
    assert list(store.append("a", user_messages("22")).seqs) == [22]


def test_a_restore_whose_reply_is_lost_takes_effect_once(
    open_store: OpenStore, client: "DynamoDBClient"
) -> None:
    lost: list[str] = []

    def lose_first(operation: str, params: dict[str, Any]) -> None:
        if operation == "put_item" and not lost:
            lost.append(operation)
            lose_reply()

    conversation = foreign_conversation(5)
    store = open_store(client_with_hooks(client, after=lose_first))
    restored = store.restore(conversation, messages_from(1, "1", "2"), revision=0)
    assert lost
    assert restored == replace(conversation, message_count=2)


def test_the_items_of_a_restored_conversation_have_ttls_after_its_expiry(
    open_store: OpenStore, client: "DynamoDBClient", table: str, clock: Any
) -> None:
    store = open_store()
    # The clock of the source store is ahead of ours.
    ahead = clock() + timedelta(days=3)
    conversation = foreign_conversation(
        1, created_at=clock(), updated_at=ahead, expires_at=ahead + timedelta(hours=2)
    )
    store.restore(conversation, [], revision=0)
    later = replace(conversation, revision=3)
    store.restore(later, messages_from(2, "2", "3"), revision=1)
    for item in client.scan(TableName=table)["Items"]:
        assert int(item["expires_at"]["N"]) >= (later.expires_at or ahead).timestamp() + 3_600


def test_a_restored_conversation_keeps_the_lifetime_with_which_it_began(
    open_store: OpenStore, client: "DynamoDBClient", table: str, clock: Any
) -> None:
    store = open_store()
    forever = foreign_conversation(1, created_at=clock())
    store.restore(forever, [], revision=0)
    expiring = replace(
        forever, revision=2, updated_at=clock(), expires_at=clock() + timedelta(hours=1)
    )
    restored: Conversation = store.restore(expiring, messages_from(2, "2"), revision=1)
    assert restored.expires_at is None
    assert not any("expires_at" in item for item in client.scan(TableName=table)["Items"])
