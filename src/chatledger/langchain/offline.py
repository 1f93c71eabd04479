"""The offline model as a LangChain chat model."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from chatledger.errors import InvalidArgument
from chatledger.langchain_messages import to_chatledger
from chatledger.models.offline import OfflineModel
from chatledger.models.protocol import Finished, Piece


class OfflineChatModel(BaseChatModel):
    """A stand-in for a language model that needs no API key and no network access.

    It answers from the conversation alone, streams word by word, and counts words as tokens. A
    prompt without a user message raises ``InvalidArgument``.

    Args:
        pace: Seconds per word.
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
        pieces, finished = _reply(messages)
        time.sleep(self.pace * len(pieces))
        return _chat_result(pieces, finished)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        pieces, finished = _reply(messages)
        for piece in pieces:
            time.sleep(self.pace)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(message=AIMessageChunk(content="", **_metadata(finished)))


def _reply(messages: Sequence[BaseMessage]) -> tuple[list[Piece], Finished]:
    prompt = [to_chatledger(message) for message in messages]
    if not any(message.role == "user" for message in prompt):
        raise InvalidArgument(
            "The prompt has no user message for the offline model to answer; add a HumanMessage."
        )
    *pieces, finished = OfflineModel().stream_sync(prompt)
    assert isinstance(finished, Finished)
    return [piece for piece in pieces if isinstance(piece, Piece)], finished


def _chat_result(pieces: Sequence[Piece], finished: Finished) -> ChatResult:
    message = AIMessage(content="".join(pieces), **_metadata(finished))
    return ChatResult(generations=[ChatGeneration(message=message)])


def _metadata(finished: Finished) -> dict[str, Any]:
    assert finished.usage is not None
    usage = finished.usage
    return {
        "response_metadata": {"model_name": OfflineModel.id, "stop_reason": finished.stop_reason},
        "usage_metadata": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }
