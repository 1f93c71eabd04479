"""The read operations of random histories, as rules of a hypothesis state machine."""

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chatledger.conversations import Conversation
from chatledger.errors import ChatledgerError, NotFound
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import list_all, search_all, snapshot_if_any
from chatledger.testing.store_contract.reference_model import DAY, Generation, ReferenceModel

HOUR = timedelta(hours=1)

# Choices for ReferenceModel.choose (conversations, callers, owners) and Generation.number.
conversations = st.integers(0, 7)
# Most callers pass no owner, so that most operations do something.
callers = st.sampled_from([0, 0, 0, 1, 2])
owners = st.sampled_from([1, 2])
numbers = st.integers(0, 9)
optional_numbers = st.none() | numbers
sizes = st.integers(1, 4)
lifetimes = st.sampled_from([None, HOUR, 30 * DAY])
keys = st.none() | st.integers(0, 1)


class ReadRules(RuleBasedStateMachine):
    """Callers who read, while time passes; each history has conversations of its own.

    A rule asks ``ReferenceModel`` for the expected outcome of its operation, runs the operation
    and compares. The conversations are compared after every rule, so that a rejected operation
    that changes something is noticed too.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__()
        self.store = store
        self.clock = clock
        self.model = ReferenceModel(clock)

    @initialize(callers=st.tuples(callers, callers), lifetimes=st.tuples(lifetimes, lifetimes))
    def start_with_two_conversations(
        self, callers: tuple[int, int], lifetimes: tuple[timedelta | None, timedelta | None]
    ) -> None:
        for conversation_id, caller, lifetime in zip(
            self.model.ids, callers, lifetimes, strict=False
        ):
            owner = self.model.owners[caller]
            created = self.store.create(conversation_id, owner=owner, expires_in=lifetime)
            generation = self.model.start(
                conversation_id,
                created.revision,
                lifetime,
                owner=owner,
                metadata_revision=created.metadata_revision,
            )
            messages = [Message.user(str(n)) for n in range(3)]
            appended = self.store.append(conversation_id, messages)
            placed = [
                message.with_seq(seq) for message, seq in zip(messages, appended.seqs, strict=True)
            ]
            self.model.set_messages(generation, placed, appended.revision)

    @rule(conversation=conversations, caller=callers, limit=sizes)
    def read_the_tail(self, conversation: int, caller: int, limit: int) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        with self.expect_found(generation):
            tail = self.store.tail(conversation_id, limit, owner=owner)
            assert generation
            assert tail.conversation == generation.conversation
            assert tail.messages == generation.messages[-limit:]
            assert self.store.get(conversation_id, owner=owner) == generation.conversation

    @rule(
        conversation=conversations,
        caller=callers,
        limit=sizes,
        after=optional_numbers,
        before=optional_numbers,
    )
    def read_a_page(
        self, conversation: int, caller: int, limit: int, after: int | None, before: int | None
    ) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        if generation and after is not None:
            after = generation.number(after)
        if generation and before is not None:
            before = generation.number(before) + 1
        with self.expect_found(generation):
            page = self.store.page(
                conversation_id, after=after, before=before, limit=limit, owner=owner
            )
            assert generation
            expected = [
                message
                for message in generation.messages
                if (after is None or message.seq > after)
                and (before is None or message.seq < before)
            ]
            if before is not None and after is None:
                expected.reverse()
            assert page.messages == expected[:limit]
            assert (page.next is None) == (len(expected) <= limit)
            iterated = self.store.iter_messages(
                conversation_id, after=after, before=before, owner=owner
            )
            assert list(iterated) == expected

    @rule(caller=owners, limit=st.sampled_from([1, 2, 20]))
    def list_an_owner(self, caller: int, limit: int) -> None:
        owner = self.model.owners[caller]
        assert owner
        generations = self.model.owned_by(owner)
        late = {
            generation.conversation.id for generation in generations if generation.is_listed_late
        }
        listed = [
            conversation
            for conversation in list_all(self.store, owner, limit=limit)
            if conversation.id not in late
        ]
        assert listed == [
            conversation
            for conversation in self.store.iter_conversations(owner)
            if conversation.id not in late
        ]
        times = [conversation.updated_at for conversation in listed]
        assert times == sorted(times, reverse=True)
        expected = [
            generation.conversation for generation in generations if not generation.is_listed_late
        ]
        assert sorted_by_id(listed) == sorted_by_id(expected)

    @rule(caller=owners, number=sizes, limit=st.sampled_from([1, 20]))
    def search_for_a_number(self, caller: int, number: int, limit: int) -> None:
        owner = self.model.owners[caller]
        assert owner
        generations = self.model.owned_by(owner)
        late = {
            generation.conversation.id for generation in generations if generation.is_listed_late
        }
        expected = [
            (generation.conversation.id, message.seq)
            for generation in generations
            for message in generation.messages
            if any(word.startswith(str(number)) for word in message.text.split())
        ]
        found = [
            (match.conversation_id, match.seq)
            for match in search_all(self.store, owner, str(number), limit=limit)
            if match.seq is not None
        ]
        assert set(found) <= set(expected)
        assert len(set(found)) == len(found)
        assert {id for id, _ in set(expected) - set(found)} <= late

    @rule()
    def sweep(self) -> None:
        self.store.sweep()

    @rule(
        time=st.sampled_from(
            [timedelta(milliseconds=1), HOUR / 2, HOUR, 23 * HOUR, 25 * HOUR, 30 * DAY]
        )
    )
    def pass_time(self, time: timedelta) -> None:
        self.clock.advance(time)

    @invariant()
    def every_conversation_is_as_expected(self) -> None:
        for conversation_id in self.model.ids:
            generation = self.model.find_live(conversation_id)
            expected = generation.snapshot if generation else None
            observed = snapshot_if_any(self.store, conversation_id)
            assert observed == expected
            if expected and observed:
                assert (
                    observed.conversation.metadata_revision
                    == expected.conversation.metadata_revision
                )

    def expect_found(self, generation: Generation | None) -> AbstractContextManager[Any]:
        return expect(None if generation else NotFound)


def expect(*errors: type[ChatledgerError] | None) -> AbstractContextManager[Any]:
    """Expect that the block raises one of the errors, or nothing if there are none but None."""
    expected = tuple(error for error in errors if error)
    return pytest.raises(expected) if expected else nullcontext()


def sorted_by_id(conversations: list[Conversation]) -> list[Conversation]:
    return sorted(conversations, key=lambda conversation: conversation.id)
