"""``ChatMessageHistory`` on stores of each kind."""

from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from chatledger import InvalidArgument, Message, NotFound, Store, open_store
from chatledger.langchain import (
    ChatMessageHistory,
    MessagePage,
    owned_session_factory,
    session_factory,
)
from chatledger.values import new_id
from tests.langchain.sample_messages import CONVERSATION, SYNC_METHODS, RecordingStore


@pytest.fixture
def history(store: Store) -> ChatMessageHistory:
    return ChatMessageHistory(store, new_id())


# Reading and writing ------------------------------------------------------------------------------


def test_added_messages_are_read_back_in_order(history: ChatMessageHistory) -> None:
    history.add_messages(CONVERSATION[:3])
    history.add_user_message("Whats my name")
    history.add_ai_message(AIMessage("bob"))
    assert history.messages == CONVERSATION
    assert str(history).splitlines()[1] == "Human: Hi! I'm bob"


@pytest.mark.parametrize("window", [None, 2])
def test_a_conversation_that_does_not_exist_has_no_messages(
    store: Store, window: int | None
) -> None:
    history = ChatMessageHistory(store, new_id(), owner="bob", window=window)
    assert history.messages == []
    assert history.page() == MessagePage([], None)
    history.clear()
    history.add_messages([])
    with pytest.raises(NotFound):
        _ = history.conversation


def test_an_append_and_a_window_take_one_request_each() -> None:
    with open_store("sqlite:///:memory:") as store:
        recording_store = RecordingStore(store)
        history = ChatMessageHistory(cast(Store, recording_store), "talk", owner="bob", window=3)
        history.add_messages(CONVERSATION)
        assert recording_store.calls == ["append"]
        assert history.messages == CONVERSATION[3:]
        assert recording_store.calls == ["append", "tail"]


def test_clear_removes_the_messages_and_keeps_the_conversation(store: Store) -> None:
    history = ChatMessageHistory(store, new_id(), owner="bob")
    history.add_messages(CONVERSATION)
    created_at = history.conversation.created_at
    history.clear()
    assert history.messages == []
    assert history.conversation.created_at == created_at
    history.add_messages(CONVERSATION[:1])
    assert history.messages == CONVERSATION[:1]


def test_pages_can_be_read_in_both_directions(history: ChatMessageHistory) -> None:
    history.add_messages(CONVERSATION)
    first = history.page(limit=3)
    assert first == MessagePage(CONVERSATION[:3], 3)
    assert history.page(after=first.next) == MessagePage(CONVERSATION[3:], None)
    newest = history.page(before=6, limit=2)
    assert newest == MessagePage([CONVERSATION[4], CONVERSATION[3]], 4)


def test_a_history_of_several_pages_is_read_completely() -> None:
    with open_store("sqlite:///:memory:") as store:
        history = ChatMessageHistory(store, "long")
        history.add_messages([HumanMessage(str(n)) for n in range(2_500)])
        assert [message.content for message in history.messages] == [str(n) for n in range(2_500)]


def test_messages_that_were_not_written_by_langchain_are_converted(store: Store) -> None:
    history = ChatMessageHistory(store, new_id())
    written = Message.user("Hi")
    store.append(history.session_id, [written])
    history.add_ai_message("Hello")
    assert history.messages == [HumanMessage("Hi", id=written.id), AIMessage("Hello")]


# The window ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "seen"),
    [
        (1, []),  # the last message is a reply, with which no prompt may start
        (2, CONVERSATION[3:]),
        (3, CONVERSATION[3:]),
        (4, CONVERSATION[1:]),
        (5, CONVERSATION),
        (1_000, CONVERSATION),
    ],
)
def test_a_window_that_leaves_out_messages_starts_with_a_user_message(
    store: Store, window: int, seen: list[BaseMessage]
) -> None:
    history = ChatMessageHistory(store, new_id(), window=window)
    history.add_messages(CONVERSATION)
    assert history.messages == seen


