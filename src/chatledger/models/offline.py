"""A demonstration model that needs no account and shows that the conversation is remembered."""

import re
import time
from collections.abc import AsyncGenerator, Generator, Sequence

from chatledger.errors import ModelRefused
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage

DISCLAIMER = "I am Chatledger's offline demonstration, not a language model"
HELP = (
    "Tell me your name and ask me for it later, or ask what you told me first, what you told me "
    "last, or how often you have written."
)

_NAME = r"([^\W\d_][\w'’-]*)"
_INTRODUCTIONS = (
    re.compile(rf"\b(?:(?<!what )my name is|my name[’']s|call me)\s+{_NAME}", re.IGNORECASE),
    # People also say "I am tired": the word is a name only after a greeting or if capitalised.
    re.compile(rf"^\W*(?:hi|hello|hey)\b\W*(?:i am|i[’']?m)\s+{_NAME}", re.IGNORECASE),
    re.compile(rf"\b[Ii](?: am|[’']m)\s+(?![a-z]){_NAME}"),
)
_QUESTIONS = {
    # The gaps are bounded, because the search time grows with the square of their length: without
    # a bound, a message of 32,000 characters would block the event loop for seconds.
    "name": re.compile(
        r"\bmy name\b.{,99}\?|\bwho am i\b|\bwhat\W{,9}i?s my name\b", re.IGNORECASE
    ),
    "first": re.compile(r"\bfirst\b.{,99}\?|what\b.{,99}\bfirst\b", re.IGNORECASE),
    "last": re.compile(r"\blast\b.{,99}\?|what\b.{,99}\blast\b", re.IGNORECASE),
    "count": re.compile(r"\bhow (?:often|many)\b", re.IGNORECASE),
}


class OfflineModel:
    """A deterministic model that replies from the conversation alone.

    It reads only the text of the user's messages and calls no tools. In its replies, each word is
    one piece and one token.

    Args:
        pace: The seconds to wait before each piece.
    """

    id = "offline"

    def __init__(self, *, pace: float = 0.0) -> None:
        self._pace = pace

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        # Imported here: programs without an event loop do not need asyncio.
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
        """Do nothing: there is nothing to close."""


def _reply(messages: Sequence[Message]) -> tuple[list[Piece], Finished]:
    user_texts = [message.text for message in messages if message.role == "user"]
    if not user_texts:
        raise ModelRefused("The offline model needs a user message to reply to; add one.")
    pieces = re.findall(r"\s*\S+", reply_text(user_texts))
    words = sum(len(message.text.split()) for message in messages)
    return pieces, Finished("end_turn", Usage(input_tokens=words, output_tokens=len(pieces)))


def reply_text(user_texts: Sequence[str]) -> str:
    """Return the reply to the last of the user's texts, based on the earlier ones."""
    *before, question = user_texts
    name = _introduced_name(question)
    match next((kind for kind, pattern in _QUESTIONS.items() if pattern.search(question)), None):
        case "name" if name is None:
            earlier_names = filter(None, map(_introduced_name, reversed(before)))
            if earlier := next(earlier_names, None):
                return f"Your name is {earlier}. You told me so in this conversation."
            return f"You have not told me your name yet. {HELP}"
        case "first" if before:
            return f"The first thing you told me here is: “{_shortened(before[0])}”"
        case "last" if before:
            return f"The last thing you told me before this is: “{_shortened(before[-1])}”"
        case "first" | "last":
            return f"This is the first thing you have told me here. {HELP}"
        case "count":
            times = "once" if len(user_texts) == 1 else f"{len(user_texts)} times"
            return (
                f"You have written {times} in what I see of this conversation, "
                "including this message."
            )
    greeting = f"Hello, {name}!" if name else ""
    if not before:
        return (
            f"{greeting or 'Hello!'} {DISCLAIMER}: I show that conversations are remembered. {HELP}"
        )
    noted = "I will remember that" + (f": “{_shortened(question)}”." if not greeting else ".")
    number = f"This is message number {len(user_texts)} from you that I can see."
    return f"{greeting} {noted} {number} ({DISCLAIMER}.)".lstrip()


def _introduced_name(text: str) -> str | None:
    """Return the name that the user gives as their own."""
    matches = filter(None, (introduction.search(text) for introduction in _INTRODUCTIONS))
    return next((match[1] for match in matches), None)


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
