"""Laws of ``restore``, which ``copy`` is built on: messages are written at the seqs they have."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import pytest

from chatledger.conversations import MAX_LIMIT, Conversation
from chatledger.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from chatledger.messages import Message, StoredMessage
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.descriptions import ANOTHER, FIELDS
from chatledger.testing.store_contract.helpers import (
    LONG_AGO,
    assert_unchanged,
    foreign_conversation,
    list_all,
    messages_from,
    only_winner,
    race,
    read_all,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import INVALID_REVISIONS
from chatledger.values import new_id


def restore_all(store: Store, source: Conversation, messages: Sequence[StoredMessage]) -> None:
    """Restore messages, with the gaps between their seqs, one by one."""
    revision = 0
    for message in messages:
        seq = message.seq
        if seq > revision + 1:
            store.restore(replace(source, revision=seq - 1), [], revision=revision)
        store.restore(replace(source, revision=seq), [message], revision=seq - 1)
        revision = seq
    if source.revision > revision:
        store.restore(source, [], revision=revision)


class RestoringLaws:
    """``restore``."""

    def test_a_restored_conversation_equals_the_original(self, subject: Store) -> None:
        source, messages = foreign_conversation(5), messages_from(1, "1", "2", "3")
        result = subject.restore(source, messages, revision=0)
        state = snapshot(subject, source.id)
        assert result == state.conversation == replace(source, message_count=3)
        assert (state.messages, state.seqs) == (messages, [1, 2, 3])
        assert source.owner
        assert list_all(subject, source.owner) == [result]

    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_a_conversation_without_messages_is_restored_too(
        self, subject: Store, owner: str | None
    ) -> None:
        source = foreign_conversation(7, owner=owner, title=None, metadata={})
        assert subject.restore(source, [], revision=0) == source
        assert snapshot(subject, source.id) == (source, [], [])
        assert subject.append(source.id, user_messages("8"), revision=7).revision == 8

    def test_gaps_between_restored_messages_are_never_filled(self, subject: Store) -> None:
        source = foreign_conversation(20)
        subject.restore(replace(source, revision=4), [], revision=0)
        subject.restore(replace(source, revision=9), messages_from(5, "5", "6"), revision=4)
        result = subject.restore(source, messages_from(10, "10"), revision=9)
        assert result == replace(source, message_count=3)
        assert list(subject.append(source.id, user_messages("21", "22")).seqs) == [21, 22]
        state = snapshot(subject, source.id)
        assert (texts_of(state.messages), state.seqs) == (
            ["5", "6", "10", "21", "22"],
            [5, 6, 10, 21, 22],
        )

    def test_a_restored_conversation_behaves_like_any_other(self, subject: Store) -> None:
        random = Random(1)
        for _ in range(4):
            seqs = sorted(random.sample(range(1, 30), random.randrange(1, 12)))
            revision = seqs[-1] + random.randrange(4)
            source = foreign_conversation(revision)
            messages = [Message.user(str(seq)).with_seq(seq) for seq in seqs]
            restore_all(subject, source, messages)
            assert snapshot(subject, source.id).seqs == seqs
            place = random.randrange(32)
            for limit in (1, 2, MAX_LIMIT):
                later = read_all(subject, source.id, after=place, limit=limit)
                assert [message.seq for message in later] == [seq for seq in seqs if seq > place]
                earlier = read_all(subject, source.id, before=place, limit=limit)
                assert [message.seq for message in earlier] == [
                    seq for seq in reversed(seqs) if seq < place
                ]
            fork = subject.fork(source.id, at=place)
            assert texts_of(read_all(subject, fork.id)) == [
                str(seq) for seq in seqs if seq <= place
            ]
            seq = random.choice(seqs)
            assert subject.replace(source.id, seq, Message.user("another")).revision > revision
            assert snapshot(subject, source.id).messages[seqs.index(seq)].text == "another"
            cut = subject.truncate(source.id, after=place)
            left = [seq for seq in seqs if seq <= place]
            assert (snapshot(subject, source.id).seqs, cut.message_count) == (left, len(left))
            [new] = subject.append(source.id, user_messages("new")).seqs
            assert new > cut.revision
            popped = subject.pop(source.id, 2)
            assert [message.seq for message in popped] == [*left, new][-2:]

    def test_an_existing_conversation_keeps_its_description_and_latest_activity(
        self, subject: Store, clock: Clock
    ) -> None:
        created = subject.create(owner=new_id(), **ANOTHER)
        revision = created.revision + 3
        source = foreign_conversation(revision, id=created.id, owner=created.owner)
        with clock.stopped():
            older = subject.restore(
                replace(source, revision=revision - 1),
                messages_from(created.revision + 1, "1"),
                revision=created.revision,
            )
            assert older == replace(created, revision=revision - 1, message_count=1)
            later = clock() + timedelta(minutes=1)
            newer = replace(source, updated_at=later)
            assert subject.restore(newer, [], revision=revision - 1) == replace(
                created, revision=revision, message_count=1, updated_at=later
            )

    @pytest.mark.parametrize("ahead", [-2, -1, 1, 2])
    def test_restoring_at_another_revision_conflicts(self, subject: Store, ahead: int) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        revision = conversation.revision + ahead
        source = foreign_conversation(revision + 5, id=conversation.id, owner=None)
        for messages in ([], messages_from(revision + 1, "4")):
            with assert_unchanged(subject, conversation.id), pytest.raises(Conflict) as caught:
                subject.restore(source, messages, revision=revision)
            assert (caught.value.expected, caught.value.revision) == (
                revision,
                conversation.revision,
            )

    def test_restoring_at_zero_twice_conflicts_and_beyond_zero_needs_a_conversation(
        self, subject: Store
    ) -> None:
        source, messages = foreign_conversation(1), messages_from(1, "1")
        with pytest.raises(NotFound):
            subject.restore(replace(source, revision=3), messages_from(3, "3"), revision=2)
        assert snapshot_if_any(subject, source.id) is None
        subject.restore(source, messages, revision=0)
        for again in (messages, []):
            with assert_unchanged(subject, source.id), pytest.raises(Conflict):
                subject.restore(source, again, revision=0)

    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_a_conversation_of_another_owner_is_not_restored(
        self, subject: Store, owner: str | None
    ) -> None:
        conversation = start_conversation(subject, "1", owner=owner)
        for other in {None, new_id(), "somebody"} - {owner}:
            source = foreign_conversation(
                conversation.revision + 1, id=conversation.id, owner=other
            )
            with assert_unchanged(subject, conversation.id), pytest.raises(AlreadyExists):
                subject.restore(
                    source,
                    messages_from(conversation.revision + 1, "2"),
                    revision=conversation.revision,
                )

    def test_numbers_of_a_deleted_conversation_are_not_reused(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        subject.delete(conversation.id)
        source = foreign_conversation(conversation.revision, id=conversation.id)
        for messages in (messages_from(1, "1"), []):
            with pytest.raises(Conflict):
                subject.restore(source, messages, revision=0)
        assert snapshot_if_any(subject, conversation.id) is None
        # A later conversation of this id in another store has higher numbers, and can be restored.
        source = foreign_conversation(conversation.revision + 10, id=conversation.id)
        subject.restore(source, [], revision=0)
        place = source.revision + 1
        subject.restore(
            replace(source, revision=place), messages_from(place, "x"), revision=place - 1
        )
        assert snapshot(subject, conversation.id).seqs == [place]

    def test_invalid_arguments_of_restore_are_rejected(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2")
        revision = conversation.revision
        source = foreign_conversation(revision + 3, id=conversation.id, owner=None)
        valid = messages_from(revision + 1, "3", "4")
        bad: Any
        bad_fields: list[dict[str, Any]] = [
            *({name: each} for name, examples in FIELDS.items() for each in examples.invalid),
            {"created_at": datetime(2001, 1, 1)},
            {"updated_at": "now"},
            {"expires_at": 7},
            {"owner": ""},
            *({"revision": value} for value in [*INVALID_REVISIONS, None, revision, revision + 1]),
        ]
        cases: list[tuple[Any, Any, Any]] = [
            (source, user_messages("no seq"), revision),
            (source, messages_from(revision, "too low"), revision),
            (source, messages_from(revision + 2, "too high"), revision),
            (source, valid[::-1], revision),
            (source, [valid[0], valid[0]], revision),
            (replace(source, revision=revision), [], revision),
            *((replace(source, **fields), valid, revision) for fields in bad_fields),
        ]
        for bad, messages, at in cases:
            with assert_unchanged(subject, conversation.id), pytest.raises(InvalidArgument):
                subject.restore(bad, messages, revision=at)

    def test_a_restored_conversation_expires_when_the_original_would(
        self, subject: Store, clock: Clock
    ) -> None:
        with clock.stopped():
            now = clock()
            source = foreign_conversation(
                1,
                created_at=now - timedelta(days=2),
                updated_at=now - timedelta(days=1),
                expires_at=now + timedelta(hours=1),
            )
            assert subject.restore(source, [], revision=0) == source
            more = replace(source, revision=2)
            restored = subject.restore(more, messages_from(2, "2"), revision=1)
            assert restored == replace(more, message_count=1)
            clock.advance(timedelta(minutes=59))
            # Its lifetime is the 25 hours between its updated_at and its expires_at.
            subject.append(source.id, user_messages("3"))
            assert subject.get(source.id).expires_at == clock() + timedelta(hours=25)
            clock.advance(timedelta(hours=25))
            assert snapshot_if_any(subject, source.id) is None

    def test_a_conversation_that_exists_keeps_its_lifetime(
        self, subject: Store, clock: Clock
    ) -> None:
        hour, week = timedelta(hours=1), timedelta(days=7)
        with clock.stopped():
            now = clock()
            # Its own lifetime, the expiry of what is restored, and its expiry afterwards.
            for lifetime, given, expected in (
                (week, None, now + week),
                (week, now + hour, now + hour),
                (None, now + hour, None),
                (None, None, None),
            ):
                created = subject.create(expires_in=lifetime)
                source = replace(
                    created, updated_at=now, expires_at=given, revision=created.revision + 1
                )
                messages = messages_from(source.revision, "1")
                restored = subject.restore(source, messages, revision=created.revision)
                assert restored.expires_at == expected
                assert subject.get(created.id) == restored
                subject.append(created.id, user_messages("2"))
                assert subject.get(created.id).expires_at == (lifetime and now + lifetime)

    def test_an_expired_conversation_is_not_restored(self, subject: Store, clock: Clock) -> None:
        conversation = start_conversation(subject, "1")
        for conversation_id, revision in ((conversation.id, conversation.revision), (new_id(), 0)):
            source = foreign_conversation(
                revision + 1,
                id=conversation_id,
                owner=None,
                expires_at=LONG_AGO + timedelta(days=1),
            )
            with assert_unchanged(subject, conversation_id), pytest.raises(NotFound):
                subject.restore(source, [], revision=revision)

    def test_of_rivals_that_restore_the_same_conversation_exactly_one_wins(
        self, subject: Store
    ) -> None:
        source = foreign_conversation(10)
        messages = messages_from(1, "1", "2")
        results = race([lambda: subject.restore(source, messages, revision=0)] * 6)
        only_winner(results, Conflict)
        assert snapshot(subject, source.id).messages == messages

    def test_concurrent_appends_are_not_lost_during_a_restoration(self, subject: Store) -> None:
        for _ in range(5):
            conversation = start_conversation(subject, "1")
            source = foreign_conversation(
                conversation.revision + 10, id=conversation.id, owner=None
            )
            restored = messages_from(conversation.revision + 1, "restored")
            restore = partial(subject.restore, source, restored, revision=conversation.revision)
            append = [
                partial(subject.append, conversation.id, user_messages(text))
                for text in ("a", "b", "c")
            ]
            calls: list[Callable[[], Any]] = [*append[:2], restore, append[2]]
            results: list[Any] = race(calls)
            first, second, other, third = results
            state = snapshot(subject, conversation.id)
            text_by_seq = dict(zip(state.seqs, texts_of(state.messages), strict=True))
            for text, appended in (("a", first), ("b", second), ("c", third)):
                assert text_by_seq[appended.seqs[0]] == text
            if isinstance(other, Conflict):
                assert len(text_by_seq) == 4
            else:
                assert text_by_seq[conversation.revision + 1] == "restored"
                assert len(text_by_seq) == 5
