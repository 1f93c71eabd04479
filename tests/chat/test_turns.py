"""Turns over real stores: the messages that are stored however a turn ends."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing, contextmanager
from datetime import UTC
from pathlib import Path

import anyio
import pytest

from chatledger.chat import Chat, Event, Started, collect
from chatledger.errors import InvalidMessage, ModelUnavailable, NotFound, StoreUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.stores.contract import AsyncStore
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from chatledger.windows import last
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    Caller,
    EchoModel,
    Gate,
    ScriptedModel,
    create_conversation,
    last_reply,
    transcript,
    transcript_of,
)

pytestmark = pytest.mark.anyio


async def take_first_piece(events: AsyncGenerator[Event, None]) -> None:
    assert isinstance(await anext(events), Started)
    assert await anext(events) == "Well, "


# A turn


async def test_messages_are_stored_before_their_events_are_yielded(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel("Hello, ", "Bob!", DONE))
    events = []
    async for event in chat.stream("Hi, I am Bob", conversation_id="talk", owner="bob"):
        events.append(event)
        if isinstance(event, Finished):
            assert await transcript(store) == [
                ("user", "Hi, I am Bob"),
                ("assistant", "Hello, Bob!"),
            ]
        else:
            assert await transcript(store) == [("user", "Hi, I am Bob")]
    assert events == [Started("talk"), "Hello, ", "Bob!", DONE]


async def test_a_reply_is_stored_with_its_model_stop_reason_and_usage(store: AsyncStore) -> None:
    limit = Finished("max_tokens", Usage(input_tokens=30, output_tokens=50))
    await collect(
        Chat(store, ScriptedModel("Hello", limit)).stream("Hi", conversation_id="talk", owner="bob")
    )
    reply = await last_reply(store)
    assert reply.extra == {
        "model": "scripted",
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 30, "output_tokens": 50},
        "spent": {"input_tokens": 30, "output_tokens": 50},
    }
    assert reply.created_at.tzinfo is UTC


async def test_each_turn_without_an_id_starts_a_conversation(store: AsyncStore) -> None:
    chat = Chat(store, EchoModel())
    one = await collect(chat.stream("Hi", owner="bob"))
    other = await collect(chat.stream("Hi", owner="bob"))
    assert (one.text, one.finished) == ("You said: Hi", DONE)
    assert one.conversation_id != other.conversation_id
    ids = [conversation.id for conversation in (await store.list("bob")).conversations]
    assert sorted(ids) == sorted(map(str, (one.conversation_id, other.conversation_id)))


async def test_an_empty_reply_is_stored_too(store: AsyncStore) -> None:
    reply = await collect(
        Chat(store, ScriptedModel(DONE)).stream("Hi", conversation_id="talk", owner="bob")
    )
    assert reply.text == ""
    assert await transcript(store) == [("user", "Hi"), ("assistant", "")]


async def test_a_message_that_cannot_be_stored_is_rejected_and_creates_no_conversation(
    store: AsyncStore,
) -> None:
    model = EchoModel()
    with pytest.raises(InvalidMessage, match="lone surrogate"):
        await collect(Chat(store, model).stream("\ud83d", conversation_id="talk", owner="bob"))
    with pytest.raises(NotFound):
        await store.get("talk")
    assert model.windows == []


# Titles


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
    chat = Chat(store, EchoModel())
    await collect(chat.stream(text, conversation_id="talk", owner="bob"))
    await collect(chat.stream("Something else", conversation_id="talk", owner="bob"))
    assert (await store.get("talk")).title == title


async def test_a_title_that_was_set_is_kept(store: AsyncStore) -> None:
    await store.create("talk", owner="bob", title="Plans")
    await collect(Chat(store, EchoModel()).stream("Hi", conversation_id="talk", owner="bob"))
    assert (await store.get("talk")).title == "Plans"


async def test_an_empty_conversation_gets_the_title_of_its_first_turn(store: AsyncStore) -> None:
    created = await store.create("talk", owner="bob", metadata={"colour": "green"})
    await collect(Chat(store, EchoModel()).stream("Hi", conversation_id="talk", owner="bob"))
    conversation = await store.get("talk")
    assert (conversation.title, conversation.metadata) == ("Hi", {"colour": "green"})
    assert conversation.created_at == created.created_at


# What the model sees


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 7, 100])
async def test_the_model_sees_the_last_messages_and_the_user_first(
    store: AsyncStore, window: int
) -> None:
    model = EchoModel()
    chat = Chat(store, model, window=last(window))
    for number in range(4):
        await collect(chat.stream(f"{number}", conversation_id="talk", owner="bob"))
    every = await transcript(store)
    for turn, seen in enumerate(model.windows):
        before = every[: 2 * turn + 1]
        assert seen[0][0] == "user"
        assert seen[-1] == ("user", f"{turn}")
        assert seen == before[-len(seen) :]
        # One message fewer than the window allows if the first would be a reply.
        assert len(seen) == min(len(before), window - 1 + window % 2)


async def test_messages_before_the_users_first_are_not_shown_to_the_model(
    store: AsyncStore,
) -> None:
    await create_conversation(store)
    await store.append("talk", [Message.assistant("Welcome!")])
    model = EchoModel()
    await collect(Chat(store, model).stream("Hi", conversation_id="talk"))
    assert model.windows == [[("user", "Hi")]]


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
async def test_a_turn_may_have_its_own_system_prompt(
    store: AsyncStore, own: str | None, asked_for: str | None, prompt: str | None
) -> None:
    model = ScriptedModel("Hello", DONE)
    chat = Chat(store, model, system_prompt=own)
    await collect(chat.stream("Hi", conversation_id="talk", owner="bob", system_prompt=asked_for))
    await collect(chat.stream_without_saving("Hi", system_prompt=asked_for))
    assert model.prompts == [prompt, prompt]
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Hello")]


# Failures


async def test_the_question_stays_when_the_model_fails_at_once_and_the_next_turn_works(
    store: AsyncStore,
) -> None:
    with pytest.raises(ModelUnavailable, match="overloaded"):
        await collect(
            Chat(store, ScriptedModel(OVERLOADED)).stream("Hi", conversation_id="talk", owner="bob")
        )
    assert await transcript(store) == [("user", "Hi")]

    model = EchoModel()
    await collect(Chat(store, model).stream("Again", conversation_id="talk", owner="bob"))
    assert model.windows == [[("user", "Hi\n\nAgain")]]
    assert await transcript(store) == [
        ("user", "Hi"),
        ("user", "Again"),
        ("assistant", "You said: Hi\n\nAgain"),
    ]


@pytest.mark.parametrize(
    "error", [OVERLOADED, RuntimeError("a bug")], ids=["ModelUnavailable", "any other"]
)
async def test_the_partial_reply_of_a_failed_model_is_saved(
    store: AsyncStore, error: Exception
) -> None:
    model = ScriptedModel("Well, ", "I ", error)
    with pytest.raises(type(error), match=str(error)):
        await collect(Chat(store, model).stream("Hi", conversation_id="talk", owner="bob"))
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, I ")]
    assert (await last_reply(store)).extra["stop_reason"] == "failed"


async def test_a_model_that_ends_without_finished_has_failed(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel("Well, "))
    with pytest.raises(ModelUnavailable, match="ended its reply without Finished"):
        await collect(chat.stream("Hi", conversation_id="talk", owner="bob"))
    assert (await last_reply(store)).extra["stop_reason"] == "failed"
    with pytest.raises(ModelUnavailable, match="ended its reply without Finished"):
        await collect(chat.stream_without_saving("Hi"))


async def test_the_partial_reply_is_saved_when_the_caller_closes_the_stream(
    store: AsyncStore,
) -> None:
    model = ScriptedModel("Well, ", "I ", DONE)
    async with aclosing(
        Chat(store, model).stream("Hi", conversation_id="talk", owner="bob")
    ) as events:
        await take_first_piece(events)
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await last_reply(store)).extra["stop_reason"] == "stopped"
    assert model.ended_calls == 1


async def test_the_question_stays_when_the_caller_closes_the_stream_before_the_first_piece(
    store: AsyncStore,
) -> None:
    model = ScriptedModel("Well, ", DONE)
    async with aclosing(
        Chat(store, model).stream("Hi", conversation_id="talk", owner="bob")
    ) as events:
        assert await anext(events) == Started("talk")
    assert await transcript(store) == [("user", "Hi")]


async def test_the_partial_reply_is_saved_when_the_turn_is_cancelled(store: AsyncStore) -> None:
    gate = Gate()
    model = ScriptedModel("Well, ", gate, DONE)
    chat = Chat(store, model)
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, ")
    caller.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller.task
    await chat.close()
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await last_reply(store)).extra["stop_reason"] == "stopped"
    assert model.ended_calls == 1


@contextmanager
def blocked_writes(path: Path) -> Iterator[None]:
    """Block all other writes to the file meanwhile."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


