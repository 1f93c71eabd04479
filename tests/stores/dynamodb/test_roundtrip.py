"""Values come back equal and with the same types, from DynamoDB as from SQLite."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatledger.conversations import MAX_METADATA_BYTES
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.stores.sqlite import SQLiteStore
from chatledger.testing.store_contract.helpers import read_all
from chatledger.testing.store_contract.roundtrip import (
    WIDEST,
    is_identical,
    is_identical_message,
    messages,
    nested,
    objects_up_to,
    texts,
)
from chatledger.testing.store_contract.settings import examples_of
from chatledger.values import MAX_DEPTH, Json, new_id
from tests.stores.dynamodb.conftest import OpenStore

EXAMPLES = 40


@contextmanager
def both_stores(open_store: OpenStore) -> Iterator[list[Store]]:
    with ExitStack() as stack:
        yield [stack.enter_context(SQLiteStore(":memory:")), open_store()]


def test_messages_come_back_from_both_stores_as_they_were_saved(open_store: OpenStore) -> None:
    with both_stores(open_store) as stores:

        @examples_of(EXAMPLES)
        @given(st.lists(messages, min_size=1, max_size=6), st.booleans())
        def check(sent: list[Message], one_by_one: bool) -> None:
            conversation_id = new_id()
            for store in stores:
                for batch in [[message] for message in sent] if one_by_one else [sent]:
                    store.append(conversation_id, batch)
                copy = store.fork(conversation_id).id
                for read in (
                    store.tail(conversation_id, 10).messages,
                    read_all(store, conversation_id),
                    read_all(store, copy),
                ):
                    assert len(read) == len(sent)
                    assert all(map(is_identical_message, read, sent))

        check()


def test_a_conversations_fields_come_back_from_both_stores_as_they_were_saved(
    open_store: OpenStore,
) -> None:
    with both_stores(open_store) as stores:

        @examples_of(EXAMPLES)
        @given(
            texts,
            objects_up_to(MAX_METADATA_BYTES),
            objects_up_to(MAX_METADATA_BYTES),
            texts.filter(bool),
        )
        def check(title: str, first: dict[str, Json], second: dict[str, Json], owner: str) -> None:
            conversation_id = new_id()
            owner += conversation_id
            for store in stores:
                store.create(conversation_id, owner=owner, title=title, metadata=first)
                for metadata in (first, second):
                    store.update(conversation_id, metadata=metadata)
                    [conversation] = store.list(owner).conversations
                    assert conversation == store.get(conversation_id)
                    assert is_identical(conversation.metadata, metadata)
                    assert conversation.title == (title or None)
                    assert conversation.owner == owner

        check()


VALUES: dict[str, Json] = {
    "an int of 39 digits": 10**38 + 1,
    "the largest and smallest int": [WIDEST, -WIDEST],
    "an int that a float cannot hold": 2**53 + 1,
    "a float that is a whole number": [1.0, -1.0, 1e22],
    "the smallest float": [5e-324, -5e-324],
    "the largest float": [1.7976931348623157e308, -1.7976931348623157e308],
    "a float of 17 digits": 0.1 + 0.2,
    "zeros": [0, 0.0, -0.0, False],
    "ones": [1, 1.0, True, "1"],
    "empty values": [None, "", [], {}],
    "empty values by name": {"": "", "a": None, "b": [], "c": {}},
    "the deepest nesting": nested(MAX_DEPTH - 3),
    "unicode": "\0\x7f\u00e9e\u0301\u2028\ufeff\uffff\N{GRINNING FACE}\U0010ffff",
    "names": {
        "\0": 1,
        "\u00e9": 2,
        "e\u0301": 3,
        "\N{GRINNING FACE}": 4,
        "#pk": 5,
        "S": {"N": "6"},
    },
    "escapes": '\\ " / \b \f \n \r \t \\u0041 \\ud800',
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_comes_back_from_both_stores_as_it_was_saved(
    open_store: OpenStore, value: Json
) -> None:
    fields: dict[str, Json] = {"value": value}
    message = Message(role="user", content=[{"value": value}], metadata=fields, extra=fields)
    # Together with a long message it is compressed; with a very long one it is in body parts.
    for padding in ("", "a" * 5_000, "".join(map(chr, range(0x4E00, 0x9E00))) * 4):
        batch = [Message.user(padding), message]
        with both_stores(open_store) as stores:
            for store in stores:
                conversation_id = store.create(metadata=fields).id
                store.append(conversation_id, batch)
                assert all(
                    map(is_identical_message, store.tail(conversation_id, 9).messages, batch)
                )
                assert is_identical(store.get(conversation_id).metadata, fields)
