"""Stop a turn, edit a message, regenerate a reply."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from chatledger.chat import Chat, Event, Reply, Started
from chatledger.chat.lease import MAX_STOPS, branch_of
from chatledger.errors import (
    Conflict,
    InvalidArgument,
    KeyReused,
    ModelUnavailable,
    NotFound,
    StoreUnavailable,
    TurnInProgress,
)
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from tests.chat.scripted_models import DONE, OVERLOADED, EchoModel, Gate, ScriptedModel
from tests.chat.talk import Caller, Talk, collect_events, take_until

pytestmark = pytest.mark.anyio

STOPPED = Finished("stopped")


async def run_turns(talk: Talk, *texts: str) -> None:
    for text in texts:
        await talk.chat(EchoModel()).send(text, conversation_id="talk", owner="bob")


# fork


async def is_running(chat: Chat, conversation_id: str) -> bool:
    turn = await chat.last_turn(conversation_id)
    return turn is not None and turn.is_running


async def test_a_copy_made_during_a_turn_is_free_at_once(talk: Talk) -> None:
    await run_turns(talk, "Hi")
    gate = Gate()
    chat = talk.chat(ScriptedModel("Well, ", gate, DONE))
    running = Caller(chat.stream("And now?", conversation_id="talk"))
    await running.wait_for("Well, ")
    copy = await chat.fork("talk", owner="bob", idempotency_key="key 1")
    tail = await talk.store.tail(copy.id, 20)
    assert tail.conversation == copy
    assert not await is_running(chat, copy.id)
    assert await chat.stop(copy.id) is False
    assert await is_running(chat, "talk")
    other_chat = talk.chat(EchoModel())
    assert (await other_chat.send("Bye", conversation_id=copy.id)).finished == DONE
    gate.opened.set()
    await asyncio.wait_for(running.task, 20)
    assert (await talk.transcript())[-1] == ("assistant", "Well, ")
    *texts, _ = [text for _, text in await talk.transcript(copy.id)]
    assert texts == ["Hi", "You said: Hi", "And now?", "Bye"]


async def test_a_copy_of_a_stopped_turn_that_has_not_ended_yet_is_not_running(sqlite: Talk) -> None:
    here = sqlite.chat(ScriptedModel("Well, ", Gate(), DONE), time=sqlite.time)
    there = sqlite.chat(EchoModel(), time=sqlite.time)
    async with aclosing(here.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        assert await there.stop("talk") is True
        copy = await there.fork("talk")
        assert not await is_running(there, copy.id)


async def test_copying_again_with_the_key_does_not_stop_a_turn_of_the_copy(sqlite: Talk) -> None:
    await run_turns(sqlite, "Hi")
    chat = sqlite.chat(ScriptedModel("Well, ", Gate(), DONE))
    copy = await chat.fork("talk", idempotency_key="key 1")
    running = Caller(chat.stream("And now?", conversation_id=copy.id))
    await running.wait_for("Well, ")
    assert (await chat.fork("talk", idempotency_key="key 1")).id == copy.id
    assert await is_running(chat, copy.id)
    assert await chat.stop(copy.id) is True
    await asyncio.wait_for(running.task, 20)


# stop


async def test_stopping_ends_the_turn_and_saves_the_partial_reply(talk: Talk) -> None:
    gate = Gate()
    model = ScriptedModel("Well, ", gate, DONE)
    chat = talk.chat(model)
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await gate.reached.wait()
    await caller.wait_for("Well, ")
    assert await chat.stop("talk", owner="bob") is True
    await asyncio.wait_for(caller.task, 20)
    assert caller.events == [Started("talk"), "Well, ", STOPPED]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Well, ")]
    assert await talk.stop_reason() == "stopped"
    assert await chat.stop("talk", owner="bob") is False


async def test_stopping_before_the_first_piece_keeps_the_question(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel(Gate()))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for(Started("talk"))
    assert await chat.stop("talk") is True
    await asyncio.wait_for(caller.task, 20)
    assert caller.events == [Started("talk"), STOPPED]
    assert await sqlite.transcript() == [("user", "Hi")]


@pytest.mark.parametrize(
    "is_mid_reply", [True, False], ids=["in mid-reply", "before the first piece"]
)
async def test_stopping_from_another_process_releases_the_lease_at_once_and_ends_the_turn(
    talk: Talk, is_mid_reply: bool
) -> None:
    gate = Gate()
    running = talk.chat(
        ScriptedModel(*(["Well, "] if is_mid_reply else []), gate, DONE), lease=timedelta(seconds=3)
    )
    caller = Caller(running.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.wait_for("Well, " if is_mid_reply else Started("talk"))
    other_chat = talk.chat(EchoModel())
    assert await other_chat.stop("talk") is True
    assert await other_chat.stop("talk") is False
    assert (await other_chat.send("And now?", conversation_id="talk")).finished == DONE
    # The gate stays closed: the turn ends at its next renewal.
    await asyncio.wait_for(caller.task, 20)
    assert caller.events[-1] == STOPPED
    stopped = [
        message.text
        for message in (await talk.messages())
        if message.extra.get("stop_reason") == "stopped"
    ]
    assert stopped == (["Well, "] if is_mid_reply else [])
    assert (await other_chat.send("Bye", conversation_id="talk")).finished == DONE


@pytest.mark.parametrize("pieces", [["Well, "], []], ids=["in mid-reply", "before the first piece"])
async def test_a_turn_stopped_from_another_process_counts_as_running_until_it_has_ended(
    talk: Talk, pieces: list[str]
) -> None:
    here = talk.chat(ScriptedModel(*pieces, Gate(), DONE), time=talk.time)
    there = talk.chat(EchoModel(), time=talk.time)
    async with aclosing(here.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, pieces[0] if pieces else Started("talk"))
        assert await there.stop("talk") is True
        assert await is_running(there, "talk")
        talk.time.advance(35)
        assert await collect_events(events) == [STOPPED]
    turn = await there.last_turn("talk")
    assert turn is not None
    assert turn.is_running is False
    assert (turn.reply is None) == (not pieces)


async def test_a_turn_stopped_from_another_process_whose_process_died_does_not_count_for_long(
    sqlite: Talk,
) -> None:
    here = sqlite.chat(ScriptedModel("Well, ", Gate(), DONE), time=sqlite.time)
    there = sqlite.chat(EchoModel(), time=sqlite.time)
    events = here.stream("Hi", conversation_id="talk", owner="bob")
    await take_until(events, "Well, ")
    assert await there.stop("talk") is True
    sqlite.time.advance(65)
    assert not await is_running(there, "talk")
    await events.aclose()


async def test_a_turn_stopped_from_another_process_ends_even_if_its_message_was_sent_again(
    talk: Talk,
) -> None:
    first = talk.chat(ScriptedModel(Gate(), DONE), time=talk.time)
    async with aclosing(first.stream("Hi", conversation_id="talk", owner="bob")) as events:
        assert await anext(events) == Started("talk")
        second = talk.chat(ScriptedModel("Oh, ", "no.", DONE), time=talk.time)
        assert await second.stop("talk") is True
        async with aclosing(second.stream("Hi", conversation_id="talk")) as others:
            await take_until(others, "Oh, ")
            talk.time.advance(35)
            try:
                async with asyncio.timeout(2):
                    assert await anext(events) == STOPPED
            except TimeoutError:
                pytest.fail("the stopped turn did not end")
            with pytest.raises(TurnInProgress):
                await talk.chat(EchoModel(), time=talk.time).send("Me too", conversation_id="talk")
            assert await collect_events(others) == ["no.", DONE]
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Oh, no.")]


@pytest.mark.parametrize("same_chat", [True, False], ids=["this process", "another process"])
async def test_a_stop_repeated_with_its_key_stops_no_other_turn(
    talk: Talk, same_chat: bool
) -> None:
    chat = talk.chat(ScriptedModel("Well, ", Gate(), DONE))
    stopping = chat if same_chat else talk.chat(EchoModel())
    await run_turns(talk, "Hi")
    assert await stopping.stop("talk", idempotency_key="early") is False
    first = Caller(chat.stream("And now?", conversation_id="talk"))
    await first.wait_for("Well, ")
    assert await stopping.stop("talk", owner="bob", idempotency_key="early") is False
    assert await is_running(chat, "talk")
    assert await stopping.stop("talk", owner="bob", idempotency_key="key 1") is True
    assert await chat.stop("talk") is True  # at once, also if another process had stopped it
    await asyncio.wait_for(first.task, 20)
    gate = Gate()
    chat = talk.chat(ScriptedModel("Well, ", gate, "now.", DONE))
    second = Caller(chat.stream("Go on", conversation_id="talk"))
    await second.wait_for("Well, ")
    for each in (chat, talk.chat(EchoModel())):
        assert await each.stop("talk", idempotency_key="key 1") is True
        assert await each.stop("talk", idempotency_key="early") is False
    gate.opened.set()
    await asyncio.wait_for(second.task, 20)
    assert (await talk.transcript())[-1] == ("assistant", "Well, now.")


async def test_a_key_of_a_stop_belongs_to_one_conversation(sqlite: Talk) -> None:
    await run_turns(sqlite, "Hi")
    chat = sqlite.chat(ScriptedModel("Well, ", Gate(), DONE))
    assert await chat.stop("talk", idempotency_key="key 1") is False
    copy = await chat.fork("talk")
    running = Caller(chat.stream("And now?", conversation_id=copy.id))
    await running.wait_for("Well, ")
    assert await chat.stop(copy.id, idempotency_key="key 1") is True
    await asyncio.wait_for(running.task, 20)


async def test_many_keys_of_stops_take_bounded_space(sqlite: Talk) -> None:
    await run_turns(sqlite, "Hi")
    chat = sqlite.chat(EchoModel())
    for n in range(MAX_STOPS + 5):
        assert await chat.stop("talk", idempotency_key=f"key {n}") is False
    [entry] = await sqlite.store.entries("talk")
    assert isinstance(entry.value, list)
    assert len(entry.value) == MAX_STOPS


async def test_calls_with_keys_at_the_same_time_are_all_remembered(talk: Talk) -> None:
    await run_turns(talk, "Hi")
    chat = talk.chat(EchoModel())
    keys = [f"key {n}" for n in range(8)]
    await asyncio.gather(*(chat.stop("talk", idempotency_key=key) for key in keys))
    chat = talk.chat(ScriptedModel("Well, ", Gate(), DONE))
    running = Caller(chat.stream("And now?", conversation_id="talk"))
    await running.wait_for("Well, ")
    assert [await chat.stop("talk", idempotency_key=key) for key in keys] == [False] * len(keys)
    assert await chat.stop("talk") is True
    await asyncio.wait_for(running.task, 20)


async def test_a_question_asked_again_does_not_get_the_stopped_turns_partial_reply(
    sqlite: Talk,
) -> None:
    here = sqlite.chat(ScriptedModel("Well, ", Gate()), time=sqlite.time)
    there = sqlite.chat(EchoModel(), time=sqlite.time)
    async with aclosing(here.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        assert await there.stop("talk")
        await there.send("Hi", conversation_id="talk")
        sqlite.time.advance(35)
        assert await collect_events(events) == [STOPPED]
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_stop_takes_effect_before_pieces_that_were_not_taken_yet(sqlite: Talk) -> None:
    gate = Gate()
    chat = sqlite.chat(ScriptedModel("Well, ", "I ", "say ", gate))
    events = chat.stream("Hi", conversation_id="talk", owner="bob")
    await take_until(events, "Well, ")
    await gate.reached.wait()  # the model has yielded all its pieces
    assert await chat.stop("talk")
    assert await collect_events(events) == [STOPPED]
    assert await sqlite.transcript() == [("user", "Hi"), ("assistant", "Well, ")]


async def test_stopping_when_no_turn_runs_returns_false_and_changes_nothing(talk: Talk) -> None:
    await talk.create()
    assert await talk.chat(EchoModel()).stop("talk") is False
    await run_turns(talk, "Hi")
    before = await talk.store.tail("talk", 10)
    assert await talk.chat(EchoModel()).stop("talk", owner="bob") is False
    assert await talk.store.tail("talk", 10) == before


async def test_stopping_a_turn_whose_lease_has_ended_returns_false(talk: Talk) -> None:
    lapsed = talk.chat(ScriptedModel("Well, ", Gate()), time=talk.time)
    async with aclosing(lapsed.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        talk.time.advance(61)
        assert await talk.chat(EchoModel(), time=talk.time).stop("talk") is False


@pytest.mark.parametrize("same_chat", [True, False], ids=["same chat", "other chat"])
async def test_a_turn_cannot_be_stopped_by_another_owner(sqlite: Talk, same_chat: bool) -> None:
    chat = sqlite.chat(ScriptedModel("Well, ", "yes.", DONE))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        with pytest.raises(NotFound):
            await (chat if same_chat else sqlite.chat(EchoModel())).stop("talk", owner="eve")
        assert await collect_events(events) == ["yes.", DONE]


async def test_stopping_in_an_unknown_conversation_raises_not_found(sqlite: Talk) -> None:
    with pytest.raises(NotFound):
        await sqlite.chat(EchoModel()).stop("talk")


class SlowHook:
    """A hook that waits until a test opens it."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def before_model(self, window: list[Message]) -> list[Message]:
        self.reached.set()
        await self.opened.wait()
        return window

    def after_reply(self, reply: Reply) -> None:
        pass


