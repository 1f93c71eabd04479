"""A turn that asks a model nothing is refused before anything of it is stored."""

import pytest

from chatledger.chat import Chat
from chatledger.errors import InvalidArgument, InvalidMessage
from chatledger.messages import Message
from chatledger.stores.contract import AsyncStore
from tests.chat.chat_helpers import Echo, begin, kept

pytestmark = pytest.mark.anyio

BLANK: dict[str, str | Message | list[Message]] = {
    "text": " \n\t",
    "a message": Message.user(""),
    "blocks": Message.user([{"type": "text", "text": " "}]),
    "several": [Message.user(""), Message.user(" ")],
}


@pytest.mark.parametrize("blank", BLANK.values(), ids=BLANK)
async def test_a_blank_message_is_refused_and_starts_nothing(
    store: AsyncStore, blank: str | Message | list[Message]
) -> None:
    model = Echo()
    chat = Chat(store, model)
    with pytest.raises(InvalidMessage, match="blank"):
        await chat.send(blank, conversation_id="talk", owner="bob")
    assert (await store.list("bob")).conversations == []
    assert model.asked == []


async def test_an_edit_to_nothing_leaves_the_message_as_it_was(store: AsyncStore) -> None:
    await begin(store, "Hi")
    with pytest.raises(InvalidMessage, match="blank"):
        async for _ in Chat(store, Echo()).edit("talk", 2, "  "):
            pass
    assert await kept(store) == [("user", "Hi")]


async def test_a_result_without_its_call_is_refused_and_not_stored(store: AsyncStore) -> None:
    model = Echo()
    chat = Chat(store, model)
    await chat.send("Hi", conversation_id="talk", owner="bob")
    before = await kept(store)
    with pytest.raises(InvalidArgument, match="needs the call"):
        await chat.send(Message.tool("12:00", tool_call_id="1"), conversation_id="talk")
    assert await kept(store) == before
    assert len(model.asked) == 1


async def test_what_says_something_beside_what_is_blank_is_taken(store: AsyncStore) -> None:
    messages = [Message.user(""), Message.user("Hi")]
    reply = await Chat(store, Echo()).send(messages, conversation_id="talk", owner="bob")
    assert reply.text == "You said: Hi"
