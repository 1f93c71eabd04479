"""Conversations that follow each other under one id, and heads that are missing or out of date."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from chatledger.errors import NotFound, StoreUnavailable
from chatledger.stores.dynamodb.records import HEAD, key
from chatledger.testing.store_contract.helpers import (
    foreign_conversation,
    messages_from,
    read_all,
    texts_of,
    user_messages,
)
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.faulty_clients import Crashed, Params, client_with_hooks, crashing_client
from tests.stores.dynamodb.tables import items_of, keys_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LONG = "".join(map(chr, range(0x4E00, 0x9E00))) * 4
"""A text that does not fit into a record, so that it is stored in body parts."""


def test_delete_owner_reaches_a_conversation_without_a_head_once_sweep_has_run(
    client: "DynamoDBClient", table: str, open_store: OpenStore
) -> None:
    """The process died between the first record and the head, which the owner's index is made of.
    Nothing said that ``sweep`` is to be run first (finding 11).
    """
    with pytest.raises(Crashed):
        open_store(crashing_client(client, 2, landed=False)).append(
            "trip", user_messages("my diagnosis"), owner="bob"
        )
    assert [sort for _, sort in keys_of(client, table)] == ["m#0000000000000001"]
    store = open_store()
    store.sweep()
    assert [listed.id for listed in store.list("bob").conversations] == ["trip"]
    assert store.delete_owner("bob") == 1
    assert "diagnosis" not in repr(items_of(client, table))


def test_delete_owner_looks_again_while_the_index_lags(
    client: "DynamoDBClient", open_store: OpenStore
) -> None:
    """One walk that found nothing ended it, although the index may lag (finding 11)."""
    open_store().append("seen", user_messages("1"), owner="bob")
    open_store().append("late", user_messages("1"), owner="bob")
    walks = 0

    def lag(operation: str, params: Params) -> None:
        nonlocal walks
        if operation == "query" and "IndexName" in params:
            walks += 1
            if walks == 1:
                params["FilterExpression"] = "pk <> :late"
                params["ExpressionAttributeValues"] = params["ExpressionAttributeValues"] | {
                    ":late": {"S": "c#late"}
                }

    assert open_store(client_with_hooks(client, before=lag)).delete_owner("bob") == 2
    assert walks >= 3
    with pytest.raises(NotFound):
        open_store().get("late")


def test_a_conversation_that_is_restored_again_after_its_deletion_can_be_updated(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """TTL had deleted the log, but not yet the head, which was marked as deleted. The restored
    conversation was like the first one to the millisecond, so it kept that head without a title,
    and ``update`` never ended (finding 13).
    """
    store = open_store()
    conversation = foreign_conversation(2, id="trip", owner="bob", created_at=clock())
    conversation = store.restore(conversation, messages_from(1, "1", "2"), revision=0)
    store.update("trip", title="Plans for May")
    store.delete("trip")
    for pk, sort in keys_of(client, table):
        if sort != HEAD:
            client.delete_item(TableName=table, Key={"pk": {"S": pk}, "sk": {"S": sort}})
    restored = store.restore(
        foreign_conversation(2, id="trip", owner="bob", title="Plans", created_at=clock()),
        messages_from(1, "1", "2"),
        revision=0,
    )
    assert restored.title == "Plans"
    assert store.get("trip") == restored
    assert [listed.title for listed in store.list("bob").conversations] == ["Plans"]
    assert store.update("trip", title="Plans for June").title == "Plans for June"


def test_a_deletion_that_finds_no_log_leaves_the_head_of_the_next_conversation(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """It deleted the head if it had the same revision, and with it the new title (finding 14)."""
    other = open_store()
    other.append("trip", user_messages("1"), owner="bob")
    client.delete_item(TableName=table, Key=key("trip", "m#0000000000000001"))

    def begin_anew(operation: str, params: Params) -> None:
        if operation == "delete_item":
            clock.advance(seconds=1)
            other.create("trip", owner="bob", title="Today")
            other.update("trip", title="Renamed by Ada")

    store = open_store(client_with_hooks(client, before=begin_anew))
    with pytest.raises(NotFound):
        store.delete("trip")
    assert [listed.title for listed in other.list("bob").conversations] == ["Renamed by Ada"]
    assert other.get("trip").title == "Renamed by Ada"


def test_sweep_deletes_the_head_of_a_deleted_conversation_whose_log_is_gone(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """It left such a head if it had no TTL, which therefore stayed for ever (finding 22)."""
    store = open_store()
    store.append("trip", user_messages("1"), owner="bob")
    store.delete("trip")
    for pk, sort in keys_of(client, table):
        if sort != HEAD:
            client.delete_item(TableName=table, Key={"pk": {"S": pk}, "sk": {"S": sort}})
    client.update_item(TableName=table, Key=key("trip", HEAD), UpdateExpression="REMOVE expires_at")
    clock.advance(days=2)
    store.sweep()
    assert keys_of(client, table) == []


@pytest.mark.parametrize("cached", [True, False])
def test_a_writer_that_slept_for_a_day_does_not_write_to_a_position_that_was_freed(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock, cached: bool
) -> None:
    """Between its read of the log's end and its put it slept for over a day. Meanwhile the
    conversation was deleted, and TTL freed the position; the put went there (finding 29).
    """
    other = open_store()
    other.append("trip", user_messages("1"), owner="bob")
    sleeps = False

    def sleep(operation: str, params: Params) -> None:
        nonlocal sleeps
        if sleeps and operation == ("batch_write_item" if cached else "query"):
            sleeps = False
            other.delete("trip")
            clock.advance(days=3)
            other.sweep()

    store = open_store(client_with_hooks(client, after=sleep))
    if cached:
        store.append("trip", user_messages("2"))
    sleeps = True
    with pytest.raises(StoreUnavailable, match="longer than an hour") as failed:
        store.append("trip", user_messages(LONG), owner="bob")
    assert not sleeps
    assert failed.value.may_have_landed
    assert not any(sort.startswith("m#") for _, sort in keys_of(client, table))
    assert list(store.append("trip", user_messages("anew")).seqs) == [1]


def test_a_fork_that_slept_for_a_day_copies_the_messages_again(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    """``sweep`` had deleted the copy as an orphan, and the fork's record named it (finding 29)."""
    other = open_store()
    other.append("trip", user_messages("1", LONG), owner="bob")
    slept = False

    def sleep(operation: str, params: Params) -> None:
        nonlocal slept
        if operation == "batch_write_item" and not slept:
            slept = True
            clock.advance(days=2)
            assert other.sweep() >= 1

    store = open_store(client_with_hooks(client, after=sleep))
    fork = store.fork("trip")
    assert slept
    assert texts_of(read_all(open_store(), fork.id)) == ["1", LONG]
    clock.advance(days=2)
    other.sweep()
    assert texts_of(read_all(open_store(), fork.id)) == ["1", LONG]


@pytest.mark.parametrize("lifetime", [None, timedelta(hours=1)])
def test_a_conversation_is_listed_by_the_clock_after_its_query(
    client: "DynamoDBClient", open_store: OpenStore, clock: ManualClock, lifetime: timedelta | None
) -> None:
    """The clock was read before the query, which may be throttled for long (finding 21)."""
    open_store().create("trip", owner="bob", expires_in=lifetime)

    def be_slow(operation: str, params: Params) -> None:
        clock.advance(hours=1)

    store = open_store(client_with_hooks(client, after=be_slow))
    assert bool(store.list("bob").conversations) == (lifetime is None)