@pytest.mark.chat_only
async def test_a_turn_stopped_while_a_hook_is_running_ends(sqlite: Talk) -> None:
    hook, gate = SlowHook(), Gate()
    chat = sqlite.chat(ScriptedModel(gate, "Well, ", DONE), hooks=[hook])
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await hook.reached.wait()
    assert await chat.stop("talk") is True
    hook.opened.set()
    try:
        await asyncio.wait_for(caller.task, 2)
    except TimeoutError:
        pytest.fail("the turn did not end")
    assert caller.events == [Started("talk"), STOPPED]


async def test_a_turn_with_a_key_stopped_as_soon_as_it_has_started_ends(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel(Gate(), "Well, ", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        assert await anext(events) == Started("talk")
        assert await chat.stop("talk") is True
        try:
            async with asyncio.timeout(2):
                assert await anext(events) == STOPPED
        except TimeoutError:
            pytest.fail("the turn did not end")


async def test_a_reply_that_is_sent_again_does_not_keep_a_running_turn_from_being_stopped(
    sqlite: Talk,
) -> None:
    await sqlite.create()
    key = "key 1"
    first = await sqlite.chat(EchoModel()).send("Hi", conversation_id="talk", idempotency_key=key)
    # It would end at its next renewal too, but that is half a minute away.
    chat = sqlite.chat(ScriptedModel("Well, ", Gate(), DONE), lease=timedelta(minutes=1))
    running = Caller(chat.stream("And now?", conversation_id="talk"))
    await running.wait_for("Well, ")
    assert await chat.send("Hi", conversation_id="talk", idempotency_key=key) == first
    assert await chat.stop("talk") is True
    await asyncio.wait_for(running.task, 20)
    assert running.events[-1] == STOPPED


async def test_stopping_ends_the_saved_turn_and_not_an_unsaved_one(sqlite: Talk) -> None:
    chat = sqlite.chat(ScriptedModel("Well, ", Gate(), DONE))
    saved_turn = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await saved_turn.wait_for("Well, ")
    unsaved_turn = Caller(chat.stream_without_saving("A suggestion?", conversation_id="talk"))
    await unsaved_turn.wait_for("Well, ")
    assert await chat.stop("talk") is True
    try:
        await asyncio.wait_for(asyncio.shield(saved_turn.task), 2)
    except TimeoutError:
        pytest.fail("the turn did not end")
    finally:
        for caller in (saved_turn, unsaved_turn):
            caller.task.cancel()
        await asyncio.wait({saved_turn.task, unsaved_turn.task})
        await chat.close()
    assert saved_turn.events[-1] == STOPPED


# edit


async def test_an_edited_message_replaces_the_old_one_and_all_messages_after_it(talk: Talk) -> None:
    await run_turns(talk, "I am Bob", "Who am I?", "Really?")
    model = ScriptedModel("Well, ", "yes.", DONE)
    events = talk.chat(model).edit("talk", await talk.seq_of("Who am I?"), "Who are you?")
    assert await collect_events(events) == [Started("talk"), "Well, ", "yes.", DONE]
    before = [("user", "I am Bob"), ("assistant", "You said: I am Bob")]
    assert model.windows == [[*before, ("user", "Who are you?")]]
    assert await talk.transcript() == [
        *before,
        ("user", "Who are you?"),
        ("assistant", "Well, yes."),
    ]
    await run_turns(talk, "And now?")


async def test_the_first_message_may_be_edited(sqlite: Talk) -> None:
    await run_turns(sqlite, "I am Bob", "Who am I?")
    model = EchoModel()
    await collect_events(
        sqlite.chat(model).edit("talk", await sqlite.seq_of("I am Bob"), "I am Eve", owner="bob")
    )
    assert model.windows == [[("user", "I am Eve")]]
    assert await sqlite.transcript() == [("user", "I am Eve"), ("assistant", "You said: I am Eve")]


async def test_a_message_far_back_in_the_conversation_may_be_edited(talk: Talk) -> None:
    await talk.create()
    await talk.append_numbers(60)
    model = EchoModel()
    await collect_events(talk.chat(model).edit("talk", await talk.seq_of("30"), "thirty"))
    assert model.windows[0][0][1].split("\n\n") == [*map(str, range(11, 30)), "thirty"]
    assert len(await talk.transcript()) == 32


async def test_readers_see_the_old_messages_or_the_new_one(talk: Talk) -> None:
    await run_turns(talk, "I am Bob", "Who am I?")
    old = await talk.transcript()
    gate = Gate()
    chat = talk.chat(ScriptedModel(gate, "Well.", DONE))
    caller = Caller(chat.edit("talk", await talk.seq_of("Who am I?"), "Who are you?"))
    seen = []
    while Started("talk") not in caller.events:
        seen.append(await talk.transcript())
    new = [*old[:2], ("user", "Who are you?")]
    assert await talk.transcript() == new
    assert all(each in (old, new) for each in seen)
    gate.opened.set()
    await caller.task


async def test_an_edit_that_the_store_rejects_changes_nothing(talk: Talk) -> None:
    await run_turns(talk, "I am Bob", "Who am I?")
    before = await talk.transcript()
    talk.watched.fail("append", 1)
    chat = talk.watched_chat(EchoModel())
    with pytest.raises(StoreUnavailable):
        await collect_events(chat.edit("talk", await talk.seq_of("Who am I?"), "Who are you?"))
    assert await talk.transcript() == before
    await run_turns(talk, "And now?")


async def test_an_edit_whose_response_is_lost_stores_the_new_message(talk: Talk) -> None:
    await run_turns(talk, "I am Bob", "Who am I?")
    before = await talk.transcript()
    talk.watched.lose_response("append", 1)
    chat = talk.watched_chat(EchoModel())
    with pytest.raises(StoreUnavailable):
        await collect_events(chat.edit("talk", await talk.seq_of("Who am I?"), "Who are you?"))
    assert await talk.transcript() == [*before[:2], ("user", "Who are you?")]


async def test_the_edited_message_stays_when_the_model_fails(sqlite: Talk) -> None:
    await run_turns(sqlite, "I am Bob", "Who am I?")
    chat = sqlite.chat(ScriptedModel(OVERLOADED))
    with pytest.raises(ModelUnavailable):
        await collect_events(chat.edit("talk", await sqlite.seq_of("Who am I?"), "Who are you?"))
    assert (await sqlite.transcript())[2:] == [("user", "Who are you?")]
    await run_turns(sqlite, "Who are you?")
    assert (await sqlite.transcript())[2:] == [
        ("user", "Who are you?"),
        ("assistant", "You said: Who are you?"),
    ]


async def test_only_the_users_messages_can_be_edited(sqlite: Talk) -> None:
    await run_turns(sqlite, "Hi")
    before = await sqlite.store.tail("talk", 10)
    model = EchoModel()
    chat = sqlite.chat(model)
    with pytest.raises(InvalidArgument, match="not the user's"):
        await collect_events(chat.edit("talk", await sqlite.seq_of("You said: Hi"), "Ho"))
    assert model.windows == []
    assert await sqlite.store.tail("talk", 10) == before


@pytest.mark.parametrize("seq", [100, 2**53 - 2])
async def test_editing_a_message_that_does_not_exist_raises_not_found(talk: Talk, seq: int) -> None:
    await run_turns(talk, "Hi")
    with pytest.raises(NotFound, match=f"no message {seq} in"):
        await collect_events(talk.chat(EchoModel()).edit("talk", seq, "Ho"))


@pytest.mark.parametrize("seq", [0, -1, True, "1", 1.0])
async def test_editing_an_invalid_seq_is_rejected(sqlite: Talk, seq: int) -> None:
    await run_turns(sqlite, "Hi")
    with pytest.raises(InvalidArgument):
        await collect_events(sqlite.chat(EchoModel()).edit("talk", seq, "Ho"))


async def test_a_removed_message_cannot_be_edited(talk: Talk) -> None:
    await run_turns(talk, "Hi")
    seq = await talk.seq_of("Hi")
    await talk.store.clear("talk")
    await run_turns(talk, "Hello")
    with pytest.raises(NotFound):
        await collect_events(talk.chat(EchoModel()).edit("talk", seq, "Ho"))


@pytest.mark.parametrize(
    "messages", [[Message.user("a"), Message.user("b")], [], Message.assistant("a"), 7]
)
async def test_a_message_can_only_be_edited_into_one_user_message(
    sqlite: Talk, messages: object
) -> None:
    await run_turns(sqlite, "Hi")
    before = await sqlite.store.tail("talk", 10)
    with pytest.raises(InvalidArgument):
        await collect_events(sqlite.chat(EchoModel()).edit("talk", 1, messages))  # type: ignore[arg-type]
    assert await sqlite.store.tail("talk", 10) == before


@pytest.mark.parametrize("what", ["edit", "regenerate"])
async def test_the_messages_of_another_owner_cannot_be_changed(talk: Talk, what: str) -> None:
    await run_turns(talk, "Hi")
    before = await talk.store.tail("talk", 10)
    chat = talk.chat(EchoModel())
    with pytest.raises(NotFound) as refused:
        await collect_events(
            chat.edit("talk", await talk.seq_of("Hi"), "Ho", owner="eve")
            if what == "edit"
            else chat.regenerate("talk", owner="eve")
        )
    assert str(refused.value) == "There is no conversation 'talk'."
    assert await talk.store.tail("talk", 10) == before


@pytest.mark.parametrize("what", ["edit", "regenerate"])
async def test_nothing_can_be_edited_or_regenerated_while_a_turn_runs(
    talk: Talk, what: str
) -> None:
    await run_turns(talk, "Hi")
    running = talk.chat(ScriptedModel("Well, ", "yes.", DONE))
    async with aclosing(running.stream("And now?", conversation_id="talk")) as events:
        await take_until(events, "Well, ")
        before = await talk.transcript()
        chat = talk.chat(EchoModel())
        with pytest.raises(TurnInProgress):
            await collect_events(
                chat.edit("talk", await talk.seq_of("Hi"), "Ho")
                if what == "edit"
                else chat.regenerate("talk")
            )
        assert await talk.transcript() == before
        assert await collect_events(events) == ["yes.", DONE]


# regenerate


async def test_regenerating_replaces_the_reply_and_keeps_the_question(talk: Talk) -> None:
    await run_turns(talk, "I am Bob")
    sent = Message.user([{"text": "Who am I?"}], metadata={"from": "phone"})
    await talk.chat(ScriptedModel("Alice.", DONE)).send(sent, conversation_id="talk")
    model = ScriptedModel("Bob.", DONE)
    for _ in range(2):
        events = talk.chat(model).regenerate("talk", owner="bob")
        assert await collect_events(events) == [Started("talk"), "Bob.", DONE]
    assert await talk.transcript() == [
        ("user", "I am Bob"),
        ("assistant", "You said: I am Bob"),
        ("user", "Who am I?"),
        ("assistant", "Bob."),
    ]
    assert model.windows[0] == model.windows[1] == (await talk.transcript())[:3]
    question = (await talk.messages())[2]
    assert (question.id, question.content, question.metadata, question.created_at) == (
        sent.id,
        sent.content,
        sent.metadata,
        sent.created_at,
    )
    await run_turns(talk, "And now?")


async def test_regenerating_may_use_another_model_and_system_prompt(sqlite: Talk) -> None:
    await run_turns(sqlite, "Hi")
    other = ScriptedModel("Salve.", DONE)
    other.id = "other"
    await collect_events(
        sqlite.chat(EchoModel()).regenerate("talk", model=other, system_prompt="In Latin.")
    )
    assert other.prompts == ["In Latin."]
    assert (await sqlite.last_reply()).extra["model"] == "other"


@pytest.mark.parametrize(
    "script", [(OVERLOADED,), ("Well, ", OVERLOADED)], ids=["no reply", "partial reply"]
)
async def test_regenerating_works_after_a_failed_reply(
    talk: Talk, script: tuple[str | Exception, ...]
) -> None:
    with pytest.raises(ModelUnavailable):
        await talk.chat(ScriptedModel(*script)).send("Hi", conversation_id="talk", owner="bob")
    await collect_events(talk.chat(EchoModel()).regenerate("talk"))
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_regenerating_works_for_a_message_that_an_application_stored(talk: Talk) -> None:
    await talk.create("I am Bob", "Hi")
    await collect_events(talk.chat(EchoModel()).regenerate("talk"))
    assert await talk.transcript() == [
        ("user", "I am Bob"),
        ("user", "Hi"),
        ("assistant", "You said: I am Bob\n\nHi"),
    ]


@pytest.mark.parametrize("is_stopped", [False, True], ids=["failed", "stopped"])
async def test_a_reply_for_which_there_is_no_other_one_comes_back(
    talk: Talk, is_stopped: bool
) -> None:
    await run_turns(talk, "I am Bob", "Hi")
    before = await talk.messages()
    turn = await talk.chat(EchoModel()).last_turn("talk")
    assert turn is not None
    chat = talk.chat(ScriptedModel(Gate() if is_stopped else OVERLOADED))
    caller = Caller(chat.regenerate("talk", idempotency_key="key"))
    if is_stopped:
        await caller.wait_for(Started("talk"))
        assert await chat.stop("talk")
        await asyncio.wait_for(caller.task, 20)
    else:
        with pytest.raises(ModelUnavailable):
            await caller.task
    after = await talk.messages()
    assert [replace(message, seq=0) for message in after] == [
        replace(message, seq=0) for message in before
    ]
    again = await chat.last_turn("talk")
    assert again is not None
    assert (again.reply_id, again.is_running) == (turn.reply_id, False)
    await collect_events(talk.chat(EchoModel()).regenerate("talk", idempotency_key="key"))
    assert await talk.transcript() == [(each.role, each.text) for each in before]
    assert (await talk.last_reply()).id != turn.reply_id


async def test_a_reply_does_not_come_back_in_the_place_of_what_others_wrote(talk: Talk) -> None:
    await run_turns(talk, "Hi")
    gate = Gate()
    caller = Caller(talk.chat(ScriptedModel(gate, OVERLOADED)).regenerate("talk"))
    await caller.wait_for(Started("talk"))
    await talk.store.append("talk", [Message.user("By the way")], owner="bob")
    gate.opened.set()
    with pytest.raises(ModelUnavailable):
        await caller.task
    assert await talk.transcript() == [("user", "Hi"), ("user", "By the way")]
    assert not await is_running(talk.chat(EchoModel()), "talk")


@pytest.mark.parametrize("greeting", [True, False])
async def test_regenerating_without_a_message_to_reply_to_is_rejected(
    sqlite: Talk, greeting: bool
) -> None:
    await sqlite.create()
    if greeting:
        await sqlite.append(Message.assistant("Welcome!"))
    model = EchoModel()
    with pytest.raises(InvalidArgument, match="no message to reply to"):
        await collect_events(sqlite.chat(model).regenerate("talk"))
    assert model.windows == []
    await run_turns(sqlite, "Hi")


async def test_regenerating_the_reply_to_tool_results_keeps_the_results(talk: Talk) -> None:
    calls = [
        {"id": id, "name": "weather", "args": {"city": id}, "type": "tool_call"}
        for id in ("Bern", "Rome")
    ]
    await talk.chat(ScriptedModel("I look.", Finished("tool_use", tool_calls=calls))).send(  # type: ignore[arg-type]
        "Weather?", conversation_id="talk", owner="bob"
    )
    results = [Message.tool(f"{n} °C", tool_call_id=id) for n, id in ((9, "Bern"), (21, "Rome"))]
    await talk.chat(ScriptedModel("Cold.", DONE)).send(results, conversation_id="talk")
    model = ScriptedModel("Rome is warmer.", DONE)
    await collect_events(talk.chat(model).regenerate("talk"))
    sent = [("user", "Weather?"), ("assistant", "I look."), ("tool", "9 °C"), ("tool", "21 °C")]
    assert model.windows == [sent]
    assert await talk.transcript() == [*sent, ("assistant", "Rome is warmer.")]
    assert [m.tool_call_id for m in (await talk.messages())[2:4]] == ["Bern", "Rome"]


async def test_a_reply_is_not_saved_after_a_message_that_replaced_its_question(talk: Talk) -> None:
    slow = talk.chat(ScriptedModel("Well, ", "yes.", DONE), time=talk.time)
    async with aclosing(slow.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await take_until(events, "Well, ")
        talk.time.advance(61)
        quick = talk.chat(EchoModel(), time=talk.time)
        await collect_events(quick.edit("talk", await talk.seq_of("Hi"), "Hello"))
        await collect_events(events)
    assert await talk.transcript() == [("user", "Hello"), ("assistant", "You said: Hello")]


async def test_regenerating_uses_the_question_as_its_owner_changed_it(talk: Talk) -> None:
    await run_turns(talk, "Hi")
    question = (await talk.messages())[0]
    assert question.seq is not None
    await talk.store.replace("talk", question.seq, replace(question, content="Hello"))
    model = EchoModel()
    await collect_events(talk.chat(model).regenerate("talk"))
    assert model.windows == [[("user", "Hello")]]


# Revisions, keys and branches


async def test_a_started_turn_names_its_reply_and_the_message_that_it_answers(talk: Talk) -> None:
    events = await collect_events(
        talk.chat(EchoModel()).stream("Hi", conversation_id="talk", owner="bob")
    )
    question, reply = await talk.messages()
    started = events[0]
    assert isinstance(started, Started)
    assert (started.reply_id, started.seq, started.branch_id) == (reply.id, question.seq, None)


async def test_a_reply_or_message_is_replaced_only_at_the_given_revision(talk: Talk) -> None:
    await run_turns(talk, "Hi")
    chat, before = talk.chat(EchoModel()), await talk.transcript()
    revision = (await talk.store.get("talk")).revision
    [seq, _] = [message.seq for message in await talk.messages()]
    assert seq is not None
    for events in (
        chat.regenerate("talk", owner="bob", revision=revision - 1),
        chat.edit("talk", seq, "Ho", owner="bob", revision=revision - 1, keep_branch=True),
    ):
        with pytest.raises(Conflict):
            await collect_events(events)
    assert await talk.transcript() == before
    assert [each.id for each in await talk.store.list("bob")] == ["talk"]

    await collect_events(chat.regenerate("talk", owner="bob", revision=revision))
    [seq, _] = [message.seq for message in await talk.messages()]
    assert seq is not None
    revision = (await talk.store.get("talk")).revision
    await collect_events(chat.edit("talk", seq, "Ho", owner="bob", revision=revision))
    assert await talk.transcript() == [("user", "Ho"), ("assistant", "You said: Ho")]


async def test_another_reply_with_the_same_key_is_made_once(talk: Talk) -> None:
    await run_turns(talk, "Hi")
    model = ScriptedModel("Other.", DONE)

    async def regenerate(key: str | None, system_prompt: str | None = None) -> list[Event]:
        chat = talk.chat(model)
        return await collect_events(
            chat.regenerate("talk", owner="bob", idempotency_key=key, system_prompt=system_prompt)
        )

    first = await regenerate("key")
    assert await regenerate("key") == first == [Started("talk"), "Other.", DONE]
    assert len(model.windows) == 1
    with pytest.raises(KeyReused):
        await regenerate("key", system_prompt="Rhyme.")
    # Once the reply is replaced, the key is forgotten.
    await regenerate(None)
    await regenerate("key")
    assert len(model.windows) == 3
    assert await talk.transcript() == [("user", "Hi"), ("assistant", "Other.")]


async def test_an_edit_can_keep_the_former_branch(talk: Talk) -> None:
    await run_turns(talk, "Hi", "How are you?")
    before = await talk.transcript()
    seq = await talk.seq_of("Hi")
    edit = talk.chat(EchoModel()).edit("talk", seq, "Ho", owner="bob", keep_branch=True)
    started = (await collect_events(edit))[0]
    assert isinstance(started, Started)
    assert started.branch_id is not None
    assert await talk.transcript(started.branch_id) == before
    assert await talk.transcript() == [("user", "Ho"), ("assistant", "You said: Ho")]
    assert branch_of((await talk.messages())[0]) == started.branch_id


async def test_the_last_turn_tells_whether_its_reply_is_being_written(talk: Talk) -> None:
    chat = talk.chat(ScriptedModel("Well, ", "yes.", DONE), time=talk.time)
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        started = await anext(events)
        assert isinstance(started, Started)
        other = talk.chat(EchoModel(), time=talk.time)
        running = await other.last_turn("talk", owner="bob")
        assert running is not None
        assert (running.reply_id, running.question.seq) == (started.reply_id, started.seq)
        assert (running.reply, running.is_running) == (None, True)
        await collect_events(events)
    ended = await other.last_turn("talk", owner="bob")
    assert ended is not None
    assert ended.reply is not None
    assert (ended.reply.text, ended.is_running) == ("Well, yes.", False)
    with pytest.raises(NotFound):
        await other.last_turn("talk", owner="eve")
