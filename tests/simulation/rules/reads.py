"""Rules for reads of one conversation."""

from collections.abc import Iterator
from typing import Any

from chatledger.conversations import MAX_REVISION, Conversation, Page, Tail
from tests.simulation.history import Operation
from tests.simulation.model import (
    ConversationState,
    Generation,
    Interval,
    match_conversation,
    match_messages,
    possible_counts,
    refine,
)
from tests.simulation.rules.common import Rule, generations_read, with_head_rebuilt


def get(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``get``."""
    answer = operation.answer
    for generation in generations_read(state, operation, interval):
        if generation is None:
            yield state
        elif isinstance(answer, Conversation) and (
            matched := match_conversation(generation, answer, interval)
        ):
            yield with_head_rebuilt(refine(state, matched), matched, interval)


def repair(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``repair`` of a conversation that is not damaged: it only reads."""
    for generation in generations_read(state, operation, interval):
        if generation is None:
            yield state
        elif isinstance(operation.answer, Conversation) and (
            matched := match_conversation(generation, operation.answer, interval)
        ):
            yield refine(state, matched)


def tail(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``tail``."""
    answer = operation.answer
    for generation in generations_read(state, operation, interval):
        if generation is None:
            yield state
        elif isinstance(answer, Tail) and (
            matched := match_conversation(generation, answer.conversation, interval)
        ):
            count = len(matched.messages)
            if len(answer.messages) != min(operation.arguments["limit"], count):
                continue
            matched = match_messages(matched, count - len(answer.messages), answer.messages)
            if matched is not None:
                yield with_head_rebuilt(refine(state, matched), matched, interval)


def page(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``page``."""
    for generation in generations_read(state, operation, interval):
        if generation is None:
            yield state
        elif isinstance(operation.answer, Page):
            for matched in _match_page(generation, operation.arguments, operation.answer):
                yield refine(state, matched)


def _match_page(
    generation: Generation, arguments: dict[str, Any], answer: Page
) -> Iterator[Generation]:
    """Yield the generation with what the page reveals, for each way in which it can be answered."""
    after, before, limit = arguments["after"], arguments["before"], arguments["limit"]
    is_backward = after is None and before is not None
    messages = list(reversed(answer.messages)) if is_backward else answer.messages
    for start in possible_counts(generation.messages, after or 0):
        last = MAX_REVISION if before is None else before - 1
        for end in possible_counts(generation.messages, last):
            count = max(end - start, 0)
            if len(messages) != min(count, limit):
                continue
            if answer.next != (answer.messages[-1].seq if count > limit else None):
                continue
            first = end - len(messages) if is_backward else start
            matched = match_messages(generation, first, messages)
            if matched is not None:
                yield matched


RULES: dict[str, Rule] = {"get": get, "tail": tail, "page": page, "repair": repair}
