"""The largest of everything: whole or not at all, and refused before anything is written."""

from collections.abc import Callable, Sequence
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

import pytest

from chatledger.conversations import BATCH_BYTES, BATCH_MESSAGES, ID_BYTES, IDEMPOTENCY_KEY_BYTES
from chatledger.errors import InvalidArgument, MessageTooLarge
from chatledger.messages import MESSAGE_BYTES, Message, encode, now
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.compression import UNIT
from chatledger.stores.dynamodb.records import size_of
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.store_contract.helpers import look, read_all, said, say
from chatledger.testing.store_contract.naming import filled
from tests.stores.dynamodb.clients import Died, Params, dying_at, watched_client
from tests.stores.dynamodb.conftest import OpenStore, SetClock
from tests.stores.dynamodb.meter import Meter
from tests.stores.dynamodb.prose import prose
from tests.stores.dynamodb.tables import items_of, keys_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ITEM_BYTES = 400 * UNIT  # of one item (AWS)
HASH_BYTES, SORT_BYTES = 2_048, 1_024  # of its keys (AWS)


def noise(size: int) -> str:
    """A text of so many characters that hardly gets any shorter by compression."""
    random = Random(size)
    return "".join(map(chr, random.choices(range(33, 0x2000), k=size)))


TWO_MEGABYTES = Message.user(noise(750_000), id="large")
MANY = [
    Message(role="user" if n % 2 else "assistant", content=prose(n), id=f"{n}", created_at=at)
    for at in [Message.user("").created_at]
    for n in range(5_000)
]
LARGE: dict[str, Sequence[Message]] = {
    "a message of 2 MB": [TWO_MEGABYTES],
    "5,000 messages": MANY,
    "among others": [*say("before"), TWO_MEGABYTES, *say("behind")],
}


@pytest.mark.parametrize("batch", LARGE.values(), ids=LARGE)
def test_what_is_large_is_read_back_equal_and_in_stretches(
    client: "DynamoDBClient", table: str, open_store: OpenStore, batch: list[Message]
) -> None:
    assert len(encode(TWO_MEGABYTES).encode()) > 2_000_000
    store = open_store()
    store.append("trip", say("first"))
    appended = store.append("trip", batch)
    store.append("trip", say("last"))
    assert list(appended.seqs) == list(range(2, 2 + len(batch)))
    everything = [*say("first"), *batch, *say("last")]
    cold = open_store()
    assert said(read_all(cold, "trip", limit=700)) == said(everything)
    assert cold.page("trip", after=1, limit=len(batch) % 1_000 or 1_000).messages[0] == batch[0]
    n = min(len(batch), 900) + 1
    assert said(cold.tail("trip", n).messages) == said(everything[-n:])
    middle = 2 + len(batch) // 2
    within = cold.page("trip", after=middle - 1, limit=3).messages
    assert [message.seq for message in within] == list(range(middle, middle + len(within)))
    assert said(within) == said(everything[middle - 1 : middle + 2])
    back = cold.page("trip", before=middle, limit=3).messages
    assert said(back) == said(everything[max(middle - 4, 0) : middle - 1])[::-1]
    assert max(map(size_of, items_of(client, table))) < ITEM_BYTES


