"""Laws of ``fork``: an independent copy."""

from datetime import timedelta

import pytest

from chatledger.conversations import fields_of
from chatledger.errors import AlreadyExists
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.descriptions import ONE
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    read_all,
    snapshot,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.values import new_id


class ForkingLaws:
    """``fork``."""

    def test_a_fork_has_the_same_messages_and_description(
        self, subject: Store, clock: Clock
    ) -> None:
        original = subject.create(owner=new_id(), **ONE)
        subject.append(
            original.id, [Message.user("1"), Message.assistant("2", metadata={"stop": "end"})]
        )
        clock.advance(timedelta(minutes=1))
        with assert_unchanged(subject, original.id), clock.stopped():
            fork = subject.fork(original.id)
            assert fork.created_at == fork.updated_at == clock()
        assert fork.id != original.id
        assert (fork.owner, fields_of(fork)) == (original.owner, ONE)
        assert (fork.message_count, fork.expires_at) == (2, None)
        state = snapshot(subject, fork.id)
        assert state.conversation == fork
        # Equal messages also have equal ids and times.
        assert state.messages == read_all(subject, original.id)

    def test_a_fork_ends_with_the_message_it_was_made_at(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2", "3", "4")
        subject.truncate(conversation.id, after=conversation.seqs[2])
        subject.append(conversation.id, user_messages("5"))
        for at, texts in {
            None: ["1", "2", "3", "5"],
            0: [],
            conversation.seqs[0]: ["1"],
            conversation.seqs[2]: ["1", "2", "3"],
            conversation.seqs[3]: ["1", "2", "3"],  # the seq of a removed message
            conversation.revision + 1_000: ["1", "2", "3", "5"],
        }.items():
            fork = subject.fork(conversation.id, at=at)
            state = snapshot(subject, fork.id)
            assert state.conversation == fork
            assert (texts_of(state.messages), fork.message_count) == (texts, len(texts))

    def test_a_fork_has_the_id_it_was_given(self, subject: Store) -> None:
        conversation, other = start_conversation(subject, "1"), new_id()
        assert subject.fork(conversation.id, new_id=other).id == other
        assert texts_of(read_all(subject, other)) == ["1"]

    def test_a_fork_and_its_original_are_independent(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2")
        fork = subject.fork(conversation.id)
        with assert_unchanged(subject, conversation.id):
            subject.append(fork.id, user_messages("3"), revision=fork.revision)
            subject.replace(fork.id, snapshot(subject, fork.id).seqs[0], Message.user("another"))
        with assert_unchanged(subject, fork.id):
            subject.clear(conversation.id)
            subject.delete(conversation.id)
        assert texts_of(read_all(subject, fork.id)) == ["another", "2", "3"]
        subject.delete(fork.id)

    def test_a_fork_can_be_forked(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2")
        fork = subject.fork(conversation.id)
        subject.append(fork.id, user_messages("3"))
        again = subject.fork(fork.id)
        assert texts_of(read_all(subject, again.id)) == ["1", "2", "3"]

    def test_a_fork_to_an_existing_id_is_rejected(self, subject: Store) -> None:
        conversation, other = (
            start_conversation(subject, "1"),
            start_conversation(subject, "2", owner=new_id()),
        )
        for taken in (other.id, conversation.id):
            with (
                assert_unchanged(subject, conversation.id),
                assert_unchanged(subject, other.id),
                pytest.raises(AlreadyExists) as caught,
            ):
                subject.fork(conversation.id, new_id=taken)
            assert caught.value.conversation_id == taken

    def test_a_fork_to_a_deleted_id_starts_at_higher_revisions(self, subject: Store) -> None:
        conversation, deleted = (
            start_conversation(subject, "1"),
            start_conversation(subject, *map(str, range(20))),
        )
        subject.delete(deleted.id)
        fork = subject.fork(conversation.id, new_id=deleted.id)
        assert fork.revision > deleted.revision
        state = snapshot(subject, fork.id)
        assert texts_of(state.messages) == ["1"]
        assert state.seqs[0] > deleted.revision

    @pytest.mark.parametrize("lifetime", [None, timedelta(hours=1)])
    def test_a_fork_with_another_lifetime_keeps_it_and_its_original_too(
        self, subject: Store, clock: Clock, lifetime: timedelta | None
    ) -> None:
        conversation = start_conversation(subject, "1", expires_in=lifetime)
        year = timedelta(days=365)
        with clock.stopped():
            with assert_unchanged(subject, conversation.id):
                fork = subject.fork(conversation.id, expires_in=year)
            assert fork == subject.get(fork.id)
            assert fork.expires_at == clock() + year
            clock.advance(timedelta(minutes=59))
            for conversation_id in (conversation.id, fork.id):
                subject.append(conversation_id, user_messages("2"))
            assert subject.get(fork.id).expires_at == clock() + year
            original = subject.get(conversation.id)
            assert original.expires_at == (lifetime and clock() + lifetime)
            again = subject.fork(fork.id)
            assert again.expires_at == clock() + year
            clock.advance(timedelta(days=364))
            assert texts_of(read_all(subject, fork.id)) == ["1", "2"]

    def test_a_long_conversation_is_copied_completely(self, subject: Store) -> None:
        conversation = start_conversation(subject, *map(str, range(2_500)))
        fork = subject.fork(conversation.id, at=conversation.seqs[2_100])
        assert fork.message_count == 2_101
        assert texts_of(read_all(subject, fork.id)) == [str(number) for number in range(2_101)]
