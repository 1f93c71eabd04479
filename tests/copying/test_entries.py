"""Entries are copied with their conversations and owners."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chatledger import Copied, Store, acopy, copy
from chatledger.errors import Conflict
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.entries import VALUES, read_entries, type_of
from chatledger.testing.store_contract.helpers import user_messages
from tests.copying.conftest import OPENERS, Stores
from tests.copying.test_stores import ANN, BEN, LONG

PLACES: tuple[dict[str, Any], ...] = (
    {"conversation_id": "trip"},
    {"conversation_id": "empty"},
    {"conversation_id": None, "owner": ANN},
    {"conversation_id": None, "owner": BEN},
)


def fill_store(store: Store) -> None:
    store.append("trip", user_messages("1", "2"), owner=ANN)
    store.create("empty", owner=BEN, expires_in=timedelta(days=3))
    for number, value in enumerate(VALUES):
        store.put_entry("trip", f"value {number}", value)
        store.put_entry(None, f"value {number}", value, owner=BEN)
    store.put_entry("empty", "large", LONG)
    store.put_entry(None, "large", LONG, owner=ANN)
    store.put_entry("trip", "brief", 1, expires_in=timedelta(hours=2))
    store.put_entry(None, "brief", 1, expires_in=timedelta(hours=2), owner=ANN)


def contents(store: Store) -> list[list[Any]]:
    return [
        [(entry.name, type_of(entry.value), entry.expires_at) for entry in read_entries(store, **p)]
        for p in PLACES
    ]


@pytest.mark.parametrize("source", OPENERS)
def test_the_entries_of_conversations_and_owners_are_copied(
    stores: Stores, clock: Clock, source: str
) -> None:
    openers = {"SQLite": stores.sqlite, "DynamoDB": stores.dynamodb}
    [target] = [opener for opener in OPENERS if opener != source]
    one, other = openers[source](), openers[target]()
    with clock.stopped():
        fill_store(one)
        clock.advance(timedelta(hours=1))
        expected = contents(one)
        count = sum(map(len, expected))
        assert copy(one, other) == Copied(conversations=2, messages=2, entries=count)
        assert contents(other) == expected
        assert copy(one, other) == Copied(conversations=2)
        # Later changes, and what was deleted, arrive with the next copy.
        one.put_entry("trip", "value 1", "changed")
        one.put_entry("trip", "new", 1)
        one.delete_entry("trip", "value 2")
        one.delete_entry(None, "value 2", owner=BEN)
        assert copy(one, other) == Copied(conversations=2, entries=2)
        assert contents(other) == contents(one)
    clock.advance(timedelta(hours=1))
    assert "brief" not in {entry.name for entry in other.entries("trip")}


def test_a_copy_of_one_owner_has_the_entries_of_that_owner_alone(
    stores: Stores, clock: Clock
) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    fill_store(source)
    source.put_entry(None, "settings", 1, owner="only entries")
    assert copy(source, target, owner="only entries") == Copied(entries=1)
    assert copy(source, target, owner=ANN).problems == []
    assert len(read_entries(target, conversation_id="trip")) == len(VALUES) + 1
    assert [entry.name for entry in target.entries(None, owner=ANN)] == ["brief", "large"]
    assert read_entries(target, conversation_id=None, owner=BEN) == []


def test_entries_that_keep_changing_are_reported(stores: Stores) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    fill_store(source)
    put_entry = target.put_entry

    def put_after_another(conversation_id: str | None, name: str, value: Any, **given: Any) -> Any:
        if name == "value 3":
            put_entry(conversation_id, name, "another", owner=given["owner"])
            if given["revision"] is not None:
                raise Conflict(conversation_id, expected=0, revision=1, entry=name)
        return put_entry(conversation_id, name, value, **given)

    target.put_entry = put_after_another  # type: ignore[method-assign]
    copied = copy(source, target)
    assert {problem.conversation_id for problem in copied.problems} == {
        "trip",
        f"entries of owner {BEN}",
    }
    assert {problem.why for problem in copied.problems} == {
        "Its entries changed while they were copied."
    }
    # The others were copied.
    assert target.entry("empty", "large").value == LONG


def test_entries_are_copied_between_async_stores(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "one.db") as store:
        fill_store(store)
        expected = contents(store)

    async def copy_all() -> Copied:
        async with (
            AsyncSQLiteStore(tmp_path / "one.db") as source,
            AsyncSQLiteStore(tmp_path / "other.db") as target,
        ):
            return await acopy(source, target)

    copied = asyncio.run(copy_all())
    assert (copied.problems, copied.entries) == ([], sum(map(len, expected)))
    with SQLiteStore(tmp_path / "other.db") as store:
        brief = store.entry("trip", "brief").expires_at
        assert brief is not None
        assert abs(brief - expected[0][0][2]) < timedelta(minutes=1)
        assert store.entry("empty", "large").value == LONG
