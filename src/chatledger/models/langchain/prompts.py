"""What a turn shows a model, as LangChain's messages."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from chatledger.langchain_messages import from_chatledger
from chatledger.messages import Message


def prompt(messages: Sequence[Message], system_prompt: str | None) -> list[BaseMessage]:
    """``messages``, after one system message of ``system_prompt`` and of those they begin with."""
    given = [_sent(from_chatledger(message)) for message in messages]
    leading = next((n for n, each in enumerate(given) if each.type != "system"), len(given))
    told: list[str | list[Any]] = [system_prompt] if system_prompt else []
    told += [each.content for each in given[:leading] if each.content]
    if not told:
        return given[leading:]
    return [SystemMessage(_joined(told)), *given[leading:]]


def _joined(told: Sequence[str | list[Any]]) -> str | list[Any]:
    texts = [each for each in told if isinstance(each, str)]
    if len(texts) == len(told):
        return "\n\n".join(texts)
    blocks: list[Any] = []
    for each in told:
        blocks += [{"type": "text", "text": each}] if isinstance(each, str) else each
    return blocks


def _sent(message: BaseMessage) -> BaseMessage:
    """Without tool calls in a provider's own form.

    Those of ``tool_calls`` are the ones with a result behind them; a provider refuses the others,
    and its package may send them from here.
    """
    if isinstance(message, AIMessage):
        message.invalid_tool_calls = []
        for name in ("tool_calls", "function_call"):
            message.additional_kwargs.pop(name, None)
    return message
