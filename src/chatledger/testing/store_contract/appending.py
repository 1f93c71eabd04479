"""An append is all or none, behind what was there."""

from datetime import timedelta

import pytest

from chatledger.errors import Conflict, InvalidArgument, MessageTooLarge, NotFound
from chatledger.messages import MESSAGE_BYTES, Message, new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    begin,
    list_all,
    look,
    read_all,
    said,
    say,
    see,
    seq_of,
    unchanged,
)


class AppendingLaws:
    """``append``, alone; with rivals see ``RivalLaws``, with a key ``KeyLaws``."""

    def test_an_append_goes_behind_the_last_message_and_says_where(
        self, subject: Store, clock: Clock
    ) -> None:
        it = begin(subject, "one", "two")
        with clock.stopped():
            appended = subject.append(it.id, say("three", "four"))
            moment = clock()
        seen = see(subject, it.id)
        assert said(seen.messages) == ["one", "two", "three", "four"]
        assert seen.seqs == [*it.seqs, *appended.seqs]
        assert appended.seqs[0] > it.revision
        assert appended.revision >= appended.seqs[-1]
        assert seen.conversation.revision == appended.revision
        assert seen.conversation.message_count == 4
        assert seen.conversation.updated_at == moment

    def test_an_append_leaves_title_metadata_owner_and_beginning_as_they_are(
        self, subject: Store
    ) -> None:
        created = subject.create(owner=new_id(), title="Plans", metadata={"a": 1})
        subject.append(created.id, say("hello"))
        now = subject.get(created.id)
        assert (now.owner, now.title, now.metadata) == (created.owner, "Plans", {"a": 1})
        assert now.created_at == created.created_at

    def test_an_append_starts_a_conversation_for_its_owner(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation_id, owner = new_id(), new_id()
        with clock.stopped():
            appended = subject.append(conversation_id, say("hello"), owner=owner)
            moment = clock()
        conversation = subject.get(conversation_id)
        assert conversation.owner == owner
        assert conversation.created_at == conversation.updated_at == moment
        assert (conversation.title, conversation.metadata) == (None, {})
        assert (conversation.message_count, conversation.expires_at) == (1, None)
        assert conversation.revision == appended.revision > 0
        assert appended.seqs[0] > 0

    def test_any_sequence_of_messages_is_taken_and_the_same_one_twice(self, subject: Store) -> None:
        message = Message.user("again")
        it = begin(subject)
        subject.append(it.id, (message, message))
        subject.append(it.id, [message])
        assert subject.tail(it.id, 10).messages == [message] * 3

    def test_with_after_an_append_is_in_where_the_conversation_stands_there(
        self, subject: Store
    ) -> None:
        it = begin(subject)
        revision = it.revision
        for text in ("one", "two", "three"):
            revision = subject.append(it.id, say(text), after=revision).revision
        assert said(read_all(subject, it.id)) == ["one", "two", "three"]

    def test_after_is_refused_behind_and_ahead_of_the_conversation(self, subject: Store) -> None:
        it = begin(subject, "one")
        standing = subject.append(it.id, say("two")).revision
        for after in (0, it.revision, standing - 1, standing + 1, standing + 1_000, 2**53 - 1):
            with unchanged(subject, it.id), pytest.raises(Conflict) as caught:
                subject.append(it.id, say("refused"), after=after)
            assert caught.value.conversation_id == it.id
            assert (caught.value.expected, caught.value.revision) == (after, standing)

    def test_whatever_removes_or_replaces_messages_moves_the_revision_that_after_needs(
        self, subject: Store
    ) -> None:
        it = begin(subject, "one", "two", "three", "four", "five")
        changes = (
            lambda: subject.replace(it.id, it.seqs[0], Message.user("another")),
            lambda: subject.truncate(it.id, after=it.seqs[3]),
            lambda: subject.pop(it.id),
            lambda: subject.clear(it.id),
        )
        for change in changes:
            before = subject.get(it.id).revision
            change()
            with unchanged(subject, it.id), pytest.raises(Conflict):
                subject.append(it.id, say("refused"), after=before)

    def test_an_append_that_truncates_goes_in_the_place_of_what_it_removes(
        self, subject: Store, clock: Clock
    ) -> None:
        it = begin(subject, "one", "two", "three")
        with clock.stopped():
            appended = subject.append(
                it.id, say("2", "3", "4"), after=it.revision, truncate_after=it.seqs[0]
            )
            moment = clock()
        seen = see(subject, it.id)
        assert said(seen.messages) == said(read_all(subject, it.id)) == ["one", "2", "3", "4"]
        assert seen.seqs == [it.seqs[0], *appended.seqs]
        assert appended.seqs[0] > it.revision
        assert seen.conversation.revision == appended.revision
        assert (seen.conversation.message_count, seen.conversation.updated_at) == (4, moment)
        assert subject.append(it.id, say("5")).seqs[0] > appended.revision
        assert said(subject.pop(it.id, 3)) == ["3", "4", "5"]
        assert said(read_all(subject, it.id)) == ["one", "2"]

    def test_an_append_that_truncates_removes_any_number_of_messages(self, subject: Store) -> None:
        it = begin(subject, "one", "two", "three")
        subject.append(it.id, say("four"), truncate_after=it.seqs[-1])
        assert said(read_all(subject, it.id)) == ["one", "two", "three", "four"]
        subject.append(it.id, say("new"), truncate_after=0)
        assert said(read_all(subject, it.id)) == ["new"]
        started = new_id()
        subject.append(started, say("new"), truncate_after=7)
        assert said(read_all(subject, started)) == ["new"]

    def test_an_append_that_truncates_within_a_batch_leaves_its_beginning(
        self, subject: Store
    ) -> None:
        it = begin(subject, "one")
        batch = subject.append(it.id, say(*map(str, range(300))))
        subject.append(it.id, say("new"), truncate_after=batch.seqs[99], reply_follows=True)
        assert said(read_all(subject, it.id)) == ["one", *map(str, range(100)), "new"]

    def test_a_refused_append_truncates_nothing(self, subject: Store) -> None:
        it = begin(subject, "one", "two", owner=new_id())
        with unchanged(subject, it.id):
            with pytest.raises(Conflict):
                subject.append(it.id, say("no"), after=it.revision + 1, truncate_after=0)
            with pytest.raises(NotFound):
                subject.append(it.id, say("no"), owner=new_id(), truncate_after=0)
            with pytest.raises(MessageTooLarge):
                subject.append(it.id, [Message.user("x" * MESSAGE_BYTES)], truncate_after=0)

    def test_after_is_refused_where_there_is_no_conversation(self, subject: Store) -> None:
        conversation_id = new_id()
        for after in (1, 7, 2**53 - 1):
            with unchanged(subject, conversation_id), pytest.raises(NotFound):
                subject.append(conversation_id, say("refused"), after=after)

    def test_after_zero_starts_a_conversation(self, subject: Store) -> None:
        conversation_id, owner = new_id(), new_id()
        subject.append(conversation_id, say("hello"), after=0, owner=owner)
        assert subject.get(conversation_id).owner == owner

    def test_after_zero_is_refused_on_a_conversation_that_is_there_though_empty(
        self, subject: Store
    ) -> None:
        new, cleared = begin(subject), begin(subject, "hello")
        subject.clear(cleared.id)
        for it in (new, cleared):
            with unchanged(subject, it.id), pytest.raises(Conflict):
                subject.append(it.id, say("refused"), after=0)

    @pytest.mark.parametrize("wrong", ["a text", "a huge message"])
    def test_one_wrong_message_among_many_keeps_all_of_them_out(
        self, subject: Store, wrong: str
    ) -> None:
        batch: list[object] = [*say(*map(str, range(1_000)))]
        batch[500] = "500" if wrong == "a text" else Message.user("x" * MESSAGE_BYTES)
        for conversation_id in (begin(subject, "hello").id, new_id()):
            with unchanged(subject, conversation_id), pytest.raises(InvalidArgument):
                subject.append(conversation_id, batch)  # type: ignore[arg-type]

    def test_a_refused_append_leaves_no_trace_in_the_next_one(self, subject: Store) -> None:
        it = begin(subject, "one")
        with pytest.raises(Conflict):
            subject.append(it.id, say("refused"), after=it.revision + 5)
        with pytest.raises(MessageTooLarge):
            subject.append(it.id, [Message.user("x" * MESSAGE_BYTES)])
        [seq] = subject.append(it.id, say("two")).seqs
        assert [seq_of(message) for message in read_all(subject, it.id)] == [it.seqs[0], seq]

    def test_an_append_that_a_reply_follows_is_read_at_once_and_listed_with_the_reply(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        it = begin(subject, "hello", owner=owner)
        clock.advance(timedelta(seconds=1))
        begin(subject, "newer", owner=owner)
        clock.advance(timedelta(seconds=1))
        appended = subject.append(it.id, say("question"), reply_follows=True)
        seen = see(subject, it.id)
        assert said(seen.messages) == said(read_all(subject, it.id)) == ["hello", "question"]
        assert seen.conversation == subject.get(it.id)
        assert (seen.conversation.message_count, seen.conversation.revision) == (
            2,
            appended.revision,
        )
        subject.append(it.id, say("reply"), after=appended.revision)
        assert list_all(subject, owner)[0] == subject.get(it.id)

    def test_an_owner_is_deleted_with_what_a_reply_was_to_follow(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        started = new_id()
        subject.append(started, say("question"), owner=owner, reply_follows=True)
        kept = begin(subject, "hello", owner=owner, expires_in=timedelta(hours=1))
        clock.advance(timedelta(minutes=50))
        subject.append(kept.id, say("question"), reply_follows=True)
        clock.advance(timedelta(minutes=50))
        assert subject.delete_owner(owner) == 2
        assert [look(subject, started), look(subject, kept.id)] == [None, None]
