"""Turns over real stores: the messages that are stored however a turn ends."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing, contextmanager
from datetime import UTC
from pathlib import Path

import anyio
import pytest

from chatledger.chat import Event, Started, collect
from chatledger.errors import InvalidMessage, ModelUnavailable, NotFound, StoreUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.stores.sqlite import AsyncSQLiteStore
from chatledger.windows import last
from tests.chat.scripted_models import DONE, OVERLOADED, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Caller, Talk

pytestmark = pytest.mark.anyio


async def take_first_piece(events: AsyncGenerator[Event, None]) -> None:
    assert isinstance(await anext(events), Started)
    assert await anext(events) == "Well, "


# A turn


async def test_messages_are_stored_before_their_events_are_yielded(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Hello, ", "Bob!", DONE))
    events = []
    async for event in chat.stream("Hi, I am Bob", conversation_id="talk", owner="bob"):
        events.append(event)
        if isinstance(event, Finished):
            assert await talk.transcript() == [
                ("user", "Hi, I am Bob"),
                ("assistant", "Hello, Bob!"),
            ]
        else:
            assert await talk.transcript() == [("user", "Hi, I am Bob")]
    assert events == [Started("talk"), "Hello, ", "Bob!", DONE]


async def test_a_reply_is_stored_with_its_model_stop_reason_and_usage(talk: Talk) -> None:
    limit = Finished("max_tokens", Usage(input_tokens=30, output_tokens=50))
    await collect(
        talk.chat(ScriptedModel("Hello", limit)).stream("Hi", conversation_id="talk", owner="bob")
    )
    reply = await talk.last_reply()
    assert reply.extra == {
        "model": "scripted",
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 30, "output_tokens": 50},
        "spent": {"input_tokens": 30, "output_tokens": 50},
    }
    assert reply.created_at.tzinfo is UTC


async def test_each_turn_without_an_id_starts_a_conversation(talk: Talk) -> None:
    chat = talk.chat(EchoModel())
    one = await collect(chat.stream("Hi", owner="bob"))
    other = await collect(chat.stream("Hi", owner="bob"))
    assert (one.text, one.finished) == ("You said: Hi", DONE)
    assert one.conversation_id != other.conversation_id
    ids = [conversation.id for conversation in (await talk.store.list("bob")).conversations]
    assert sorted(ids) == sorted(map(str, (one.conversation_id, other.conversation_id)))


async def test_an_empty_reply_is_stored_too(talk: Talk) -> None:
    reply = await collect(
        talk.chat(ScriptedModel(DONE)).stream("Hi", conversation_id="talk", owner="bob")
    )
    assert reply.text == ""
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "")]


async def test_a_message_that_cannot_be_stored_is_rejected_and_creates_no_conversation(
    talk: Talk,
) -> None:
    model = EchoModel()
    with pytest.raises(InvalidMessage, match="lone surrogate"):
        await collect(talk.chat(model).stream("\ud83d", conversation_id="talk", owner="bob"))
    with pytest.raises(NotFound):
        await talk.store.get("talk")
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
    talk: Talk, text: str, title: str | None
) -> None:
    chat = talk.chat(EchoModel())
    await collect(chat.stream(text, conversation_id="talk", owner="bob"))
    await collect(chat.stream("Something else", conversation_id="talk", owner="bob"))
    assert (await talk.store.get("talk")).title == title


async def test_a_title_that_was_set_is_kept(talk: Talk) -> None:
    await talk.store.create("talk", owner="bob", title="Plans")
    await collect(talk.chat(EchoModel()).stream("Hi", conversation_id="talk", owner="bob"))
    assert (await talk.store.get("talk")).title == "Plans"


async def test_an_empty_conversation_gets_the_title_of_its_first_turn(talk: Talk) -> None:
    created = await talk.store.create("talk", owner="bob", metadata={"colour": "green"})
    await collect(talk.chat(EchoModel()).stream("Hi", conversation_id="talk", owner="bob"))
    conversation = await talk.store.get("talk")
    assert (conversation.title, conversation.metadata) == ("Hi", {"colour": "green"})
    assert conversation.created_at == created.created_at


# What the model sees


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 7, 100])
async def test_the_model_sees_the_last_messages_and_the_user_first(talk: Talk, window: int) -> None:
    model = EchoModel()
    chat = talk.chat(model, window=last(window))
    for number in range(4):
        await collect(chat.stream(f"{number}", conversation_id="talk", owner="bob"))
    every = await talk.transcript()
    for turn, seen in enumerate(model.windows):
        before = every[: 2 * turn + 1]
        assert seen[0][0] == "user"
        assert seen[-1] == ("user", f"{turn}")
        assert seen == before[-len(seen) :]
        # One message fewer than the window allows if the first would be a reply.
        assert len(seen) == min(len(before), window - 1 + window % 2)


async def test_messages_before_the_users_first_are_not_shown_to_the_model(talk: Talk) -> None:
    await talk.create()
    await talk.append(Message.assistant("Welcome!"))
    model = EchoModel()
    await collect(talk.chat(model).stream("Hi", conversation_id="talk"))
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
    talk: Talk, own: str | None, asked_for: str | None, prompt: str | None
) -> None:
    model = ScriptedModel("Hello", DONE)
    chat = talk.chat(model, system_prompt=own)
    await collect(chat.stream("Hi", conversation_id="talk", owner="bob", system_prompt=asked_for))
    await collect(chat.stream_without_saving("Hi", system_prompt=asked_for))
    assert model.prompts == [prompt, prompt]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Hello")]


# Failures


async def test_the_question_stays_when_the_model_fails_at_once_and_the_next_turn_works(
    talk: Talk,
) -> None:
    with pytest.raises(ModelUnavailable, match="overloaded"):
        await collect(
            talk.chat(ScriptedModel(OVERLOADED)).stream("Hi", conversation_id="talk", owner="bob")
        )
    assert await talk.transcript() == [("user", "Hi")]

    model = EchoModel()
    await collect(talk.chat(model).stream("Again", conversation_id="talk", owner="bob"))
    assert model.windows == [[("user", "Hi\n\nAgain")]]
    assert await talk.transcript() == [
        ("user", "Hi"),
        ("user", "Again"),
        ("assistant", "You said: Hi\n\nAgain"),
    ]


@pytest.mark.parametrize(
    "error", [OVERLOADED, RuntimeError("a bug")], ids=["ModelUnavailable", "any other"]
)
async def test_the_partial_reply_of_a_failed_model_is_saved(talk: Talk, error: Exception) -> None:
    model = ScriptedModel("Well, ", "I ", error)
    with pytest.raises(type(error), match=str(error)):
        await collect(talk.chat(model).stream("Hi", conversation_id="talk", owner="bob"))
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, I ")]
    assert await talk.stop_reason() == "failed"


async def test_a_model_that_ends_without_finished_has_failed(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Well, "))
    with pytest.raises(ModelUnavailable, match="ended its reply without Finished"):
        await collect(chat.stream("Hi", conversation_id="talk", owner="bob"))
    assert await talk.stop_reason() == "failed"
    with pytest.raises(ModelUnavailable, match="ended its reply without Finished"):
        await collect(chat.stream_without_saving("Hi"))


async def test_the_partial_reply_is_saved_when_the_caller_closes_the_stream(talk: Talk) -> None:
    model = ScriptedModel("Well, ", "I ", DONE)
    async with aclosing(
        talk.chat(model).stream("Hi", conversation_id="talk", owner="bob")
    ) as events:
        await take_first_piece(events)
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, ")]
    assert await talk.stop_reason() == "stopped"


async def test_the_question_stays_when_the_caller_closes_the_stream_before_the_first_piece(
    talk: Talk,
) -> None:
    model = ScriptedModel("Well, ", DONE)
    async with aclosing(
        talk.chat(model).stream("Hi", conversation_id="talk", owner="bob")
    ) as events:
        assert await anext(events) == Started("talk")
    assert await talk.transcript() == [("user", "Hi")]


@pytest.mark.chat_only
async def test_the_partial_reply_is_saved_when_the_turn_is_cancelled(talk: Talk) -> None:
    gate = Gate()
    model = ScriptedModel("Well, ", gate, DONE)
    chat = talk.chat(model)
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, ")
    await caller.leave()
    await chat.close()
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, ")]
    assert await talk.stop_reason() == "stopped"


@contextmanager
def blocked_writes(path: Path) -> Iterator[None]:
    """Block all other writes to the file meanwhile."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


