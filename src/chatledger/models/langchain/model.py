"""A chat model of LangChain's that answers turns."""

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from chatledger.messages import Message
from chatledger.models.langchain.failures import translated
from chatledger.models.langchain.prompts import prompt
from chatledger.models.langchain.replies import Reply
from chatledger.models.protocol import Finished, Piece


class LangChainModel:
    """A LangChain chat model, or one with tools or other things bound to it.

    Trying again after an error is the LangChain model's own affair (``max_retries``), and so is its
    time limit. Where it does not stream, the reply is one piece. ``id`` is what the model calls
    itself, unless given.
    """

    def __init__(
        self, model: Runnable[LanguageModelInput, BaseMessage | str], *, id: str | None = None
    ) -> None:
        self._model = model
        self.id = id or _name(model)

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        reply, given = Reply(self.id), prompt(messages, system_prompt)
        with translated(self.id):
            streaming = cast(AsyncGenerator[Any, None], self._model.astream(given))
        async with aclosing(streaming):
            while True:
                with translated(self.id):  # not around the yield: what is raised there is not its
                    item = await anext(streaming, None)
                    piece = "" if item is None else reply.add(item)
                if item is None:
                    break
                if piece:
                    yield piece
        yield reply.finished()

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        reply, given = Reply(self.id), prompt(messages, system_prompt)
        with translated(self.id):
            streaming = cast(Generator[Any, None, None], self._model.stream(given))
        with closing(streaming):
            while True:
                with translated(self.id):
                    item = next(streaming, None)
                    piece = "" if item is None else reply.add(item)
                if item is None:
                    break
                if piece:
                    yield piece
        yield reply.finished()

    async def close(self) -> None:
        """Nothing: LangChain's models close their connections when they are garbage."""


def _name(model: Any) -> str:
    """What the model inside calls itself, or else its class's name."""
    for _ in range(10):
        for name in ("model_name", "model", "model_id"):
            if isinstance(given := getattr(model, name, None), str) and given:
                return given
        inside = getattr(model, "bound", None) or getattr(model, "runnable", None)
        if inside is None:
            break
        model = inside
    return type(model).__name__