async def test_the_reply_is_saved_even_if_the_turn_is_cancelled_while_saving_it(
    sqlite: AsyncStore, path: Path
) -> None:
    gate = Gate()
    chat = Chat(sqlite, ScriptedModel("Well, ", gate, DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, ")
    with blocked_writes(path):
        for _ in range(3):
            caller.task.cancel()
            for _ in range(50):
                await asyncio.sleep(0)
        assert caller.task.cancelled()
        with SQLiteStore(path) as reader:
            assert transcript_of(reader.page("talk").messages) == [("user", "Hi")]
    await chat.close()
    assert await transcript(sqlite) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await last_reply(sqlite)).extra["stop_reason"] == "stopped"


async def test_a_complete_reply_is_saved_as_complete_even_if_the_turn_is_cancelled(
    sqlite: AsyncStore, path: Path
) -> None:
    gate = Gate()
    chat = Chat(sqlite, ScriptedModel("Well, ", gate, "yes.", DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, ")
    with blocked_writes(path):
        gate.opened.set()
        await caller.wait_for("yes.")
        for _ in range(50):
            await asyncio.sleep(0)
        caller.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller.task
    await chat.close()
    assert await transcript(sqlite) == [("user", "Hi"), ("assistant", "Well, yes.")]
    assert (await last_reply(sqlite)).extra["stop_reason"] == "end_turn"


async def test_the_partial_reply_is_saved_when_the_cancel_scope_is_cancelled(
    store: AsyncStore,
) -> None:
    # Web frameworks use cancel scopes, which cancel again at every await.
    gate = Gate()
    chat = Chat(store, ScriptedModel("Well, ", gate, DONE))
    async with anyio.create_task_group() as group:
        events = chat.stream("Hi", conversation_id="talk", owner="bob")
        await take_first_piece(events)
        group.start_soon(collect, events)
        await asyncio.sleep(0)
        group.cancel_scope.cancel()
    await chat.close()
    assert await transcript(store) == [("user", "Hi"), ("assistant", "Well, ")]


async def test_closing_a_chat_without_turns_does_not_wait(store: AsyncStore) -> None:
    chat = Chat(store, EchoModel())
    await chat.close()
    await collect(chat.stream("Hi", owner="bob"))
    await chat.close()


async def test_a_turn_whose_reply_cannot_be_stored_raises_the_stores_error(
    sqlite: AsyncStore, path: Path
) -> None:
    await create_conversation(sqlite)
    gate = Gate()
    async with AsyncSQLiteStore(path, timeout=0.1) as impatient:
        chat = Chat(impatient, ScriptedModel("Well, ", gate, DONE))
        caller = Caller(chat.stream("Hi", conversation_id="talk"))
        await caller.wait_for("Well, ")
        with blocked_writes(path):
            gate.opened.set()
            with pytest.raises(StoreUnavailable, match="stayed locked"):
                await caller.task
    assert await transcript(sqlite) == [("user", "Hi")]


# Changes to the conversation during a turn


async def test_a_conversation_deleted_during_a_turn_stays_deleted(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_first_piece(events)
    await store.delete("talk")
    # The caller still gets the reply.
    assert [event async for event in events] == ["yes.", DONE]
    with pytest.raises(NotFound):
        await store.get("talk")
    assert (await store.list("bob")).conversations == []


@pytest.mark.parametrize("owner", ["bob", "eve", None])
async def test_a_reply_is_not_saved_in_a_newer_conversation_with_the_same_id(
    store: AsyncStore, owner: str | None
) -> None:
    chat = Chat(store, ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_first_piece(events)
    await store.delete("talk")
    await store.append("talk", [Message.user("A new start")], owner=owner)
    assert [event async for event in events] == ["yes.", DONE]
    assert await transcript(store) == [("user", "A new start")]


async def test_a_reply_is_saved_after_messages_that_others_appended_meanwhile(
    store: AsyncStore,
) -> None:
    chat = Chat(store, ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_first_piece(events)
    await store.append("talk", [Message.user("Are you there?")])
    assert [event async for event in events] == ["yes.", DONE]
    assert await transcript(store) == [
        ("user", "Hi"),
        ("user", "Are you there?"),
        ("assistant", "Well, yes."),
    ]


async def test_a_conversation_cleared_during_a_turn_stays_empty(store: AsyncStore) -> None:
    chat = Chat(store, ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_first_piece(events)
    await store.clear("talk")
    assert [event async for event in events] == ["yes.", DONE]
    assert await transcript(store) == []


async def test_simultaneous_turns_of_several_conversations_lose_nothing(store: AsyncStore) -> None:
    chat = Chat(store, EchoModel())
    replies = await asyncio.gather(
        *(chat.send(f"{n}", conversation_id=f"talk {n}", owner="bob") for n in range(20))
    )
    assert [reply.text for reply in replies] == [f"You said: {n}" for n in range(20)]
    for n in range(20):
        assert await transcript(store, f"talk {n}") == [
            ("user", f"{n}"),
            ("assistant", f"You said: {n}"),
        ]


async def test_only_one_of_many_owners_who_start_a_conversation_with_one_id_gets_it(
    store: AsyncStore,
) -> None:
    chat = Chat(store, EchoModel())
    owners = [f"owner {n}" for n in range(10)]
    replies = await asyncio.gather(
        *(chat.send(owner, conversation_id="talk", owner=owner) for owner in owners),
        return_exceptions=True,
    )
    refused = [reply for reply in replies if isinstance(reply, NotFound)]
    assert len(refused) == 9
    winner = (await store.get("talk")).owner
    assert await transcript(store) == [("user", winner), ("assistant", f"You said: {winner}")]


# Unsaved turns


async def test_an_unsaved_turn_stores_nothing(store: AsyncStore) -> None:
    model = ScriptedModel("Hello", DONE)
    events = [event async for event in Chat(store, model).stream_without_saving("Hi", owner="bob")]
    assert events == [Started(None), "Hello", DONE]
    assert (await store.list("bob")).conversations == []
    assert model.windows == [[("user", "Hi")]]


async def test_an_unsaved_turn_sees_the_conversation_and_does_not_change_it(
    store: AsyncStore,
) -> None:
    await create_conversation(store, "I am Bob")
    before = await store.tail("talk", 10)
    model = ScriptedModel("Bob", DONE)
    chat = Chat(store, model)
    reply = await collect(
        chat.stream_without_saving("Who am I?", conversation_id="talk", owner="bob")
    )
    assert (reply.conversation_id, reply.text) == ("talk", "Bob")
    assert model.windows == [[("user", "I am Bob\n\nWho am I?")]]
    assert await store.tail("talk", 10) == before


async def test_an_unsaved_turn_does_not_create_the_conversation(store: AsyncStore) -> None:
    reply = await collect(
        Chat(store, EchoModel()).stream_without_saving("Hi", conversation_id="talk", owner="bob")
    )
    assert reply.conversation_id is None
    with pytest.raises(NotFound):
        await store.get("talk")


# Owners


@pytest.mark.parametrize("owner", ["alice", None])
@pytest.mark.parametrize("is_saved", [True, False])
async def test_another_owners_conversation_is_not_found(
    store: AsyncStore, owner: str | None, is_saved: bool
) -> None:
    await create_conversation(store, "Dear diary", owner=owner)
    before = await store.tail("talk", 10)
    model = EchoModel()
    chat = Chat(store, model)
    turn = chat.stream if is_saved else chat.stream_without_saving
    with pytest.raises(NotFound) as refused:
        await collect(turn("Show me", conversation_id="talk", owner="eve"))
    assert str(refused.value) == "There is no conversation 'talk'."
    assert model.windows == []
    assert await store.tail("talk", 10) == before
    assert (await store.list("eve")).conversations == []


@pytest.mark.parametrize("is_saved", [True, False])
async def test_without_an_owner_an_unknown_conversation_is_not_created(
    store: AsyncStore, is_saved: bool
) -> None:
    chat = Chat(store, EchoModel())
    turn = chat.stream if is_saved else chat.stream_without_saving
    with pytest.raises(NotFound):
        await collect(turn("Hi", conversation_id="talk"))
    with pytest.raises(NotFound):
        await store.get("talk")


async def test_an_unknown_conversation_is_created_for_the_owner(store: AsyncStore) -> None:
    reply = await collect(
        Chat(store, EchoModel()).stream("Hi", conversation_id="talk", owner="bob")
    )
    assert reply.conversation_id == "talk"
    assert (await store.get("talk", owner="bob")).message_count == 2
