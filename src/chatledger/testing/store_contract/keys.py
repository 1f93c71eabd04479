"""The same idempotency key appends once, whatever a client that lost its answer sends again."""

from datetime import timedelta

import pytest

from chatledger.errors import Conflict, NotFound
from chatledger.messages import new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import begin, read_all, said, say, see, unchanged

KEY = "3f2a#1"


class KeyLaws:
    """``append`` with an ``idempotency_key``; for rivals with one key see ``RivalLaws``."""

    def test_the_same_key_appends_once_and_answers_the_same(self, subject: Store) -> None:
        it = begin(subject, "one")
        first = subject.append(it.id, say("two", "three"), idempotency_key=KEY)
        with unchanged(subject, it.id):
            assert subject.append(it.id, say("two", "three"), idempotency_key=KEY) == first

    def test_the_key_answers_the_same_where_it_started_the_conversation(
        self, subject: Store
    ) -> None:
        conversation_id, owner = new_id(), new_id()
        first = subject.append(conversation_id, say("hello"), owner=owner, idempotency_key=KEY)
        again = subject.append(conversation_id, say("hello"), owner=owner, idempotency_key=KEY)
        assert again == first
        assert said(read_all(subject, conversation_id)) == ["hello"]

    def test_the_key_answers_the_same_whatever_else_is_passed(self, subject: Store) -> None:
        it = begin(subject, "one")
        first = subject.append(it.id, say("two"), after=it.revision, idempotency_key=KEY)
        with unchanged(subject, it.id):
            for after in (None, 0, it.revision, first.revision, first.revision + 9):
                again = subject.append(
                    it.id, say("other", "ones"), after=after, idempotency_key=KEY
                )
                assert again == first

    @pytest.mark.parametrize("what", ["append", "truncate", "pop", "clear", "update"])
    def test_the_key_answers_the_same_whatever_has_happened_to_the_messages(
        self, subject: Store, what: str
    ) -> None:
        it = begin(subject, "one")
        first = subject.append(it.id, say("two"), idempotency_key=KEY)
        match what:
            case "append":
                subject.append(it.id, say("three"))
            case "truncate":
                subject.truncate(it.id, after=it.revision)
            case "pop":
                subject.pop(it.id)
            case "clear":
                subject.clear(it.id)
            case "update":
                subject.update(it.id, title="new")
        with unchanged(subject, it.id):
            assert subject.append(it.id, say("two"), idempotency_key=KEY) == first

    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    def test_the_key_answers_the_same_23_hours_later(
        self, subject: Store, clock: Clock, swept: bool
    ) -> None:
        it = begin(subject, "one")
        first = subject.append(it.id, say("two"), idempotency_key=KEY)
        clock.advance(timedelta(hours=23))
        if swept:
            subject.sweep()
        with unchanged(subject, it.id):
            assert subject.append(it.id, say("two"), idempotency_key=KEY) == first

    def test_other_keys_and_none_append_again(self, subject: Store) -> None:
        it = begin(subject)
        for key in (KEY, KEY + "0", None, KEY.upper(), None):
            subject.append(it.id, say("again"), idempotency_key=key)
        assert said(read_all(subject, it.id)) == ["again"] * 5

    def test_the_same_key_on_another_conversation_is_another(self, subject: Store) -> None:
        one, other = begin(subject), begin(subject)
        subject.append(one.id, say("to one"), idempotency_key=KEY)
        subject.append(other.id, say("to the other"), idempotency_key=KEY)
        assert said(read_all(subject, one.id)) == ["to one"]
        assert said(read_all(subject, other.id)) == ["to the other"]

    def test_a_fork_knows_no_key_of_its_original(self, subject: Store) -> None:
        it = begin(subject)
        subject.append(it.id, say("one"), idempotency_key=KEY)
        fork = subject.fork(it.id)
        subject.append(fork.id, say("two"), idempotency_key=KEY)
        assert said(read_all(subject, fork.id)) == ["one", "two"]

    def test_a_refused_append_does_not_use_up_its_key(self, subject: Store) -> None:
        it = begin(subject, "one")
        with pytest.raises(Conflict):
            subject.append(it.id, say("two"), after=it.revision + 1, idempotency_key=KEY)
        subject.append(it.id, say("two"), after=it.revision, idempotency_key=KEY)
        assert said(read_all(subject, it.id)) == ["one", "two"]

    def test_a_key_that_has_been_used_truncates_nothing(self, subject: Store) -> None:
        it = begin(subject, "one")
        first = subject.append(it.id, say("two"), idempotency_key=KEY, truncate_after=0)
        subject.append(it.id, say("three"))
        with unchanged(subject, it.id):
            again = subject.append(it.id, say("two"), idempotency_key=KEY, truncate_after=0)
        assert again == first

    def test_a_key_tells_a_stranger_nothing(self, subject: Store) -> None:
        it = begin(subject, owner=new_id())
        subject.append(it.id, say("one"), idempotency_key=KEY)
        with unchanged(subject, it.id), pytest.raises(NotFound):
            subject.append(it.id, say("one"), owner=new_id(), idempotency_key=KEY)

    def test_a_key_that_appended_many_messages_names_all_of_them(self, subject: Store) -> None:
        conversation_id = new_id()
        batch = say(*map(str, range(300)))
        first = subject.append(conversation_id, batch, idempotency_key=KEY)
        assert subject.append(conversation_id, batch, idempotency_key=KEY) == first
        seen = see(subject, conversation_id)
        assert seen.seqs == list(first.seqs)
        assert seen.messages == batch
