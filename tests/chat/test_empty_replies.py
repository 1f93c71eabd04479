"""A turn without anything to answer is rejected before any of it is stored."""

import pytest

from chatledger.chat import Chat
from chatledger.errors import InvalidArgument, InvalidMessage
from chatledger.messages import Message
from chatledger.stores.contract import AsyncStore
from tests.chat.chat_helpers import EchoModel, create_conversation, transcript

pytestmark = pytest.mark.anyio

BLANK: dict[str, str | Message | list[Message]] = {
    "text": " \n\t",
    "a message": Message.user(""),
    "blocks": Message.user([{"type": "text", "text": " "}]),
    "several": [Message.user(""), Message.user(" ")],
}


@pytest.mark.parametrize("blank", BLANK.values(), ids=BLANK)
async def test_a_blank_message_is_rejected_and_creates_no_conversation(
    store: AsyncStore, blank: str | Message | list[Message]
) -> None:
    model = EchoModel()
    chat = Chat(store, model)
    with pytest.raises(InvalidMessage, match="blank"):
        await chat.send(blank, conversation_id="talk", owner="bob")
    assert (await store.list("bob")).conversations == []
    assert model.windows == []


async def test_an_edit_to_a_blank_message_is_rejected_and_changes_nothing(
    store: AsyncStore,
) -> None:
    await create_conversation(store, "Hi")
    with pytest.raises(InvalidMessage, match="blank"):
        async for _ in Chat(store, EchoModel()).edit("talk", 2, "  "):
            pass
    assert await transcript(store) == [("user", "Hi")]


async def test_a_tool_result_without_its_call_is_rejected_and_not_stored(store: AsyncStore) -> None:
    model = EchoModel()
    chat = Chat(store, model)
    await chat.send("Hi", conversation_id="talk", owner="bob")
    before = await transcript(store)
    with pytest.raises(InvalidArgument, match="directly follows its call"):
        await chat.send(Message.tool("12:00", tool_call_id="1"), conversation_id="talk")
    assert await transcript(store) == before
    assert len(model.windows) == 1


async def test_a_blank_message_next_to_one_with_text_is_accepted(store: AsyncStore) -> None:
    messages = [Message.user(""), Message.user("Hi")]
    reply = await Chat(store, EchoModel()).send(messages, conversation_id="talk", owner="bob")
    assert reply.text == "You said: Hi"
