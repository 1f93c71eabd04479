"""Laws of ``append``: all messages or none, after those that are there."""

from datetime import timedelta

import pytest

from chatledger.errors import Conflict, InvalidArgument, MessageTooLarge, NotFound
from chatledger.messages import MAX_MESSAGE_BYTES, Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    list_all,
    read_all,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import CALLS, Call, each_of
from chatledger.values import new_id


class AppendingLaws:
    """``append`` without rivals, for which see ``RivalLaws``, and without keys (``KeyLaws``)."""

    def test_an_append_goes_after_the_last_message_and_returns_its_seqs(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "one", "two")
        with clock.stopped():
            appended = subject.append(conversation.id, user_messages("three", "four"))
            now = clock()
        state = snapshot(subject, conversation.id)
        assert texts_of(state.messages) == ["one", "two", "three", "four"]
        assert state.seqs == [*conversation.seqs, *appended.seqs]
        assert appended.seqs[0] > conversation.revision
        assert appended.revision >= appended.seqs[-1]
        assert state.conversation.revision == appended.revision
        assert state.conversation.message_count == 4
        assert state.conversation.updated_at == now

    def test_an_append_leaves_title_metadata_owner_and_creation_time_unchanged(
        self, subject: Store
    ) -> None:
        created = subject.create(owner=new_id(), title="Plans", metadata={"a": 1})
        subject.append(created.id, user_messages("hello"))
        now = subject.get(created.id)
        assert (now.owner, now.title, now.metadata) == (created.owner, "Plans", {"a": 1})
        assert now.created_at == created.created_at

    def test_an_append_creates_a_conversation_for_its_owner(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation_id, owner = new_id(), new_id()
        with clock.stopped():
            appended = subject.append(conversation_id, user_messages("hello"), owner=owner)
            now = clock()
        conversation = subject.get(conversation_id)
        assert conversation.owner == owner
        assert conversation.created_at == conversation.updated_at == now
        assert (conversation.title, conversation.metadata) == (None, {})
        assert (conversation.message_count, conversation.expires_at) == (1, None)
        assert conversation.revision == appended.revision > 0
        assert appended.seqs[0] > 0

    def test_any_sequence_of_messages_can_be_appended_and_the_same_message_twice(
        self, subject: Store
    ) -> None:
        message = Message.user("again")
        conversation = start_conversation(subject)
        subject.append(conversation.id, (message, message))
        subject.append(conversation.id, [message])
        assert subject.tail(conversation.id, 10).messages == [message] * 3

    def test_an_append_at_a_revision_succeeds_at_that_one(self, subject: Store) -> None:
        conversation = start_conversation(subject)
        revision = conversation.revision
        for text in ("one", "two", "three"):
            revision = subject.append(
                conversation.id, user_messages(text), revision=revision
            ).revision
        assert texts_of(read_all(subject, conversation.id)) == ["one", "two", "three"]

    def test_an_append_at_a_revision_conflicts_below_and_above_it(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        latest = subject.append(conversation.id, user_messages("two")).revision
        for revision in (
            0,
            conversation.revision,
            latest - 1,
            latest + 1,
            latest + 1_000,
            2**53 - 1,
        ):
            with assert_unchanged(subject, conversation.id), pytest.raises(Conflict) as caught:
                subject.append(conversation.id, user_messages("rejected"), revision=revision)
            assert caught.value.conversation_id == conversation.id
            assert (caught.value.expected, caught.value.revision) == (revision, latest)

    @each_of(call for call in CALLS if call.is_activity)
    def test_activity_moves_the_revision_up_so_that_the_old_one_conflicts(
        self, subject: Store, call: Call
    ) -> None:
        conversation = start_conversation(subject, "one", "two", "three", "four", "five")
        call(subject, conversation)
        assert subject.get(conversation.id).revision > conversation.revision
        with assert_unchanged(subject, conversation.id), pytest.raises(Conflict):
            subject.append(
                conversation.id, user_messages("rejected"), revision=conversation.revision
            )

    def test_an_append_that_truncates_replaces_the_messages_it_removes(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "one", "two", "three")
        with clock.stopped():
            appended = subject.append(
                conversation.id,
                user_messages("2", "3", "4"),
                revision=conversation.revision,
                truncate_after=conversation.seqs[0],
            )
            now = clock()
        state = snapshot(subject, conversation.id)
        assert (
            texts_of(state.messages)
            == texts_of(read_all(subject, conversation.id))
            == ["one", "2", "3", "4"]
        )
        assert state.seqs == [conversation.seqs[0], *appended.seqs]
        assert appended.seqs[0] > conversation.revision
        assert state.conversation.revision == appended.revision
        assert (state.conversation.message_count, state.conversation.updated_at) == (4, now)
        assert subject.append(conversation.id, user_messages("5")).seqs[0] > appended.revision
        assert texts_of(subject.pop(conversation.id, 3)) == ["3", "4", "5"]
        assert texts_of(read_all(subject, conversation.id)) == ["one", "2"]

    def test_an_append_that_truncates_removes_any_number_of_messages(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one", "two", "three")
        subject.append(conversation.id, user_messages("four"), truncate_after=conversation.seqs[-1])
        assert texts_of(read_all(subject, conversation.id)) == ["one", "two", "three", "four"]
        subject.append(conversation.id, user_messages("new"), truncate_after=0)
        assert texts_of(read_all(subject, conversation.id)) == ["new"]
        started = new_id()
        subject.append(started, user_messages("new"), truncate_after=7)
        assert texts_of(read_all(subject, started)) == ["new"]

    def test_an_append_that_truncates_within_a_batch_keeps_the_start_of_the_batch(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "one")
        batch = subject.append(conversation.id, user_messages(*map(str, range(300))))
        subject.append(
            conversation.id, user_messages("new"), truncate_after=batch.seqs[99], reply_follows=True
        )
        assert texts_of(read_all(subject, conversation.id)) == ["one", *map(str, range(100)), "new"]

    def test_a_rejected_append_truncates_nothing(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one", "two", owner=new_id())
        with assert_unchanged(subject, conversation.id):
            with pytest.raises(Conflict):
                subject.append(
                    conversation.id,
                    user_messages("no"),
                    revision=conversation.revision + 1,
                    truncate_after=0,
                )
            with pytest.raises(NotFound):
                subject.append(
                    conversation.id, user_messages("no"), owner=new_id(), truncate_after=0
                )
            with pytest.raises(MessageTooLarge):
                subject.append(
                    conversation.id, [Message.user("x" * MAX_MESSAGE_BYTES)], truncate_after=0
                )

    def test_a_revision_is_rejected_if_there_is_no_conversation(self, subject: Store) -> None:
        conversation_id = new_id()
        for revision in (1, 7, 2**53 - 1):
            with assert_unchanged(subject, conversation_id), pytest.raises(NotFound):
                subject.append(conversation_id, user_messages("rejected"), revision=revision)

    def test_revision_zero_creates_a_conversation(self, subject: Store) -> None:
        conversation_id, owner = new_id(), new_id()
        subject.append(conversation_id, user_messages("hello"), revision=0, owner=owner)
        assert subject.get(conversation_id).owner == owner

    def test_revision_zero_conflicts_with_an_existing_conversation_even_if_it_is_empty(
        self, subject: Store
    ) -> None:
        new, cleared = start_conversation(subject), start_conversation(subject, "hello")
        subject.clear(cleared.id)
        for conversation in (new, cleared):
            with assert_unchanged(subject, conversation.id), pytest.raises(Conflict):
                subject.append(conversation.id, user_messages("rejected"), revision=0)

    @pytest.mark.parametrize("wrong", ["a str", "a huge message"])
    def test_one_invalid_message_among_many_keeps_all_of_them_out(
        self, subject: Store, wrong: str
    ) -> None:
        batch: list[object] = [*user_messages(*map(str, range(1_000)))]
        batch[500] = "500" if wrong == "a str" else Message.user("x" * MAX_MESSAGE_BYTES)
        for conversation_id in (start_conversation(subject, "hello").id, new_id()):
            with assert_unchanged(subject, conversation_id), pytest.raises(InvalidArgument):
                subject.append(conversation_id, batch)  # type: ignore[arg-type]

    def test_a_rejected_append_has_no_effect_on_the_next_one(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        with pytest.raises(Conflict):
            subject.append(
                conversation.id, user_messages("rejected"), revision=conversation.revision + 5
            )
        with pytest.raises(MessageTooLarge):
            subject.append(conversation.id, [Message.user("x" * MAX_MESSAGE_BYTES)])
        [seq] = subject.append(conversation.id, user_messages("two")).seqs
        assert [message.seq for message in read_all(subject, conversation.id)] == [
            conversation.seqs[0],
            seq,
        ]

    def test_an_append_with_reply_follows_is_readable_at_once_and_listed_with_the_reply(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "hello", owner=owner)
        clock.advance(timedelta(seconds=1))
        start_conversation(subject, "newer", owner=owner)
        clock.advance(timedelta(seconds=1))
        appended = subject.append(conversation.id, user_messages("question"), reply_follows=True)
        state = snapshot(subject, conversation.id)
        assert (
            texts_of(state.messages)
            == texts_of(read_all(subject, conversation.id))
            == ["hello", "question"]
        )
        assert state.conversation == subject.get(conversation.id)
        assert (state.conversation.message_count, state.conversation.revision) == (
            2,
            appended.revision,
        )
        subject.append(conversation.id, user_messages("reply"), revision=appended.revision)
        assert list_all(subject, owner)[0] == subject.get(conversation.id)

    def test_deleting_an_owner_includes_conversations_that_await_a_reply(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        started = new_id()
        subject.append(started, user_messages("question"), owner=owner, reply_follows=True)
        other = start_conversation(subject, "hello", owner=owner, expires_in=timedelta(hours=1))
        clock.advance(timedelta(minutes=50))
        subject.append(other.id, user_messages("question"), reply_follows=True)
        clock.advance(timedelta(minutes=50))
        assert subject.delete_owner(owner) == 2
        assert [snapshot_if_any(subject, started), snapshot_if_any(subject, other.id)] == [
            None,
            None,
        ]
