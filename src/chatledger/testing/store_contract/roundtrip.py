"""Laws of fidelity: values come back equal, of the same types, and at any size."""

from copy import deepcopy
from datetime import UTC
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatledger.conversations import MAX_BATCH_BYTES, MAX_METADATA_BYTES
from chatledger.errors import MessageTooLarge
from chatledger.messages import (
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_METADATA_BYTES,
    Content,
    Message,
    encode,
)
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    read_all,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
)
from chatledger.testing.store_contract.settings import examples_of
from chatledger.values import MAX_DEPTH, MAX_INTEGER_BITS, Json, dumps, new_id

WIDEST = 2**MAX_INTEGER_BITS - 1

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-WIDEST, WIDEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, 0.0, -0.0, 1.0, 1e300, 5e-324, WIDEST, -WIDEST, 10**40, 2**53 + 1])
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=3)


def objects_up_to(size: int) -> st.SearchStrategy[dict[str, Json]]:
    return objects.filter(lambda value: len(dumps(value).encode()) <= size)


messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=texts | st.lists(texts | objects, max_size=3),
    id=texts.filter(bool) | st.builds(new_id),
    created_at=st.datetimes(timezones=st.just(UTC)),
    metadata=objects_up_to(MAX_MESSAGE_METADATA_BYTES),
    extra=objects,
)


def nested(levels: int) -> Json:
    """Return an empty list within ``levels`` lists and dicts."""
    value: Json = []
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


def is_identical(one: object, other: object) -> bool:
    """Return whether both are equal and of the same types at every level; 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(
                is_identical(one[key], other[key]) for key in one
            )
        case list(), list():
            return len(one) == len(other) and all(map(is_identical, one, other))
        case float(), float():
            return one.hex() == other.hex()
    return one == other


def is_identical_message(one: Message, other: Message) -> bool:
    parts = ("role", "content", "id", "created_at", "metadata", "extra")
    return all(is_identical(getattr(one, part), getattr(other, part)) for part in parts)


class RoundtripLaws:
    """Fidelity and sizes of messages and metadata."""

    examples: ClassVar[int]

    def test_messages_come_back_equal_and_of_the_same_types(self, subject: Store) -> None:
        @examples_of(self.examples)
        @given(st.lists(messages, min_size=1, max_size=4))
        def come_back(sent: list[Message]) -> None:
            conversation_id = new_id()
            [first, *_] = subject.append(conversation_id, sent).seqs
            subject.append(conversation_id, sent)
            subject.replace(conversation_id, first, sent[-1])
            expected = [sent[-1], *sent[1:], *sent]
            fork = subject.fork(conversation_id).id
            for read in (
                read_all(subject, conversation_id),
                subject.tail(conversation_id, 10).messages,
                read_all(subject, fork),
                list(subject.pop(conversation_id, 10)),
            ):
                assert len(read) == len(expected)
                assert all(map(is_identical_message, read, expected))

        come_back()

    def test_metadata_comes_back_equal_and_of_the_same_types(self, subject: Store) -> None:
        metadata = objects_up_to(MAX_METADATA_BYTES)

        @examples_of(self.examples)
        @given(metadata, metadata, texts)
        def come_back(first: dict[str, Json], second: dict[str, Json], title: str) -> None:
            owner = new_id()
            created = subject.create(owner=owner, title=title, metadata=first)
            assert is_identical(created.metadata, first)
            assert is_identical(subject.get(created.id).metadata, first)
            assert subject.get(created.id).title == (title or None)
            subject.update(created.id, metadata=second)
            [listed] = subject.list(owner).conversations
            assert is_identical(listed.metadata, second)
            assert is_identical(subject.fork(created.id).metadata, second)

        come_back()

    def test_the_deepest_and_widest_values_come_back(self, subject: Store) -> None:
        metadata: dict[str, Json] = {"deep": nested(MAX_DEPTH - 2), "wide": [WIDEST, -WIDEST]}
        content: Content = [{"deep": nested(MAX_DEPTH - 3)}]
        message = Message(role="user", content=content, metadata=metadata, extra=metadata)
        conversation = subject.create(metadata=metadata)
        subject.append(conversation.id, [message])
        [read] = read_all(subject, conversation.id)
        assert is_identical_message(read, message)
        assert is_identical(subject.get(conversation.id).metadata, metadata)

    def test_changing_values_passed_in_or_returned_does_not_change_the_store(
        self, subject: Store
    ) -> None:
        metadata: dict[str, Json] = {"a": [1]}
        message = Message.user([{"type": "text", "text": "hello"}])
        conversation = subject.create(metadata=metadata)
        subject.append(conversation.id, [message])
        before = deepcopy(snapshot(subject, conversation.id))
        metadata["b"] = 2
        for content in (message.content, snapshot(subject, conversation.id).messages[0].content):
            assert isinstance(content, list)
            content.append("more")
        subject.tail(conversation.id, 1).messages.clear()
        subject.page(conversation.id).messages.clear()
        subject.get(conversation.id).metadata.clear()
        assert snapshot(subject, conversation.id) == before

    def test_a_message_of_two_megabytes_comes_back(self, subject: Store) -> None:
        message = Message.user("".join(map(chr, range(32, 0xD7FF))) * 13)
        assert len(encode(message).encode()) > 2_000_000
        conversation = start_conversation(subject, "before")
        subject.append(conversation.id, [message])
        assert snapshot(subject, conversation.id).messages[1] == message

    def test_five_thousand_messages_come_back_from_one_append(self, subject: Store) -> None:
        batch = [Message.user(f"{number}: {'x' * 200}") for number in range(5_000)]
        conversation_id = new_id()
        appended = subject.append(conversation_id, batch)
        read = read_all(subject, conversation_id)
        assert read == batch
        assert [message.seq for message in read] == list(appended.seqs)
        assert subject.get(conversation_id).message_count == 5_000

    def test_the_largest_message_is_accepted_and_one_byte_more_is_not(self, subject: Store) -> None:
        room = MAX_MESSAGE_BYTES - len(encode(Message.user("")).encode())
        conversation = start_conversation(subject, "before")
        largest = Message.user("x" * room)
        subject.append(conversation.id, [largest])
        assert subject.tail(conversation.id, 1).messages == [largest]
        for text in ("x" * (room + 1), "\u00e9" * (room // 2 + 1)):
            for conversation_id in (conversation.id, new_id()):
                with (
                    assert_unchanged(subject, conversation_id),
                    pytest.raises(MessageTooLarge) as caught,
                ):
                    subject.append(conversation_id, [Message.user(text)])
                assert caught.value.limit == MAX_MESSAGE_BYTES < caught.value.size
        assert texts_of(read_all(subject, conversation.id)) == ["before", largest.text]

    def test_a_batch_over_the_limit_is_rejected_entirely(self, subject: Store) -> None:
        message = Message.user("x" * (MAX_BATCH_BYTES // 8))
        for conversation_id in (start_conversation(subject, "before").id, new_id()):
            with (
                assert_unchanged(subject, conversation_id),
                pytest.raises(MessageTooLarge) as caught,
            ):
                subject.append(conversation_id, [message] * 8)
            assert caught.value.limit == MAX_BATCH_BYTES < caught.value.size
        assert snapshot_if_any(subject, conversation_id) is None
