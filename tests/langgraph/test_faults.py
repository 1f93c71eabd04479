"""Processes that end between any two operations of the store, and lost replies."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import MessagesState

from chatledger import Store, open_store
from chatledger.errors import NotFound, StoreUnavailable
from chatledger.langgraph import ChatledgerSaver
from chatledger.values import new_id
from tests.langgraph.graphs import DeltaState, chat_graph, config_of, question, reply
from tests.langgraph.stores import FailingStore, Killed, LaggingStore, lost_reply

STATES = pytest.mark.parametrize("state", [MessagesState, DeltaState], ids=["list", "delta"])
PERFORMS = pytest.mark.parametrize("performs", [False, True], ids=["before", "after"])


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with open_store(f"sqlite:///{tmp_path}/chatledger.db") as store:
        yield store


def finish(store: Store, thread: Any, state: type, turn: int, **options: Any) -> list[Any]:
    """Finish the turn in another process, wherever the first one ended; return the messages."""
    graph = chat_graph(ChatledgerSaver(store, **options), state)
    before = graph.get_state(thread)
    ids = [message.id for message in before.values.get("messages", [])]
    begun = question(turn).id in ids or any(task.name == "__start__" for task in before.tasks)
    if not begun:
        graph.invoke({"messages": [question(turn)]}, thread)
    elif before.tasks:
        graph.invoke(None, thread)
    messages: list[Any] = graph.get_state(thread).values["messages"]
    return messages


@STATES
@PERFORMS
@pytest.mark.parametrize("messages", [None, "conversation"], ids=["alone", "shown"])
def test_a_run_that_ends_at_any_operation_is_finished_by_another(
    store: Store, state: type, performs: bool, messages: Any
) -> None:
    expected = [message for turn in range(2) for message in (question(turn), reply(turn))]
    for n in count():
        thread_id = new_id()
        thread = config_of(thread_id)
        options = {"messages": messages}
        chat_graph(ChatledgerSaver(store, **options), state).invoke(
            {"messages": [question(0)]}, thread
        )
        failing = FailingStore(store, n, performs=performs)
        graph = chat_graph(ChatledgerSaver(failing, **options), state)
        with suppress(Killed):
            graph.invoke({"messages": [question(1)]}, thread, durability="sync")
        assert finish(store, thread, state, 1, **options) == expected, n
        if messages:
            shown = [message.id for message in store.page(thread_id).messages]
            assert shown == [message.id for message in expected], n
        if not failing.has_failed:
            break
    assert n > 5


@PERFORMS
def test_a_lost_reply_is_not_noticed(store: Store, performs: bool) -> None:
    for n in count():
        thread = config_of(new_id())
        failing = FailingStore(store, n, error=lost_reply, performs=performs, goes_on=True)
        graph = chat_graph(ChatledgerSaver(failing))
        try:
            graph.invoke({"messages": [question(0)]}, thread)
        except StoreUnavailable:
            assert n == 0, "only a read is not repeated"
            continue
        assert len(list(ChatledgerSaver(store).list(thread))) == 3
        records = store.get(f"chatledger:langgraph:{thread['configurable']['thread_id']}")
        assert records.message_count == 5, "each record is there once"
        if not failing.has_failed:
            break
    assert n == 6


def test_a_store_that_stays_away_is_reported(store: Store) -> None:
    thread = config_of(new_id())
    failing = FailingStore(store, 1, error=lost_reply, performs=False)
    with pytest.raises(StoreUnavailable):
        chat_graph(ChatledgerSaver(failing)).invoke({"messages": [question(0)]}, thread)


def test_a_read_that_lags_behind_does_not_hide_what_this_process_has_written(store: Store) -> None:
    graph, thread = chat_graph(ChatledgerSaver(LaggingStore(store))), config_of(new_id())
    for turn in range(4):
        graph.invoke({"messages": [question(turn, 50)]}, thread)
        assert len(graph.get_state(thread).values["messages"]) == 2 * turn + 2


def test_a_thread_that_is_deleted_during_a_run_does_not_come_back_in_part(store: Store) -> None:
    thread_id = new_id()
    saver = ChatledgerSaver(store)

    def delete(messages: Any) -> Any:
        ChatledgerSaver(store).delete_thread(thread_id)
        return reply(0)

    graph = chat_graph(saver, answer=delete)
    with pytest.raises(ValueError, match="has no checkpoint"):
        graph.invoke({"messages": [question(0)]}, config_of(thread_id), durability="sync")
    assert graph.get_state(config_of(thread_id)).values == {}


def test_a_thread_that_begins_anew_shows_nothing_of_the_former_one(store: Store) -> None:
    thread_id = new_id()
    one, other = (chat_graph(ChatledgerSaver(store)) for _ in range(2))
    one.invoke({"messages": [question(0)]}, config_of(thread_id))
    ChatledgerSaver(store).delete_thread(thread_id)
    assert one.get_state(config_of(thread_id)).values == {}
    other.invoke({"messages": [question(1)]}, config_of(thread_id))
    assert other.get_state(config_of(thread_id)).values["messages"][0] == question(1)
    assert one.get_state(config_of(thread_id)).values["messages"][0] == question(1)


def test_a_deleted_owner_has_no_threads(store: Store) -> None:
    saver = ChatledgerSaver(store, owner_key="user_id")
    owned = config_of(new_id(), user_id="alice")
    chat_graph(saver).invoke({"messages": [question(0)]}, owned)
    assert store.list("alice").conversations == []
    assert store.delete_owner("alice") == 1
    assert saver.get_tuple(owned) is None
    with pytest.raises(NotFound):
        store.get(f"chatledger:langgraph:{owned['configurable']['thread_id']}")


PROCESS = """
import sys, time
from chatledger import open_store
from chatledger.langgraph import ChatledgerSaver
from langchain_core.messages import AIMessage
from tests.langgraph.graphs import chat_graph, config_of, question

def answer(messages):
    print(len(messages), flush=True)
    time.sleep(0.01)
    return AIMessage("hello")

graph = chat_graph(ChatledgerSaver(open_store(sys.argv[1])), answer=answer)
for turn in range(int(sys.argv[2]), 10_000):
    graph.invoke({"messages": [question(turn, 20)]}, config_of("1"))
"""


def test_a_process_that_is_killed_leaves_a_thread_that_goes_on(tmp_path: Path) -> None:
    url, turns, root = f"sqlite:///{tmp_path}/killed.db", 0, Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", PROCESS, url, str(turns)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(5)]
            process.send_signal(signal.SIGKILL)
        with open_store(url) as store:
            graph = chat_graph(ChatledgerSaver(store))
            state = graph.get_state(config_of("1"))
            if state.tasks:
                graph.invoke(None, config_of("1"))
            messages = graph.get_state(config_of("1")).values["messages"]
            # The last question may not have been stored, but all before it were answered.
            assert len(messages) >= int(lines[-1]) - 1
            assert len(messages) % 2 == 0
            asked = [message.id for message in messages[::2]]
            assert asked == [question(turn, 20).id for turn in range(len(asked))]
            turns = len(asked)
