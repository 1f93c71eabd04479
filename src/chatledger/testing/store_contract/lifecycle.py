"""Laws of creating, updating and deleting conversations."""

from datetime import timedelta
from uuid import UUID

import pytest

from chatledger.conversations import DEFAULT_DESCRIPTION, MAX_TITLE_CHARACTERS, fields_of
from chatledger.errors import AlreadyExists, Conflict, NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.descriptions import ANOTHER, CLEARED, FIELDS, ONE, each_field
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    ids_of,
    list_all,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import CALLS, Call, each_of
from chatledger.values import new_id


class LifecycleLaws:
    """``create``, ``get``, ``update``, ``delete`` and ``delete_owner``.

    For idempotency keys of ``create`` see ``CreationKeyLaws``.
    """

    def test_a_new_conversation_is_empty_and_has_the_fields_it_was_given(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation_id, owner = new_id(), new_id()
        with clock.stopped():
            created = subject.create(conversation_id, owner=owner, **ONE)
            assert created.created_at == created.updated_at == clock()
        assert created.id == conversation_id
        assert created.owner == owner
        assert fields_of(created) == ONE
        assert created.message_count == 0
        assert created.expires_at is None
        assert subject.get(conversation_id) == created
        assert subject.tail(conversation_id, 10).messages == []

    def test_a_conversation_can_be_created_without_arguments(self, subject: Store) -> None:
        created = subject.create()
        assert created.owner is None
        assert fields_of(created) == fields_of(DEFAULT_DESCRIPTION)
        assert subject.get(created.id) == created

    def test_an_id_made_by_the_store_is_a_new_uuid_of_version_7(self, subject: Store) -> None:
        ids = {subject.create().id for _ in range(5)}
        assert len(ids) == 5
        assert {UUID(conversation_id).version for conversation_id in ids} == {7}

    def test_creating_an_existing_id_is_rejected(self, subject: Store) -> None:
        conversation = start_conversation(subject, "hello", owner=new_id())
        with assert_unchanged(subject, conversation.id), pytest.raises(AlreadyExists) as caught:
            subject.create(conversation.id, title="mine")
        assert caught.value.conversation_id == conversation.id

    def test_an_empty_title_counts_as_none(self, subject: Store) -> None:
        assert subject.create(title="").title is None

    def test_a_title_may_be_as_long_as_the_limit(self, subject: Store) -> None:
        title = "\N{LATIN SMALL LETTER E WITH ACUTE}" * MAX_TITLE_CHARACTERS
        conversation_id = subject.create(title=title).id
        assert subject.get(conversation_id).title == title

    @each_field
    def test_an_update_replaces_one_field_and_leaves_the_others(
        self, subject: Store, field: str
    ) -> None:
        conversation_id = subject.create(**ONE).id
        change = {field: FIELDS[field].another}
        updated = subject.update(conversation_id, **change)
        assert fields_of(updated) == {**ONE, **change}
        assert subject.get(conversation_id) == updated

    @each_field
    def test_an_update_removes_a_field_and_leaves_the_others(
        self, subject: Store, field: str
    ) -> None:
        conversation_id = subject.create(**ONE).id
        updated = subject.update(conversation_id, **{field: FIELDS[field].cleared})
        assert fields_of(updated) == {**ONE, field: getattr(DEFAULT_DESCRIPTION, field)}
        assert subject.get(conversation_id) == updated

    def test_an_update_can_remove_the_whole_description(self, subject: Store) -> None:
        conversation_id = subject.create(**ONE).id
        updated = subject.update(conversation_id, **CLEARED)
        assert fields_of(updated) == fields_of(DEFAULT_DESCRIPTION)
        assert subject.get(conversation_id) == updated

    def test_an_update_does_not_count_as_activity(self, subject: Store, clock: Clock) -> None:
        conversation = start_conversation(subject, "hello", expires_in=timedelta(hours=1))
        before = subject.get(conversation.id)
        clock.advance(timedelta(minutes=5))
        updated = subject.update(conversation.id, title="new")
        assert (updated.revision, updated.updated_at) == (before.revision, before.updated_at)
        assert updated.expires_at == before.expires_at
        assert subject.get(conversation.id) == updated

    def test_an_update_at_the_right_revision_succeeds(self, subject: Store) -> None:
        conversation = start_conversation(subject, "hello")
        assert (
            subject.update(conversation.id, title="new", revision=conversation.revision).title
            == "new"
        )

    def test_an_update_at_another_revision_conflicts(self, subject: Store) -> None:
        conversation = start_conversation(subject, "hello")
        latest = subject.append(conversation.id, user_messages("meanwhile")).revision
        for revision in (0, conversation.revision, latest + 1):
            with assert_unchanged(subject, conversation.id), pytest.raises(Conflict) as caught:
                subject.update(conversation.id, title="new", revision=revision)
            assert (caught.value.expected, caught.value.revision) == (revision, latest)

    @each_of(call for call in CALLS if call.needs_conversation)
    def test_no_operation_finds_a_deleted_conversation(self, subject: Store, call: Call) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "hello", owner=owner)
        subject.delete(conversation.id)
        for caller in (None, owner):
            with assert_unchanged(subject, conversation.id), pytest.raises(NotFound) as caught:
                call(subject, conversation, caller=caller)
            assert caught.value.conversation_id == conversation.id
        assert list_all(subject, owner) == []

    def test_deletion_removes_one_conversation_and_no_other(self, subject: Store) -> None:
        owner = new_id()
        deleted, other = (
            start_conversation(subject, "hello", owner=owner),
            start_conversation(subject, "there", owner=owner),
        )
        with assert_unchanged(subject, other.id):
            subject.delete(deleted.id)
        assert ids_of(list_all(subject, owner)) == [other.id]

    def test_a_deletion_at_another_revision_conflicts(self, subject: Store) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "hello", owner=owner)
        latest = subject.append(conversation.id, user_messages("meanwhile")).revision
        for revision in (0, conversation.revision, latest + 1):
            with assert_unchanged(subject, conversation.id), pytest.raises(Conflict) as caught:
                subject.delete(conversation.id, revision=revision)
            assert (caught.value.expected, caught.value.revision) == (revision, latest)
        with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
            subject.delete(conversation.id, revision=conversation.revision, owner=new_id())
        subject.delete(conversation.id, revision=latest)
        assert list_all(subject, owner) == []

    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    @pytest.mark.parametrize("how", ["append", "append at revision 0", "create"])
    def test_a_new_conversation_with_a_deleted_id_starts_empty_and_at_higher_revisions(
        self, subject: Store, clock: Clock, how: str, swept: bool
    ) -> None:
        conversation = start_conversation(subject, "old", "and older", owner=new_id())
        subject.update(conversation.id, **ANOTHER)
        subject.delete(conversation.id)
        clock.advance(timedelta(hours=23))
        if swept:
            subject.sweep()
        if how == "create":
            begin_at = subject.create(conversation.id).revision
            assert begin_at > conversation.revision
        appended = subject.append(
            conversation.id,
            user_messages("new"),
            revision=0 if how == "append at revision 0" else None,
        )
        assert appended.seqs[0] > conversation.revision
        state = snapshot(subject, conversation.id)
        assert texts_of(state.messages) == ["new"]
        assert (state.conversation.owner, state.conversation.message_count) == (None, 1)
        assert fields_of(state.conversation) == fields_of(DEFAULT_DESCRIPTION)

    def test_a_revision_from_before_a_deletion_matches_nothing(self, subject: Store) -> None:
        conversation = start_conversation(subject, "old")
        subject.delete(conversation.id)
        start_conversation(subject, "new", conversation_id=conversation.id)
        with assert_unchanged(subject, conversation.id), pytest.raises(Conflict):
            subject.append(
                conversation.id, user_messages("reply to the old"), revision=conversation.revision
            )

    def test_deleting_an_owner_deletes_all_their_conversations_and_nobody_elses(
        self, subject: Store
    ) -> None:
        owner, other = new_id(), new_id()
        owned = [start_conversation(subject, "hello", owner=owner).id for _ in range(3)]
        elsewhere = [
            start_conversation(subject, "hello", owner=other).id,
            start_conversation(subject, "hello").id,
        ]
        assert subject.delete_owner(owner) == 3
        assert [snapshot_if_any(subject, conversation_id) for conversation_id in owned] == [
            None
        ] * 3
        assert list_all(subject, owner) == []
        assert None not in [
            snapshot_if_any(subject, conversation_id) for conversation_id in elsewhere
        ]
        assert subject.delete_owner(owner) == 0
