"""The steps of a response, in order and independent of any connection."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from chatledger.testing.bedrock_server.errors import BedrockError
from chatledger.testing.bedrock_server.offline import split_words
from chatledger.testing.bedrock_server.script import (
    CorruptsFrame,
    DropsConnection,
    EndsEarly,
    Fails,
    FailsMidStream,
    Says,
    Stalls,
    ToolUse,
)
from chatledger.testing.bedrock_server.tokens import InputTokens


@dataclass(frozen=True, slots=True)
class SendEvent:
    """Send an event of the stream."""

    name: str
    payload: Mapping[str, Any]
    corrupt_part: str | None = None
    """``prelude`` or ``message`` for the part whose CRC is to be wrong; None for a valid frame."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait before the next step."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SendException:
    """Send an error event, which ends the stream."""

    exception: str
    message: str


class Disconnect:
    """Drop the connection."""


class EndStream:
    """End the stream properly, although the reply is incomplete."""


Step: TypeAlias = SendEvent | Sleep | SendException | Disconnect | EndStream

Fault: TypeAlias = FailsMidStream | DropsConnection | EndsEarly | Stalls | CorruptsFrame


@dataclass(frozen=True, slots=True)
class ResponseContext:
    """The facts that a response depends on, apart from the script.

    ``pace`` is in seconds; ``request_number`` counts the requests of a server.
    """

    input_tokens: InputTokens
    pace: float
    request_number: int


def response_steps(scripted: Says | Fails | Fault, context: ResponseContext) -> Iterator[Step]:
    """Yield the steps of a scripted response; raise ``BedrockError`` if it is an HTTP error."""
    match scripted:
        case Fails(code, message):
            raise BedrockError(message or DEFAULT_MESSAGES.get(code, f"{code}."), code=code)
        case Says():
            yield from _reply_steps(scripted, context)
        case DropsConnection(after=None):
            yield Disconnect()
        case Stalls(seconds, after=None):
            yield Sleep(seconds)
            yield Disconnect()
        case _:
            assert scripted.after is not None
            text, after = scripted.text, scripted.after
            rest = _pieces(text)[after:] or ["…"]
            yield from _first_pieces(_reply_steps(Says(text), context), after)
            yield from _fault_steps(scripted, next_piece=rest[0])


def _fault_steps(fault: Fault, *, next_piece: str) -> Iterator[Step]:
    match fault:
        case FailsMidStream():
            yield SendException(fault.exception, fault.message)
        case DropsConnection():
            yield Disconnect()
        case Stalls():
            yield Sleep(fault.seconds)
            yield Disconnect()
        case EndsEarly():
            yield EndStream()
        case CorruptsFrame():
            yield SendEvent("contentBlockDelta", _delta(0, {"text": next_piece}), fault.part)
            yield EndStream()


def _first_pieces(steps: Iterator[Step], count: int) -> Iterator[Step]:
    """Yield the steps up to the last of ``count`` pieces; with 0, ``messageStart`` only."""
    sent = 0
    for step in steps:
        if isinstance(step, SendEvent):
            sent += step.name == "contentBlockDelta"
            if sent > count or step.name == "contentBlockStop":
                return
        yield step


def _reply_steps(reply: Says, context: ResponseContext) -> Iterator[Step]:
    pause = context.pace if reply.pause is None else reply.pause
    pieces = _pieces(reply.text)
    blocks = [
        *([_reasoning_block(reply.reasoning)] if reply.reasoning else []),
        *([(None, [{"text": piece} for piece in pieces])] if pieces else []),
        *(
            _tool_use_block(use, f"tooluse_{context.request_number}_{n}")
            for n, use in enumerate(reply.uses)
        ),
    ]
    slept, output_tokens = reply.delay, 0
    if reply.delay:
        yield Sleep(reply.delay)
    yield SendEvent("messageStart", {"role": "assistant"})
    for n, (start, deltas) in enumerate(blocks):
        if start:
            yield SendEvent("contentBlockStart", {"start": start, "contentBlockIndex": n})
        for delta in deltas:
            if output_tokens and pause:
                yield Sleep(pause)
                slept += pause
            output_tokens += 1
            yield SendEvent("contentBlockDelta", _delta(n, delta))
        yield SendEvent("contentBlockStop", {"contentBlockIndex": n})
    reason = reply.stop_reason or ("tool_use" if reply.uses else "end_turn")
    yield SendEvent("messageStop", {"stopReason": reason})
    yield SendEvent(
        "metadata",
        {
            "usage": _usage(context.input_tokens, output_tokens),
            "metrics": {"latencyMs": 1 + round(1000 * slept)},
        },
    )


def _reasoning_block(text: str) -> tuple[None, list[dict[str, Any]]]:
    parts = [{"text": piece} for piece in split_words(text)]
    parts.append({"signature": "c2lnbmVk"})
    return None, [{"reasoningContent": part} for part in parts]


def _tool_use_block(use: ToolUse, default_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    text = use.input if isinstance(use.input, str) else json.dumps(use.input, ensure_ascii=False)
    size = max(1, -(-len(text) // use.pieces))
    start = {"toolUse": {"toolUseId": use.id or default_id, "name": use.name}}
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    # The service too starts with an empty part.
    return start, [{"toolUse": {"input": part}} for part in ("", *parts)]


def _delta(index: int, delta: Mapping[str, Any]) -> dict[str, Any]:
    return {"delta": delta, "contentBlockIndex": index}


def _usage(input_tokens: InputTokens, output_tokens: int) -> dict[str, int]:
    return {
        "inputTokens": input_tokens.fresh,
        "outputTokens": output_tokens,
        "totalTokens": sum(input_tokens) + output_tokens,
        "cacheReadInputTokens": input_tokens.read,
        "cacheWriteInputTokens": input_tokens.written,
    }


def _pieces(text: str | Sequence[str]) -> list[str]:
    return split_words(text) if isinstance(text, str) else list(text)


DEFAULT_MESSAGES = {
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
"""The service's message for each code, used when a script gives none."""
