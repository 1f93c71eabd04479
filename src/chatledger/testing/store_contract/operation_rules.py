"""Random histories of all operations, which must behave like plain lists."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from chatledger.conversations import fields_of
from chatledger.errors import AlreadyExists, ChatledgerError, Conflict, KeyReused, NotFound
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.descriptions import FIELDS, changed_fields, described
from chatledger.testing.store_contract.entries import read_entries
from chatledger.testing.store_contract.entry_rules import EntryRules
from chatledger.testing.store_contract.helpers import snapshot, user_messages
from chatledger.testing.store_contract.read_rules import (
    callers,
    conversations,
    expect,
    keys,
    lifetimes,
    numbers,
    optional_numbers,
    owners,
    sizes,
)
from chatledger.testing.store_contract.reference_model import KeyedAppend, KeyedCreation
from chatledger.testing.store_contract.settings import examples_of

descriptions = st.fixed_dictionaries(
    {
        name: st.sampled_from([None, examples.cleared, examples.one, examples.another])
        for name, examples in FIELDS.items()
    }
)
"""Fields of a description, as operations take them."""


class OperationRules(EntryRules):
    """Operations of several callers, one after the other, on a few conversations."""

    @rule(
        conversation=st.none() | conversations,
        caller=callers,
        lifetime=lifetimes,
        description=descriptions,
        key=keys,
    )
    def create(
        self,
        conversation: int | None,
        caller: int,
        lifetime: timedelta | None,
        description: dict[str, Any],
        key: int | None,
    ) -> None:
        owner = self.model.owners[caller]
        given_id = None if conversation is None else self.model.choose(conversation, caller)[0]
        creation = None
        if key is not None:
            arguments = ("create", owner, described(description), lifetime)
            creation = KeyedCreation(self.model.keys[key], arguments)
        target_id, scope = given_id, ("create", owner, creation and creation.key)
        if target_id is None and creation:
            target_id = self.model.ids_from_keys.get(scope)
        existing = self.model.find_live(target_id) if target_id else None
        earlier = existing and existing.find_repeated(creation, owner)
        expected_error: type[ChatledgerError] | None = None
        if earlier:
            expected_error = None if earlier == creation else KeyReused
        elif existing:
            expected_error = AlreadyExists
        with expect(expected_error):
            created = self.store.create(
                given_id,
                owner=owner,
                **description,
                expires_in=lifetime,
                idempotency_key=creation and creation.key,
            )
            if existing:
                assert created == existing.conversation
                return
            self.record_id(created.id, target_id, scope if creation else None)
            generation = self.model.start(
                created.id,
                created.revision,
                lifetime,
                owner=owner,
                **changed_fields(description),
                metadata_revision=created.metadata_revision,
            )
            generation.creation = creation
            assert created == generation.conversation

    @rule(
        conversation=conversations,
        caller=callers,
        size=sizes,
        revision=optional_numbers,
        key=st.none() | st.integers(0, 2),
        repeats=st.booleans(),
        truncate_after=st.none() | st.none() | numbers,
        reply_follows=st.booleans(),
        description=descriptions,
        lifetime=lifetimes,
    )
    def append(
        self,
        conversation: int,
        caller: int,
        size: int,
        revision: int | None,
        key: int | None,
        repeats: bool,
        truncate_after: int | None,
        reply_follows: bool,
        description: dict[str, Any],
        lifetime: timedelta | None,
    ) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        live = self.model.find_live(conversation_id)
        if live and revision is not None:
            revision = live.number(revision)
        if generation and truncate_after is not None:
            truncate_after = generation.number(truncate_after)
        # The contract promises nothing about keys of an earlier generation, or older than a day.
        start = self.model.starts[conversation_id] + (live is None)
        idempotency_key = None if key is None else f"{start} {key}"
        earlier = None
        if generation and idempotency_key:
            earlier = generation.appends.get(idempotency_key)
        if earlier and earlier.time + timedelta(days=1) <= self.clock():
            earlier = idempotency_key = None
        texts = [f"{start}: {n}" for n in range(size)]
        if earlier and repeats:
            texts = earlier.texts

        expected_error: type[ChatledgerError] | None = None
        if generation is None and (live or revision):
            expected_error = NotFound
        elif earlier:
            expected_error = None if earlier.texts == texts else KeyReused
        elif generation and revision not in (None, generation.conversation.revision):
            expected_error = Conflict
        messages = user_messages(*texts)
        with expect(expected_error):
            appended = self.store.append(
                conversation_id,
                messages,
                owner=owner,
                revision=revision,
                idempotency_key=idempotency_key,
                truncate_after=truncate_after,
                reply_follows=reply_follows,
                **description,
                expires_in=lifetime,
            )
            if earlier:
                assert appended == earlier.result
                return
            first, last = appended.seqs[0], appended.seqs[-1]
            assert appended.seqs == range(first, first + size)
            assert self.model.last_revision(conversation_id) < first <= last <= appended.revision
            if generation is None:
                generation = self.model.start(
                    conversation_id,
                    first,
                    lifetime,
                    owner=owner,
                    **changed_fields(description),
                    metadata_revision=self.store.get(conversation_id).metadata_revision,
                )
                generation.conversation = replace(generation.conversation, revision=0)
            placed = [message.with_seq(first + n) for n, message in enumerate(messages)]
            kept = [
                message
                for message in generation.messages
                if truncate_after is None or message.seq <= truncate_after
            ]
            self.model.set_messages(generation, [*kept, *placed], appended.revision)
            generation.is_listed_late = reply_follows
            if idempotency_key:
                generation.appends[idempotency_key] = KeyedAppend(texts, appended, self.clock())

    @rule(
        conversation=conversations,
        caller=callers,
        description=descriptions,
        revision=optional_numbers,
        metadata_revision=optional_numbers,
    )
    def update(
        self,
        conversation: int,
        caller: int,
        description: dict[str, Any],
        revision: int | None,
        metadata_revision: int | None,
    ) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        if generation and revision is not None:
            revision = generation.number(revision)
        if generation and metadata_revision is not None:
            metadata_revision = generation.metadata_revision(metadata_revision)
        expected_error: type[ChatledgerError] | None = None
        if generation is None:
            expected_error = NotFound
        else:
            latest = generation.conversation
            is_expected = revision in (None, latest.revision)
            is_expected &= metadata_revision in (None, latest.metadata_revision)
            expected_error = None if is_expected else Conflict
        with expect(expected_error):
            updated = self.store.update(
                conversation_id,
                **description,
                revision=revision,
                metadata_revision=metadata_revision,
                owner=owner,
            )
            assert generation
            before = generation.conversation
            after = replace(
                before, **changed_fields(description), metadata_revision=updated.metadata_revision
            )
            # The contract does not say whether a change to the same values counts.
            assert updated.metadata_revision > before.metadata_revision or after == before
            assert updated.metadata_revision >= before.metadata_revision
            assert updated == after
            generation.conversation = after

    @rule(conversation=conversations, claimant=owners)
    def claim(self, conversation: int, claimant: int) -> None:
        conversation_id, _, generation = self.model.choose(conversation, 0)
        owner = self.model.owners[claimant]
        assert owner
        is_claimable = generation and generation.conversation.owner in (None, owner)
        with expect(None if is_claimable else NotFound):
            result = self.store.claim(conversation_id, owner)
            assert generation
            if generation.conversation.owner is None:
                self.model.set_messages(generation, generation.messages, result.revision)
                generation.conversation = replace(generation.conversation, owner=owner)
            assert result == generation.conversation

    @rule(conversation=conversations, caller=callers, after=numbers)
    def truncate(self, conversation: int, caller: int, after: int) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        if generation:
            after = generation.number(after)
        with self.expect_found(generation):
            result = self.store.truncate(conversation_id, after=after, owner=owner)
            assert generation
            remaining = [message for message in generation.messages if message.seq <= after]
            self.model.keep_messages(generation, remaining, result.revision)
            assert result == generation.conversation

    @rule(conversation=conversations, caller=callers, limit=sizes)
    def pop(self, conversation: int, caller: int, limit: int) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        with self.expect_found(generation):
            popped = self.store.pop(conversation_id, limit, owner=owner)
            assert generation
            assert popped == generation.messages[-limit:]
            revision = self.store.get(conversation_id).revision
            self.model.keep_messages(generation, generation.messages[:-limit], revision)

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

    @rule(conversation=conversations, caller=callers, seq=numbers, revision=optional_numbers)
    def remove(self, conversation: int, caller: int, seq: int, revision: int | None) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        seq = max(1, generation.number(seq) if generation else seq)
        if generation and revision is not None:
            revision = generation.number(revision)
        errors: set[type[ChatledgerError]] = set()
        if generation is None or seq not in generation.seqs:
            errors.add(NotFound)
        if generation and revision not in (None, generation.conversation.revision):
            errors.add(Conflict)
        with expect(*errors):
            result = self.store.remove(conversation_id, seq, revision=revision, owner=owner)
            assert generation
            remaining = [message for message in generation.messages if message.seq != seq]
            self.model.keep_messages(generation, remaining, result.revision)
            assert result == generation.conversation

    @rule(
        conversation=conversations,
        caller=callers,
        at=optional_numbers,
        copy_to=st.none() | conversations,
        lifetime=lifetimes,
        key=keys,
    )
    def fork(
        self,
        conversation: int,
        caller: int,
        at: int | None,
        copy_to: int | None,
        lifetime: timedelta | None,
        key: int | None,
    ) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        if generation and at is not None:
            at = generation.number(at)
        new_id = None if copy_to is None else self.model.ids[copy_to % len(self.model.ids)]
        creation = None
        if key is not None:
            arguments = ("fork", conversation_id, at, lifetime)
            creation = KeyedCreation(self.model.keys[key], arguments)
        target_id, scope = new_id, ("fork", conversation_id, creation and creation.key)
        if target_id is None and creation:
            target_id = self.model.ids_from_keys.get(scope)
        existing = self.model.find_live(target_id) if target_id else None
        earlier = existing and existing.find_repeated(creation, owner)
        if earlier and generation is None and self.model.find_live(conversation_id):
            return  # The contract does not say whether the owner of the copy alone can repeat it.
        errors: set[type[ChatledgerError]] = set()
        if earlier:
            if earlier != creation:
                errors = {KeyReused} if generation else {KeyReused, NotFound}
        elif generation is None:
            errors = {NotFound}
        elif existing:
            errors = {AlreadyExists}
        with expect(*errors):
            result = self.store.fork(
                conversation_id,
                at=at,
                new_id=new_id,
                owner=owner,
                expires_in=lifetime,
                idempotency_key=creation and creation.key,
            )
            if existing:
                assert result == existing.conversation
                return
            assert generation
            self.record_id(result.id, target_id, scope if creation else None)
            last_revision = self.model.last_revision(result.id)
            copied = [message for message in generation.messages if at is None or message.seq <= at]
            copy = self.model.start(
                result.id,
                result.revision,
                generation.lifetime if lifetime is None else lifetime,
                owner=generation.conversation.owner,
                **fields_of(generation.conversation),
                message_count=len(copied),
                metadata_revision=result.metadata_revision,
            )
            copy.creation = creation
            assert result == copy.conversation
            copy.messages = snapshot(self.store, result.id).messages
            assert copy.messages == copied
            ascending = [last_revision, *copy.seqs]
            assert ascending == sorted(set(ascending))
            for entry in read_entries(self.store, conversation_id=result.id):
                assert entry.revision > copy.entries.last_revisions.get(entry.name, 0)
                copy.entries.put(entry)
            assert [(e.name, e.value, e.expires_at) for e in copy.entries.live.values()] == [
                (e.name, e.value, e.expires_at) for e in generation.entries.all(self.clock())
            ]

    @rule(conversation=conversations, caller=callers, at_revision=st.booleans())
    def delete(self, conversation: int, caller: int, at_revision: bool) -> None:
        conversation_id, owner, generation = self.model.choose(conversation, caller)
        revision = generation.conversation.revision if at_revision and generation else None
        with self.expect_found(generation):
            self.store.delete(conversation_id, revision=revision, owner=owner)
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
        self.model.entries_of_owners[owner].live.clear()

    def record_id(
        self, new_id: str, expected_id: str | None, scope: tuple[str | None, ...] | None
    ) -> None:
        """Check the id of a new conversation, and record it if the store made it.

        Args:
            new_id: The id.
            expected_id: The id if it was given, or is known from an earlier call with the key.
            scope: What the id depends on if it was made from a key.
        """
        if expected_id is not None:
            assert new_id == expected_id
            return
        assert new_id not in self.model.ids
        self.model.ids.append(new_id)
        if scope is not None:
            self.model.ids_from_keys[scope] = new_id


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
