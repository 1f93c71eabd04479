"""TTL deletes late, in any order, an item at a time: readers notice nothing of it."""

from collections import Counter
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest

from chatledger.errors import NotFound
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.store_contract.helpers import (
    NEEDS_ONE,
    Begun,
    look,
    read_all,
    said,
    say,
    seq_of,
)
from tests.stores.dynamodb.clients import Params, watched_client
from tests.stores.dynamodb.conftest import OpenStore, SetClock
from tests.stores.dynamodb.tables import items_of, keys_of
from tests.stores.dynamodb.ttl_reaper import Reaper

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIFETIMES = {"an hour": HOUR, "3 days": 3 * DAY, "30 days": 30 * DAY}
LONG = "".join(map(chr, range(0x4E00, 0x9E00))) * 4
"""A text that lies in parts, since it does not fit into a record."""


@pytest.fixture
def reaper(client: "DynamoDBClient", table: str, clock: SetClock) -> Reaper:
    return Reaper(client, table, clock)


# Those that live


@pytest.mark.parametrize("lifetime", LIFETIMES.values(), ids=LIFETIMES)
def test_a_conversation_that_lives_never_loses_a_message_over_many_lifetimes(
    open_store: OpenStore, clock: SetClock, reaper: Reaper, lifetime: timedelta
) -> None:
    random = Random(7)
    stores = [open_store(reaper.client(), expire_after=lifetime) for _ in range(2)]
    stores[0].create("trip", owner="bob", title="A trip")
    model: list[str] = []
    for n in range(36):
        clock.advance(seconds=random.choice([0, 0.3, 0.99]) * lifetime.total_seconds())
        store = random.choice(stores) if random.random() < 0.8 else open_store(reaper.client())
        change(store, model, random.choice([*"aaaaak", "long", "truncate", "pop", "replace"]), n)
        assert said(read_all(random.choice(stores), "trip")) == model
    assert clock() - stores[0].get("trip").created_at > 10 * lifetime
    assert stores[0].get("trip").title == "A trip"
    [listed] = stores[0].list("bob").conversations
    assert listed == stores[0].get("trip")


def change(store: DynamoDBStore, model: list[str], what: str, n: int) -> None:
    """Do it to the store and to what it should hold."""
    match what:
        case "a" | "k":
            texts = [f"{n}: 1", f"{n}: 2"]
            key = f"request-{n}" if what == "k" else None
            store.append("trip", say(*texts), idempotency_key=key)
            model += texts
        case "long":
            store.append("trip", say(f"{n}", LONG))
            model += [f"{n}", LONG]
        case "truncate" if len(model) > 4:
            kept = seq_of(store.tail("trip", 4).messages[0])
            store.truncate("trip", after=kept)
            del model[-3:]
        case "pop" if model:
            assert said(store.pop("trip")) == model[-1:]
            del model[-1:]
        case "replace" if model:
            last = seq_of(store.tail("trip", 1).messages[0])
            store.replace("trip", last, Message.user(f"{n}: instead"))
            model[-1] = f"{n}: instead"


@pytest.mark.parametrize("lifetime", LIFETIMES.values(), ids=LIFETIMES)
@pytest.mark.parametrize("gap", [0.1, 0.35, 0.99])
def test_to_renew_the_stamps_costs_an_item_at_most_one_write_a_lifetime(
    client: "DynamoDBClient",
    open_store: OpenStore,
    clock: SetClock,
    reaper: Reaper,
    lifetime: timedelta,
    gap: float,
) -> None:
    renewals: Counter[str] = Counter()

    def count(operation: str, params: Params) -> None:
        if operation == "update_item" and params["Key"]["sk"]["S"] != "~head":
            renewals[params["Key"]["sk"]["S"]] += 1

    store = open_store(watched_client(reaper.client(), before=count), expire_after=lifetime)
    store.append("trip", say("1", LONG))
    lifetimes = 6
    appends = int(lifetimes / gap)
    for _ in range(appends):
        clock.advance(seconds=gap * lifetime.total_seconds())
        store.append("trip", say("1"), reply_follows=True)
    assert store.get("trip").message_count == 2 + appends
    assert max(renewals.values(), default=0) <= lifetimes
    if lifetime >= 3 * DAY:
        assert renewals, "the items would have been eaten"


# Those that expired


def brief(store: DynamoDBStore) -> Begun:
    """A conversation that has seen everything, and expires an hour from now."""
    store.create("trip", owner="bob", title="A trip")
    first = store.append("trip", say("1", "2"), idempotency_key="request-7")
    store.append("trip", say("3", LONG))
    store.append("trip", say("4"))
    store.pop("trip")
    last = store.append("trip", say("5"))
    return Begun("trip", first.seqs, last.revision)


