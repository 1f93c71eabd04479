"""Laws of ownership: a caller that names an owner sees only that owner's conversations."""

import pytest

from chatledger.errors import AlreadyExists, NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    ids_of,
    list_all,
    snapshot_if_any,
    start_conversation,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import OWNER_CALLS, Call, each_of
from chatledger.values import new_id


class OwnershipLaws:
    """``owner`` in every operation."""

    @each_of(OWNER_CALLS)
    def test_a_conversation_does_not_exist_for_another_owner(
        self, subject: Store, call: Call
    ) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "private", owner=owner)
        for stranger in (new_id(), owner.upper() + "X", conversation.id):
            with assert_unchanged(subject, conversation.id), pytest.raises(NotFound) as caught:
                call(subject, conversation, caller=stranger)
            assert caught.value.conversation_id == conversation.id
            assert list_all(subject, stranger) == []

    @each_of(OWNER_CALLS)
    def test_an_anonymous_conversation_does_not_exist_for_any_owner(
        self, subject: Store, call: Call
    ) -> None:
        conversation = start_conversation(subject, "anonymous")
        with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
            call(subject, conversation, caller=new_id())

    @each_of(OWNER_CALLS)
    def test_the_owner_and_callers_without_owner_can_do_everything(
        self, subject: Store, call: Call
    ) -> None:
        owner = new_id()
        for caller in (owner, None):
            call(subject, start_conversation(subject, "mine", owner=owner), caller=caller)
        call(subject, start_conversation(subject, "anonymous"))

    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_an_append_by_another_owner_neither_lands_nor_creates_a_conversation(
        self, subject: Store, owner: str | None
    ) -> None:
        conversation, stranger = start_conversation(subject, "private", owner=owner), new_id()
        for revision in (None, 0, conversation.revision):
            with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
                subject.append(
                    conversation.id, user_messages("intruding"), owner=stranger, revision=revision
                )
        assert list_all(subject, stranger) == []

    def test_an_append_by_the_owner_or_without_owner_lands_and_keeps_the_owner(
        self, subject: Store
    ) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "mine", owner=owner)
        subject.append(conversation.id, user_messages("mine too"), owner=owner)
        subject.append(conversation.id, user_messages("from the service"))
        read = subject.get(conversation.id, owner=owner)
        assert (read.owner, read.message_count) == (owner, 3)

    def test_an_id_of_another_owner_cannot_be_created_again(self, subject: Store) -> None:
        conversation = start_conversation(subject, "private", owner=new_id())
        for owner in (new_id(), None):
            with assert_unchanged(subject, conversation.id), pytest.raises(AlreadyExists):
                subject.create(conversation.id, owner=owner)

    def test_a_deleted_id_can_be_taken_by_another_owner(self, subject: Store) -> None:
        first, second = new_id(), new_id()
        conversation = start_conversation(subject, "mine", owner=first)
        subject.delete(conversation.id, owner=first)
        subject.append(conversation.id, user_messages("now mine"), owner=second)
        with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
            subject.get(conversation.id, owner=first)
        assert list_all(subject, first) == []
        assert ids_of(list_all(subject, second)) == [conversation.id]

    def test_a_fork_belongs_to_the_owner_of_the_original(self, subject: Store) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "mine", owner=owner)
        for caller in (owner, None):
            fork = subject.fork(conversation.id, owner=caller)
            assert snapshot_if_any(subject, fork.id) is not None
            assert subject.get(fork.id, owner=owner).owner == owner
