"""Histories in which nobody writes but at their beginning, while time goes on."""

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
from chatledger.testing.store_contract.helpers import list_all, look, seq_of
from chatledger.testing.store_contract.reference_model import DAY, Life, Lives

HOUR = timedelta(hours=1)

places = st.integers(0, 7)
# Nobody is named more often than not, so that most operations do something.
callers = st.sampled_from([0, 0, 0, 1, 2])
owners = st.sampled_from([1, 2])
marks = st.integers(0, 9)
maybe_marks = st.none() | marks
sizes = st.integers(1, 4)
lifetimes = st.sampled_from([None, HOUR, 30 * DAY])


class Readers(RuleBasedStateMachine):
    """Callers who read, each history in conversations of its own.

    A rule asks ``Lives`` what should come of its operation, runs it, and compares; what it should
    have left is compared after every rule, so that a refusal that changes something is caught too.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__()
        self.store = store
        self.clock = clock
        self.lives = Lives(clock)

    @initialize(callers=st.tuples(callers, callers), lifetimes=st.tuples(lifetimes, lifetimes))
    def begin_with_two(
        self, callers: tuple[int, int], lifetimes: tuple[timedelta | None, timedelta | None]
    ) -> None:
        for conversation_id, caller, lifetime in zip(
            self.lives.ids, callers, lifetimes, strict=False
        ):
            owner = self.lives.owners[caller]
            created = self.store.create(conversation_id, owner=owner, expires_in=lifetime)
            life = self.lives.begin(conversation_id, created.revision, lifetime, owner=owner)
            messages = [Message.user(str(n)) for n in range(3)]
            appended = self.store.append(conversation_id, messages)
            placed = [message.at(seq) for message, seq in zip(messages, appended.seqs, strict=True)]
            self.lives.change(life, placed, appended.revision)

    @rule(place=places, caller=callers, n=sizes)
    def read_the_tail(self, place: int, caller: int, n: int) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        with self.needing(life):
            tail = self.store.tail(conversation_id, n, owner=owner)
            assert life
            assert (tail.conversation, tail.messages) == (life.conversation, life.messages[-n:])
            assert self.store.get(conversation_id, owner=owner) == life.conversation

    @rule(place=places, caller=callers, limit=sizes, after=maybe_marks, before=maybe_marks)
    def read_a_page(
        self, place: int, caller: int, limit: int, after: int | None, before: int | None
    ) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        low = life.mark(after) if life and after is not None else after
        high = life.mark(before) + 1 if life and before is not None else before
        with self.needing(life):
            page = self.store.page(
                conversation_id, after=low, before=high, limit=limit, owner=owner
            )
            assert life
            within = [
                message
                for message in life.messages
                if (low is None or seq_of(message) > low)
                and (high is None or seq_of(message) < high)
            ]
            if high is not None and low is None:
                within.reverse()
            assert page.messages == within[:limit]
            assert (page.next is None) == (len(within) <= limit)

    @rule(caller=owners, limit=st.sampled_from([1, 2, 20]))
    def list_an_owners(self, caller: int, limit: int) -> None:
        owner = self.lives.owners[caller]
        assert owner
        lives = self.lives.owned(owner)
        late = {life.conversation.id for life in lives if life.listed_late}
        listed = [
            conversation
            for conversation in list_all(self.store, owner, limit=limit)
            if conversation.id not in late
        ]
        times = [conversation.updated_at for conversation in listed]
        assert times == sorted(times, reverse=True)
        assert by_id(listed) == by_id([life.conversation for life in lives if not life.listed_late])

    @rule()
    def sweep(self) -> None:
        self.store.sweep()

    @rule(
        time=st.sampled_from(
            [timedelta(milliseconds=1), HOUR / 2, HOUR, 23 * HOUR, 25 * HOUR, 30 * DAY]
        )
    )
    def time_goes_on(self, time: timedelta) -> None:
        self.clock.advance(time)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        for conversation_id in self.lives.ids:
            life = self.lives.living(conversation_id)
            assert look(self.store, conversation_id) == (life.seen if life else None)

    def needing(self, life: Life | None) -> AbstractContextManager[Any]:
        return refusing(None if life else NotFound)


def refusing(error: type[ChatledgerError] | None) -> AbstractContextManager[Any]:
    return pytest.raises(error) if error else nullcontext()


def by_id(conversations: list[Conversation]) -> list[Conversation]:
    return sorted(conversations, key=lambda conversation: conversation.id)
