"""A demonstration that needs nothing: it makes memory visible, and is no language model."""

import re
import time
from collections.abc import AsyncGenerator, Generator, Sequence

from chatledger.errors import ModelRefused
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage

HONEST = "I am Chatledger's offline demonstration, not a language model"
HELP = (
    "Tell me your name and ask me for it later, or ask what you told me first, what you told me "
    "last, or how often you have written."
)

_NAME = r"([^\W\d_][\w'’-]*)"
_INTRODUCTIONS = (
    re.compile(rf"\b(?:(?<!what )my name is|my name[’']s|call me)\s+{_NAME}", re.IGNORECASE),
    # People also say "I am tired": it is a name behind a greeting or with a capital letter.
    re.compile(rf"^\W*(?:hi|hello|hey)\b\W*(?:i am|i[’']?m)\s+{_NAME}", re.IGNORECASE),
    re.compile(rf"\b[Ii](?: am|[’']m)\s+(?![a-z]){_NAME}"),
)
_QUESTIONS = {
    # Bounded, as time grows with the square of what lies between: a message of 32,000 characters
    # would take seconds, in which nobody else is answered.
    "name": re.compile(
        r"\bmy name\b.{,99}\?|\bwho am i\b|\bwhat\W{,9}i?s my name\b", re.IGNORECASE
    ),
    "first": re.compile(r"\bfirst\b.{,99}\?|what\b.{,99}\bfirst\b", re.IGNORECASE),
    "last": re.compile(r"\blast\b.{,99}\?|what\b.{,99}\blast\b", re.IGNORECASE),
    "count": re.compile(r"\bhow (?:often|many)\b", re.IGNORECASE),
}


class OfflineModel:
    """Answers from the conversation alone, the same each time; ``pace`` is seconds a piece.

    Pieces are words, and so are tokens. It reads the text of the user's messages, and calls no
    tools.
    """

    id = "offline"

    def __init__(self, *, pace: float = 0.0) -> None:
        self._pace = pace

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        # With the first use: programs without an event loop need not wait for its import.
        from asyncio import sleep

        pieces, finished = _reply(messages)
        for piece in pieces:
            await sleep(self._pace)
            yield piece
        yield finished

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        pieces, finished = _reply(messages)
        for piece in pieces:
            time.sleep(self._pace)
            yield piece
        yield finished

    async def close(self) -> None:
        """Nothing: it holds nothing."""


def _reply(messages: Sequence[Message]) -> tuple[list[Piece], Finished]:
    said = [message.text for message in messages if message.role == "user"]
    if not said:
        raise ModelRefused(
            "The offline model answers the user's messages, and it was given none; add one."
        )
    pieces = re.findall(r"\s*\S+", answer(said))
    words = sum(len(message.text.split()) for message in messages)
    return pieces, Finished("end_turn", Usage(input_tokens=words, output_tokens=len(pieces)))


def answer(said: Sequence[str]) -> str:
    """The reply to the last of the user's messages ``said``, from what came before it."""
    *before, question = said
    name = _introduced(question)
    match next((kind for kind, asked in _QUESTIONS.items() if asked.search(question)), None):
        case "name" if name is None:
            names = filter(None, map(_introduced, reversed(before)))
            if told := next(names, None):
                return f"Your name is {told}. You told me so in this conversation."
            return f"You have not told me your name yet. {HELP}"
        case "first" if before:
            return f"The first thing of yours that I see here is: “{_short(before[0])}”"
        case "last" if before:
            return f"The last thing you told me before this is: “{_short(before[-1])}”"
        case "first" | "last":
            return f"This is the first thing you tell me here. {HELP}"
        case "count":
            times = "once" if len(said) == 1 else f"{len(said)} times"
            return (
                f"You have written {times} in what I see of this conversation, this one included."
            )
    greeting = f"Hello, {name}!" if name else ""
    if not before:
        return f"{greeting or 'Hello!'} {HONEST}: what I show is that this is kept. {HELP}"
    noted = f"{greeting} I keep that." if greeting else f"I keep that: “{_short(question)}”."
    return f"{noted} It is your message number {len(said)} that I see here. ({HONEST}.)"


def _introduced(text: str) -> str | None:
    """The name that the user gives as their own."""
    found = filter(None, (introduction.search(text) for introduction in _INTRODUCTIONS))
    return next((match[1] for match in found), None)


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
