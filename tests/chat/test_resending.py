"""A message that had no reply and is sent again is stored once."""

from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from chatledger.chat import Started
from chatledger.errors import KeyReused, ModelTimeout, ModelUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from tests.chat.scripted_models import DONE, OVERLOADED, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Talk, collect_events, take_until

pytestmark = pytest.mark.anyio


async def fail_turn(talk: Talk, *messages: str | Message) -> None:
    """Run a turn whose model fails before its first piece."""
    sent = messages[0] if len(messages) == 1 else [m for m in messages if isinstance(m, Message)]
    with pytest.raises(ModelUnavailable):
        await talk.chat(ScriptedModel(OVERLOADED)).send(sent, conversation_id="talk", owner="bob")


async def test_a_message_sent_again_after_a_failure_is_stored_once(talk: Talk) -> None:
    await talk.create("I am Bob")
    for _ in range(3):
        await fail_turn(talk, "Hi")
    assert await talk.transcript() == [("user", "I am Bob"), ("user", "Hi")]
    model = EchoModel()
    await talk.chat(model).send("Hi", conversation_id="talk", owner="bob")
    assert model.windows == [[("user", "I am Bob\n\nHi")]]
    assert await talk.transcript() == [
        ("user", "I am Bob"),
        ("user", "Hi"),
        ("assistant", "You said: I am Bob\n\nHi"),
    ]


async def test_a_message_sent_again_after_a_stop_before_the_first_piece_is_stored_once(
    talk: Talk,
) -> None:
    chat = talk.chat(ScriptedModel(Gate()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    assert await anext(events) == Started("talk")
    assert await chat.stop("talk")
    assert await collect_events(events) == [Finished("stopped")]
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as other_events:
        assert await anext(other_events) == Started("talk")
    await talk.chat(EchoModel()).send("Hi", conversation_id="talk", owner="bob")
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_message_sent_again_after_a_model_timeout_is_stored_once(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel(Gate()), time_limit=timedelta(seconds=0.05))
    with pytest.raises(ModelTimeout):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    await sqlite.chat(EchoModel()).send("Hi", conversation_id="talk")
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_different_text_is_a_new_message_and_the_model_sees_both(sqlite: Talk) -> None:
    await fail_turn(sqlite, "Hi")
    model = EchoModel()
    await sqlite.chat(model).send("Hello", conversation_id="talk")
    assert model.windows == [[("user", "Hi\n\nHello")]]
    assert (await sqlite.transcript())[:2] == [("user", "Hi"), ("user", "Hello")]


async def test_the_same_text_after_a_reply_is_a_new_message(sqlite: Talk) -> None:
    chat = sqlite.chat(EchoModel())
    for _ in range(2):
        await chat.send("Hi", conversation_id="talk", owner="bob")
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")] * 2


async def test_the_same_text_after_a_partial_reply_is_a_new_message(talk: Talk) -> None:
    with pytest.raises(ModelUnavailable):
        await talk.chat(ScriptedModel("Well, ", OVERLOADED)).send(
            "Hi", conversation_id="talk", owner="bob"
        )
    await talk.chat(EchoModel()).send("Hi", conversation_id="talk")
    assert [text for _, text in await talk.transcript()] == ["Hi", "Well, ", "Hi", "You said: Hi"]


async def test_the_same_text_as_one_that_an_application_stored_is_a_new_message(
    sqlite: Talk,
) -> None:
    await sqlite.create("Hi")
    model = EchoModel()
    await sqlite.chat(model).send("Hi", conversation_id="talk")
    assert model.windows == [[("user", "Hi\n\nHi")]]


async def test_the_same_text_after_messages_of_other_writers_is_a_new_message(talk: Talk) -> None:
    await fail_turn(talk, "Hi")
    await talk.append(Message.user("Are you there?"))
    await talk.chat(EchoModel()).send("Hi", conversation_id="talk")
    assert [text for role, text in await talk.transcript() if role == "user"] == [
        "Hi",
        "Are you there?",
        "Hi",
    ]


async def test_tool_results_sent_again_are_stored_once(talk: Talk) -> None:
    await talk.create("Weather?")
    results = [Message.tool("21 °C", tool_call_id="a"), Message.tool("9 °C", tool_call_id="b")]
    await fail_turn(talk, *results)
    await talk.chat(EchoModel()).send(results, conversation_id="talk")
    assert (await talk.transcript())[:-1] == [
        ("user", "Weather?"),
        ("tool", "21 °C"),
        ("tool", "9 °C"),
    ]


async def test_the_same_text_of_another_tool_call_is_a_new_result(talk: Talk) -> None:
    await talk.create("Weather?")
    await fail_turn(talk, Message.tool("sunny", tool_call_id="a"))
    await talk.chat(EchoModel()).send(
        Message.tool("sunny", tool_call_id="b"), conversation_id="talk"
    )
    messages = await talk.messages()
    assert [m.tool_call_id for m in messages if m.role == "tool"] == ["a", "b"]


async def test_a_message_that_is_sent_again_keeps_its_id_metadata_and_time(talk: Talk) -> None:
    first = Message.user("Hi", metadata={"from": "phone"})
    await fail_turn(talk, first)
    await talk.chat(EchoModel()).send(Message.user("Hi"), conversation_id="talk")
    question = (await talk.messages())[0]
    assert (question.id, question.metadata, question.created_at) == (
        first.id,
        first.metadata,
        first.created_at,
    )


async def test_a_message_with_its_own_turn_in_extra_keeps_its_other_extra(sqlite: Talk) -> None:
    question = Message.user("Hi", extra={"turn": 7, "thread": "a"})
    await sqlite.chat(ScriptedModel("Well, ", DONE)).send(
        question, conversation_id="talk", owner="bob"
    )
    question = (await sqlite.messages())[0]
    assert question.extra["thread"] == "a"
    assert (
        await sqlite.chat(EchoModel()).send("And now?", conversation_id="talk")
    ).finished == DONE


async def test_a_message_read_from_the_store_and_sent_again_starts_a_new_turn(sqlite: Talk) -> None:
    chat = sqlite.chat(EchoModel())
    await chat.send("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    [question, _] = await sqlite.messages()
    assert question.seq is not None
    await collect_events(chat.edit("talk", question.seq, replace(question, content="Ho")))
    with pytest.raises(KeyReused):
        await chat.send("Hi", conversation_id="talk", idempotency_key="key 1")
    other = sqlite.chat(ScriptedModel(Finished("end_turn")))
    await other.send((await sqlite.messages())[0], conversation_id="other", owner="bob")
    assert await other.usage("other") == Usage(0, 0)


async def test_a_message_sent_again_during_its_turn_is_rejected_and_the_turn_continues(
    sqlite: Talk,
) -> None:
    chat = sqlite.chat(ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_until(events, "Well, ")
    with pytest.raises(Exception, match="in progress"):
        await sqlite.chat(EchoModel()).send("Hi", conversation_id="talk")
    assert await collect_events(events) == ["yes.", DONE]
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "Well, yes.")]
