"""For another owner a conversation does not exist: no operation finds or changes it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from chatledger.errors import NotFound
from chatledger.messages import Message
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.store_contract.helpers import Started, texts_of, user_messages
from chatledger.testing.store_contract.operation_table import CALLS as contract_calls
from chatledger.testing.store_contract.operation_table import OWNER_CALLS, Call, each_of
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.tables import items_of, put_items

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CALLS = (
    *OWNER_CALLS,
    *(call for call in contract_calls if call.operation == "append" and call not in OWNER_CALLS),
    Call(
        "append",
        lambda given: {"messages": user_messages("".join(map(chr, range(0x4E00, 0x9E00))) * 5)},
        variant="long",
    ),
    Call(
        "append",
        lambda given: {"messages": user_messages("another"), "revision": 0},
        variant="at revision 0",
    ),
    Call(
        "append",
        lambda given: {"messages": user_messages("another"), "idempotency_key": "request-7"},
        variant="with a used key",
    ),
    Call(
        "replace",
        lambda given: {"seq": given.seqs[0], "message": Message.user("x" * 300_000)},
        variant="with a long one",
    ),
)


@pytest.fixture
def started(open_store: OpenStore, clock: ManualClock) -> Started:
    """A conversation of bob's with a stale head and a tombstone, as a crash may leave it."""
    store = open_store()
    store.create("trip", owner="bob", title="A trip", expires_in=timedelta(days=30))
    appended = store.append(
        "trip", user_messages("1", "2"), owner="bob", idempotency_key="request-7"
    )
    store.append("trip", user_messages("3"), owner="bob")
    store.truncate("trip", after=appended.revision, owner="bob")
    last = store.append("trip", user_messages("4"), owner="bob", reply_follows=True)
    # Long enough for a reader to update the stale head.
    clock.advance(minutes=5)
    return Started("trip", appended.seqs, last.revision)


@each_of(CALLS)
@pytest.mark.parametrize("cached", [False, True], ids=["empty cache", "cached"])
def test_an_operation_by_another_owner_finds_and_changes_nothing(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    started: Started,
    call: Call,
    cached: bool,
) -> None:
    store = open_store()
    if cached:
        appended = store.append(started.id, user_messages("5"), owner="bob", reply_follows=True)
        started = started._replace(revision=appended.revision)
    if call.prepare is not None:
        call.prepare(store, started)
    before = items_of(client, table)
    with pytest.raises(NotFound):
        replace(call, prepare=None)(store, started, caller="Bob")
    assert items_of(client, table) == before
    store.append(started.id, user_messages("from the owner"), owner="bob")
    assert texts_of(store.tail(started.id, 1, owner="bob").messages) == ["from the owner"]


@each_of(call for call in CALLS if call.name in ("append", "tail", "update", "delete", "fork"))
def test_a_conversation_without_an_owner_belongs_to_no_owner(
    client: "DynamoDBClient", table: str, open_store: OpenStore, call: Call
) -> None:
    store = open_store()
    appended = store.append("trip", user_messages("1", "2"))
    before = items_of(client, table)
    with pytest.raises(NotFound):
        call(store, Started("trip", appended.seqs, appended.revision), caller="eve")
    assert items_of(client, table) == before


OWNER_OPERATIONS: dict[str, Callable[[DynamoDBStore], object]] = {
    "list": lambda store: store.list("eve").conversations == [],
    "delete_owner": lambda store: store.delete_owner("eve") == 0,
}


@pytest.mark.parametrize("finds_nothing", OWNER_OPERATIONS.values(), ids=OWNER_OPERATIONS)
@pytest.mark.usefixtures("started")
def test_another_owner_has_no_conversations(
    client: "DynamoDBClient",
    table: str,
    open_store: OpenStore,
    finds_nothing: Callable[[DynamoDBStore], object],
) -> None:
    before = items_of(client, table)
    assert finds_nothing(open_store())
    assert items_of(client, table) == before


def test_a_stale_head_gives_a_former_owner_no_access(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """Lists are read from heads, which may be stale; operations check the log."""
    store = open_store()
    store.append("trip", user_messages("bob's"), owner="bob")
    head = next(item for item in items_of(client, table) if item["sk"]["S"] == "~head")
    store.delete("trip")
    store.append("trip", user_messages("eve's"), owner="eve")
    # As if the head had not been updated since.
    put_items(client, table, [head])
    assert store.delete_owner("bob") == 0
    assert texts_of(store.tail("trip", 5, owner="eve").messages) == ["eve's"]
    clock.advance(minutes=5)
    store.tail("trip", 1, owner="eve")
    assert store.list("bob").conversations == []
    assert [listed.id for listed in store.list("eve").conversations] == ["trip"]
