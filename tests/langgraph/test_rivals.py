"""Runs that continue the same checkpoint at the same time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from chatledger import AsyncStore, Store
from chatledger.errors import Conflict, InvalidArgument
from chatledger.langgraph import ChatledgerSaver
from chatledger.values import new_id
from tests.langgraph.graphs import (
    DeltaState,
    FanOutState,
    Graph,
    chat_graph,
    config_of,
    fan_out_graph,
    question,
    reply,
)

WRITERS, UPDATES = 8, 20
STATES = pytest.mark.parametrize("state", [MessagesState, DeltaState], ids=["list", "delta"])


def open_graph(store: Store, state: type = MessagesState, **options: Any) -> Graph:
    """Return a graph with a saver of its own, as another process would have."""
    saver = ChatledgerSaver(store, rivals="refuse", **options)
    return chat_graph(saver, state, answer=lambda messages: AIMessage(f"to {messages[-1].id}"))


def write_all(graphs: list[Graph], thread: RunnableConfig, updates: int) -> int:
    """Let each graph add its updates to the thread, all at once; return how many were refused."""

    def write(writer: int) -> int:
        refused = 0
        for update in range(updates):
            message = HumanMessage("hello", id=f"{writer}-{update}")
            while True:
                try:
                    graphs[writer].invoke({"messages": [message]}, thread)
                    break
                except Conflict:
                    refused += 1
        return refused

    with ThreadPoolExecutor(len(graphs)) as pool:
        return sum(pool.map(write, range(len(graphs))))


@STATES
def test_no_update_of_eight_writers_is_lost(store: Store, state: type) -> None:
    thread = config_of(new_id())
    refused = write_all([open_graph(store, state) for _ in range(WRITERS)], thread, UPDATES)
    messages = open_graph(store, state).get_state(thread).values["messages"]
    asked = [message.id for message in messages if message.type == "human"]
    assert len(asked) == len(set(asked)) == WRITERS * UPDATES
    # Each run that ended has added its reply.
    assert len(messages) >= 2 * len(asked)
    assert refused > 0, "there were rivals"


@STATES
def test_runs_of_one_process_are_rivals_too(store: Store, state: type) -> None:
    thread = config_of(new_id())
    graph = open_graph(store, state)
    assert write_all([graph] * 4, thread, 5) > 0
    messages = graph.get_state(thread).values["messages"]
    asked = [message.id for message in messages if message.type == "human"]
    assert len(asked) == len(set(asked)) == 20


@STATES
def test_an_overtaken_run_changes_nothing(store: Store, state: type) -> None:
    thread = config_of(new_id())
    one, other = open_graph(store, state), open_graph(store, state)
    one.invoke({"messages": [question(0)]}, thread)

    def overtake(messages: Any) -> AIMessage:
        other.invoke({"messages": [question(1)]}, thread)
        return AIMessage("too late")

    slow = chat_graph(ChatledgerSaver(store, rivals="refuse"), state, answer=overtake)
    before = len(list(one.get_state_history(thread)))
    with pytest.raises(Conflict, match="another run") as refused:
        slow.invoke({"messages": [question(2)]}, thread, durability="sync")
    assert refused.value.conversation_id == thread["configurable"]["thread_id"]
    # The slow run's first checkpoint was before the other's; it continued after that.
    state_now = one.get_state(thread)
    texts = [message.text for message in state_now.values["messages"]]
    assert "too late" not in texts
    assert question(1).text in texts
    assert len(list(one.get_state_history(thread))) == before + 3 + 2


def test_a_run_that_starts_at_an_old_checkpoint_is_no_rival(store: Store) -> None:
    thread = config_of(new_id())
    graph = open_graph(store)
    for turn in range(3):
        graph.invoke({"messages": [question(turn)]}, thread)
    old = [state for state in graph.get_state_history(thread) if not state.next][-1]
    result = open_graph(store).invoke({"messages": [question(7)]}, old.config)
    assert [message.id for message in result["messages"][::2]] == [question(0).id, question(7).id]
    assert graph.get_state(thread).values == result, "the branch is the newest"
    # The config of a state remembers which one was the newest: now that is another.
    result = open_graph(store).invoke({"messages": [question(8)]}, old.config)
    assert graph.get_state(thread).values == result


def test_a_run_that_starts_at_an_old_checkpoint_can_be_overtaken_too(store: Store) -> None:
    thread = config_of(new_id())
    graph = open_graph(store)
    for turn in range(3):
        graph.invoke({"messages": [question(turn)]}, thread)
    old = [state for state in graph.get_state_history(thread) if not state.next][-1]

    def overtake(messages: Any) -> AIMessage:
        open_graph(store).invoke({"messages": [question(9)]}, thread)
        return reply(9)

    slow = chat_graph(ChatledgerSaver(store, rivals="refuse"), answer=overtake)
    with pytest.raises(Conflict):
        slow.invoke({"messages": [question(7)]}, old.config, durability="sync")


def test_a_run_that_starts_at_an_old_checkpoint_may_run_its_tasks_again(store: Store) -> None:
    thread, answers = config_of(new_id()), iter(("first", "second"))
    saver = ChatledgerSaver(store, rivals="refuse")
    graph = chat_graph(saver, answer=lambda messages: AIMessage(next(answers)))
    graph.invoke({"messages": [question(0)]}, thread)
    asked = next(state for state in graph.get_state_history(thread) if state.next == ("model",))
    result = graph.invoke(Command(resume="again"), asked.config)
    assert [message.text for message in result["messages"]] == [question(0).text, "second"]


def test_the_result_of_a_finished_task_can_be_replaced_while_another_one_waits(
    store: Store,
) -> None:
    builder = StateGraph(FanOutState)
    builder.add_node("count", lambda state: {"done": [1]})
    builder.add_node("ask", lambda state: {"done": [interrupt("which?")]})
    builder.add_edge(START, "count")
    builder.add_edge(START, "ask")
    thread = config_of(new_id())
    graph = builder.compile(checkpointer=ChatledgerSaver(store, rivals="refuse"))
    graph.invoke({"done": []}, thread)
    graph.update_state(thread, {"done": [2]}, as_node="count")
    assert graph.get_state(thread).values == {"done": [2]}


def test_a_copy_of_a_checkpoint_is_no_rival_of_it(store: Store) -> None:
    thread, graph = config_of(new_id()), open_graph(store)
    result = graph.invoke({"messages": [question(0)]}, thread)
    graph.update_state(thread, None, as_node="__copy__")
    newest = graph.get_state(thread)
    assert newest.values == result
    assert newest.metadata is not None
    assert newest.metadata["source"] == "fork"


@pytest.mark.parametrize("turn", [0, 1])
def test_a_subgraph_with_a_memory_can_be_run_again_from_an_old_checkpoint(
    store: Store, turn: int
) -> None:
    inner = StateGraph(FanOutState)
    inner.add_node("count", lambda state: {"done": [len(state["done"])]})
    inner.add_edge(START, "count")
    builder = StateGraph(FanOutState)
    builder.add_node("inner", inner.compile(checkpointer=True))
    builder.add_edge(START, "inner")
    thread = config_of(new_id())
    graph = builder.compile(checkpointer=ChatledgerSaver(store, rivals="refuse"))
    results = [graph.invoke({"done": []}, thread) for _ in range(2)]
    old = [state for state in graph.get_state_history(thread) if state.next == ("inner",)]
    assert graph.invoke(None, old[::-1][turn].config) == results[turn]


def test_an_answer_that_comes_while_another_one_is_worked_on_is_the_only_one_to_count(
    store: Store,
) -> None:
    thread, has_begun, is_answered = config_of(new_id()), Event(), Event()

    def ask(messages: Any) -> AIMessage:
        return AIMessage(interrupt("which?"))

    def ask_slowly(messages: Any) -> AIMessage:
        text = interrupt("which?")
        has_begun.set()
        assert is_answered.wait(30)
        return AIMessage(text)

    one, slow = (
        chat_graph(ChatledgerSaver(store, rivals="refuse"), answer=answer)
        for answer in (ask, ask_slowly)
    )
    one.invoke({"messages": [question(0)]}, thread)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow.invoke, Command(resume="late"), thread)
        assert has_begun.wait(30)
        one.invoke(Command(resume="first"), thread)
        is_answered.set()
        with pytest.raises(Conflict):
            late.result(30)
    assert [each.text for each in one.get_state(thread).values["messages"][1:]] == ["first"]


def test_two_answers_to_one_interrupt_do_not_both_count(store: Store) -> None:
    thread = config_of(new_id())

    def ask(messages: Any) -> AIMessage:
        return AIMessage(interrupt("which?"))

    one, other = (chat_graph(ChatledgerSaver(store, rivals="refuse"), answer=ask) for _ in range(2))
    one.invoke({"messages": [question(0)]}, thread)

    def answer(graph: Graph, text: str) -> bool:
        try:
            graph.invoke(Command(resume=text), thread)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        counted = [*pool.map(answer, (one, other), ("first", "second"))]
    final = one.get_state(thread).values["messages"][-1].text
    # If they did not overlap, the later one finds nothing to resume.
    assert final in [text for text, ok in zip(("first", "second"), counted, strict=True) if ok]


def test_parallel_subgraphs_and_tasks_of_a_run_are_no_rivals(store: Store) -> None:
    thread = config_of(new_id())
    graph = fan_out_graph(ChatledgerSaver(store, rivals="refuse"), 12)
    assert sorted(graph.invoke({"done": []}, thread)["done"]) == [*range(12)]
    assert sorted(graph.invoke({"done": []}, thread)["done"]) == sorted([*range(12)] * 2)


@pytest.mark.anyio
async def test_async_tasks_of_a_run_are_no_rivals(async_store: AsyncStore) -> None:
    async with async_store as store:
        thread = config_of(new_id())
        graph = fan_out_graph(ChatledgerSaver(store, rivals="refuse"), 12)
        assert sorted((await graph.ainvoke({"done": []}, thread))["done"]) == [*range(12)]
        with pytest.raises(InvalidArgument, match="over an AsyncStore"):
            graph.get_state(thread)


def test_forks_keep_every_checkpoint_that_was_acknowledged(store: Store) -> None:
    thread = config_of(new_id())
    chat_graph(ChatledgerSaver(store)).invoke({"messages": [question(0)]}, thread)

    def write(writer: int) -> list[str]:
        graph = chat_graph(ChatledgerSaver(store), answer=lambda messages: AIMessage("hello"))
        ids = []
        for update in range(5):
            message = HumanMessage("hello", id=f"{writer}-{update}")
            steps = graph.stream({"messages": [message]}, thread, stream_mode="checkpoints")
            ids += [step["config"]["configurable"]["checkpoint_id"] for step in steps]
        return ids

    with ThreadPoolExecutor(4) as pool:
        acknowledged = [id for ids in pool.map(write, range(4)) for id in ids]
    saver = ChatledgerSaver(store)
    stored = [found.checkpoint["id"] for found in saver.list(thread)]
    assert set(acknowledged) <= set(stored)
    assert stored == sorted(set(stored), reverse=True)
    newest = saver.get_tuple(thread)
    assert newest is not None
    assert newest.checkpoint["id"] == stored[0]
    for id in acknowledged:
        found = saver.get_tuple(config_of(thread["configurable"]["thread_id"], checkpoint_id=id))
        assert found is not None
        assert found.checkpoint["id"] == id
