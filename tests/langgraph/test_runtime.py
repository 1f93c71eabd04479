"""LangGraph's runtime on the saver: it does what it does with LangGraph's own saver in memory."""

import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, _messages_delta_reducer
from langgraph.types import Command, Overwrite, Send, interrupt
from typing_extensions import TypedDict

from chatledger import AsyncStore, Store
from chatledger.errors import InvalidArgument, NotFound
from chatledger.langgraph import ChatledgerSaver
from chatledger.values import new_id
from tests.langgraph.graphs import Graph, chat_graph, config_of, question, reply

Saver = BaseCheckpointSaver[Any]
OpenSaver = Callable[[], Saver]


@pytest.fixture
def open_saver(store: Store) -> OpenSaver:
    """Open another saver over the store, with an empty cache: another process."""
    return lambda: ChatledgerSaver(store)


class ScriptedModel(GenericFakeChatModel):
    """A chat model whose replies are given in advance."""

    def bind_tools(self, *arguments: Any, **options: Any) -> Any:
        return self


def scripted(*replies: AIMessage) -> ScriptedModel:
    return ScriptedModel(messages=iter(replies))


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def history(graph: Graph, config: RunnableConfig) -> list[Any]:
    """Return what the thread's history shows, without the ids and times of each run."""
    return [
        (
            state.values,
            state.next,
            {name: (state.metadata or {}).get(name) for name in ("source", "step")},
            [(task.name, task.error, bool(task.interrupts)) for task in state.tasks],
            state.parent_config is None,
        )
        for state in graph.get_state_history(config)
    ]


