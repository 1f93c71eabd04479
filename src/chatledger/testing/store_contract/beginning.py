"""Laws of the fields that ``append`` gives to a conversation that it creates."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from chatledger.conversations import DEFAULT_DESCRIPTION, fields_of
from chatledger.errors import Conflict, NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.descriptions import ANOTHER, ONE
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    list_all,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.values import new_id

HOUR = timedelta(hours=1)

BEGINNINGS: dict[str, dict[str, Any]] = {
    "alone": {},
    "revision zero": {"revision": 0},
    "with a key": {"idempotency_key": "key"},
    "before a reply": {"reply_follows": True},
    "truncating": {"truncate_after": 0},
}

FIELDS: dict[str, Any] = {**ONE, "expires_in": HOUR}


def nothing(store: Store, clock: Clock) -> str:
    return new_id()


def deleted(store: Store, clock: Clock) -> str:
    created = store.create(**ANOTHER, expires_in=2 * HOUR)
    store.append(created.id, user_messages("old"))
    store.delete(created.id)
    return created.id


def swept(store: Store, clock: Clock) -> str:
    conversation_id = deleted(store, clock)
    store.sweep()
    return conversation_id


def expired(store: Store, clock: Clock) -> str:
    created = store.create(owner=new_id(), **ANOTHER, expires_in=HOUR)
    store.append(created.id, user_messages("old"))
    clock.advance(HOUR)
    return created.id


EARLIER: dict[str, Callable[[Store, Clock], str]] = {
    "new": nothing,
    "deleted": deleted,
    "swept": swept,
    "expired": expired,
}


class BeginningLaws:
    """The fields of the description, and ``expires_in``, of ``append``."""

    @pytest.mark.parametrize("options", BEGINNINGS.values(), ids=BEGINNINGS)
    @pytest.mark.parametrize("earlier", EARLIER.values(), ids=EARLIER)
    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_an_append_that_creates_a_conversation_gives_it_the_fields(
        self,
        subject: Store,
        clock: Clock,
        options: dict[str, Any],
        earlier: Callable[[Store, Clock], str],
        owner: str | None,
    ) -> None:
        owner, conversation_id = owner and new_id(), earlier(subject, clock)
        with clock.stopped():
            appended = subject.append(
                conversation_id, user_messages("1", "2"), owner=owner, **FIELDS, **options
            )
            state = snapshot(subject, conversation_id)
            assert state.conversation.created_at == state.conversation.updated_at == clock()
            assert state.conversation.expires_at == clock() + HOUR
        assert texts_of(state.messages) == ["1", "2"]
        assert state.seqs == list(appended.seqs)
        assert state.conversation.owner == owner
        assert fields_of(state.conversation) == ONE
        assert (state.conversation.message_count, state.conversation.revision) == (
            2,
            appended.revision,
        )
        subject.append(conversation_id, user_messages("3"))
        if owner:
            assert list_all(subject, owner) == [subject.get(conversation_id)]

    @pytest.mark.parametrize("field", FIELDS)
    def test_each_field_is_optional(self, subject: Store, clock: Clock, field: str) -> None:
        conversation_id = new_id()
        with clock.stopped():
            subject.append(conversation_id, user_messages("1"), **{field: FIELDS[field]})
            conversation = subject.get(conversation_id)
            given = {field: ONE[field]} if field in ONE else {}
            assert fields_of(conversation) == {**fields_of(DEFAULT_DESCRIPTION), **given}
            assert conversation.expires_at == (clock() + HOUR if field == "expires_in" else None)

    def test_an_empty_title_counts_as_none_and_a_long_one_is_kept(self, subject: Store) -> None:
        for title in ("", "\N{GRINNING FACE}" * 1_000):
            conversation_id = new_id()
            subject.append(conversation_id, user_messages("1"), title=title, metadata={})
            conversation = subject.get(conversation_id)
            assert (conversation.title, conversation.metadata) == (title or None, {})

    def test_the_lifetime_lasts_as_long_as_one_of_create(
        self, subject: Store, clock: Clock
    ) -> None:
        owner, conversation_id = new_id(), new_id()
        with clock.stopped():
            subject.append(conversation_id, user_messages("1"), owner=owner, expires_in=HOUR)
            clock.advance(timedelta(minutes=59))
            subject.append(conversation_id, user_messages("2"), expires_in=5 * HOUR)
            assert subject.get(conversation_id).expires_at == clock() + HOUR
            fork = subject.fork(conversation_id)
            assert fork.expires_at == clock() + HOUR
            clock.advance(HOUR)
            for gone in (conversation_id, fork.id):
                assert snapshot_if_any(subject, gone) is None
            assert list_all(subject, owner) == []
            subject.append(conversation_id, user_messages("3"))
            conversation = subject.get(conversation_id)
            assert (conversation.expires_at, conversation.owner) == (None, None)

    @pytest.mark.parametrize("options", [{}, {"truncate_after": 0}, {"reply_follows": True}])
    @pytest.mark.parametrize("lifetime", [None, 2 * HOUR])
    @pytest.mark.parametrize("how", ["create", "append", "cleared", "described"])
    def test_an_existing_conversation_keeps_its_fields(
        self,
        subject: Store,
        clock: Clock,
        how: str,
        lifetime: timedelta | None,
        options: dict[str, Any],
    ) -> None:
        conversation_id = new_id()
        match how:
            case "create":
                subject.create(conversation_id, expires_in=lifetime)
            case "append":
                subject.append(conversation_id, user_messages("1"), expires_in=lifetime)
            case "cleared":
                subject.create(conversation_id, expires_in=lifetime)
                subject.append(conversation_id, user_messages("1"))
                subject.clear(conversation_id)
            case "described":
                subject.create(conversation_id, **ANOTHER, expires_in=lifetime)
        before = subject.get(conversation_id)
        with clock.stopped():
            subject.append(conversation_id, user_messages("2"), **FIELDS, **options)
            after = subject.get(conversation_id)
            assert after.expires_at == (lifetime and clock() + lifetime)
        assert fields_of(after) == fields_of(before)
        assert after.metadata_revision == before.metadata_revision

    def test_a_repeated_append_does_not_change_the_fields(self, subject: Store) -> None:
        conversation_id = new_id()
        first = subject.append(
            conversation_id, user_messages("1"), title="first", idempotency_key="key"
        )
        with assert_unchanged(subject, conversation_id):
            again = subject.append(
                conversation_id,
                user_messages("1"),
                title="second",
                metadata={"a": 1},
                expires_in=HOUR,
                idempotency_key="key",
            )
        assert again == first
        assert subject.get(conversation_id).title == "first"

    def test_a_rejected_append_creates_nothing(self, subject: Store) -> None:
        conversation_id = new_id()
        with assert_unchanged(subject, conversation_id), pytest.raises(NotFound):
            subject.append(conversation_id, user_messages("1"), revision=3, **FIELDS)
        existing = start_conversation(subject, "1", owner=new_id())
        with assert_unchanged(subject, existing.id):
            with pytest.raises(NotFound):
                subject.append(existing.id, user_messages("2"), owner=new_id(), **FIELDS)
            with pytest.raises(Conflict):
                subject.append(existing.id, user_messages("2"), revision=0, **FIELDS)

    def test_changing_the_metadata_passed_in_does_not_change_the_store(
        self, subject: Store
    ) -> None:
        conversation_id = new_id()
        metadata: dict[str, Any] = {"a": [1]}
        subject.append(conversation_id, user_messages("1"), metadata=metadata)
        metadata["a"].append(2)
        assert subject.get(conversation_id).metadata == {"a": [1]}
