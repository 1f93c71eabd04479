"""A message sent twice with one idempotency key is answered once."""

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
    Echo,
    Scripted,
    Time,
    Waits,
    Watched,
    add,
    answer_lost,
    begin,
    events_of,
    kept,
    timed,
    until_piece,
)

pytestmark = pytest.mark.anyio

CALL = {"id": "call 1", "name": "weather", "args": {"city": "Bern"}, "type": "tool_call"}
USED = Finished("tool_use", Usage(3, 5, 1, 2), tool_calls=(CALL,), latency_ms=120)  # type: ignore[arg-type]


async def send(chat: Chat, text: str = "Hi", key: str = "key 1") -> Reply:
    return await chat.send(text, conversation_id="talk", owner="bob", idempotency_key=key)


@pytest.fixture
async def again(url: str) -> AsyncIterator[AsyncStore]:
    """The same store, as a process that was started anew opens it."""
    async with open_async_store(url) as store:
        yield store


# The reply that is stored


async def test_the_same_key_answers_with_the_stored_reply_and_asks_no_model(
    store: AsyncStore, again: AsyncStore
) -> None:
    first = await send(Chat(store, Scripted("Well, ", "yes.", USED)))
    assert first == Reply("talk", "Well, yes.", USED)
    before = await store.tail("talk", 10)
    for other in (store, again):
        silent = Scripted()
        assert await send(Chat(other, silent)) == first
        assert silent.asked == []
    assert await store.tail("talk", 10) == before


async def test_the_same_key_answers_however_many_messages_are_behind_its_own(
    store: AsyncStore, again: AsyncStore
) -> None:
    first = await send(Chat(store, Scripted("Well, ", "yes.", USED)))
    await add(store, *(Message.user(f"{n}") for n in range(30)))
    before = await kept(store)
    silent = Scripted()
    assert await send(Chat(again, silent)) == first
    assert silent.asked == []
    assert await kept(store) == before


async def test_what_is_answered_again_is_streamed_as_a_turn(sqlite: AsyncStore) -> None:
    await send(Chat(sqlite, Scripted("Well, ", "yes.", USED)))
    events = Chat(sqlite, Scripted()).stream(
        "Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"
    )
    assert await events_of(events) == [Started("talk"), "Well, yes.", USED]


async def test_a_reply_without_a_word_is_answered_again_too(sqlite: AsyncStore) -> None:
    await send(Chat(sqlite, Scripted(USED)))
    events = Chat(sqlite, Scripted()).stream(
        "Hi", conversation_id="talk", owner="bob", idempotency_key="key 1"
    )
    assert await events_of(events) == [Started("talk"), USED]


