"""Graphs for the tests, with models whose replies are known in advance."""

import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from tests.stores.dynamodb.sample_text import sample_text

Graph = CompiledStateGraph[Any, Any, Any, Any]


class DeltaState(TypedDict):
    messages: Annotated[
        list[BaseMessage], DeltaChannel(_messages_delta_reducer, snapshot_frequency=50)
    ]


def new_uuid(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, name))


def question(turn: int, length: int = 1_000) -> HumanMessage:
    """Return the question of a turn, in English prose."""
    return HumanMessage(sample_text(2 * turn, length), id=new_uuid(f"question {turn}"))


def reply(turn: int, length: int = 1_000) -> AIMessage:
    """Return the reply of a turn, with the fields that a model of LangChain fills in."""
    return AIMessage(
        sample_text(2 * turn + 1, length),
        id=f"lc_run--{new_uuid(f'reply {turn}')}",
        response_metadata={"finish_reason": "stop", "model_name": "scripted"},
        usage_metadata={"input_tokens": 812, "output_tokens": 231, "total_tokens": 1043},
    )


def chat_graph(
    saver: BaseCheckpointSaver[Any] | None,
    state: type = MessagesState,
    *,
    answer: Callable[[Sequence[BaseMessage]], BaseMessage] | None = None,
) -> Graph:
    """Return a graph of one node, ``model``, which answers the messages."""

    def model(state: Any) -> dict[str, Any]:
        messages = state["messages"]
        return {"messages": [answer(messages) if answer else reply(len(messages) // 2)]}

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(state)
    builder.add_node("model", model)
    builder.add_edge(START, "model")
    return builder.compile(checkpointer=saver)


def config_of(thread_id: str, **configurable: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **configurable}}


class FanOutState(TypedDict):
    done: Annotated[list[int], operator.add]


def fan_out_graph(saver: BaseCheckpointSaver[Any], width: int) -> Graph:
    """Return a graph that runs ``width`` subgraphs at once, each with checkpoints of its own."""

    class TaskState(TypedDict):
        number: int
        done: Annotated[list[int], operator.add]

    inner = StateGraph(TaskState)
    inner.add_node("begin", lambda state: {})
    inner.add_node("finish", lambda state: {"done": [state["number"]]})
    inner.add_edge(START, "begin")
    inner.add_edge("begin", "finish")
    builder = StateGraph(FanOutState)
    builder.add_node("plan", lambda state: {})
    builder.add_node("task", inner.compile())
    builder.add_edge(START, "plan")
    builder.add_conditional_edges(
        "plan", lambda state: [Send("task", {"number": n, "done": []}) for n in range(width)]
    )
    builder.add_edge("task", END)
    return builder.compile(checkpointer=saver)
