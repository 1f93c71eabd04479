"""Idempotency keys: a message sent again with its key is answered once."""

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest

from chatledger.chat import Chat, Reply, Started
from chatledger.errors import InvalidArgument, KeyReused, ModelUnavailable, TurnInProgress
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.stores.contract import AsyncStore
from tests.chat.scripted_models import DONE, OVERLOADED, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Talk, collect_events, take_until

pytestmark = pytest.mark.anyio

CALL = {"id": "call 1", "name": "weather", "args": {"city": "Bern"}, "type": "tool_call"}
FINISHED = Finished("tool_use", Usage(3, 5, 1, 2), tool_calls=(CALL,), latency_ms=120)  # type: ignore[arg-type]


async def send(chat: Chat, text: str = "Hi", key: str = "key 1") -> Reply:
    return await chat.send(text, conversation_id="talk", owner="bob", idempotency_key=key)


# The stored reply


async def test_the_same_key_returns_the_stored_reply_and_calls_no_model(
    talk: Talk, reopened: AsyncStore
) -> None:
    first = await send(talk.chat(ScriptedModel("Well, ", "yes.", FINISHED)))
    assert first == Reply("talk", "Well, yes.", FINISHED)
    before = await talk.store.tail("talk", 10)
    for other in (talk.store, reopened):
        unused_model = ScriptedModel()
        assert await send(talk.chat(unused_model, store=other)) == first
        assert unused_model.windows == []
    assert await talk.store.tail("talk", 10) == before


async def test_the_same_key_returns_the_stored_reply_however_many_messages_follow(
    talk: Talk, reopened: AsyncStore
) -> None:
    first = await send(talk.chat(ScriptedModel("Well, ", "yes.", FINISHED)))
    await talk.append_numbers(30)
    before = await talk.transcript()
    unused_model = ScriptedModel()
    assert await send(talk.chat(unused_model, store=reopened)) == first
    assert unused_model.windows == []
    assert await talk.transcript() == before


async def test_the_same_key_returns_the_stored_reply_after_several_pages_of_messages(
    sqlite: Talk,
) -> None:
    first = await send(sqlite.chat(ScriptedModel("Well, ", "yes.", FINISHED)))
    await sqlite.append_numbers(350)
    before = await sqlite.transcript()
    assert await send(sqlite.chat(ScriptedModel())) == first
    assert await sqlite.transcript() == before


async def test_the_key_of_a_question_that_was_removed_is_rejected(sqlite: Talk) -> None:
    await send(sqlite.chat(ScriptedModel("Well, ", "yes.", FINISHED)))
    [question, _] = (await sqlite.store.tail("talk", 2)).messages
    assert question.seq is not None
    await sqlite.append_numbers(150)
    await sqlite.store.remove("talk", question.seq)
    before = await sqlite.transcript()
    for text in ("Hi", "Another question"):
        with pytest.raises(KeyReused, match="has been removed"):
            await send(sqlite.chat(ScriptedModel()), text)
    assert await sqlite.transcript() == before


async def test_the_key_of_an_append_that_was_no_turn_is_rejected(sqlite: Talk) -> None:
    await sqlite.store.append("talk", [Message.user("Hi")], owner="bob", idempotency_key="key 1")
    before = await sqlite.transcript()
    with pytest.raises(KeyReused, match="has been removed"):
        await send(sqlite.chat(ScriptedModel()))
    assert await sqlite.transcript() == before


async def test_a_stored_reply_is_streamed_like_a_turn(sqlite: Talk) -> None:
    await send(sqlite.chat(ScriptedModel("Well, ", "yes.", FINISHED)))
    events = sqlite.chat(ScriptedModel()).stream(
        "Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"
    )
    assert await collect_events(events) == [Started("talk"), "Well, yes.", FINISHED]


async def test_an_empty_reply_is_returned_again_too(sqlite: Talk) -> None:
    await send(sqlite.chat(ScriptedModel(FINISHED)))
    events = sqlite.chat(ScriptedModel()).stream(
        "Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"
    )
    assert await collect_events(events) == [Started("talk"), FINISHED]


