"""A conversation of any store as LangChain's history: what it holds, for whom, at what cost."""

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
from chatledger.messages import new_id
from tests.langchain.sample_messages import SYNC_METHODS, TALK, Watched


@pytest.fixture
def history(store: Store) -> ChatMessageHistory:
    return ChatMessageHistory(store, new_id())


# Reading and writing ------------------------------------------------------------------------------


def test_what_was_added_is_there_in_order(history: ChatMessageHistory) -> None:
    history.add_messages(TALK[:3])
    history.add_user_message("Whats my name")
    history.add_ai_message(AIMessage("bob"))
    assert history.messages == TALK
    assert str(history).splitlines()[1] == "Human: Hi! I'm bob"


@pytest.mark.parametrize("window", [None, 2])
def test_a_conversation_that_nobody_has_started_has_no_messages(
    store: Store, window: int | None
) -> None:
    history = ChatMessageHistory(store, new_id(), owner="bob", window=window)
    assert history.messages == []
    assert history.page() == MessagePage([], None)
    history.clear()
    history.add_messages([])
    with pytest.raises(NotFound):
        _ = history.conversation


def test_an_append_is_one_request_and_so_is_a_window() -> None:
    with open_store("sqlite:///:memory:") as store:
        watched = Watched(store)
        history = ChatMessageHistory(cast(Store, watched), "talk", owner="bob", window=3)
        history.add_messages(TALK)
        assert watched.asked == ["append"]
        assert history.messages == TALK[3:]
        assert watched.asked == ["append", "tail"]


def test_clear_removes_the_messages_and_keeps_the_conversation(store: Store) -> None:
    history = ChatMessageHistory(store, new_id(), owner="bob")
    history.add_messages(TALK)
    created_at = history.conversation.created_at
    history.clear()
    assert history.messages == []
    assert history.conversation.created_at == created_at
    history.add_messages(TALK[:1])
    assert history.messages == TALK[:1]


def test_pages_walk_the_conversation_both_ways(history: ChatMessageHistory) -> None:
    history.add_messages(TALK)
    first = history.page(limit=3)
    assert first == MessagePage(TALK[:3], 3)
    assert history.page(after=first.next) == MessagePage(TALK[3:], None)
    newest = history.page(before=6, limit=2)
    assert newest == MessagePage([TALK[4], TALK[3]], 4)


def test_a_history_longer_than_a_page_is_read_whole() -> None:
    with open_store("sqlite:///:memory:") as store:
        history = ChatMessageHistory(store, "long")
        history.add_messages([HumanMessage(str(n)) for n in range(2_500)])
        assert [message.content for message in history.messages] == [str(n) for n in range(2_500)]


def test_messages_that_others_wrote_are_langchains_too(store: Store) -> None:
    history = ChatMessageHistory(store, new_id())
    written = Message.user("Hi")
    store.append(history.session_id, [written])
    history.add_ai_message("Hello")
    assert history.messages == [HumanMessage("Hi", id=written.id), AIMessage("Hello")]


# The window ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "seen"),
    [
        (1, []),  # a reply, and models refuse a reply to nothing
        (2, TALK[3:]),
        (3, TALK[3:]),
        (4, TALK[1:]),
        (5, TALK),
        (1_000, TALK),
    ],
)
def test_a_window_that_cuts_starts_with_the_user(
    store: Store, window: int, seen: list[BaseMessage]
) -> None:
    history = ChatMessageHistory(store, new_id(), window=window)
    history.add_messages(TALK)
    assert history.messages == seen


def test_a_window_never_starts_with_a_tools_result(store: Store) -> None:
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
def test_somebody_elses_conversation_raises_and_is_left_as_it_is(
    store: Store, owner: str | None, window: int | None
) -> None:
    theirs = ChatMessageHistory(store, new_id(), owner=owner)
    theirs.add_messages(TALK)
    mine = ChatMessageHistory(store, theirs.session_id, owner="eve", window=window)
    for method in SYNC_METHODS:
        with pytest.raises(NotFound):
            method(mine)
    assert theirs.messages == TALK


def test_without_an_owner_every_conversation_can_be_read(store: Store) -> None:
    theirs = ChatMessageHistory(store, new_id(), owner="bob")
    theirs.add_messages(TALK)
    assert ChatMessageHistory(store, theirs.session_id).messages == TALK


def test_a_conversation_that_starts_while_it_is_read_is_empty_and_no_error() -> None:
    class Late:
        """Finds nothing at first, as one does that reads just before the first append."""

        def __init__(self, store: Store) -> None:
            self.get = store.get

        def page(self, *_: object, **__: object) -> object:
            raise NotFound("talk")

    with open_store("sqlite:///:memory:") as store:
        ChatMessageHistory(store, "talk", owner="bob").add_messages(TALK)
        late = cast(Store, Late(store))
        assert ChatMessageHistory(late, "talk", owner="bob").messages == []
        with pytest.raises(NotFound):
            _ = ChatMessageHistory(late, "talk", owner="eve").messages


def test_an_owners_list_shows_what_langchain_started(store: Store) -> None:
    owner = new_id()
    ChatMessageHistory(store, "of-" + owner, owner=owner).add_messages(TALK)
    [listed] = store.list(owner).conversations
    assert (listed.id, listed.message_count) == ("of-" + owner, len(TALK))


# Making one ---------------------------------------------------------------------------------------


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
def test_a_wrong_argument_is_named_before_the_store_is_asked(
    arguments: list[Any], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        ChatMessageHistory(cast(Store, object()), *arguments, **options)


@pytest.mark.parametrize("messages", [HumanMessage("Hi"), "Hi", ["Hi"], [None]], ids=str)
def test_what_is_no_list_of_messages_is_refused(messages: Any) -> None:
    with open_store("sqlite:///:memory:") as store:
        history = ChatMessageHistory(store, "talk")
        with pytest.raises(InvalidArgument, match="pass a HumanMessage"):
            history.add_messages(messages)
        assert history.messages == []


def test_the_factories_make_histories_of_one_owner_or_of_the_calls(store: Store) -> None:
    session = new_id()
    session_factory(store, owner="bob")(session).add_messages(TALK)
    assert owned_session_factory(store, window=2)("bob", session).messages == TALK[3:]
    assert session_factory(store)(session).conversation.owner == "bob"
    with pytest.raises(NotFound):
        _ = session_factory(store, owner="eve")(session).messages
