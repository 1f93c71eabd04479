"""A turn whose messages cannot be answered or stored is rejected before any of it is stored."""

import pytest

from chatledger.errors import InvalidArgument, InvalidMessage, MessageTooLarge
from chatledger.messages import Message
from tests.chat.scripted_models import EchoModel
from tests.chat.talk import Talk

pytestmark = pytest.mark.anyio

BLANK: dict[str, str | Message | list[Message]] = {
    "text": " \n\t",
    "a message": Message.user(""),
    "blocks": Message.user([{"type": "text", "text": " "}]),
    "several": [Message.user(""), Message.user(" ")],
}


@pytest.mark.parametrize("blank", BLANK.values(), ids=BLANK)
async def test_a_blank_message_is_rejected_and_creates_no_conversation(
    talk: Talk, blank: str | Message | list[Message]
) -> None:
    model = EchoModel()
    chat = talk.chat(model)
    with pytest.raises(InvalidMessage, match="blank"):
        await chat.send(blank, conversation_id="talk", owner="bob")
    assert (await talk.store.list("bob")).conversations == []
    assert model.windows == []


async def test_an_edit_to_a_blank_message_is_rejected_and_changes_nothing(talk: Talk) -> None:
    await talk.create("Hi")
    with pytest.raises(InvalidMessage, match="blank"):
        async for _ in talk.chat(EchoModel()).edit("talk", 2, "  "):
            pass
    assert await talk.transcript() == [("user", "Hi")]


async def test_a_tool_result_without_its_call_is_rejected_and_not_stored(talk: Talk) -> None:
    model = EchoModel()
    chat = talk.chat(model)
    await chat.send("Hi", conversation_id="talk", owner="bob")
    before = await talk.transcript()
    with pytest.raises(InvalidArgument, match="directly follows its call"):
        await chat.send(Message.tool("12:00", tool_call_id="1"), conversation_id="talk")
    assert await talk.transcript() == before
    assert len(model.windows) == 1


async def test_a_blank_message_next_to_one_with_text_is_accepted(talk: Talk) -> None:
    messages = [Message.user(""), Message.user("Hi")]
    reply = await talk.chat(EchoModel()).send(messages, conversation_id="talk", owner="bob")
    assert reply.text == "You said: Hi"


@pytest.mark.parametrize("key", [None, "key 1"])
async def test_a_first_message_that_is_rejected_creates_no_conversation(
    sqlite: Talk, key: str | None
) -> None:
    chat = sqlite.chat(EchoModel())
    with pytest.raises(InvalidArgument):
        await chat.send([Message.tool("x", tool_call_id="c")], owner="bob", idempotency_key=key)
    with pytest.raises(MessageTooLarge):
        await chat.send("x" * (17 << 20), owner="bob", idempotency_key=key)
    assert (await sqlite.store.list("bob")).conversations == []
