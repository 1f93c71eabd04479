"""A write whose reply is lost takes effect once, whether the caller or the store retries it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from chatledger.conversations import Appended
from chatledger.errors import StoreUnavailable
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.store_contract.helpers import read_all, texts_of, user_messages
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.faulty_clients import Params, client_with_hooks, lose_reply

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITES = ("put_item", "transact_write_items")
KEY = "request-7"

MEANWHILE: dict[str, Callable[[DynamoDBStore], object]] = {
    "nothing": lambda store: None,
    "others append": lambda store: [
        store.append("trip", user_messages(text)) for text in ("3", "4")
    ],
    "the conversation is truncated": lambda store: store.truncate("trip", after=1),
    "the conversation is cleared and continued": lambda store: (
        store.clear("trip"),
        store.append("trip", user_messages("3")),
    ),
}


def client_losing_replies(
    client: "DynamoDBClient", *, replies: int, landed: bool = True
) -> "DynamoDBClient":
    """Return a client that loses the first ``replies`` replies to writes of records.

    The writes themselves took effect if ``landed``, and were never sent otherwise.
    """
    left = replies

    def lose(operation: str, params: Params) -> None:
        nonlocal left
        if operation in WRITES and left:
            left -= 1
            lose_reply()

    if landed:
        return client_with_hooks(client, after=lose)
    return client_with_hooks(client, before=lose)


@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
@pytest.mark.parametrize("landed", [True, False], ids=["it landed", "it did not land"])
@pytest.mark.parametrize("retried_by", ["the same process", "another process"])
def test_an_append_that_the_caller_retries_15_minutes_later_takes_effect_once(
    client: "DynamoDBClient",
    open_store: OpenStore,
    clock: ManualClock,
    meanwhile: Callable[[DynamoDBStore], object],
    landed: bool,
    retried_by: str,
) -> None:
    other_store = open_store()
    other_store.append("trip", user_messages("1"), owner="bob")
    store = open_store(client_losing_replies(client, replies=1, landed=landed), patience=0)
    with pytest.raises(StoreUnavailable) as failed:
        store.append("trip", user_messages("2"), owner="bob", idempotency_key=KEY)
    assert failed.value.may_have_landed

    meanwhile(other_store)
    seen = texts_of(read_all(other_store, "trip"))
    clock.advance(minutes=15)
    retrying = store if retried_by == "the same process" else open_store()
    appended = retrying.append("trip", user_messages("2"), owner="bob", idempotency_key=KEY)
    if landed:
        assert appended == Appended(range(2, 3), 2)
    assert texts_of(read_all(other_store, "trip")) == (seen if landed else [*seen, "2"])
    assert retrying.append("trip", user_messages("2"), owner="bob", idempotency_key=KEY) == appended
    assert texts_of(read_all(other_store, "trip")) == (seen if landed else [*seen, "2"])


@pytest.mark.parametrize("key", [None, KEY], ids=["", "with a key"])
@pytest.mark.parametrize("replies", [1, 3])
def test_an_append_that_the_store_retries_takes_effect_once(
    client: "DynamoDBClient", open_store: OpenStore, replies: int, key: str | None
) -> None:
    store = open_store(client_losing_replies(client, replies=replies))
    assert store.append("trip", user_messages("1", "2"), idempotency_key=key) == Appended(
        range(1, 3), 2
    )
    assert store.append("trip", user_messages("3")) == Appended(range(3, 4), 3)
    assert texts_of(read_all(store, "trip")) == ["1", "2", "3"]
    assert store.get("trip").message_count == 3


def test_other_changes_that_the_store_retries_take_effect_once(
    client: "DynamoDBClient", open_store: OpenStore
) -> None:
    reliable = open_store()
    for conversation_id in ("truncated", "popped", "replaced", "forked", "deleted"):
        reliable.append(conversation_id, user_messages("1", "2"))
        reliable.append(conversation_id, user_messages("3"))

    def losing_store() -> DynamoDBStore:
        return open_store(client_losing_replies(client, replies=2))

    assert losing_store().truncate("truncated", after=1).revision == 4
    assert texts_of(losing_store().pop("popped", 2)) == ["2", "3"]
    assert losing_store().replace("replaced", 2, user_messages("two")[0]).revision == 4
    assert losing_store().fork("forked", new_id="copy").message_count == 3
    assert losing_store().create("created").revision == 1
    losing_store().delete("deleted")
    assert texts_of(read_all(reliable, "truncated")) == ["1"]
    assert texts_of(read_all(reliable, "popped")) == ["1"]
    assert texts_of(read_all(reliable, "replaced")) == ["1", "two", "3"]
    assert texts_of(read_all(reliable, "copy")) == ["1", "2", "3"]
    assert reliable.append("deleted", user_messages("anew")).revision == 5
