"""Sending again what had no reply: the user's message is there once."""

from contextlib import aclosing
from datetime import timedelta

import pytest

from chatledger.chat import Chat, Started
from chatledger.errors import ModelTimeout, ModelUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    Echo,
    Scripted,
    Waits,
    add,
    begin,
    events_of,
    kept,
    until_piece,
)

pytestmark = pytest.mark.anyio


async def fails(store: AsyncStore, *messages: str | Message) -> None:
    """A turn whose model says nothing and fails."""
    given = messages[0] if len(messages) == 1 else [m for m in messages if isinstance(m, Message)]
    with pytest.raises(ModelUnavailable):
        await Chat(store, Scripted(OVERLOADED)).send(given, conversation_id="talk", owner="bob")


async def test_the_same_message_sent_again_after_a_failure_is_there_once(store: AsyncStore) -> None:
    await begin(store, "I am Bob")
    for _ in range(3):
        await fails(store, "Hi")
    assert await kept(store) == [("user", "I am Bob"), ("user", "Hi")]
    model = Echo()
    await Chat(store, model).send("Hi", conversation_id="talk", owner="bob")
    assert model.asked == [[("user", "I am Bob\n\nHi")]]
    assert await kept(store) == [
        ("user", "I am Bob"),
        ("user", "Hi"),
        ("assistant", "You said: I am Bob\n\nHi"),
    ]


async def test_the_same_message_sent_again_after_a_stop_before_the_first_piece_is_there_once(
    store: AsyncStore,
) -> None:
    chat = Chat(store, Scripted(Waits()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert await anext(events) == Started("talk")
    assert await chat.stop("talk")
    assert await events_of(events) == [Finished("stopped")]
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as left:
        assert await anext(left) == Started("talk")
    await Chat(store, Echo()).send("Hi", conversation_id="talk", owner="bob")
    assert await kept(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_the_same_message_sent_again_after_a_silent_model_is_there_once(
    sqlite: AsyncStore,
) -> None:
    chat = Chat(sqlite, Scripted(Waits()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    await Chat(sqlite, Echo()).send("Hi", conversation_id="talk")
    assert await kept(sqlite) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_another_text_is_another_message_and_the_model_sees_both(sqlite: AsyncStore) -> None:
    await fails(sqlite, "Hi")
    model = Echo()
    await Chat(sqlite, model).send("Hello", conversation_id="talk")
    assert model.asked == [[("user", "Hi\n\nHello")]]
    assert (await kept(sqlite))[:2] == [("user", "Hi"), ("user", "Hello")]


async def test_the_same_text_behind_a_reply_is_another_message(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, Echo())
    for _ in range(2):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert await kept(sqlite) == [("user", "Hi"), ("assistant", "You said: Hi")] * 2


async def test_the_same_text_behind_a_reply_that_broke_off_is_another_message(
    store: AsyncStore,
) -> None:
    with pytest.raises(ModelUnavailable):
        await Chat(store, Scripted("Well, ", OVERLOADED)).send(
            "Hi", conversation_id="talk", owner="bob"
        )
    await Chat(store, Echo()).send("Hi", conversation_id="talk")
    assert [text for _, text in await kept(store)] == ["Hi", "Well, ", "Hi", "You said: Hi"]


async def test_the_same_text_that_an_application_stored_itself_is_another_message(
    sqlite: AsyncStore,
) -> None:
    await begin(sqlite, "Hi")
    model = Echo()
    await Chat(sqlite, model).send("Hi", conversation_id="talk")
    assert model.asked == [[("user", "Hi\n\nHi")]]


async def test_the_same_text_behind_what_others_wrote_is_another_message(store: AsyncStore) -> None:
    await fails(store, "Hi")
    await add(store, Message.user("Are you there?"))
    await Chat(store, Echo()).send("Hi", conversation_id="talk")
    assert [text for role, text in await kept(store) if role == "user"] == [
        "Hi",
        "Are you there?",
        "Hi",
    ]


async def test_the_same_results_of_tools_sent_again_are_there_once(store: AsyncStore) -> None:
    await begin(store, "Weather?")
    results = [Message.tool("21 °C", tool_call_id="a"), Message.tool("9 °C", tool_call_id="b")]
    await fails(store, *results)
    await Chat(store, Echo()).send(results, conversation_id="talk")
    assert (await kept(store))[:-1] == [("user", "Weather?"), ("tool", "21 °C"), ("tool", "9 °C")]


async def test_the_same_text_of_another_tool_is_another_result(store: AsyncStore) -> None:
    await begin(store, "Weather?")
    await fails(store, Message.tool("sunny", tool_call_id="a"))
    await Chat(store, Echo()).send(Message.tool("sunny", tool_call_id="b"), conversation_id="talk")
    messages = (await store.page("talk")).messages
    assert [m.tool_call_id for m in messages if m.role == "tool"] == ["a", "b"]


async def test_a_message_that_is_sent_again_stays_what_it_was(store: AsyncStore) -> None:
    first = Message.user("Hi", metadata={"from": "phone"})
    await fails(store, first)
    await Chat(store, Echo()).send(Message.user("Hi"), conversation_id="talk")
    question = (await store.page("talk")).messages[0]
    assert (question.id, question.metadata, question.created_at) == (
        first.id,
        first.metadata,
        first.created_at,
    )


async def test_of_a_message_with_a_turn_of_its_own_in_extra_nothing_is_lost(
    sqlite: AsyncStore,
) -> None:
    mine = Message.user("Hi", extra={"turn": 7, "thread": "a"})
    await Chat(sqlite, Scripted("Well, ", DONE)).send(mine, conversation_id="talk", owner="bob")
    question = (await sqlite.page("talk")).messages[0]
    assert question.extra["thread"] == "a"
    assert (await Chat(sqlite, Echo()).send("And now?", conversation_id="talk")).finished == DONE


async def test_what_is_sent_again_in_mid_turn_is_refused_and_what_runs_goes_on(
    sqlite: AsyncStore,
) -> None:
    chat = Chat(sqlite, Scripted("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await until_piece(events, "Well, ")
    with pytest.raises(Exception, match="in progress"):
        await Chat(sqlite, Echo()).send("Hi", conversation_id="talk")
    assert await events_of(events) == ["yes.", DONE]
    assert await kept(sqlite) == [("user", "Hi"), ("assistant", "Well, yes.")]