@pytest.mark.chat_only
async def test_the_reply_is_saved_even_if_the_turn_is_cancelled_while_saving_it(
    sqlite: Talk, path: Path
) -> None:
    gate = Gate()
    chat = sqlite.chat(ScriptedModel("Well, ", gate, DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, ")
    with blocked_writes(path):
        for _ in range(3):
            caller.task.cancel()
            for _ in range(50):
                await asyncio.sleep(0)
        assert caller.task.cancelled()
        assert await sqlite.transcript() == [("user", "Hi")]
    await chat.close()
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "Well, ")]
    assert await sqlite.stop_reason() == "stopped"


@pytest.mark.chat_only
async def test_a_complete_reply_is_saved_as_complete_even_if_the_turn_is_cancelled(
    sqlite: Talk, path: Path
) -> None:
    gate = Gate()
    chat = sqlite.chat(ScriptedModel("Well, ", gate, "yes.", DONE))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, ")
    with blocked_writes(path):
        gate.opened.set()
        await caller.wait_for("yes.")
        for _ in range(50):
            await asyncio.sleep(0)
        await caller.leave()
    await chat.close()
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "Well, yes.")]
    assert await sqlite.stop_reason() == "end_turn"


@pytest.mark.chat_only
async def test_the_partial_reply_is_saved_when_the_cancel_scope_is_cancelled(talk: Talk) -> None:
    # Web frameworks use cancel scopes, which cancel again at every await.
    gate = Gate()
    chat = talk.chat(ScriptedModel("Well, ", gate, DONE))
    async with anyio.create_task_group() as group:
        events = chat.stream("Hi", conversation_id="talk", owner="bob")
        await take_first_piece(events)
        group.start_soon(collect, events)
        await asyncio.sleep(0)
        group.cancel_scope.cancel()
    await chat.close()
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, ")]


