"""Laws of expiry and ``sweep``: an expired conversation does not exist from that moment on."""

from datetime import timedelta

import pytest

from chatledger.errors import NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    Started,
    assert_unchanged,
    ids_of,
    list_all,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import CALLS, Call, each_of
from chatledger.values import new_id

HOUR = timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)


def expired_conversation(store: Store, clock: Clock, *, owner: str | None = None) -> Started:
    conversation = start_conversation(store, "old", "and older", owner=owner, expires_in=HOUR)
    store.update(conversation.id, title="old", metadata={"old": True})
    clock.advance(HOUR)
    return conversation


class ExpiringLaws:
    """``expires_in``, by the clock of the store, and ``sweep``."""

    def test_a_conversation_says_when_it_expires(self, subject: Store, clock: Clock) -> None:
        with clock.stopped():
            created = subject.create(expires_in=HOUR)
            assert created.expires_at == clock() + HOUR
            clock.advance(timedelta(minutes=5))
            subject.append(created.id, user_messages("hello"))
            assert subject.get(created.id).expires_at == clock() + HOUR

    @pytest.mark.parametrize("days", [1 / 86_400, 30, 36_500])
    def test_a_lifetime_may_be_one_second_or_a_hundred_years(
        self, subject: Store, clock: Clock, days: float
    ) -> None:
        with clock.stopped():
            created = subject.create(expires_in=timedelta(days=days))
            assert created.expires_at == clock() + timedelta(days=days)
            assert subject.get(created.id) == created

    def test_a_conversation_exists_until_the_moment_it_expires(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        with clock.stopped():
            conversation = start_conversation(subject, "hello", owner=owner, expires_in=HOUR)
            clock.advance(HOUR - MILLISECOND)
            assert snapshot_if_any(subject, conversation.id) is not None
            assert len(list_all(subject, owner)) == 1
            clock.advance(MILLISECOND)
            assert snapshot_if_any(subject, conversation.id) is None
            assert list_all(subject, owner) == []

    @each_of(call for call in CALLS if call.needs_conversation)
    def test_no_operation_finds_an_expired_conversation(
        self, subject: Store, clock: Clock, call: Call
    ) -> None:
        owner = new_id()
        conversation = expired_conversation(subject, clock, owner=owner)
        for caller in (None, owner):
            with pytest.raises(NotFound):
                call(subject, conversation, caller=caller)
        assert snapshot_if_any(subject, conversation.id) is None

    def test_an_expired_conversation_is_neither_listed_nor_counted(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        lasting = [start_conversation(subject, "hello", owner=owner).id for _ in range(2)]
        for _ in range(3):
            start_conversation(subject, "hello", owner=owner, expires_in=HOUR)
        clock.advance(HOUR)
        for limit in (1, 2, 5):
            listed = list_all(subject, owner, limit=limit)
            assert sorted(ids_of(listed)) == sorted(lasting)
        assert subject.list(owner, limit=2).cursor is None
        assert subject.delete_owner(owner) == 2

    def test_a_cursor_still_works_after_the_conversation_it_points_at_expired(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        lasting = start_conversation(subject, "hello", owner=owner)
        clock.advance(timedelta(seconds=1))
        start_conversation(subject, "hello", owner=owner, expires_in=HOUR)
        listing = subject.list(owner, limit=1)
        clock.advance(HOUR)
        rest = subject.list(owner, cursor=listing.cursor)
        assert ids_of(rest.conversations) == [lasting.id]

    @each_of(call for call in CALLS if call.is_activity)
    def test_activity_renews_the_expiry(self, subject: Store, clock: Clock, call: Call) -> None:
        with clock.stopped():
            conversation = start_conversation(subject, "1", "2", expires_in=HOUR)
            clock.advance(HOUR - MILLISECOND)
            call(subject, conversation)
            assert subject.get(conversation.id).expires_at == clock() + HOUR
            clock.advance(HOUR - MILLISECOND)
            assert snapshot_if_any(subject, conversation.id) is not None

    def test_activity_renews_the_expiry_every_time(self, subject: Store, clock: Clock) -> None:
        conversation = start_conversation(subject, "0", expires_in=HOUR)
        for number in range(1, 25):
            clock.advance(timedelta(minutes=50))
            subject.append(conversation.id, user_messages(str(number)))
            subject.sweep()
        assert texts_of(snapshot(subject, conversation.id).messages) == [
            str(number) for number in range(25)
        ]

    @each_of(
        call
        for call in CALLS
        if not (call.is_activity or call.deletes or call.needs_free_id)
        # It sets the expiry, as RestoringLaws say.
        and call.operation != "restore"
    )
    def test_what_is_no_activity_does_not_renew_the_expiry(
        self, subject: Store, clock: Clock, call: Call
    ) -> None:
        conversation = start_conversation(subject, "hello", owner=new_id(), expires_in=HOUR)
        before = subject.get(conversation.id)
        clock.advance(timedelta(minutes=30))
        call(subject, conversation)
        after = subject.get(conversation.id)
        assert (after.expires_at, after.updated_at) == (before.expires_at, before.updated_at)
        clock.advance(timedelta(minutes=30))
        assert snapshot_if_any(subject, conversation.id) is None

    def test_a_fork_has_the_same_lifetime_from_its_own_creation(
        self, subject: Store, clock: Clock
    ) -> None:
        with clock.stopped():
            conversation = start_conversation(subject, "hello", expires_in=HOUR)
            clock.advance(timedelta(minutes=30))
            fork = subject.fork(conversation.id)
            assert fork.expires_at == clock() + HOUR
            clock.advance(timedelta(minutes=30))
            assert (snapshot_if_any(subject, conversation.id), subject.get(fork.id)) == (None, fork)

    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    @pytest.mark.parametrize("how", ["append", "append at revision 0", "create", "fork"])
    def test_a_new_conversation_with_an_expired_id_starts_empty_and_at_higher_revisions(
        self, subject: Store, clock: Clock, how: str, swept: bool
    ) -> None:
        owner = new_id()
        conversation = expired_conversation(subject, clock, owner=new_id())
        if swept:
            subject.sweep()
        with clock.stopped():
            match how:
                case "append":
                    subject.append(conversation.id, user_messages("new"), owner=owner)
                case "append at revision 0":
                    subject.append(conversation.id, user_messages("new"), owner=owner, revision=0)
                case "create":
                    assert (
                        subject.create(conversation.id, owner=owner).revision
                        > conversation.revision
                    )
                    subject.append(conversation.id, user_messages("new"))
                case "fork":
                    subject.fork(
                        start_conversation(subject, "new", owner=owner).id, new_id=conversation.id
                    )
            state = snapshot(subject, conversation.id)
            assert state.conversation.created_at == clock()
        assert texts_of(state.messages) == ["new"]
        assert state.seqs[0] > conversation.revision
        assert (state.conversation.owner, state.conversation.title) == (owner, None)
        assert (state.conversation.metadata, state.conversation.message_count) == ({}, 1)
        assert state.conversation.expires_at is None
        assert state.conversation in list_all(subject, owner)

    def test_a_new_conversation_with_an_expired_id_has_a_lifetime_of_its_own(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = expired_conversation(subject, clock)
        with clock.stopped():
            created = subject.create(conversation.id, expires_in=2 * HOUR)
            assert created.expires_at == clock() + 2 * HOUR

    def test_a_revision_does_not_match_a_conversation_that_expired(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = expired_conversation(subject, clock)
        with pytest.raises(NotFound):
            subject.append(
                conversation.id, user_messages("too late"), revision=conversation.revision
            )
        assert snapshot_if_any(subject, conversation.id) is None

    def test_a_sweep_frees_expired_conversations_and_no_live_ones(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        live = [
            start_conversation(subject, "lasting", owner=owner),
            start_conversation(subject, "expiring later", expires_in=4 * HOUR),
            start_conversation(subject),
        ]
        for _ in range(3):
            start_conversation(subject, "old", owner=owner, expires_in=HOUR)
        clock.advance(3 * HOUR)
        before = [snapshot_if_any(subject, conversation.id) for conversation in live]
        assert subject.sweep() >= 3
        assert [snapshot_if_any(subject, conversation.id) for conversation in live] == before
        assert None not in before
        assert ids_of(list_all(subject, owner)) == [live[0].id]

    def test_a_sweep_spares_a_conversation_that_an_append_with_reply_follows_renewed(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "hello", owner=new_id(), expires_in=HOUR)
        clock.advance(timedelta(minutes=50))
        subject.append(conversation.id, user_messages("question"), reply_follows=True)
        clock.advance(timedelta(minutes=50))
        with assert_unchanged(subject, conversation.id):
            subject.sweep()
        assert texts_of(snapshot(subject, conversation.id).messages) == ["hello", "question"]

    def test_a_sweep_changes_nothing_in_a_truncated_conversation(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        subject.truncate(conversation.id, after=conversation.seqs[0])
        subject.append(conversation.id, user_messages("4"))
        clock.advance(timedelta(days=3))
        with assert_unchanged(subject, conversation.id):
            subject.sweep()
        assert subject.append(conversation.id, user_messages("5")).seqs[0] > conversation.seqs[-1]
