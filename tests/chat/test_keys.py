"""Idempotency keys: a message sent again with its key is answered once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import pytest

from chatledger.chat import Chat, Reply, Started
from chatledger.errors import InvalidArgument, KeyReused, ModelUnavailable, TurnInProgress
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.stores.contract import AsyncStore
from chatledger.stores.urls import open_async_store
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    EchoModel,
    FakeTime,
    Gate,
    ScriptedModel,
    WatchedStore,
    append_messages,
    collect_events,
    create_conversation,
    lose_response,
    take_until,
    transcript,
    with_time,
)

pytestmark = pytest.mark.anyio

CALL = {"id": "call 1", "name": "weather", "args": {"city": "Bern"}, "type": "tool_call"}
FINISHED = Finished("tool_use", Usage(3, 5, 1, 2), tool_calls=(CALL,), latency_ms=120)  # type: ignore[arg-type]


async def send(chat: Chat, text: str = "Hi", key: str = "key 1") -> Reply:
    return await chat.send(text, conversation_id="talk", owner="bob", idempotency_key=key)


@pytest.fixture
async def reopened(url: str) -> AsyncIterator[AsyncStore]:
    """The same store, opened again as by a restarted process."""
    async with open_async_store(url) as store:
        yield store


# The stored reply


async def test_the_same_key_returns_the_stored_reply_and_calls_no_model(
    store: AsyncStore, reopened: AsyncStore
) -> None:
    first = await send(Chat(store, ScriptedModel("Well, ", "yes.", FINISHED)))
    assert first == Reply("talk", "Well, yes.", FINISHED)
    before = await store.tail("talk", 10)
    for other in (store, reopened):
        unused_model = ScriptedModel()
        assert await send(Chat(other, unused_model)) == first
        assert unused_model.windows == []
    assert await store.tail("talk", 10) == before


async def test_the_same_key_returns_the_stored_reply_however_many_messages_follow(
    store: AsyncStore, reopened: AsyncStore
) -> None:
    first = await send(Chat(store, ScriptedModel("Well, ", "yes.", FINISHED)))
    await append_messages(store, *(Message.user(f"{n}") for n in range(30)))
    before = await transcript(store)
    unused_model = ScriptedModel()
    assert await send(Chat(reopened, unused_model)) == first
    assert unused_model.windows == []
    assert await transcript(store) == before


async def test_the_same_key_returns_the_stored_reply_after_several_pages_of_messages(
    sqlite: AsyncStore,
) -> None:
    first = await send(Chat(sqlite, ScriptedModel("Well, ", "yes.", FINISHED)))
    await append_messages(sqlite, *(Message.user(f"{n}") for n in range(350)))
    before = await transcript(sqlite)
    assert await send(Chat(sqlite, ScriptedModel())) == first
    assert await transcript(sqlite) == before


async def test_the_key_of_a_question_that_was_removed_is_rejected(sqlite: AsyncStore) -> None:
    await send(Chat(sqlite, ScriptedModel("Well, ", "yes.", FINISHED)))
    [question, _] = (await sqlite.tail("talk", 2)).messages
    assert question.seq is not None
    await append_messages(sqlite, *(Message.user(f"{n}") for n in range(150)))
    await sqlite.remove("talk", question.seq)
    before = await transcript(sqlite)
    for text in ("Hi", "Another question"):
        with pytest.raises(KeyReused, match="has been removed"):
            await send(Chat(sqlite, ScriptedModel()), text)
    assert await transcript(sqlite) == before


async def test_the_key_of_an_append_that_was_no_turn_is_rejected(sqlite: AsyncStore) -> None:
    await sqlite.append("talk", [Message.user("Hi")], owner="bob", idempotency_key="key 1")
    before = await transcript(sqlite)
    with pytest.raises(KeyReused, match="has been removed"):
        await send(Chat(sqlite, ScriptedModel()))
    assert await transcript(sqlite) == before


async def test_a_stored_reply_is_streamed_like_a_turn(sqlite: AsyncStore) -> None:
    await send(Chat(sqlite, ScriptedModel("Well, ", "yes.", FINISHED)))
    events = Chat(sqlite, ScriptedModel()).stream(
        "Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"
    )
    assert await collect_events(events) == [Started("talk"), "Well, yes.", FINISHED]


async def test_an_empty_reply_is_returned_again_too(sqlite: AsyncStore) -> None:
    await send(Chat(sqlite, ScriptedModel(FINISHED)))
    events = Chat(sqlite, ScriptedModel()).stream(
        "Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"
    )
    assert await collect_events(events) == [Started("talk"), FINISHED]


async def test_a_stopped_reply_is_returned_again_as_stopped(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, ScriptedModel("Well, ", Gate()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    await take_until(events, "Well, ")
    assert await chat.stop("talk")
    assert await collect_events(events) == [Finished("stopped")]
    assert await send(Chat(sqlite, ScriptedModel())) == Reply("talk", "Well, ", Finished("stopped"))


async def test_the_same_key_returns_the_stored_reply_while_another_turn_runs(
    sqlite: AsyncStore,
) -> None:
    first = await send(Chat(sqlite, EchoModel()))
    other = Chat(sqlite, ScriptedModel("Well, ", Gate()))
    async with aclosing(other.stream("And now?", conversation_id="talk")) as events:
        await take_until(events, "Well, ")
        assert await send(Chat(sqlite, ScriptedModel())) == first


# Without a conversation


async def test_one_key_of_one_owner_starts_one_conversation(
    store: AsyncStore, reopened: AsyncStore
) -> None:
    first = await Chat(store, EchoModel()).send("Hi", owner="bob", idempotency_key="key 1")
    unused_model = ScriptedModel()
    assert (
        await Chat(reopened, unused_model).send("Hi", owner="bob", idempotency_key="key 1") == first
    )
    assert unused_model.windows == []
    other = await Chat(store, EchoModel()).send("Hi", owner="bob", idempotency_key="key 2")
    assert other.conversation_id != first.conversation_id
    listed = {each.id for each in (await store.list("bob")).conversations}
    assert listed == {first.conversation_id, other.conversation_id}


async def test_the_same_key_of_two_owners_starts_two_conversations(store: AsyncStore) -> None:
    chat = Chat(store, EchoModel())
    owners = ["bob", "eve", "1:bob", "b", "ob"]
    replies = [
        await chat.send(f"I am {owner}", owner=owner, idempotency_key="key 1") for owner in owners
    ]
    assert [reply.text for reply in replies] == [f"You said: I am {owner}" for owner in owners]
    assert len({reply.conversation_id for reply in replies}) == len(owners)


async def test_a_key_needs_a_conversation_or_an_owner(sqlite: AsyncStore) -> None:
    model = EchoModel()
    with pytest.raises(InvalidArgument, match="needs a conversation_id or an owner"):
        await Chat(sqlite, model).send("Hi", idempotency_key="key 1")
    assert model.windows == []


@pytest.mark.parametrize("key", ["", "x" * 1_001, "\ud83d"])
async def test_an_invalid_key_is_rejected(sqlite: AsyncStore, key: str) -> None:
    model = EchoModel()
    with pytest.raises(InvalidArgument):
        await send(Chat(sqlite, model), key=key)
    assert model.windows == []


# Simultaneous turns


@pytest.mark.parametrize("exists", [True, False], ids=["existing conversation", "new conversation"])
async def test_many_concurrent_turns_with_one_key_call_the_model_once(
    store: AsyncStore, reopened: AsyncStore, exists: bool
) -> None:
    if exists:
        await create_conversation(store)
    model = EchoModel()
    chats = [Chat(store, model), Chat(reopened, model)]
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
    [conversation] = (await store.list("bob")).conversations
    assert await transcript(store, conversation.id) == [
        ("user", "Hi"),
        ("assistant", "You said: Hi"),
    ]


async def test_the_same_key_raises_turn_in_progress_while_its_first_turn_runs(
    store: AsyncStore, reopened: AsyncStore
) -> None:
    chat = Chat(store, ScriptedModel("Well, ", Gate()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await take_until(events, "Well, ")
        with pytest.raises(TurnInProgress) as rejected:
            await send(Chat(reopened, ScriptedModel()))
        assert rejected.value.retry_after > 0
        await append_messages(store, *(Message.user(f"{n}") for n in range(30)))
        with pytest.raises(TurnInProgress):
            await send(Chat(reopened, ScriptedModel()))


# A different request


@pytest.mark.parametrize("following", [0, 30])
@pytest.mark.parametrize(
    ("text", "prompt", "model"),
    [("Hello", None, "scripted"), ("Hi", "Be kind.", "scripted"), ("Hi", None, "another")],
    ids=["another text", "another system prompt", "another model"],
)
async def test_a_key_is_rejected_for_a_different_request(
    store: AsyncStore, following: int, text: str, prompt: str | None, model: str
) -> None:
    await send(Chat(store, EchoModel()))
    if following:
        await append_messages(store, *(Message.user(f"{n}") for n in range(following)))
    before = await transcript(store)
    unused_model = ScriptedModel()
    unused_model.id = model
    with pytest.raises(KeyReused):
        await Chat(store, unused_model).send(
            text, conversation_id="talk", owner="bob", system_prompt=prompt, idempotency_key="key 1"
        )
    assert unused_model.windows == []
    assert await transcript(store) == before
    assert (await send(Chat(store, EchoModel()), key="key 2")).finished == DONE


@pytest.mark.parametrize("how", ["truncated", "cleared"])
async def test_the_key_of_a_removed_message_cannot_be_used_again(
    store: AsyncStore, how: str
) -> None:
    await create_conversation(store, "Before")
    await send(Chat(store, EchoModel()))
    if how == "truncated":
        await store.truncate("talk", after=1)
    else:
        await store.clear("talk")
    before = await transcript(store)
    unused_model = ScriptedModel()
    with pytest.raises(KeyReused):
        await send(Chat(store, unused_model))
    assert unused_model.windows == []
    assert await transcript(store) == before
    assert (await send(Chat(store, EchoModel()), key="key 2")).finished == DONE


# Retries of failed turns


@pytest.mark.parametrize("following", [0, 3])
@pytest.mark.parametrize("partial_text", ["", "Well, "], ids=["without a piece", "in mid-reply"])
async def test_a_failed_turn_is_tried_again_without_storing_the_message_twice(
    store: AsyncStore, reopened: AsyncStore, partial_text: str, following: int
) -> None:
    await create_conversation(store, "I am Bob")
    failing = ScriptedModel(*([partial_text] if partial_text else []), OVERLOADED)
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            await send(Chat(store, failing))
    foreign = [Message.user(f"{n}") for n in range(following)]
    if foreign:
        await append_messages(store, *foreign)

    model = EchoModel()
    reply = await send(Chat(reopened, model))
    assert model.windows == [[("user", "I am Bob\n\nHi")]]
    messages = await transcript(store)
    assert messages.count(("user", "Hi")) == 1
    assert messages[-1] == ("assistant", reply.text)
    assert await send(Chat(store, ScriptedModel())) == reply
    # No lease is left.
    assert (await send(Chat(store, EchoModel()), "And now?", "key 2")).finished == DONE


async def test_two_retries_of_a_failed_turn_do_not_run_at_the_same_time(sqlite: AsyncStore) -> None:
    with pytest.raises(ModelUnavailable):
        await send(Chat(sqlite, ScriptedModel(OVERLOADED)))
    chat = Chat(sqlite, ScriptedModel("Well, ", Gate(), DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await take_until(events, "Well, ")
        for key in ("key 1", "key 2"):
            with pytest.raises(TurnInProgress):
                await send(Chat(sqlite, ScriptedModel()), key=key)


async def test_a_turn_stopped_before_its_first_piece_is_tried_again(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel(Gate()))
    async with aclosing(
        chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    ) as events:
        assert await anext(events) == Started("talk")
    assert (await send(Chat(store, EchoModel()))).text == "You said: Hi"
    assert await transcript(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_message_whose_store_response_was_lost_is_not_stored_twice(
    store: AsyncStore,
) -> None:
    await create_conversation(store)
    time, watched = FakeTime(), WatchedStore(store)
    watched.after("append", 1, lose_response)
    with pytest.raises(Exception, match="The response was lost"):
        await send(with_time(Chat(watched.store, EchoModel()), time))
    time.advance(61)
    model = EchoModel()
    reply = await send(with_time(Chat(store, model), time))
    assert model.windows == [[("user", "Hi")]]
    assert await transcript(store) == [("user", "Hi"), ("assistant", reply.text)]


async def test_a_reply_whose_store_response_was_lost_is_found_with_the_key(
    store: AsyncStore,
) -> None:
    await create_conversation(store)
    watched = WatchedStore(store)
    watched.after("append", 2, lose_response)
    with pytest.raises(Exception, match="The response was lost"):
        await send(Chat(watched.store, ScriptedModel("Well, yes.", FINISHED)))
    unused_model = ScriptedModel()
    assert await send(Chat(store, unused_model)) == Reply("talk", "Well, yes.", FINISHED)
    assert unused_model.windows == []


async def test_a_turn_whose_process_died_is_tried_again_once_its_lease_has_ended(
    store: AsyncStore,
) -> None:
    time = FakeTime()
    abandoned = with_time(
        Chat(store, ScriptedModel("Well, ", Gate()), time_limit=timedelta(hours=1)), time
    )
    events = abandoned.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await take_until(events, "Well, ")
        with pytest.raises(TurnInProgress):
            await send(with_time(Chat(store, EchoModel()), time))
        time.advance(61)
        assert (await send(with_time(Chat(store, EchoModel()), time))).text == "You said: Hi"
        assert (await transcript(store)).count(("user", "Hi")) == 1


# Keys and other kinds of turns


async def test_a_key_returns_the_regenerated_reply(store: AsyncStore) -> None:
    await send(Chat(store, ScriptedModel("Well, ", DONE)))
    await collect_events(Chat(store, ScriptedModel("Yes.", DONE)).regenerate("talk"))
    assert (await send(Chat(store, ScriptedModel()))).text == "Yes."
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Yes.")]


async def test_the_key_of_a_message_that_was_edited_away_cannot_be_used_again(
    store: AsyncStore,
) -> None:
    await send(Chat(store, EchoModel()))
    seq = (await store.page("talk")).messages[0].seq
    assert seq is not None
    await collect_events(Chat(store, EchoModel()).edit("talk", seq, "Hello"))
    with pytest.raises(KeyReused):
        await send(Chat(store, ScriptedModel()))


async def test_tool_results_are_stored_once_with_a_key(sqlite: AsyncStore) -> None:
    await create_conversation(sqlite)
    calls = [{**CALL, "id": id} for id in ("a", "b")]
    chat = Chat(sqlite, ScriptedModel(Finished("tool_use", tool_calls=calls)))  # type: ignore[arg-type]
    await chat.send("Hi", conversation_id="talk")
    results = [Message.tool("21 °C", tool_call_id=id) for id in ("a", "b")]
    model = ScriptedModel("Warm.", DONE)
    for _ in range(2):
        reopened = [
            Message.tool(each.text, tool_call_id=str(each.tool_call_id)) for each in results
        ]
        reply = await Chat(sqlite, model).send(
            reopened, conversation_id="talk", idempotency_key="key 1"
        )
        assert reply.text == "Warm."
    assert len(model.windows) == 1
    assert [role for role, _ in await transcript(sqlite)] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


@pytest.mark.parametrize("how", ["another turn", "many messages"])
async def test_a_failed_turn_is_not_tried_again_after_the_conversation_has_moved_on(
    store: AsyncStore, how: str
) -> None:
    with pytest.raises(ModelUnavailable):
        await send(Chat(store, ScriptedModel(OVERLOADED)))
    if how == "another turn":
        await Chat(store, EchoModel()).send("And now?", conversation_id="talk")
    else:
        await append_messages(store, *(Message.user(f"{n}") for n in range(30)))
    before = await transcript(store)
    unused_model = ScriptedModel()
    with pytest.raises(KeyReused, match="moved on"):
        await send(Chat(store, unused_model))
    assert unused_model.windows == []
    assert await transcript(store) == before
    assert (await send(Chat(store, EchoModel()), key="key 2")).finished == DONE


async def test_a_reply_far_after_its_message_is_found_with_the_key(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await take_until(events, "Well, ")
        await append_messages(store, *(Message.user(f"{n}") for n in range(40)))
        assert await collect_events(events) == ["yes.", DONE]
    unused_model = ScriptedModel()
    assert (await send(Chat(store, unused_model))).text == "Well, yes."
    assert unused_model.windows == []
