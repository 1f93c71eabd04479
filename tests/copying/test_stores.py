"""Tests of ``copy`` and ``acopy``."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chatledger import Conversation, Copied, Message, Page, Problem, Progress, Store, acopy, copy
from chatledger.errors import AlreadyExists, InvalidArgument, TableMissing
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.records import key, record_sort
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    read_all,
    scan_all,
    snapshot_if_any,
    user_messages,
)
from tests.copying.conftest import OPENERS, Stores

LONG = Random(1).randbytes(150_000).hex()
"""A text too long for one record, which hardly compresses."""
ANN, BEN = "ann", "ben \N{GRINNING FACE}#\u00e9"


def fill_store(store: Store, clock: Clock) -> None:
    """Add conversations of every kind, with times in the past."""
    store.append("plain", user_messages(*map(str, range(40))), owner=ANN)
    clock.advance(timedelta(hours=1))
    store.create("empty", owner=ANN, title="Nothing yet", metadata={"a": [1, 1.0, None]})
    store.create("anonymous # \N{FAMILY}\u0000", title="\u00e9")
    store.append("anonymous # \N{FAMILY}\u0000", user_messages("nobody's"))
    store.create("cut", owner=BEN, metadata={"deep": {"er": "x"}})
    for n in range(6):
        store.append("cut", user_messages(f"{n} a", f"{n} b"))
        clock.advance(timedelta(seconds=1))
        if n % 3 == 1:
            store.pop("cut", 3)
        if n % 4 == 2:
            store.replace("cut", read_all(store, "cut")[0].seq or 0, Message.user("another"))
    store.fork("cut", at=8, new_id="fork")
    store.append("cleared", user_messages("1", "2", "3"))
    store.clear("cleared")
    store.append("former", user_messages("1", "2"), owner=ANN)
    store.delete("former")
    store.append("former", user_messages("3", "4"), owner=BEN)
    store.create("brief", owner=BEN, expires_in=timedelta(days=3))
    store.append("brief", user_messages("soon gone"))
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
            Message.user("after a long one"),
        ],
        owner=ANN,
    )
    clock.advance(timedelta(hours=1))
    store.update("messages", title="Renamed later")


def contents(store: Store) -> dict[str, Any]:
    return {
        conversation.id: snapshot_if_any(store, conversation.id) for conversation in scan_all(store)
    }


def have_same_contents(one: Store, other: Store) -> bool:
    return contents(one) == contents(other)


def test_a_copy_to_dynamodb_and_back_is_identical(stores: Stores, clock: Clock) -> None:
    first, between, last = stores.sqlite(), stores.dynamodb(), stores.sqlite()
    fill_store(first, clock)
    before = contents(first)
    assert len(before) == 9
    messages = sum(seen.conversation.message_count for seen in before.values())
    with clock.stopped():
        for source, target in ((first, between), (between, last)):
            assert copy(source, target) == Copied(conversations=9, messages=messages)
            assert contents(target) == before
            assert copy(source, target) == Copied(conversations=9)
    assert contents(first) == before
    for seen in before.values():
        # A revision that a client saved before the copy is valid afterwards.
        conversation = seen.conversation
        for target in (between, last):
            assert (
                target.append(
                    conversation.id, user_messages("on"), revision=conversation.revision
                ).revision
                == conversation.revision + 1
            )


def test_a_dynamodb_store_can_be_copied_to_sqlite_and_back(stores: Stores, clock: Clock) -> None:
    first, second, third = stores.dynamodb(), stores.sqlite(), stores.dynamodb()
    fill_store(first, clock)
    for source, target in ((first, second), (second, third)):
        assert copy(source, target).problems == []
        assert have_same_contents(source, target)


def test_a_copy_for_one_owner_has_only_their_conversations(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    fill_store(source, clock)
    assert copy(source, target, owner=ANN).conversations == 3
    assert set(contents(target)) == {"plain", "empty", "messages"}
    assert copy(source, target, owner="nobody") == Copied()


class CopyStopped(Exception):
    pass


@pytest.mark.parametrize("kind", OPENERS)
def test_a_stopped_copy_continues_where_it_was_stopped(
    stores: Stores, clock: Clock, kind: str
) -> None:
    source = stores.sqlite()
    target: Store = stores.sqlite() if kind == "SQLite" else stores.dynamodb()
    fill_store(source, clock)
    random = Random(7)
    stops = copied_before = 0
    while True:
        left = random.randrange(1, 8)
        reports: list[Progress] = []

        def progress(step: Progress, reports: list[Progress] = reports, left: int = left) -> None:
            reports.append(step)
            if len(reports) == left:
                raise CopyStopped

        try:
            copied = copy(source, target, progress=progress if stops < 12 else None)
        except CopyStopped:
            stops += 1
            copied_before += reports[-1].messages
            continue
        break
    assert stops > 1
    assert copied.problems == []
    assert have_same_contents(source, target)
    # No message was copied twice.
    total = sum(each.message_count for each in scan_all(source))
    assert copied_before + copied.messages == total


def test_progress_counts_conversations_and_messages(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    fill_store(source, clock)
    reports: list[Progress] = []
    copied = copy(source, target, progress=reports.append)
    assert reports[-1].conversations == copied.conversations == 9
    assert reports[-1].messages == copied.messages
    assert [step.messages for step in reports] == sorted(step.messages for step in reports)
    assert {step.conversation_id for step in reports} == set(contents(source))


def test_a_second_run_copies_what_changed_since(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.dynamodb()
    fill_store(source, clock)
    copy(source, target)
    clock.advance(timedelta(minutes=1))
    source.append("plain", user_messages("more", "and more"))
    source.update("empty", title="", metadata={"b": 2})
    source.append("brief", user_messages("a little longer"))
    source.pop("plain", 1)
    source.append("new", user_messages("hello"))
    assert copy(source, target) == Copied(conversations=10, messages=3)
    assert have_same_contents(source, target)


def test_removed_messages_are_not_copied_and_all_others_keep_their_seqs(stores: Stores) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    seqs = source.append("talk", user_messages(*map(str, range(9))), owner="bob").seqs
    for number in (0, 3, 4, 8):
        source.remove("talk", seqs[number])
    assert copy(source, target).problems == []
    assert snapshot_if_any(target, "talk") == snapshot_if_any(source, "talk")
    # A message that is removed after it was copied makes the conversation a problem.
    source.remove("talk", seqs[5])
    [problem] = copy(source, target).problems
    assert problem.conversation_id == "talk"
    assert target.get("talk").message_count == 5


def test_keys_of_the_source_are_unknown_in_the_target(stores: Stores) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    created = source.create(owner="bob", idempotency_key="key")
    source.append(created.id, user_messages("1"), idempotency_key="key")
    copy(source, target)
    with pytest.raises(AlreadyExists):
        target.create(owner="bob", idempotency_key="key")
    target.append(created.id, user_messages("2"), idempotency_key="key")
    assert target.get(created.id).message_count == 2


@pytest.mark.parametrize("kind", OPENERS)
def test_what_the_source_has_deleted_since_is_reported_and_deleted_on_request(
    stores: Stores, kind: str
) -> None:
    source, target = stores.sqlite(), getattr(stores, kind.lower())()
    for name in ("kept", "deleted"):
        source.append(name, user_messages("Hi"), owner="ada")
    copy(source, target)
    source.delete("deleted")
    assert copy(source, target).extra == ["deleted"]
    assert target.get("deleted").message_count == 1
    assert copy(source, target, delete_extra=True).extra == ["deleted"]
    assert [found.id for found in scan_all(target)] == ["kept"]
    assert copy(source, target).extra == []


def test_a_copy_for_one_owner_reports_and_deletes_only_their_conversations(stores: Stores) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    for name, owner in (("hers", "ada"), ("his", "bob")):
        target.append(name, user_messages("Hi"), owner=owner)
    assert copy(source, target, owner="ada", delete_extra=True).extra == ["hers"]
    assert [found.id for found in scan_all(target)] == ["his"]


def test_conversations_that_differ_in_the_target_are_reported_and_left_alone(
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
    target.append("ahead", user_messages("in the target alone"))
    source.append("behind", user_messages("2", "3"))
    target.append("behind", user_messages("in the target alone"))
    target.delete("owner")
    target.append("owner", user_messages("1"), owner=BEN)
    source.clear("cut")
    source.append("cut", user_messages("4"))
    target.delete("deleted")
    before = contents(target)
    copied = copy(source, target)
    assert copied.conversations == 1
    reasons = {problem.conversation_id: problem.why for problem in copied.problems}
    assert set(reasons) == {
        *("other message", "ahead", "behind", "owner", "cut", "deleted", "started later")
    }
    assert reasons["other message"] == "Message 2 differs in the target."
    assert reasons["ahead"] == (
        "In the target it was changed or continued: it is at revision 3, ahead of the source's 2."
    )
    assert reasons["behind"] == "Message 3 differs in the target."
    assert reasons["owner"] == "Its owner differs in the target."
    assert reasons["cut"] == "Message 2 of the target is not in the source."
    assert reasons["started later"] == "Its created_at differs in the target."
    assert "it was deleted or has expired" in reasons["deleted"]
    assert contents(target) == before


@pytest.mark.parametrize("kind", OPENERS)
def test_the_source_may_change_during_the_copy(stores: Stores, clock: Clock, kind: str) -> None:
    source: Store = stores.sqlite() if kind == "SQLite" else stores.dynamodb()
    target = stores.sqlite()
    for name in ("a", "b", "c"):
        source.append(name, user_messages(*map(str, range(60))))
    more = iter(range(4))

    def write(step: Progress) -> None:
        if next(more, None) is not None:
            source.append(step.conversation_id, user_messages("meanwhile"))

    copied = copy(source, target, progress=write)
    assert copied.problems == []
    assert copy(source, target).problems == []
    assert have_same_contents(source, target)


def test_a_conversation_deleted_during_the_copy_is_not_copied(stores: Stores) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    for name in ("a", "b", "c"):
        source.append(name, user_messages("1"))

    def delete(step: Progress) -> None:
        if step.conversation_id == "a" and snapshot_if_any(source, "b"):
            source.delete("b")

    assert copy(source, target, progress=delete) == Copied(conversations=2, messages=2)
    assert set(contents(target)) == {"a", "c"}


def test_a_damaged_conversation_is_reported_and_the_others_are_copied(
    stores: Stores, dynamodb_local: DynamoDBLocal
) -> None:
    source, target = stores.dynamodb(), stores.sqlite()
    for name in ("a", "b", "c"):
        source.append(name, user_messages("1"))
        source.append(name, user_messages("2"))
    lost = key("b", record_sort(1))
    dynamodb_local.client().delete_item(TableName=stores.tables[-1], Key=lost)
    copied = copy(source, target)
    assert (copied.conversations, [each.conversation_id for each in copied.problems]) == (2, ["b"])
    assert "is missing from the table" in copied.problems[0].why
    assert set(contents(target)) == {"a", "c"}


def test_a_missing_table_stops_the_copy(stores: Stores, dynamodb_local: DynamoDBLocal) -> None:
    source = stores.sqlite()
    source.append("a", user_messages("1"))
    with pytest.raises(TableMissing):
        copy(source, DynamoDBStore(dynamodb_local.client(), "nowhere"))


class Chats:
    """A source whose conversations are dicts of texts; it makes new messages for each page."""

    def __init__(self, chats: dict[str, list[str]]) -> None:
        self.chats = chats

    def conversations(self) -> Iterator[Conversation | Problem]:
        for id, texts in self.chats.items():
            time = datetime.now(UTC)
            yield Conversation(
                id=id,
                owner=None,
                title=None,
                metadata={},
                created_at=time,
                updated_at=time,
                message_count=len(texts),
                revision=0,
                expires_at=None,
            )

    def page(self, conversation_id: str, *, after: int, limit: int) -> Page:
        texts = self.chats[conversation_id][after : after + limit]
        messages = [Message.user(text, id=f"{after + n}") for n, text in enumerate(texts)]
        return Page([m.with_seq(after + n) for n, m in enumerate(messages, 1)], None)


@pytest.mark.parametrize("kind", OPENERS)
def test_a_source_of_ones_own_is_copied_like_a_table(stores: Stores, kind: str) -> None:
    target: Store = getattr(stores, kind.lower())()
    texts = [str(n) for n in range(700)]
    for count, copied in ((0, 0), (3, 3), (700, 697), (700, 0)):
        source = Chats({"growing": texts[:count], "fixed": ["1"]})
        new = copied + (count == 0)
        assert copy(source, target) == Copied(conversations=2, messages=new)
        assert [each.text for each in target.iter_messages("growing")] == texts[:count]
    target.update("growing", title="A title", metadata={"a": 1})
    assert copy(source, target) == Copied(conversations=2)
    assert target.get("growing").title == "A title"
    target.replace("growing", 300, Message.user("changed"))
    [problem] = copy(source, target).problems
    assert problem.conversation_id == "growing"


def test_options_for_stores_are_refused_for_other_sources(stores: Stores) -> None:
    for options in ({"owner": ANN}, {"delete_extra": True}):
        with pytest.raises(InvalidArgument, match="from a store"):
            copy(Chats({}), stores.sqlite(), **options)


def test_an_error_of_the_progress_function_stops_the_copy(stores: Stores) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    source.append("a", user_messages("1"))

    def fail(progress: Progress) -> None:
        raise AlreadyExists("an error that the copy would handle if a store raised it")

    with pytest.raises(AlreadyExists, match="would handle"):
        copy(source, target, progress=fail)


class CountingStore(SQLiteStore):
    """A store that records the largest number of characters in one page."""

    most = 0

    def page(self, *arguments: Any, **options: Any) -> Any:
        page = super().page(*arguments, **options)
        self.most = max(self.most, sum(len(message.text) for message in page.messages))
        return page


def test_long_messages_are_not_read_all_at_once(tmp_path: Path) -> None:
    with CountingStore(tmp_path / "a.db") as source, CountingStore(tmp_path / "b.db") as target:
        for _ in range(20):
            source.append("long", user_messages("x" * 250_000, "y" * 250_000))
        assert copy(source, target) == Copied(conversations=1, messages=40)
        # The first page has 16 messages, however long they are.
        assert max(source.most, target.most) <= 16 * 250_000


def test_two_concurrent_copies_have_the_result_of_one(stores: Stores, clock: Clock) -> None:
    source, target = stores.sqlite(), stores.dynamodb()
    source.append("a", user_messages(*map(str, range(300))))
    inner: list[Copied] = []

    def copy_again(step: Progress) -> None:
        if not inner:
            inner.append(copy(source, target))

    assert copy(source, target, progress=copy_again).problems == []
    assert inner[0].problems == []
    assert have_same_contents(source, target)


def test_lifetimes_are_copied(stores: Stores, clock: Clock) -> None:
    source = stores.sqlite(expire_after=timedelta(days=2))
    for target in (stores.sqlite(), stores.dynamodb()):
        source.append("a", user_messages("1"))
        clock.advance(timedelta(days=1))
        assert copy(source, target).problems == []
        assert target.get("a").expires_at == source.get("a").expires_at
        with clock.stopped():
            target.append("a", user_messages("2"))
            assert target.get("a").expires_at == clock() + timedelta(days=2)
        source.delete("a")
        clock.advance(timedelta(days=2))


def test_a_target_with_a_lifetime_applies_it_to_conversations_without_one(
    stores: Stores, clock: Clock
) -> None:
    source = stores.sqlite()
    source.append("a", user_messages("1"))
    clock.advance(timedelta(days=100))
    for target in (
        stores.sqlite(expire_after=timedelta(days=2)),
        stores.dynamodb(expire_after=timedelta(days=2)),
    ):
        with clock.stopped():
            assert copy(source, target) == Copied(conversations=1, messages=1)
            assert target.get("a").expires_at == clock() + timedelta(days=2)


def test_async_stores_are_copied_in_the_same_way(
    stores: Stores, clock: Clock, tmp_path: Path
) -> None:
    source, target = stores.sqlite(), stores.sqlite()
    fill_store(source, clock)

    async def run() -> Copied:
        async with (
            AsyncSQLiteStore(tmp_path / "0.db", clock=clock) as async_source,
            AsyncSQLiteStore(tmp_path / "1.db", clock=clock) as async_target,
        ):
            await async_target.append("extra", user_messages("1"))
            return await acopy(async_source, async_target, delete_extra=True)

    copied = asyncio.run(run())
    assert (copied.conversations, copied.extra) == (9, ["extra"])
    assert have_same_contents(source, target)


def test_a_store_copied_to_itself_stays_unchanged(stores: Stores, clock: Clock) -> None:
    store = stores.sqlite()
    fill_store(store, clock)
    assert copy(store, store) == Copied(conversations=9)


class Overstated(Chats):
    """A source that announces more messages than it has."""

    def conversations(self) -> Iterator[Conversation | Problem]:
        for conversation in super().conversations():
            assert isinstance(conversation, Conversation)
            yield replace(conversation, message_count=conversation.message_count + 10)


def test_a_source_that_has_fewer_messages_than_it_says_can_be_corrected(stores: Stores) -> None:
    target, texts = stores.sqlite(), {"c": [str(n) for n in range(40)]}
    [problem] = copy(Overstated(texts), target).problems
    assert problem.why == "The source has only 40 messages of it, not 50."
    assert copy(Chats(texts), target).problems == []
    assert target.get("c").message_count == 40


def test_what_is_no_store_is_refused_with_what_to_pass(stores: Stores) -> None:
    store = stores.sqlite()
    wrong: list[Any] = ["sqlite:///chatledger.db", None, SQLiteStore, AsyncSQLiteStore(":memory:")]
    for value in wrong:
        with pytest.raises(InvalidArgument, match=r"source is of type .*open_store\(url\)"):
            copy(value, store)
        with pytest.raises(InvalidArgument, match="target is of type"):
            copy(store, value)
