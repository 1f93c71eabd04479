"""Very large messages, batches and ids: saved completely or not at all, or rejected up front."""

from collections.abc import Callable, Sequence
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

import pytest

from chatledger.conversations import (
    MAX_BATCH_BYTES,
    MAX_BATCH_MESSAGES,
    MAX_ID_BYTES,
    MAX_IDEMPOTENCY_KEY_BYTES,
)
from chatledger.errors import InvalidArgument, MessageTooLarge
from chatledger.messages import MAX_MESSAGE_BYTES, Message, encode
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.records import UNIT, size_of
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract.helpers import (
    read_all,
    snapshot_if_any,
    texts_of,
    user_messages,
)
from chatledger.testing.store_contract.naming import text_of_size
from chatledger.values import now
from tests.stores.dynamodb.conftest import ManualClock, OpenStore
from tests.stores.dynamodb.faulty_clients import Crashed, Params, client_with_hooks, crashing_client
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.sample_text import sample_text
from tests.stores.dynamodb.tables import items_of, keys_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ITEM_BYTES = 400 * UNIT  # of an item (AWS)
HASH_BYTES, SORT_BYTES = 2_048, 1_024  # of its keys (AWS)


def incompressible_text(size: int) -> str:
    """Return a text of ``size`` characters that hardly compresses."""
    random = Random(size)
    return "".join(map(chr, random.choices(range(33, 0x2000), k=size)))


TWO_MEGABYTES = Message.user(incompressible_text(750_000), id="large")
MANY = [
    Message(role="user" if n % 2 else "assistant", content=sample_text(n), id=f"{n}", created_at=at)
    for at in [Message.user("").created_at]
    for n in range(5_000)
]
LARGE: dict[str, Sequence[Message]] = {
    "a message of 2 MB": [TWO_MEGABYTES],
    "5,000 messages": MANY,
    "a message of 2 MB among others": [
        *user_messages("before"),
        TWO_MEGABYTES,
        *user_messages("after"),
    ],
}


@pytest.mark.parametrize("batch", LARGE.values(), ids=LARGE)
def test_large_batches_are_read_back_equal_in_full_and_in_part(
    client: "DynamoDBClient", table: str, open_store: OpenStore, batch: list[Message]
) -> None:
    assert len(encode(TWO_MEGABYTES).encode()) > 2_000_000
    store = open_store()
    store.append("trip", user_messages("first"))
    appended = store.append("trip", batch)
    store.append("trip", user_messages("last"))
    assert list(appended.seqs) == list(range(2, 2 + len(batch)))
    all_messages = [*user_messages("first"), *batch, *user_messages("last")]
    reader = open_store()
    assert texts_of(read_all(reader, "trip", limit=700)) == texts_of(all_messages)
    assert reader.page("trip", after=1, limit=len(batch) % 1_000 or 1_000).messages[0] == batch[0]
    n = min(len(batch), 900) + 1
    assert texts_of(reader.tail("trip", n).messages) == texts_of(all_messages[-n:])
    middle = 2 + len(batch) // 2
    forward = reader.page("trip", after=middle - 1, limit=3).messages
    assert [message.seq for message in forward] == list(range(middle, middle + len(forward)))
    assert texts_of(forward) == texts_of(all_messages[middle - 1 : middle + 2])
    backward = reader.page("trip", before=middle, limit=3).messages
    assert texts_of(backward) == texts_of(all_messages[max(middle - 4, 0) : middle - 1])[::-1]
    assert max(map(size_of, items_of(client, table))) < ITEM_BYTES


def test_one_message_of_a_batch_of_thousands_is_read_without_the_others(
    dynamodb_local: DynamoDBLocal, table: str, open_store: OpenStore
) -> None:
    open_store().append("trip", MANY)
    with closing(dynamodb_local.client()) as client:
        meter, store = Meter(client), open_store(client)
        for read in (
            lambda: store.page("trip", after=2_500, limit=1),
            lambda: store.page("trip", before=2_500, limit=1),
            lambda: store.tail("trip", 1),
        ):
            with meter.measured() as cost:
                read()
            assert cost.reads < 30, "reading all of them would take 700"


