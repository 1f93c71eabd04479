"""Laws of idempotency keys: the same key appends once, however often it is sent."""

from dataclasses import replace
from datetime import timedelta

import pytest

from chatledger.errors import Conflict, KeyReused, NotFound
from chatledger.messages import Content, Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    read_all,
    snapshot,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.values import Json, new_id

KEY = "3f2a#1"

MESSAGES = [Message.user("one"), Message.assistant("two", extra={"a": [1]})]

OTHER_MESSAGES: dict[str, list[Message]] = {
    "another text": [MESSAGES[0], replace(MESSAGES[1], content="TWO")],
    "the text as a list": [replace(MESSAGES[0], content=["one"]), MESSAGES[1]],
    "another role": [replace(MESSAGES[0], role="system"), MESSAGES[1]],
    "another extra": [MESSAGES[0], replace(MESSAGES[1], extra={"a": [1, 2]})],
    "no extra": [MESSAGES[0], replace(MESSAGES[1], extra={})],
    "fewer": MESSAGES[:1],
    "more": [*MESSAGES, MESSAGES[1]],
    "another order": MESSAGES[::-1],
    "texts divided otherwise": [
        replace(MESSAGES[0], content="on"),
        replace(MESSAGES[1], content="etwo"),
    ],
    "one message with both texts": user_messages("onetwo"),
}
"""Messages that are not those of ``MESSAGES``, for the same key."""


