"""The cost of a whole chat turn on DynamoDB, in requests and units."""

from collections.abc import Generator, Iterator, Sequence
from itertools import count

import pytest

from chatledger.chat import SyncChat
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage
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

    def __init__(self) -> None:
        self._texts = count(1)

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        text = sample_text(2 * next(self._texts) + 1)
        yield from (text[:500], text[500:])
        yield Finished("end_turn", Usage(12_345, 6_789, 10_000, 2_000), latency_ms=2_345)


class MeasuredConversation:
    """A conversation in which each turn is measured."""

    def __init__(self, store: DynamoDBStore, meter: Meter) -> None:
        self.chat = SyncChat(store, FakeModel())
        self.id = store.create(new_id(), owner=OWNER, title="Costs").id
        self._meter = meter
        self._texts = count(0)

    def turn(self, idempotency_key: str | None = None) -> Cost:
        text = sample_text(2 * next(self._texts))
        with self._meter.measured() as cost:
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


def test_an_idempotency_key_costs_a_transaction_and_a_query(
    conversation: MeasuredConversation,
) -> None:
    cost = conversation.turn(idempotency_key=new_id())
    assert cost.operations == ["Query", "TransactWriteItems", "Query", "PutItem", "UpdateItem"]
    assert cost.writes == 2 * 2 + 4  # a transaction costs double for each of its two items
