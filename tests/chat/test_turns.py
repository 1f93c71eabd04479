"""A turn over a real store: what is kept of it, however it ends."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing, contextmanager
from datetime import UTC
from pathlib import Path

import anyio
import pytest

from chatledger.chat import Chat, Event, Started, whole
from chatledger.errors import InvalidMessage, ModelUnavailable, NotFound, StoreUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.stores.contract import AsyncStore
from chatledger.stores.sqlite import SQLiteStore
from chatledger.stores.threads import ThreadedStore
from chatledger.windows import last
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    Caller,
    Echo,
    Scripted,
    Waits,
    begin,
    kept,
    reply_to,
    talk,
)

pytestmark = pytest.mark.anyio


async def until_the_second_piece(events: AsyncGenerator[Event, None]) -> None:
    assert isinstance(await anext(events), Started)
    assert await anext(events) == "Well, "


# A turn


async def test_a_turn_keeps_the_question_before_it_says_so_and_the_reply_before_its_end(
    store: AsyncStore,
) -> None:
    chat = Chat(store, Scripted("Hello, ", "Bob!", DONE))
    events = []
    async for event in chat.stream("Hi, I am Bob", conversation_id="talk", owner="bob"):
        events.append(event)
        if isinstance(event, Finished):
            assert await kept(store) == [("user", "Hi, I am Bob"), ("assistant", "Hello, Bob!")]
        else:
            assert await kept(store) == [("user", "Hi, I am Bob")]
    assert events == [Started("talk"), "Hello, ", "Bob!", DONE]


async def test_a_reply_says_which_model_made_it_how_it_ended_and_what_it_took(
    store: AsyncStore,
) -> None:
    limit = Finished("max_tokens", Usage(input_tokens=30, output_tokens=50))
    await whole(
        Chat(store, Scripted("Hello", limit)).stream("Hi", conversation_id="talk", owner="bob")
    )
    reply = await reply_to(store)
    assert reply.extra == {
        "model": "scripted",
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 30, "output_tokens": 50},
        "spent": {"input_tokens": 30, "output_tokens": 50},
    }
    assert reply.created_at.tzinfo is UTC


async def test_a_turn_without_an_id_starts_a_conversation_of_its_own(store: AsyncStore) -> None:
    chat = Chat(store, Echo())
    one = await whole(chat.stream("Hi", owner="bob"))
    other = await whole(chat.stream("Hi", owner="bob"))
    assert (one.text, one.finished) == ("You said: Hi", DONE)
    assert one.conversation_id != other.conversation_id
    ids = [conversation.id for conversation in (await store.list("bob")).conversations]
    assert sorted(ids) == sorted(map(str, (one.conversation_id, other.conversation_id)))


async def test_a_reply_without_a_word_is_kept_too(store: AsyncStore) -> None:
    reply = await whole(
        Chat(store, Scripted(DONE)).stream("Hi", conversation_id="talk", owner="bob")
    )
    assert reply.text == ""
    assert await kept(store) == [("user", "Hi"), ("assistant", "")]


async def test_what_cannot_be_stored_is_refused_and_starts_nothing(store: AsyncStore) -> None:
    model = Echo()
    with pytest.raises(InvalidMessage, match="lone surrogate"):
        await whole(Chat(store, model).stream("\ud83d", conversation_id="talk", owner="bob"))
    with pytest.raises(NotFound):
        await store.get("talk")
    assert model.asked == []


# Its title


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Plans for May", "Plans for May"),
        ("  Plans\n\nfor\tMay ", "Plans for May"),
        ("x" * 60, "x" * 60),
        ("Plans " * 10 + "for May", "Plans " * 9 + "Plans…"),
        ("x" * 61, "x" * 60 + "…"),
    ],
)
async def test_a_conversation_is_named_after_its_first_message(
    store: AsyncStore, text: str, title: str | None
) -> None:
    chat = Chat(store, Echo())
    await whole(chat.stream(text, conversation_id="talk", owner="bob"))
    await whole(chat.stream("Something else", conversation_id="talk", owner="bob"))
    assert (await store.get("talk")).title == title


async def test_a_title_that_was_given_stays(store: AsyncStore) -> None:
    await store.create("talk", owner="bob", title="Plans")
    await whole(Chat(store, Echo()).stream("Hi", conversation_id="talk", owner="bob"))
    assert (await store.get("talk")).title == "Plans"


async def test_an_empty_conversation_is_used_and_named(store: AsyncStore) -> None:
    created = await store.create("talk", owner="bob", metadata={"colour": "green"})
    await whole(Chat(store, Echo()).stream("Hi", conversation_id="talk", owner="bob"))
    conversation = await store.get("talk")
    assert (conversation.title, conversation.metadata) == ("Hi", {"colour": "green"})
    assert conversation.created_at == created.created_at


# What the model sees


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 7, 100])
async def test_the_model_sees_the_last_messages_and_the_user_first(
    store: AsyncStore, window: int
) -> None:
    model = Echo()
    chat = Chat(store, model, window=last(window))
    for number in range(4):
        await whole(chat.stream(f"{number}", conversation_id="talk", owner="bob"))
    every = await kept(store)
    for turn, seen in enumerate(model.asked):
        before = every[: 2 * turn + 1]
        assert seen[0][0] == "user"
        assert seen[-1] == ("user", f"{turn}")
        assert seen == before[-len(seen) :]
        # As many as it may: one fewer where the first would be a reply.
        assert len(seen) == min(len(before), window - 1 + window % 2)


async def test_what_comes_before_the_users_first_message_is_not_shown(store: AsyncStore) -> None:
    await begin(store)
    await store.append("talk", [Message.assistant("Welcome!")])
    model = Echo()
    await whole(Chat(store, model).stream("Hi", conversation_id="talk"))
    assert model.asked == [[("user", "Hi")]]


@pytest.mark.parametrize(
    ("own", "asked_for", "prompt"),
    [
        (None, None, None),
        ("Be brief.", None, "Be brief."),
        ("Be brief.", "Be kind.", "Be kind."),
        (None, "Be kind.", "Be kind."),
        ("Be brief.", "", ""),
    ],
)
async def test_a_turn_may_have_a_system_prompt_of_its_own(
    store: AsyncStore, own: str | None, asked_for: str | None, prompt: str | None
) -> None:
    model = Scripted("Hello", DONE)
    chat = Chat(store, model, system_prompt=own)
    await whole(chat.stream("Hi", conversation_id="talk", owner="bob", system_prompt=asked_for))
    await whole(chat.stream_unkept("Hi", system_prompt=asked_for))
    assert model.prompts == [prompt, prompt]
    assert await kept(store) == [("user", "Hi"), ("assistant", "Hello")]


# When it goes wrong


async def test_a_model_that_fails_at_once_leaves_the_question_and_the_next_turn_works(
    store: AsyncStore,
) -> None:
    with pytest.raises(ModelUnavailable, match="overloaded"):
        await whole(
            Chat(store, Scripted(OVERLOADED)).stream("Hi", conversation_id="talk", owner="bob")
        )
    assert await kept(store) == [("user", "Hi")]

    model = Echo()
    await whole(Chat(store, model).stream("Again", conversation_id="talk", owner="bob"))
    assert model.asked == [[("user", "Hi\n\nAgain")]]
    assert await kept(store) == [
        ("user", "Hi"),
        ("user", "Again"),
        ("assistant", "You said: Hi\n\nAgain"),
    ]


@pytest.mark.parametrize(
    "error", [OVERLOADED, RuntimeError("a bug")], ids=["ModelUnavailable", "any other"]
)
async def test_of_a_reply_that_fails_what_was_said_is_kept(
    store: AsyncStore, error: Exception
) -> None:
    model = Scripted("Well, ", "I ", error)
    with pytest.raises(type(error), match=str(error)):
        await whole(Chat(store, model).stream("Hi", conversation_id="talk", owner="bob"))
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, I ")]
    assert (await reply_to(store)).extra["stop_reason"] == "failed"


async def test_a_model_that_just_ends_has_failed(store: AsyncStore) -> None:
    chat = Chat(store, Scripted("Well, "))
    with pytest.raises(ModelUnavailable, match="ended without saying that it had finished"):
        await whole(chat.stream("Hi", conversation_id="talk", owner="bob"))
    assert (await reply_to(store)).extra["stop_reason"] == "failed"
    with pytest.raises(ModelUnavailable, match="ended without saying that it had finished"):
        await whole(chat.stream_unkept("Hi"))


async def test_a_caller_who_stops_keeps_what_was_said(store: AsyncStore) -> None:
    model = Scripted("Well, ", "I ", DONE)
    async with aclosing(
        Chat(store, model).stream("Hi", conversation_id="talk", owner="bob")
    ) as events:
        await until_the_second_piece(events)
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await reply_to(store)).extra["stop_reason"] == "stopped"
    assert model.calls_ended == 1


async def test_a_caller_who_stops_before_the_first_piece_keeps_the_question(
    store: AsyncStore,
) -> None:
    model = Scripted("Well, ", DONE)
    async with aclosing(
        Chat(store, model).stream("Hi", conversation_id="talk", owner="bob")
    ) as events:
        assert await anext(events) == Started("talk")
    assert await kept(store) == [("user", "Hi")]


async def test_a_turn_that_is_cancelled_keeps_what_was_said(store: AsyncStore) -> None:
    waits = Waits()
    model = Scripted("Well, ", waits, DONE)
    chat = Chat(store, model)
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.until("Well, ")
    caller.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller.task
    await chat.close()
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await reply_to(store)).extra["stop_reason"] == "stopped"
    assert model.calls_ended == 1


@contextmanager
def another_writer(path: Path) -> Iterator[None]:
    """No write to the file gets through meanwhile."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


