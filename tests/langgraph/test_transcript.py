"""A conversation that shows the messages of a thread, and threads that begin with messages."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
)
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Overwrite, interrupt

from chatledger import Message, Store
from chatledger.errors import AlreadyExists, InvalidMessage, MessageTooLarge, NotFound
from chatledger.langchain import ChatMessageHistory, from_chatledger
from chatledger.langgraph import ChatledgerSaver
from chatledger.stores.operations import Append
from chatledger.values import new_id
from tests.langgraph.graphs import DeltaState, Graph, chat_graph, config_of, question, reply
from tests.langgraph.memory import WatchedStore

STATES = pytest.mark.parametrize("state", [MessagesState, DeltaState], ids=["list", "delta"])


def open_graph(store: Store, state: type = MessagesState, **options: Any) -> Graph:
    return chat_graph(ChatledgerSaver(store, messages="conversation", **options), state)


def shown_by(store: Store, conversation_id: str) -> list[Any]:
    return [*map(from_chatledger, store.iter_messages(conversation_id))]


def put_messages(saver: ChatledgerSaver, config: Any, *messages: Any) -> Any:
    """Put a checkpoint with these messages, and return its config."""
    config = {"configurable": {"checkpoint_ns": "", **config["configurable"]}}
    return saver.put(config, checkpoint_of(*messages), {}, {"messages": 1})


def checkpoint_of(*messages: Any) -> Checkpoint:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"messages": [*messages]}
    checkpoint["channel_versions"] = {"messages": 1}
    return checkpoint


@STATES
@pytest.mark.parametrize("durability", ["async", "exit"])
def test_the_conversation_shows_each_message_once(
    store: Store, state: type, durability: Any
) -> None:
    thread_id = new_id()
    expected = []
    for turn in range(4):
        graph = open_graph(store, state)  # another process each time
        for n in (2 * turn, 2 * turn + 1):
            graph.invoke(
                {"messages": [question(n, 50)]}, config_of(thread_id), durability=durability
            )
            expected += [question(n, 50), reply(n)]
        assert shown_by(store, thread_id) == expected


def raise_error() -> Any:
    raise RuntimeError


@STATES
@pytest.mark.parametrize(
    ("act", "shown"),
    [
        (lambda: AIMessage("Bye-bye!"), ["Hi!", "Hello!", "Bye!", "Bye-bye!"]),
        (lambda: SystemMessage("Left."), ["Hi!", "Hello!", "Bye!", "Left."]),
        (lambda: AIMessage(interrupt("Really?")), ["Hi!", "Hello!", "Bye!"]),
        (raise_error, ["Hi!", "Hello!", "Bye!"]),
    ],
    ids=["reply", "no reply", "interrupt", "error"],
)
def test_a_question_is_shown_with_its_reply_or_once_the_run_stops(
    store: Store, state: type, act: Callable[[], BaseMessage], shown: list[str]
) -> None:
    thread_id, meanwhile = new_id(), list[str]()

    def texts() -> list[str]:
        return [found.text for found in shown_by(store, thread_id)]

    def answer(messages: Any) -> BaseMessage:
        if len(messages) == 1:
            return AIMessage("Hello!")
        meanwhile[:] = texts()
        return act()

    graph = chat_graph(ChatledgerSaver(store, messages="conversation"), state, answer=answer)
    graph.invoke({"messages": [HumanMessage("Hi!")]}, config_of(thread_id))
    with suppress(RuntimeError):
        graph.invoke({"messages": [HumanMessage("Bye!")]}, config_of(thread_id), durability="sync")
    assert meanwhile == ["Hi!", "Hello!"]
    assert texts() == shown


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_question_without_a_reply_is_shown_when_the_thread_is_read(
    store: Store, is_same_process: bool
) -> None:
    thread_id = new_id()
    saver = ChatledgerSaver(store, messages="conversation")
    first = put_messages(saver, config_of(thread_id), question(0), reply(0))
    put_messages(saver, first, question(0), reply(0), question(1))
    assert shown_by(store, thread_id) == [question(0), reply(0)]
    if not is_same_process:
        saver = ChatledgerSaver(store, messages="conversation")
    for _ in range(2):
        saver.get_tuple(config_of(thread_id))
        assert shown_by(store, thread_id) == [question(0), reply(0), question(1)]


def test_a_question_that_another_process_left_is_shown_to_one_that_knows_the_thread(
    store: Store,
) -> None:
    thread_id = new_id()
    one, other = (ChatledgerSaver(store, messages="conversation") for _ in range(2))
    first = put_messages(one, config_of(thread_id), question(0), reply(0))
    assert other.get_tuple(first) is not None
    put_messages(one, first, question(0), reply(0), question(1))
    other.get_tuple(config_of(thread_id))
    assert shown_by(store, thread_id) == [question(0), reply(0), question(1)]


@pytest.mark.parametrize("channel", [ERROR, INTERRUPT])
@pytest.mark.parametrize("is_other_process_between", [False, True])
def test_a_question_of_a_run_that_has_stopped_is_shown_whatever_is_stored_first(
    store: Store, channel: str, is_other_process_between: bool
) -> None:
    thread_id = new_id()
    saver = ChatledgerSaver(store, messages="conversation")
    first = put_messages(saver, config_of(thread_id), question(0), reply(0))
    messages = [question(0), reply(0), question(1)]
    if is_other_process_between:
        second = put_messages(saver, first, *messages)
        ChatledgerSaver(store).put_writes(second, [("other", 1)], "other task")
        saver.put_writes(second, [(channel, "why")], "task")
    else:
        checkpoint = checkpoint_of(*messages)
        second = config_of(**{**first["configurable"], "checkpoint_id": checkpoint["id"]})
        saver.put_writes(second, [(channel, "why")], "task")
        saver.put(first, checkpoint, {}, {"messages": 1})
    assert shown_by(store, thread_id) == messages


def test_an_owners_list_shows_the_conversation_and_not_the_thread(store: Store) -> None:
    owner, thread_id = new_id(), new_id()
    graph = open_graph(store, owner_key="user_id")
    graph.invoke({"messages": [question(0)]}, config_of(thread_id, user_id=owner))
    assert [found.id for found in store.list(owner).conversations] == [thread_id]
    assert store.list(owner).conversations[0].message_count == 2


def test_the_conversation_keeps_what_the_graph_removes(store: Store) -> None:
    thread_id, graph = new_id(), open_graph(store)
    graph.invoke({"messages": [question(0)]}, config_of(thread_id))
    removal = RemoveMessage(id=question(0).id or "")
    graph.invoke({"messages": [removal, question(1)]}, config_of(thread_id))
    assert question(0) in shown_by(store, thread_id)
    assert question(0) not in graph.get_state(config_of(thread_id)).values["messages"]
    assert len(shown_by(store, thread_id)) == 4


@pytest.mark.parametrize("turns", [1, 12])
@pytest.mark.parametrize("is_same_process", [True, False])
@STATES
def test_a_new_message_is_shown_though_the_graph_writes_an_older_one_again(
    store: Store, state: type, is_same_process: bool, turns: int
) -> None:
    def graph() -> Graph:
        saver = ChatledgerSaver(store, messages="conversation")
        return chat_graph(saver, state, answer=lambda messages: messages[0])

    thread_id, again = new_id(), graph()
    for turn in range(turns):
        again = again if is_same_process else graph()
        asked = [question(turn, 50), question(0, 50)]
        again.invoke({"messages": asked}, config_of(thread_id), durability="exit")
    assert shown_by(store, thread_id) == [question(turn, 50) for turn in range(turns)]


def test_a_message_that_the_graph_inserts_before_shown_ones_is_shown(store: Store) -> None:
    thread_id = new_id()
    saver = ChatledgerSaver(store, messages="conversation")
    first = put_messages(saver, config_of(thread_id), question(0), reply(0), question(1), reply(1))
    summary = SystemMessage("They talked.", id="summary")
    put_messages(saver, first, summary, question(1), reply(1))
    assert saver.get_tuple(config_of(thread_id)) is not None
    assert shown_by(store, thread_id)[4:] == [summary]


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_summary_of_a_long_conversation_is_shown(store: Store, is_same_process: bool) -> None:
    thread_id = new_id()
    saver = ChatledgerSaver(store, messages="conversation")
    said = [message for turn in range(15) for message in (question(turn, 50), reply(turn, 50))]
    before = put_messages(saver, config_of(thread_id), *said)
    if not is_same_process:
        saver = ChatledgerSaver(store, messages="conversation")
        assert saver.get_tuple(before) is not None
    summary = SystemMessage("They talked.", id="summary")
    kept = [summary, *said[-4:], question(15, 50)]
    between = put_messages(saver, before, *kept)
    put_messages(saver, between, *kept, reply(15, 50))
    put_messages(saver, before, *said, question(16, 50), reply(16, 50))
    added = [summary, question(15, 50), reply(15, 50), question(16, 50), reply(16, 50)]
    assert shown_by(store, thread_id) == [*said, *added]


def remove_all(messages: list[Any]) -> Any:
    return [RemoveMessage(id=REMOVE_ALL_MESSAGES), *messages]


@pytest.mark.parametrize("is_read_meanwhile", [False, True])
@pytest.mark.parametrize(
    "replace_all",
    [
        remove_all,
        Overwrite,
        lambda messages: {"__overwrite__": messages},
        lambda messages: {"type": "__overwrite__", "value": messages},
    ],
    ids=["remove", "Overwrite", "dict", "erased"],
)
@STATES
def test_a_question_that_is_replaced_with_its_reply_is_shown(
    store: Store, state: type, replace_all: Any, is_read_meanwhile: bool
) -> None:
    thread_id, turns = new_id(), 3
    saver = ChatledgerSaver(store, messages="conversation")

    def model(given: Any) -> Any:
        turn = int(given["messages"][-1].text)
        if is_read_meanwhile:
            saver.get_tuple(config_of(thread_id))
        summary = SystemMessage(f"Summary {turn}", id=f"summary {turn}")
        return {"messages": replace_all([summary, AIMessage(f"{turn}!", id=f"reply {turn}")])}

    builder: Any = StateGraph(state)
    builder.add_node("model", model)
    builder.add_edge(START, "model")
    graph = builder.compile(checkpointer=saver)
    for turn in range(turns):
        asked = HumanMessage(f"{turn}", id=f"question {turn}")
        graph.invoke({"messages": [asked]}, config_of(thread_id), durability="sync")
    texts = [found.text for found in shown_by(store, thread_id)]
    assert texts == [
        text for turn in range(turns) for text in (f"{turn}", f"Summary {turn}", f"{turn}!")
    ]


def test_deleting_the_thread_deletes_the_conversation(store: Store) -> None:
    thread_id, graph = new_id(), open_graph(store)
    graph.invoke({"messages": [question(0)]}, config_of(thread_id))
    ChatledgerSaver(store, messages="conversation").delete_thread(thread_id)
    with pytest.raises(NotFound):
        store.get(thread_id)
    assert graph.get_state(config_of(thread_id)).values == {}


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_thread_ends_if_its_conversation_was_deleted(store: Store, is_same_process: bool) -> None:
    thread_id, graph = new_id(), open_graph(store)
    graph.invoke({"messages": [question(0)]}, config_of(thread_id))
    graph.invoke({"messages": [question(1)]}, config_of(thread_id))
    store.delete(thread_id)
    graph = graph if is_same_process else open_graph(store)
    result = graph.invoke({"messages": [question(9)]}, config_of(thread_id))
    assert len(result["messages"]) == 2
    assert len(shown_by(store, thread_id)) == 2


@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_thread_of_one_checkpoint_ends_with_its_conversation_too(
    store: Store, is_same_process: bool
) -> None:
    thread_id = new_id()
    saver = ChatledgerSaver(store, messages="conversation")
    saver.seed_thread(thread_id, [question(0)])
    store.delete(thread_id)
    if not is_same_process:
        saver = ChatledgerSaver(store, messages="conversation")
    assert saver.get_tuple(config_of(thread_id)) is None
    with pytest.raises(NotFound):
        store.get(thread_id)


@pytest.mark.parametrize("is_pruned", [True, False])
@pytest.mark.parametrize("is_same_process", [True, False])
def test_a_thread_ends_though_another_conversation_has_its_id(
    store: Store, is_same_process: bool, is_pruned: bool
) -> None:
    thread_id, graph = new_id(), open_graph(store)
    graph.invoke({"messages": [question(0)]}, config_of(thread_id))
    if is_pruned:
        ChatledgerSaver(store).prune([thread_id])
    store.delete(thread_id)
    store.append(thread_id, [Message.user("Something else")])
    graph = graph if is_same_process else open_graph(store)
    assert [*graph.get_state_history(config_of(thread_id))] == []
    assert graph.get_state(config_of(thread_id)).values == {}
    assert [found.text for found in shown_by(store, thread_id)] == ["Something else"]


def test_a_copied_thread_ends_with_its_own_conversation(store: Store) -> None:
    thread_id, copied = new_id(), new_id()
    open_graph(store).invoke({"messages": [question(0)]}, config_of(thread_id))
    ChatledgerSaver(store).copy_thread(thread_id, copied)
    store.delete(thread_id)
    assert len(open_graph(store).get_state(config_of(copied)).values["messages"]) == 2
    store.delete(copied)
    assert open_graph(store).get_state(config_of(copied)).values == {}


def test_a_conversation_that_is_deleted_during_a_run_stays_deleted(store: Store) -> None:
    thread_id = new_id()

    def delete(messages: Any) -> AIMessage:
        store.delete(thread_id)
        return AIMessage("hello")

    open_graph(store).invoke({"messages": [question(0)]}, config_of(thread_id))
    graph = chat_graph(ChatledgerSaver(store, messages="conversation"), answer=delete)
    graph.invoke({"messages": [question(1)]}, config_of(thread_id), durability="sync")
    with pytest.raises(NotFound):
        store.get(thread_id)
    assert open_graph(store).get_state(config_of(thread_id)).values == {}


def test_a_message_that_no_conversation_can_hold_is_refused(store: Store) -> None:
    thread_id, graph = new_id(), open_graph(store)
    graph.invoke({"messages": [question(0)]}, config_of(thread_id))
    before = graph.get_state(config_of(thread_id))
    bad = HumanMessage("hello", additional_kwargs={"image": b"bytes"})
    with pytest.raises(InvalidMessage, match="bytes"):
        graph.invoke({"messages": [bad]}, config_of(thread_id), durability="exit")
    assert graph.get_state(config_of(thread_id)).values == before.values


def test_a_stranger_who_knows_the_id_of_a_conversation_does_not_take_its_thread(
    store: Store,
) -> None:
    saver = ChatledgerSaver(store, owner_key="user_id", messages="conversation")
    thread_id, eve, bob = new_id(), new_id(), new_id()
    store.append(thread_id, [Message.user("Hi, I'm Eve")], owner=eve)
    with pytest.raises(NotFound):
        put_messages(saver, config_of(thread_id, user_id=bob), question(0))
    assert saver.get_tuple(config_of(thread_id, user_id=bob)) is None
    put_messages(saver, config_of(thread_id, user_id=eve), question(1), reply(1))
    texts = ["Hi, I'm Eve", question(1).text, reply(1).text]
    assert [found.text for found in shown_by(store, thread_id)] == texts


def test_an_owner_who_begins_a_conversation_while_a_stranger_begins_its_thread_gets_both(
    store: Store,
) -> None:
    thread_id, eve, bob = new_id(), new_id(), new_id()

    class Rival(WatchedStore):
        def perform(self, operation: Any) -> Any:
            if isinstance(operation, Append) and operation.conversation_id == thread_id:
                store.append(thread_id, [Message.user("Hi, I'm Eve")], owner=eve)
            return super().perform(operation)

    options: Any = {"owner_key": "user_id", "messages": "conversation"}
    with pytest.raises(NotFound):
        put_messages(
            ChatledgerSaver(Rival(store), **options), config_of(thread_id, user_id=bob), question(0)
        )
    saver = ChatledgerSaver(store, **options)
    put_messages(saver, config_of(thread_id, user_id=eve), question(1))
    assert saver.get_tuple(config_of(thread_id, user_id=bob)) is None


def test_a_message_that_is_too_long_for_the_conversation_leaves_the_thread_as_it_was(
    store: Store,
) -> None:
    saver, config = ChatledgerSaver(store, messages="conversation"), config_of(new_id())
    with pytest.raises(MessageTooLarge):
        put_messages(saver, config, HumanMessage("x" * 17_000_000, id="1"))
    assert saver.get_tuple(config) is None


def test_a_thread_may_begin_with_more_messages_than_one_append_takes(store: Store) -> None:
    thread_id = new_id()
    saver = ChatledgerSaver(store, messages="conversation")
    saver.seed_thread(thread_id, [HumanMessage("Hi", id=str(n)) for n in range(10_001)])
    assert store.get(thread_id).message_count == 10_001


def test_a_thread_with_a_message_that_no_conversation_can_hold_can_still_be_read(
    store: Store,
) -> None:
    config = config_of(new_id())
    unfit = HumanMessage("Hi", id="1", additional_kwargs={"photo": b"..."})
    put_messages(ChatledgerSaver(store), config, unfit)
    assert ChatledgerSaver(store, messages="conversation").get_tuple(config) is not None


@STATES
def test_a_thread_begins_with_the_messages_of_a_history(store: Store, state: type) -> None:
    history = ChatMessageHistory(store, new_id())
    history.add_messages([SystemMessage("Be brief."), question(0), reply(0)])
    thread_id = new_id()
    saver = ChatledgerSaver(store)
    saver.seed_thread(thread_id, history.messages)
    result = chat_graph(saver, state).invoke({"messages": [question(1)]}, config_of(thread_id))
    assert [message.content for message in result["messages"][:4]] == [
        *(message.content for message in history.messages),
        question(1).content,
    ]
    with pytest.raises(AlreadyExists):
        saver.seed_thread(thread_id, history.messages)


@STATES
def test_a_conversation_goes_on_as_the_thread_that_it_shows(store: Store, state: type) -> None:
    conversation_id = new_id()
    store.append(conversation_id, [Message.user("Hi"), Message.assistant("Hello, Bob!")])
    saver = ChatledgerSaver(store, messages="conversation")
    saver.seed_thread(conversation_id, conversation_id)
    chat_graph(saver, state).invoke({"messages": [question(1)]}, config_of(conversation_id))
    texts = [message.text for message in store.page(conversation_id).messages]
    assert texts == ["Hi", "Hello, Bob!", question(1).text, texts[-1]]


def test_a_thread_is_seeded_though_a_run_has_written_after_it_was_deleted(store: Store) -> None:
    thread_id, saver = new_id(), ChatledgerSaver(store)
    put = saver.seed_thread(thread_id, [question(0)])
    saver.delete_thread(thread_id)
    saver.put_writes(put, [("messages", [reply(0)])], "task")
    saver.seed_thread(thread_id, [question(1)])
    values = chat_graph(saver).get_state(config_of(thread_id)).values
    assert values["messages"] == [question(1)]


@pytest.mark.anyio
async def test_threads_are_seeded_asynchronously_too(store: Store) -> None:
    saver, thread_id = ChatledgerSaver(store), new_id()
    config = await saver.aseed_thread(thread_id, [question(0)])
    found = await saver.aget_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"messages": [question(0)]}
    with pytest.raises(NotFound):
        await saver.aseed_thread(new_id(), new_id())
