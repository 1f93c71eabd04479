"""To whoever names an owner, nobody else's conversation exists."""

import pytest

from chatledger.errors import AlreadyExists, NotFound
from chatledger.messages import new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import (
    NEEDS_ONE,
    Operation,
    begin,
    ids_of,
    list_all,
    look,
    say,
    unchanged,
)

OPERATIONS = pytest.mark.parametrize("operation", NEEDS_ONE.values(), ids=NEEDS_ONE)


class OwningLaws:
    """``owner``, everywhere."""

    @OPERATIONS
    def test_to_a_stranger_a_conversation_does_not_exist(
        self, subject: Store, operation: Operation
    ) -> None:
        owner = new_id()
        it = begin(subject, "private", owner=owner)
        for stranger in (new_id(), owner.upper() + "X", it.id):
            with unchanged(subject, it.id), pytest.raises(NotFound) as caught:
                operation(subject, it, stranger)
            assert caught.value.conversation_id == it.id
            assert list_all(subject, stranger) == []

    @OPERATIONS
    def test_to_whoever_names_an_owner_an_anonymous_conversation_does_not_exist(
        self, subject: Store, operation: Operation
    ) -> None:
        it = begin(subject, "anonymous")
        with unchanged(subject, it.id), pytest.raises(NotFound):
            operation(subject, it, new_id())

    @OPERATIONS
    def test_the_owner_and_who_names_none_can_do_everything(
        self, subject: Store, operation: Operation
    ) -> None:
        owner = new_id()
        for caller in (owner, None):
            operation(subject, begin(subject, "mine", owner=owner), caller)
        operation(subject, begin(subject, "anonymous"), None)

    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_a_strangers_append_neither_lands_nor_starts_a_conversation(
        self, subject: Store, owner: str | None
    ) -> None:
        it, stranger = begin(subject, "private", owner=owner), new_id()
        for after in (None, 0, it.revision):
            with unchanged(subject, it.id), pytest.raises(NotFound):
                subject.append(it.id, say("intruding"), owner=stranger, after=after)
        assert list_all(subject, stranger) == []

    def test_an_owners_append_lands_and_leaves_the_owner(self, subject: Store) -> None:
        owner = new_id()
        it = begin(subject, "mine", owner=owner)
        subject.append(it.id, say("mine too"), owner=owner)
        subject.append(it.id, say("from the service"))
        conversation = subject.get(it.id, owner=owner)
        assert (conversation.owner, conversation.message_count) == (owner, 3)

    def test_an_id_that_a_stranger_took_is_taken(self, subject: Store) -> None:
        it = begin(subject, "private", owner=new_id())
        for owner in (new_id(), None):
            with unchanged(subject, it.id), pytest.raises(AlreadyExists):
                subject.create(it.id, owner=owner)

    def test_a_deleted_id_may_be_taken_by_another(self, subject: Store) -> None:
        first, second = new_id(), new_id()
        it = begin(subject, "mine", owner=first)
        subject.delete(it.id, owner=first)
        subject.append(it.id, say("now mine"), owner=second)
        with unchanged(subject, it.id), pytest.raises(NotFound):
            subject.get(it.id, owner=first)
        assert list_all(subject, first) == []
        assert ids_of(list_all(subject, second)) == [it.id]

    def test_a_fork_belongs_to_the_owner_of_the_original(self, subject: Store) -> None:
        owner = new_id()
        it = begin(subject, "mine", owner=owner)
        for caller in (owner, None):
            fork = subject.fork(it.id, owner=caller)
            assert look(subject, fork.id) is not None
            assert subject.get(fork.id, owner=owner).owner == owner
