"""What a turn of a graph costs on DynamoDB, as DynamoDB reports it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.graph import MessagesState

from chatledger.langgraph import ChatledgerSaver
from chatledger.stores.dynamodb import DynamoDBStore
from chatledger.stores.dynamodb.records import size_of
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.values import new_id
from tests.langgraph.graphs import DeltaState, Graph, chat_graph, config_of, question, reply
from tests.stores.dynamodb.meter import READS, Cost, Meter
from tests.stores.dynamodb.tables import items_of, new_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@dataclass(frozen=True, slots=True)
class Figures:
    """The cost of a turn."""

    write_requests: int
    write_units: float
    read_requests: int
    read_units: float

    @classmethod
    def of(cls, cost: Cost) -> "Figures":
        reads = sum(operation in READS for operation in cost.operations)
        return cls(len(cost.requests) - reads, cost.writes, reads, cost.reads)


class Bench:
    """A table of its own, and a client whose calls are measured."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self.client = client
        self.table = new_table(client)
        self.meter = Meter(client)

    def store(self) -> DynamoDBStore:
        return DynamoDBStore(self.client, self.table, expire_after=timedelta(days=30))

    def figures(self, graph: Graph, thread_id: str, turn: int, **options: Any) -> Figures:
        """Run the turn and return what it costs."""
        with self.meter.measured() as cost:
            run_turn(graph, thread_id, turn, **options)
        return Figures.of(cost)

    def stored_bytes(self) -> int:
        return sum(map(size_of, items_of(self.client, self.table)))


def run_turn(graph: Graph, thread_id: str, turn: int, **options: Any) -> None:
    graph.invoke({"messages": [question(turn)]}, config_of(thread_id), **options)


@pytest.fixture
def bench(dynamodb_local: DynamoDBLocal) -> Iterator[Bench]:
    client = dynamodb_local.client()
    bench = Bench(client)
    yield bench
    client.delete_table(TableName=bench.table)
    client.close()


STATES = pytest.mark.parametrize("state", [MessagesState, DeltaState], ids=["list", "delta"])


@STATES
def test_every_turn_up_to_the_hundredth_costs_the_same(bench: Bench, state: type) -> None:
    graph, thread_id = chat_graph(ChatledgerSaver(bench.store()), state), new_id()
    run_turn(graph, thread_id, 0)
    turns = [bench.figures(graph, thread_id, turn) for turn in range(1, 101)]
    # One record each: the question with its checkpoint, the start, the next checkpoint, the reply,
    # and the last checkpoint.
    assert {figures.write_requests for figures in turns} == {5}
    assert max(figures.write_units for figures in turns) <= 6
    assert sum(figures.write_units for figures in turns) <= 5.2 * len(turns)
    assert {figures.read_requests for figures in turns} == {1}
    assert max(figures.read_units for figures in turns) <= 2
    assert bench.stored_bytes() <= 0.5e6, "for 200 KB of text"


@STATES
def test_a_turn_costs_the_same_after_a_thousand_turns(bench: Bench, state: type) -> None:
    saver, thread_id = ChatledgerSaver(bench.store()), new_id()
    graph = chat_graph(saver, state)
    before = [make(turn) for turn in range(1_000) for make in (question, reply)]
    saver.seed_thread(thread_id, before)
    run_turn(graph, thread_id, 1_000)
    for turn in range(1_001, 1_004):
        figures = bench.figures(graph, thread_id, turn)
        assert figures.write_requests == 5
        assert figures.write_units <= 6
        assert figures.read_requests == 1
        assert figures.read_units <= 2
    assert len(graph.get_state(config_of(thread_id)).values["messages"]) == 2_008


def test_a_turn_that_is_stored_at_its_end_is_one_write(bench: Bench) -> None:
    graph, thread_id = chat_graph(ChatledgerSaver(bench.store())), new_id()
    run_turn(graph, thread_id, 0, durability="exit")
    turns = {bench.figures(graph, thread_id, turn, durability="exit") for turn in range(1, 101)}
    assert {figures.write_requests for figures in turns} == {1}
    assert max(figures.write_units for figures in turns) <= 2
    assert {figures.read_requests for figures in turns} == {1}
    assert max(figures.read_units for figures in turns) <= 2


def test_with_a_delta_channel_a_turn_that_is_stored_at_its_end_is_three_writes(
    bench: Bench,
) -> None:
    graph, thread_id = chat_graph(ChatledgerSaver(bench.store()), DeltaState), new_id()
    run_turn(graph, thread_id, 0, durability="exit")
    turns = {bench.figures(graph, thread_id, turn, durability="exit") for turn in range(1, 41)}
    # LangGraph puts the writes of each superstep and the checkpoint, one after the other.
    assert max(figures.write_requests for figures in turns) == 3
    assert max(figures.write_units for figures in turns) <= 4


def test_a_conversation_in_its_owners_list_adds_the_cost_of_both_messages(bench: Bench) -> None:
    saver = ChatledgerSaver(bench.store(), messages="conversation", owner_key="user_id")
    graph, thread_id = chat_graph(saver), new_id()
    owned = config_of(thread_id, user_id=new_id())
    costs = []
    for turn in range(12):
        with bench.meter.measured() as cost:
            graph.invoke({"messages": [question(turn)]}, owned)
        costs.append(Figures.of(cost))
    # One record of the question and the reply takes 2 units; the head with its place in the index,
    # 3. With the owner, up to two records of the thread need a second unit.
    assert {figures.write_requests for figures in costs[1:]} == {7}
    units = [figures.write_units for figures in costs[1:]]
    assert max(units) <= 12
    assert sum(units) <= 11.2 * len(units)
    assert {figures.read_requests for figures in costs[1:]} == {2}
    assert max(figures.read_units for figures in costs[1:]) <= 3


def test_a_process_that_has_not_used_a_thread_reads_it_once(bench: Bench) -> None:
    graph, thread_id = chat_graph(ChatledgerSaver(bench.store())), new_id()
    for turn in range(100):
        run_turn(graph, thread_id, turn)
    cold = chat_graph(ChatledgerSaver(bench.store()))
    with bench.meter.measured() as cost:
        cold.get_state(config_of(thread_id))
    assert Figures.of(cost).read_requests == 1
    assert Figures.of(cost).read_units <= bench.stored_bytes() / 4096 + 2


def test_a_process_finds_what_another_has_added_in_at_most_three_requests(bench: Bench) -> None:
    one, other = (chat_graph(ChatledgerSaver(bench.store())) for _ in range(2))
    thread_id = new_id()
    run_turn(one, thread_id, 0)
    run_turn(other, thread_id, 1)
    for turn in range(2, 8):
        graph = (one, other)[turn % 2]
        with bench.meter.measured() as cost:
            state = graph.get_state(config_of(thread_id))
        assert len(state.values["messages"]) == 2 * turn
        assert Figures.of(cost).read_requests <= 3
        run_turn(graph, thread_id, turn)