@pytest.mark.chat_only
async def test_closing_a_chat_without_turns_does_not_wait(talk: Talk) -> None:
    chat = talk.chat(EchoModel())
    await chat.close()
    await collect(chat.stream("Hi", owner="bob"))
    await chat.close()


@pytest.mark.chat_only
async def test_close_waits_for_turns_whose_callers_left_with_break(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel(*(f"{n} " for n in range(100)), DONE))
    async for event in chat.stream("Hi", conversation_id="talk", owner="bob"):
        if event == "3 ":
            break
    await chat.close()
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "0 1 2 3 ")]
    await sqlite.assert_next_turn_works()


async def test_a_turn_whose_reply_cannot_be_stored_raises_the_stores_error(
    sqlite: Talk, path: Path
) -> None:
    await sqlite.create()
    gate = Gate()
    async with AsyncSQLiteStore(path, timeout=0.1) as impatient:
        chat = sqlite.chat(ScriptedModel("Well, ", gate, DONE), store=impatient)
        caller = Caller(chat.stream("Hi", conversation_id="talk"))
        await caller.wait_for("Well, ")
        with blocked_writes(path):
            gate.opened.set()
            with pytest.raises(StoreUnavailable, match="stayed locked"):
                await caller.task
    assert await sqlite.transcript() == [("user", "Hi")]


# Changes to the conversation during a turn


