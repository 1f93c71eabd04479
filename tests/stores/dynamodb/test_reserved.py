"""Conversations with reserved ids: their heads may lag, because no list shows them."""

from datetime import timedelta

import pytest

from chatledger.messages import Message
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.meter import Meter

ID = "chatledger:langgraph:1"


@pytest.mark.parametrize("lifetime", [None, timedelta(hours=8), timedelta(days=30)])
def test_a_read_updates_the_head_only_if_it_lags_far_behind(
    client: object, open_store: OpenStore, clock: ManualClock, lifetime: timedelta | None
) -> None:
    store, meter = open_store(expire_after=lifetime), Meter(client)  # type: ignore[arg-type]
    store.append(ID, [Message.user("first")])
    written = []
    limit = timedelta(days=1) if lifetime is None else min(timedelta(days=1), lifetime / 4)
    for _ in range(6):
        clock.advance(seconds=(limit / 3).total_seconds())
        store.append(ID, [Message.user("hello")], reply_follows=True)
        clock.advance(minutes=5)
        with meter.measured() as cost:
            assert store.tail(ID, 1).conversation.updated_at > clock() - timedelta(minutes=6)
        written.append(cost.operations[1:])
    update = ["Query", "UpdateItem"]
    assert written == [[], [], update, [], [], update]


def test_a_missing_head_is_made_again(
    client: object, open_store: OpenStore, clock: ManualClock
) -> None:
    store = open_store()
    store.append(ID, [Message.user("first")], title="A thread")
    key = {"pk": {"S": f"c#{ID}"}, "sk": {"S": "~head"}}
    client.delete_item(TableName=store._table.name, Key=key)  # type: ignore[attr-defined]
    clock.advance(minutes=5)
    assert store.tail(ID, 1).conversation.title == "A thread"
    assert [found.id for found in store.scan().conversations] == [ID]
