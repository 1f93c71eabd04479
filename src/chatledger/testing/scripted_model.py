"""A model for tests that says what the test has written down."""

import re
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage

ScriptedReply: TypeAlias = str | Exception | Finished | Sequence[str | Exception | Finished]
"""One reply: a text, an error, the end of a reply without text, or a sequence of these."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What a model was asked: the window of messages, and the system prompt."""

    messages: Sequence[Message]
    system_prompt: str | None

    @property
    def text(self) -> str:
        """The text of the last message."""
        return self.messages[-1].text


class ScriptUsedUp(AssertionError):
    """The model was called more often than its script has replies."""


class ScriptedModel:
    """A model that gives each call the next reply of its script, in sync and in async code.

        model = ScriptedModel(["Hello, Bob!", ModelThrottled("Slow down.")])

    A text is streamed word by word. A list gives the pieces itself; an error in it is raised at its
    place, and a ``Finished`` at its end gives the stop reason, usage and tool calls. Without one,
    the reply ends with ``end_turn`` and its words as its usage.

    Args:
        script: The replies; ``script`` adds more.
        id: The name under which replies are recorded.

    Attributes:
        requests: All calls so far, each as a ``ModelRequest``.

    Raises:
        InvalidArgument: A reply is none of these.
    """

    def __init__(self, script: Iterable[ScriptedReply] = (), *, id: str = "scripted") -> None:
        if isinstance(script, str):
            raise InvalidArgument('The script is a list of replies, such as ["Hello"].')
        self.id = id
        self.requests: list[ModelRequest] = []
        self._replies: deque[Sequence[str | Exception | Finished]] = deque()
        self.script(*script)

    def script(self, *replies: ScriptedReply) -> None:
        """Add replies to the end of the script."""
        self._replies.extend([_steps(reply) for reply in replies])

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        for item in self._reply(messages, system_prompt):
            yield item

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        yield from self._reply(messages, system_prompt)

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _reply(
        self, messages: Sequence[Message], system_prompt: str | None
    ) -> Iterator[Piece | Finished]:
        self.requests.append(ModelRequest(tuple(messages), system_prompt))
        try:
            steps = self._replies.popleft()
        except IndexError:
            raise ScriptUsedUp(
                f"The script of the model {self.id!r} was used up at its call number "
                f"{len(self.requests)}; add a reply for each call, with script()."
            ) from None
        for step in steps:
            if isinstance(step, Exception):
                raise step
            yield step
        if not steps or not isinstance(steps[-1], Finished):
            words = sum(len(message.text.split()) for message in messages)
            said = "".join(step for step in steps if isinstance(step, str))
            yield Finished("end_turn", Usage(words, len(said.split())))


def _steps(reply: ScriptedReply) -> Sequence[str | Exception | Finished]:
    """Return what a reply yields or raises, in order."""
    if isinstance(reply, str):
        return [word for word in re.split(r"(?<=\s)(?=\S)", reply) if word]
    steps = [reply] if isinstance(reply, Exception | Finished) else reply
    if not isinstance(steps, Sequence) or not all(
        isinstance(step, str | Exception | Finished) for step in steps
    ):
        raise InvalidArgument(
            "A reply in a script is a text, an error, a Finished, or a list of these; "
            f"it is of type {type(reply).__name__}."
        )
    if any(isinstance(step, Finished) for step in steps[:-1]):
        raise InvalidArgument("Finished ends a reply; write it as the last one of the list.")
    return [step for step in steps if step != ""]
