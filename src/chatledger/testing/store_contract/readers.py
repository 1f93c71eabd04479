"""Laws for readers of a conversation that others write."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from chatledger.errors import NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import (
    Snapshot,
    numbers_by_writer,
    race,
    read_all,
    read_started,
    snapshot,
    snapshot_if_any,
    start_conversation,
    user_messages,
    watch_conversation,
    write_numbers,
)
from chatledger.testing.store_contract.operation_table import CALLS, Call, each_of
from chatledger.values import new_id

APPENDS = 20
ROUNDS = 5


class ReaderLaws:
    """Consistent reads while others write."""

    @each_of(call for call in CALLS if call.is_activity or call.deletes)
    def test_a_reader_sees_only_states_between_two_writes(self, subject: Store, call: Call) -> None:
        conversation = start_conversation(subject, "1", "2")
        states: list[Snapshot | None] = [snapshot(subject, conversation.id)]
        with watch_conversation(subject, conversation.id) as observed:
            for _ in range(ROUNDS * 2):
                subject.append(conversation.id, user_messages("3", "4", "5"))
                states.append(snapshot(subject, conversation.id))
                call(subject, read_started(subject, conversation.id))
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
        first = remaining[0].seq if remaining else max(appended) + 1
        assert {message.seq: message.text for message in remaining} == {
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
