"""Conversations begin, are named, and end."""

from datetime import timedelta
from uuid import UUID

import pytest

from chatledger.conversations import TITLE_CHARACTERS
from chatledger.errors import AlreadyExists, Conflict, NotFound
from chatledger.messages import new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    NEEDS_ONE,
    Operation,
    begin,
    ids_of,
    list_all,
    look,
    said,
    say,
    see,
    unchanged,
)


class StartingLaws:
    """``create``, ``get``, ``update``, ``delete`` and ``delete_owner``."""

    def test_a_new_conversation_is_empty_and_as_it_was_asked_for(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation_id, owner = new_id(), new_id()
        with clock.stopped():
            created = subject.create(
                conversation_id, owner=owner, title="Plans", metadata={"model": "offline"}
            )
            assert created.created_at == created.updated_at == clock()
        assert created.id == conversation_id
        assert created.owner == owner
        assert created.title == "Plans"
        assert created.metadata == {"model": "offline"}
        assert created.message_count == 0
        assert created.expires_at is None
        assert subject.get(conversation_id) == created
        assert subject.tail(conversation_id, 10).messages == []

    def test_a_conversation_needs_nothing_but_its_creation(self, subject: Store) -> None:
        created = subject.create()
        assert created.owner is None
        assert created.title is None
        assert created.metadata == {}
        assert subject.get(created.id) == created

    def test_an_id_that_the_store_makes_is_a_new_uuid_of_version_7(self, subject: Store) -> None:
        ids = {subject.create().id for _ in range(5)}
        assert len(ids) == 5
        assert {UUID(conversation_id).version for conversation_id in ids} == {7}

    def test_an_id_that_is_taken_is_refused(self, subject: Store) -> None:
        it = begin(subject, "hello", owner=new_id())
        with unchanged(subject, it.id), pytest.raises(AlreadyExists) as caught:
            subject.create(it.id, title="mine")
        assert caught.value.conversation_id == it.id

    def test_an_empty_title_is_no_title(self, subject: Store) -> None:
        assert subject.create(title="").title is None

    def test_a_title_may_be_as_long_as_is_said(self, subject: Store) -> None:
        title = "\N{LATIN SMALL LETTER E WITH ACUTE}" * TITLE_CHARACTERS
        conversation_id = subject.create(title=title).id
        assert subject.get(conversation_id).title == title

    def test_an_update_gives_another_title_and_leaves_the_metadata(self, subject: Store) -> None:
        conversation_id = subject.create(title="old", metadata={"a": 1}).id
        updated = subject.update(conversation_id, title="new")
        assert (updated.title, updated.metadata) == ("new", {"a": 1})
        assert subject.get(conversation_id) == updated

    def test_an_update_gives_other_metadata_as_a_whole_and_leaves_the_title(
        self, subject: Store
    ) -> None:
        conversation_id = subject.create(title="old", metadata={"a": 1}).id
        updated = subject.update(conversation_id, metadata={"b": 2})
        assert (updated.title, updated.metadata) == ("old", {"b": 2})
        assert subject.get(conversation_id) == updated

    def test_an_update_removes_with_an_empty_title_and_empty_metadata(self, subject: Store) -> None:
        conversation_id = subject.create(title="old", metadata={"a": 1}).id
        updated = subject.update(conversation_id, title="", metadata={})
        assert (updated.title, updated.metadata) == (None, {})
        assert subject.get(conversation_id) == updated

    def test_an_update_is_no_activity(self, subject: Store, clock: Clock) -> None:
        it = begin(subject, "hello", expires_in=timedelta(hours=1))
        before = subject.get(it.id)
        clock.advance(timedelta(minutes=5))
        updated = subject.update(it.id, title="new")
        assert (updated.revision, updated.updated_at) == (before.revision, before.updated_at)
        assert updated.expires_at == before.expires_at
        assert subject.get(it.id) == updated

    def test_an_update_at_the_right_revision_is_taken(self, subject: Store) -> None:
        it = begin(subject, "hello")
        assert subject.update(it.id, title="new", revision=it.revision).title == "new"

    def test_an_update_at_another_revision_is_refused(self, subject: Store) -> None:
        it = begin(subject, "hello")
        standing = subject.append(it.id, say("meanwhile")).revision
        for revision in (0, it.revision, standing + 1):
            with unchanged(subject, it.id), pytest.raises(Conflict) as caught:
                subject.update(it.id, title="new", revision=revision)
            assert (caught.value.expected, caught.value.revision) == (revision, standing)

    @pytest.mark.parametrize("operation", NEEDS_ONE.values(), ids=NEEDS_ONE)
    def test_nothing_can_be_asked_of_a_deleted_conversation(
        self, subject: Store, operation: Operation
    ) -> None:
        owner = new_id()
        it = begin(subject, "hello", owner=owner)
        subject.delete(it.id)
        for caller in (None, owner):
            with unchanged(subject, it.id), pytest.raises(NotFound) as caught:
                operation(subject, it, caller)
            assert caught.value.conversation_id == it.id
        assert list_all(subject, owner) == []

    def test_deletion_takes_one_conversation_and_no_other(self, subject: Store) -> None:
        owner = new_id()
        gone, stays = begin(subject, "hello", owner=owner), begin(subject, "there", owner=owner)
        with unchanged(subject, stays.id):
            subject.delete(gone.id)
        assert ids_of(list_all(subject, owner)) == [stays.id]

    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    @pytest.mark.parametrize("how", ["append", "append after 0", "create"])
    def test_a_new_life_under_a_deleted_id_starts_empty_and_at_higher_revisions(
        self, subject: Store, clock: Clock, how: str, swept: bool
    ) -> None:
        it = begin(subject, "old", "and older", owner=new_id())
        subject.update(it.id, title="old", metadata={"old": True})
        subject.delete(it.id)
        clock.advance(timedelta(hours=23))
        if swept:
            subject.sweep()
        if how == "create":
            begin_at = subject.create(it.id).revision
            assert begin_at > it.revision
        appended = subject.append(it.id, say("new"), after=0 if how == "append after 0" else None)
        assert appended.seqs[0] > it.revision
        seen = see(subject, it.id)
        assert said(seen.messages) == ["new"]
        assert (seen.conversation.owner, seen.conversation.title) == (None, None)
        assert (seen.conversation.metadata, seen.conversation.message_count) == ({}, 1)

    def test_a_revision_from_before_a_deletion_matches_nothing(self, subject: Store) -> None:
        it = begin(subject, "old")
        subject.delete(it.id)
        begin(subject, "new", conversation_id=it.id)
        with unchanged(subject, it.id), pytest.raises(Conflict):
            subject.append(it.id, say("reply to the old"), after=it.revision)

    def test_an_owner_is_deleted_with_all_conversations_and_nobody_elses(
        self, subject: Store
    ) -> None:
        owner, other = new_id(), new_id()
        owned = [begin(subject, "hello", owner=owner).id for _ in range(3)]
        elsewhere = [begin(subject, "hello", owner=other).id, begin(subject, "hello").id]
        assert subject.delete_owner(owner) == 3
        assert [look(subject, conversation_id) for conversation_id in owned] == [None] * 3
        assert list_all(subject, owner) == []
        assert None not in [look(subject, conversation_id) for conversation_id in elsewhere]
        assert subject.delete_owner(owner) == 0
