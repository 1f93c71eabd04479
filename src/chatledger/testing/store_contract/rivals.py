"""Many writers and readers of one conversation, at the same time."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest

from chatledger.conversations import Appended, Conversation
from chatledger.errors import AlreadyExists, ChatledgerError, Conflict, NotFound
from chatledger.messages import Message, new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    Begun,
    Seen,
    begin,
    look,
    numbers_of_writers,
    race,
    read_all,
    said,
    say,
    see,
    seq_of,
    watched,
    write_numbers,
)

WRITERS = 8
APPENDS = 20
ROUNDS = 5

CHANGES: dict[str, Callable[[Store, Begun], object]] = {
    "truncate": lambda store, it: store.truncate(it.id, after=it.seqs[-1]),
    "pop": lambda store, it: store.pop(it.id, 3),
    "clear": lambda store, it: store.clear(it.id),
    "append and truncate": lambda store, it: store.append(
        it.id, [Message.user(new_id())], truncate_after=it.seqs[-1]
    ),
    "replace": lambda store, it: store.replace(it.id, it.seqs[0], Message.user(new_id())),
    "delete": lambda store, it: store.delete(it.id),
}


def only_winner(outcomes: list[Appended | ChatledgerError]) -> int:
    """Which of the rivals is in, where all others were told that there was a conflict."""
    [winner] = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Appended)]
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == len(outcomes) - 1
    return winner


class RivalLaws:
    """Total order, whole appends, and answers that hold while others write."""

    def test_no_message_of_many_writers_is_lost_doubled_or_out_of_its_order(
        self, subject: Store
    ) -> None:
        conversation_id = new_id()
        outcomes = race(
            [
                partial(write_numbers, subject, conversation_id, str(writer), appends=APPENDS)
                for writer in range(WRITERS)
            ]
        )
        messages = read_all(subject, conversation_id)
        assert numbers_of_writers(messages) == {
            str(writer): list(range(APPENDS)) for writer in range(WRITERS)
        }
        told: dict[int, str] = {}
        for outcome in outcomes:
            assert isinstance(outcome, dict)
            told |= outcome
        assert {seq_of(message): message.text for message in messages} == told
        assert subject.get(conversation_id).message_count == WRITERS * APPENDS

    def test_batches_of_many_writers_do_not_mingle(self, subject: Store) -> None:
        conversation_id = new_id()
        batches = [[f"{writer} {number}" for number in range(50)] for writer in range(WRITERS)]
        race([partial(subject.append, conversation_id, say(*batch)) for batch in batches])
        texts = said(read_all(subject, conversation_id))
        standing = [texts[start : start + 50] for start in range(0, len(texts), 50)]
        assert sorted(standing) == sorted(batches)

    def test_of_rivals_with_the_same_after_exactly_one_is_in(self, subject: Store) -> None:
        it = begin(subject, "0")
        revision, texts = it.revision, ["0"]
        for number in range(ROUNDS):
            rivals = [f"{number} {rival}" for rival in range(WRITERS)]
            outcomes = race(
                [partial(subject.append, it.id, say(text), after=revision) for text in rivals]
            )
            texts.append(rivals[only_winner(outcomes)])
            seen = see(subject, it.id)
            assert said(seen.messages) == texts
            revision = seen.conversation.revision

    def test_of_rivals_that_start_a_conversation_at_zero_exactly_one_is_in(
        self, subject: Store
    ) -> None:
        for _ in range(ROUNDS):
            conversation_id = new_id()
            outcomes = race(
                [
                    partial(subject.append, conversation_id, say(str(rival)), after=0)
                    for rival in range(WRITERS)
                ]
            )
            assert said(read_all(subject, conversation_id)) == [str(only_winner(outcomes))]

    def test_rivals_with_one_idempotency_key_append_once_and_hear_the_same(
        self, subject: Store
    ) -> None:
        for conversation_id in (new_id(), begin(subject).id):
            outcomes = race(
                [partial(subject.append, conversation_id, say("once"), idempotency_key="key")]
                * WRITERS
            )
            assert outcomes == [outcomes[0]] * WRITERS
            seen = see(subject, conversation_id)
            assert said(seen.messages) == ["once"]
            assert isinstance(outcomes[0], Appended)
            assert seen.seqs == list(outcomes[0].seqs)

    def test_of_rivals_that_create_one_id_exactly_one_does(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation_id = new_id()
            outcomes = race(
                [
                    partial(subject.create, conversation_id, owner=new_id(), title=str(rival))
                    for rival in range(WRITERS)
                ]
            )
            [created] = [outcome for outcome in outcomes if isinstance(outcome, Conversation)]
            assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == WRITERS - 1
            assert subject.get(conversation_id) == created

    def test_of_rivals_that_fork_to_one_id_exactly_one_does(self, subject: Store) -> None:
        it, target = begin(subject, "1", "2"), new_id()
        outcomes = race([partial(subject.fork, it.id, new_id=target)] * WRITERS)
        [fork] = [outcome for outcome in outcomes if isinstance(outcome, Conversation)]
        assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == WRITERS - 1
        seen = see(subject, target)
        assert (seen.conversation, said(seen.messages)) == (fork, ["1", "2"])

    def test_owners_that_race_for_an_id_never_share_it(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation_id, owners = new_id(), [new_id() for _ in range(WRITERS)]
            outcomes = race(
                [
                    partial(subject.append, conversation_id, say(owner), owner=owner)
                    for owner in owners
                ]
            )
            [winner] = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Appended)]
            seen = see(subject, conversation_id)
            assert seen.conversation.owner == owners[winner]
            assert said(seen.messages) == [owners[winner]]

    def test_rivals_that_start_an_expired_conversation_anew_are_all_in(
        self, subject: Store, clock: Clock
    ) -> None:
        it = begin(subject, "old", expires_in=timedelta(hours=1))
        clock.advance(timedelta(hours=1))
        texts = [str(rival) for rival in range(WRITERS)]
        race([partial(subject.append, it.id, say(text)) for text in texts])
        seen = see(subject, it.id)
        assert sorted(said(seen.messages)) == texts
        assert seen.seqs[0] > it.revision

    def test_no_message_is_popped_twice(self, subject: Store) -> None:
        texts = [str(number) for number in range(WRITERS * 3)]
        it = begin(subject, *texts, "stays not")
        outcomes = race([partial(subject.pop, it.id, 2)] * WRITERS)
        popped = [
            text
            for outcome in outcomes
            if not isinstance(outcome, ChatledgerError)
            for text in said(outcome)
        ]
        remaining = said(see(subject, it.id).messages)
        assert len(popped) == 2 * WRITERS
        assert sorted(popped + remaining) == sorted([*texts, "stays not"])

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_a_reader_sees_what_stood_between_two_writes_and_nothing_else(
        self, subject: Store, change: Callable[[Store, Begun], object]
    ) -> None:
        it = begin(subject, "1", "2")
        stood: list[Seen | None] = [see(subject, it.id)]
        with watched(subject, it.id) as seen:
            for _ in range(ROUNDS * 2):
                subject.append(it.id, say("3", "4", "5"))
                stood.append(see(subject, it.id))
                change(subject, it)
                stood.append(look(subject, it.id))
        assert_in_order(seen, stood)

    @pytest.mark.parametrize("change", ["clear", "delete"])
    def test_what_was_acknowledged_behind_a_removal_stays_and_its_place_is_its_own(
        self, subject: Store, change: str
    ) -> None:
        conversation_id = subject.create().id

        def remove() -> None:
            for _ in range(ROUNDS):
                with suppress(NotFound):
                    getattr(subject, change)(conversation_id)

        calls: list[Callable[[], object]] = [
            partial(write_numbers, subject, conversation_id, str(writer), appends=APPENDS)
            for writer in range(4)
        ]
        _, *outcomes = race([remove, *calls])
        told: dict[int, str] = {}
        for outcome in outcomes:
            assert isinstance(outcome, dict)
            assert not told.keys() & outcome.keys()
            told |= outcome
        subject.append(conversation_id, say("the last one"))
        *remaining, _ = read_all(subject, conversation_id)
        first = seq_of(remaining[0]) if remaining else max(told) + 1
        assert {seq_of(message): message.text for message in remaining} == {
            seq: text for seq, text in told.items() if seq >= first
        }

    def test_a_reader_sees_a_thousand_messages_or_none_of_them(self, subject: Store) -> None:
        it = begin(subject)
        batch = say(*map(str, range(1_000)))
        stood: list[Seen | None] = [see(subject, it.id)]
        with watched(subject, it.id) as seen:
            for _ in range(2):
                subject.append(it.id, batch)
                stood.append(see(subject, it.id))
                subject.clear(it.id)
                stood.append(see(subject, it.id))
        assert_in_order(seen, stood)

    def test_a_reader_sees_a_fork_whole_or_not_at_all(self, subject: Store) -> None:
        it, target = begin(subject, *map(str, range(1_000))), new_id()
        with watched(subject, target) as seen:
            subject.fork(it.id, new_id=target)
        assert_in_order(seen, [None, see(subject, target)])

    def test_a_reader_who_pages_while_others_append_misses_nothing(self, subject: Store) -> None:
        conversation_id = subject.create().id

        def read() -> None:
            for _ in range(APPENDS):
                messages = read_all(subject, conversation_id, limit=10)
                for numbers in numbers_of_writers(messages).values():
                    assert numbers == list(range(len(numbers)))

        calls: list[Callable[[], object]] = [
            partial(write_numbers, subject, conversation_id, str(writer), appends=APPENDS)
            for writer in range(4)
        ]
        race([read, *calls])
        assert len(read_all(subject, conversation_id)) == 4 * APPENDS


def assert_in_order(seen: list[Seen | None], stood: list[Seen | None]) -> None:
    """Every look showed something that stood, and none showed less than one before it."""
    place = 0
    for look_ in seen:
        assert look_ in stood[place:]
        place = stood.index(look_, place)
    assert seen[-1] == stood[-1]
