"""``scan`` and ``restore`` where DynamoDB makes them hard."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.conversations import Conversation
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.records import HEAD, key
from chatledger.testing.store_contract.helpers import ids_of, say, scan_all, see
from chatledger.testing.store_contract.moving import given, placed
from tests.stores.dynamodb.clients import Died, dying_at, no_answer, watched_client
from tests.stores.dynamodb.tables import keys_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Open = Callable[..., DynamoDBStore]


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_a_scan_finds_conversations_whose_head_is_missing_late_or_of_a_former_life(
    open_store: Open, client: "DynamoDBClient", table: str, clock: Any, limit: int
) -> None:
    store = open_store()
    for n in range(6):
        store.append(f"plain {n}", say("hello"))
    for name in ("no head", "no head either"):
        store.append(name, say("hello"), owner="ann")
        client.delete_item(TableName=table, Key=key(name, HEAD))
    store.append("anew", say("1"))
    store.delete("anew")
    with pytest.raises(Died):  # between its first record and its head
        open_store(dying_at(client, 2, landed=False)).append("anew", say("2"))
    # Its head says that it has expired; its log, that it was used since.
    store.create("used", expires_in=timedelta(hours=1))
    clock.advance(minutes=50)
    store.append("used", say("hello"), reply_follows=True)
    store.append("over", say("hello"))
    store.delete("over")
    store.create("expired", expires_in=timedelta(minutes=1))
    clock.advance(minutes=30)
    found = scan_all(store, limit=limit)
    assert sorted(ids_of(found)) == sorted(
        [*(f"plain {n}" for n in range(6)), "no head", "no head either", "anew", "used"]
    )
    assert {it.id: it for it in found}["no head"] == store.get("no head")


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_scan_over_pages_that_end_within_a_conversation_misses_none(
    open_store: Open, client: "DynamoDBClient", table: str, limit: int
) -> None:
    store = open_store()
    random = Random(1)
    # A page of DynamoDB's ends at 1 MB.
    names = [f"long {n}" for n in range(6)]
    for name in names:
        for _ in range(2):
            store.append(name, [Message.user(random.randbytes(120_000).hex())])
            store.append(name, say(*(random.randbytes(20_000).hex() for _ in range(8))))
    for name in names[::2]:
        client.delete_item(TableName=table, Key=key(name, HEAD))
    assert sorted(ids_of(scan_all(store, limit=limit))) == names


def test_a_restored_stretch_is_one_record_and_leaves_no_position_free(
    open_store: Open, client: "DynamoDBClient", table: str
) -> None:
    store = open_store()
    store.restore(given(9, id="a"), placed(1, "1", "2"), after=0)
    store.restore(given(20, id="a", owner=see(store, "a").conversation.owner), [], after=9)
    assert [sort for _, sort in keys_of(client, table)] == [
        "m#0000000000000001",
        "m#0000000000000010",
        "~head",
    ]
    # Whoever remembers nothing, and whoever remembers, goes on behind the gap.
    assert list(open_store().append("a", say("21")).seqs) == [21]
    assert list(store.append("a", say("22")).seqs) == [22]


def test_a_restoration_whose_answer_was_lost_is_in_once(
    open_store: Open, client: "DynamoDBClient"
) -> None:
    lost: list[str] = []

    def lose_first(operation: str, params: dict[str, Any]) -> None:
        if operation == "put_item" and not lost:
            lost.append(operation)
            no_answer()

    conversation = given(5)
    store = open_store(watched_client(client, behind=lose_first))
    answer = store.restore(conversation, placed(1, "1", "2"), after=0)
    assert lost
    assert answer == replace(conversation, message_count=2)


def test_a_restored_conversation_with_a_lifetime_outlives_its_stamps(
    open_store: Open, client: "DynamoDBClient", table: str, clock: Any
) -> None:
    store = open_store()
    # Of a source whose clock is ahead of ours.
    ahead = clock() + timedelta(days=3)
    conversation = given(
        1, created_at=clock(), updated_at=ahead, expires_at=ahead + timedelta(hours=2)
    )
    store.restore(conversation, [], after=0)
    stretch = replace(conversation, revision=3)
    store.restore(stretch, placed(2, "2", "3"), after=1)
    for item in client.scan(TableName=table)["Items"]:
        assert int(item["expires_at"]["N"]) >= (stretch.expires_at or ahead).timestamp() + 3_600
    # And one that lived for ever so far, and whose items had no stamps.
    forever = given(1, created_at=clock())
    store.restore(forever, [], after=0)
    brief = replace(
        forever, revision=2, updated_at=clock(), expires_at=clock() + timedelta(hours=1)
    )
    answer: Conversation = store.restore(brief, placed(2, "2"), after=1)
    assert answer.expires_at == brief.expires_at
    stamped = ["expires_at" in item for item in client.scan(TableName=table)["Items"]]
    assert all(stamped)