def without_ids(value: Any) -> Any:
    """Return the value without the ids of messages, which are new in each run."""
    if isinstance(value, dict):
        return {name: without_ids(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_ids(part) for part in value]
    if hasattr(value, "model_dump"):
        return without_ids({k: v for k, v in value.model_dump().items() if k != "id"})
    return value


def compare(open_saver: OpenSaver, play: Callable[[OpenSaver], Any]) -> None:
    """Assert that ``play`` returns the same on this saver as on LangGraph's."""
    memory = InMemorySaver()
    assert without_ids(play(open_saver)) == without_ids(play(lambda: memory))


def test_an_agent_with_tools_remembers_across_processes(open_saver: OpenSaver) -> None:
    thread = config_of(new_id())
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call-1"}

    def play(open: OpenSaver) -> Any:
        model = scripted(AIMessage("", tool_calls=[call]), AIMessage("It is 3."))
        first = create_agent(model, [add], checkpointer=open())
        first.invoke({"messages": [HumanMessage("1 + 2?")]}, thread)
        second = create_agent(scripted(AIMessage("You are welcome.")), [add], checkpointer=open())
        answer = second.invoke({"messages": [HumanMessage("Thanks!")]}, thread)
        return answer, history(second, thread)

    compare(open_saver, play)


def test_an_interrupted_run_is_resumed_by_another_process(open_saver: OpenSaver) -> None:
    class State(TypedDict):
        answers: Annotated[list[str], operator.add]

    def ask(state: State) -> State:
        first = interrupt("your name?")
        second = interrupt("your age?")
        return {"answers": [first, second]}

    def play(open: OpenSaver) -> Any:
        thread = config_of(new_id())

        def graph() -> Graph:
            builder = StateGraph(State)
            builder.add_node("ask", ask)
            builder.add_edge(START, "ask")
            return builder.compile(checkpointer=open())

        steps: list[Any] = [{"answers": ["begin"]}, Command(resume="Bob")]
        shown = [
            [each.value for each in graph().invoke(step, thread)["__interrupt__"]] for step in steps
        ]
        result = graph().invoke(Command(resume="41"), thread)
        return shown, result, history(graph(), thread)

    compare(open_saver, play)


def test_subgraphs_have_checkpoints_of_their_own(open_saver: OpenSaver) -> None:
    class State(TypedDict):
        steps: Annotated[list[str], operator.add]

    def inner_step(state: State) -> State:
        return {"steps": [f"inner {interrupt('go on?')}"]}

    def play(open: OpenSaver) -> Any:
        thread = config_of(new_id())

        def graph() -> Graph:
            inner = StateGraph(State)
            inner.add_node("before", lambda state: {"steps": ["before"]})
            inner.add_node("step", inner_step)
            inner.add_edge(START, "before")
            inner.add_edge("before", "step")
            outer = StateGraph(State)
            outer.add_node("outer", lambda state: {"steps": ["outer"]})
            outer.add_node("inner", inner.compile(checkpointer=True))
            outer.add_edge(START, "outer")
            outer.add_edge("outer", "inner")
            return outer.compile(checkpointer=open())

        graph().invoke({"steps": ["begin"]}, thread)
        inside = graph().get_state(thread, subgraphs=True).tasks[0].state
        result = graph().invoke(Command(resume="yes"), thread)
        again = graph().invoke({"steps": ["again"]}, thread)
        return inside.values, inside.next, result, again["steps"], history(graph(), thread)  # type: ignore[union-attr]

    compare(open_saver, play)


@pytest.mark.parametrize("memory", [None, True], ids=["per call", "per thread"])
def test_the_state_of_a_subgraph_is_read_for_the_owner_of_its_graph(
    store: Store, memory: Any
) -> None:
    def graph() -> Graph:
        inner = StateGraph(MessagesState)
        inner.add_node("ask", lambda state: {"messages": [interrupt("go on?")]})
        inner.add_edge(START, "ask")
        outer = StateGraph(MessagesState)
        outer.add_node("inner", inner.compile(checkpointer=memory))
        outer.add_edge(START, "inner")
        return outer.compile(checkpointer=ChatledgerSaver(store, owner_key="user_id"))

    thread_id = new_id()
    bobs, eves = (config_of(thread_id, user_id=owner) for owner in ("bob", "eve"))
    graph().invoke({"messages": [question(0)]}, bobs)
    state = graph().get_state(bobs)
    for inside in (
        cast(Any, graph().get_state(bobs, subgraphs=True).tasks[0].state),
        graph().get_state(cast(Any, state.tasks[0].state)),
        next(graph().get_state_history(cast(Any, state.tasks[0].state))),
    ):
        assert inside.next == ("ask",)
        assert inside.values == {"messages": [question(0)]}
        assert inside.config["configurable"]["user_id"] == "bob"
    inside_config: Any = state.tasks[0].state
    for stranger in (
        {**inside_config["configurable"], "user_id": "eve"},
        {**state.config["configurable"], "user_id": "eve"},
    ):
        assert graph().get_state({"configurable": stranger}).values == {}
        with pytest.raises((InvalidArgument, NotFound)):
            graph().update_state({"configurable": stranger}, {"messages": [question(1)]})
    assert graph().get_state(eves, subgraphs=True).values == {}


def test_of_twelve_parallel_tasks_only_the_failed_one_runs_again(open_saver: OpenSaver) -> None:
    class State(TypedDict):
        numbers: list[int]
        squares: Annotated[list[int], operator.add]

    def play(open: OpenSaver) -> Any:
        thread, ran = config_of(new_id()), []
        broken = True

        def square(number: Any) -> dict[str, Any]:
            ran.append(number)
            if number == 7 and broken:
                raise RuntimeError("7 fails at first")
            return {"squares": [number * number]}

        def graph() -> Graph:
            builder: StateGraph[Any, Any, Any, Any] = StateGraph(State)
            builder.add_node("plan", lambda state: {})
            builder.add_node("square", cast(Any, square))
            builder.add_edge(START, "plan")
            builder.add_conditional_edges(
                "plan", lambda state: [Send("square", each) for each in state["numbers"]]
            )
            builder.add_edge("square", END)
            return builder.compile(checkpointer=open())

        with pytest.raises(RuntimeError):
            graph().invoke({"numbers": [*range(12)]}, thread)
        failed = sorted(ran)
        pending = len(graph().get_state(thread).tasks)
        broken = False
        result = graph().invoke(None, thread)
        return failed[:1], pending, len(ran) - len(failed) <= 12, result

    compare(open_saver, play)


def test_a_run_from_an_old_checkpoint_is_a_branch(open_saver: OpenSaver) -> None:
    def play(open: OpenSaver) -> Any:
        thread = config_of(new_id())
        graph = chat_graph(open())
        for turn in range(3):
            graph.invoke({"messages": [question(turn)]}, thread)
        first_end = [state for state in graph.get_state_history(thread) if not state.next][-1]
        other = chat_graph(open(), answer=lambda messages: AIMessage(f"{len(messages)} branches"))
        branch = other.invoke({"messages": [question(9)]}, first_end.config)
        replayed = [s for s in graph.get_state_history(thread) if s.next == ("model",)][-1]
        again = other.invoke(None, replayed.config)
        edited = other.update_state(first_end.config, {"messages": [question(5)]})
        after_edit = other.invoke(None, edited)
        return branch, again, after_edit, history(graph, thread)

    compare(open_saver, play)


def merged(files: dict[str, str], writes: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return the files with those that were written."""
    return {path: text for part in (files, *writes) for path, text in part.items()}


class DeltaState(TypedDict):
    messages: Annotated[list[Any], DeltaChannel(_messages_delta_reducer, snapshot_frequency=7)]
    files: Annotated[dict[str, str], DeltaChannel(merged)]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("state", [MessagesState, DeltaState], ids=["list", "delta"])
def test_edited_messages_are_as_the_graph_left_them(
    open_saver: OpenSaver, state: type, durability: Any
) -> None:
    def play(open: OpenSaver) -> Any:
        thread = config_of(new_id())
        seen, graph = [], chat_graph(open(), state)
        for turn in range(25):
            if turn % 5 == 0:
                graph = chat_graph(open(), state)
            given: list[Any] = [question(turn, 50)]
            if turn % 4 == 3:
                given.append(RemoveMessage(id=question(turn - 2, 50).id or ""))
            if turn % 6 == 5:
                given.append(HumanMessage("edited", id=question(turn - 1, 50).id))
            if turn == 17:
                given.insert(0, RemoveMessage(id=REMOVE_ALL_MESSAGES))
            graph.invoke({"messages": given}, thread, durability=durability)
            seen.append(chat_graph(open(), state).get_state(thread).values)
        return seen, history(graph, thread)

    compare(open_saver, play)


def test_delta_channels_of_any_type_are_rebuilt(open_saver: OpenSaver) -> None:
    def play(open: OpenSaver) -> Any:
        thread = config_of(new_id())

        def graph() -> Graph:
            builder = StateGraph(DeltaState)
            builder.add_node(
                "write",
                lambda state: {"files": {f"/{len(state['files'])}": "x" * 300}, "messages": []},
            )
            builder.add_edge(START, "write")
            return builder.compile(checkpointer=open())

        for turn in range(10):
            given: Any = Overwrite({"/new": "y"}) if turn == 6 else {"/same": str(turn)}
            graph().invoke({"files": given, "messages": [question(turn, 50)]}, thread)
        return graph().get_state(thread).values, history(graph(), thread)

    compare(open_saver, play)


def test_streams_show_updates_values_and_checkpoints(open_saver: OpenSaver) -> None:
    def play(open: OpenSaver) -> Any:
        graph, thread = chat_graph(open()), config_of(new_id())
        graph.invoke({"messages": [question(0)]}, thread)
        modes: Any = ["updates", "values", "tasks"]
        parts: Any = graph.stream({"messages": [question(1)]}, thread, stream_mode=modes)
        streamed = [(mode, part["name"] if mode == "tasks" else part) for mode, part in parts]
        checkpoints = graph.stream({"messages": [question(2)]}, thread, stream_mode="checkpoints")
        return streamed, [part["values"] for part in checkpoints]

    compare(open_saver, play)


@pytest.mark.anyio
async def test_an_async_graph_runs_on_an_async_store(async_store: AsyncStore) -> None:
    async with async_store as store:
        thread = config_of(new_id())
        for turn in range(3):
            graph = chat_graph(ChatledgerSaver(store))
            events = graph.astream({"messages": [question(turn)]}, thread)
            assert [update async for update in events] == [{"model": {"messages": [reply(turn)]}}]
        state = await graph.aget_state(thread)
        assert len(state.values["messages"]) == 6
        steps = [found.metadata["step"] async for found in graph.aget_state_history(thread)]  # type: ignore[index]
        assert steps == [*range(7, -2, -1)]


@pytest.mark.anyio
async def test_an_async_graph_runs_on_a_sync_store(store: Store) -> None:
    graph, thread = chat_graph(ChatledgerSaver(store)), config_of(new_id())
    await graph.ainvoke({"messages": [question(0)]}, thread)
    assert len((await graph.aget_state(thread)).values["messages"]) == 2
    assert len(graph.get_state(thread).values["messages"]) == 2
