"""``copy``: what arrives is what was there, whatever stops it on the way."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chatledger import Copied, Message, Progress, Store, acopy, copy
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.sqlite import SQLiteStore
from chatledger.stores.threads import ThreadedStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import look, read_all, say, scan_all
from tests.stores.dynamodb.tables import new_table

OPENERS = ("SQLite", "DynamoDB")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def tables(dynamodb_local: DynamoDBLocal) -> Iterator[Callable[[], str]]:
    """Makes an empty table and tells its name."""
    client = dynamodb_local.client()
    made: list[str] = []

    def make() -> str:
        made.append(new_table(client))
        return made[-1]

    yield make
    for name in made:
        client.delete_table(TableName=name)


class Stores:
    """Opens empty stores, all with one clock."""

    def __init__(
        self, folder: Path, dynamodb: DynamoDBLocal, tables: Callable[[], str], clock: Clock
    ) -> None:
        self._folder = folder
        self._dynamodb = dynamodb
        self._tables = tables
        self._clock = clock
        self._opened: list[Store] = []

    def sqlite(self, **options: Any) -> SQLiteStore:
        path = self._folder / f"{len(self._opened)}.db"
        store = SQLiteStore(path, clock=self._clock, **options)
        self._opened.append(store)
        return store

    def dynamodb(self, **options: Any) -> DynamoDBStore:
        client, table = self._dynamodb.client(), self._tables()
        return DynamoDBStore(client, table, clock=self._clock, **options)

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture
def stores(
    tmp_path: Path, dynamodb_local: DynamoDBLocal, tables: Callable[[], str], clock: Clock
) -> Iterator[Stores]:
    stores = Stores(tmp_path, dynamodb_local, tables, clock)
    yield stores
    stores.close()


LONG = Random(1).randbytes(150_000).hex()
"""Too long for one record, and not to be compressed to much less."""
ANN, BEN = "ann", "ben \N{GRINNING FACE}#\u00e9"


def lived_in(store: Store, clock: Clock) -> None:
    """Conversations of every kind, at other times than now."""
    store.append("plain", say(*map(str, range(40))), owner=ANN)
    clock.advance(timedelta(hours=1))
    store.create("empty", owner=ANN, title="Nothing yet", metadata={"a": [1, 1.0, None]})
    store.create("anonymous # \N{FAMILY}\u0000", title="\u00e9")
    store.append("anonymous # \N{FAMILY}\u0000", say("nobody's"))
    store.create("cut", owner=BEN, metadata={"deep": {"er": "x"}})
    for n in range(6):
        store.append("cut", say(f"{n} a", f"{n} b"))
        clock.advance(timedelta(seconds=1))
        if n % 3 == 1:
            store.pop("cut", 3)
        if n % 4 == 2:
            store.replace("cut", read_all(store, "cut")[0].seq or 0, Message.user("another"))
    store.fork("cut", at=8, new_id="fork")
    store.append("cleared", say("1", "2", "3"))
    store.clear("cleared")
    store.append("former", say("1", "2"), owner=ANN)
    store.delete("former")
    store.append("former", say("3", "4"), owner=BEN)
    store.create("brief", owner=BEN, expires_in=timedelta(days=3))
    store.append("brief", say("soon gone"))
    created_at = datetime(2001, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    store.append(
        "messages",
        [
            Message.user("old", id="an id of mine", created_at=created_at),
            Message.assistant(
                [{"type": "text", "text": "\N{GRINNING FACE}"}, "and"],
                tool_calls=[{"id": "1", "name": "clock", "args": {"n": 1.0, "m": 1}}],
                metadata={"z": 2**70, "a": -0.0},
                extra={"usage": {"in": None}},
            ),
            Message.tool("", tool_call_id="1"),
            Message.user(LONG),
            Message.user("behind a long one"),
        ],
        owner=ANN,
    )
    clock.advance(timedelta(hours=1))
    store.update("messages", title="Renamed later")


def contents(store: Store) -> dict[str, Any]:
    return {conversation.id: look(store, conversation.id) for conversation in scan_all(store)}


def same(one: Store, other: Store) -> bool:
    return contents(one) == contents(other)


def test_what_goes_to_dynamodb_and_back_is_the_same(stores: Stores, clock: Clock) -> None:
    first, between, last = stores.sqlite(), stores.dynamodb(), stores.sqlite()
    lived_in(first, clock)
    before = contents(first)
    assert len(before) == 9
    messages = sum(seen.conversation.message_count for seen in before.values())
    with clock.stopped():
        for source, target in ((first, between), (between, last)):
            assert copy(source, target) == Copied(9, messages, [])
            assert contents(target) == before
            assert copy(source, target) == Copied(9, 0, [])
    assert contents(first) == before
    for seen in before.values():
        # What a client remembers of a conversation is as good afterwards as before.
        it = seen.conversation
        for target in (between, last):
            assert target.append(it.id, say("on"), after=it.revision).revision == it.revision + 1


def test_what_was_lived_in_dynamodb_goes_to_sqlite_and_on(stores: Stores, clock: Clock) -> None:
    first, second, third = stores.dynamodb(), stores.sqlite(), stores.dynamodb()
    lived_in(first, clock)
    for source, target in ((first, second), (second, third)):
        assert copy(source, target).mismatches == []
        assert same(source, target)


def test_only_the_owners_conversations_are_copied(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    lived_in(source, clock)
    assert copy(source, target, owner=ANN).conversations == 3
    assert set(contents(target)) == {"plain", "empty", "messages"}
    assert copy(source, target, owner="nobody") == Copied(0, 0, [])


class Stopped(Exception):
    pass


@pytest.mark.parametrize("kind", OPENERS)
def test_a_copy_that_is_stopped_anywhere_goes_on_where_it_was(
    stores: Stores, clock: Clock, kind: str
) -> None:
    source = stores.sqlite()
    target: Store = stores.sqlite() if kind == "SQLite" else stores.dynamodb()
    lived_in(source, clock)
    random = Random(7)
    stops = brought = 0
    while True:
        left = random.randrange(1, 8)
        told: list[Progress] = []

        def progress(step: Progress, told: list[Progress] = told, left: int = left) -> None:
            told.append(step)
            if len(told) == left:
                raise Stopped

        try:
            copied = copy(source, target, progress=progress if stops < 12 else None)
        except Stopped:
            stops += 1
            brought += told[-1].messages
            continue
        break
    assert stops > 1
    assert copied.mismatches == []
    assert same(source, target)
    # Nothing that had arrived was brought again.
    total = sum(it.message_count for it in scan_all(source))
    assert brought + copied.messages == total


def test_progress_counts_conversations_and_messages(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    lived_in(source, clock)
    told: list[Progress] = []
    copied = copy(source, target, progress=told.append)
    assert told[-1].conversations == copied.conversations == 9
    assert told[-1].messages == copied.messages
    assert [step.messages for step in told] == sorted(step.messages for step in told)
    assert {step.conversation_id for step in told} == set(contents(source))


def test_a_second_run_brings_what_came_meanwhile(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.dynamodb()
    lived_in(source, clock)
    copy(source, target)
    clock.advance(timedelta(minutes=1))
    source.append("plain", say("more", "and more"))
    source.update("empty", title="", metadata={"b": 2})
    source.append("brief", say("a little longer"))
    source.pop("plain", 1)
    source.append("new", say("hello"))
    assert copy(source, target) == Copied(10, 3, [])
    assert same(source, target)


def test_what_the_target_holds_in_another_form_is_named_and_left_alone(
    stores: Stores, clock: Clock
) -> None:
    source, target = stores.sqlite(), stores.dynamodb()
    names = ("other message", "ahead", "behind", "owner", "cut", "fine", "deleted")
    message = Message.user("the same")
    with clock.stopped():
        for store in (source, target):
            for name in names:
                store.create(name, owner=ANN)
                store.append(name, [message])
    target.replace("other message", 2, Message.user("another"))
    source.replace("other message", 2, Message.user("a third"))
    for store in (source, target):
        store.append("started later", [message])
        clock.advance(timedelta(seconds=1))
    target.append("ahead", say("in the target alone"))
    source.append("behind", say("2", "3"))
    target.append("behind", say("in the target alone"))
    target.delete("owner")
    target.append("owner", say("1"), owner=BEN)
    source.clear("cut")
    source.append("cut", say("4"))
    target.delete("deleted")
    before = contents(target)
    copied = copy(source, target)
    assert copied.conversations == 1
    why = {mismatch.conversation_id: mismatch.why for mismatch in copied.mismatches}
    assert set(why) == {
        *("other message", "ahead", "behind", "owner", "cut", "deleted", "started later")
    }
    assert why["other message"] == "message 2 differs in the target"
    assert why["ahead"] == "in the target it is at revision 3, ahead of the source's 2"
    assert why["behind"] == "message 3 differs in the target"
    assert why["owner"] == "its owner differs in the target"
    assert why["cut"] == "message 2 of the target is not in the source"
    assert why["started later"] == "its created_at differs in the target"
    assert "that one has ended" in why["deleted"]
    assert contents(target) == before


@pytest.mark.parametrize("kind", OPENERS)
def test_the_source_may_be_written_to_meanwhile(stores: Stores, clock: Clock, kind: str) -> None:
    source: Store = stores.sqlite() if kind == "SQLite" else stores.dynamodb()
    target = stores.sqlite()
    for name in ("a", "b", "c"):
        source.append(name, say(*map(str, range(60))))
    more = iter(range(4))

    def write(step: Progress) -> None:
        if next(more, None) is not None:
            source.append(step.conversation_id, say("meanwhile"))

    copied = copy(source, target, progress=write)
    assert copied.mismatches == []
    assert copy(source, target).mismatches == []
    assert same(source, target)


def test_a_conversation_that_ends_meanwhile_is_not_copied(stores: Stores) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    for name in ("a", "b", "c"):
        source.append(name, say("1"))

    def delete(step: Progress) -> None:
        if step.conversation_id == "a" and look(source, "b"):
            source.delete("b")

    assert copy(source, target, progress=delete) == Copied(2, 2, [])
    assert set(contents(target)) == {"a", "c"}


class Counting(SQLiteStore):
    """Notes how many characters were read at once at the most."""

    most = 0

    def page(self, *arguments: Any, **options: Any) -> Any:
        page = super().page(*arguments, **options)
        self.most = max(self.most, sum(len(message.text) for message in page.messages))
        return page


def test_long_messages_are_not_read_all_at_once(tmp_path: Path) -> None:
    with Counting(tmp_path / "a.db") as source, Counting(tmp_path / "b.db") as target:
        for _ in range(20):
            source.append("long", say("x" * 250_000, "y" * 250_000))
        assert copy(source, target) == Copied(1, 40, [])
        # The first page is of 16 messages, whatever they are.
        assert max(source.most, target.most) <= 16 * 250_000


def test_two_copies_at_once_are_one(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.dynamodb()
    source.append("a", say(*map(str, range(300))))
    inner: list[Copied] = []

    def again(step: Progress) -> None:
        if not inner:
            inner.append(copy(source, target))

    assert copy(source, target, progress=again).mismatches == []
    assert inner[0].mismatches == []
    assert same(source, target)


def test_a_lifetime_goes_along(stores: Stores, clock: Clock) -> None:
    source = stores.sqlite(expire_after=timedelta(days=2))
    for target in (stores.sqlite(), stores.dynamodb()):
        source.append("a", say("1"))
        clock.advance(timedelta(days=1))
        assert copy(source, target).mismatches == []
        assert target.get("a").expires_at == source.get("a").expires_at
        with clock.stopped():
            target.append("a", say("2"))
            assert target.get("a").expires_at == clock() + timedelta(days=2)
        source.delete("a")
        clock.advance(timedelta(days=2))


def test_a_target_that_expires_lets_what_lived_for_ever_live_from_now_on(
    stores: Stores, clock: Clock
) -> None:
    source = stores.sqlite()
    source.append("a", say("1"))
    clock.advance(timedelta(days=100))
    for target in (
        stores.sqlite(expire_after=timedelta(days=2)),
        stores.dynamodb(expire_after=timedelta(days=2)),
    ):
        with clock.stopped():
            assert copy(source, target) == Copied(1, 1, [])
            assert target.get("a").expires_at == clock() + timedelta(days=2)


def test_async_stores_are_copied_alike(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    lived_in(source, clock)

    async def run() -> Copied:
        return await acopy(ThreadedStore(source), ThreadedStore(target))

    assert asyncio.run(run()).conversations == 9
    assert same(source, target)


def test_a_store_copied_to_itself_stays_as_it_is(stores: Stores, clock: Clock) -> None:
    store = stores.sqlite()
    lived_in(store, clock)
    assert copy(store, store) == Copied(9, 0, [])
