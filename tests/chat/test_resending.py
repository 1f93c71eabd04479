"""A message that had no reply, or a failed one, is stored once if it is sent again."""

from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from chatledger.chat import Started
from chatledger.errors import (
    KeyReused,
    ModelTimeout,
    ModelUnavailable,
    StoreUnavailable,
    TurnInProgress,
)
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


async def fail_in_mid_reply(talk: Talk, text: str = "Hi") -> None:
    with pytest.raises(ModelUnavailable):
        await talk.send("Well, ", OVERLOADED, text=text)


async def test_a_failed_reply_is_replaced_when_its_message_is_sent_again(talk: Talk) -> None:
    await talk.create("I am Bob")
    for _ in range(2):
        await fail_in_mid_reply(talk)
        assert await talk.transcript() == [
            ("user", "I am Bob"),
            ("user", "Hi"),
            ("assistant", "Well, "),
        ]
    [_, question, _] = await talk.messages()
    model = EchoModel()
    reply = await talk.chat(model).send("Hi", conversation_id="talk")
    assert model.windows == [[("user", "I am Bob\n\nHi")]]
    assert await talk.transcript() == [
        ("user", "I am Bob"),
        ("user", "Hi"),
        ("assistant", reply.text),
    ]
    [_, same, _] = await talk.messages()
    assert (same.id, same.created_at) == (question.id, question.created_at)
    await talk.assert_next_turn_works()


async def test_the_failed_reply_to_several_messages_is_replaced(talk: Talk) -> None:
    await talk.create("Weather?")
    results = [Message.tool("21 °C", tool_call_id="a"), Message.tool("9 °C", tool_call_id="b")]
    with pytest.raises(ModelUnavailable):
        await talk.send("Warm", OVERLOADED, text=results)
    await talk.send("Warm.", DONE, text=results)
    assert await talk.transcript() == [
        ("user", "Weather?"),
        ("tool", "21 °C"),
        ("tool", "9 °C"),
        ("assistant", "Warm."),
    ]


async def test_the_total_usage_includes_what_came_before_a_replaced_reply(talk: Talk) -> None:
    await talk.send("Well, yes.", DONE, text="First")
    await fail_in_mid_reply(talk)
    assert await talk.chat(EchoModel()).usage("talk") == DONE.usage
    await fail_in_mid_reply(talk)
    await talk.send("Yes.", DONE)
    assert await talk.chat(EchoModel()).usage("talk") == Usage(6, 10)


async def test_a_failed_reply_is_removed_by_the_write_that_starts_the_next_turn(talk: Talk) -> None:
    await fail_in_mid_reply(talk)
    before = await talk.messages()
    talk.watched.fail("append", 1)
    with pytest.raises(StoreUnavailable):
        await talk.watched_chat(EchoModel()).send("Hi", conversation_id="talk")
    assert await talk.messages() == before
    talk.watched.clear_actions()
    chat = talk.watched_chat(ScriptedModel("Oh, ", Gate()), time=talk.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk")) as events:
        assert await anext(events) == Started("talk")
        assert talk.watched.calls == ["tail", "tail", "append"]
        assert await talk.transcript() == [("user", "Hi")]
        # As if the process had died here: once the lease has ended, the message is sent again.
        talk.time.advance(61)
        await talk.chat(EchoModel(), time=talk.time).send("Hi", conversation_id="talk")
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_of_two_who_send_a_message_again_after_a_failed_reply_only_one_gets_a_reply(
    talk: Talk,
) -> None:
    await fail_in_mid_reply(talk)
    chat = talk.chat(ScriptedModel("Oh, ", Gate()))
    async with aclosing(chat.stream("Hi", conversation_id="talk")) as events:
        await take_until(events, "Oh, ")
        with pytest.raises(TurnInProgress):
            await talk.send("Yes.", DONE)
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Oh, ")]


async def test_a_message_that_a_rival_appends_to_a_failed_reply_is_not_removed(talk: Talk) -> None:
    await fail_in_mid_reply(talk)

    async def append_other() -> None:
        await talk.append(Message.user("Are you there?"))

    talk.watched.before("append", 1, append_other)
    await talk.watched_chat(EchoModel()).send("Hi", conversation_id="talk")
    assert [text for _, text in await talk.transcript()][:4] == [
        "Hi",
        "Well, ",
        "Are you there?",
        "Hi",
    ]


async def test_a_different_text_after_a_failed_reply_keeps_it(sqlite: Talk) -> None:
    await fail_in_mid_reply(sqlite)
    await sqlite.send("Yes.", DONE, text="Hello")
    assert [text for _, text in await sqlite.transcript()] == ["Hi", "Well, ", "Hello", "Yes."]


@pytest.mark.parametrize("how", ["stopped", "timed_out"])
async def test_the_same_text_after_a_reply_that_was_cut_short_is_a_new_message(
    sqlite: Talk, how: str
) -> None:
    chat = sqlite.chat(
        ScriptedModel("Well, ", Gate()), time_limit=timedelta(minutes=5), time=sqlite.time
    )
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_until(events, "Well, ")
    if how == "stopped":
        assert await chat.stop("talk")
    else:
        sqlite.time.advance(301)
    assert await collect_events(events) == [Finished(how)]
    await sqlite.send("Yes.", DONE)
    assert [text for _, text in await sqlite.transcript()] == ["Hi", "Well, ", "Hi", "Yes."]


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
