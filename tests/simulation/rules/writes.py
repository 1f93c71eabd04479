"""Rules for writes that create or delete a conversation, or change its messages."""

from collections.abc import Iterator

from chatledger.conversations import Appended, Conversation
from chatledger.errors import Conflict, KeyReused, NotFound
from chatledger.stores.dynamodb.table import DAY
from tests.simulation.history import PENDING, Operation
from tests.simulation.model import (
    ConversationState,
    Generation,
    Interval,
    KeyUse,
    ModelMessage,
    after_write,
    can_be,
    can_increase,
    changed_values,
    match_conversation,
    match_messages,
    new_generation,
    possible_counts,
    possible_views,
    refine,
    revision_floor,
    unknown_above,
    with_activity,
    with_messages,
)
from tests.simulation.rules.common import (
    Rule,
    creation_of,
    generations_changed,
    states_after_write,
    states_of_existing,
    with_head_rebuilt,
)


def create(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``create``."""
    arguments = operation.arguments
    for generation in possible_views(state, interval):
        if generation is not None:
            yield from states_of_existing(state, generation, operation, interval)
            continue
        new = new_generation(
            state,
            interval,
            unknown_above(revision_floor(state, interval)),
            operation.number,
            owner=arguments["owner"],
            description=changed_values(arguments),
            lifetime=operation.default_lifetime if (own := arguments["lifetime"]) is None else own,
            creation=creation_of(operation),
        )
        yield from states_after_write(state, new, operation, interval)


def append(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``append``."""
    arguments, answer = operation.arguments, operation.answer
    revision, key = arguments["revision"], arguments["idempotency_key"]
    for generation in possible_views(state, interval):
        if generation is None:
            if not revision:
                new = new_generation(
                    state,
                    interval,
                    revision_floor(state, interval),
                    operation.number,
                    owner=arguments["owner"],
                    description=changed_values(arguments),
                    lifetime=(
                        operation.default_lifetime
                        if (own := arguments["lifetime"]) is None
                        else own
                    ),
                )
                yield from _append_to(state, new, operation, interval)
            elif isinstance(answer, NotFound):
                yield state
            continue
        if arguments["owner"] not in (None, generation.owner):
            if isinstance(answer, NotFound):
                yield state
            continue
        if key is not None:
            earlier = next((use for use in generation.keys if use.key == key), None)
            if earlier is not None:
                if earlier.texts != tuple(arguments["texts"]):
                    if isinstance(answer, KeyReused):
                        yield state
                else:
                    yield from _repeat_answer(state, generation, operation, interval, earlier)
                if interval.clock_high < earlier.time + DAY:
                    continue  # the key must still be known
        if isinstance(answer, Conflict):
            yield from _states_of_conflict(state, generation, operation)
            continue
        if revision is not None:
            if not can_be(generation.revision, revision):
                continue
            generation = generation._replace(revision=revision)
        changed = with_activity(generation, interval)
        truncate_after = arguments["truncate_after"]
        if truncate_after is None:
            yield from _append_to(state, changed, operation, interval)
            continue
        for count in possible_counts(generation.messages, truncate_after):
            truncated = changed._replace(messages=generation.messages[:count])
            yield from _append_to(state, truncated, operation, interval)


def _append_to(
    state: ConversationState, generation: Generation, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Yield the state in which the append's messages follow those of ``generation``.

    Its times must be those after the append already; its revision is the one before.
    """
    texts, key = operation.arguments["texts"], operation.arguments["idempotency_key"]
    answer = operation.answer
    first = unknown_above(generation.revision)
    if answer is PENDING or operation.may_have_landed:
        added = tuple((first - n, text) for n, text in enumerate(texts))
        revision = unknown_above(generation.revision, len(texts))
    elif isinstance(answer, Appended):
        seqs = answer.seqs
        if len(seqs) != len(texts) or not can_be(first, seqs[0]) or answer.revision < seqs[-1]:
            return
        first = seqs[0]
        added = tuple(zip(seqs, texts, strict=True))
        revision = answer.revision
    else:
        return
    keys = generation.keys
    if key is not None:
        others = tuple(use for use in keys if use.key != key)
        keys = (*others, KeyUse(key, first, tuple(texts), interval.clock_low))
    messages = generation.messages + added
    changed = generation._replace(messages=messages, revision=revision, keys=keys)
    yield after_write(state, changed, interval)


def _repeat_answer(
    state: ConversationState,
    generation: Generation,
    operation: Operation,
    interval: Interval,
    earlier: KeyUse,
) -> Iterator[ConversationState]:
    """Yield the state if the answer is that of the earlier append with the same key."""
    answer = operation.answer
    if not isinstance(answer, Appended):
        return
    first, count = earlier.first, len(earlier.texts)
    seqs = answer.seqs
    if len(seqs) != count or not can_be(first, seqs[0]) or answer.revision < seqs[-1]:
        return
    if first > 0:
        yield with_head_rebuilt(state, generation, interval, at_once=True)
        return
    # The earlier append was not acknowledged, so the answer reveals its seqs: -first and up.
    messages = tuple(
        (seqs[0] + first - seq, text) if first - count < seq <= first else (seq, text)
        for seq, text in generation.messages
    )
    if not can_increase(messages):
        return
    keys = tuple(use._replace(first=seqs[0]) if use is earlier else use for use in generation.keys)
    generation = generation._replace(messages=messages, keys=keys)
    yield with_head_rebuilt(refine(state, generation), generation, interval, at_once=True)


def truncate(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``truncate``."""
    answer = operation.answer
    for generation in generations_changed(state, operation, interval):
        if generation is None:
            yield state
            continue
        for count in possible_counts(generation.messages, operation.arguments["after"]):
            if count < len(generation.messages):
                messages = generation.messages[:count]
                changed = with_messages(generation, interval, messages)
                yield from states_after_write(state, changed, operation, interval)
            elif isinstance(answer, Conversation) and (
                matched := match_conversation(generation, answer, interval)
            ):
                yield with_head_rebuilt(refine(state, matched), matched, interval)


def pop(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``pop``."""
    answer = operation.answer
    for generation in generations_changed(state, operation, interval):
        if generation is None:
            yield state
            continue
        remaining = max(len(generation.messages) - operation.arguments["limit"], 0)
        if operation.is_acknowledged:
            popped = len(generation.messages) - remaining
            if not isinstance(answer, list) or len(answer) != popped:
                continue
            matched = match_messages(generation, remaining, answer)
            if matched is None:
                continue
            generation = matched
        if remaining < len(generation.messages):
            messages = generation.messages[:remaining]
            changed = with_messages(generation, interval, messages)
            yield after_write(state, changed, interval)
        elif operation.is_acknowledged:
            yield state


def claim(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``claim``."""
    answer, owner = operation.answer, operation.arguments["owner"]
    for generation in possible_views(state, interval):
        if generation is None or generation.owner not in (None, owner):
            if isinstance(answer, NotFound):
                yield state
        elif generation.owner is None:
            changed = with_messages(generation, interval, generation.messages)
            yield from states_after_write(state, changed._replace(owner=owner), operation, interval)
        elif isinstance(answer, Conversation) and (
            matched := match_conversation(generation, answer, interval)
        ):
            yield with_head_rebuilt(refine(state, matched), matched, interval, at_once=True)


def replace(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``replace`` and ``remove``."""
    arguments, answer = operation.arguments, operation.answer
    expected = arguments["revision"]
    for generation in generations_changed(state, operation, interval):
        if generation is None:
            yield state
            continue
        if isinstance(answer, Conflict):
            yield from _states_of_conflict(state, generation, operation)
            continue
        if expected is not None:
            if not can_be(generation.revision, expected):
                continue
            generation = generation._replace(revision=expected)
        if isinstance(answer, NotFound):
            if all(seq != arguments["seq"] for seq, _ in generation.messages):
                yield state
            continue
        for index, (seq, _) in enumerate(generation.messages):
            if can_be(seq, arguments["seq"]):
                messages: list[ModelMessage] = list(generation.messages)
                messages[index] = (arguments["seq"], arguments.get("text", ""))
                if can_increase(messages):
                    if operation.kind == "remove":
                        del messages[index]
                    changed = with_messages(generation, interval, messages)
                    yield from states_after_write(state, changed, operation, interval)


def delete(
    state: ConversationState, operation: Operation, interval: Interval
) -> Iterator[ConversationState]:
    """Rule for ``delete``."""
    for generation in generations_changed(state, operation, interval):
        if generation is None:
            yield state
            continue
        expected, answer = operation.arguments["revision"], operation.answer
        if isinstance(answer, Conflict):
            yield from _states_of_conflict(state, generation, operation)
            continue
        if expected is not None and not can_be(generation.revision, expected):
            continue
        if not operation.has_error or not operation.is_acknowledged:
            yield after_write(state, None, interval)


def _states_of_conflict(
    state: ConversationState, generation: Generation, operation: Operation
) -> Iterator[ConversationState]:
    """Yield the state if the answer, a ``Conflict``, names its revision and that is another one."""
    expected, answer = operation.arguments["revision"], operation.answer
    if expected is None or answer.revision == expected:
        return
    if can_be(generation.revision, answer.revision):
        yield refine(state, generation._replace(revision=answer.revision))


RULES: dict[str, Rule] = {
    "create": create,
    "append": append,
    "truncate": truncate,
    "pop": pop,
    "replace": replace,
    "remove": replace,
    "claim": claim,
    "delete": delete,
}
