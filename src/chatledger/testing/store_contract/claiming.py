"""Laws of ``claim``: an anonymous conversation gets an owner, once."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from chatledger.conversations import MAX_ID_BYTES
from chatledger.errors import AlreadyExists, Conflict, NotFound
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    Started,
    assert_unchanged,
    ids_of,
    list_all,
    read_all,
    read_started,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import OWNER_CALLS, Call, each_of
from chatledger.values import new_id

HOUR = timedelta(hours=1)


def appended_conversation(store: Store, *, reply_follows: bool = False) -> Started:
    conversation_id = new_id()
    store.append(conversation_id, user_messages("1", "2"), reply_follows=reply_follows)
    return read_started(store, conversation_id)


def cleared_conversation(store: Store) -> Started:
    conversation = start_conversation(store, "1", "2")
    store.clear(conversation.id)
    return read_started(store, conversation.id)


ANONYMOUS: dict[str, Callable[[Store], Started]] = {
    "created": start_conversation,
    "with messages": lambda store: start_conversation(store, "1", "2", "3"),
    "begun by an append": appended_conversation,
    "begun by an append that a reply follows": lambda store: appended_conversation(
        store, reply_follows=True
    ),
    "cleared": cleared_conversation,
    "copied": lambda store: read_started(
        store, store.fork(start_conversation(store, "1", "2").id).id
    ),
    "long": lambda store: start_conversation(store, *map(str, range(300))),
}


class ClaimingLaws:
    """``claim`` without rivals, for which see ``RivalLaws``."""

    @pytest.mark.parametrize("start", ANONYMOUS.values(), ids=ANONYMOUS)
    def test_a_claimed_conversation_belongs_to_its_owner_and_keeps_everything_else(
        self, subject: Store, clock: Clock, start: Callable[[Store], Started]
    ) -> None:
        owner = new_id()
        conversation = start(subject)
        subject.update(conversation.id, title="Plans", metadata={"a": 1})
        before = snapshot(subject, conversation.id)
        clock.advance(timedelta(minutes=1))
        with clock.stopped():
            claimed = subject.claim(conversation.id, owner)
            assert claimed.updated_at == clock()
        assert claimed.owner == owner
        assert claimed.revision > before.conversation.revision
        assert (claimed.title, claimed.metadata) == ("Plans", {"a": 1})
        assert claimed.created_at == before.conversation.created_at
        assert claimed.message_count == before.conversation.message_count
        # Neither title nor metadata have changed.
        assert claimed.metadata_revision == before.conversation.metadata_revision
        state = snapshot(subject, conversation.id)
        assert state == (claimed, before.messages, before.seqs)
        for caller in (owner, None):
            assert subject.get(conversation.id, owner=caller) == claimed
            assert subject.tail(conversation.id, 1_000, owner=caller).messages == before.messages
            read = list(subject.iter_messages(conversation.id, owner=caller))
            assert read == before.messages
        assert list_all(subject, owner) == [claimed]
        assert claimed in [*subject.iter_conversations()]

    def test_a_claimed_conversation_is_first_in_its_owners_list(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        anonymous = start_conversation(subject, "hello")
        clock.advance(timedelta(minutes=1))
        other = start_conversation(subject, "hello", owner=owner)
        clock.advance(timedelta(minutes=1))
        subject.claim(anonymous.id, owner)
        assert ids_of(list_all(subject, owner)) == [anonymous.id, other.id]

    def test_claiming_renews_the_expiry(self, subject: Store, clock: Clock) -> None:
        with clock.stopped():
            conversation = start_conversation(subject, "hello", expires_in=HOUR)
            clock.advance(timedelta(minutes=59))
            claimed = subject.claim(conversation.id, new_id())
            assert claimed.expires_at == clock() + HOUR
            clock.advance(timedelta(minutes=59))
            subject.sweep()
            assert subject.get(conversation.id) == claimed
            clock.advance(timedelta(minutes=1))
            assert snapshot_if_any(subject, conversation.id) is None

    @pytest.mark.parametrize("how", ["create", "append", "claim"])
    def test_claiming_again_changes_nothing(self, subject: Store, clock: Clock, how: str) -> None:
        owner, conversation_id = new_id(), new_id()
        match how:
            case "create":
                subject.create(conversation_id, owner=owner, expires_in=HOUR)
            case "append":
                subject.append(conversation_id, user_messages("hello"), owner=owner)
            case "claim":
                subject.create(conversation_id, expires_in=HOUR)
                subject.append(conversation_id, user_messages("hello"))
                subject.claim(conversation_id, owner)
        clock.advance(timedelta(minutes=1))
        newer = subject.create(owner=owner)
        before = subject.get(conversation_id)
        for _ in range(2):
            with assert_unchanged(subject, conversation_id):
                assert subject.claim(conversation_id, owner) == before
        assert ids_of(list_all(subject, owner)) == [newer.id, conversation_id]

    @pytest.mark.parametrize("how", ["create", "claim"])
    def test_the_conversation_of_another_owner_cannot_be_claimed(
        self, subject: Store, how: str
    ) -> None:
        owner = new_id()
        conversation = start_conversation(
            subject, "private", owner=owner if how == "create" else None
        )
        subject.claim(conversation.id, owner)
        for stranger in (new_id(), owner + " ", owner.upper() + "X", conversation.id):
            with assert_unchanged(subject, conversation.id), pytest.raises(NotFound) as caught:
                subject.claim(conversation.id, stranger)
            assert caught.value.conversation_id == conversation.id
            assert list_all(subject, stranger) == []
        assert ids_of(list_all(subject, owner)) == [conversation.id]

    @each_of(OWNER_CALLS)
    def test_a_claimed_conversation_exists_for_its_owner_and_for_no_other(
        self, subject: Store, call: Call
    ) -> None:
        owner, stranger = new_id(), new_id()
        conversation = start_conversation(subject, "mine")
        with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
            call(subject, conversation, caller=owner)
        claimed = subject.claim(conversation.id, owner)
        conversation = conversation._replace(revision=claimed.revision)
        with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
            call(subject, conversation, caller=stranger)
        call(subject, conversation, caller=owner)

    @pytest.mark.parametrize("gone", ["missing", "deleted", "swept", "expired"])
    def test_a_conversation_that_does_not_exist_cannot_be_claimed(
        self, subject: Store, clock: Clock, gone: str
    ) -> None:
        owner, conversation_id = new_id(), new_id()
        if gone != "missing":
            start_conversation(subject, "1", conversation_id=conversation_id, expires_in=HOUR)
        if gone in ("deleted", "swept"):
            subject.delete(conversation_id)
        if gone == "swept":
            subject.sweep()
        if gone == "expired":
            clock.advance(HOUR)
        with assert_unchanged(subject, conversation_id), pytest.raises(NotFound) as caught:
            subject.claim(conversation_id, owner)
        assert caught.value.conversation_id == conversation_id
        assert snapshot_if_any(subject, conversation_id) is None
        assert list_all(subject, owner) == []

    def test_an_owner_may_have_the_longest_name(self, subject: Store) -> None:
        conversation = start_conversation(subject, "hello")
        owner = new_id() + "\N{GRINNING FACE}" * ((MAX_ID_BYTES - 36) // 4)
        assert len(owner.encode()) == MAX_ID_BYTES
        assert subject.claim(conversation.id, owner).owner == owner
        assert ids_of(list_all(subject, owner)) == [conversation.id]

    def test_every_write_works_after_a_claim(self, subject: Store) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "1", "2", "3", "4")
        claimed = subject.claim(conversation.id, owner)
        with assert_unchanged(subject, conversation.id), pytest.raises(Conflict) as caught:
            subject.append(conversation.id, user_messages("no"), revision=conversation.revision)
        assert caught.value.revision == claimed.revision
        appended = subject.append(
            conversation.id, user_messages("5"), revision=claimed.revision, owner=owner
        )
        assert appended.seqs[0] > claimed.revision
        subject.append(conversation.id, user_messages("6"))
        subject.append(conversation.id, user_messages("7"), owner=owner)
        subject.remove(conversation.id, conversation.seqs[1], owner=owner)
        subject.replace(conversation.id, conversation.seqs[0], Message.user("one"), owner=owner)
        assert texts_of(subject.pop(conversation.id, owner=owner)) == ["7"]
        subject.update(conversation.id, title="mine", owner=owner)
        state = snapshot(subject, conversation.id)
        assert texts_of(state.messages) == ["one", "3", "4", "5", "6"]
        assert (state.conversation.message_count, state.conversation.title) == (5, "mine")
        assert list_all(subject, owner) == [state.conversation]
        assert subject.clear(conversation.id, owner=owner).owner == owner
        with pytest.raises(AlreadyExists):
            subject.create(conversation.id, owner=owner)

    def test_a_claim_between_a_question_and_its_reply_disturbs_neither(
        self, subject: Store
    ) -> None:
        owner, conversation_id = new_id(), new_id()
        subject.append(conversation_id, user_messages("question"), reply_follows=True)
        claimed = subject.claim(conversation_id, owner)
        assert list_all(subject, owner) == [claimed]
        subject.append(conversation_id, user_messages("reply"), owner=owner)
        assert texts_of(read_all(subject, conversation_id)) == ["question", "reply"]
        assert list_all(subject, owner) == [subject.get(conversation_id)]
        assert subject.delete_owner(owner) == 1

    def test_a_key_of_an_append_before_the_claim_returns_its_result(self, subject: Store) -> None:
        owner, conversation = new_id(), start_conversation(subject, "1")
        first = subject.append(conversation.id, user_messages("2"), idempotency_key="key")
        subject.claim(conversation.id, owner)
        for caller in (None, owner):
            with assert_unchanged(subject, conversation.id):
                again = subject.append(
                    conversation.id, user_messages("2"), idempotency_key="key", owner=caller
                )
                assert again == first

    def test_copies_made_before_a_claim_stay_anonymous_and_later_ones_have_the_owner(
        self, subject: Store
    ) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "1", "2")
        before = subject.fork(conversation.id)
        with assert_unchanged(subject, before.id):
            subject.claim(conversation.id, owner)
        assert subject.get(before.id).owner is None
        after = subject.fork(conversation.id, owner=owner)
        assert after.owner == owner
        assert texts_of(read_all(subject, after.id)) == ["1", "2"]
        assert sorted(ids_of(list_all(subject, owner))) == sorted([conversation.id, after.id])
        # A copy is claimed without its original.
        other = new_id()
        with assert_unchanged(subject, conversation.id):
            assert subject.claim(before.id, other).owner == other
        assert texts_of(read_all(subject, before.id)) == ["1", "2"]

    def test_deleting_the_owner_deletes_claimed_conversations(self, subject: Store) -> None:
        owner = new_id()
        claimed = [start_conversation(subject, "hello").id for _ in range(3)]
        for conversation_id in claimed:
            subject.claim(conversation_id, owner)
        created = start_conversation(subject, "hello", owner=owner).id
        anonymous = start_conversation(subject, "hello").id
        with assert_unchanged(subject, anonymous):
            assert subject.delete_owner(owner) == 4
        for conversation_id in (*claimed, created):
            assert snapshot_if_any(subject, conversation_id) is None
        assert list_all(subject, owner) == []

    def test_a_deleted_conversation_leaves_its_id_anonymous(self, subject: Store) -> None:
        first, second = new_id(), new_id()
        conversation = start_conversation(subject, "1")
        claimed = subject.claim(conversation.id, first)
        subject.delete(conversation.id)
        appended = subject.append(conversation.id, user_messages("2"))
        assert appended.seqs[0] > claimed.revision
        assert subject.get(conversation.id).owner is None
        assert list_all(subject, first) == []
        assert subject.claim(conversation.id, second).owner == second
        assert ids_of(list_all(subject, second)) == [conversation.id]

    def test_a_cursor_still_works_after_a_conversation_was_claimed(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        ids: list[str] = []
        for _ in range(5):
            clock.advance(timedelta(seconds=1))
            ids.insert(0, start_conversation(subject, "hello", owner=owner).id)
        listing = subject.list(owner, limit=2)
        clock.advance(timedelta(seconds=1))
        subject.claim(start_conversation(subject, "hello").id, owner)
        rest = subject.list(owner, cursor=listing.cursor)
        assert ids_of(rest.conversations) == ids[2:]
