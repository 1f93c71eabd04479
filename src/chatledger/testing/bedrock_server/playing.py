"""An answer as steps of a stream, one after the other; nothing here knows of a connection."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from chatledger.testing.bedrock_server.answers import (
    BreaksOff,
    Corrupts,
    EndsEarly,
    Fails,
    FailsMidway,
    FallsSilent,
    Says,
    Use,
)
from chatledger.testing.bedrock_server.counting import InputTokens
from chatledger.testing.bedrock_server.offline import in_pieces
from chatledger.testing.bedrock_server.refusing import Refused


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    payload: Mapping[str, Any]
    corrupt: str | None = None
    """Which of the two CRCs is wrong, if any."""


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    exception: str
    message: str


class BreakOff:
    """The connection is dropped."""


class End:
    """The stream ends in good order, though not the reply."""


Step: TypeAlias = Event | Pause | ErrorEvent | BreakOff | End

Faulty: TypeAlias = FailsMidway | BreaksOff | EndsEarly | FallsSilent | Corrupts


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a reply is made in, beside its script: ``number`` counts the requests of a server."""

    taken: InputTokens
    pace: float
    number: int


def steps(answer: Says | Fails | Faulty, here: Circumstances) -> Iterator[Step]:
    """Raises ``Refused`` where the answer is an error with a status."""
    match answer:
        case Fails(code, message):
            raise Refused(message or MESSAGES.get(code, f"{code}."), code=code)
        case Says():
            yield from _reply(answer, here)
        case BreaksOff(after=None):
            yield BreakOff()
        case FallsSilent(seconds, after=None):
            yield Pause(seconds)
            yield BreakOff()
        case _:
            assert answer.after is not None
            text, after = answer.text, answer.after
            rest = _pieces(text)[after:] or ["…"]
            yield from _beginning(_reply(Says(text), here), after)
            yield from _fault(answer, rest[0])


def _fault(answer: Faulty, following: str) -> Iterator[Step]:
    match answer:
        case FailsMidway():
            yield ErrorEvent(answer.exception, answer.message)
        case BreaksOff():
            yield BreakOff()
        case FallsSilent():
            yield Pause(answer.seconds)
            yield BreakOff()
        case EndsEarly():
            yield End()
        case Corrupts():
            yield Event("contentBlockDelta", _delta(0, {"text": following}), answer.part)
            yield End()


def _beginning(whole: Iterator[Step], after: int) -> Iterator[Step]:
    """Up to ``after`` pieces, and with 0 no more than that a message starts."""
    seen = 0
    for step in whole:
        if isinstance(step, Event):
            seen += step.name == "contentBlockDelta"
            if seen > after or step.name == "contentBlockStop":
                return
        yield step


def _reply(answer: Says, here: Circumstances) -> Iterator[Step]:
    pause = here.pace if answer.pause is None else answer.pause
    pieces = _pieces(answer.text)
    blocks = [
        *([_reasoning(answer.reasoning)] if answer.reasoning else []),
        *([(None, [{"text": piece} for piece in pieces])] if pieces else []),
        *(_use(use, f"tooluse_{here.number}_{n}") for n, use in enumerate(answer.uses)),
    ]
    slept, said = answer.delay, 0
    if answer.delay:
        yield Pause(answer.delay)
    yield Event("messageStart", {"role": "assistant"})
    for n, (start, deltas) in enumerate(blocks):
        if start:
            yield Event("contentBlockStart", {"start": start, "contentBlockIndex": n})
        for delta in deltas:
            if said and pause:
                yield Pause(pause)
                slept += pause
            said += 1
            yield Event("contentBlockDelta", _delta(n, delta))
        yield Event("contentBlockStop", {"contentBlockIndex": n})
    reason = answer.stop_reason or ("tool_use" if answer.uses else "end_turn")
    yield Event("messageStop", {"stopReason": reason})
    yield Event(
        "metadata",
        {"usage": _usage(here.taken, said), "metrics": {"latencyMs": 1 + round(1000 * slept)}},
    )


def _reasoning(text: str) -> tuple[None, list[dict[str, Any]]]:
    parts = [{"text": piece} for piece in in_pieces(text)]
    signed = [*parts, {"signature": "c2lnbmVk"}]
    return None, [{"reasoningContent": part} for part in signed]


def _use(use: Use, made_up: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    text = use.input if isinstance(use.input, str) else json.dumps(use.input, ensure_ascii=False)
    size = max(1, -(-len(text) // use.pieces))
    start = {"toolUse": {"toolUseId": use.id or made_up, "name": use.name}}
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    # The service begins with an empty piece, too.
    return start, [{"toolUse": {"input": part}} for part in ("", *parts)]


def _delta(index: int, delta: Mapping[str, Any]) -> dict[str, Any]:
    return {"delta": delta, "contentBlockIndex": index}


def _usage(taken: InputTokens, said: int) -> dict[str, int]:
    return {
        "inputTokens": taken.fresh,
        "outputTokens": said,
        "totalTokens": sum(taken) + said,
        "cacheReadInputTokens": taken.read,
        "cacheWriteInputTokens": taken.written,
    }


def _pieces(text: str | Sequence[str]) -> list[str]:
    return in_pieces(text) if isinstance(text, str) else list(text)


MESSAGES = {
    "AccessDeniedException": "You don't have access to the model with the specified model ID.",
    "ExpiredTokenException": "The security token included in the request is expired",
    "InternalServerException": "The system encountered an unexpected error during processing. "
    "Try your request again.",
    "ModelErrorException": "The system encountered an unexpected error during processing. "
    "Try your request again.",
    "ModelNotReadyException": "Model is not ready for inference. Wait and try your request again.",
    "ModelTimeoutException": "Model has timed out in processing the request. "
    "Try your request again.",
    "ResourceNotFoundException": "The model you specified was not found.",
    "ServiceUnavailableException": "Bedrock is unable to process your request.",
    "ThrottlingException": "Too many requests, please wait before trying again.",
    "ValidationException": "The input fails to satisfy the constraints of the service.",
}
"""What the service says with a code, where a script says nothing."""
