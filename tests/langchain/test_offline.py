"""``OfflineChatModel``: the same reply and usage, whether streamed or not."""

import asyncio
import time
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)

from chatledger import InvalidArgument
from chatledger.langchain import OfflineChatModel
from chatledger.models.offline import reply_text

pytestmark = pytest.mark.anyio

PROMPT: list[BaseMessage] = [
    SystemMessage("You are helpful."),
    HumanMessage("Hi! I'm bob"),
    AIMessage("Hello, bob!"),
    HumanMessage([{"type": "text", "text": "Whats my name"}]),
]
REPLY = "Your name is bob. You told me so in this conversation."
USAGE = {"input_tokens": 11, "output_tokens": 11, "total_tokens": 22}


def check_reply(reply: BaseMessage) -> None:
    assert isinstance(reply, AIMessage)
    assert reply.content == REPLY == reply_text(["Hi! I'm bob", "Whats my name"])
    assert reply.usage_metadata == USAGE
    assert reply.response_metadata == {"model_name": "offline", "stop_reason": "end_turn"}


def merge_chunks(chunks: list[Any]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert isinstance(whole, AIMessageChunk)
    return whole


async def test_it_answers_from_the_conversation_and_counts_words() -> None:
    check_reply(OfflineChatModel().invoke(PROMPT))
    check_reply(await OfflineChatModel().ainvoke(PROMPT))


async def test_it_streams_word_by_word_and_the_words_are_the_reply() -> None:
    chunks = [*OfflineChatModel().stream(PROMPT)]
    assert [chunk.content for chunk in chunks][:3] == ["Your", " name", " is"]
    check_reply(merge_chunks(chunks))
    check_reply(merge_chunks([chunk async for chunk in OfflineChatModel().astream(PROMPT)]))


async def test_a_sync_call_works_inside_a_running_event_loop() -> None:
    assert asyncio.get_running_loop().is_running()  # as in a notebook
    check_reply(merge_chunks([*OfflineChatModel().stream(PROMPT)]))


async def test_a_stream_passes_each_word_to_callbacks() -> None:
    class Listener(BaseCallbackHandler):
        def __init__(self) -> None:
            self.words: list[str] = []

        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            self.words.append(token)

    listener = Listener()
    for _ in OfflineChatModel().stream(PROMPT, {"callbacks": [listener]}):
        pass
    assert "".join(listener.words) == REPLY
    listener.words.clear()
    async for _ in OfflineChatModel().astream(PROMPT, {"callbacks": [listener]}):
        pass
    assert "".join(listener.words) == REPLY


async def test_pace_is_seconds_per_word() -> None:
    model = OfflineChatModel(pace=0.01)
    start = time.monotonic()
    model.invoke(PROMPT)
    await model.ainvoke(PROMPT)
    for _ in model.stream(PROMPT):
        pass
    async for _ in model.astream(PROMPT):
        pass
    assert time.monotonic() - start >= 4 * 0.01 * USAGE["output_tokens"]


@pytest.mark.parametrize("prompt", [[], [SystemMessage("You are helpful.")], [AIMessage("Hello")]])
def test_a_prompt_without_a_user_message_is_rejected(prompt: list[BaseMessage]) -> None:
    with pytest.raises(InvalidArgument, match="add a HumanMessage"):
        OfflineChatModel().invoke(prompt)
