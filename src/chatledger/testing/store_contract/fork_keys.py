"""Laws of idempotency keys of ``fork``: a repeated call copies nothing."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from chatledger.conversations import Conversation
from chatledger.errors import AlreadyExists, KeyReused, NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.creation_keys import CHANGES, GIVEN_ID, HOUR
from chatledger.testing.store_contract.helpers import (
    Change,
    assert_unchanged,
    ids_of,
    list_all,
    read_all,
    read_started,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.values import new_id


class ForkKeyLaws:
    """``fork`` with an ``idempotency_key``, without rivals (``RivalLaws``)."""

    @GIVEN_ID
    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_a_repeated_fork_returns_the_copy_and_copies_nothing(
        self, subject: Store, clock: Clock, owner: str | None, has_id: bool
    ) -> None:
        owner, key, copy_id = owner and new_id(), new_id(), new_id() if has_id else None
        source = start_conversation(subject, "1", "2", "3", owner=owner)

        def fork(caller: str | None) -> Conversation:
            return subject.fork(
                source.id,
                at=source.seqs[1],
                new_id=copy_id,
                expires_in=HOUR,
                owner=caller,
                idempotency_key=key,
            )

        copy = fork(owner)
        assert copy.id == copy_id or UUID(copy.id)
        clock.advance(timedelta(minutes=1))
        for caller in (owner, None):
            with assert_unchanged(subject, copy.id), assert_unchanged(subject, source.id):
                again = fork(caller)
            assert again == copy
            assert again.metadata_revision == copy.metadata_revision
        assert texts_of(read_all(subject, copy.id)) == ["1", "2"]
        if owner:
            assert sorted(ids_of(list_all(subject, owner))) == sorted([source.id, copy.id])

    @GIVEN_ID
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_a_repeated_fork_returns_the_copy_as_it_now_is(
        self, subject: Store, clock: Clock, change: Change, has_id: bool
    ) -> None:
        key, copy_id = new_id(), new_id() if has_id else None
        source = start_conversation(subject, "1", "2")
        copy = subject.fork(source.id, new_id=copy_id, idempotency_key=key)
        clock.advance(timedelta(minutes=1))
        change(subject, read_started(subject, copy.id))
        for time in (timedelta(), timedelta(days=40)):
            clock.advance(time)
            subject.sweep()
            now = subject.get(copy.id)
            with assert_unchanged(subject, copy.id):
                again = subject.fork(source.id, new_id=copy_id, idempotency_key=key)
            assert again == now
            assert again.metadata_revision == now.metadata_revision

    @GIVEN_ID
    @pytest.mark.parametrize(
        "what", [*CHANGES, "delete", "delete and a sweep", "delete and begin again", "expire"]
    )
    def test_a_repeated_fork_returns_the_copy_whatever_has_happened_to_the_original(
        self, subject: Store, clock: Clock, what: str, has_id: bool
    ) -> None:
        key, copy_id = new_id(), new_id() if has_id else None
        source = start_conversation(subject, "1", "2", expires_in=30 * HOUR)

        def fork() -> Conversation:
            return subject.fork(
                source.id, new_id=copy_id, expires_in=900 * HOUR, idempotency_key=key
            )

        copy = fork()
        match what:
            case "delete" | "delete and a sweep" | "delete and begin again":
                subject.delete(source.id)
            case "expire":
                clock.advance(31 * HOUR)
            case _:
                CHANGES[what](subject, source)
        if what == "delete and a sweep":
            subject.sweep()
        if what == "delete and begin again":
            start_conversation(subject, "new", conversation_id=source.id)
        with assert_unchanged(subject, copy.id), assert_unchanged(subject, source.id):
            assert fork() == copy
        assert texts_of(read_all(subject, copy.id)) == ["1", "2"]

    @GIVEN_ID
    def test_the_key_of_a_fork_with_other_arguments_is_rejected(
        self, subject: Store, has_id: bool
    ) -> None:
        key, copy_id = new_id(), new_id() if has_id else None
        source = start_conversation(subject, "1", "2", expires_in=HOUR)
        arguments: dict[str, Any] = {
            "at": source.seqs[0],
            "new_id": copy_id,
            "expires_in": 2 * HOUR,
            "idempotency_key": key,
        }
        copy = subject.fork(source.id, **arguments)
        subject.append(copy.id, user_messages("3"))
        others: list[dict[str, Any]] = [
            {"at": source.seqs[1]},
            {"at": 0},
            {"at": None},
            {"expires_in": HOUR},
            {"expires_in": None},
        ]
        for other in others:
            with (
                assert_unchanged(subject, copy.id),
                assert_unchanged(subject, source.id),
                pytest.raises(KeyReused),
            ):
                subject.fork(source.id, **{**arguments, **other})
        assert subject.fork(source.id, **arguments) == subject.get(copy.id)

    def test_the_key_of_a_fork_of_another_conversation_is_rejected(self, subject: Store) -> None:
        key, copy_id = new_id(), new_id()
        source, other = start_conversation(subject, "1"), start_conversation(subject, "1")
        subject.fork(source.id, new_id=copy_id, idempotency_key=key)
        with assert_unchanged(subject, copy_id), pytest.raises(KeyReused):
            subject.fork(other.id, new_id=copy_id, idempotency_key=key)
        # The id that the store makes from a key depends on the original.
        ids = {subject.fork(each.id, idempotency_key=key).id for each in (source, other)}
        assert len(ids) == 2
        assert copy_id not in ids

    def test_a_fork_without_the_key_does_not_return_what_exists(self, subject: Store) -> None:
        key, copy_id = new_id(), new_id()
        source = start_conversation(subject, "1")
        copy = subject.fork(source.id, new_id=copy_id, idempotency_key=key)
        for other_key in (None, key + "0", new_id()):
            with assert_unchanged(subject, copy.id), pytest.raises(AlreadyExists) as caught:
                subject.fork(source.id, new_id=copy_id, idempotency_key=other_key)
            assert caught.value.conversation_id == copy_id
        forks = [subject.fork(source.id, idempotency_key=each).id for each in (key, key + "0")]
        forks += [subject.fork(source.id).id for _ in range(2)]
        assert len({copy_id, source.id, *forks}) == 6

    @GIVEN_ID
    def test_a_fork_after_the_copy_was_deleted_copies_again(
        self, subject: Store, has_id: bool
    ) -> None:
        key, copy_id = new_id(), new_id() if has_id else None
        source = start_conversation(subject, "1", "2")
        first = subject.fork(source.id, new_id=copy_id, idempotency_key=key)
        revision = subject.append(first.id, user_messages("3")).revision
        subject.delete(first.id)
        subject.append(source.id, user_messages("4"))
        # Arguments of a copy that no longer exists do not matter.
        second = subject.fork(source.id, new_id=copy_id, expires_in=HOUR, idempotency_key=key)
        assert second.revision > revision
        assert texts_of(read_all(subject, second.id)) == ["1", "2", "4"]
        subject.delete(second.id)
        subject.delete(source.id)
        with pytest.raises(NotFound) as caught:
            subject.fork(source.id, new_id=copy_id, idempotency_key=key)
        assert caught.value.conversation_id == source.id
        assert snapshot_if_any(subject, second.id) is None

    def test_a_key_of_a_fork_reveals_nothing_to_another_owner(self, subject: Store) -> None:
        key, owner, stranger = new_id(), new_id(), new_id()
        source = start_conversation(subject, "private", owner=owner)
        theirs = start_conversation(subject, "theirs", owner=stranger)
        for copy_id in (None, new_id()):
            copy = subject.fork(source.id, new_id=copy_id, idempotency_key=key, owner=owner)
            with assert_unchanged(subject, copy.id), pytest.raises(NotFound) as caught:
                subject.fork(source.id, new_id=copy_id, idempotency_key=key, owner=stranger)
            assert caught.value.conversation_id == source.id
            with assert_unchanged(subject, copy.id), pytest.raises(AlreadyExists):
                subject.fork(theirs.id, new_id=copy.id, idempotency_key=key, owner=stranger)
        subject.delete(source.id)
        with assert_unchanged(subject, copy.id), pytest.raises((NotFound, AlreadyExists)):
            subject.fork(source.id, new_id=copy.id, idempotency_key=key, owner=stranger)
        assert ids_of(list_all(subject, stranger)) == [theirs.id]

    def test_a_repeated_fork_of_a_claimed_conversation_returns_the_first_copy(
        self, subject: Store
    ) -> None:
        key, owner = new_id(), new_id()
        source = start_conversation(subject, "1")
        copy = subject.fork(source.id, idempotency_key=key)
        subject.claim(source.id, owner)
        again = subject.fork(source.id, idempotency_key=key)
        assert (again, again.owner) == (copy, None)
        # The owner of the original does not see the copy, which is still anonymous.
        with assert_unchanged(subject, copy.id), pytest.raises(AlreadyExists):
            subject.fork(source.id, owner=owner, idempotency_key=key)
        claimed = subject.claim(copy.id, owner)
        for caller in (None, owner):
            with assert_unchanged(subject, copy.id):
                assert subject.fork(source.id, owner=caller, idempotency_key=key) == claimed
        assert sorted(ids_of(list_all(subject, owner))) == sorted([source.id, copy.id])

    def test_a_repeated_fork_of_a_long_conversation_returns_the_copy(self, subject: Store) -> None:
        key, texts = new_id(), [str(number) for number in range(1_500)]
        source = start_conversation(subject, *texts)
        copy = subject.fork(source.id, idempotency_key=key)
        subject.append(copy.id, user_messages("new"))
        again = subject.fork(source.id, idempotency_key=key)
        assert again == subject.get(copy.id)
        assert again.message_count == 1_501
        assert texts_of(read_all(subject, copy.id)) == [*texts, "new"]
