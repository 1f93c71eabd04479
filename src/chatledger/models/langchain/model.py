"""A LangChain chat model as the model of a turn."""

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from chatledger.messages import Message
from chatledger.models.langchain.errors import translate_errors
from chatledger.models.langchain.prompts import prompt
from chatledger.models.langchain.replies import LangChainReplyReader
from chatledger.models.protocol import Finished, Piece


class LangChainModel:
    """A LangChain chat model, with or without bound tools, or a chain that ends in a chat model.

    Retries (``max_retries``) and timeouts are left to the LangChain model. If it does not stream,
    the reply is one piece.

    Args:
        model: The LangChain model or chain.
        id: The name under which replies are recorded; by default the LangChain model's name.
    """

    def __init__(
        self, model: Runnable[LanguageModelInput, BaseMessage | str], *, id: str | None = None
    ) -> None:
        self._model = model
        self.id = id or _name(model)

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        reader = LangChainReplyReader(self.id)
        langchain_messages = prompt(messages, system_prompt)
        with translate_errors(self.id):
            stream = cast(AsyncGenerator[Any, None], self._model.astream(langchain_messages))
        async with aclosing(stream):
            while True:
                # Not around the yield: an error thrown in by the consumer is not the model's error.
                with translate_errors(self.id):
                    item = await anext(stream, None)
                    piece = "" if item is None else reader.read(item)
                if item is None:
                    break
                if piece:
                    yield piece
        yield reader.finished()

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        reader = LangChainReplyReader(self.id)
        langchain_messages = prompt(messages, system_prompt)
        with translate_errors(self.id):
            stream = cast(Generator[Any, None, None], self._model.stream(langchain_messages))
        with closing(stream):
            while True:
                with translate_errors(self.id):
                    item = next(stream, None)
                    piece = "" if item is None else reader.read(item)
                if item is None:
                    break
                if piece:
                    yield piece
        yield reader.finished()

    async def close(self) -> None:
        """Do nothing: LangChain models close their connections when they are garbage-collected."""


def _name(model: Any) -> str:
    """Return the name of the innermost model, or of its class if it has no name."""
    for _ in range(10):
        for name in ("model_name", "model", "model_id"):
            if isinstance(value := getattr(model, name, None), str) and value:
                return value
        inner = getattr(model, "bound", None) or getattr(model, "runnable", None)
        if inner is None:
            break
        model = inner
    return type(model).__name__
