"""Pruning, deleting runs and copying threads."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import MessagesState

from chatledger import Store, copy, open_store
from chatledger.errors import AlreadyExists, ChatledgerError, InvalidArgument, NotFound
from chatledger.langgraph import ChatledgerSaver
from chatledger.values import new_id
from tests.langgraph.graphs import DeltaState, chat_graph, config_of, fan_out_graph, question

STATES = pytest.mark.parametrize("state", [MessagesState, DeltaState], ids=["list", "delta"])


def run_turns(saver: Any, config: RunnableConfig, state: type, turns: range, **more: Any) -> None:
    graph = chat_graph(saver, state)
    for turn in turns:
        given: Any = {**config, **more}
        graph.invoke({"messages": [question(turn, 200)]}, given)


def conversation_of(thread: RunnableConfig) -> str:
    return f"chatledger:langgraph:{thread['configurable']['thread_id']}"


def stored_characters(store: Store, thread: RunnableConfig) -> int:
    return sum(len(found.content) for found in store.iter_messages(conversation_of(thread)))


@STATES
@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_pruned_thread_goes_on_from_its_newest_checkpoint(
    store: Store, state: type, is_same_process: bool
) -> None:
    thread = config_of(new_id())
    saver = ChatledgerSaver(store)
    run_turns(saver, thread, state, range(30))
    graph = chat_graph(saver, state)
    before, size = graph.get_state(thread), stored_characters(store, thread)
    pruner = saver if is_same_process else ChatledgerSaver(store)
    pruner.prune([thread["configurable"]["thread_id"]])
    for each in (saver, ChatledgerSaver(store)):
        assert len(list(each.list(thread))) == 1
        after = chat_graph(each, state).get_state(thread)
        assert (after.values, after.next) == (before.values, before.next)
    assert stored_characters(store, thread) < (0.7 if state is MessagesState else 0.9) * size
    run_turns(saver, thread, state, range(30, 40))
    values = chat_graph(ChatledgerSaver(store), state).get_state(thread).values
    assert values["messages"][:60] == before.values["messages"]
    assert len(values["messages"]) == 80
    pruner.prune([thread["configurable"]["thread_id"]])
    values_again = chat_graph(ChatledgerSaver(store), state).get_state(thread).values
    assert values_again == values


def test_the_delta_history_of_a_pruned_thread_is_as_before(store: Store) -> None:
    thread, saver = config_of(new_id()), ChatledgerSaver(store)
    run_turns(saver, thread, DeltaState, range(7))
    newest = saver.get_tuple(thread)
    assert newest is not None
    before = saver.get_delta_channel_history(config=newest.config, channels=["messages"])
    saver.prune([thread["configurable"]["thread_id"]])
    after = saver.get_delta_channel_history(config=newest.config, channels=["messages"])
    assert after == before
    assert newest.parent_config is not None
    assert saver.get_tuple(newest.parent_config) is None, "it is hidden"


@STATES
def test_the_delta_history_is_that_of_the_base_class(store: Store, state: type) -> None:
    thread, saver = config_of(new_id()), ChatledgerSaver(store)
    run_turns(saver, thread, state, range(30))
    for found in [*saver.list(thread, limit=12), *saver.list(thread, filter={"step": 3})]:
        for channels in (["messages"], ["messages", "branch:to:model", "no such channel"]):
            expected = BaseCheckpointSaver.get_delta_channel_history(
                saver, config=found.config, channels=channels
            )
            history = saver.get_delta_channel_history(config=found.config, channels=channels)
            assert history == expected


def test_each_namespace_keeps_its_newest_checkpoint(store: Store) -> None:
    thread, saver = config_of(new_id()), ChatledgerSaver(store)
    fan_out_graph(saver, 3).invoke({"done": []}, thread)
    namespaces = {found.config["configurable"]["checkpoint_ns"] for found in saver.list(thread)}
    newest = {
        namespace: saver.get_tuple(config_of(**thread["configurable"], checkpoint_ns=namespace))
        for namespace in namespaces
    }
    saver.prune([thread["configurable"]["thread_id"]])
    assert len(namespaces) > 1
    for namespace, found in newest.items():
        config = config_of(**thread["configurable"], checkpoint_ns=namespace)
        assert [*saver.list(config)] == [found._replace(parent_config=None)]  # type: ignore[union-attr]


@STATES
def test_the_runs_that_are_deleted_leave_the_others_as_they_were(store: Store, state: type) -> None:
    thread, saver = config_of(new_id()), ChatledgerSaver(store)
    for turn in range(4):
        run_turns(saver, thread, state, range(turn, turn + 1), metadata={"run_id": f"run {turn}"})
    before = [*saver.list(thread)]
    values = chat_graph(saver, state).get_state(thread).values
    saver.delete_for_runs(["run 0", "run 2"])
    kept = [found.checkpoint["id"] for found in before if found.metadata["run_id"][-1] in "13"]
    other = ChatledgerSaver(store)
    assert [found.checkpoint["id"] for found in other.list(thread)] == kept
    assert chat_graph(other, state).get_state(thread).values == values
    saver.delete_for_runs(["run 1", "run 3"])
    assert [*other.list(thread)] == []


@STATES
def test_a_copied_thread_is_equal_and_goes_its_own_way(store: Store, state: type) -> None:
    thread, copied = config_of(new_id(), user_id="bob"), config_of(new_id(), user_id="bob")
    saver = ChatledgerSaver(store, owner_key="user_id", expires_in=timedelta(days=9))
    run_turns(saver, thread, state, range(5))
    ids = [each["configurable"]["thread_id"] for each in (thread, copied)]
    saver.copy_thread(*ids)
    original, copies = ([*saver.list(each)] for each in (thread, copied))
    assert [found.checkpoint for found in copies] == [found.checkpoint for found in original]
    assert [found.pending_writes for found in copies] == [
        found.pending_writes for found in original
    ]
    conversation = store.get(conversation_of(copied), owner="bob")
    assert conversation.expires_at == store.get(conversation_of(thread)).expires_at
    run_turns(saver, copied, state, range(5, 7))
    counts = [
        len(chat_graph(saver, state).get_state(each).values["messages"])
        for each in (thread, copied)
    ]
    assert counts == [10, 14]
    with pytest.raises(ChatledgerError):
        saver.copy_thread(*ids)


def test_a_copy_of_a_pruned_thread_is_readable(store: Store) -> None:
    thread, copied = config_of(new_id()), config_of(new_id())
    saver = ChatledgerSaver(store)
    run_turns(saver, thread, DeltaState, range(8))
    saver.prune([thread["configurable"]["thread_id"]])
    run_turns(saver, thread, DeltaState, range(8, 9))
    saver.copy_thread(thread["configurable"]["thread_id"], copied["configurable"]["thread_id"])
    graph = chat_graph(ChatledgerSaver(store), DeltaState)
    assert graph.get_state(copied).values == graph.get_state(thread).values


def test_a_shown_thread_is_copied_with_its_conversation(store: Store) -> None:
    saver = ChatledgerSaver(store, messages="conversation")
    thread, copied = config_of(new_id()), config_of(new_id())
    run_turns(saver, thread, MessagesState, range(3))
    saver.copy_thread(thread["configurable"]["thread_id"], copied["configurable"]["thread_id"])
    assert store.get(copied["configurable"]["thread_id"]).message_count == 6
    graph = chat_graph(saver)
    assert graph.get_state(copied).values == graph.get_state(thread).values
    with pytest.raises(AlreadyExists):
        saver.copy_thread(thread["configurable"]["thread_id"], copied["configurable"]["thread_id"])


def test_a_thread_is_not_copied_onto_another_not_even_its_conversation(store: Store) -> None:
    saver = ChatledgerSaver(store, messages="conversation")
    source, target = new_id(), new_id()
    run_turns(saver, config_of(source), MessagesState, range(1))
    run_turns(ChatledgerSaver(store), config_of(target), MessagesState, range(1))
    with pytest.raises(AlreadyExists):
        saver.copy_thread(source, target)
    with pytest.raises(NotFound):
        store.get(target)


@pytest.mark.parametrize("run_ids", [[None], "run", [1]])
def test_run_ids_that_are_no_texts_delete_nothing(store: Store, run_ids: Any) -> None:
    saver, thread = ChatledgerSaver(store), config_of(new_id())
    run_turns(saver, thread, MessagesState, range(1))
    with pytest.raises(InvalidArgument, match="run_ids"):
        saver.delete_for_runs(run_ids)
    assert saver.get_tuple(thread) is not None


def test_one_text_is_not_taken_for_many_thread_ids(store: Store) -> None:
    saver, thread = ChatledgerSaver(store), config_of("x")
    run_turns(saver, thread, MessagesState, range(1))
    with pytest.raises(InvalidArgument, match="thread_ids"):
        saver.prune("x1", strategy="delete")
    assert saver.get_tuple(thread) is not None
    saver.delete_thread("x")


def test_an_unknown_strategy_is_refused(store: Store) -> None:
    with pytest.raises(InvalidArgument, match="keep_latest"):
        ChatledgerSaver(store).prune([new_id()], strategy="keep_all")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Store]:
    """A store that holds only what the test writes."""
    with open_store(f"sqlite:///{tmp_path}/chatledger.db") as store:
        yield store


def test_all_threads_or_those_of_an_owner_are_listed(file: Store) -> None:
    saver = ChatledgerSaver(file, owner_key="user_id")
    for owner in ("alice", "alice", "bob"):
        run_turns(saver, config_of(new_id(), user_id=owner), MessagesState, range(1))
    assert (
        len(
            {
                found.config["configurable"]["thread_id"]
                for found in ChatledgerSaver(file).list(None)
            }
        )
        == 3
    )
    alices = [*saver.list({"configurable": {"user_id": "alice"}})]
    assert len({found.config["configurable"]["thread_id"] for found in alices}) == 2
    assert {found.config["configurable"]["user_id"] for found in alices} == {"alice"}
    assert len([*saver.list({"configurable": {"user_id": "alice"}}, limit=4)]) == 4
    with pytest.raises(InvalidArgument, match="user_id"):
        next(saver.list(None))


def test_threads_expire_and_are_copied_between_stores_as_conversations_do(
    file: Store, tmp_path: Path
) -> None:
    thread, saver = config_of(new_id()), ChatledgerSaver(file)
    run_turns(saver, thread, DeltaState, range(3))
    with open_store(f"sqlite:///{tmp_path}/other.db") as other:
        copy(file, other)
        there = chat_graph(ChatledgerSaver(other), DeltaState)
        assert (
            there.get_state(thread).values == chat_graph(saver, DeltaState).get_state(thread).values
        )
