"""The cost of a whole chat turn on DynamoDB, in requests and units."""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import count, pairwise
from random import Random
from typing import Any

import pytest
from msgspec import to_builtins

from chatledger.chat import SyncChat, collect_sync
from chatledger.http.api import ChatRequest, Query
from chatledger.http.endpoints import Given, Rules, send_message
from chatledger.http.errors import ApiError
from chatledger.http.limits import USAGE, Limits
from chatledger.http.limits import Usage as CallerUsage
from chatledger.messages import Message
from chatledger.models import Models
from chatledger.models.protocol import Finished, Piece, Usage
from chatledger.sansio import run
from chatledger.settings import MAX_TURNS_A_MINUTE
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.values import new_id
from tests.stores.dynamodb.measurements import OWNER
from tests.stores.dynamodb.meter import Cost, Meter
from tests.stores.dynamodb.sample_text import SENTENCE_STARTS, sample_text
from tests.stores.dynamodb.tables import new_table

LENGTH = 1_000


class FakeModel:
    """A model whose replies have a thousand characters of English and a full usage report."""

    id = "bedrock:us.anthropic.claude-sonnet-4-20250514-v1:0"

    def __init__(self, *, pieces: int = 2) -> None:
        self._pieces = pieces
        self._texts = count(1)

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        text = sample_text(2 * next(self._texts) + 1)
        ends = [LENGTH * n // self._pieces for n in range(self._pieces + 1)]
        yield from (text[start:end] for start, end in pairwise(ends))
        yield Finished("end_turn", Usage(12_345, 6_789, 10_000, 2_000), latency_ms=2_345)


def open_fake_model(name: str) -> Any:
    return FakeModel()


class MeasuredConversation:
    """A conversation in which each turn is measured."""

    def __init__(self, store: DynamoDBStore, meter: Meter) -> None:
        self.chat = SyncChat(store, FakeModel())
        self.id = store.create(new_id(), owner=OWNER, title="Costs").id
        self.meter = meter
        self._texts = count(0)

    def limited_turn(self, limits: Limits) -> Cost:
        """Run a turn as the HTTP API does, with limits of its owner."""
        request = ChatRequest(
            message=sample_text(2 * next(self._texts)), user_id=OWNER, conversation_id=self.id
        )
        with self.meter.measured() as cost:
            rules = Rules(Models(["fake"], open=open_fake_model), limits, allow_system_prompt=False)
            query = Query((), known=())
            given = Given(lambda: self.chat, rules, OWNER, OWNER, query, request)
            collect_sync(run(send_message(given)))
        return cost

    def turn(self, idempotency_key: str | None = None) -> Cost:
        text = sample_text(2 * next(self._texts))
        with self.meter.measured() as cost:
            self.chat.send(
                text, conversation_id=self.id, owner=OWNER, idempotency_key=idempotency_key
            )
        return cost


@pytest.fixture(scope="module")
def conversation(dynamodb_local: DynamoDBLocal) -> Iterator[MeasuredConversation]:
    client = dynamodb_local.client()
    meter = Meter(client)
    yield MeasuredConversation(DynamoDBStore(client, new_table(client)), meter)
    client.close()


def test_every_turn_takes_one_read_and_5_write_units_in_4_requests(
    conversation: MeasuredConversation,
) -> None:
    for number in range(len(SENTENCE_STARTS) // 2):
        cost = conversation.turn()
        if number >= 10:  # from here on, 20 messages are read
            assert cost.operations == ["Query", "PutItem", "PutItem", "UpdateItem"], number
            assert cost.writes == 5, number
            assert cost.reads <= 5, number


def test_the_turn_that_starts_a_conversation_makes_no_read(dynamodb_local: DynamoDBLocal) -> None:
    client = dynamodb_local.client()
    meter = Meter(client)
    chat = SyncChat(DynamoDBStore(client, new_table(client)), FakeModel())
    with meter.measured() as cost:
        chat.send(sample_text(0), owner=OWNER)
    assert cost.operations == ["PutItem", "UpdateItem", "PutItem", "PutItem", "UpdateItem"]
    assert (cost.reads, cost.writes) == (0, 8)
    client.close()


@pytest.mark.parametrize(("seconds", "renewals"), [(4, 0), (9, 1), (59, 11)])
def test_a_reply_costs_7_more_write_units_for_every_5_seconds(
    dynamodb_local: DynamoDBLocal, seconds: int, renewals: int
) -> None:
    client = dynamodb_local.client()
    meter = Meter(client)
    chat = SyncChat(DynamoDBStore(client, new_table(client)), FakeModel(pieces=seconds))
    passed = 0
    chat._options = replace(chat._options, timer=lambda: passed)
    id = chat.store.create(owner=OWNER).id
    chat.send(sample_text(0), conversation_id=id)  # the first turn costs more
    with meter.measured() as cost:
        for event in chat.stream(sample_text(2), conversation_id=id, owner=OWNER):
            passed += isinstance(event, str)  # a second for each piece
    assert passed == seconds
    assert cost.operations.count("TransactWriteItems") == renewals
    assert cost.writes == 5 + 7 * renewals
    client.close()


def test_counting_a_turn_and_its_tokens_costs_one_read_and_one_write_unit(
    conversation: MeasuredConversation,
) -> None:
    limits = Limits(
        turns_at_once=3, turns_a_minute=20, tokens_a_day=5_000_000, bytes_a_day=9_000_000
    )
    for _ in range(20):
        cost = conversation.limited_turn(limits)
        assert cost.operations[:2] == ["GetItem", "PutItem"]
        assert cost.requests[0].units == 1
        assert cost.requests[1].units == 1
        assert cost.operations[2:] == ["Query", "PutItem", "PutItem", "UpdateItem"]
        assert cost.writes == 1 + 5


def test_the_turns_of_a_minute_fit_into_one_write_unit_up_to_the_largest_limit(
    conversation: MeasuredConversation,
) -> None:
    store, now = conversation.chat.store, time.time()
    times = Random(7).sample(range(int(now * 1000) - 30_000, int(now * 1000)), 199)
    usage = CallerUsage(
        day="2026-11-30",
        tokens=999_999_999,
        bytes=999_999_999,
        turns=sorted(times),
        conversations=999_999_999,
    )
    store.put_entry(None, USAGE, to_builtins(usage), owner=OWNER)
    limits = Limits(
        turns_a_minute=MAX_TURNS_A_MINUTE, conversations=1_000_000_000, clock=lambda: now
    )
    with conversation.meter.measured() as cost:
        run(limits.count_turn(store, OWNER, starts_conversation=True))
    assert cost.figures == (2, 1, 1)
    with pytest.raises(ApiError):
        run(limits.count_turn(store, OWNER))


def test_a_refused_turn_costs_one_read_unit_and_soon_nothing(
    conversation: MeasuredConversation,
) -> None:
    limits, store = Limits(turns_a_minute=1), conversation.chat.store
    run(limits.count_turn(store, "eve"))
    for figures in [(1, 0, 1), (0, 0, 0), (0, 0, 0)]:
        with conversation.meter.measured() as cost, pytest.raises(ApiError):
            run(limits.count_turn(store, "eve"))
        assert cost.figures == figures


def test_an_idempotency_key_costs_a_transaction_and_a_query(
    conversation: MeasuredConversation,
) -> None:
    cost = conversation.turn(idempotency_key=new_id())
    assert cost.operations == ["Query", "TransactWriteItems", "Query", "PutItem", "UpdateItem"]
    assert cost.writes == 2 * 2 + 4  # a transaction costs double for each of its two items
