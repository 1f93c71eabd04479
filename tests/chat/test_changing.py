"""Stopping a turn, another reply, another message."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from chatledger.chat import Chat, Reply, Started
from chatledger.errors import (
    InvalidArgument,
    ModelUnavailable,
    NotFound,
    StoreUnavailable,
    TurnInProgress,
)
from chatledger.messages import Message
from chatledger.models.protocol import Finished
from chatledger.stores.contract import AsyncStore
from tests.chat.chat_helpers import (
    DONE,
    OVERLOADED,
    Caller,
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
    reply_to,
    timed,
    unavailable,
    until_piece,
)

pytestmark = pytest.mark.anyio

STOPPED = Finished("stopped")


async def seq_of(store: AsyncStore, text: str) -> int:
    for message in (await store.page("talk", limit=1_000)).messages:
        if message.text == text:
            assert message.seq is not None
            return message.seq
    raise AssertionError(text)


async def talked(store: AsyncStore, *texts: str) -> None:
    for text in texts:
        await Chat(store, Echo()).send(text, conversation_id="talk", owner="bob")


# Stopping


async def test_stopping_ends_the_turn_and_keeps_what_was_said(store: AsyncStore) -> None:
    waits = Waits()
    model = Scripted("Well, ", waits, DONE)
    chat = Chat(store, model)
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await waits.reached.wait()
    await caller.until("Well, ")
    assert await chat.stop("talk", owner="bob") is True
    await asyncio.wait_for(caller.task, 20)
    assert caller.seen == [Started("talk"), "Well, ", STOPPED]
    assert model.calls_ended == 1
    assert await kept(store) == [("user", "Hi"), ("assistant", "Well, ")]
    assert (await reply_to(store)).extra["stop_reason"] == "stopped"
    assert await chat.stop("talk", owner="bob") is False


async def test_stopping_before_the_first_piece_keeps_the_question(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, Scripted(Waits()))
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.until(Started("talk"))
    assert await chat.stop("talk") is True
    await asyncio.wait_for(caller.task, 20)
    assert caller.seen == [Started("talk"), STOPPED]
    assert await kept(sqlite) == [("user", "Hi")]


@pytest.mark.parametrize("said", [True, False], ids=["in mid-reply", "before the first piece"])
async def test_stopping_from_elsewhere_frees_the_conversation_at_once_and_ends_the_turn(
    store: AsyncStore, said: bool
) -> None:
    waits = Waits()
    running = Chat(
        store, Scripted(*(["Well, "] if said else []), waits, DONE), lease=timedelta(seconds=3)
    )
    caller = Caller(running.stream("Hi", conversation_id="talk", owner="bob"))
    await caller.until("Well, " if said else Started("talk"))
    elsewhere = Chat(store, Echo())
    assert await elsewhere.stop("talk") is True
    assert await elsewhere.stop("talk") is False
    assert (await elsewhere.send("And now?", conversation_id="talk")).finished == DONE
    # Nobody lets the model go on: it is the turn that ends, at its next renewal.
    await asyncio.wait_for(caller.task, 20)
    assert caller.seen[-1] == STOPPED
    stopped = [
        message.text
        for message in (await store.page("talk")).messages
        if message.extra.get("stop_reason") == "stopped"
    ]
    assert stopped == (["Well, "] if said else [])
    assert (await elsewhere.send("Bye", conversation_id="talk")).finished == DONE


async def test_a_turn_stopped_from_elsewhere_ends_though_its_message_was_sent_again(
    store: AsyncStore,
) -> None:
    time = Time()
    first = timed(Chat(store, Scripted(Waits(), DONE)), time)
    async with aclosing(first.stream("Hi", conversation_id="talk", owner="bob")) as events:
        assert await anext(events) == Started("talk")
        second = timed(Chat(store, Scripted("Oh, ", "no.", DONE)), time)
        assert await second.stop("talk") is True
        async with aclosing(second.stream("Hi", conversation_id="talk")) as others:
            await until_piece(others, "Oh, ")
            time.passes(25)
            try:
                async with asyncio.timeout(2):
                    assert await anext(events) == STOPPED
            except TimeoutError:
                pytest.fail("the stopped turn goes on")
            with pytest.raises(TurnInProgress):
                await timed(Chat(store, Echo()), time).send("Me too", conversation_id="talk")
            assert await events_of(others) == ["no.", DONE]
    assert await kept(store) == [("user", "Hi"), ("assistant", "Oh, no.")]


async def test_stopping_where_nothing_runs_says_so_and_changes_nothing(store: AsyncStore) -> None:
    await begin(store)
    assert await Chat(store, Echo()).stop("talk") is False
    await talked(store, "Hi")
    before = await store.tail("talk", 10)
    assert await Chat(store, Echo()).stop("talk", owner="bob") is False
    assert await store.tail("talk", 10) == before


async def test_stopping_where_a_turn_has_lapsed_says_that_none_runs(store: AsyncStore) -> None:
    time = Time()
    lapsed = timed(Chat(store, Scripted("Well, ", Waits())), time)
    async with aclosing(lapsed.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await until_piece(events, "Well, ")
        time.passes(61)
        assert await timed(Chat(store, Echo()), time).stop("talk") is False


@pytest.mark.parametrize("here", [True, False], ids=["here", "elsewhere"])
async def test_nobody_stops_somebody_elses_turn(sqlite: AsyncStore, here: bool) -> None:
    chat = Chat(sqlite, Scripted("Well, ", "yes.", DONE))
    async with aclosing(chat.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await until_piece(events, "Well, ")
        with pytest.raises(NotFound):
            await (chat if here else Chat(sqlite, Echo())).stop("talk", owner="eve")
        assert await events_of(events) == ["yes.", DONE]


async def test_stopping_what_is_not_there_says_so(sqlite: AsyncStore) -> None:
    with pytest.raises(NotFound):
        await Chat(sqlite, Echo()).stop("talk")


class Slow:
    """A hook that takes its time."""

    def __init__(self) -> None:
        self.reached, self.over = asyncio.Event(), asyncio.Event()

    async def before_model(self, window: list[Message]) -> list[Message]:
        self.reached.set()
        await self.over.wait()
        return window

    def after_reply(self, reply: Reply) -> None:
        pass


async def test_a_turn_stopped_while_a_hook_works_ends(sqlite: AsyncStore) -> None:
    hook, waits = Slow(), Waits()
    chat = Chat(sqlite, Scripted(waits, "Well, ", DONE), hooks=[hook])
    caller = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await hook.reached.wait()
    assert await chat.stop("talk") is True
    hook.over.set()
    try:
        await asyncio.wait_for(caller.task, 2)
    except TimeoutError:
        pytest.fail("the turn goes on")
    assert caller.seen == [Started("talk"), STOPPED]


async def test_a_turn_with_a_key_stopped_as_soon_as_it_has_started_ends(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, Scripted(Waits(), "Well, ", DONE))
    events = chat.stream("Hi", conversation_id="talk", owner="bob", idempotency_key="key 1")
    async with aclosing(events):
        assert await anext(events) == Started("talk")
        assert await chat.stop("talk") is True
        try:
            async with asyncio.timeout(2):
                assert await anext(events) == STOPPED
        except TimeoutError:
            pytest.fail("the turn goes on")


async def test_stopping_stops_the_turn_that_is_kept_and_no_other(sqlite: AsyncStore) -> None:
    chat = Chat(sqlite, Scripted("Well, ", Waits(), DONE))
    kept_turn = Caller(chat.stream("Hi", conversation_id="talk", owner="bob"))
    await kept_turn.until("Well, ")
    unkept = Caller(chat.stream_unkept("A suggestion?", conversation_id="talk"))
    await unkept.until("Well, ")
    assert await chat.stop("talk") is True
    try:
        await asyncio.wait_for(asyncio.shield(kept_turn.task), 2)
    except TimeoutError:
        pytest.fail("the turn goes on")
    finally:
        for caller in (kept_turn, unkept):
            caller.task.cancel()
        await asyncio.wait({kept_turn.task, unkept.task})
        await chat.close()
    assert kept_turn.seen[-1] == STOPPED


# Another message


async def test_an_edited_message_takes_the_place_of_the_old_one_and_of_all_behind_it(
    store: AsyncStore,
) -> None:
    await talked(store, "I am Bob", "Who am I?", "Really?")
    model = Scripted("Well, ", "yes.", DONE)
    events = Chat(store, model).edit("talk", await seq_of(store, "Who am I?"), "Who are you?")
    assert await events_of(events) == [Started("talk"), "Well, ", "yes.", DONE]
    before = [("user", "I am Bob"), ("assistant", "You said: I am Bob")]
    assert model.asked == [[*before, ("user", "Who are you?")]]
    assert await kept(store) == [*before, ("user", "Who are you?"), ("assistant", "Well, yes.")]
    await talked(store, "And now?")


async def test_the_first_message_may_be_edited(sqlite: AsyncStore) -> None:
    await talked(sqlite, "I am Bob", "Who am I?")
    model = Echo()
    await events_of(
        Chat(sqlite, model).edit("talk", await seq_of(sqlite, "I am Bob"), "I am Eve", owner="bob")
    )
    assert model.asked == [[("user", "I am Eve")]]
    assert await kept(sqlite) == [("user", "I am Eve"), ("assistant", "You said: I am Eve")]


async def test_a_message_far_back_may_be_edited(store: AsyncStore) -> None:
    await begin(store)
    await add(store, *(Message.user(f"{n}") for n in range(60)))
    model = Echo()
    await events_of(Chat(store, model).edit("talk", await seq_of(store, "30"), "thirty"))
    assert model.asked[0][0][1].split("\n\n") == [*map(str, range(11, 30)), "thirty"]
    assert len(await kept(store)) == 32


async def test_readers_see_the_old_messages_or_the_new_one(store: AsyncStore) -> None:
    await talked(store, "I am Bob", "Who am I?")
    old = await kept(store)
    waits = Waits()
    chat = Chat(store, Scripted(waits, "Well.", DONE))
    caller = Caller(chat.edit("talk", await seq_of(store, "Who am I?"), "Who are you?"))
    seen = []
    while Started("talk") not in caller.seen:
        seen.append(await kept(store))
    new = [*old[:2], ("user", "Who are you?")]
    assert await kept(store) == new
    assert all(each in (old, new) for each in seen)
    waits.over.set()
    await caller.task


async def test_an_edit_that_the_store_does_not_take_leaves_all_as_it_was(store: AsyncStore) -> None:
    await talked(store, "I am Bob", "Who am I?")
    before = await kept(store)
    watched = Watched(store)
    watched.before("append", 1, unavailable)
    chat = Chat(watched.store, Echo())
    with pytest.raises(StoreUnavailable):
        await events_of(chat.edit("talk", await seq_of(store, "Who am I?"), "Who are you?"))
    assert await kept(store) == before
    await talked(store, "And now?")


async def test_an_edit_whose_answer_is_lost_has_the_new_message(store: AsyncStore) -> None:
    await talked(store, "I am Bob", "Who am I?")
    before = await kept(store)
    watched = Watched(store)
    watched.after("append", 1, answer_lost)
    chat = Chat(watched.store, Echo())
    with pytest.raises(StoreUnavailable):
        await events_of(chat.edit("talk", await seq_of(store, "Who am I?"), "Who are you?"))
    assert await kept(store) == [*before[:2], ("user", "Who are you?")]


async def test_a_model_that_fails_leaves_the_edited_message(sqlite: AsyncStore) -> None:
    await talked(sqlite, "I am Bob", "Who am I?")
    chat = Chat(sqlite, Scripted(OVERLOADED))
    with pytest.raises(ModelUnavailable):
        await events_of(chat.edit("talk", await seq_of(sqlite, "Who am I?"), "Who are you?"))
    assert (await kept(sqlite))[2:] == [("user", "Who are you?")]
    await talked(sqlite, "Who are you?")
    assert (await kept(sqlite))[2:] == [
        ("user", "Who are you?"),
        ("assistant", "You said: Who are you?"),
    ]


async def test_only_the_users_messages_are_edited(sqlite: AsyncStore) -> None:
    await talked(sqlite, "Hi")
    before = await sqlite.tail("talk", 10)
    model = Echo()
    chat = Chat(sqlite, model)
    with pytest.raises(InvalidArgument, match="not the user's"):
        await events_of(chat.edit("talk", await seq_of(sqlite, "You said: Hi"), "Ho"))
    assert model.asked == []
    assert await sqlite.tail("talk", 10) == before


@pytest.mark.parametrize("seq", [100, 2**53 - 2])
async def test_what_is_not_there_is_not_edited(store: AsyncStore, seq: int) -> None:
    await talked(store, "Hi")
    with pytest.raises(NotFound, match=f"no message {seq} in"):
        await events_of(Chat(store, Echo()).edit("talk", seq, "Ho"))


@pytest.mark.parametrize("seq", [0, -1, True, "1", 1.0])
async def test_what_is_no_seq_is_refused(sqlite: AsyncStore, seq: int) -> None:
    await talked(sqlite, "Hi")
    with pytest.raises(InvalidArgument):
        await events_of(Chat(sqlite, Echo()).edit("talk", seq, "Ho"))


async def test_a_message_that_was_removed_is_not_edited(store: AsyncStore) -> None:
    await talked(store, "Hi")
    seq = await seq_of(store, "Hi")
    await store.clear("talk")
    await talked(store, "Hello")
    with pytest.raises(NotFound):
        await events_of(Chat(store, Echo()).edit("talk", seq, "Ho"))


@pytest.mark.parametrize(
    "messages", [[Message.user("a"), Message.user("b")], [], Message.assistant("a"), 7]
)
async def test_a_message_is_edited_into_one_of_the_users(
    sqlite: AsyncStore, messages: object
) -> None:
    await talked(sqlite, "Hi")
    before = await sqlite.tail("talk", 10)
    with pytest.raises(InvalidArgument):
        await events_of(Chat(sqlite, Echo()).edit("talk", 1, messages))  # type: ignore[arg-type]
    assert await sqlite.tail("talk", 10) == before


@pytest.mark.parametrize("what", ["edit", "regenerate"])
async def test_somebody_elses_messages_are_not_changed(store: AsyncStore, what: str) -> None:
    await talked(store, "Hi")
    before = await store.tail("talk", 10)
    chat = Chat(store, Echo())
    with pytest.raises(NotFound) as refused:
        await events_of(
            chat.edit("talk", await seq_of(store, "Hi"), "Ho", owner="eve")
            if what == "edit"
            else chat.regenerate("talk", owner="eve")
        )
    assert str(refused.value) == "There is no conversation 'talk'."
    assert await store.tail("talk", 10) == before


@pytest.mark.parametrize("what", ["edit", "regenerate"])
async def test_nothing_is_changed_while_a_turn_runs(store: AsyncStore, what: str) -> None:
    await talked(store, "Hi")
    running = Chat(store, Scripted("Well, ", "yes.", DONE))
    async with aclosing(running.stream("And now?", conversation_id="talk")) as events:
        await until_piece(events, "Well, ")
        before = await kept(store)
        chat = Chat(store, Echo())
        with pytest.raises(TurnInProgress):
            await events_of(
                chat.edit("talk", await seq_of(store, "Hi"), "Ho")
                if what == "edit"
                else chat.regenerate("talk")
            )
        assert await kept(store) == before
        assert await events_of(events) == ["yes.", DONE]


# Another reply


async def test_another_reply_takes_the_place_of_the_old_one_and_the_question_stays(
    store: AsyncStore,
) -> None:
    await talked(store, "I am Bob")
    asked = Message.user([{"text": "Who am I?"}], metadata={"from": "phone"})
    await Chat(store, Scripted("Alice.", DONE)).send(asked, conversation_id="talk")
    model = Scripted("Bob.", DONE)
    for _ in range(2):
        events = Chat(store, model).regenerate("talk", owner="bob")
        assert await events_of(events) == [Started("talk"), "Bob.", DONE]
    assert await kept(store) == [
        ("user", "I am Bob"),
        ("assistant", "You said: I am Bob"),
        ("user", "Who am I?"),
        ("assistant", "Bob."),
    ]
    assert model.asked[0] == model.asked[1] == (await kept(store))[:3]
    question = (await store.page("talk")).messages[2]
    assert (question.id, question.content, question.metadata, question.created_at) == (
        asked.id,
        asked.content,
        asked.metadata,
        asked.created_at,
    )
    await talked(store, "And now?")


async def test_another_reply_may_have_another_model_and_prompt(sqlite: AsyncStore) -> None:
    await talked(sqlite, "Hi")
    other = Scripted("Salve.", DONE)
    other.id = "other"
    await events_of(Chat(sqlite, Echo()).regenerate("talk", model=other, system_prompt="In Latin."))
    assert other.prompts == ["In Latin."]
    assert (await reply_to(sqlite)).extra["model"] == "other"


@pytest.mark.parametrize("script", [(OVERLOADED,), ("Well, ", OVERLOADED)], ids=["none", "some"])
async def test_another_reply_to_what_failed_works(
    store: AsyncStore, script: tuple[str | Exception, ...]
) -> None:
    with pytest.raises(ModelUnavailable):
        await Chat(store, Scripted(*script)).send("Hi", conversation_id="talk", owner="bob")
    await events_of(Chat(store, Echo()).regenerate("talk"))
    assert await kept(store) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_another_reply_works_where_an_application_stored_the_message(
    store: AsyncStore,
) -> None:
    await begin(store, "I am Bob", "Hi")
    await events_of(Chat(store, Echo()).regenerate("talk"))
    assert await kept(store) == [
        ("user", "I am Bob"),
        ("user", "Hi"),
        ("assistant", "You said: I am Bob\n\nHi"),
    ]


async def test_another_reply_that_fails_can_be_asked_for_again(sqlite: AsyncStore) -> None:
    await talked(sqlite, "Hi")
    with pytest.raises(ModelUnavailable):
        await events_of(Chat(sqlite, Scripted(OVERLOADED)).regenerate("talk"))
    assert await kept(sqlite) == [("user", "Hi")]
    await events_of(Chat(sqlite, Echo()).regenerate("talk"))
    assert await kept(sqlite) == [("user", "Hi"), ("assistant", "You said: Hi")]


@pytest.mark.parametrize("greeting", [True, False])
async def test_there_is_no_reply_to_nothing(sqlite: AsyncStore, greeting: bool) -> None:
    await begin(sqlite)
    if greeting:
        await add(sqlite, Message.assistant("Welcome!"))
    model = Echo()
    with pytest.raises(InvalidArgument, match="no message to reply to"):
        await events_of(Chat(sqlite, model).regenerate("talk"))
    assert model.asked == []
    await talked(sqlite, "Hi")


async def test_another_reply_to_the_results_of_tools_keeps_them(store: AsyncStore) -> None:
    calls = [
        {"id": id, "name": "weather", "args": {"city": id}, "type": "tool_call"}
        for id in ("Bern", "Rome")
    ]
    await Chat(store, Scripted("I look.", Finished("tool_use", tool_calls=calls))).send(  # type: ignore[arg-type]
        "Weather?", conversation_id="talk", owner="bob"
    )
    results = [Message.tool(f"{n} °C", tool_call_id=id) for n, id in ((9, "Bern"), (21, "Rome"))]
    await Chat(store, Scripted("Cold.", DONE)).send(results, conversation_id="talk")
    model = Scripted("Rome is warmer.", DONE)
    await events_of(Chat(store, model).regenerate("talk"))
    asked = [("user", "Weather?"), ("assistant", "I look."), ("tool", "9 °C"), ("tool", "21 °C")]
    assert model.asked == [asked]
    assert await kept(store) == [*asked, ("assistant", "Rome is warmer.")]
    assert [m.tool_call_id for m in (await store.page("talk")).messages[2:4]] == ["Bern", "Rome"]


async def test_a_reply_in_mid_turn_does_not_land_behind_a_message_that_was_replaced(
    store: AsyncStore,
) -> None:
    time = Time()
    slow = timed(Chat(store, Scripted("Well, ", "yes.", DONE)), time)
    async with aclosing(slow.stream("Hi", conversation_id="talk", owner="bob")) as events:
        await until_piece(events, "Well, ")
        time.passes(61)
        quick = timed(Chat(store, Echo()), time)
        await events_of(quick.edit("talk", await seq_of(store, "Hi"), "Hello"))
        await events_of(events)
    assert await kept(store) == [("user", "Hello"), ("assistant", "You said: Hello")]


async def test_a_message_replaced_by_its_owner_is_edited_as_it_stands(store: AsyncStore) -> None:
    await talked(store, "Hi")
    question = (await store.page("talk")).messages[0]
    assert question.seq is not None
    await store.replace("talk", question.seq, replace(question, content="Hello"))
    model = Echo()
    await events_of(Chat(store, model).regenerate("talk"))
    assert model.asked == [[("user", "Hello")]]
