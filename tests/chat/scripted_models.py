"""Models that follow a script."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from chatledger.errors import ModelUnavailable
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage

DONE = Finished("end_turn", Usage(input_tokens=3, output_tokens=5))
OVERLOADED = ModelUnavailable("The model is overloaded.")


class Gate:
    """A point at which a model or a store sets ``reached`` and waits until ``opened`` is set."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self.opened.wait()


class ScriptedModel:
    """A model that follows its script in every call: yields texts, raises errors, waits."""

    id = "scripted"

    def __init__(self, *script: object) -> None:
        self._script = script
        self.windows: list[list[tuple[str, str]]] = []
        """The roles and texts of the messages of each call."""
        self.messages: list[Message] = []
        """The messages of the last call."""
        self.prompts: list[str | None] = []
        self.ended_calls = 0

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        self.messages = list(messages)
        self.windows.append([(message.role, message.text) for message in messages])
        self.prompts.append(system_prompt)
        try:
            for step in self._script:
                match step:
                    case Gate():
                        await step.wait()
                    case BaseException():
                        raise step
                    case _:
                        yield step  # type: ignore[misc]  # wrong outputs are tested too
        finally:
            self.ended_calls += 1


class EchoModel(ScriptedModel):
    """A model that repeats the last message."""

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        self.windows.append([(message.role, message.text) for message in messages])
        await asyncio.sleep(0)
        yield f"You said: {messages[-1].text}"
        yield DONE
