"""A fork is a copy that goes its own way."""

from datetime import timedelta

import pytest

from chatledger.errors import AlreadyExists
from chatledger.messages import Message, new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import begin, read_all, said, say, see, unchanged


class ForkingLaws:
    """``fork``."""

    def test_a_fork_holds_the_same_messages_and_is_otherwise_alike(
        self, subject: Store, clock: Clock
    ) -> None:
        original = subject.create(owner=new_id(), title="Plans", metadata={"a": 1})
        subject.append(
            original.id, [Message.user("1"), Message.assistant("2", metadata={"stop": "end"})]
        )
        clock.advance(timedelta(minutes=1))
        with unchanged(subject, original.id), clock.stopped():
            fork = subject.fork(original.id)
            assert fork.created_at == fork.updated_at == clock()
        assert fork.id != original.id
        assert (fork.owner, fork.title, fork.metadata) == (original.owner, "Plans", {"a": 1})
        assert (fork.message_count, fork.expires_at) == (2, None)
        seen = see(subject, fork.id)
        assert seen.conversation == fork
        # Equal messages have equal ids and times.
        assert seen.messages == read_all(subject, original.id)

    def test_a_fork_ends_with_the_message_it_was_made_at(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3", "4")
        subject.truncate(it.id, after=it.seqs[2])
        subject.append(it.id, say("5"))
        for at, texts in {
            None: ["1", "2", "3", "5"],
            0: [],
            it.seqs[0]: ["1"],
            it.seqs[2]: ["1", "2", "3"],
            it.seqs[3]: ["1", "2", "3"],  # where a message was that is gone
            it.revision + 1_000: ["1", "2", "3", "5"],
        }.items():
            fork = subject.fork(it.id, at=at)
            seen = see(subject, fork.id)
            assert seen.conversation == fork
            assert (said(seen.messages), fork.message_count) == (texts, len(texts))

    def test_a_fork_takes_the_id_it_is_given(self, subject: Store) -> None:
        it, other = begin(subject, "1"), new_id()
        assert subject.fork(it.id, new_id=other).id == other
        assert said(read_all(subject, other)) == ["1"]

    def test_a_fork_and_its_original_go_their_own_ways(self, subject: Store) -> None:
        it = begin(subject, "1", "2")
        fork = subject.fork(it.id)
        with unchanged(subject, it.id):
            subject.append(fork.id, say("3"), after=fork.revision)
            subject.replace(fork.id, see(subject, fork.id).seqs[0], Message.user("another"))
        with unchanged(subject, fork.id):
            subject.clear(it.id)
            subject.delete(it.id)
        assert said(read_all(subject, fork.id)) == ["another", "2", "3"]
        subject.delete(fork.id)

    def test_a_fork_may_be_forked(self, subject: Store) -> None:
        it = begin(subject, "1", "2")
        fork = subject.fork(it.id)
        subject.append(fork.id, say("3"))
        again = subject.fork(fork.id)
        assert said(read_all(subject, again.id)) == ["1", "2", "3"]

    def test_a_fork_to_an_id_that_is_taken_is_refused(self, subject: Store) -> None:
        it, other = begin(subject, "1"), begin(subject, "2", owner=new_id())
        for taken in (other.id, it.id):
            with (
                unchanged(subject, it.id),
                unchanged(subject, other.id),
                pytest.raises(AlreadyExists) as caught,
            ):
                subject.fork(it.id, new_id=taken)
            assert caught.value.conversation_id == taken

    def test_a_fork_to_a_deleted_id_starts_at_higher_revisions(self, subject: Store) -> None:
        it, deleted = begin(subject, "1"), begin(subject, *map(str, range(20)))
        subject.delete(deleted.id)
        fork = subject.fork(it.id, new_id=deleted.id)
        assert fork.revision > deleted.revision
        seen = see(subject, fork.id)
        assert said(seen.messages) == ["1"]
        assert seen.seqs[0] > deleted.revision

    def test_a_long_conversation_is_copied_whole(self, subject: Store) -> None:
        it = begin(subject, *map(str, range(2_500)))
        fork = subject.fork(it.id, at=it.seqs[2_100])
        assert fork.message_count == 2_101
        assert said(read_all(subject, fork.id)) == [str(number) for number in range(2_101)]
