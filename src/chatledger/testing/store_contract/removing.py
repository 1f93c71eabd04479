"""Laws of removing and replacing messages: their seqs are never reused."""

import pytest

from chatledger.errors import Conflict, MessageTooLarge, NotFound
from chatledger.messages import MAX_MESSAGE_BYTES, Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    read_all,
    read_started,
    snapshot,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import CALLS, Call, each_of


class RemovingLaws:
    """``truncate``, ``pop``, ``clear`` and ``replace``; ``MessageRemovalLaws`` has ``remove``."""

    def test_a_truncation_removes_the_messages_after_a_seq_and_nothing_else(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "1", "2", "3", "4")
        result = subject.truncate(conversation.id, after=conversation.seqs[1])
        state = snapshot(subject, conversation.id)
        assert texts_of(state.messages) == ["1", "2"]
        assert state.seqs == list(conversation.seqs[:2])
        assert state.conversation == result
        assert result.message_count == 2

    def test_a_truncation_needs_no_message_at_its_seq(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2", "3", "4")
        subject.truncate(conversation.id, after=conversation.seqs[1])
        subject.append(conversation.id, user_messages("5", "6"))
        subject.truncate(conversation.id, after=conversation.seqs[3])
        state = snapshot(subject, conversation.id)
        assert texts_of(state.messages) == ["1", "2"]

    @pytest.mark.parametrize("ahead", [0, 1, 1_000])
    def test_a_truncation_with_nothing_to_remove_changes_nothing(
        self, subject: Store, ahead: int
    ) -> None:
        conversation = start_conversation(subject, "1", "2")
        with assert_unchanged(subject, conversation.id):
            before = subject.get(conversation.id)
            assert subject.truncate(conversation.id, after=conversation.revision + ahead) == before

    def test_removing_from_an_empty_conversation_changes_nothing(self, subject: Store) -> None:
        new, cleared = start_conversation(subject), start_conversation(subject, "hello")
        subject.clear(cleared.id)
        for conversation in (new, cleared):
            with assert_unchanged(subject, conversation.id):
                before = subject.get(conversation.id)
                assert subject.truncate(conversation.id, after=0) == before
                assert subject.clear(conversation.id) == before
                assert list(subject.pop(conversation.id, 3)) == []

    def test_pop_removes_and_returns_the_last_messages(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2", "3", "4")
        assert texts_of(subject.pop(conversation.id)) == ["4"]
        popped = subject.pop(conversation.id, 2)
        assert texts_of(popped) == ["2", "3"]
        assert [message.seq for message in popped] == list(conversation.seqs[1:3])
        state = snapshot(subject, conversation.id)
        assert (texts_of(state.messages), state.conversation.message_count) == (["1"], 1)

    def test_pop_removes_all_messages_if_there_are_fewer(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        assert texts_of(subject.pop(conversation.id, 1_000)) == ["1", "2", "3"]
        assert subject.get(conversation.id).message_count == 0

    def test_a_cleared_conversation_is_empty_and_keeps_everything_else(
        self, subject: Store
    ) -> None:
        created = subject.create(title="Plans", metadata={"a": 1})
        subject.append(created.id, user_messages("1", "2", "3"))
        result = subject.clear(created.id)
        assert (result.title, result.metadata) == ("Plans", {"a": 1})
        assert (result.created_at, result.message_count) == (created.created_at, 0)
        state = snapshot(subject, created.id)
        assert (state.conversation, state.messages) == (result, [])

    @each_of(call for call in CALLS if call.removes_messages)
    def test_a_removal_moves_the_revision_up_and_its_seqs_are_not_reused(
        self, subject: Store, clock: Clock, call: Call
    ) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        highest = conversation.revision
        for _ in range(3):
            with clock.stopped():
                call(subject, read_started(subject, conversation.id))
                removed = subject.get(conversation.id)
                assert removed.updated_at == clock()
            assert removed.revision > highest
            appended = subject.append(conversation.id, user_messages("again", "and again"))
            assert appended.seqs[0] > removed.revision
            highest = appended.revision

    def test_a_replacement_has_the_seq_of_the_message_it_replaces(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        replacement = Message.assistant("another", metadata={"edited": True})
        with clock.stopped():
            result = subject.replace(conversation.id, conversation.seqs[1], replacement)
            assert result.updated_at == clock()
        state = snapshot(subject, conversation.id)
        assert texts_of(state.messages) == ["1", "another", "3"]
        assert state.messages[1] == replacement
        assert state.seqs == list(conversation.seqs)
        assert state.conversation == result
        assert result.revision > conversation.revision
        assert result.message_count == 3
        assert subject.append(conversation.id, user_messages("4")).seqs[0] > result.revision

    def test_a_replacement_with_revision_succeeds_only_at_that_revision(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "1", "2")
        result = subject.replace(
            conversation.id, conversation.seqs[0], Message.user("3"), revision=conversation.revision
        )
        for revision in (0, conversation.revision, result.revision + 1):
            with assert_unchanged(subject, conversation.id), pytest.raises(Conflict) as caught:
                subject.replace(
                    conversation.id,
                    conversation.seqs[1],
                    Message.user("rejected"),
                    revision=revision,
                )
            assert (caught.value.expected, caught.value.revision) == (revision, result.revision)
        assert texts_of(read_all(subject, conversation.id)) == ["3", "2"]

    def test_a_message_can_be_replaced_repeatedly_and_by_messages_of_any_size(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        for text in ("x" * 2_000_000, "short", ""):
            subject.replace(conversation.id, conversation.seqs[1], Message.user(text))
            assert texts_of(subject.page(conversation.id).messages) == ["1", text, "3"]

    def test_a_replaced_message_can_be_removed_like_any_other(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        subject.replace(conversation.id, conversation.seqs[2], Message.user("another"))
        assert texts_of(subject.pop(conversation.id)) == ["another"]
        subject.replace(conversation.id, conversation.seqs[1], Message.user("another"))
        subject.truncate(conversation.id, after=conversation.seqs[0])
        assert texts_of(subject.page(conversation.id).messages) == ["1"]

    def test_a_missing_message_cannot_be_replaced(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        subject.truncate(conversation.id, after=conversation.seqs[1])
        for seq in (conversation.seqs[2], conversation.revision + 1_000, 2**53 - 1):
            with assert_unchanged(subject, conversation.id), pytest.raises(NotFound) as caught:
                subject.replace(conversation.id, seq, Message.user("another"))
            assert (caught.value.conversation_id, caught.value.seq) == (conversation.id, seq)

    def test_a_replacement_that_is_too_large_changes_nothing(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1")
        with assert_unchanged(subject, conversation.id), pytest.raises(MessageTooLarge):
            subject.replace(
                conversation.id, conversation.seqs[0], Message.user("x" * MAX_MESSAGE_BYTES)
            )
