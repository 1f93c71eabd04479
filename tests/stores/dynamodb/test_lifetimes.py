"""A conversation's lifetime is fixed when it begins, and every item of it outlives it."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.ttl import RENEWED_ITEMS
from chatledger.testing.store_contract.helpers import read_all, texts_of, user_messages
from chatledger.values import milliseconds
from tests.stores.dynamodb import logs
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.faulty_clients import Params, client_with_hooks
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.tables import items_of, keys_of, put_items
from tests.stores.dynamodb.ttl_reaper import TTLReaper

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HOUR, MONTH = timedelta(hours=1), timedelta(days=30)
LONG = "".join(map(chr, range(0x4E00, 0x9E00))) * 4
"""A text that does not fit into a record, so that it is stored in body parts."""


@pytest.fixture
def reaper(client: "DynamoDBClient", table: str, clock: ManualClock) -> TTLReaper:
    return TTLReaper(client, table, clock)


def assert_items_outlive_their_conversation(
    client: "DynamoDBClient", table: str, store: DynamoDBStore
) -> None:
    expires_at = store.get("trip").expires_at
    assert expires_at is not None
    for item in items_of(client, table):
        assert int(item["expires_at"]["N"]) > expires_at.timestamp(), item["sk"]


def test_a_long_message_written_with_a_shorter_default_lives_as_long_as_its_conversation(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    reaper: TTLReaper,
) -> None:
    """Its parts had the TTL of the store's own ``expire_after``, and TTL deleted them after a day
    (finding 1).
    """
    open_store(expire_after=MONTH).append("trip", user_messages("hi"))
    open_store(expire_after=HOUR).append("trip", user_messages(LONG))
    store = open_store(expire_after=MONTH)
    store.append("trip", user_messages("go on"))
    assert store.get("trip").expires_at == clock() + MONTH
    assert_items_outlive_their_conversation(client, table, store)
    clock.advance(hours=28)
    reaper.delete_all()
    assert reaper.deleted == []
    assert texts_of(read_all(store, "trip")) == ["hi", LONG, "go on"]


def test_a_long_message_lives_as_long_as_the_conversation_that_a_rival_began_meanwhile(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    reaper: TTLReaper,
) -> None:
    """The parts were written for a conversation of an hour, and the record joined one of a month
    (finding 2).
    """
    rival = open_store()

    def create_first(operation: str, params: Params) -> None:
        if operation == "put_item" and not keys_of_records(client, table):
            rival.create("trip", expires_in=MONTH)

    store = open_store(client_with_hooks(client, before=create_first), expire_after=HOUR)
    store.append("trip", user_messages(LONG))
    assert store.get("trip").expires_at == clock() + MONTH
    assert_items_outlive_their_conversation(client, table, store)
    parts = [sort for _, sort in keys_of(client, table) if sort.startswith("b#")]
    assert len({part.split("#")[1] for part in parts}) == 1, "the first parts are deleted"
    clock.advance(days=29)
    reaper.delete_all()
    assert texts_of(read_all(open_store(), "trip")) == [LONG]


def keys_of_records(client: "DynamoDBClient", table: str) -> list[str]:
    return [sort for _, sort in keys_of(client, table) if sort.startswith("m#")]


@pytest.mark.parametrize("lifetimes", [(None, HOUR), (HOUR, None), (MONTH, HOUR), (HOUR, MONTH)])
def test_a_long_message_is_written_at_most_twice_whatever_lifetimes_its_rivals_have(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    lifetimes: tuple[timedelta | None, timedelta | None],
) -> None:
    """An append whose lifetime did not fit that of the log wrote its parts again and again, without
    a wait and without an end (finding 3).
    """
    first, own = lifetimes
    batches = 0

    def let_rivals_win(operation: str, params: Params) -> None:
        nonlocal batches
        batches += operation == "batch_write_item"
        if operation == "put_item" and len(keys_of_records(client, table)) < 3:
            # Each process has another ``expire_after`` than the one before it.
            for expire_after in (first, own, first):
                open_store(expire_after=expire_after).append("trip", user_messages("rival"))

    store = open_store(client_with_hooks(client, before=let_rivals_win), expire_after=own)
    appended = store.append("trip", user_messages(LONG))
    assert list(appended.seqs) == [4]
    assert batches <= 2 + 1, "twice the parts, and one batch that deletes the first ones"
    assert texts_of(read_all(store, "trip")) == ["rival", "rival", "rival", LONG]


def test_an_append_renews_few_items_however_many_the_conversation_has(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """Once a lifetime one append renewed the TTLs of all messages before it was written: 5,007
    requests at 5,000 messages (finding 9).
    """
    put_conversation(client, table, clock, 2_000)
    meter, store = Meter(client), open_store()
    for n in range(4):
        clock.advance(days=27)
        with meter.measured() as cost:
            store.append("trip", user_messages(f"{n}"))
        assert len(cost.requests) <= 31
        assert cost.operations.count("UpdateItem") <= RENEWED_ITEMS + 2
        if n >= 1:
            assert cost.operations.count("UpdateItem") >= RENEWED_ITEMS
    assert_items_outlive_their_conversation(client, table, store)


def test_every_item_is_renewed_before_its_ttl_however_rare_the_appends_are(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    put_conversation(client, table, clock, 120)
    store = open_store()
    for n in range(24):
        clock.advance(days=29, hours=23)
        store.append("trip", user_messages(f"{n}"))
        if n % 4 == 3:
            assert_items_outlive_their_conversation(client, table, store)
    assert store.get("trip").message_count == 144


def test_renewing_long_messages_takes_few_requests(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    store = open_store(expire_after=MONTH)
    for _ in range(24):
        store.append("trip", user_messages(LONG), reply_follows=True)
    meter = Meter(client)
    for n in range(8):
        clock.advance(days=29)
        with meter.measured() as cost:
            store.append("trip", user_messages(f"{n}"))
        assert len(cost.requests) <= 45, cost.operations
        assert cost.operations.count("UpdateItem") <= RENEWED_ITEMS + 2
    assert_items_outlive_their_conversation(client, table, store)


def put_conversation(
    client: "DynamoDBClient", table: str, clock: ManualClock, messages: int
) -> None:
    """Put the conversation ``trip`` of that many messages, with a lifetime of a month."""
    made = [Message.user(f"message {n}", created_at=clock()) for n in range(messages)]
    records = logs.make_records(made, owner="bob", created_at=clock(), lifetime=milliseconds(MONTH))
    items = logs.record_items("trip", records)
    put_items(client, table, [*items, logs.head_item("trip", records[-1])])


def test_a_renewal_leaves_the_head_of_a_deleted_conversation_alone(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """The TTL of a head was changed although another process had just marked it as deleted, so that
    it stayed for ever (finding 22).
    """
    other = open_store()
    deleted = False

    def delete_first(operation: str, params: Params) -> None:
        nonlocal deleted
        if operation == "update_item" and params["Key"]["sk"]["S"] == "~head" and not deleted:
            deleted = True
            other.delete("trip")

    put_conversation(client, table, clock, 3)
    clock.advance(days=20)
    open_store().append("trip", user_messages("on"))
    clock.advance(days=20)
    store = open_store(client_with_hooks(client, before=delete_first))
    store.append("trip", user_messages("anew"))
    assert deleted
    store.delete("trip")
    [head] = [item for item in items_of(client, table) if item["sk"]["S"] == "~head"]
    assert "deleted" in head
    assert int(head["expires_at"]["N"]) <= (clock() + timedelta(hours=26)).timestamp()
    clock.advance(days=3)
    store.sweep()
    assert keys_of(client, table) == []