def test_a_window_never_starts_with_a_tool_result(store: Store) -> None:
    call = {"name": "clock", "args": {}, "id": "call_1"}
    turn: list[BaseMessage] = [
        HumanMessage("What time is it?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("12:00", tool_call_id="call_1"),
        AIMessage("Noon."),
    ]
    history = ChatMessageHistory(store, new_id(), window=6)
    history.add_messages([*turn, *turn])
    assert history.messages == turn


# Owners -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("owner", ["bob", None], ids=["bob's", "nobody's"])
def test_every_method_raises_for_a_conversation_of_another_owner(
    store: Store, owner: str | None, window: int | None
) -> None:
    theirs = ChatMessageHistory(store, new_id(), owner=owner)
    theirs.add_messages(CONVERSATION)
    mine = ChatMessageHistory(store, theirs.session_id, owner="eve", window=window)
    for method in SYNC_METHODS:
        with pytest.raises(NotFound):
            method(mine)
    assert theirs.messages == CONVERSATION


def test_without_an_owner_every_conversation_can_be_read(store: Store) -> None:
    theirs = ChatMessageHistory(store, new_id(), owner="bob")
    theirs.add_messages(CONVERSATION)
    assert ChatMessageHistory(store, theirs.session_id).messages == CONVERSATION


def test_a_conversation_created_while_it_is_read_is_empty() -> None:
    class StoreReadTooEarly:
        """A store whose page is read just before the first append."""

        def __init__(self, store: Store) -> None:
            self.get = store.get

        def page(self, *_: object, **__: object) -> object:
            raise NotFound("talk")

    with open_store("sqlite:///:memory:") as store:
        ChatMessageHistory(store, "talk", owner="bob").add_messages(CONVERSATION)
        early_read_store = cast(Store, StoreReadTooEarly(store))
        assert ChatMessageHistory(early_read_store, "talk", owner="bob").messages == []
        with pytest.raises(NotFound):
            _ = ChatMessageHistory(early_read_store, "talk", owner="eve").messages


def test_conversations_started_by_langchain_are_in_the_owners_list(store: Store) -> None:
    owner = new_id()
    ChatMessageHistory(store, "of-" + owner, owner=owner).add_messages(CONVERSATION)
    [listed] = store.list(owner).conversations
    assert (listed.id, listed.message_count) == ("of-" + owner, len(CONVERSATION))


# Arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "why"),
    [
        ([""], {}, "session_id is empty"),
        ([7], {}, "session_id is of type int; it must be a str"),
        ([None], {}, "session_id is None; it must be a str"),
        (["x" * 2_001], {}, "session_id has 2,001 bytes"),
        (["talk"], {"owner": ""}, "owner is empty"),
        (["talk"], {"owner": 7}, "owner is of type int"),
        (["talk"], {"window": 0}, "window must be 1 to 1,000"),
        (["talk"], {"window": 1_001}, "window must be 1 to 1,000"),
        (["talk"], {"window": "20"}, "window is of type str"),
    ],
    ids=str,
)
def test_an_invalid_argument_is_named_before_the_store_is_called(
    arguments: list[Any], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        ChatMessageHistory(cast(Store, object()), *arguments, **options)


@pytest.mark.parametrize("messages", [HumanMessage("Hi"), "Hi", ["Hi"], [None]], ids=str)
def test_anything_but_a_list_of_messages_is_rejected(messages: Any) -> None:
    with open_store("sqlite:///:memory:") as store:
        history = ChatMessageHistory(store, "talk")
        with pytest.raises(InvalidArgument, match="pass a HumanMessage"):
            history.add_messages(messages)
        assert history.messages == []


def test_the_factories_use_a_fixed_owner_or_the_owner_of_each_call(store: Store) -> None:
    session = new_id()
    session_factory(store, owner="bob")(session).add_messages(CONVERSATION)
    assert owned_session_factory(store, window=2)("bob", session).messages == CONVERSATION[3:]
    assert session_factory(store)(session).conversation.owner == "bob"
    with pytest.raises(NotFound):
        _ = session_factory(store, owner="eve")(session).messages
