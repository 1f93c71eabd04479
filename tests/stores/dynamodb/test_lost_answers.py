"""An append whose answer is lost, tried again by hand and by the store, is in once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from chatledger.conversations import Appended
from chatledger.errors import StoreUnavailable
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.store_contract.helpers import read_all, said, say
from tests.stores.dynamodb.clients import Params, no_answer, watched_client
from tests.stores.dynamodb.conftest import OpenStore, SetClock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITES = ("put_item", "transact_write_items")
KEY = "request-7"

MEANWHILE: dict[str, Callable[[DynamoDBStore], object]] = {
    "nothing": lambda store: None,
    "others append": lambda store: [store.append("trip", say(text)) for text in ("3", "4")],
    "it is truncated": lambda store: store.truncate("trip", after=1),
    "it is cleared and goes on": lambda store: (
        store.clear("trip"),
        store.append("trip", say("3")),
    ),
}


def losing(client: "DynamoDBClient", *, answers: int, landed: bool = True) -> "DynamoDBClient":
    """A client that loses the first ``answers`` to writes of records, which ``landed`` or not."""
    left = answers

    def lose(operation: str, params: Params) -> None:
        nonlocal left
        if operation in WRITES and left:
            left -= 1
            no_answer()

    return watched_client(client, behind=lose) if landed else watched_client(client, before=lose)


@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
@pytest.mark.parametrize("landed", [True, False], ids=["it landed", "it was lost too"])
@pytest.mark.parametrize("by", ["the same process", "another one"])
def test_an_append_tried_again_by_hand_15_minutes_later_is_in_once(
    client: "DynamoDBClient",
    open_store: OpenStore,
    clock: SetClock,
    meanwhile: Callable[[DynamoDBStore], object],
    landed: bool,
    by: str,
) -> None:
    others = open_store()
    others.append("trip", say("1"), owner="bob")
    store = open_store(losing(client, answers=1, landed=landed), patience=0)
    with pytest.raises(StoreUnavailable) as failed:
        store.append("trip", say("2"), owner="bob", idempotency_key=KEY)
    assert failed.value.may_have_landed

    meanwhile(others)
    seen = said(read_all(others, "trip"))
    clock.advance(minutes=15)
    again = store if by == "the same process" else open_store()
    appended = again.append("trip", say("2"), owner="bob", idempotency_key=KEY)
    if landed:
        assert appended == Appended(range(2, 3), 2)
    assert said(read_all(others, "trip")) == (seen if landed else [*seen, "2"])
    assert again.append("trip", say("2"), owner="bob", idempotency_key=KEY) == appended
    assert said(read_all(others, "trip")) == (seen if landed else [*seen, "2"])


@pytest.mark.parametrize("key", [None, KEY], ids=["", "with a key"])
@pytest.mark.parametrize("answers", [1, 3])
def test_an_append_that_the_store_tries_again_is_in_once(
    client: "DynamoDBClient", open_store: OpenStore, answers: int, key: str | None
) -> None:
    store = open_store(losing(client, answers=answers))
    assert store.append("trip", say("1", "2"), idempotency_key=key) == Appended(range(1, 3), 2)
    assert store.append("trip", say("3")) == Appended(range(3, 4), 3)
    assert said(read_all(store, "trip")) == ["1", "2", "3"]
    assert store.get("trip").message_count == 3


def test_other_changes_that_the_store_tries_again_happen_once(
    client: "DynamoDBClient", open_store: OpenStore
) -> None:
    plain = open_store()
    for conversation_id in ("truncated", "popped", "replaced", "forked", "deleted"):
        plain.append(conversation_id, say("1", "2"))
        plain.append(conversation_id, say("3"))

    def store() -> DynamoDBStore:
        return open_store(losing(client, answers=2))

    assert store().truncate("truncated", after=1).revision == 4
    assert said(store().pop("popped", 2)) == ["2", "3"]
    assert store().replace("replaced", 2, say("two")[0]).revision == 4
    assert store().fork("forked", new_id="copy").message_count == 3
    assert store().create("created").revision == 1
    store().delete("deleted")
    assert said(read_all(plain, "truncated")) == ["1"]
    assert said(read_all(plain, "popped")) == ["1"]
    assert said(read_all(plain, "replaced")) == ["1", "two", "3"]
    assert said(read_all(plain, "copy")) == ["1", "2", "3"]
    assert plain.append("deleted", say("anew")).revision == 5
