"""What a whole turn of a chat costs on DynamoDB, in requests and units."""

from collections.abc import Generator, Iterator, Sequence
from itertools import count

import pytest

from chatledger.chat import SyncChat
from chatledger.messages import Message, new_id
from chatledger.models.protocol import Finished, Piece, Usage
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.testing.dynamodb_local import DynamoDBLocal
from tests.stores.dynamodb.measuring import OWNER
from tests.stores.dynamodb.meter import Cost, Meter
from tests.stores.dynamodb.prose import STARTS, prose
from tests.stores.dynamodb.tables import new_table

LENGTH = 1_000


class Speaks:
    """Says a thousand characters of English in each reply, and what it took."""

    id = "bedrock:us.anthropic.claude-sonnet-4-20250514-v1:0"

    def __init__(self) -> None:
        self._texts = count(1)

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        text = prose(2 * next(self._texts) + 1)
        yield from (text[:500], text[500:])
        yield Finished("end_turn", Usage(12_345, 6_789, 10_000, 2_000), latency_ms=2_345)


class Talk:
    """A conversation of which each turn is measured."""

    def __init__(self, store: DynamoDBStore, meter: Meter) -> None:
        self.chat = SyncChat(store, Speaks())
        self.id = store.create(new_id(), owner=OWNER, title="Costs").id
        self._meter = meter
        self._texts = count(0)

    def turn(self, idempotency_key: str | None = None) -> Cost:
        text = prose(2 * next(self._texts))
        with self._meter.measured() as cost:
            self.chat.send(
                text, conversation_id=self.id, owner=OWNER, idempotency_key=idempotency_key
            )
        return cost


@pytest.fixture(scope="module")
def talk(dynamodb_local: DynamoDBLocal) -> Iterator[Talk]:
    client = dynamodb_local.client()
    meter = Meter(client)
    yield Talk(DynamoDBStore(client, new_table(client)), meter)
    client.close()


def test_a_turn_is_one_read_and_5_write_units_in_4_requests_whatever_came_before(
    talk: Talk,
) -> None:
    for number in range(len(STARTS) // 2):
        cost = talk.turn()
        if number >= 10:  # from then on 20 messages are read
            assert cost.operations == ["Query", "PutItem", "PutItem", "UpdateItem"], number
            assert cost.writes == 5, number
            assert cost.reads <= 5, number


def test_the_turn_that_starts_a_conversation_reads_nothing(dynamodb_local: DynamoDBLocal) -> None:
    client = dynamodb_local.client()
    meter = Meter(client)
    chat = SyncChat(DynamoDBStore(client, new_table(client)), Speaks())
    with meter.measured() as cost:
        chat.send(prose(0), owner=OWNER)
    assert cost.operations == ["PutItem", "UpdateItem", "PutItem", "PutItem", "UpdateItem"]
    assert (cost.reads, cost.writes) == (0, 8)
    client.close()


def test_an_idempotency_key_costs_its_transaction_and_a_look(talk: Talk) -> None:
    cost = talk.turn(idempotency_key=new_id())
    assert cost.operations == ["Query", "TransactWriteItems", "Query", "PutItem", "UpdateItem"]
    assert cost.writes == 2 * 2 + 4  # twice the price for each of the two items
