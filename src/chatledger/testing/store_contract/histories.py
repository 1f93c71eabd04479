"""Any history of operations leaves what it would leave of plain lists."""

from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from chatledger.errors import AlreadyExists, ChatledgerError, Conflict, NotFound
from chatledger.json_values import Json
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import see, seq_of
from chatledger.testing.store_contract.readers import (
    Readers,
    callers,
    lifetimes,
    marks,
    maybe_marks,
    owners,
    places,
    refusing,
    sizes,
)
from chatledger.testing.store_contract.settings import examples_of


class Histories(Readers):
    """Operations of several callers, one after the other, on a few conversations."""

    @rule(
        place=places, caller=callers, lifetime=lifetimes, title=st.sampled_from([None, "", "Plans"])
    )
    def create(
        self, place: int, caller: int, lifetime: timedelta | None, title: str | None
    ) -> None:
        conversation_id, owner, _ = self.lives.find(place, caller)
        with refusing(AlreadyExists if self.lives.living(conversation_id) else None):
            created = self.store.create(
                conversation_id, owner=owner, title=title, expires_in=lifetime
            )
            life = self.lives.begin(
                conversation_id, created.revision, lifetime, owner=owner, title=title or None
            )
            assert created == life.conversation

    @rule(
        place=places,
        caller=callers,
        size=sizes,
        mark=maybe_marks,
        key=st.none() | st.integers(0, 2),
        cut=st.none() | st.none() | marks,
        reply_follows=st.booleans(),
    )
    def append(
        self,
        place: int,
        caller: int,
        size: int,
        mark: int | None,
        key: int | None,
        cut: int | None,
        reply_follows: bool,
    ) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        there = self.lives.living(conversation_id)
        after = there.mark(mark) if there and mark is not None else mark
        # What an old life's keys say in a new one is not promised, nor what they say after a day.
        number = self.lives.starts[conversation_id] + (there is None)
        name = None if key is None else f"{number} {key}"
        answer = life.answers.get(name) if life and name else None
        if answer and answer[1] + timedelta(days=1) <= self.clock():
            answer = name = None

        refusal: type[ChatledgerError] | None = None
        if life is None and (there or after):
            refusal = NotFound
        elif life and not answer and after not in (None, life.conversation.revision):
            refusal = Conflict
        messages = [Message.user(f"{number}: {n}") for n in range(size)]
        truncate_after = life.mark(cut) if life and cut is not None else cut
        with refusing(refusal):
            appended = self.store.append(
                conversation_id,
                messages,
                owner=owner,
                after=after,
                idempotency_key=name,
                truncate_after=truncate_after,
                reply_follows=reply_follows,
            )
            if answer:
                assert appended == answer[0]
                return
            first, last = appended.seqs[0], appended.seqs[-1]
            assert appended.seqs == range(first, first + size)
            assert self.lives.floor(conversation_id) < first <= last <= appended.revision
            if life is None:
                life = self.lives.begin(conversation_id, first, owner=owner)
                life.conversation = replace(life.conversation, revision=0)
            placed = [message.at(first + n) for n, message in enumerate(messages)]
            kept = [
                message
                for message in life.messages
                if truncate_after is None or seq_of(message) <= truncate_after
            ]
            self.lives.change(life, [*kept, *placed], appended.revision)
            life.listed_late = reply_follows
            if name:
                life.answers[name] = (appended, self.clock())

    @rule(
        place=places,
        caller=callers,
        title=st.sampled_from([None, "", "other"]),
        metadata=st.sampled_from([{}, {"a": 1}, {"b": None}]),
        mark=maybe_marks,
    )
    def update(
        self,
        place: int,
        caller: int,
        title: str | None,
        metadata: dict[str, Json],
        mark: int | None,
    ) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        revision = life.mark(mark) if life and mark is not None else mark
        refusal: type[ChatledgerError] | None = None
        if life is None:
            refusal = NotFound
        elif revision not in (None, life.conversation.revision):
            refusal = Conflict
        with refusing(refusal):
            updated = self.store.update(
                conversation_id, title=title, metadata=metadata, revision=revision, owner=owner
            )
            assert life
            if title is not None:
                life.conversation = replace(life.conversation, title=title or None)
            life.conversation = replace(life.conversation, metadata=metadata)
            assert updated == life.conversation

    @rule(place=places, caller=callers, mark=marks)
    def truncate(self, place: int, caller: int, mark: int) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        after = life.mark(mark) if life else mark
        with self.needing(life):
            answer = self.store.truncate(conversation_id, after=after, owner=owner)
            assert life
            remaining = [message for message in life.messages if seq_of(message) <= after]
            self.lives.keep(life, remaining, answer.revision)
            assert answer == life.conversation

    @rule(place=places, caller=callers, n=sizes)
    def pop(self, place: int, caller: int, n: int) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        with self.needing(life):
            popped = self.store.pop(conversation_id, n, owner=owner)
            assert life
            assert list(popped) == life.messages[-n:]
            revision = self.store.get(conversation_id).revision
            self.lives.keep(life, life.messages[:-n], revision)

    @rule(place=places, caller=callers)
    def clear(self, place: int, caller: int) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        with self.needing(life):
            answer = self.store.clear(conversation_id, owner=owner)
            assert life
            self.lives.keep(life, [], answer.revision)
            assert answer == life.conversation

    @rule(place=places, caller=callers, mark=marks)
    def replace_a_message(self, place: int, caller: int, mark: int) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        seq = max(1, life.mark(mark) if life else mark)
        message = Message.assistant("another")
        with refusing(None if life and seq in life.seqs else NotFound):
            answer = self.store.replace(conversation_id, seq, message, owner=owner)
            assert life
            messages = [message.at(seq) if old.seq == seq else old for old in life.messages]
            self.lives.change(life, messages, answer.revision)
            assert answer == life.conversation

    @rule(place=places, caller=callers, mark=maybe_marks, to=st.none() | places)
    def fork(self, place: int, caller: int, mark: int | None, to: int | None) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        at = life.mark(mark) if life and mark is not None else mark
        new_id = None if to is None else self.lives.ids[to % len(self.lives.ids)]
        refusal: type[ChatledgerError] | None = None
        if life is None:
            refusal = NotFound
        elif new_id and self.lives.living(new_id):
            refusal = AlreadyExists
        with refusing(refusal):
            answer = self.store.fork(conversation_id, at=at, new_id=new_id, owner=owner)
            assert life
            if new_id is None:
                self.lives.ids.append(answer.id)
            floor = self.lives.floor(answer.id)
            copied = [message for message in life.messages if at is None or seq_of(message) <= at]
            copy = self.lives.begin(
                answer.id,
                answer.revision,
                life.lifetime,
                owner=life.conversation.owner,
                title=life.conversation.title,
                metadata=life.conversation.metadata,
                message_count=len(copied),
            )
            assert answer == copy.conversation
            copy.messages = see(self.store, answer.id).messages
            assert copy.messages == copied
            rising = [floor, *copy.seqs]
            assert rising == sorted(set(rising))

    @rule(place=places, caller=callers)
    def delete(self, place: int, caller: int) -> None:
        conversation_id, owner, life = self.lives.find(place, caller)
        with self.needing(life):
            self.store.delete(conversation_id, owner=owner)
            assert life
            self.lives.end(life)

    @rule(caller=owners)
    def delete_an_owners(self, caller: int) -> None:
        owner = self.lives.owners[caller]
        assert owner
        owned = self.lives.owned(owner)
        assert self.store.delete_owner(owner) == len(owned)
        for life in owned:
            self.lives.end(life)


class HistoryLaws:
    """One law for all that callers who come one after the other can see."""

    examples: ClassVar[int]

    def test_a_store_behaves_like_lists_under_any_history(
        self, subject: Store, clock: Clock
    ) -> None:
        class History(Histories):
            def __init__(self) -> None:
                super().__init__(subject, clock)

        with clock.stopped():
            run_state_machine_as_test(History, settings=examples_of(self.examples))
