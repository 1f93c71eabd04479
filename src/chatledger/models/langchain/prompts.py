"""The prompt of a turn as LangChain messages."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from chatledger.langchain_messages import from_chatledger
from chatledger.messages import Message


def prompt(messages: Sequence[Message], system_prompt: str | None) -> list[BaseMessage]:
    """Return the LangChain messages for ``messages``, with at most one system message in front.

    That message joins ``system_prompt`` and the system messages at the start of ``messages``,
    because some providers accept only one.
    """
    converted = [_without_other_calls(from_chatledger(message)) for message in messages]
    first = next((n for n, each in enumerate(converted) if each.type != "system"), len(converted))
    instructions: list[str | list[Any]] = [system_prompt] if system_prompt else []
    instructions += [each.content for each in converted[:first] if each.content]
    if not instructions:
        return converted[first:]
    return [SystemMessage(_joined(instructions)), *converted[first:]]


def _joined(contents: Sequence[str | list[Any]]) -> str | list[Any]:
    texts = [each for each in contents if isinstance(each, str)]
    if len(texts) == len(contents):
        return "\n\n".join(texts)
    blocks: list[Any] = []
    for each in contents:
        blocks += [{"type": "text", "text": each}] if isinstance(each, str) else each
    return blocks


def _without_other_calls(message: BaseMessage) -> BaseMessage:
    """Return the message, changed in place, with no tool calls but those in ``tool_calls``.

    Only the calls in ``tool_calls`` are followed by a result. A provider's package may also send
    the invalid ones, and those in the provider's own format; the provider then refuses the request.
    """
    if isinstance(message, AIMessage):
        message.invalid_tool_calls = []
        for name in ("tool_calls", "function_call"):
            message.additional_kwargs.pop(name, None)
    return message