def test_one_of_thousands_is_read_without_the_others(
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
            assert cost.reads < 30, "of the 700 that all would take"


@pytest.mark.parametrize("batch", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("landed", [False, True], ids=["before it arrives", "when it has landed"])
def test_what_is_large_is_in_whole_or_not_at_all_wherever_its_writer_dies(
    client: "DynamoDBClient", open_store: OpenStore, batch: list[Message], landed: bool
) -> None:
    reader = open_store()
    reader.append("trip", say("first"))
    before = look(reader, "trip")
    expected = [*say("first"), *batch]
    for call in range(20):
        store = open_store(dying_at(client, call, landed=landed))
        try:
            store.append("trip", batch)
        except Died:
            after = look(reader, "trip")
            if after == before:
                continue
        tail = reader.tail("trip", 500)
        assert tail.conversation.message_count == len(expected)
        assert said(tail.messages) == said(expected[-500:])
        break
    else:
        pytest.fail("it was never in")
    assert call >= 2
    assert said(read_all(reader, "trip")) == said(expected)


def test_parts_that_nobody_came_to_name_are_swept_a_day_later(
    client: "DynamoDBClient", table: str, open_store: OpenStore, clock: SetClock
) -> None:
    clock.time = now()  # the age of parts is that of their token, which tells the real time
    store = open_store()
    store.append("trip", say("first"))
    with pytest.raises(Died):
        open_store(dying_at(client, 2, landed=False)).append("trip", MANY)
    assert len(keys_of(client, table)) > 10
    store.append("trip", [TWO_MEGABYTES])
    store.sweep()
    assert len(keys_of(client, table)) > 20, "they may be those of a writer who is at it"
    clock.advance(days=2)
    store.sweep()
    assert look(store, "trip") is not None
    assert said(read_all(store, "trip")) == ["first", TWO_MEGABYTES.text]
    named = {item["y"]["S"] for item in items_of(client, table) if "y" in item}
    parts = [sk for _, sk in keys_of(client, table) if sk.startswith("b#")]
    assert parts
    assert {part.split("#")[1] for part in parts} == named


# What is too large -------------------------------------------------------------------------------


def over(limit: int) -> Message:
    room = limit - len(encode(Message.user("")).encode())
    return Message.user("x" * (room + 1))


REFUSED: dict[str, Callable[[DynamoDBStore], object]] = {
    "a message": lambda store: store.append("trip", [over(MESSAGE_BYTES)]),
    "one among others": lambda store: store.append("trip", [*say("1"), over(MESSAGE_BYTES)]),
    "one in the place of another": lambda store: store.replace("trip", 1, over(MESSAGE_BYTES)),
    "a batch": lambda store: store.append("trip", [over(BATCH_BYTES // 8)] * 8),
}


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED)
def test_what_is_too_large_is_refused_before_a_call_is_made(
    client: "DynamoDBClient", open_store: OpenStore, write: Callable[[DynamoDBStore], object]
) -> None:
    open_store().append("trip", say("first"))

    def forbid(operation: str, params: Params) -> None:
        pytest.fail(f"{operation} was called")

    store = open_store(watched_client(client, before=forbid))
    with pytest.raises(MessageTooLarge, match="keep large content elsewhere") as refused:
        write(store)
    assert refused.value.size > refused.value.limit
    assert refused.value.limit in (MESSAGE_BYTES, BATCH_BYTES)
    with pytest.raises(InvalidArgument, match="at most 10,000"):
        store.append("trip", say("x") * (BATCH_MESSAGES + 1))


@pytest.mark.parametrize("character", ["x", "é", "\N{GRINNING FACE}"])
def test_names_at_their_limits_are_keys_that_dynamodb_takes(
    client: "DynamoDBClient", table: str, open_store: OpenStore, character: str
) -> None:
    store = open_store()
    conversation_id, owner = (filled(start, character, ID_BYTES) for start in ("id", "owner"))
    key = filled("key", character, IDEMPOTENCY_KEY_BYTES)
    for _ in range(2):
        store.append(conversation_id, [TWO_MEGABYTES], owner=owner, idempotency_key=key)
    assert store.get(conversation_id).message_count == 1
    [listed] = store.list(owner, limit=1).conversations
    assert listed.id == conversation_id
    longest_pk, longest_sk = (
        max(len(names[part].encode()) for names in keys_of(client, table)) for part in (0, 1)
    )
    assert longest_pk == ID_BYTES + 2 <= HASH_BYTES
    assert longest_sk == IDEMPOTENCY_KEY_BYTES + 2 <= SORT_BYTES
    refused: list[Callable[[], object]] = [
        lambda: store.append(conversation_id + "x", say("1")),
        lambda: store.append(conversation_id, say("1"), owner=owner + "x"),
        lambda: store.append(conversation_id, say("1"), idempotency_key=key + "x"),
        lambda: store.list(owner + "x"),
    ]
    before = keys_of(client, table)
    for call in refused:
        with pytest.raises(InvalidArgument, match="over the limit"):
            call()
    assert keys_of(client, table) == before
