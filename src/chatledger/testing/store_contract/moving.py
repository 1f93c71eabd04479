"""Messages put in their places, as ``copy`` does it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import pytest

from chatledger.conversations import LIMIT, Conversation
from chatledger.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from chatledger.messages import Message, new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    begin,
    list_all,
    look,
    race,
    read_all,
    said,
    say,
    see,
    seq_of,
    unchanged,
)
from chatledger.testing.store_contract.refusing import NO_MESSAGES, NO_REVISIONS

LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)


def given(revision: int, **parts: Any) -> Conversation:
    """A conversation of another store."""
    conversation = Conversation(
        id=new_id(),
        owner=new_id(),
        title="Plans",
        metadata={"a": [1, 1.0, None]},
        created_at=LONG_AGO,
        updated_at=LONG_AGO + timedelta(hours=1),
        message_count=0,
        revision=revision,
        expires_at=None,
    )
    return replace(conversation, **parts)


def placed(first: int, *texts: str) -> list[Message]:
    return [message.at(seq) for seq, message in enumerate(say(*texts), first)]


def restore_all(store: Store, conversation: Conversation, messages: Sequence[Message]) -> None:
    """Restore messages with any gaps, one by one."""
    after = 0
    for message in messages:
        seq = seq_of(message)
        if seq > after + 1:
            store.restore(replace(conversation, revision=seq - 1), [], after=after)
        store.restore(replace(conversation, revision=seq), [message], after=seq - 1)
        after = seq
    if conversation.revision > after:
        store.restore(conversation, [], after=after)


class MovingLaws:
    """``restore``."""

    def test_what_is_restored_is_what_it_was(self, subject: Store) -> None:
        conversation, messages = given(5), placed(1, "1", "2", "3")
        answer = subject.restore(conversation, messages, after=0)
        seen = see(subject, conversation.id)
        assert answer == seen.conversation == replace(conversation, message_count=3)
        assert (seen.messages, seen.seqs) == (messages, [1, 2, 3])
        assert conversation.owner
        assert list_all(subject, conversation.owner) == [answer]

    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_a_conversation_without_messages_is_restored_too(
        self, subject: Store, owner: str | None
    ) -> None:
        conversation = given(7, owner=owner, title=None, metadata={})
        assert subject.restore(conversation, [], after=0) == conversation
        assert see(subject, conversation.id) == (conversation, [], [])
        assert subject.append(conversation.id, say("8"), after=7).revision == 8

    def test_messages_go_behind_gaps_that_nobody_ever_fills(self, subject: Store) -> None:
        conversation = given(20)
        subject.restore(replace(conversation, revision=4), [], after=0)
        subject.restore(replace(conversation, revision=9), placed(5, "5", "6"), after=4)
        answer = subject.restore(conversation, placed(10, "10"), after=9)
        assert answer == replace(conversation, message_count=3)
        assert list(subject.append(conversation.id, say("21", "22")).seqs) == [21, 22]
        seen = see(subject, conversation.id)
        assert (said(seen.messages), seen.seqs) == (
            ["5", "6", "10", "21", "22"],
            [5, 6, 10, 21, 22],
        )

    def test_a_restored_conversation_behaves_like_any_other(self, subject: Store) -> None:
        random = Random(1)
        for _ in range(4):
            seqs = sorted(random.sample(range(1, 30), random.randrange(1, 12)))
            revision = seqs[-1] + random.randrange(4)
            conversation = given(revision)
            messages = [Message.user(str(seq)).at(seq) for seq in seqs]
            restore_all(subject, conversation, messages)
            assert see(subject, conversation.id).seqs == seqs
            place = random.randrange(32)
            for limit in (1, 2, LIMIT):
                later = read_all(subject, conversation.id, after=place, limit=limit)
                assert [seq_of(message) for message in later] == [
                    seq for seq in seqs if seq > place
                ]
                earlier = read_all(subject, conversation.id, before=place, limit=limit)
                assert [seq_of(message) for message in earlier] == [
                    seq for seq in reversed(seqs) if seq < place
                ]
            fork = subject.fork(conversation.id, at=place)
            assert said(read_all(subject, fork.id)) == [str(seq) for seq in seqs if seq <= place]
            seq = random.choice(seqs)
            assert (
                subject.replace(conversation.id, seq, Message.user("another")).revision > revision
            )
            assert see(subject, conversation.id).messages[seqs.index(seq)].text == "another"
            cut = subject.truncate(conversation.id, after=place)
            left = [seq for seq in seqs if seq <= place]
            assert (see(subject, conversation.id).seqs, cut.message_count) == (left, len(left))
            [new] = subject.append(conversation.id, say("new")).seqs
            assert new > cut.revision
            popped = subject.pop(conversation.id, 2)
            assert [seq_of(message) for message in popped] == [*left, new][-2:]

    def test_what_is_there_keeps_its_name_and_its_latest_activity(
        self, subject: Store, clock: Clock
    ) -> None:
        created = subject.create(owner=new_id(), title="Mine", metadata={"mine": True})
        revision = created.revision + 3
        conversation = given(revision, id=created.id, owner=created.owner)
        with clock.stopped():
            older = subject.restore(
                replace(conversation, revision=revision - 1),
                placed(created.revision + 1, "1"),
                after=created.revision,
            )
            assert older == replace(created, revision=revision - 1, message_count=1)
            later = clock() + timedelta(minutes=1)
            newer = replace(conversation, updated_at=later)
            assert subject.restore(newer, [], after=revision - 1) == replace(
                created, revision=revision, message_count=1, updated_at=later
            )

    @pytest.mark.parametrize("ahead", [-2, -1, 1, 2])
    def test_nothing_is_restored_behind_another_revision(self, subject: Store, ahead: int) -> None:
        it = begin(subject, "1", "2", "3")
        after = it.revision + ahead
        conversation = given(after + 5, id=it.id, owner=None)
        for messages in ([], placed(after + 1, "4")):
            with unchanged(subject, it.id), pytest.raises(Conflict) as caught:
                subject.restore(conversation, messages, after=after)
            assert (caught.value.expected, caught.value.revision) == (after, it.revision)

    def test_nothing_is_started_twice_or_behind_nothing(self, subject: Store) -> None:
        conversation, messages = given(1), placed(1, "1")
        with pytest.raises(NotFound):
            subject.restore(replace(conversation, revision=3), placed(3, "3"), after=2)
        assert look(subject, conversation.id) is None
        subject.restore(conversation, messages, after=0)
        for again in (messages, []):
            with unchanged(subject, conversation.id), pytest.raises(Conflict):
                subject.restore(conversation, again, after=0)

    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_what_is_somebody_elses_is_left_alone(self, subject: Store, owner: str | None) -> None:
        it = begin(subject, "1", owner=owner)
        for other in {None, new_id(), "somebody"} - {owner}:
            conversation = given(it.revision + 1, id=it.id, owner=other)
            with unchanged(subject, it.id), pytest.raises(AlreadyExists):
                subject.restore(conversation, placed(it.revision + 1, "2"), after=it.revision)

    def test_numbers_of_a_deleted_conversation_are_not_given_out_again(
        self, subject: Store
    ) -> None:
        it = begin(subject, "1", "2", "3")
        subject.delete(it.id)
        conversation = given(it.revision, id=it.id)
        for messages in (placed(1, "1"), []):
            with pytest.raises(Conflict):
                subject.restore(conversation, messages, after=0)
        assert look(subject, it.id) is None
        # Its next life in another store began behind these numbers, and so it does here.
        conversation = given(it.revision + 10, id=it.id)
        subject.restore(conversation, [], after=0)
        place = conversation.revision + 1
        subject.restore(replace(conversation, revision=place), placed(place, "x"), after=place - 1)
        assert see(subject, it.id).seqs == [place]

    def test_what_cannot_be_restored_is_refused(self, subject: Store) -> None:
        it = begin(subject, "1", "2")
        after = it.revision
        conversation = given(after + 3, id=it.id, owner=None)
        fine = placed(after + 1, "3", "4")
        bad: Any
        no: list[dict[str, Any]] = [
            {"title": 7},
            {"metadata": {"a": b""}},
            {"created_at": datetime(2001, 1, 1)},
            {"updated_at": "now"},
            {"expires_at": 7},
            {"owner": ""},
            *({"revision": revision} for revision in [*NO_REVISIONS, None, after, after + 1]),
        ]
        refused: list[tuple[Any, Any, Any]] = [
            (conversation, say("no seq"), after),
            (conversation, placed(after, "too low"), after),
            (conversation, placed(after + 2, "too high"), after),
            (conversation, fine[::-1], after),
            (conversation, [fine[0], fine[0]], after),
            (replace(conversation, revision=after), [], after),
            *((replace(conversation, **parts), fine, after) for parts in no),
            ({"id": it.id}, fine, after),
            (None, fine, after),
            *((conversation, bad, after) for bad in NO_MESSAGES if bad not in ([], ())),
            *((conversation, fine, bad) for bad in [*NO_REVISIONS, None]),
        ]
        for bad, messages, behind in refused:
            with unchanged(subject, it.id), pytest.raises(InvalidArgument):
                subject.restore(bad, messages, after=behind)

    def test_a_restored_conversation_expires_when_it_would_have(
        self, subject: Store, clock: Clock
    ) -> None:
        with clock.stopped():
            now = clock()
            conversation = given(
                1,
                created_at=now - timedelta(days=2),
                updated_at=now - timedelta(days=1),
                expires_at=now + timedelta(hours=1),
            )
            assert subject.restore(conversation, [], after=0) == conversation
            more = replace(conversation, revision=2)
            restored = subject.restore(more, placed(2, "2"), after=1)
            assert restored == replace(more, message_count=1)
            clock.advance(timedelta(minutes=59))
            # A change extends its life by as much as before.
            subject.append(conversation.id, say("3"))
            assert subject.get(conversation.id).expires_at == clock() + timedelta(hours=25)
            clock.advance(timedelta(hours=25))
            assert look(subject, conversation.id) is None

    def test_what_has_expired_is_not_restored(self, subject: Store, clock: Clock) -> None:
        it = begin(subject, "1")
        for conversation_id, after in ((it.id, it.revision), (new_id(), 0)):
            conversation = given(
                after + 1, id=conversation_id, owner=None, expires_at=LONG_AGO + timedelta(days=1)
            )
            with unchanged(subject, conversation_id), pytest.raises(NotFound):
                subject.restore(conversation, [], after=after)

    def test_of_many_that_restore_the_same_one_is_first(self, subject: Store) -> None:
        conversation = given(10)
        messages = placed(1, "1", "2")
        answers = race([lambda: subject.restore(conversation, messages, after=0)] * 6)
        assert sum(isinstance(answer, Conversation) for answer in answers) == 1
        assert sum(isinstance(answer, Conflict) for answer in answers) == 5
        assert see(subject, conversation.id).messages == messages

    def test_nothing_of_others_is_lost_beside_a_restoration(self, subject: Store) -> None:
        for _ in range(5):
            it = begin(subject, "1")
            conversation = given(it.revision + 10, id=it.id, owner=None)
            restored = placed(it.revision + 1, "restored")
            restore = partial(subject.restore, conversation, restored, after=it.revision)
            append = [partial(subject.append, it.id, say(text)) for text in ("a", "b", "c")]
            calls: list[Callable[[], Any]] = [*append[:2], restore, append[2]]
            answers: list[Any] = race(calls)
            first, second, other, third = answers
            seen = see(subject, it.id)
            told = dict(zip(seen.seqs, said(seen.messages), strict=True))
            for text, appended in (("a", first), ("b", second), ("c", third)):
                assert told[appended.seqs[0]] == text
            if isinstance(other, Conflict):
                assert len(told) == 4
            else:
                assert told[it.revision + 1] == "restored"
                assert len(told) == 5