async def test_a_turn_that_is_cancelled_while_it_keeps_the_reply_keeps_it_all_the_same(
    sqlite: AsyncStore, path: Path
) -> None:
    waits = Waits()
    chat = Chat(sqlite, Scripted("Well, ", waits, DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.until("Well, ")
    with another_writer(path):
        for _ in range(3):
            caller.task.cancel()
            for _ in range(50):
                await asyncio.sleep(0)
        assert caller.task.cancelled()
        with SQLiteStore(path) as reader:
            assert talk(reader.page("talk").messages) == [("user", "Hi")]
    await chat.close()
    assert await kept(sqlite) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await reply_to(sqlite)).extra["stop_reason"] == "stopped"


async def test_a_reply_that_was_complete_is_kept_as_such_though_the_turn_is_cancelled(
    sqlite: AsyncStore, path: Path
) -> None:
    waits = Waits()
    chat = Chat(sqlite, Scripted("Well, ", waits, "yes.", DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.until("Well, ")
    with another_writer(path):
        waits.over.set()
        await caller.until("yes.")
        for _ in range(50):
            await asyncio.sleep(0)
        caller.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller.task
    await chat.close()
    assert await kept(sqlite) == [("user", "Hi"), ("assistant", "Well, yes.")]
    assert (await reply_to(sqlite)).extra["stop_reason"] == "end_turn"


async def test_a_turn_in_a_cancelled_scope_keeps_what_was_said(store: AsyncStore) -> None:
    # Such a scope, which web frameworks use, cancels again at every await.
    waits = Waits()
    chat = Chat(store, Scripted("Well, ", waits, DONE))
    async with anyio.create_task_group() as group:
        events = chat.stream("Hi", conversation_id="talk", owner="bob")
        await until_the_second_piece(events)
        group.start_soon(whole, events)
        await asyncio.sleep(0)
        group.cancel_scope.cancel()
    await chat.close()
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, ")]


async def test_closing_a_chat_without_turns_does_not_wait(store: AsyncStore) -> None:
    chat = Chat(store, Echo())
    await chat.close()
    await whole(chat.stream("Hi", owner="bob"))
    await chat.close()


async def test_a_reply_that_cannot_be_kept_is_no_finished_turn(
    sqlite: AsyncStore, path: Path
) -> None:
    await begin(sqlite)
    waits = Waits()
    async with ThreadedStore(SQLiteStore(path, timeout=0.1)) as impatient:
        chat = Chat(impatient, Scripted("Well, ", waits, DONE))
        caller = Caller(chat.stream("Hi", conversation_id="talk"))
        await caller.until("Well, ")
        with another_writer(path):
            waits.over.set()
            with pytest.raises(StoreUnavailable, match="stayed locked"):
                await caller.task
    assert await kept(sqlite) == [("user", "Hi")]


# What happens to the conversation meanwhile


async def test_a_conversation_deleted_meanwhile_stays_deleted(store: AsyncStore) -> None:
    chat = Chat(store, Scripted("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await until_the_second_piece(events)
    await store.delete("talk")
    # Who asked still gets the answer.
    assert [event async for event in events] == ["yes.", DONE]
    with pytest.raises(NotFound):
        await store.get("talk")
    assert (await store.list("bob")).conversations == []


@pytest.mark.parametrize("owner", ["bob", "eve", None])
async def test_a_reply_to_a_deleted_conversation_does_not_land_in_the_next_one_of_that_id(
    store: AsyncStore, owner: str | None
) -> None:
    chat = Chat(store, Scripted("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await until_the_second_piece(events)
    await store.delete("talk")
    await store.append("talk", [Message.user("A new start")], owner=owner)
    assert [event async for event in events] == ["yes.", DONE]
    assert await kept(store) == [("user", "A new start")]


async def test_a_reply_lands_behind_what_others_wrote_meanwhile(store: AsyncStore) -> None:
    chat = Chat(store, Scripted("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await until_the_second_piece(events)
    await store.append("talk", [Message.user("Are you there?")])
    assert [event async for event in events] == ["yes.", DONE]
    assert await kept(store) == [
        ("user", "Hi"),
        ("user", "Are you there?"),
        ("assistant", "Well, yes."),
    ]


async def test_a_conversation_cleared_meanwhile_stays_empty(store: AsyncStore) -> None:
    chat = Chat(store, Scripted("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await until_the_second_piece(events)
    await store.clear("talk")
    assert [event async for event in events] == ["yes.", DONE]
    assert await kept(store) == []


async def test_turns_of_several_conversations_at_the_same_time_lose_nothing(
    store: AsyncStore,
) -> None:
    chat = Chat(store, Echo())
    replies = await asyncio.gather(
        *(chat.send(f"{n}", conversation_id=f"talk {n}", owner="bob") for n in range(20))
    )
    assert [reply.text for reply in replies] == [f"You said: {n}" for n in range(20)]
    for n in range(20):
        assert await kept(store, f"talk {n}") == [("user", f"{n}"), ("assistant", f"You said: {n}")]


async def test_of_owners_who_start_one_conversation_at_the_same_time_one_gets_it(
    store: AsyncStore,
) -> None:
    chat = Chat(store, Echo())
    owners = [f"owner {n}" for n in range(10)]
    replies = await asyncio.gather(
        *(chat.send(owner, conversation_id="talk", owner=owner) for owner in owners),
        return_exceptions=True,
    )
    refused = [reply for reply in replies if isinstance(reply, NotFound)]
    assert len(refused) == 9
    winner = (await store.get("talk")).owner
    assert await kept(store) == [("user", winner), ("assistant", f"You said: {winner}")]


# Turns that are not kept


async def test_a_turn_that_is_not_kept_stores_nothing(store: AsyncStore) -> None:
    model = Scripted("Hello", DONE)
    events = [event async for event in Chat(store, model).stream_unkept("Hi", owner="bob")]
    assert events == [Started(None), "Hello", DONE]
    assert (await store.list("bob")).conversations == []
    assert model.asked == [[("user", "Hi")]]


async def test_a_turn_that_is_not_kept_sees_the_conversation_and_leaves_it(
    store: AsyncStore,
) -> None:
    await begin(store, "I am Bob")
    before = await store.tail("talk", 10)
    model = Scripted("Bob", DONE)
    chat = Chat(store, model)
    reply = await whole(chat.stream_unkept("Who am I?", conversation_id="talk", owner="bob"))
    assert (reply.conversation_id, reply.text) == ("talk", "Bob")
    assert model.asked == [[("user", "I am Bob\n\nWho am I?")]]
    assert await store.tail("talk", 10) == before


async def test_a_turn_that_is_not_kept_starts_nothing_under_an_id_that_is_free(
    store: AsyncStore,
) -> None:
    reply = await whole(
        Chat(store, Echo()).stream_unkept("Hi", conversation_id="talk", owner="bob")
    )
    assert reply.conversation_id is None
    with pytest.raises(NotFound):
        await store.get("talk")


# Whose it is


@pytest.mark.parametrize("owner", ["alice", None])
@pytest.mark.parametrize("kept", [True, False])
async def test_somebody_elses_conversation_does_not_exist(
    store: AsyncStore, owner: str | None, kept: bool
) -> None:
    await begin(store, "Dear diary", owner=owner)
    before = await store.tail("talk", 10)
    model = Echo()
    chat = Chat(store, model)
    turn = chat.stream if kept else chat.stream_unkept
    with pytest.raises(NotFound) as refused:
        await whole(turn("Show me", conversation_id="talk", owner="eve"))
    assert str(refused.value) == "There is no conversation 'talk'."
    assert model.asked == []
    assert await store.tail("talk", 10) == before
    assert (await store.list("eve")).conversations == []


@pytest.mark.parametrize("kept", [True, False])
async def test_an_unknown_conversation_starts_for_nobody(store: AsyncStore, kept: bool) -> None:
    chat = Chat(store, Echo())
    turn = chat.stream if kept else chat.stream_unkept
    with pytest.raises(NotFound):
        await whole(turn("Hi", conversation_id="talk"))
    with pytest.raises(NotFound):
        await store.get("talk")


async def test_an_unknown_conversation_starts_for_an_owner_under_that_id(store: AsyncStore) -> None:
    reply = await whole(Chat(store, Echo()).stream("Hi", conversation_id="talk", owner="bob"))
    assert reply.conversation_id == "talk"
    assert (await store.get("talk", owner="bob")).message_count == 2
