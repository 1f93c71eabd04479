"""A message that had no reply and is sent again is stored once."""

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
    EchoModel,
    Gate,
    ScriptedModel,
    append_messages,
    collect_events,
    create_conversation,
    take_until,
    transcript,
)

pytestmark = pytest.mark.anyio


async def fail_turn(store: AsyncStore, *messages: str | Message) -> None:
    """Run a turn whose model fails before its first piece."""
    sent = messages[0] if len(messages) == 1 else [m for m in messages if isinstance(m, Message)]
    with pytest.raises(ModelUnavailable):
        await Chat(store, ScriptedModel(OVERLOADED)).send(sent, conversation_id="talk", owner="bob")


async def test_a_message_sent_again_after_a_failure_is_stored_once(store: AsyncStore) -> None:
    await create_conversation(store, "I am Bob")
    for _ in range(3):
        await fail_turn(store, "Hi")
    assert await transcript(store) == [("user", "I am Bob"), ("user", "Hi")]
    model = EchoModel()
    await Chat(store, model).send("Hi", conversation_id="talk", owner="bob")
    assert model.windows == [[("user", "I am Bob\n\nHi")]]
    assert await transcript(store) == [
        ("user", "I am Bob"),
        ("user", "Hi"),
        ("assistant", "You said: I am Bob\n\nHi"),
    ]


async def test_a_message_sent_again_after_a_stop_before_the_first_piece_is_stored_once(
    store: AsyncStore,
) -> None:
    chat = Chat(store, ScriptedModel(Gate()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert await anext(events) == Started("talk")
    assert await chat.stop("talk")
    assert await collect_events(events) == [Finished("stopped")]
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as other_events:
        assert await anext(other_events) == Started("talk")
    await Chat(store, EchoModel()).send("Hi", conversation_id="talk", owner="bob")
    assert await transcript(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_message_sent_again_after_a_model_timeout_is_stored_once(
    sqlite: AsyncStore,
) -> None:
    chat = Chat(sqlite, ScriptedModel(Gate()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    await Chat(sqlite, EchoModel()).send("Hi", conversation_id="talk")
    assert await transcript(sqlite) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_different_text_is_a_new_message_and_the_model_sees_both(
    sqlite: AsyncStore,
) -> None:
    await fail_turn(sqlite, "Hi")
    model = EchoModel()
    await Chat(sqlite, model).send("Hello", conversation_id="talk")
    assert model.windows == [[("user", "Hi\n\nHello")]]
    assert (await transcript(sqlite))[:2] == [("user", "Hi"), ("user", "Hello")]


async def test_the_same_text_after_a_reply_is_a_new_message(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, EchoModel())
    for _ in range(2):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert await transcript(sqlite) == [("user", "Hi"), ("assistant", "You said: Hi")] * 2


async def test_the_same_text_after_a_partial_reply_is_a_new_message(store: AsyncStore) -> None:
    with pytest.raises(ModelUnavailable):
        await Chat(store, ScriptedModel("Well, ", OVERLOADED)).send(
            "Hi", conversation_id="talk", owner="bob"
        )
    await Chat(store, EchoModel()).send("Hi", conversation_id="talk")
    assert [text for _, text in await transcript(store)] == ["Hi", "Well, ", "Hi", "You said: Hi"]


async def test_the_same_text_as_one_that_an_application_stored_is_a_new_message(
    sqlite: AsyncStore,
) -> None:
    await create_conversation(sqlite, "Hi")
    model = EchoModel()
    await Chat(sqlite, model).send("Hi", conversation_id="talk")
    assert model.windows == [[("user", "Hi\n\nHi")]]


async def test_the_same_text_after_messages_of_other_writers_is_a_new_message(
    store: AsyncStore,
) -> None:
    await fail_turn(store, "Hi")
    await append_messages(store, Message.user("Are you there?"))
    await Chat(store, EchoModel()).send("Hi", conversation_id="talk")
    assert [text for role, text in await transcript(store) if role == "user"] == [
        "Hi",
        "Are you there?",
        "Hi",
    ]


async def test_tool_results_sent_again_are_stored_once(store: AsyncStore) -> None:
    await create_conversation(store, "Weather?")
    results = [Message.tool("21 °C", tool_call_id="a"), Message.tool("9 °C", tool_call_id="b")]
    await fail_turn(store, *results)
    await Chat(store, EchoModel()).send(results, conversation_id="talk")
    assert (await transcript(store))[:-1] == [
        ("user", "Weather?"),
        ("tool", "21 °C"),
        ("tool", "9 °C"),
    ]


async def test_the_same_text_of_another_tool_call_is_a_new_result(store: AsyncStore) -> None:
    await create_conversation(store, "Weather?")
    await fail_turn(store, Message.tool("sunny", tool_call_id="a"))
    await Chat(store, EchoModel()).send(
        Message.tool("sunny", tool_call_id="b"), conversation_id="talk"
    )
    messages = (await store.page("talk")).messages
    assert [m.tool_call_id for m in messages if m.role == "tool"] == ["a", "b"]


async def test_a_message_that_is_sent_again_keeps_its_id_metadata_and_time(
    store: AsyncStore,
) -> None:
    first = Message.user("Hi", metadata={"from": "phone"})
    await fail_turn(store, first)
    await Chat(store, EchoModel()).send(Message.user("Hi"), conversation_id="talk")
    question = (await store.page("talk")).messages[0]
    assert (question.id, question.metadata, question.created_at) == (
        first.id,
        first.metadata,
        first.created_at,
    )


async def test_a_message_with_its_own_turn_in_extra_keeps_its_other_extra(
    sqlite: AsyncStore,
) -> None:
    question = Message.user("Hi", extra={"turn": 7, "thread": "a"})
    await Chat(sqlite, ScriptedModel("Well, ", DONE)).send(
        question, conversation_id="talk", owner="bob"
    )
    question = (await sqlite.page("talk")).messages[0]
    assert question.extra["thread"] == "a"
    assert (
        await Chat(sqlite, EchoModel()).send("And now?", conversation_id="talk")
    ).finished == DONE


async def test_a_message_sent_again_during_its_turn_is_rejected_and_the_turn_continues(
    sqlite: AsyncStore,
) -> None:
    chat = Chat(sqlite, ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_until(events, "Well, ")
    with pytest.raises(Exception, match="in progress"):
        await Chat(sqlite, EchoModel()).send("Hi", conversation_id="talk")
    assert await collect_events(events) == ["yes.", DONE]
    assert await transcript(sqlite) == [("user", "Hi"), ("assistant", "Well, yes.")]
