"""Laws of the lives of entries: they live, expire, are copied and end with what they belong to."""

from dataclasses import replace
from datetime import timedelta

import pytest

from chatledger.errors import Conflict, NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.entries import LARGE, OF, find_entry, new_place, read_entries
from chatledger.testing.store_contract.helpers import start_conversation, user_messages
from chatledger.testing.store_contract.operation_table import CALLS, Call, each_of
from chatledger.values import new_id

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)
HOWS = ["create", "append", "fork", "restore"]


def begin_anew(store: Store, conversation_id: str, how: str, *, lifetime: timedelta) -> None:
    """Begin a conversation with an id that was in use before."""
    match how:
        case "create":
            store.create(conversation_id, expires_in=lifetime)
        case "append":
            store.append(conversation_id, user_messages("new"), expires_in=lifetime)
        case "fork":
            source = start_conversation(store, "new")
            store.fork(source.id, new_id=conversation_id, expires_in=lifetime)
        case "restore":
            given = store.create(expires_in=lifetime)
            store.restore(replace(given, id=conversation_id, revision=1_000), [], revision=0)


class EntryLifeLaws:
    """How long entries live, and what becomes of them when their conversation or owner ends."""

    @OF
    def test_an_entry_exists_until_the_moment_it_expires(
        self, subject: Store, clock: Clock, of: str
    ) -> None:
        place = new_place(subject, of)
        with clock.stopped():
            lasting = subject.put_entry(name="lasting", value=1, **place)
            entry = subject.put_entry(name="topic", value=1, expires_in=HOUR, **place)
            assert entry.expires_at == clock() + HOUR
            clock.advance(HOUR - MILLISECOND)
            assert read_entries(subject, **place) == [lasting, entry]
            clock.advance(MILLISECOND)
            assert read_entries(subject, **place) == [lasting]
            with pytest.raises(NotFound):
                subject.entry(name="topic", **place)
            with pytest.raises(NotFound):
                subject.delete_entry(name="topic", **place)
            with pytest.raises(Conflict) as caught:
                subject.put_entry(name="topic", value=2, revision=entry.revision, **place)
            assert caught.value.revision == 0
            again = subject.put_entry(name="topic", value=2, revision=0, **place)
            assert again.revision > entry.revision
            assert again.expires_at is None

    @OF
    def test_each_put_sets_the_lifetime_anew(self, subject: Store, clock: Clock, of: str) -> None:
        place = new_place(subject, of)
        with clock.stopped():
            subject.put_entry(name="topic", value=1, expires_in=HOUR, **place)
            clock.advance(HOUR / 2)
            later = subject.put_entry(name="topic", value=2, expires_in=HOUR, **place)
            assert later.expires_at == clock() + HOUR
            clock.advance(HOUR / 2)
            assert subject.entry(name="topic", **place) == later
            lasting = subject.put_entry(name="topic", value=3, **place)
            assert lasting.expires_at is None
            clock.advance(100 * DAY)
            assert subject.entry(name="topic", **place) == lasting

    @OF
    def test_a_sweep_frees_expired_entries_and_no_live_ones(
        self, subject: Store, clock: Clock, of: str
    ) -> None:
        place = new_place(subject, of)
        live = [
            subject.put_entry(name="lasting", value="x" * LARGE, **place),
            subject.put_entry(name="later", value=1, expires_in=30 * DAY, **place),
        ]
        for number in range(3):
            subject.put_entry(name=f"{number}", value="x" * LARGE, expires_in=HOUR, **place)
        clock.advance(3 * DAY)
        assert subject.sweep() >= 3
        assert sorted(read_entries(subject, **place), key=lambda entry: entry.name) == live
        clock.advance(3 * DAY)
        subject.sweep()
        assert read_entries(subject, **place) == live

    def test_entries_expire_with_their_conversation(self, subject: Store, clock: Clock) -> None:
        with clock.stopped():
            conversation = start_conversation(subject, "hello", expires_in=HOUR)
            subject.put_entry(conversation.id, "topic", 1)
            subject.put_entry(conversation.id, "longer", 1, expires_in=2 * HOUR)
            clock.advance(HOUR - MILLISECOND)
            assert len(read_entries(subject, conversation_id=conversation.id)) == 2
            subject.put_entry(conversation.id, "late", 1)  # is no activity
            clock.advance(MILLISECOND)
            for name in ("topic", "longer", "late"):
                with pytest.raises(NotFound) as caught:
                    subject.entry(conversation.id, name)
                assert caught.value.entry is None

    def test_activity_carries_entries_on_with_their_conversation(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "hello", expires_in=HOUR)
        entries = [
            subject.put_entry(conversation.id, "large", "x" * LARGE),
            subject.put_entry(conversation.id, "small", 1),
        ]
        for _ in range(60):
            clock.advance(timedelta(minutes=55))
            subject.append(conversation.id, user_messages("still here"))
            subject.sweep()
        assert read_entries(subject, conversation_id=conversation.id) == entries

    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("end", ["deleted", "expired", "deleted with its owner"])
    def test_a_new_conversation_has_no_entries_of_the_former_one(
        self, subject: Store, clock: Clock, end: str, how: str, swept: bool
    ) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "old", owner=owner, expires_in=HOUR)
        old = subject.put_entry(conversation.id, "topic", "x" * LARGE)
        subject.put_entry(conversation.id, "small", "old")
        with clock.stopped():
            match end:
                case "deleted":
                    subject.delete(conversation.id)
                case "expired":
                    clock.advance(HOUR)
                case "deleted with its owner":
                    subject.delete_owner(owner)
            if swept:
                subject.sweep()
            begin_anew(subject, conversation.id, how, lifetime=HOUR)
            assert read_entries(subject, conversation_id=conversation.id) == []
            with pytest.raises(NotFound):
                subject.entry(conversation.id, "topic")
            with pytest.raises(Conflict):
                subject.put_entry(conversation.id, "topic", "late", revision=old.revision)
            new = subject.put_entry(conversation.id, "topic", "new", revision=0)
            assert new.revision > old.revision
            clock.advance(timedelta(minutes=30))
            subject.sweep()
            assert read_entries(subject, conversation_id=conversation.id) == [new]

    @each_of(call for call in CALLS if call.needs_conversation and not call.deletes)
    def test_nothing_but_a_deletion_takes_the_entries_of_a_conversation(
        self, subject: Store, call: Call
    ) -> None:
        conversation = start_conversation(subject, *"12345", owner=new_id())
        entries = [
            subject.put_entry(conversation.id, "a", "x" * LARGE),
            subject.put_entry(conversation.id, "b", None),
        ]
        call(subject, conversation)
        kept = read_entries(subject, conversation_id=conversation.id)
        # The call itself may have put others.
        assert [entry for entry in kept if entry.name in ("a", "b")] == entries

    @pytest.mark.parametrize("at", [None, 0], ids=["", "of the beginning"])
    def test_a_fork_has_copies_of_the_entries(
        self, subject: Store, clock: Clock, at: int | None
    ) -> None:
        source = start_conversation(subject, "1", "2", owner=new_id(), expires_in=DAY)
        with clock.stopped():
            subject.put_entry(source.id, "expired", 1, expires_in=HOUR)
            subject.put_entry(source.id, "deleted", 1)
            subject.delete_entry(source.id, "deleted")
            clock.advance(HOUR)
            given = [
                subject.put_entry(source.id, "a", {"a": [1, 1.0, None]}),
                subject.put_entry(source.id, "large", "x" * LARGE),
                subject.put_entry(source.id, "own life", 1, expires_in=2 * HOUR),
            ]
            clock.advance(timedelta(minutes=1))
            fork = subject.fork(source.id, at=at)
        copies = read_entries(subject, conversation_id=fork.id)
        assert [(e.name, e.value, e.expires_at) for e in copies] == [
            (e.name, e.value, e.expires_at) for e in given
        ]
        assert read_entries(subject, conversation_id=source.id) == given
        # From now on, they have lives of their own.
        subject.put_entry(source.id, "a", "changed")
        subject.put_entry(fork.id, "large", "changed", revision=copies[1].revision)
        assert subject.entry(fork.id, "a") == copies[0]
        assert subject.entry(source.id, "large") == given[1]
        subject.delete(source.id)
        subject.sweep()
        assert subject.entry(fork.id, "a") == copies[0]
        assert subject.entry(fork.id, "own life") == copies[2]

    def test_the_copies_of_a_fork_expire_with_it(self, subject: Store, clock: Clock) -> None:
        source = start_conversation(subject, "1")
        subject.put_entry(source.id, "a", 1)
        fork = subject.fork(source.id, expires_in=HOUR)
        for _ in range(5):
            clock.advance(timedelta(minutes=50))
            subject.append(fork.id, user_messages("still here"))
            subject.sweep()
        assert subject.entry(fork.id, "a").value == 1
        clock.advance(HOUR)
        assert find_entry(subject, "a", conversation_id=fork.id) is None
        assert subject.entry(source.id, "a").value == 1

    def test_entries_stay_with_a_conversation_that_is_claimed(self, subject: Store) -> None:
        conversation, owner = start_conversation(subject, "hello"), new_id()
        entry = subject.put_entry(conversation.id, "topic", 1)
        subject.claim(conversation.id, owner)
        assert subject.entry(conversation.id, "topic", owner=owner) == entry
        subject.put_entry(conversation.id, "topic", 2, revision=entry.revision, owner=owner)

    def test_the_entries_of_an_owner_are_deleted_with_the_owner_alone(
        self, subject: Store, clock: Clock
    ) -> None:
        owner, other = new_id(), new_id()
        conversation = start_conversation(subject, "hello", owner=owner)
        subject.put_entry(conversation.id, "topic", 1)
        old = subject.put_entry(None, "settings", "x" * LARGE, owner=owner)
        subject.put_entry(None, "facts", 1, owner=owner)
        theirs = subject.put_entry(None, "settings", 2, owner=other)
        subject.delete(conversation.id)
        clock.advance(400 * DAY)
        subject.sweep()
        assert subject.entry(None, "settings", owner=owner) == old
        with clock.stopped():
            assert subject.delete_owner(owner) == 0
            assert read_entries(subject, conversation_id=None, owner=owner) == []
            assert subject.delete_owner(owner) == 0
            new = subject.put_entry(None, "settings", "new", revision=0, owner=owner)
            assert new.revision > old.revision
        assert read_entries(subject, conversation_id=None, owner=owner) == [new]
        assert read_entries(subject, conversation_id=None, owner=other) == [theirs]
        clock.advance(3 * DAY)
        subject.sweep()
        assert subject.entry(None, "settings", owner=owner) == new

    def test_the_entries_of_many_are_deleted_with_them(self, subject: Store) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "hello", owner=owner)
        for number in range(120):
            subject.put_entry(conversation.id, f"{number}", number)
            subject.put_entry(None, f"{number}", number, owner=owner)
        assert subject.delete_owner(owner) == 1
        assert read_entries(subject, conversation_id=None, owner=owner) == []
        with pytest.raises(NotFound):
            subject.entries(conversation.id)