@pytest.mark.parametrize("batch", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("landed", [False, True], ids=["before the call", "after the call"])
def test_a_large_batch_is_saved_completely_or_not_at_all_wherever_its_writer_crashes(
    client: "DynamoDBClient", open_store: OpenStore, batch: list[Message], landed: bool
) -> None:
    reader = open_store()
    reader.append("trip", user_messages("first"))
    before = snapshot_if_any(reader, "trip")
    expected = [*user_messages("first"), *batch]
    calls: list[str] = []
    counting = client_with_hooks(client, before=lambda operation, _: calls.append(operation))
    open_store(counting).append("another", expected)
    number = len(calls)
    for call in [*range(3), *range(3, number - 4, 15), *range(number - 4, number + 2)]:
        store = open_store(crashing_client(client, call, landed=landed))
        try:
            store.append("trip", batch)
        except Crashed:
            after = snapshot_if_any(reader, "trip")
            if after == before:
                continue
        tail = reader.tail("trip", 500)
        assert tail.conversation.message_count == len(expected)
        assert texts_of(tail.messages) == texts_of(expected[-500:])
        break
    else:
        pytest.fail("the batch was never saved")
    assert call >= number - 3
    assert texts_of(read_all(reader, "trip")) == texts_of(expected)


def test_body_parts_that_no_record_references_are_swept_a_day_later(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: ManualClock
) -> None:
    clock.time = now()  # the age of a body part is that of its token, which holds the real time
    store = open_store()
    store.append("trip", user_messages("first"))
    with pytest.raises(Crashed):
        open_store(crashing_client(client, 2, landed=False)).append("trip", MANY)
    assert len(keys_of(client, table)) > 10
    store.append("trip", [TWO_MEGABYTES])
    store.sweep()
    assert len(keys_of(client, table)) > 20, "they may belong to a writer that is still running"
    clock.advance(days=2)
    store.sweep()
    assert snapshot_if_any(store, "trip") is not None
    assert texts_of(read_all(store, "trip")) == ["first", TWO_MEGABYTES.text]
    referenced = {item["y"]["S"] for item in items_of(client, table) if "y" in item}
    parts = [sk for _, sk in keys_of(client, table) if sk.startswith("b#")]
    assert parts
    assert {part.split("#")[1] for part in parts} == referenced


# Over the limits -------------------------------------------------------------------------------


def message_over(limit: int) -> Message:
    """Return a message one byte over ``limit`` as JSON."""
    room = limit - len(encode(Message.user("")).encode())
    return Message.user("x" * (room + 1))


TOO_LARGE: dict[str, Callable[[DynamoDBStore], object]] = {
    "a message": lambda store: store.append("trip", [message_over(MAX_MESSAGE_BYTES)]),
    "a message among others": lambda store: store.append(
        "trip", [*user_messages("1"), message_over(MAX_MESSAGE_BYTES)]
    ),
    "a replacement": lambda store: store.replace("trip", 1, message_over(MAX_MESSAGE_BYTES)),
    "a batch": lambda store: store.append("trip", [message_over(MAX_BATCH_BYTES // 8)] * 8),
}


@pytest.mark.parametrize("write", TOO_LARGE.values(), ids=TOO_LARGE)
def test_messages_over_the_limit_are_rejected_before_any_call(
    client: "DynamoDBClient", open_store: OpenStore, write: Callable[[DynamoDBStore], object]
) -> None:
    open_store().append("trip", user_messages("first"))

    def forbid(operation: str, params: Params) -> None:
        pytest.fail(f"{operation} was called")

    store = open_store(client_with_hooks(client, before=forbid))
    with pytest.raises(
        MessageTooLarge, match=r"keep large content elsewhere|append fewer messages"
    ) as raised:
        write(store)
    assert raised.value.size > raised.value.limit
    assert raised.value.limit in (MAX_MESSAGE_BYTES, MAX_BATCH_BYTES)
    with pytest.raises(InvalidArgument, match="at most 10,000"):
        store.append("trip", user_messages("x") * (MAX_BATCH_MESSAGES + 1))


@pytest.mark.parametrize("character", ["x", "é", "\N{GRINNING FACE}"])
def test_ids_of_the_maximum_length_fit_into_dynamodbs_keys(
    client: "DynamoDBClient", table: str, open_store: OpenStore, character: str
) -> None:
    store = open_store()
    conversation_id, owner = (
        text_of_size(start, character, MAX_ID_BYTES) for start in ("id", "owner")
    )
    idempotency_key = text_of_size("key", character, MAX_IDEMPOTENCY_KEY_BYTES)
    for _ in range(2):
        store.append(conversation_id, [TWO_MEGABYTES], owner=owner, idempotency_key=idempotency_key)
    assert store.get(conversation_id).message_count == 1
    [conversation] = store.list(owner, limit=1).conversations
    assert conversation.id == conversation_id
    longest_pk, longest_sk = (
        max(len(key[n].encode()) for key in keys_of(client, table)) for n in (0, 1)
    )
    assert longest_pk == MAX_ID_BYTES + 2 <= HASH_BYTES
    assert longest_sk == MAX_IDEMPOTENCY_KEY_BYTES + 2 <= SORT_BYTES
    too_long: list[Callable[[], object]] = [
        lambda: store.append(conversation_id + "x", user_messages("1")),
        lambda: store.append(conversation_id, user_messages("1"), owner=owner + "x"),
        lambda: store.append(
            conversation_id, user_messages("1"), idempotency_key=idempotency_key + "x"
        ),
        lambda: store.list(owner + "x"),
    ]
    before = keys_of(client, table)
    for call in too_long:
        with pytest.raises(InvalidArgument, match="over the limit"):
            call()
    assert keys_of(client, table) == before