async def test_a_conversation_deleted_during_a_turn_stays_deleted(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_first_piece(events)
    await talk.store.delete("talk")
    # The caller still gets the reply.
    assert [event async for event in events] == ["yes.", DONE]
    with pytest.raises(NotFound):
        await talk.store.get("talk")
    assert (await talk.store.list("bob")).conversations == []


@pytest.mark.parametrize("owner", ["bob", "eve", None])
async def test_a_reply_is_not_saved_in_a_newer_conversation_with_the_same_id(
    talk: Talk, owner: str | None
) -> None:
    chat = talk.chat(ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_first_piece(events)
    await talk.store.delete("talk")
    await talk.store.append("talk", [Message.user("A new start")], owner=owner)
    assert [event async for event in events] == ["yes.", DONE]
    assert await talk.transcript() == [("user", "A new start")]


async def test_a_reply_is_saved_after_messages_that_others_appended_meanwhile(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_first_piece(events)
    await talk.append(Message.user("Are you there?"))
    assert [event async for event in events] == ["yes.", DONE]
    assert await talk.transcript() == [
        ("user", "Hi"),
        ("user", "Are you there?"),
        ("assistant", "Well, yes."),
    ]


async def test_a_conversation_cleared_during_a_turn_stays_empty(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Well, ", "yes.", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_first_piece(events)
    await talk.store.clear("talk")
    assert [event async for event in events] == ["yes.", DONE]
    assert await talk.transcript() == []


async def test_simultaneous_turns_of_several_conversations_lose_nothing(talk: Talk) -> None:
    chat = talk.chat(EchoModel())
    replies = await asyncio.gather(
        *(chat.send(f"{n}", conversation_id=f"talk {n}", owner="bob") for n in range(20))
    )
    assert [reply.text for reply in replies] == [f"You said: {n}" for n in range(20)]
    for n in range(20):
        assert await talk.transcript(f"talk {n}") == [
            ("user", f"{n}"),
            ("assistant", f"You said: {n}"),
        ]


async def test_only_one_of_many_owners_who_start_a_conversation_with_one_id_gets_it(
    talk: Talk,
) -> None:
    chat = talk.chat(EchoModel())
    owners = [f"owner {n}" for n in range(10)]
    replies = await asyncio.gather(
        *(chat.send(owner, conversation_id="talk", owner=owner) for owner in owners),
        return_exceptions=True,
    )
    refused = [reply for reply in replies if isinstance(reply, NotFound)]
    assert len(refused) == 9
    winner = (await talk.store.get("talk")).owner
    assert await talk.transcript() == [("user", winner), ("assistant", f"You said: {winner}")]


# Unsaved turns


async def test_an_unsaved_turn_stores_nothing(talk: Talk) -> None:
    model = ScriptedModel("Hello", DONE)
    events = [event async for event in talk.chat(model).stream_without_saving("Hi", owner="bob")]
    assert events == [Started(None), "Hello", DONE]
    assert (await talk.store.list("bob")).conversations == []
    assert model.windows == [[("user", "Hi")]]


async def test_an_unsaved_turn_sees_the_conversation_and_does_not_change_it(talk: Talk) -> None:
    await talk.create("I am Bob")
    before = await talk.store.tail("talk", 10)
    model = ScriptedModel("Bob", DONE)
    chat = talk.chat(model)
    reply = await collect(
        chat.stream_without_saving("Who am I?", conversation_id="talk", owner="bob")
    )
    assert (reply.conversation_id, reply.text) == ("talk", "Bob")
    assert model.windows == [[("user", "I am Bob\n\nWho am I?")]]
    assert await talk.store.tail("talk", 10) == before


async def test_an_unsaved_turn_does_not_create_the_conversation(talk: Talk) -> None:
    reply = await collect(
        talk.chat(EchoModel()).stream_without_saving("Hi", conversation_id="talk", owner="bob")
    )
    assert reply.conversation_id is None
    with pytest.raises(NotFound):
        await talk.store.get("talk")


# Owners


@pytest.mark.parametrize("owner", ["alice", None])
@pytest.mark.parametrize("is_saved", [True, False])
async def test_another_owners_conversation_is_not_found(
    talk: Talk, owner: str | None, is_saved: bool
) -> None:
    await talk.create("Dear diary", owner=owner)
    before = await talk.store.tail("talk", 10)
    model = EchoModel()
    chat = talk.chat(model)
    turn = chat.stream if is_saved else chat.stream_without_saving
    with pytest.raises(NotFound) as refused:
        await collect(turn("Show me", conversation_id="talk", owner="eve"))
    assert str(refused.value) == "There is no conversation 'talk'."
    assert model.windows == []
    assert await talk.store.tail("talk", 10) == before
    assert (await talk.store.list("eve")).conversations == []


@pytest.mark.parametrize("is_saved", [True, False])
async def test_without_an_owner_an_unknown_conversation_is_not_created(
    talk: Talk, is_saved: bool
) -> None:
    chat = talk.chat(EchoModel())
    turn = chat.stream if is_saved else chat.stream_without_saving
    with pytest.raises(NotFound):
        await collect(turn("Hi", conversation_id="talk"))
    with pytest.raises(NotFound):
        await talk.store.get("talk")


async def test_an_unknown_conversation_is_created_for_the_owner(talk: Talk) -> None:
    reply = await collect(talk.chat(EchoModel()).stream("Hi", conversation_id="talk", owner="bob"))
    assert reply.conversation_id == "talk"
    assert (await talk.store.get("talk", owner="bob")).message_count == 2


@pytest.mark.parametrize("is_saved", [True, False])
async def test_an_unknown_conversation_that_must_exist_is_not_created(
    talk: Talk, is_saved: bool
) -> None:
    model = EchoModel()
    chat = talk.chat(model)
    turn = chat.stream if is_saved else chat.stream_without_saving
    with pytest.raises(NotFound):
        await collect(turn("Hi", conversation_id="talk", owner="bob", must_exist=True))
    assert model.windows == []
    assert (await talk.store.list("bob")).conversations == []
    await talk.create(owner="bob")
    reply = await collect(turn("Hi", conversation_id="talk", owner="bob", must_exist=True))
    assert reply.conversation_id == "talk"


@pytest.mark.parametrize("key", [None, "monday"])
async def test_a_turn_without_a_conversation_starts_one_even_if_it_must_exist(
    talk: Talk, key: str | None
) -> None:
    chat = talk.chat(EchoModel())
    for _ in range(2):
        await chat.send("Hi", owner="bob", idempotency_key=key, must_exist=True)
    assert len((await talk.store.list("bob")).conversations) == (1 if key else 2)
