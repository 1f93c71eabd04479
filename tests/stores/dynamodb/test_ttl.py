"""TTL deletes items late, in any order, one at a time; readers never notice."""

from collections import Counter
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest

from chatledger.errors import NotFound
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.store_contract.helpers import (
    Started,
    read_all,
    snapshot_if_any,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import CALLS
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.faulty_clients import Params, client_with_hooks
from tests.stores.dynamodb.tables import items_of, keys_of
from tests.stores.dynamodb.ttl_reaper import TTLReaper

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIFETIMES = {"an hour": HOUR, "3 days": 3 * DAY, "30 days": 30 * DAY}
LONG = "".join(map(chr, range(0x4E00, 0x9E00))) * 4
"""A text that does not fit into a record, so that it is stored in body parts."""


@pytest.fixture
def reaper(client: "DynamoDBClient", table: str, clock: ManualClock) -> TTLReaper:
    return TTLReaper(client, table, clock)


# Live conversations -------------------------------------------------------------------------------


@pytest.mark.parametrize("lifetime", LIFETIMES.values(), ids=LIFETIMES)
def test_a_live_conversation_loses_no_message_over_many_lifetimes(
    open_store: OpenStore, clock: ManualClock, reaper: TTLReaper, lifetime: timedelta
) -> None:
    random = Random(7)
    stores = [open_store(reaper.client(), expire_after=lifetime) for _ in range(2)]
    stores[0].create("trip", owner="bob", title="A trip")
    expected: list[str] = []
    for n in range(36):
        clock.advance(seconds=random.choice([0, 0.3, 0.99]) * lifetime.total_seconds())
        store = random.choice(stores) if random.random() < 0.8 else open_store(reaper.client())
        perform(store, expected, random.choice(OPERATIONS), n)
        assert texts_of(read_all(random.choice(stores), "trip")) == expected
    assert clock() - stores[0].get("trip").created_at > 10 * lifetime
    assert stores[0].get("trip").title == "A trip"
    [conversation] = stores[0].list("bob").conversations
    assert conversation == stores[0].get("trip")


OPERATIONS = [
    *["append"] * 5,
    "append with a key",
    "append a long message",
    "truncate",
    "pop",
    "replace",
]
"""Drawn at random; most are plain appends."""


def perform(store: DynamoDBStore, expected: list[str], operation: str, n: int) -> None:
    """Perform the operation on the store and on the texts that it is expected to hold."""
    match operation:
        case "append" | "append with a key":
            texts = [f"{n}: 1", f"{n}: 2"]
            key = f"request-{n}" if operation == "append with a key" else None
            store.append("trip", user_messages(*texts), idempotency_key=key)
            expected += texts
        case "append a long message":
            store.append("trip", user_messages(f"{n}", LONG))
            expected += [f"{n}", LONG]
        case "truncate" if len(expected) > 4:
            last_kept = store.tail("trip", 4).messages[0].seq
            store.truncate("trip", after=last_kept)
            del expected[-3:]
        case "pop" if expected:
            assert texts_of(store.pop("trip")) == expected[-1:]
            del expected[-1:]
        case "replace" if expected:
            last = store.tail("trip", 1).messages[0].seq
            store.replace("trip", last, Message.user(f"{n}: instead"))
            expected[-1] = f"{n}: instead"


@pytest.mark.parametrize("lifetime", LIFETIMES.values(), ids=LIFETIMES)
@pytest.mark.parametrize("gap", [0.1, 0.35, 0.99])
def test_extending_ttls_costs_each_item_at_most_one_write_per_lifetime(
    client: "DynamoDBClient",
    open_store: OpenStore,
    clock: ManualClock,
    reaper: TTLReaper,
    lifetime: timedelta,
    gap: float,
) -> None:
    extensions: Counter[str] = Counter()

    def count(operation: str, params: Params) -> None:
        if operation == "update_item" and params["Key"]["sk"]["S"] != "~head":
            extensions[params["Key"]["sk"]["S"]] += 1

    store = open_store(client_with_hooks(reaper.client(), before=count), expire_after=lifetime)
    store.append("trip", user_messages("1", LONG))
    lifetimes = 6
    appends = int(lifetimes / gap)
    for _ in range(appends):
        clock.advance(seconds=gap * lifetime.total_seconds())
        store.append("trip", user_messages("1"), reply_follows=True)
    assert store.get("trip").message_count == 2 + appends
    assert max(extensions.values(), default=0) <= lifetimes
    if lifetime >= 3 * DAY:
        assert extensions, "otherwise TTL would have deleted the items"


# Expired conversations ----------------------------------------------------------------------------


def start_conversation(store: DynamoDBStore) -> Started:
    """Start a conversation that has items of every kind."""
    store.create("trip", owner="bob", title="A trip")
    first = store.append("trip", user_messages("1", "2"), idempotency_key="request-7")
    store.append("trip", user_messages("3", LONG))
    store.append("trip", user_messages("4"))
    store.pop("trip")
    last = store.append("trip", user_messages("5"))
    return Started("trip", first.seqs, last.revision, owner="bob")


@pytest.mark.parametrize("seed", range(2))
def test_an_expired_conversation_is_invisible_at_once_whatever_items_are_left(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, seed: int
) -> None:
    store, reaper = open_store(expire_after=HOUR), TTLReaper(client, table, clock, seed=seed)
    started = start_conversation(store)
    clock.advance(hours=1, milliseconds=-1)
    assert snapshot_if_any(store, started.id) is not None
    clock.advance(milliseconds=1)

    def assert_invisible() -> None:
        for reader in (store, open_store()):
            assert snapshot_if_any(reader, started.id) is None
            assert reader.list("bob").conversations == []
        for call in CALLS:
            if call.needs_conversation:
                with pytest.raises(NotFound):
                    call(store, started)

    assert_invisible()
    clock.advance(days=400)
    while reaper.delete_one():
        assert_invisible()
    assert len(reaper.deleted) >= 8
    assert keys_of(client, table) == []


@pytest.mark.parametrize("how", ["append", "append after 0", "create", "fork"])
@pytest.mark.parametrize("seed", range(2))
def test_an_append_to_an_expired_conversation_starts_a_new_one_whatever_items_are_left(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    how: str,
    seed: int,
) -> None:
    reaper = TTLReaper(client, table, clock, seed=seed)
    for deletions in (0, 3, 6):
        cached = open_store(expire_after=HOUR)
        started = start_conversation(cached)
        clock.advance(days=40)
        for _ in range(deletions):
            reaper.delete_one()
        store = open_store() if seed else cached
        match how:
            case "append":
                store.append(started.id, user_messages("new"), owner="eve")
            case "append after 0":
                store.append(started.id, user_messages("new"), owner="eve", revision=0)
            case "create":
                store.create(started.id, owner="eve")
                store.append(started.id, user_messages("new"), owner="eve")
            case "fork":
                store.append("other", user_messages("new"), owner="eve")
                store.fork("other", new_id=started.id)
        for _ in range(2):
            tail = store.tail(started.id, 9, owner="eve")
            assert texts_of(tail.messages) == ["new"]
            assert tail.conversation.title is None
            assert tail.conversation.message_count == 1
            assert started.id in [listed.id for listed in store.list("eve").conversations]
            assert store.list("bob").conversations == []
            reaper.delete_all()
        if store is not cached:
            # The idempotency key was used in the expired conversation, so it does not count.
            store.append(started.id, user_messages("more"), idempotency_key="request-7")
            assert texts_of(store.tail(started.id, 9).messages) == ["new", "more"]
        store.delete_owner("eve")
        clock.advance(days=40)
        reaper.delete_all()
        assert keys_of(client, table) == []


# No lifetime, and changed lifetimes ---------------------------------------------------------------


def test_without_a_lifetime_only_tombstones_and_idempotency_keys_have_a_ttl(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    reaper: TTLReaper,
) -> None:
    store = open_store()
    started = start_conversation(store)
    store.replace(started.id, started.seqs[0], Message.user(LONG))
    store.truncate(started.id, after=started.seqs[1])
    store.append(started.id, user_messages(*map(str, range(2_000))))
    store.update(started.id, title="Another")
    store.fork(started.id, new_id="copy")
    for item in items_of(client, table):
        is_tombstone = item["sk"]["S"].startswith("m#") and "l" not in item
        is_key = item["sk"]["S"].startswith("k#")
        assert ("expires_at" in item) == (is_tombstone or is_key), item["sk"]
    before = snapshot_if_any(store, started.id), snapshot_if_any(store, "copy")
    clock.advance(days=4_000)
    reaper.delete_all()
    assert (
        snapshot_if_any(open_store(), started.id),
        snapshot_if_any(open_store(), "copy"),
    ) == before


LIFETIME_CHANGES: dict[str, list[timedelta | None]] = {
    "added": [None, 30 * DAY],
    "removed": [30 * DAY, None],
    "shortened": [30 * DAY, HOUR],
    "lengthened": [HOUR, 30 * DAY],
    "added, removed and added": [None, HOUR, None, 3 * DAY],
}


@pytest.mark.parametrize("lifetimes", LIFETIME_CHANGES.values(), ids=LIFETIME_CHANGES)
@pytest.mark.parametrize("seed", range(2))
def test_a_conversation_keeps_its_lifetime_when_the_stores_lifetime_changes(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: ManualClock,
    lifetimes: list[timedelta | None],
    seed: int,
) -> None:
    reaper = TTLReaper(client, table, clock, seed=seed)
    client_with_ttl = reaper.client()
    lifetime, *others = lifetimes
    store = open_store(client_with_ttl, expire_after=lifetime)
    store.create("trip", owner="bob", title="A trip")
    store.append("trip", user_messages("1", LONG))
    texts = ["1", LONG]
    for other in others:
        clock.advance(minutes=50)
        store = open_store(client_with_ttl, expire_after=other)
        for _ in range(2):
            store.append("trip", user_messages("more"))
            texts.append("more")
            assert texts_of(read_all(store, "trip")) == texts
    if lifetime is None:
        assert store.get("trip").expires_at is None
        clock.advance(days=4_000)
        reaper.delete_all()
        assert texts_of(read_all(open_store(client_with_ttl), "trip")) == texts
        assert [listed.title for listed in store.list("bob").conversations] == ["A trip"]
        return
    assert store.get("trip").expires_at == clock() + lifetime
    clock.advance(seconds=lifetime.total_seconds() - 1)
    reaper.delete_all()
    assert texts_of(read_all(open_store(client_with_ttl), "trip")) == texts
    clock.advance(seconds=1)
    for days in (0, 1, 2, 4_000):
        clock.advance(days=days)
        while True:
            for opened_with in lifetimes:
                assert snapshot_if_any(open_store(expire_after=opened_with), "trip") is None
            assert store.list("bob").conversations == []
            if not reaper.delete_one():
                break
    store.sweep()
    assert keys_of(client, table) == []