class KeyLaws:
    """``append`` with an ``idempotency_key``, without rivals, for which see ``RivalLaws``."""

    def test_the_same_key_appends_once_and_returns_the_same_result(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(conversation.id, user_messages("two", "three"), idempotency_key=KEY)
        with assert_unchanged(subject, conversation.id):
            assert (
                subject.append(conversation.id, user_messages("two", "three"), idempotency_key=KEY)
                == first
            )

    def test_the_key_returns_the_same_result_if_its_append_created_the_conversation(
        self, subject: Store
    ) -> None:
        conversation_id, owner = new_id(), new_id()
        first = subject.append(
            conversation_id, user_messages("hello"), owner=owner, idempotency_key=KEY
        )
        again = subject.append(
            conversation_id, user_messages("hello"), owner=owner, idempotency_key=KEY
        )
        assert again == first
        assert texts_of(read_all(subject, conversation_id)) == ["hello"]

    def test_the_key_returns_the_same_result_whatever_else_is_passed(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(
            conversation.id,
            user_messages("two"),
            revision=conversation.revision,
            idempotency_key=KEY,
        )
        with assert_unchanged(subject, conversation.id):
            for revision in (None, 0, conversation.revision, first.revision, first.revision + 9):
                again = subject.append(
                    conversation.id,
                    user_messages("two"),
                    revision=revision,
                    idempotency_key=KEY,
                    truncate_after=0,
                    reply_follows=True,
                    title="ignored",
                    metadata={"ignored": True},
                    expires_in=timedelta(hours=1),
                )
                assert again == first

    def test_the_key_returns_the_same_result_for_messages_made_anew(
        self, subject: Store, clock: Clock
    ) -> None:
        parts: Content = [{"type": "text", "text": "three", "number": 1.5}, "four"]

        def batch(metadata: dict[str, Json]) -> list[Message]:
            return [
                Message.user("two", metadata=metadata),
                Message.assistant(parts, extra={"a": [1, None], "b": {"c": "\u00e9"}}),
                Message.tool("12:00", tool_call_id="call"),
            ]

        conversation = start_conversation(subject, "one")
        first = subject.append(conversation.id, batch({"try": 1}), idempotency_key=KEY)
        clock.advance(timedelta(hours=1))
        again, other = batch({"try": 2}), batch({})
        reordered = replace(again[1], extra={"b": {"c": "\u00e9"}, "a": [1, None]})
        with assert_unchanged(subject, conversation.id):
            for messages in (again, other, tuple(again), [again[0], reordered, again[2]]):
                assert subject.append(conversation.id, messages, idempotency_key=KEY) == first

    @pytest.mark.parametrize("others", OTHER_MESSAGES.values(), ids=OTHER_MESSAGES)
    @pytest.mark.parametrize("begins", [False, True], ids=["", "of the append that created it"])
    def test_the_key_of_other_messages_is_rejected_and_nothing_is_written(
        self, subject: Store, others: list[Message], begins: bool
    ) -> None:
        conversation_id = new_id() if begins else start_conversation(subject, "zero").id
        first = subject.append(conversation_id, MESSAGES, idempotency_key=KEY)
        with assert_unchanged(subject, conversation_id):
            for truncate_after in (None, 0):
                with pytest.raises(KeyReused):
                    subject.append(
                        conversation_id, others, idempotency_key=KEY, truncate_after=truncate_after
                    )
        # Neither the key nor its result is lost, and another key appends them.
        assert subject.append(conversation_id, MESSAGES, idempotency_key=KEY) == first
        subject.append(conversation_id, others, idempotency_key=KEY + "0")
        assert read_all(subject, conversation_id)[-len(others) :] == others

    @pytest.mark.parametrize("what", ["clear", "remove", "replace", "23 hours"])
    def test_the_key_of_other_messages_is_rejected_whatever_has_happened_to_the_messages(
        self, subject: Store, clock: Clock, what: str
    ) -> None:
        conversation = start_conversation(subject, "one")
        [seq] = subject.append(conversation.id, user_messages("two"), idempotency_key=KEY).seqs
        match what:
            case "clear":
                subject.clear(conversation.id)
            case "remove":
                subject.remove(conversation.id, seq)
            case "replace":
                subject.replace(conversation.id, seq, Message.user("three"))
            case "23 hours":
                clock.advance(timedelta(hours=23))
        with assert_unchanged(subject, conversation.id), pytest.raises(KeyReused):
            subject.append(conversation.id, user_messages("three"), idempotency_key=KEY)

    @pytest.mark.parametrize(
        "what", ["append", "truncate", "pop", "clear", "update", "replace", "remove", "claim"]
    )
    def test_the_key_returns_the_same_result_whatever_has_happened_to_the_messages(
        self, subject: Store, what: str
    ) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(conversation.id, user_messages("two"), idempotency_key=KEY)
        match what:
            case "append":
                subject.append(conversation.id, user_messages("three"))
            case "truncate":
                subject.truncate(conversation.id, after=conversation.revision)
            case "pop":
                subject.pop(conversation.id)
            case "clear":
                subject.clear(conversation.id)
            case "update":
                subject.update(conversation.id, title="new")
            case "replace":
                subject.replace(conversation.id, first.seqs[0], Message.user("three"))
            case "remove":
                subject.remove(conversation.id, first.seqs[0])
            case "claim":
                subject.claim(conversation.id, new_id())
        with assert_unchanged(subject, conversation.id):
            assert (
                subject.append(conversation.id, user_messages("two"), idempotency_key=KEY) == first
            )

    @pytest.mark.parametrize("swept", [False, True], ids=["", "and a sweep"])
    def test_the_key_returns_the_same_result_23_hours_later(
        self, subject: Store, clock: Clock, swept: bool
    ) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(conversation.id, user_messages("two"), idempotency_key=KEY)
        clock.advance(timedelta(hours=23))
        if swept:
            subject.sweep()
        with assert_unchanged(subject, conversation.id):
            assert (
                subject.append(conversation.id, user_messages("two"), idempotency_key=KEY) == first
            )

    def test_other_keys_and_no_key_append_again(self, subject: Store) -> None:
        conversation = start_conversation(subject)
        for key in (KEY, KEY + "0", None, KEY.upper(), None):
            subject.append(conversation.id, user_messages("again"), idempotency_key=key)
        assert texts_of(read_all(subject, conversation.id)) == ["again"] * 5

    def test_the_same_key_on_another_conversation_is_a_different_key(self, subject: Store) -> None:
        one, other = start_conversation(subject), start_conversation(subject)
        subject.append(one.id, user_messages("to one"), idempotency_key=KEY)
        subject.append(other.id, user_messages("to the other"), idempotency_key=KEY)
        assert texts_of(read_all(subject, one.id)) == ["to one"]
        assert texts_of(read_all(subject, other.id)) == ["to the other"]

    def test_a_fork_does_not_know_the_keys_of_its_original(self, subject: Store) -> None:
        conversation = start_conversation(subject)
        subject.append(conversation.id, user_messages("one"), idempotency_key=KEY)
        fork = subject.fork(conversation.id)
        subject.append(fork.id, user_messages("two"), idempotency_key=KEY)
        assert texts_of(read_all(subject, fork.id)) == ["one", "two"]

    def test_a_rejected_append_does_not_use_up_its_key(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        with pytest.raises(Conflict):
            subject.append(
                conversation.id,
                user_messages("two"),
                revision=conversation.revision + 1,
                idempotency_key=KEY,
            )
        subject.append(
            conversation.id,
            user_messages("two"),
            revision=conversation.revision,
            idempotency_key=KEY,
        )
        assert texts_of(read_all(subject, conversation.id)) == ["one", "two"]

    def test_a_repeated_key_truncates_nothing(self, subject: Store) -> None:
        conversation = start_conversation(subject, "one")
        first = subject.append(
            conversation.id, user_messages("two"), idempotency_key=KEY, truncate_after=0
        )
        subject.append(conversation.id, user_messages("three"))
        with assert_unchanged(subject, conversation.id):
            again = subject.append(
                conversation.id, user_messages("two"), idempotency_key=KEY, truncate_after=0
            )
        assert again == first

    def test_a_key_reveals_nothing_to_another_owner(self, subject: Store) -> None:
        conversation = start_conversation(subject, owner=new_id())
        subject.append(conversation.id, user_messages("one"), idempotency_key=KEY)
        for text in ("one", "other"):
            with assert_unchanged(subject, conversation.id), pytest.raises(NotFound):
                subject.append(
                    conversation.id, user_messages(text), owner=new_id(), idempotency_key=KEY
                )

    def test_a_key_returns_all_seqs_of_a_large_batch(self, subject: Store) -> None:
        conversation_id = new_id()
        batch = user_messages(*map(str, range(300)))
        first = subject.append(conversation_id, batch, idempotency_key=KEY)
        assert subject.append(conversation_id, batch, idempotency_key=KEY) == first
        state = snapshot(subject, conversation_id)
        assert state.seqs == list(first.seqs)
        assert state.messages == batch
