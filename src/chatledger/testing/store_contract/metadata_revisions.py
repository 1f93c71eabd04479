"""Laws of ``metadata_revision``, which guards the description against lost updates."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest

from chatledger.conversations import Conversation, fields_of
from chatledger.errors import ChatledgerError, Conflict, NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.descriptions import ANOTHER, FIELDS, ONE
from chatledger.testing.store_contract.helpers import (
    Change,
    Started,
    append_often,
    assert_unchanged,
    list_all,
    only_winner,
    race,
    scan_all,
    start_conversation,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import CALLS
from chatledger.values import new_id

WRITERS = 8
INCREMENTS = 5


def reject_an_update(store: Store, conversation: Started) -> None:
    with pytest.raises(Conflict):
        store.update(conversation.id, title="rejected", revision=0)


OTHER_CHANGES: dict[str, Change] = {
    **{
        call.name: call
        for call in CALLS
        if not (call.is_read or call.changes_metadata or call.deletes or call.needs_free_id)
    },
    "many appends": append_often,
    "a rejected update": reject_an_update,
}


def assert_shown(store: Store, conversation: Conversation) -> None:
    """Assert that every read shows the conversation with its metadata revision."""
    assert conversation.owner
    [listed] = list_all(store, conversation.owner)
    [scanned] = [found for found in scan_all(store) if found.id == conversation.id]
    for read in (
        store.get(conversation.id),
        store.tail(conversation.id, 1).conversation,
        listed,
        scanned,
    ):
        assert fields_of(read) == fields_of(conversation)
        assert read.metadata_revision == conversation.metadata_revision


class MetadataRevisionLaws:
    """``metadata_revision`` of conversations, and as an argument of ``update``."""

    @pytest.mark.parametrize("how", ["create", "append", "fork"])
    def test_every_update_moves_the_metadata_revision_up_and_every_read_shows_it(
        self, subject: Store, how: str
    ) -> None:
        conversation_id, owner = new_id(), new_id()
        match how:
            case "create":
                created = subject.create(conversation_id, owner=owner, title="0")
                assert created.metadata_revision == subject.get(created.id).metadata_revision
            case "append":
                subject.append(
                    conversation_id, user_messages("hello"), owner=owner, metadata={"a": 0}
                )
            case "fork":
                source = start_conversation(subject, "1", owner=owner)
                subject.update(source.id, title="0")
                subject.fork(source.id, new_id=conversation_id)
                subject.delete(source.id)
        latest = subject.get(conversation_id)
        assert latest.metadata_revision >= 0
        assert_shown(subject, latest)
        all_updates: list[dict[str, Any]] = [
            *({name: examples.one} for name, examples in FIELDS.items()),
            ANOTHER,
            *({name: examples.cleared} for name, examples in FIELDS.items()),
        ]
        for updates in all_updates:
            before = latest
            latest = subject.update(conversation_id, **updates)
            assert latest.metadata_revision > before.metadata_revision
            assert latest.revision == before.revision
            assert_shown(subject, latest)

    def test_the_metadata_revision_moves_up_while_the_clock_stands_still(
        self, subject: Store, clock: Clock
    ) -> None:
        with clock.stopped():
            conversation_id = subject.create().id
            revisions = [
                subject.update(conversation_id, metadata={"a": number}).metadata_revision
                for number in range(20)
            ]
        assert revisions == sorted(set(revisions))

    @pytest.mark.parametrize("change", OTHER_CHANGES.values(), ids=OTHER_CHANGES)
    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_other_changes_do_not_move_the_metadata_revision(
        self, subject: Store, clock: Clock, change: Change, owner: str | None
    ) -> None:
        conversation = start_conversation(subject, "1", "2", owner=owner and new_id())
        subject.update(conversation.id, **ANOTHER)
        before = subject.update(conversation.id, **ONE)
        clock.advance(timedelta(minutes=1))
        change(subject, conversation)
        after = subject.get(conversation.id)
        assert after.metadata_revision == before.metadata_revision
        assert fields_of(after) == ONE
        updated = subject.update(
            conversation.id, title="new", metadata_revision=before.metadata_revision
        )
        assert updated.metadata_revision > before.metadata_revision
        if updated.owner:
            assert subject.get(conversation.id) == updated

    def test_an_update_with_metadata_revision_succeeds_only_at_that_one(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "hello")
        first = subject.get(conversation.id).metadata_revision
        second = subject.update(
            conversation.id, title="1", metadata_revision=first
        ).metadata_revision
        third = subject.update(
            conversation.id, metadata={"a": 1}, metadata_revision=second
        ).metadata_revision
        for wrong in {0, first, second, third - 1, third + 1, 2**53 - 1} - {third}:
            with assert_unchanged(subject, conversation.id), pytest.raises(Conflict) as caught:
                subject.update(
                    conversation.id, title="no", metadata={"no": 1}, metadata_revision=wrong
                )
            assert caught.value.conversation_id == conversation.id
            assert (caught.value.expected, caught.value.revision) == (wrong, third)
        assert subject.update(conversation.id, title="2", metadata_revision=third).title == "2"

    def test_an_update_with_both_revisions_succeeds_only_at_both(self, subject: Store) -> None:
        conversation = start_conversation(subject, "hello")
        right = subject.update(conversation.id, title="Plans")
        for revision, metadata_revision in (
            (right.revision + 1, right.metadata_revision),
            (right.revision, right.metadata_revision + 1),
            (right.revision - 1, right.metadata_revision + 1),
        ):
            with assert_unchanged(subject, conversation.id), pytest.raises(Conflict):
                subject.update(
                    conversation.id,
                    title="no",
                    revision=revision,
                    metadata_revision=metadata_revision,
                )
        updated = subject.update(
            conversation.id,
            title="yes",
            revision=right.revision,
            metadata_revision=right.metadata_revision,
        )
        assert updated.title == "yes"

    def test_an_update_with_metadata_revision_of_another_owner_finds_nothing(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "hello", owner=new_id())
        latest = subject.get(conversation.id).metadata_revision
        for metadata_revision in (latest, latest + 1):
            with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
                subject.update(
                    conversation.id, title="no", metadata_revision=metadata_revision, owner=new_id()
                )

    def test_conversations_that_differ_in_the_metadata_revision_alone_are_equal(
        self, subject: Store
    ) -> None:
        conversation = subject.create()
        other = replace(conversation, metadata_revision=conversation.metadata_revision + 1)
        assert conversation == other

    def test_no_update_is_lost_if_every_writer_passes_the_metadata_revision(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "hello", owner=new_id())
        subject.update(conversation.id, metadata={"count": 0})

        def increment(writer: int) -> list[int]:
            seen: list[int] = []
            while len(seen) < INCREMENTS:
                read = subject.tail(conversation.id, 1).conversation
                count = cast(int, read.metadata["count"]) + 1
                try:
                    subject.update(
                        conversation.id,
                        title=str(writer),
                        metadata={"count": count},
                        metadata_revision=read.metadata_revision,
                    )
                except Conflict:
                    continue
                seen.append(count)
            return seen

        def append() -> list[int]:
            for message in user_messages(*map(str, range(INCREMENTS))):
                subject.append(conversation.id, [message])
            return []

        calls: list[Callable[[], list[int]]] = [partial(increment, n) for n in range(WRITERS)]
        *counts, _ = race([*calls, append])
        total = WRITERS * INCREMENTS
        latest = subject.get(conversation.id)
        assert latest.metadata == {"count": total}
        assert latest.message_count == 1 + INCREMENTS
        all_seen: list[int] = []
        for outcome in counts:
            assert not isinstance(outcome, ChatledgerError)
            all_seen += outcome
        assert sorted(all_seen) == list(range(1, total + 1))
        assert_shown(subject, latest)

    def test_of_rivals_at_one_metadata_revision_exactly_one_wins(self, subject: Store) -> None:
        conversation = subject.create(owner=new_id())
        for _ in range(5):
            before = subject.get(conversation.id)
            outcomes = race(
                [
                    partial(
                        subject.update,
                        conversation.id,
                        title=new_id(),
                        metadata_revision=before.metadata_revision,
                    )
                    for _ in range(WRITERS)
                ]
            )
            _, winner = only_winner(outcomes, Conflict)
            assert subject.get(conversation.id) == winner
            assert_shown(subject, winner)
