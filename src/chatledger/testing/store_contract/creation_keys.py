"""Laws of idempotency keys of ``create``: a repeated call creates nothing."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from chatledger.conversations import Conversation, fields_of
from chatledger.errors import AlreadyExists, KeyReused
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.descriptions import ANOTHER, FIELDS, ONE
from chatledger.testing.store_contract.helpers import (
    Change,
    Started,
    append_often,
    assert_unchanged,
    ids_of,
    list_all,
    read_all,
    read_started,
    snapshot,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import CALLS
from chatledger.values import new_id

HOUR = timedelta(hours=1)

GIVEN_ID = pytest.mark.parametrize("has_id", [False, True], ids=["id from the key", "given id"])


def append_much(store: Store, conversation: Started) -> None:
    store.append(conversation.id, user_messages(*["x" * 3_000] * 400))


CHANGES: dict[str, Change] = {
    "nothing": lambda store, conversation: None,
    **{call.name: call for call in CALLS if call.is_activity or call.changes_metadata},
    "many appends": append_often,
    "a large append": append_much,
}
"""Changes of a conversation that has messages."""


class CreationKeyLaws:
    """``create`` with an ``idempotency_key``, without rivals (``RivalLaws``)."""

    @GIVEN_ID
    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_a_repeated_create_returns_the_conversation_and_creates_nothing(
        self, subject: Store, clock: Clock, owner: str | None, has_id: bool
    ) -> None:
        owner, key = owner and new_id(), new_id()
        conversation_id = new_id() if has_id else None

        def create() -> Conversation:
            return subject.create(
                conversation_id, owner=owner, **ONE, expires_in=HOUR, idempotency_key=key
            )

        with clock.stopped():
            created = create()
            assert created.created_at == created.updated_at == clock()
            assert created.expires_at == clock() + HOUR
        assert (created.owner, fields_of(created), created.message_count) == (owner, ONE, 0)
        assert created.id == conversation_id or UUID(created.id)
        clock.advance(timedelta(minutes=1))
        for _ in range(2):
            with assert_unchanged(subject, created.id):
                again = create()
            assert again == created
            assert again.metadata_revision == created.metadata_revision
        if owner:
            assert list_all(subject, owner) == [created]

    @GIVEN_ID
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_a_repeated_create_returns_the_conversation_as_it_now_is(
        self, subject: Store, clock: Clock, change: Change, has_id: bool
    ) -> None:
        key, conversation_id = new_id(), new_id() if has_id else None

        def create() -> Conversation:
            return subject.create(conversation_id, **ONE, idempotency_key=key)

        created = create()
        subject.append(created.id, user_messages("0", "1", "2"))
        clock.advance(timedelta(minutes=1))
        change(subject, read_started(subject, created.id))
        for time in (timedelta(), timedelta(days=40)):
            clock.advance(time)
            subject.sweep()
            now = subject.get(created.id)
            with assert_unchanged(subject, created.id):
                again = create()
            assert again == now
            assert again.metadata_revision == now.metadata_revision
            assert again.created_at == created.created_at

    @GIVEN_ID
    def test_a_repeated_create_does_not_renew_the_expiry_or_move_the_conversation_in_the_list(
        self, subject: Store, clock: Clock, has_id: bool
    ) -> None:
        owner, key, conversation_id = new_id(), new_id(), new_id() if has_id else None

        def create() -> Conversation:
            return subject.create(
                conversation_id, owner=owner, expires_in=HOUR, idempotency_key=key
            )

        first = create()
        clock.advance(timedelta(minutes=1))
        newer = subject.create(owner=owner)
        clock.advance(timedelta(minutes=58))
        assert create() == first
        assert ids_of(list_all(subject, owner)) == [newer.id, first.id]
        clock.advance(timedelta(minutes=2))
        second = create()
        assert second.revision > first.revision
        assert second.created_at > first.created_at
        assert (second.id == conversation_id) == has_id

    @GIVEN_ID
    @pytest.mark.parametrize(
        "other",
        [
            *({name: examples.another} for name, examples in FIELDS.items()),
            *({name: None} for name in FIELDS),
            {"metadata": {"a": [1]}},
            {"expires_in": 2 * HOUR},
            {"expires_in": None},
        ],
        ids=repr,
    )
    def test_the_key_of_a_create_with_other_arguments_is_rejected(
        self, subject: Store, other: dict[str, Any], has_id: bool
    ) -> None:
        arguments: dict[str, Any] = {
            "conversation_id": new_id() if has_id else None,
            "owner": new_id(),
            **ONE,
            "expires_in": HOUR,
            "idempotency_key": new_id(),
        }
        created = subject.create(**arguments)
        subject.append(created.id, user_messages("hello"))
        # The arguments of both calls count, not what the conversation has become.
        subject.update(created.id, **ANOTHER)
        for _ in range(2):
            with assert_unchanged(subject, created.id), pytest.raises(KeyReused):
                subject.create(**{**arguments, **other})
        assert subject.create(**arguments) == subject.get(created.id)
        assert ids_of(list_all(subject, arguments["owner"])) == [created.id]

    def test_equal_arguments_are_the_same_however_they_were_made(self, subject: Store) -> None:
        conversation_id, key = new_id(), new_id()
        metadata: dict[str, Any] = {"a": 1, "b": {"c": "\u00e9", "d": [True]}}
        created = subject.create(conversation_id, metadata=metadata, idempotency_key=key)
        metadata["a"] = 2
        again = subject.create(
            conversation_id,
            metadata={"b": {"d": [True], "c": "\u00e9"}, "a": 1},
            idempotency_key=key,
        )
        assert again == created
        with pytest.raises(KeyReused):
            subject.create(conversation_id, metadata=metadata, idempotency_key=key)

    def test_a_create_without_the_key_does_not_return_what_exists(self, subject: Store) -> None:
        owner, key, conversation_id = new_id(), new_id(), new_id()
        given = subject.create(conversation_id, owner=owner, idempotency_key=key)
        from_key = subject.create(owner=owner, idempotency_key=key)
        assert from_key.id != given.id
        for created in (given, from_key):
            for other_key in (None, key + "0", key.upper(), new_id()):
                with assert_unchanged(subject, created.id), pytest.raises(AlreadyExists) as caught:
                    subject.create(created.id, owner=owner, idempotency_key=other_key)
                assert caught.value.conversation_id == created.id
        assert subject.create(owner=owner).id not in (given.id, from_key.id)
        assert subject.create(owner=owner, idempotency_key=key + "0").id != from_key.id

    @pytest.mark.parametrize(
        "how", ["create", "append", "append with the key", "fork", "create again"]
    )
    def test_a_conversation_that_was_not_created_with_the_key_is_not_returned(
        self, subject: Store, how: str
    ) -> None:
        conversation_id, key = new_id(), new_id()
        source = subject.create(idempotency_key=key)
        match how:
            case "create":
                subject.create(conversation_id)
            case "append":
                subject.append(conversation_id, user_messages("hello"))
            case "append with the key":
                subject.append(conversation_id, user_messages("hello"), idempotency_key=key)
            case "fork":
                subject.fork(source.id, new_id=conversation_id)
            case "create again":
                conversation_id = source.id
                subject.delete(source.id)
                subject.create(source.id)
        with assert_unchanged(subject, conversation_id), pytest.raises(AlreadyExists):
            subject.create(conversation_id, idempotency_key=key)
        other = start_conversation(subject, "1")
        with assert_unchanged(subject, conversation_id), pytest.raises(AlreadyExists):
            subject.fork(other.id, new_id=conversation_id, idempotency_key=key)

    @GIVEN_ID
    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    def test_a_create_after_a_deletion_creates_another_conversation(
        self, subject: Store, has_id: bool, swept: bool
    ) -> None:
        owner, key, conversation_id = new_id(), new_id(), new_id() if has_id else None
        first = subject.create(conversation_id, owner=owner, title="old", idempotency_key=key)
        revision = subject.append(first.id, user_messages("old")).revision
        for title in ("old", "new"):
            subject.delete(first.id)
            if swept:
                subject.sweep()
            # Arguments of a conversation that no longer exists do not matter.
            created = subject.create(conversation_id, owner=owner, title=title, idempotency_key=key)
            assert created.revision > revision
            assert snapshot(subject, created.id) == (created, [], [])
            assert (created.title, created.message_count) == (title, 0)
            revision = created.revision
            assert ids_of(list_all(subject, owner)) == [created.id]
            first = created

    def test_a_rejected_create_does_not_use_up_its_key(self, subject: Store) -> None:
        taken, key = start_conversation(subject), new_id()
        with pytest.raises(AlreadyExists):
            subject.create(taken.id, title="mine", idempotency_key=key)
        subject.delete(taken.id)
        assert subject.create(taken.id, title="ours", idempotency_key=key).title == "ours"

    @pytest.mark.parametrize("owner", ["somebody", None])
    def test_a_key_of_a_create_reveals_nothing_to_another_owner(
        self, subject: Store, owner: str | None
    ) -> None:
        owner, key, stranger = owner and new_id(), new_id(), new_id()
        created = subject.create(owner=owner, title="private", idempotency_key=key)
        for title in ("private", "other"):
            with assert_unchanged(subject, created.id), pytest.raises(AlreadyExists):
                subject.create(created.id, owner=stranger, title=title, idempotency_key=key)
        # The id that the store makes from a key depends on the owner.
        own = subject.create(owner=stranger, title="private", idempotency_key=key)
        assert own.id != created.id
        assert (own.owner, own.message_count) == (stranger, 0)
        assert list_all(subject, stranger) == [own]

    def test_the_key_of_a_claimed_conversation_reveals_nothing_to_another_owner(
        self, subject: Store
    ) -> None:
        key, owner, stranger = new_id(), new_id(), new_id()
        created = subject.create(title="private", idempotency_key=key)
        claimed = subject.claim(created.id, owner)
        assert subject.create(title="private", idempotency_key=key) == claimed
        with assert_unchanged(subject, created.id), pytest.raises(AlreadyExists):
            subject.create(created.id, owner=stranger, title="private", idempotency_key=key)

    def test_the_keys_of_creates_appends_and_forks_are_different_keys(self, subject: Store) -> None:
        key = new_id()
        created = subject.create(idempotency_key=key)
        for _ in range(2):
            subject.append(created.id, user_messages("hello"), idempotency_key=key)
        fork = subject.fork(created.id, idempotency_key=key)
        assert texts_of(read_all(subject, created.id)) == ["hello"]
        assert texts_of(read_all(subject, fork.id)) == ["hello"]
        assert subject.create(idempotency_key=key) == subject.get(created.id)
        assert subject.fork(created.id, idempotency_key=key) == fork
        # The copy knows neither the key of its original's creation nor those of its appends.
        copy_of_copy = subject.fork(fork.id, idempotency_key=key)
        subject.append(copy_of_copy.id, user_messages("again"), idempotency_key=key)
        assert texts_of(read_all(subject, copy_of_copy.id)) == ["hello", "again"]
        assert len({created.id, fork.id, copy_of_copy.id}) == 3
        # Of both errors that apply, the contract prefers none.
        for conversation in (created, fork, copy_of_copy):
            other = start_conversation(subject)
            with (
                assert_unchanged(subject, conversation.id),
                pytest.raises((AlreadyExists, KeyReused)),
            ):
                subject.fork(other.id, new_id=conversation.id, idempotency_key=key)
        for conversation in (fork, copy_of_copy):
            with (
                assert_unchanged(subject, conversation.id),
                pytest.raises((AlreadyExists, KeyReused)),
            ):
                subject.create(conversation.id, idempotency_key=key)

    def test_an_id_from_a_key_depends_on_the_owner_and_the_key_alone(self, subject: Store) -> None:
        owner, key = new_id(), new_id()
        names = [(None, key), (owner, key), (key, key), (owner, owner), (key, owner)]
        ids = {
            (name, scope): subject.create(owner=name, idempotency_key=scope).id
            for name, scope in names
        }
        assert len(set(ids.values())) == len(names)
        for (name, scope), conversation_id in ids.items():
            subject.delete(conversation_id)
            again = subject.create(
                owner=name, title="other", expires_in=HOUR, idempotency_key=scope
            )
            assert again.id == conversation_id
            source = start_conversation(subject, "1", conversation_id=name or new_id())
            fork = subject.fork(source.id, idempotency_key=scope)
            assert fork.id not in ids.values()
            for conversation in (source, fork):
                subject.delete(conversation.id)
