"""What Bedrock and the way to it answer, in our words; translated once, here.

What the service says is looked at and never repeated: it may quote the conversation.
"""

import re
from dataclasses import dataclass

from chatledger.errors import ModelError, ModelRefused, ModelThrottled
from chatledger.models.bedrock.error_messages import BY_CODE, BY_STATUS, DOWN, KNOWN, Sentence


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed.

    ``code`` is Bedrock's (``ThrottlingException``) or one of ours, ``said`` is the service's own
    text, ``status`` that of HTTP (0 where there was none), ``retry_after`` is in seconds.
    """

    code: str
    said: str = ""
    status: int = 0
    retry_after: float | None = None


def translated(failure: Failure, model_id: str) -> ModelError:
    """The error for a call of that model."""
    code = _named(failure)
    kind, sentence = _sentence(failure, code)
    message = sentence.format(code=code, model=model_id)
    if kind is ModelThrottled:
        return ModelThrottled(message, retry_after=failure.retry_after)
    return kind(message)


def _named(failure: Failure) -> str:
    """The code, if it is one: what stands between us and Bedrock may send anything."""
    if re.fullmatch("[A-Za-z][A-Za-z0-9]{0,63}", failure.code):
        return failure.code[0].upper() + failure.code[1:]  # events' begin with a small letter
    return f"HTTP {failure.status}"


def _sentence(failure: Failure, code: str) -> Sentence:
    plain = code.removesuffix("Exception")
    said = failure.said.lower()
    for known, pieces, text in KNOWN:
        if known == plain and any(piece in said for piece in pieces):
            return Sentence(ModelRefused, text)
    if plain in BY_CODE:
        return BY_CODE[plain]
    matching = (sentence for holds, sentence in BY_STATUS if holds(failure.status))
    return next(matching, DOWN)
