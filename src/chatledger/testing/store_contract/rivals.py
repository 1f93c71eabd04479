"""Laws for concurrent writers and readers of one conversation."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest

from chatledger.conversations import Appended, Conversation
from chatledger.errors import AlreadyExists, ChatledgerError, Conflict, NotFound
from chatledger.ids import new_id
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    Snapshot,
    Started,
    numbers_by_writer,
    race,
    read_all,
    seq_of,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
    watch_conversation,
    write_numbers,
)

WRITERS = 8
APPENDS = 20
ROUNDS = 5

CHANGES: dict[str, Callable[[Store, Started], object]] = {
    "truncate": lambda store, conversation: store.truncate(
        conversation.id, after=conversation.seqs[-1]
    ),
    "pop": lambda store, conversation: store.pop(conversation.id, 3),
    "clear": lambda store, conversation: store.clear(conversation.id),
    "append and truncate": lambda store, conversation: store.append(
        conversation.id, [Message.user(new_id())], truncate_after=conversation.seqs[-1]
    ),
    "replace": lambda store, conversation: store.replace(
        conversation.id, conversation.seqs[0], Message.user(new_id())
    ),
    "delete": lambda store, conversation: store.delete(conversation.id),
}


def only_winner(outcomes: list[Appended | ChatledgerError]) -> int:
    """Return the index of the one rival that won; all others must have got a ``Conflict``."""
    [winner] = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Appended)]
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == len(outcomes) - 1
    return winner


class RivalLaws:
    """Total order, atomic appends, and consistent reads while others write."""

    def test_messages_of_many_writers_are_neither_lost_nor_duplicated_nor_reordered(
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
        assert numbers_by_writer(messages) == {
            str(writer): list(range(APPENDS)) for writer in range(WRITERS)
        }
        appended: dict[int, str] = {}
        for outcome in outcomes:
            assert isinstance(outcome, dict)
            appended |= outcome
        assert {seq_of(message): message.text for message in messages} == appended
        assert subject.get(conversation_id).message_count == WRITERS * APPENDS

    def test_batches_of_many_writers_are_not_interleaved(self, subject: Store) -> None:
        conversation_id = new_id()
        batches = [[f"{writer} {number}" for number in range(50)] for writer in range(WRITERS)]
        race([partial(subject.append, conversation_id, user_messages(*batch)) for batch in batches])
        texts = texts_of(read_all(subject, conversation_id))
        texts_in_order = [texts[start : start + 50] for start in range(0, len(texts), 50)]
        assert sorted(texts_in_order) == sorted(batches)

    def test_of_rivals_with_the_same_after_exactly_one_wins(self, subject: Store) -> None:
        conversation = start_conversation(subject, "0")
        revision, texts = conversation.revision, ["0"]
        for number in range(ROUNDS):
            rivals = [f"{number} {rival}" for rival in range(WRITERS)]
            outcomes = race(
                [
                    partial(subject.append, conversation.id, user_messages(text), after=revision)
                    for text in rivals
                ]
            )
            texts.append(rivals[only_winner(outcomes)])
            observed = snapshot(subject, conversation.id)
            assert texts_of(observed.messages) == texts
            revision = observed.conversation.revision

    def test_of_rivals_that_append_after_zero_exactly_one_wins(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation_id = new_id()
            outcomes = race(
                [
                    partial(subject.append, conversation_id, user_messages(str(rival)), after=0)
                    for rival in range(WRITERS)
                ]
            )
            assert texts_of(read_all(subject, conversation_id)) == [str(only_winner(outcomes))]

    def test_rivals_with_one_idempotency_key_append_once_and_get_the_same_result(
        self, subject: Store
    ) -> None:
        for conversation_id in (new_id(), start_conversation(subject).id):
            outcomes = race(
                [
                    partial(
                        subject.append,
                        conversation_id,
                        user_messages("once"),
                        idempotency_key="key",
                    )
                ]
                * WRITERS
            )
            assert outcomes == [outcomes[0]] * WRITERS
            observed = snapshot(subject, conversation_id)
            assert texts_of(observed.messages) == ["once"]
            assert isinstance(outcomes[0], Appended)
            assert observed.seqs == list(outcomes[0].seqs)

    def test_of_rivals_that_create_one_id_exactly_one_wins(self, subject: Store) -> None:
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

    def test_of_rivals_that_fork_to_one_id_exactly_one_wins(self, subject: Store) -> None:
        conversation, target = start_conversation(subject, "1", "2"), new_id()
        outcomes = race([partial(subject.fork, conversation.id, new_id=target)] * WRITERS)
        [fork] = [outcome for outcome in outcomes if isinstance(outcome, Conversation)]
        assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == WRITERS - 1
        observed = snapshot(subject, target)
        assert (observed.conversation, texts_of(observed.messages)) == (fork, ["1", "2"])

    def test_owners_that_race_for_an_id_never_share_it(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation_id, owners = new_id(), [new_id() for _ in range(WRITERS)]
            outcomes = race(
                [
                    partial(subject.append, conversation_id, user_messages(owner), owner=owner)
                    for owner in owners
                ]
            )
            [winner] = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Appended)]
            observed = snapshot(subject, conversation_id)
            assert observed.conversation.owner == owners[winner]
            assert texts_of(observed.messages) == [owners[winner]]

    def test_appends_of_rivals_to_an_expired_id_all_land(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "old", expires_in=timedelta(hours=1))
        clock.advance(timedelta(hours=1))
        texts = [str(rival) for rival in range(WRITERS)]
        race([partial(subject.append, conversation.id, user_messages(text)) for text in texts])
        observed = snapshot(subject, conversation.id)
        assert sorted(texts_of(observed.messages)) == texts
        assert observed.seqs[0] > conversation.revision

    def test_no_message_is_popped_twice(self, subject: Store) -> None:
        texts = [str(number) for number in range(WRITERS * 3)]
        conversation = start_conversation(subject, *texts, "not popped")
        outcomes = race([partial(subject.pop, conversation.id, 2)] * WRITERS)
        popped = [
            text
            for outcome in outcomes
            if not isinstance(outcome, ChatledgerError)
            for text in texts_of(outcome)
        ]
        remaining = texts_of(snapshot(subject, conversation.id).messages)
        assert len(popped) == 2 * WRITERS
        assert sorted(popped + remaining) == sorted([*texts, "not popped"])

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_a_reader_sees_only_states_between_two_writes(
        self, subject: Store, change: Callable[[Store, Started], object]
    ) -> None:
        conversation = start_conversation(subject, "1", "2")
        states: list[Snapshot | None] = [snapshot(subject, conversation.id)]
        with watch_conversation(subject, conversation.id) as observed:
            for _ in range(ROUNDS * 2):
                subject.append(conversation.id, user_messages("3", "4", "5"))
                states.append(snapshot(subject, conversation.id))
                change(subject, conversation)
                states.append(snapshot_if_any(subject, conversation.id))
        assert_in_order(observed, states)

    @pytest.mark.parametrize("change", ["clear", "delete"])
    def test_messages_acknowledged_after_a_removal_stay_and_their_seqs_are_unique(
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
        appended: dict[int, str] = {}
        for outcome in outcomes:
            assert isinstance(outcome, dict)
            assert not appended.keys() & outcome.keys()
            appended |= outcome
        subject.append(conversation_id, user_messages("the last one"))
        *remaining, _ = read_all(subject, conversation_id)
        first = seq_of(remaining[0]) if remaining else max(appended) + 1
        assert {seq_of(message): message.text for message in remaining} == {
            seq: text for seq, text in appended.items() if seq >= first
        }

    def test_a_reader_sees_all_messages_of_a_batch_or_none(self, subject: Store) -> None:
        conversation = start_conversation(subject)
        batch = user_messages(*map(str, range(1_000)))
        states: list[Snapshot | None] = [snapshot(subject, conversation.id)]
        with watch_conversation(subject, conversation.id) as observed:
            for _ in range(2):
                subject.append(conversation.id, batch)
                states.append(snapshot(subject, conversation.id))
                subject.clear(conversation.id)
                states.append(snapshot(subject, conversation.id))
        assert_in_order(observed, states)

    def test_a_reader_sees_a_complete_fork_or_none(self, subject: Store) -> None:
        conversation, target = start_conversation(subject, *map(str, range(1_000))), new_id()
        with watch_conversation(subject, target) as observed:
            subject.fork(conversation.id, new_id=target)
        assert_in_order(observed, [None, snapshot(subject, target)])

    def test_a_reader_that_pages_during_appends_misses_nothing(self, subject: Store) -> None:
        conversation_id = subject.create().id

        def read() -> None:
            for _ in range(APPENDS):
                messages = read_all(subject, conversation_id, limit=10)
                for numbers in numbers_by_writer(messages).values():
                    assert numbers == list(range(len(numbers)))

        calls: list[Callable[[], object]] = [
            partial(write_numbers, subject, conversation_id, str(writer), appends=APPENDS)
            for writer in range(4)
        ]
        race([read, *calls])
        assert len(read_all(subject, conversation_id)) == 4 * APPENDS


def assert_in_order(observed: list[Snapshot | None], states: list[Snapshot | None]) -> None:
    """Assert that every observation is one of the states, and that they never go back."""
    position = 0
    for state in observed:
        assert state in states[position:]
        position = states.index(state, position)
    assert observed[-1] == states[-1]