async def test_a_reply_that_was_stopped_is_answered_again_as_such(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, Scripted("Well, ", Waits()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    await until_piece(events, "Well, ")
    assert await chat.stop("talk")
    assert await events_of(events) == [Finished("stopped")]
    assert await send(Chat(sqlite, Scripted())) == Reply("talk", "Well, ", Finished("stopped"))


async def test_the_same_key_answers_while_another_turn_runs(sqlite: AsyncStore) -> None:
    first = await send(Chat(sqlite, Echo()))
    other = Chat(sqlite, Scripted("Well, ", Waits()))
    async with aclosing(other.stream("And now?", conversation_id="talk")) as events:
        await until_piece(events, "Well, ")
        assert await send(Chat(sqlite, Scripted())) == first


# Without a conversation


async def test_one_key_of_one_owner_starts_one_conversation(
    store: AsyncStore, again: AsyncStore
) -> None:
    first = await Chat(store, Echo()).send("Hi", owner="bob", idempotency_key="key 1")
    silent = Scripted()
    assert await Chat(again, silent).send("Hi", owner="bob", idempotency_key="key 1") == first
    assert silent.asked == []
    other = await Chat(store, Echo()).send("Hi", owner="bob", idempotency_key="key 2")
    assert other.conversation_id != first.conversation_id
    listed = {each.id for each in (await store.list("bob")).conversations}
    assert listed == {first.conversation_id, other.conversation_id}


async def test_two_owners_with_one_key_do_not_meet(store: AsyncStore) -> None:
    chat = Chat(store, Echo())
    owners = ["bob", "eve", "1:bob", "b", "ob"]
    replies = [
        await chat.send(f"I am {owner}", owner=owner, idempotency_key="key 1") for owner in owners
    ]
    assert [reply.text for reply in replies] == [f"You said: I am {owner}" for owner in owners]
    assert len({reply.conversation_id for reply in replies}) == len(owners)


async def test_a_key_needs_a_conversation_or_an_owner(sqlite: AsyncStore) -> None:
    model = Echo()
    with pytest.raises(InvalidArgument, match="needs a conversation_id or an owner"):
        await Chat(sqlite, model).send("Hi", idempotency_key="key 1")
    assert model.asked == []


@pytest.mark.parametrize("key", ["", "x" * 1_001, "\ud83d"])
async def test_what_no_store_takes_as_a_key_is_refused(sqlite: AsyncStore, key: str) -> None:
    model = Echo()
    with pytest.raises(InvalidArgument):
        await send(Chat(sqlite, model), key=key)
    assert model.asked == []


# At the same time


@pytest.mark.parametrize("there", [True, False], ids=["in one that is there", "in a new one"])
async def test_many_at_once_with_one_key_ask_the_model_once(
    store: AsyncStore, again: AsyncStore, there: bool
) -> None:
    if there:
        await begin(store)
    model = Echo()
    chats = [Chat(store, model), Chat(again, model)]
    conversation_id = "talk" if there else None
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
    assert len(model.asked) == 1
    [conversation] = (await store.list("bob")).conversations
    assert await kept(store, conversation.id) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_while_the_first_is_running_the_others_with_its_key_are_told_so(
    store: AsyncStore, again: AsyncStore
) -> None:
    chat = Chat(store, Scripted("Well, ", Waits()))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await until_piece(events, "Well, ")
        with pytest.raises(TurnInProgress) as held:
            await send(Chat(again, Scripted()))
        assert held.value.retry_after > 0
        await add(store, *(Message.user(f"{n}") for n in range(30)))
        with pytest.raises(TurnInProgress):
            await send(Chat(again, Scripted()))


# Another message


@pytest.mark.parametrize("behind", [0, 30])
@pytest.mark.parametrize(
    ("text", "prompt", "model"),
    [("Hello", None, "scripted"), ("Hi", "Be kind.", "scripted"), ("Hi", None, "another")],
    ids=["another text", "another system prompt", "another model"],
)
async def test_one_key_is_for_one_message(
    store: AsyncStore, behind: int, text: str, prompt: str | None, model: str
) -> None:
    await send(Chat(store, Echo()))
    if behind:
        await add(store, *(Message.user(f"{n}") for n in range(behind)))
    before = await kept(store)
    silent = Scripted()
    silent.id = model
    with pytest.raises(KeyReused):
        await Chat(store, silent).send(
            text, conversation_id="talk", owner="bob", system_prompt=prompt, idempotency_key="key 1"
        )
    assert silent.asked == []
    assert await kept(store) == before
    assert (await send(Chat(store, Echo()), key="key 2")).finished == DONE


@pytest.mark.parametrize("how", ["truncated", "cleared"])
async def test_a_key_whose_message_was_removed_is_not_used_again(
    store: AsyncStore, how: str
) -> None:
    await begin(store, "Before")
    await send(Chat(store, Echo()))
    if how == "truncated":
        await store.truncate("talk", after=1)
    else:
        await store.clear("talk")
    before = await kept(store)
    silent = Scripted()
    with pytest.raises(KeyReused):
        await send(Chat(store, silent))
    assert silent.asked == []
    assert await kept(store) == before
    assert (await send(Chat(store, Echo()), key="key 2")).finished == DONE


# Tried again


@pytest.mark.parametrize("behind", [0, 3])
@pytest.mark.parametrize("said", ["", "Well, "], ids=["without a piece", "in mid-reply"])
async def test_what_failed_is_tried_again_and_the_users_message_is_there_once(
    store: AsyncStore, again: AsyncStore, said: str, behind: int
) -> None:
    await begin(store, "I am Bob")
    failing = Scripted(*([said] if said else []), OVERLOADED)
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            await send(Chat(store, failing))
    foreign = [Message.user(f"{n}") for n in range(behind)]
    if foreign:
        await add(store, *foreign)

    model = Echo()
    reply = await send(Chat(again, model))
    assert model.asked == [[("user", "I am Bob\n\nHi")]]
    messages = await kept(store)
    assert messages.count(("user", "Hi")) == 1
    assert messages[-1] == ("assistant", reply.text)
    assert await send(Chat(store, Scripted())) == reply
    # Nothing is held any more.
    assert (await send(Chat(store, Echo()), "And now?", "key 2")).finished == DONE


async def test_two_tries_at_what_failed_do_not_run_at_the_same_time(sqlite: AsyncStore) -> None:
    with pytest.raises(ModelUnavailable):
        await send(Chat(sqlite, Scripted(OVERLOADED)))
    chat = Chat(sqlite, Scripted("Well, ", Waits(), DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await until_piece(events, "Well, ")
        for key in ("key 1", "key 2"):
            with pytest.raises(TurnInProgress):
                await send(Chat(sqlite, Scripted()), key=key)


async def test_what_was_stopped_before_the_first_piece_is_tried_again(store: AsyncStore) -> None:
    chat = Chat(store, Scripted(Waits()))
    async with aclosing(
        chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    ) as events:
        assert await anext(events) == Started("talk")
    assert (await send(Chat(store, Echo()))).text == "You said: Hi"
    assert await kept(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_message_whose_answer_from_the_store_was_lost_is_not_doubled(
    store: AsyncStore,
) -> None:
    await begin(store)
    time, watched = Time(), Watched(store)
    watched.after("append", 1, answer_lost)
    with pytest.raises(Exception, match="The answer was lost"):
        await send(timed(Chat(watched.store, Echo()), time))
    time.passes(61)
    model = Echo()
    reply = await send(timed(Chat(store, model), time))
    assert model.asked == [[("user", "Hi")]]
    assert await kept(store) == [("user", "Hi"), ("assistant", reply.text)]


async def test_a_reply_whose_answer_from_the_store_was_lost_is_found_with_the_key(
    store: AsyncStore,
) -> None:
    await begin(store)
    watched = Watched(store)
    watched.after("append", 2, answer_lost)
    with pytest.raises(Exception, match="The answer was lost"):
        await send(Chat(watched.store, Scripted("Well, yes.", USED)))
    silent = Scripted()
    assert await send(Chat(store, silent)) == Reply("talk", "Well, yes.", USED)
    assert silent.asked == []


async def test_a_turn_whose_process_died_is_tried_again_when_its_lease_has_ended(
    store: AsyncStore,
) -> None:
    time = Time()
    dead = timed(Chat(store, Scripted("Well, ", Waits()), time_limit=timedelta(hours=1)), time)
    events = dead.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await until_piece(events, "Well, ")
        with pytest.raises(TurnInProgress):
            await send(timed(Chat(store, Echo()), time))
        time.passes(61)
        assert (await send(timed(Chat(store, Echo()), time))).text == "You said: Hi"
        assert (await kept(store)).count(("user", "Hi")) == 1


# With other kinds of turns


async def test_a_key_answers_with_the_reply_that_was_made_anew(store: AsyncStore) -> None:
    await send(Chat(store, Scripted("Well, ", DONE)))
    await events_of(Chat(store, Scripted("Yes.", DONE)).regenerate("talk"))
    assert (await send(Chat(store, Scripted()))).text == "Yes."
    assert await kept(store) == [("user", "Hi"), ("assistant", "Yes.")]


async def test_a_key_whose_message_was_edited_away_is_not_used_again(store: AsyncStore) -> None:
    await send(Chat(store, Echo()))
    seq = (await store.page("talk")).messages[0].seq
    assert seq is not None
    await events_of(Chat(store, Echo()).edit("talk", seq, "Hello"))
    with pytest.raises(KeyReused):
        await send(Chat(store, Scripted()))


async def test_results_of_tools_are_sent_once_with_a_key(sqlite: AsyncStore) -> None:
    await begin(sqlite)
    calls = [{**CALL, "id": id} for id in ("a", "b")]
    chat = Chat(sqlite, Scripted(Finished("tool_use", tool_calls=calls)))  # type: ignore[arg-type]
    await chat.send("Hi", conversation_id="talk")
    results = [Message.tool("21 °C", tool_call_id=id) for id in ("a", "b")]
    model = Scripted("Warm.", DONE)
    for _ in range(2):
        again = [Message.tool(each.text, tool_call_id=str(each.tool_call_id)) for each in results]
        reply = await Chat(sqlite, model).send(
            again, conversation_id="talk", idempotency_key="key 1"
        )
        assert reply.text == "Warm."
    assert len(model.asked) == 1
    assert [role for role, _ in await kept(sqlite)] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


@pytest.mark.parametrize("how", ["another turn", "many messages"])
async def test_what_failed_is_not_tried_again_where_the_conversation_has_gone_on(
    store: AsyncStore, how: str
) -> None:
    with pytest.raises(ModelUnavailable):
        await send(Chat(store, Scripted(OVERLOADED)))
    if how == "another turn":
        await Chat(store, Echo()).send("And now?", conversation_id="talk")
    else:
        await add(store, *(Message.user(f"{n}") for n in range(30)))
    before = await kept(store)
    silent = Scripted()
    with pytest.raises(KeyReused, match="gone on"):
        await send(Chat(store, silent))
    assert silent.asked == []
    assert await kept(store) == before
    assert (await send(Chat(store, Echo()), key="key 2")).finished == DONE


async def test_a_reply_far_behind_its_message_is_found_with_the_key(store: AsyncStore) -> None:
    chat = Chat(store, Scripted("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        await until_piece(events, "Well, ")
        await add(store, *(Message.user(f"{n}") for n in range(40)))
        assert await events_of(events) == ["yes.", DONE]
    silent = Scripted()
    assert (await send(Chat(store, silent))).text == "Well, yes."
    assert silent.asked == []
