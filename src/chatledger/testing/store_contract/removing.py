"""Messages can be removed and replaced, and no place is ever given out again."""

from collections.abc import Callable

import pytest

from chatledger.errors import Conflict, MessageTooLarge, NotFound
from chatledger.messages import MESSAGE_BYTES, Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    Begun,
    begin,
    read_all,
    said,
    say,
    see,
    unchanged,
)

REMOVALS: dict[str, Callable[[Store, Begun], object]] = {
    "truncate": lambda store, it: store.truncate(it.id, after=it.seqs[0]),
    "truncate all": lambda store, it: store.truncate(it.id, after=0),
    "pop": lambda store, it: store.pop(it.id),
    "pop all": lambda store, it: store.pop(it.id, 10),
    "clear": lambda store, it: store.clear(it.id),
}


class RemovingLaws:
    """``truncate``, ``pop``, ``clear`` and ``replace``."""

    def test_a_truncation_removes_what_lies_behind_and_nothing_else(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3", "4")
        answer = subject.truncate(it.id, after=it.seqs[1])
        seen = see(subject, it.id)
        assert said(seen.messages) == ["1", "2"]
        assert seen.seqs == list(it.seqs[:2])
        assert seen.conversation == answer
        assert answer.message_count == 2

    def test_a_truncation_needs_no_message_at_its_place(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3", "4")
        subject.truncate(it.id, after=it.seqs[1])
        subject.append(it.id, say("5", "6"))
        subject.truncate(it.id, after=it.seqs[3])
        seen = see(subject, it.id)
        assert said(seen.messages) == ["1", "2"]

    @pytest.mark.parametrize("ahead", [0, 1, 1_000])
    def test_where_nothing_lies_behind_a_truncation_changes_nothing(
        self, subject: Store, ahead: int
    ) -> None:
        it = begin(subject, "1", "2")
        with unchanged(subject, it.id):
            before = subject.get(it.id)
            assert subject.truncate(it.id, after=it.revision + ahead) == before

    def test_nothing_is_removed_from_an_empty_conversation_and_nothing_changes(
        self, subject: Store
    ) -> None:
        new, cleared = begin(subject), begin(subject, "hello")
        subject.clear(cleared.id)
        for it in (new, cleared):
            with unchanged(subject, it.id):
                before = subject.get(it.id)
                assert subject.truncate(it.id, after=0) == before
                assert subject.clear(it.id) == before
                assert list(subject.pop(it.id, 3)) == []

    def test_pop_removes_the_last_messages_and_answers_with_them(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3", "4")
        assert said(subject.pop(it.id)) == ["4"]
        popped = subject.pop(it.id, 2)
        assert said(popped) == ["2", "3"]
        assert [message.seq for message in popped] == list(it.seqs[1:3])
        seen = see(subject, it.id)
        assert (said(seen.messages), seen.conversation.message_count) == (["1"], 1)

    def test_pop_removes_all_where_there_are_fewer(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3")
        assert said(subject.pop(it.id, 1_000)) == ["1", "2", "3"]
        assert subject.get(it.id).message_count == 0

    def test_a_cleared_conversation_is_empty_and_keeps_all_else(self, subject: Store) -> None:
        created = subject.create(title="Plans", metadata={"a": 1})
        subject.append(created.id, say("1", "2", "3"))
        answer = subject.clear(created.id)
        assert (answer.title, answer.metadata) == ("Plans", {"a": 1})
        assert (answer.created_at, answer.message_count) == (created.created_at, 0)
        seen = see(subject, created.id)
        assert (seen.conversation, seen.messages) == (answer, [])

    @pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
    def test_a_removal_moves_the_revision_up_and_its_places_are_not_given_out_again(
        self, subject: Store, clock: Clock, removal: Callable[[Store, Begun], object]
    ) -> None:
        it = begin(subject, "1", "2", "3")
        highest = it.revision
        for _ in range(3):
            with clock.stopped():
                removal(subject, it)
                removed = subject.get(it.id)
                assert removed.updated_at == clock()
            assert removed.revision > highest
            appended = subject.append(it.id, say("again", "and again"))
            assert appended.seqs[0] > removed.revision
            highest = appended.revision

    def test_a_replacement_takes_the_place_of_its_message(
        self, subject: Store, clock: Clock
    ) -> None:
        it = begin(subject, "1", "2", "3")
        replacement = Message.assistant("another", metadata={"edited": True})
        with clock.stopped():
            answer = subject.replace(it.id, it.seqs[1], replacement)
            assert answer.updated_at == clock()
        seen = see(subject, it.id)
        assert said(seen.messages) == ["1", "another", "3"]
        assert seen.messages[1] == replacement
        assert seen.seqs == list(it.seqs)
        assert seen.conversation == answer
        assert answer.revision > it.revision
        assert answer.message_count == 3
        assert subject.append(it.id, say("4")).seqs[0] > answer.revision

    def test_a_guarded_replacement_is_in_where_the_conversation_stands_there(
        self, subject: Store
    ) -> None:
        it = begin(subject, "1", "2")
        answer = subject.replace(it.id, it.seqs[0], Message.user("3"), revision=it.revision)
        for revision in (0, it.revision, answer.revision + 1):
            with unchanged(subject, it.id), pytest.raises(Conflict) as caught:
                subject.replace(it.id, it.seqs[1], Message.user("refused"), revision=revision)
            assert (caught.value.expected, caught.value.revision) == (revision, answer.revision)
        assert said(read_all(subject, it.id)) == ["3", "2"]

    def test_a_message_can_be_replaced_again_and_by_one_of_any_size(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3")
        for text in ("x" * 2_000_000, "short", ""):
            subject.replace(it.id, it.seqs[1], Message.user(text))
            assert said(subject.page(it.id).messages) == ["1", text, "3"]

    def test_what_was_replaced_can_be_removed_like_any_other(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3")
        subject.replace(it.id, it.seqs[2], Message.user("another"))
        assert said(subject.pop(it.id)) == ["another"]
        subject.replace(it.id, it.seqs[1], Message.user("another"))
        subject.truncate(it.id, after=it.seqs[0])
        assert said(subject.page(it.id).messages) == ["1"]

    def test_a_message_that_is_not_there_cannot_be_replaced(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3")
        subject.truncate(it.id, after=it.seqs[1])
        for seq in (it.seqs[2], it.revision + 1_000, 2**53 - 1):
            with unchanged(subject, it.id), pytest.raises(NotFound) as caught:
                subject.replace(it.id, seq, Message.user("another"))
            assert (caught.value.conversation_id, caught.value.seq) == (it.id, seq)

    def test_a_replacement_that_is_too_large_replaces_nothing(self, subject: Store) -> None:
        it = begin(subject, "1")
        with unchanged(subject, it.id), pytest.raises(MessageTooLarge):
            subject.replace(it.id, it.seqs[0], Message.user("x" * MESSAGE_BYTES))
