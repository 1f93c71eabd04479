"""To a stranger a conversation does not exist: what is asked in another's name changes nothing."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from chatledger.errors import NotFound
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.store_contract.helpers import NEEDS_ONE, Begun, Operation, said, say
from tests.stores.dynamodb.conftest import OpenStore, SetClock
from tests.stores.dynamodb.tables import items_of, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPERATIONS: dict[str, Operation] = NEEDS_ONE | {
    "append": lambda store, it, owner: store.append(it.id, say("another"), owner=owner),
    "append long": lambda store, it, owner: store.append(
        it.id, say("".join(map(chr, range(0x4E00, 0x9E00))) * 5), owner=owner
    ),
    "append after 0": lambda store, it, owner: store.append(
        it.id, say("another"), after=0, owner=owner
    ),
    "append with a key": lambda store, it, owner: store.append(
        it.id, say("another"), idempotency_key="request-8", owner=owner
    ),
    "append with a key that is known": lambda store, it, owner: store.append(
        it.id, say("another"), idempotency_key="request-7", owner=owner
    ),
    "replace with a long one": lambda store, it, owner: store.replace(
        it.id, it.seqs[0], Message.user("x" * 300_000), owner=owner
    ),
}


@pytest.fixture
def it(open_store: OpenStore, clock: SetClock) -> Begun:
    """A conversation of bob's, and what a crash and a removal leave for others to tidy."""
    store = open_store()
    store.create("trip", owner="bob", title="A trip", expires_in=timedelta(days=30))
    appended = store.append("trip", say("1", "2"), owner="bob", idempotency_key="request-7")
    store.append("trip", say("3"), owner="bob")
    store.truncate("trip", after=appended.revision, owner="bob")
    last = store.append("trip", say("4"), owner="bob", reply_follows=True)
    # Long enough for a reader to renew the head that is stale now.
    clock.advance(minutes=5)
    return Begun("trip", appended.seqs, last.revision)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_in_a_strangers_name_nothing_is_found_and_nothing_changes(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    it: Begun,
    operation: Operation,
    warm: bool,
) -> None:
    store = open_store()
    if warm:
        appended = store.append(it.id, say("5"), owner="bob", reply_follows=True)
        it = it._replace(revision=appended.revision)
    before = items_of(client, table)
    with pytest.raises(NotFound):
        operation(store, it, "Bob")
    assert items_of(client, table) == before
    store.append(it.id, say("the owner goes on"), owner="bob")
    assert said(store.tail(it.id, 1, owner="bob").messages) == ["the owner goes on"]


ANONYMOUS = {name: OPERATIONS[name] for name in ("append", "tail", "update", "delete", "fork")}


@pytest.mark.parametrize("operation", ANONYMOUS.values(), ids=ANONYMOUS)
def test_a_conversation_without_an_owner_is_nobodys(
    client: "DynamoDBClient", table: str, open_store: OpenStore, operation: Operation
) -> None:
    store = open_store()
    appended = store.append("trip", say("1", "2"))
    before = items_of(client, table)
    with pytest.raises(NotFound):
        operation(store, Begun("trip", appended.seqs, appended.revision), "eve")
    assert items_of(client, table) == before


LISTS: dict[str, Callable[[DynamoDBStore], object]] = {
    "list": lambda store: store.list("eve").conversations == [],
    "delete_owner": lambda store: store.delete_owner("eve") == 0,
}


@pytest.mark.parametrize("call", LISTS.values(), ids=LISTS)
@pytest.mark.usefixtures("it")
def test_a_stranger_has_no_conversations(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    call: Callable[[DynamoDBStore], object],
) -> None:
    before = items_of(client, table)
    assert call(open_store())
    assert items_of(client, table) == before


def test_a_forgotten_entry_of_a_former_owner_gives_him_nothing(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock
) -> None:
    """A list is read from heads, which are late; what is done by it asks the log."""
    store = open_store()
    store.append("trip", say("bob's"), owner="bob")
    head = next(item for item in items_of(client, table) if item["sk"]["S"] == "~head")
    store.delete("trip")
    store.append("trip", say("eve's"), owner="eve")
    # As if nobody had renewed it since.
    put_items(client, table, [head])
    assert store.delete_owner("bob") == 0
    assert said(store.tail("trip", 5, owner="eve").messages) == ["eve's"]
    clock.advance(minutes=5)
    store.tail("trip", 1, owner="eve")
    assert store.list("bob").conversations == []
    assert [found.id for found in store.list("eve").conversations] == ["trip"]
