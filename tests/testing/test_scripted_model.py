"""The scripted model: its replies, in sync and async code, and what it remembers."""

import asyncio
from typing import Any, Literal, TypeAlias

import pytest

from chatledger import (
    InvalidArgument,
    Message,
    ModelThrottled,
    ModelUnavailable,
    open_async_store,
    open_store,
)
from chatledger.chat import Chat, SyncChat
from chatledger.models import Finished, Usage
from chatledger.testing import ScriptedModel, ScriptUsedUp

Interface: TypeAlias = Literal["async", "sync"]


@pytest.fixture(params=["async", "sync"])
def interface(request: pytest.FixtureRequest) -> Interface:
    chosen: Interface = request.param
    return chosen


def ask(interface: Interface, model: ScriptedModel, text: str = "Hi there") -> list[Any]:
    """Return what the model yields, and the error that it raises as the last item."""
    items: list[Any] = []

    async def ask_async() -> None:
        async for item in model.stream([Message.user(text)], system_prompt="Be brief."):
            items.append(item)  # noqa: PERF401  a list would lose them if an error follows

    try:
        if interface == "async":
            asyncio.run(ask_async())
        else:
            items.extend(model.stream_sync([Message.user(text)], system_prompt="Be brief."))
    except ModelThrottled as error:
        items.append(error)
    return items


def test_each_call_gets_the_next_reply(interface: Interface) -> None:
    throttled = ModelThrottled("Slow down.")
    call: dict[str, Any] = {"id": "1", "name": "weather", "args": {}, "type": "tool_call"}
    uses_tool = Finished("tool_use", Usage(3, 4), [call])
    model = ScriptedModel(
        ["Hello,  Bob!\n", ["Hel", "", "lo"], throttled, ["Hel", throttled], uses_tool, ""]
    )
    done = Finished("end_turn", Usage(2, 2))
    assert ask(interface, model) == ["Hello,  ", "Bob!\n", done]
    assert ask(interface, model) == ["Hel", "lo", Finished("end_turn", Usage(2, 1))]
    assert ask(interface, model) == [throttled]
    assert ask(interface, model) == ["Hel", throttled]
    assert ask(interface, model) == [uses_tool]
    assert ask(interface, model) == [Finished("end_turn", Usage(2, 0))]


def test_the_requests_are_remembered(interface: Interface) -> None:
    model = ScriptedModel(["Hello", "Hello again"])
    ask(interface, model, "one")
    ask(interface, model, "two")
    assert [request.text for request in model.requests] == ["one", "two"]
    assert [request.system_prompt for request in model.requests] == ["Be brief."] * 2


def test_a_script_that_is_used_up_fails_the_test_that_forgot_a_reply(interface: Interface) -> None:
    model = ScriptedModel(["Hello"])
    ask(interface, model)
    with pytest.raises(ScriptUsedUp, match=r"used up at its call number 2; add a reply"):
        ask(interface, model)
    model.script("Hello again")
    assert ask(interface, model)[:-1] == ["Hello ", "again"]
    assert issubclass(ScriptUsedUp, AssertionError)


@pytest.mark.parametrize("script", ["Hello", [3], [None], [["Hel", 3]], [[Finished("x"), "Hel"]]])
def test_a_reply_of_another_kind_is_refused(script: Any) -> None:
    with pytest.raises(InvalidArgument):
        ScriptedModel(script)


async def talk_async(model: ScriptedModel) -> list[str]:
    async with open_async_store("sqlite:///:memory:") as store:
        chat = Chat(store, model)
        started = await chat.send("Hi, I am Bob", owner="bob")
        assert started.conversation_id
        with pytest.raises(ModelUnavailable):
            await chat.send("Are you there?", conversation_id=started.conversation_id)
        with pytest.raises(ScriptUsedUp):
            await chat.send("Hello?", conversation_id=started.conversation_id)
        return [message.text for message in await store.tail(started.conversation_id)]


def talk_sync(model: ScriptedModel) -> list[str]:
    with open_store("sqlite:///:memory:") as store:
        chat = SyncChat(store, model)
        started = chat.send("Hi, I am Bob", owner="bob")
        assert started.conversation_id
        with pytest.raises(ModelUnavailable):
            chat.send("Are you there?", conversation_id=started.conversation_id)
        with pytest.raises(ScriptUsedUp):
            chat.send("Hello?", conversation_id=started.conversation_id)
        return [message.text for message in store.tail(started.conversation_id)]


def test_it_is_the_model_of_a_chat(interface: Interface) -> None:
    model = ScriptedModel(["Hello, Bob!", ["I ", ModelUnavailable("It broke.")]])
    texts = asyncio.run(talk_async(model)) if interface == "async" else talk_sync(model)
    assert texts == ["Hi, I am Bob", "Hello, Bob!", "Are you there?", "I ", "Hello?"]
    assert [message.text for message in model.requests[1].messages] == [
        *("Hi, I am Bob", "Hello, Bob!", "Are you there?")
    ]
