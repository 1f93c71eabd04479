"""Laws of idempotency keys: the same key appends once, however often it is sent."""

from datetime import timedelta

import pytest

from chatledger.errors import Conflict, NotFound
from chatledger.ids import new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    read_all,
    snapshot,
    start_conversation,
    texts_of,
    user_messages,
)

KEY = "3f2a#1"


class KeyLaws:
    """``append`` with an ``idempotency_key``, without rivals, for which see ``RivalLaws``."""

    def test_the_same_key_appends_once_and_returns_the_same_result(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(conversation.id, user_messages("two", "three"), idempotency_key=KEY)
        with assert_unchanged(subject, conversation.id):
            assert (
                subject.append(conversation.id, user_messages("two", "three"), idempotency_key=KEY)
                == first
            )

    def test_the_key_returns_the_same_result_if_its_append_created_the_conversation(
        self, subject: Store
    ) -> None:
        conversation_id, owner = new_id(), new_id()
        first = subject.append(
            conversation_id, user_messages("hello"), owner=owner, idempotency_key=KEY
        )
        again = subject.append(
            conversation_id, user_messages("hello"), owner=owner, idempotency_key=KEY
        )
        assert again == first
        assert texts_of(read_all(subject, conversation_id)) == ["hello"]

    def test_the_key_returns_the_same_result_whatever_else_is_passed(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(
            conversation.id, user_messages("two"), after=conversation.revision, idempotency_key=KEY
        )
        with assert_unchanged(subject, conversation.id):
            for after in (None, 0, conversation.revision, first.revision, first.revision + 9):
                again = subject.append(
                    conversation.id,
                    user_messages("other", "ones"),
                    after=after,
                    idempotency_key=KEY,
                )
                assert again == first

    @pytest.mark.parametrize("what", ["append", "truncate", "pop", "clear", "update"])
    def test_the_key_returns_the_same_result_whatever_has_happened_to_the_messages(
        self, subject: Store, what: str
    ) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(conversation.id, user_messages("two"), idempotency_key=KEY)
        match what:
            case "append":
                subject.append(conversation.id, user_messages("three"))
            case "truncate":
                subject.truncate(conversation.id, after=conversation.revision)
            case "pop":
                subject.pop(conversation.id)
            case "clear":
                subject.clear(conversation.id)
            case "update":
                subject.update(conversation.id, title="new")
        with assert_unchanged(subject, conversation.id):
            assert (
                subject.append(conversation.id, user_messages("two"), idempotency_key=KEY) == first
            )

    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    def test_the_key_returns_the_same_result_23_hours_later(
        self, subject: Store, clock: Clock, swept: bool
    ) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(conversation.id, user_messages("two"), idempotency_key=KEY)
        clock.advance(timedelta(hours=23))
        if swept:
            subject.sweep()
        with assert_unchanged(subject, conversation.id):
            assert (
                subject.append(conversation.id, user_messages("two"), idempotency_key=KEY) == first
            )

    def test_other_keys_and_no_key_append_again(self, subject: Store) -> None:
        conversation = start_conversation(subject)
        for key in (KEY, KEY + "0", None, KEY.upper(), None):
            subject.append(conversation.id, user_messages("again"), idempotency_key=key)
        assert texts_of(read_all(subject, conversation.id)) == ["again"] * 5

    def test_the_same_key_on_another_conversation_is_a_different_key(self, subject: Store) -> None:
        one, other = start_conversation(subject), start_conversation(subject)
        subject.append(one.id, user_messages("to one"), idempotency_key=KEY)
        subject.append(other.id, user_messages("to the other"), idempotency_key=KEY)
        assert texts_of(read_all(subject, one.id)) == ["to one"]
        assert texts_of(read_all(subject, other.id)) == ["to the other"]

    def test_a_fork_does_not_know_the_keys_of_its_original(self, subject: Store) -> None:
        conversation = start_conversation(subject)
        subject.append(conversation.id, user_messages("one"), idempotency_key=KEY)
        fork = subject.fork(conversation.id)
        subject.append(fork.id, user_messages("two"), idempotency_key=KEY)
        assert texts_of(read_all(subject, fork.id)) == ["one", "two"]

    def test_a_rejected_append_does_not_use_up_its_key(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        with pytest.raises(Conflict):
            subject.append(
                conversation.id,
                user_messages("two"),
                after=conversation.revision + 1,
                idempotency_key=KEY,
            )
        subject.append(
            conversation.id, user_messages("two"), after=conversation.revision, idempotency_key=KEY
        )
        assert texts_of(read_all(subject, conversation.id)) == ["one", "two"]

    def test_a_repeated_key_truncates_nothing(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(
            conversation.id, user_messages("two"), idempotency_key=KEY, truncate_after=0
        )
        subject.append(conversation.id, user_messages("three"))
        with assert_unchanged(subject, conversation.id):
            again = subject.append(
                conversation.id, user_messages("two"), idempotency_key=KEY, truncate_after=0
            )
        assert again == first

    def test_a_key_reveals_nothing_to_another_owner(self, subject: Store) -> None:
        conversation = start_conversation(subject, owner=new_id())
        subject.append(conversation.id, user_messages("one"), idempotency_key=KEY)
        with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
            subject.append(
                conversation.id, user_messages("one"), owner=new_id(), idempotency_key=KEY
            )

    def test_a_key_returns_all_seqs_of_a_large_batch(self, subject: Store) -> None:
        conversation_id = new_id()
        batch = user_messages(*map(str, range(300)))
        first = subject.append(conversation_id, batch, idempotency_key=KEY)
        assert subject.append(conversation_id, batch, idempotency_key=KEY) == first
        state = snapshot(subject, conversation_id)
        assert state.seqs == list(first.seqs)
        assert state.messages == batch
