"""What has expired is gone, from the moment on that it said."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from chatledger.errors import NotFound
from chatledger.messages import new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    ACTIVITY,
    NEEDS_ONE,
    Begun,
    Operation,
    begin,
    ids_of,
    list_all,
    look,
    said,
    say,
    see,
    unchanged,
)

HOUR = timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)

NO_ACTIVITY: dict[str, Callable[[Store, Begun], object]] = {
    "get": lambda store, it: store.get(it.id),
    "tail": lambda store, it: store.tail(it.id, 5),
    "page": lambda store, it: store.page(it.id),
    "list": lambda store, it: store.list(store.get(it.id).owner or ""),
    "update": lambda store, it: store.update(it.id, title="new", metadata={"a": 1}),
    "truncate nothing": lambda store, it: store.truncate(it.id, after=it.revision),
    "fork": lambda store, it: store.fork(it.id),
}


def expired(store: Store, clock: Clock, *, owner: str | None = None) -> Begun:
    it = begin(store, "old", "and older", owner=owner, expires_in=HOUR)
    store.update(it.id, title="old", metadata={"old": True})
    clock.advance(HOUR)
    return it


class ExpiringLaws:
    """``expires_in``, by the clock that the store was given, and ``sweep``."""

    def test_a_conversation_says_when_it_expires(self, subject: Store, clock: Clock) -> None:
        with clock.stopped():
            created = subject.create(expires_in=HOUR)
            assert created.expires_at == clock() + HOUR
            clock.advance(timedelta(minutes=5))
            subject.append(created.id, say("hello"))
            assert subject.get(created.id).expires_at == clock() + HOUR

    @pytest.mark.parametrize("days", [1 / 86_400, 30, 36_500])
    def test_a_life_may_be_a_second_or_a_hundred_years(
        self, subject: Store, clock: Clock, days: float
    ) -> None:
        with clock.stopped():
            created = subject.create(expires_in=timedelta(days=days))
            assert created.expires_at == clock() + timedelta(days=days)
            assert subject.get(created.id) == created

    def test_a_conversation_is_there_until_the_moment_it_expires(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        with clock.stopped():
            it = begin(subject, "hello", owner=owner, expires_in=HOUR)
            clock.advance(HOUR - MILLISECOND)
            assert look(subject, it.id) is not None
            assert len(list_all(subject, owner)) == 1
            clock.advance(MILLISECOND)
            assert look(subject, it.id) is None
            assert list_all(subject, owner) == []

    @pytest.mark.parametrize("operation", NEEDS_ONE.values(), ids=NEEDS_ONE)
    def test_nothing_can_be_asked_of_an_expired_conversation(
        self, subject: Store, clock: Clock, operation: Operation
    ) -> None:
        owner = new_id()
        it = expired(subject, clock, owner=owner)
        for caller in (None, owner):
            with pytest.raises(NotFound):
                operation(subject, it, caller)
        assert look(subject, it.id) is None

    def test_an_expired_conversation_is_in_no_list_and_no_count(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        lasting = [begin(subject, "hello", owner=owner).id for _ in range(2)]
        for _ in range(3):
            begin(subject, "hello", owner=owner, expires_in=HOUR)
        clock.advance(HOUR)
        for limit in (1, 2, 5):
            listed = list_all(subject, owner, limit=limit)
            assert sorted(ids_of(listed)) == sorted(lasting)
        assert subject.list(owner, limit=2).cursor is None
        assert subject.delete_owner(owner) == 2

    def test_a_cursor_goes_on_though_the_conversation_it_stands_at_expired(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        lasting = begin(subject, "hello", owner=owner)
        clock.advance(timedelta(seconds=1))
        begin(subject, "hello", owner=owner, expires_in=HOUR)
        listing = subject.list(owner, limit=1)
        clock.advance(HOUR)
        rest = subject.list(owner, cursor=listing.cursor)
        assert ids_of(rest.conversations) == [lasting.id]

    @pytest.mark.parametrize("activity", ACTIVITY.values(), ids=ACTIVITY)
    def test_activity_extends_life(
        self, subject: Store, clock: Clock, activity: Callable[[Store, Begun], object]
    ) -> None:
        with clock.stopped():
            it = begin(subject, "1", "2", expires_in=HOUR)
            clock.advance(HOUR - MILLISECOND)
            activity(subject, it)
            assert subject.get(it.id).expires_at == clock() + HOUR
            clock.advance(HOUR - MILLISECOND)
            assert look(subject, it.id) is not None

    def test_activity_extends_a_life_as_often_as_there_is_some(
        self, subject: Store, clock: Clock
    ) -> None:
        it = begin(subject, "0", expires_in=HOUR)
        for number in range(1, 25):
            clock.advance(timedelta(minutes=50))
            subject.append(it.id, say(str(number)))
            subject.sweep()
        assert said(see(subject, it.id).messages) == [str(number) for number in range(25)]

    @pytest.mark.parametrize("operation", NO_ACTIVITY.values(), ids=NO_ACTIVITY)
    def test_what_changes_no_message_extends_no_life(
        self, subject: Store, clock: Clock, operation: Callable[[Store, Begun], object]
    ) -> None:
        it = begin(subject, "hello", owner=new_id(), expires_in=HOUR)
        before = subject.get(it.id)
        clock.advance(timedelta(minutes=30))
        operation(subject, it)
        after = subject.get(it.id)
        assert (after.expires_at, after.updated_at) == (before.expires_at, before.updated_at)
        clock.advance(timedelta(minutes=30))
        assert look(subject, it.id) is None

    def test_a_fork_lives_as_long_from_its_own_beginning(
        self, subject: Store, clock: Clock
    ) -> None:
        with clock.stopped():
            it = begin(subject, "hello", expires_in=HOUR)
            clock.advance(timedelta(minutes=30))
            fork = subject.fork(it.id)
            assert fork.expires_at == clock() + HOUR
            clock.advance(timedelta(minutes=30))
            assert (look(subject, it.id), subject.get(fork.id)) == (None, fork)

    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    @pytest.mark.parametrize("how", ["append", "append after 0", "create", "fork"])
    def test_a_new_life_under_an_expired_id_starts_empty_and_at_higher_revisions(
        self, subject: Store, clock: Clock, how: str, swept: bool
    ) -> None:
        owner = new_id()
        it = expired(subject, clock, owner=new_id())
        if swept:
            subject.sweep()
        with clock.stopped():
            match how:
                case "append":
                    subject.append(it.id, say("new"), owner=owner)
                case "append after 0":
                    subject.append(it.id, say("new"), owner=owner, after=0)
                case "create":
                    assert subject.create(it.id, owner=owner).revision > it.revision
                    subject.append(it.id, say("new"))
                case "fork":
                    subject.fork(begin(subject, "new", owner=owner).id, new_id=it.id)
            seen = see(subject, it.id)
            assert seen.conversation.created_at == clock()
        assert said(seen.messages) == ["new"]
        assert seen.seqs[0] > it.revision
        assert (seen.conversation.owner, seen.conversation.title) == (owner, None)
        assert (seen.conversation.metadata, seen.conversation.message_count) == ({}, 1)
        assert seen.conversation.expires_at is None
        assert seen.conversation in list_all(subject, owner)

    def test_a_new_life_has_a_lifetime_of_its_own(self, subject: Store, clock: Clock) -> None:
        it = expired(subject, clock)
        with clock.stopped():
            created = subject.create(it.id, expires_in=2 * HOUR)
            assert created.expires_at == clock() + 2 * HOUR

    def test_after_does_not_match_a_conversation_that_expired(
        self, subject: Store, clock: Clock
    ) -> None:
        it = expired(subject, clock)
        with pytest.raises(NotFound):
            subject.append(it.id, say("too late"), after=it.revision)
        assert look(subject, it.id) is None

    def test_a_sweep_frees_the_expired_and_nothing_that_lives(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        living = [
            begin(subject, "lasting", owner=owner),
            begin(subject, "expiring later", expires_in=4 * HOUR),
            begin(subject),
        ]
        for _ in range(3):
            begin(subject, "old", owner=owner, expires_in=HOUR)
        clock.advance(3 * HOUR)
        before = [look(subject, it.id) for it in living]
        assert subject.sweep() >= 3
        assert [look(subject, it.id) for it in living] == before
        assert None not in before
        assert ids_of(list_all(subject, owner)) == [living[0].id]

    def test_a_sweep_frees_nothing_that_an_append_keeps_alive_whose_reply_follows(
        self, subject: Store, clock: Clock
    ) -> None:
        it = begin(subject, "hello", owner=new_id(), expires_in=HOUR)
        clock.advance(timedelta(minutes=50))
        subject.append(it.id, say("question"), reply_follows=True)
        clock.advance(timedelta(minutes=50))
        with unchanged(subject, it.id):
            subject.sweep()
        assert said(see(subject, it.id).messages) == ["hello", "question"]

    def test_a_sweep_touches_neither_what_was_truncated_nor_what_remains(
        self, subject: Store, clock: Clock
    ) -> None:
        it = begin(subject, "1", "2", "3")
        subject.truncate(it.id, after=it.seqs[0])
        subject.append(it.id, say("4"))
        clock.advance(timedelta(days=3))
        with unchanged(subject, it.id):
            subject.sweep()
        assert subject.append(it.id, say("5")).seqs[0] > it.seqs[-1]
