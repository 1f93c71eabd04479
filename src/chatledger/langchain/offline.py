"""Chatledger's offline demonstration as a LangChain chat model."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from chatledger.errors import InvalidArgument
from chatledger.langchain_messages import to_chatledger
from chatledger.models.offline import OfflineModel
from chatledger.models.protocol import Finished, Piece


class OfflineChatModel(BaseChatModel):
    """Answers from the conversation alone, with no key and no network; no language model.

    It streams a word at a time, ``pace`` seconds each. Tokens are words. Raises ``InvalidArgument``
    where the prompt holds no message of the user's.
    """

    pace: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "chatledger-offline"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text, last = _reply(messages)
        time.sleep(self.pace * len(text))
        return _whole(text, last)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text, last = _reply(messages)
        await asyncio.sleep(self.pace * len(text))
        return _whole(text, last)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        text, last = _reply(messages)
        for piece in text:
            time.sleep(self.pace)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(message=AIMessageChunk(content="", **_metadata(last)))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        text, last = _reply(messages)
        for piece in text:
            await asyncio.sleep(self.pace)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                await run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(message=AIMessageChunk(content="", **_metadata(last)))


def _reply(messages: Sequence[BaseMessage]) -> tuple[list[Piece], Finished]:
    prompt = [to_chatledger(message) for message in messages]
    if not any(message.role == "user" for message in prompt):
        raise InvalidArgument(
            "The prompt holds no message of the user's, and the offline model answers these; "
            "add a HumanMessage."
        )

    *text, last = OfflineModel().stream_sync(prompt)
    assert isinstance(last, Finished)
    return [piece for piece in text if isinstance(piece, Piece)], last


def _whole(text: Sequence[Piece], last: Finished) -> ChatResult:
    message = AIMessage(content="".join(text), **_metadata(last))
    return ChatResult(generations=[ChatGeneration(message=message)])


def _metadata(last: Finished) -> dict[str, Any]:
    assert last.usage is not None
    read, written = last.usage.input_tokens, last.usage.output_tokens
    return {
        "response_metadata": {"model_name": OfflineModel.id, "stop_reason": last.stop_reason},
        "usage_metadata": {
            "input_tokens": read,
            "output_tokens": written,
            "total_tokens": read + written,
        },
    }