@pytest.mark.parametrize("seed", range(2))
def test_an_expired_conversation_is_gone_at_once_whatever_is_left_of_it(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock, seed: int
) -> None:
    warm, reaper = open_store(expire_after=HOUR), Reaper(client, table, clock, seed=seed)
    it = brief(warm)
    clock.advance(hours=1, milliseconds=-1)
    assert look(warm, it.id) is not None
    clock.advance(milliseconds=1)

    def is_gone() -> None:
        for store in (warm, open_store()):
            assert look(store, it.id) is None
            assert store.list("bob").conversations == []
        for operation in NEEDS_ONE.values():
            with pytest.raises(NotFound):
                operation(warm, it, None)

    is_gone()
    clock.advance(days=400)
    while reaper.eat_one():
        is_gone()
    assert len(reaper.eaten) >= 8
    assert keys_of(client, table) == []


@pytest.mark.parametrize("how", ["append", "append after 0", "create", "fork"])
@pytest.mark.parametrize("seed", range(2))
def test_an_append_to_an_expired_one_starts_anew_whatever_is_left_of_it(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: SetClock,
    how: str,
    seed: int,
) -> None:
    reaper = Reaper(client, table, clock, seed=seed)
    for left_over in (0, 3, 6):
        warm = open_store(expire_after=HOUR)
        it = brief(warm)
        clock.advance(days=40)
        for _ in range(left_over):
            reaper.eat_one()
        store = open_store() if seed else warm
        match how:
            case "append":
                store.append(it.id, say("new"), owner="eve")
            case "append after 0":
                store.append(it.id, say("new"), owner="eve", after=0)
            case "create":
                store.create(it.id, owner="eve")
                store.append(it.id, say("new"), owner="eve")
            case "fork":
                store.append("other", say("new"), owner="eve")
                store.fork("other", new_id=it.id)
        for _ in range(2):
            tail = store.tail(it.id, 9, owner="eve")
            assert said(tail.messages) == ["new"]
            assert tail.conversation.title is None
            assert tail.conversation.message_count == 1
            assert [found.id for found in store.list("eve").conversations if found.id == it.id]
            assert store.list("bob").conversations == []
            reaper.eat_all()
        if store is not warm:
            # In its own words too: the key was another conversation's.
            store.append(it.id, say("more"), idempotency_key="request-7")
            assert said(store.tail(it.id, 9).messages) == ["new", "more"]
        store.delete_owner("eve")
        clock.advance(days=40)
        reaper.eat_all()
        assert keys_of(client, table) == []


# Those that live for ever, or for another time


def test_without_a_lifetime_no_item_of_a_conversation_has_a_stamp(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock, reaper: Reaper
) -> None:
    store = open_store()
    it = brief(store)
    store.replace(it.id, it.seqs[0], Message.user(LONG))
    store.truncate(it.id, after=it.seqs[1])
    store.append(it.id, say(*map(str, range(2_000))))
    store.update(it.id, title="Another")
    store.fork(it.id, new_id="copy")
    for item in items_of(client, table):
        fence = item["sk"]["S"].startswith("m#") and "l" not in item
        key = item["sk"]["S"].startswith("k#")
        assert ("expires_at" in item) == (fence or key), item["sk"]
    before = look(store, it.id), look(store, "copy")
    clock.advance(days=4_000)
    reaper.eat_all()
    assert (look(open_store(), it.id), look(open_store(), "copy")) == before


CHANGES: dict[str, list[timedelta | None]] = {
    "added": [None, 30 * DAY],
    "removed": [30 * DAY, None],
    "shortened": [30 * DAY, HOUR],
    "prolonged": [HOUR, 30 * DAY],
    "added, removed and added": [None, HOUR, None, 3 * DAY],
}


@pytest.mark.parametrize("lifetimes", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("seed", range(2))
def test_where_the_stores_lifetime_changes_the_last_activity_decides(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    clock: SetClock,
    lifetimes: list[timedelta | None],
    seed: int,
) -> None:
    reaper = Reaper(client, table, clock, seed=seed)
    through = reaper.client()
    first, *others = lifetimes
    store = open_store(through, expire_after=first)
    store.create("trip", owner="bob", title="A trip")
    store.append("trip", say("1", LONG))
    texts = ["1", LONG]
    for lifetime in others:
        clock.advance(minutes=50)
        store = open_store(through, expire_after=lifetime)
        for _ in range(2):
            store.append("trip", say("more"))
            texts.append("more")
            assert said(read_all(store, "trip")) == texts
    lifetime = lifetimes[-1]
    if lifetime is None:
        clock.advance(days=4_000)
        reaper.eat_all()
        assert said(read_all(open_store(through), "trip")) == texts
        assert [found.title for found in store.list("bob").conversations] == ["A trip"]
        return
    assert store.get("trip").expires_at == clock() + lifetime
    clock.advance(seconds=lifetime.total_seconds() - 1)
    reaper.eat_all()
    assert said(read_all(open_store(through), "trip")) == texts
    clock.advance(seconds=1)
    for days in (0, 1, 2, 4_000):
        clock.advance(days=days)
        while True:
            for opened in lifetimes:
                assert look(open_store(expire_after=opened), "trip") is None
            assert store.list("bob").conversations == []
            if not reaper.eat_one():
                break
    store.sweep()
    assert keys_of(client, table) == []