async def test_a_stopped_reply_is_returned_again_as_stopped(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel("Well, ", Gate()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    await take_until(events, "Well, ")
    assert await chat.stop("talk")
    assert await collect_events(events) == [Finished("stopped")]
    assert await send(sqlite.chat(ScriptedModel())) == Reply("talk", "Well, ", Finished("stopped"))


async def test_the_same_key_returns_the_stored_reply_while_another_turn_runs(sqlite: Talk) -> None:
    first = await send(sqlite.chat(EchoModel()))
    other = sqlite.chat(ScriptedModel("Well, ", Gate()))
    async with aclosing(other.stream("And now?", conversation_id="talk")) as events:
        await take_until(events, "Well, ")
        assert await send(sqlite.chat(ScriptedModel())) == first


# Without a conversation


async def test_one_key_of_one_owner_starts_one_conversation(
    talk: Talk, reopened: AsyncStore
) -> None:
    first = await talk.chat(EchoModel()).send("Hi", owner="bob", idempotency_key="key 1")
    unused_model = ScriptedModel()
    assert (
        await talk.chat(unused_model, store=reopened).send(
            "Hi", owner="bob", idempotency_key="key 1"
        )
        == first
    )
    assert unused_model.windows == []
    other = await talk.chat(EchoModel()).send("Hi", owner="bob", idempotency_key="key 2")
    assert other.conversation_id != first.conversation_id
    listed = {each.id for each in (await talk.store.list("bob")).conversations}
    assert listed == {first.conversation_id, other.conversation_id}


async def test_the_same_key_of_two_owners_starts_two_conversations(talk: Talk) -> None:
    chat = talk.chat(EchoModel())
    owners = ["bob", "eve", "1:bob", "b", "ob"]
    replies = [
        await chat.send(f"I am {owner}", owner=owner, idempotency_key="key 1") for owner in owners
    ]
    assert [reply.text for reply in replies] == [f"You said: I am {owner}" for owner in owners]
    assert len({reply.conversation_id for reply in replies}) == len(owners)


async def test_a_key_needs_a_conversation_or_an_owner(sqlite: Talk) -> None:
    model = EchoModel()
    with pytest.raises(InvalidArgument, match="needs a conversation_id or an owner"):
        await sqlite.chat(model).send("Hi", idempotency_key="key 1")
    assert model.windows == []


@pytest.mark.parametrize("key", ["", "x" * 1_001, "\ud83d"])
async def test_an_invalid_key_is_rejected(sqlite: Talk, key: str) -> None:
    model = EchoModel()
    with pytest.raises(InvalidArgument):
        await send(sqlite.chat(model), key=key)
    assert model.windows == []


# Simultaneous turns


@pytest.mark.parametrize("exists", [True, False], ids=["existing conversation", "new conversation"])
async def test_many_concurrent_turns_with_one_key_call_the_model_once(
    talk: Talk, reopened: AsyncStore, exists: bool
) -> None:
    if exists:
        await talk.create()
    model = EchoModel()
    chats = [talk.chat(model), talk.chat(model, store=reopened)]
    conversation_id = "talk" if exists else None
    replies = await asyncio.gather(
        *(
            chats[n % 2].send(
                "Hi", conversation_id=conversation_id, owner="bob", idempotency_key="key 1"
            )
            for n in range(10)
        ),
        return_exceptions=True,
    )
    answers = [reply for reply in replies if isinstance(reply, Reply)]
    assert answers
    assert all(isinstance(reply, Reply | TurnInProgress) for reply in replies), replies
    assert {reply.text for reply in answers} == {"You said: Hi"}
    assert len(model.windows) == 1
    [conversation] = (await talk.store.list("bob")).conversations
    assert await talk.transcript(conversation.id) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_one_message_object_sent_three_times_at_once_with_a_key_is_stored_once(
    sqlite: Talk,
) -> None:
    await sqlite.create()
    chat, question = sqlite.chat(EchoModel()), Message.user("Hi")
    replies = await asyncio.gather(
        *(chat.send(question, conversation_id="talk", idempotency_key="k") for _ in range(3)),
        return_exceptions=True,
    )
    assert all(isinstance(reply, Reply | TurnInProgress) for reply in replies), replies
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_the_same_key_raises_turn_in_progress_while_its_first_turn_runs(
    talk: Talk, reopened: AsyncStore
) -> None:
    chat = talk.chat(ScriptedModel("Well, ", Gate()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await take_until(events, "Well, ")
        with pytest.raises(TurnInProgress) as rejected:
            await send(talk.chat(ScriptedModel(), store=reopened))
        assert rejected.value.retry_after > 0
        await talk.append_numbers(30)
        with pytest.raises(TurnInProgress):
            await send(talk.chat(ScriptedModel(), store=reopened))


# A different request


@pytest.mark.parametrize("following", [0, 30])
@pytest.mark.parametrize(
    ("text", "prompt", "model"),
    [("Hello", None, "scripted"), ("Hi", "Be kind.", "scripted"), ("Hi", None, "another")],
    ids=["another text", "another system prompt", "another model"],
)
async def test_a_key_is_rejected_for_a_different_request(
    talk: Talk, following: int, text: str, prompt: str | None, model: str
) -> None:
    await send(talk.chat(EchoModel()))
    if following:
        await talk.append_numbers(following)
    before = await talk.transcript()
    unused_model = ScriptedModel()
    unused_model.id = model
    with pytest.raises(KeyReused):
        await talk.chat(unused_model).send(
            text, conversation_id="talk", owner="bob", system_prompt=prompt, idempotency_key="key 1"
        )
    assert unused_model.windows == []
    assert await talk.transcript() == before
    assert (await send(talk.chat(EchoModel()), key="key 2")).finished == DONE


@pytest.mark.parametrize("how", ["truncated", "cleared"])
async def test_the_key_of_a_removed_message_cannot_be_used_again(talk: Talk, how: str) -> None:
    await talk.create("Before")
    await send(talk.chat(EchoModel()))
    if how == "truncated":
        await talk.store.truncate("talk", after=1)
    else:
        await talk.store.clear("talk")
    before = await talk.transcript()
    unused_model = ScriptedModel()
    with pytest.raises(KeyReused):
        await send(talk.chat(unused_model))
    assert unused_model.windows == []
    assert await talk.transcript() == before
    assert (await send(talk.chat(EchoModel()), key="key 2")).finished == DONE


# Retries of failed turns


@pytest.mark.parametrize("following", [0, 3])
@pytest.mark.parametrize("partial_text", ["", "Well, "], ids=["without a piece", "in mid-reply"])
async def test_a_failed_turn_is_tried_again_without_storing_the_message_twice(
    talk: Talk, reopened: AsyncStore, partial_text: str, following: int
) -> None:
    await talk.create("I am Bob")
    failing = ScriptedModel(*([partial_text] if partial_text else []), OVERLOADED)
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            await send(talk.chat(failing))
    foreign = [Message.user(f"{n}") for n in range(following)]
    if foreign:
        await talk.store.append("talk", foreign)

    model = EchoModel()
    reply = await send(talk.chat(model, store=reopened))
    assert model.windows == [[("user", "I am Bob\n\nHi")]]
    messages = await talk.transcript()
    # A partial reply is removed only if nothing else would be.
    partial = [("assistant", partial_text)] if partial_text and following else []
    others = [(each.role, each.text) for each in foreign]
    earlier = [("user", "I am Bob"), ("user", "Hi")]
    assert messages == [*earlier, *partial, *others, ("assistant", reply.text)]
    assert await send(talk.chat(ScriptedModel())) == reply
    await talk.append_numbers(30)  # the key is now looked up in the store
    assert await send(talk.chat(ScriptedModel())) == reply
    # No lease is left.
    assert (await send(talk.chat(EchoModel()), "And now?", "key 2")).finished == DONE


async def test_two_retries_of_a_failed_turn_do_not_run_at_the_same_time(sqlite: Talk) -> None:
    with pytest.raises(ModelUnavailable):
        await send(sqlite.chat(ScriptedModel(OVERLOADED)))
    chat = sqlite.chat(ScriptedModel("Well, ", Gate(), DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await take_until(events, "Well, ")
        for key in ("key 1", "key 2"):
            with pytest.raises(TurnInProgress):
                await send(sqlite.chat(ScriptedModel()), key=key)


async def test_a_turn_stopped_before_its_first_piece_is_tried_again(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel(Gate()))
    async with aclosing(
        chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    ) as events:
        assert await anext(events) == Started("talk")
    assert (await send(talk.chat(EchoModel()))).text == "You said: Hi"
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_message_whose_store_response_was_lost_is_not_stored_twice(talk: Talk) -> None:
    await talk.create()
    talk.watched.lose_response("append", 1)
    with pytest.raises(Exception, match="The response was lost"):
        await send(talk.watched_chat(EchoModel(), time=talk.time))
    talk.time.advance(61)
    model = EchoModel()
    reply = await send(talk.chat(model, time=talk.time))
    assert model.windows == [[("user", "Hi")]]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", reply.text)]


async def test_a_reply_whose_store_response_was_lost_is_found_with_the_key(talk: Talk) -> None:
    await talk.create()
    talk.watched.lose_response("append", 2)
    with pytest.raises(Exception, match="The response was lost"):
        await send(talk.watched_chat(ScriptedModel("Well, yes.", FINISHED)))
    unused_model = ScriptedModel()
    assert await send(talk.chat(unused_model)) == Reply("talk", "Well, yes.", FINISHED)
    assert unused_model.windows == []


async def test_a_turn_whose_process_died_is_tried_again_once_its_lease_has_ended(
    talk: Talk,
) -> None:
    abandoned = talk.chat(
        ScriptedModel("Well, ", Gate()), time_limit=timedelta(hours=1), time=talk.time
    )
    events = abandoned.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await take_until(events, "Well, ")
        with pytest.raises(TurnInProgress):
            await send(talk.chat(EchoModel(), time=talk.time))
        talk.time.advance(61)
        assert (await send(talk.chat(EchoModel(), time=talk.time))).text == "You said: Hi"
        assert (await talk.transcript()).count(("user", "Hi")) == 1


# Keys and other kinds of turns


async def test_a_key_returns_the_regenerated_reply(talk: Talk) -> None:
    await send(talk.chat(ScriptedModel("Well, ", DONE)))
    await collect_events(talk.chat(ScriptedModel("Yes.", DONE)).regenerate("talk"))
    assert (await send(talk.chat(ScriptedModel()))).text == "Yes."
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Yes.")]


async def test_the_key_of_a_message_that_was_edited_away_cannot_be_used_again(talk: Talk) -> None:
    await send(talk.chat(EchoModel()))
    seq = await talk.seq_of("Hi")
    await collect_events(talk.chat(EchoModel()).edit("talk", seq, "Hello"))
    with pytest.raises(KeyReused):
        await send(talk.chat(ScriptedModel()))


async def test_tool_results_are_stored_once_with_a_key(sqlite: Talk) -> None:
    await sqlite.create()
    calls = [{**CALL, "id": id} for id in ("a", "b")]
    chat = sqlite.chat(ScriptedModel(Finished("tool_use", tool_calls=calls)))  # type: ignore[arg-type]
    await chat.send("Hi", conversation_id="talk")
    results = [Message.tool("21 °C", tool_call_id=id) for id in ("a", "b")]
    model = ScriptedModel("Warm.", DONE)
    for _ in range(2):
        reopened = [
            Message.tool(each.text, tool_call_id=str(each.tool_call_id)) for each in results
        ]
        reply = await sqlite.chat(model).send(
            reopened, conversation_id="talk", idempotency_key="key 1"
        )
        assert reply.text == "Warm."
    assert len(model.windows) == 1
    assert [role for role, _ in await sqlite.transcript()] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


@pytest.mark.parametrize("how", ["another turn", "another writer's reply", "many messages"])
async def test_a_failed_turn_is_not_tried_again_after_the_conversation_has_moved_on(
    talk: Talk, how: str
) -> None:
    with pytest.raises(ModelUnavailable):
        await send(talk.chat(ScriptedModel(OVERLOADED)))
    if how == "another turn":
        await talk.chat(EchoModel()).send("And now?", conversation_id="talk")
    elif how == "many messages":
        await talk.append_numbers(30)
    else:
        await talk.append(Message.user("Are you there?"), Message.assistant("I am another bot."))
    before = await talk.transcript()
    unused_model = ScriptedModel()
    with pytest.raises(KeyReused, match="moved on"):
        await send(talk.chat(unused_model))
    assert unused_model.windows == []
    assert await talk.transcript() == before
    assert (await send(talk.chat(EchoModel()), key="key 2")).finished == DONE


async def test_a_reply_far_after_its_message_is_found_with_the_key(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await take_until(events, "Well, ")
        await talk.append_numbers(40)
        assert await collect_events(events) == ["yes.", DONE]
    unused_model = ScriptedModel()
    assert (await send(talk.chat(unused_model))).text == "Well, yes."
    assert unused_model.windows == []
