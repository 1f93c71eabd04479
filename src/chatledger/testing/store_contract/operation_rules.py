"""Random histories of all operations, which must behave like plain lists."""

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
from chatledger.testing.store_contract.helpers import seq_of, snapshot
from chatledger.testing.store_contract.read_rules import (
    ReadRules,
    callers,
    conversations,
    expect,
    lifetimes,
    numbers,
    optional_numbers,
    owners,
    sizes,
)
from chatledger.testing.store_contract.settings import examples_of


class OperationRules(ReadRules):
    """Operations of several callers, one after the other, on a few conversations."""

    @rule(
        conversation=conversations,
        caller=callers,
        lifetime=lifetimes,
        title=st.sampled_from([None, "", "Plans"]),
    )
    def create(
        self, conversation: int, caller: int, lifetime: timedelta | None, title: str | None
    ) -> None:
        conversation_id, owner, _ = self.model.choose(conversation, caller)
        with expect(AlreadyExists if self.model.find_live(conversation_id) else None):
            created = self.store.create(
                conversation_id, owner=owner, title=title, expires_in=lifetime
            )
            generation = self.model.start(
                conversation_id, created.revision, lifetime, owner=owner, title=title or None
            )
            assert created == generation.conversation

    @rule(
        conversation=conversations,
        caller=callers,
        size=sizes,
        after=optional_numbers,
        key=st.none() | st.integers(0, 2),
        truncate_after=st.none() | st.none() | numbers,
        reply_follows=st.booleans(),
    )
    def append(
        self,
        conversation: int,
        caller: int,
        size: int,
        after: int | None,
        key: int | None,
        truncate_after: int | None,
        reply_follows: bool,
    ) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        live = self.model.find_live(conversation_id)
        if live and after is not None:
            after = live.number(after)
        if generation and truncate_after is not None:
            truncate_after = generation.number(truncate_after)
        # The contract promises nothing about keys of an earlier generation, or older than a day.
        start = self.model.starts[conversation_id] + (live is None)
        idempotency_key = None if key is None else f"{start} {key}"
        earlier = None
        if generation and idempotency_key:
            earlier = generation.results.get(idempotency_key)
        if earlier and earlier[1] + timedelta(days=1) <= self.clock():
            earlier = idempotency_key = None

        expected_error: type[ChatledgerError] | None = None
        if generation is None and (live or after):
            expected_error = NotFound
        elif generation and not earlier and after not in (None, generation.conversation.revision):
            expected_error = Conflict
        messages = [Message.user(f"{start}: {n}") for n in range(size)]
        with expect(expected_error):
            appended = self.store.append(
                conversation_id,
                messages,
                owner=owner,
                after=after,
                idempotency_key=idempotency_key,
                truncate_after=truncate_after,
                reply_follows=reply_follows,
            )
            if earlier:
                assert appended == earlier[0]
                return
            first, last = appended.seqs[0], appended.seqs[-1]
            assert appended.seqs == range(first, first + size)
            assert self.model.last_revision(conversation_id) < first <= last <= appended.revision
            if generation is None:
                generation = self.model.start(conversation_id, first, owner=owner)
                generation.conversation = replace(generation.conversation, revision=0)
            placed = [message.with_seq(first + n) for n, message in enumerate(messages)]
            kept = [
                message
                for message in generation.messages
                if truncate_after is None or seq_of(message) <= truncate_after
            ]
            self.model.set_messages(generation, [*kept, *placed], appended.revision)
            generation.is_listed_late = reply_follows
            if idempotency_key:
                generation.results[idempotency_key] = (appended, self.clock())

    @rule(
        conversation=conversations,
        caller=callers,
        title=st.sampled_from([None, "", "other"]),
        metadata=st.sampled_from([{}, {"a": 1}, {"b": None}]),
        revision=optional_numbers,
    )
    def update(
        self,
        conversation: int,
        caller: int,
        title: str | None,
        metadata: dict[str, Json],
        revision: int | None,
    ) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        if generation and revision is not None:
            revision = generation.number(revision)
        expected_error: type[ChatledgerError] | None = None
        if generation is None:
            expected_error = NotFound
        elif revision not in (None, generation.conversation.revision):
            expected_error = Conflict
        with expect(expected_error):
            updated = self.store.update(
                conversation_id, title=title, metadata=metadata, revision=revision, owner=owner
            )
            assert generation
            if title is not None:
                generation.conversation = replace(generation.conversation, title=title or None)
            generation.conversation = replace(generation.conversation, metadata=metadata)
            assert updated == generation.conversation

    @rule(conversation=conversations, caller=callers, after=numbers)
    def truncate(self, conversation: int, caller: int, after: int) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        if generation:
            after = generation.number(after)
        with self.expect_found(generation):
            result = self.store.truncate(conversation_id, after=after, owner=owner)
            assert generation
            remaining = [message for message in generation.messages if seq_of(message) <= after]
            self.model.keep_messages(generation, remaining, result.revision)
            assert result == generation.conversation

    @rule(conversation=conversations, caller=callers, n=sizes)
    def pop(self, conversation: int, caller: int, n: int) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        with self.expect_found(generation):
            popped = self.store.pop(conversation_id, n, owner=owner)
            assert generation
            assert popped == generation.messages[-n:]
            revision = self.store.get(conversation_id).revision
            self.model.keep_messages(generation, generation.messages[:-n], revision)

    @rule(conversation=conversations, caller=callers)
    def clear(self, conversation: int, caller: int) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        with self.expect_found(generation):
            result = self.store.clear(conversation_id, owner=owner)
            assert generation
            self.model.keep_messages(generation, [], result.revision)
            assert result == generation.conversation

    @rule(conversation=conversations, caller=callers, seq=numbers)
    def replace_a_message(self, conversation: int, caller: int, seq: int) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        seq = max(1, generation.number(seq) if generation else seq)
        message = Message.assistant("another")
        with expect(None if generation and seq in generation.seqs else NotFound):
            result = self.store.replace(conversation_id, seq, message, owner=owner)
            assert generation
            messages = [
                message.with_seq(seq) if old.seq == seq else old for old in generation.messages
            ]
            self.model.set_messages(generation, messages, result.revision)
            assert result == generation.conversation

    @rule(
        conversation=conversations,
        caller=callers,
        at=optional_numbers,
        copy_to=st.none() | conversations,
        lifetime=lifetimes,
    )
    def fork(
        self,
        conversation: int,
        caller: int,
        at: int | None,
        copy_to: int | None,
        lifetime: timedelta | None,
    ) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        if generation and at is not None:
            at = generation.number(at)
        new_id = None if copy_to is None else self.model.ids[copy_to % len(self.model.ids)]
        expected_error: type[ChatledgerError] | None = None
        if generation is None:
            expected_error = NotFound
        elif new_id and self.model.find_live(new_id):
            expected_error = AlreadyExists
        with expect(expected_error):
            result = self.store.fork(
                conversation_id, at=at, new_id=new_id, owner=owner, expires_in=lifetime
            )
            assert generation
            if new_id is None:
                self.model.ids.append(result.id)
            last_revision = self.model.last_revision(result.id)
            copied = [
                message for message in generation.messages if at is None or seq_of(message) <= at
            ]
            copy = self.model.start(
                result.id,
                result.revision,
                generation.lifetime if lifetime is None else lifetime,
                owner=generation.conversation.owner,
                title=generation.conversation.title,
                metadata=generation.conversation.metadata,
                message_count=len(copied),
            )
            assert result == copy.conversation
            copy.messages = snapshot(self.store, result.id).messages
            assert copy.messages == copied
            ascending = [last_revision, *copy.seqs]
            assert ascending == sorted(set(ascending))

    @rule(conversation=conversations, caller=callers)
    def delete(self, conversation: int, caller: int) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        with self.expect_found(generation):
            self.store.delete(conversation_id, owner=owner)
            assert generation
            self.model.delete(generation)

    @rule(caller=owners)
    def delete_an_owner(self, caller: int) -> None:
        owner = self.model.owners[caller]
        assert owner
        owned = self.model.owned_by(owner)
        assert self.store.delete_owner(owner) == len(owned)
        for generation in owned:
            self.model.delete(generation)


class HistoryLaws:
    """The law for everything that callers can observe as long as they do not run concurrently."""

    examples: ClassVar[int]

    def test_a_store_behaves_like_plain_lists_under_any_history(
        self, subject: Store, clock: Clock
    ) -> None:
        class History(OperationRules):
            def __init__(self) -> None:
                super().__init__(subject, clock)

        with clock.stopped():
            run_state_machine_as_test(History, settings=examples_of(self.examples))
