"""Check a history: is there an order of its operations that explains every answer?

The order must agree with real time: an operation that ended before another one started comes first.
The search is that of Wing and Gong (1993), with Lowe's (2017) memory of failed states, as in
Porcupine and Knossos: try each operation that may come next, and never continue twice from the same
set of operations and the same state. Operations are tried in the order in which they probably took
effect, so that a history that can be explained usually is at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from chatledger.conversations import Listing
from chatledger.entries import Entries
from chatledger.errors import NotFound
from tests.simulation import rules
from tests.simulation.history import PENDING, Operation
from tests.simulation.model import NEVER, ConversationState, Interval, ModelEntry
from tests.simulation.operations import ENTRY_NAMES, KINDS, OWNER_PLACES

MAX_RECREATIONS = 3
"""The most often that a conversation may be created again while ``delete_owner`` runs."""
MAX_STEPS = 200_000
"""The most steps of one search; a history that needs more counts as explained."""


class CombinedState(NamedTuple):
    """The states of all conversations and owners, and the values that operations of several effects
    carry from one effect to the next, by the operation's number."""

    states: tuple[ConversationState, ...]
    carried: tuple[tuple[int, Any], ...] = ()

    def with_state(self, index: int, state: ConversationState) -> "CombinedState":
        if state is self.states[index]:
            return self
        states = list(self.states)
        states[index] = state
        return CombinedState(tuple(states), self.carried)

    def carried_value(self, number: int) -> Any:
        return next((value for key, value in self.carried if key == number), None)

    def with_carried(self, number: int, value: Any) -> "CombinedState":
        """Return the state with that value for the operation; None removes it."""
        others = tuple(entry for entry in self.carried if entry[0] != number)
        return CombinedState(self.states, others if value is None else (*others, (number, value)))


Apply: TypeAlias = Callable[[CombinedState], Iterator[CombinedState]]


@dataclass(slots=True, eq=False)
class Effect:
    """A part of an operation that takes effect at one moment; most operations have just one."""

    operation: Operation
    apply: Apply
    """Yields every state that may follow the given one."""
    hint: float
    """The step at which it probably took effect."""
    after: Sequence["Effect"] = ()
    """The effects that must come first."""
    is_optional: bool = False


def find_violation(operations: Sequence[Operation], conversations: Sequence[str]) -> str | None:
    """Return the first answer that no order explains, in words; None if there is none."""
    if is_explainable(operations, conversations):
        return None
    for operation in sorted(operations, key=lambda operation: operation.end_step):
        if operation.is_acknowledged and not is_explainable(
            _history_until(operation.end_step, operations), conversations
        ):
            name = f"[{operation.number}] {operation.kind}"
            return f"no order of the operations explains the answer of {name}"
    return "no order of the operations explains their answers"


def _history_until(step: float, operations: Sequence[Operation]) -> list[Operation]:
    """Return the history as it was at that step, when later answers had not been given yet."""
    return [
        operation
        if operation.end_step <= step
        else replace(operation, end_step=NEVER, answer=PENDING)
        for operation in operations
        if operation.start_step <= step
    ]


def is_explainable(operations: Sequence[Operation], conversations: Sequence[str]) -> bool:
    """Return whether some order of the operations explains every answer."""
    names = {
        operation.arguments["name"] for operation in operations if operation.kind == "put_entry"
    }
    used = [name for name in ENTRY_NAMES if name in names]
    effects = [
        effect
        for operation in operations
        for effect in _effects_of(operation, operation.interval(operations), conversations, used)
    ]
    effects.sort(key=lambda effect: effect.hint)
    start = CombinedState((ConversationState(),) * (len(conversations) + len(OWNER_PLACES)))
    return _Search(effects).succeeds(start, 0)


class _Search:
    """A search for an order of the effects. Sets of effects are bit masks."""

    def __init__(self, effects: Sequence[Effect]) -> None:
        bits = {id(effect): 1 << n for n, effect in enumerate(effects)}
        self._effects = [
            (
                bits[id(effect)],
                sum(bits[id(other)] for other in effect.after),
                effect.operation.earliest_step,
                effect.apply,
            )
            for effect in effects
        ]
        self._required = [
            (bits[id(effect)], effect.operation.end_step)
            for effect in effects
            if effect.operation.is_acknowledged and not effect.is_optional
        ]
        # In order of their ends, so that the first one not done yet limits what may come next.
        self._required.sort(key=lambda entry: entry[1])
        self._failed: set[tuple[int, CombinedState]] = set()
        self._steps = 0

    def succeeds(self, state: CombinedState, done: int) -> bool:
        """Return whether the effects that are not in ``done`` can follow, from that state."""
        horizon = next((end for bit, end in self._required if not done & bit), None)
        if horizon is None:
            return True
        if self._failed and (done, state) in self._failed:
            return False
        self._steps += 1
        if self._steps > MAX_STEPS:
            return True
        for bit, after, start, apply in self._effects:
            if not done & bit and after & done == after and start < horizon:
                for next_state in apply(state):
                    if self.succeeds(next_state, done | bit):
                        return True
        self._failed.add((done, state))
        return False


def _effects_of(
    operation: Operation, interval: Interval, conversations: Sequence[str], names: Sequence[str]
) -> list[Effect]:
    """Return the effects of the operation; none if it neither changed nor revealed anything.

    ``names`` are those of all entries that were put.
    """
    if not operation.is_acknowledged and (
        not operation.may_have_landed or KINDS[operation.kind].is_read
    ):
        return []
    match operation.kind:
        case "sweep":
            return []  # it deletes only what no caller can see
        case "list":
            return _effects_of_list(operation, interval, conversations)
        case "delete_owner":
            return _effects_of_delete_owner(operation, interval, conversations, names)
        case "scan":
            return _effects_of_scan(operation, interval, conversations)
        case "fork":
            return _effects_of_fork(operation, interval, conversations, names)
        case "entries":
            return _effects_of_entries(operation, interval, conversations, names)
    index = _index(operation.conversation, conversations)
    hint = _hint(operation, operation.conversation)

    def effect_of(rule: rules.Rule, *after: Effect) -> Effect:
        def apply(combined: CombinedState) -> Iterator[CombinedState]:
            for state in rule(combined.states[index], operation, interval):
                yield combined.with_state(index, state)

        return Effect(operation, apply, hint, after)

    if operation.kind == "update" and operation.is_acknowledged and not operation.has_error:
        read = effect_of(rules.read_by_update)
        read.hint = operation.start_step
        return [read, effect_of(rules.update, read)]
    return [effect_of(rules.RULES[operation.kind])]


def _index(place: str, conversations: Sequence[str]) -> int:
    """Return the index of the state of a conversation, or of an owner's entries."""
    if place in OWNER_PLACES:
        return len(conversations) + OWNER_PLACES.index(place)
    return conversations.index(place)


def _effects_of_entries(
    operation: Operation, interval: Interval, conversations: Sequence[str], names: Sequence[str]
) -> list[Effect]:
    """Return one effect for each name, because a list of entries is not a snapshot."""
    place, answer = operation.conversation, operation.answer
    index, hint = _index(place, conversations), _hint(operation, place)

    def find(combined: CombinedState) -> Iterator[CombinedState]:
        for state in rules.find_place(combined.states[index], operation, interval):
            yield combined.with_state(index, state)

    found = Effect(operation, find, hint)
    if not isinstance(answer, Entries):
        return [found]
    listed = {entry.name: entry for entry in answer}
    effects = [found]
    for name in sorted({*names, *listed}):
        if not name.startswith(operation.arguments["prefix"]):
            continue

        def apply(combined: CombinedState, name: str = name) -> Iterator[CombinedState]:
            before = combined.states[index]
            for state in rules.list_entry(before, operation, interval, name, listed.get(name)):
                yield combined.with_state(index, state)

        effects.append(Effect(operation, apply, hint, (found,)))
    return effects


def _hint(operation: Operation, conversation: str) -> float:
    if operation.earliest_step < operation.start_step:
        # A read that need not see the latest changes is tried at every moment, from the first on.
        return operation.earliest_step
    return operation.hints.get(conversation, operation.end_step)


def _effects_of_scan(
    operation: Operation, interval: Interval, conversations: Sequence[str]
) -> list[Effect]:
    """Return one effect for each conversation, because a scan is not a snapshot."""
    return _effects_of_listing(operation, interval, conversations, rules.scan_conversation)


def _effects_of_list(
    operation: Operation, interval: Interval, conversations: Sequence[str]
) -> list[Effect]:
    """Return one effect for each conversation, because a list is not a snapshot."""
    return _effects_of_listing(operation, interval, conversations, rules.list_conversation)


def _effects_of_listing(
    operation: Operation, interval: Interval, conversations: Sequence[str], rule: rules.ListingRule
) -> list[Effect]:
    answer = operation.answer
    assert isinstance(answer, Listing)
    listed = {conversation.id: conversation for conversation in answer.conversations}
    effects = []
    for index, name in enumerate(conversations):

        def apply(
            combined: CombinedState, index: int = index, name: str = name
        ) -> Iterator[CombinedState]:
            for state in rule(combined.states[index], operation, interval, listed.get(name)):
                yield combined.with_state(index, state)

        effects.append(Effect(operation, apply, _hint(operation, "")))
    return effects


def _effects_of_delete_owner(
    operation: Operation, interval: Interval, conversations: Sequence[str], names: Sequence[str]
) -> list[Effect]:
    """Return the deletion of each conversation and entry, and the check of their number."""
    number = operation.number
    effects = []
    place = f"o#{operation.arguments['owner']}"
    owned = _index(place, conversations)
    for name in names:

        def delete_entry(combined: CombinedState, name: str = name) -> Iterator[CombinedState]:
            for state in rules.delete_owned_entry(combined.states[owned], name):
                yield combined.with_state(owned, state)

        effects.append(Effect(operation, delete_entry, _hint(operation, place)))
    for index, name in enumerate(conversations):

        def delete(combined: CombinedState, index: int = index) -> Iterator[CombinedState]:
            for state, count in rules.delete_owned(combined.states[index], operation, interval):
                changed = combined.with_state(index, state)
                yield changed.with_carried(number, (changed.carried_value(number) or 0) + count)

        def delete_again(combined: CombinedState, index: int = index) -> Iterator[CombinedState]:
            before = combined.states[index]
            for state, count in rules.delete_owned(before, operation, interval):
                if state is not before:
                    changed = combined.with_state(index, state)
                    yield changed.with_carried(number, (changed.carried_value(number) or 0) + count)

        effects.append(Effect(operation, delete, _hint(operation, name)))
        # It walks over the owner's conversations again at the end, and deletes those created since.
        for _ in range(MAX_RECREATIONS):
            effects.append(
                Effect(operation, delete_again, operation.end_step, effects[-1:], is_optional=True)
            )

    def check_count(combined: CombinedState) -> Iterator[CombinedState]:
        if (combined.carried_value(number) or 0) == operation.answer:
            yield combined.with_carried(number, None)

    if operation.is_acknowledged:
        required = [effect for effect in effects if not effect.is_optional]
        effects.append(Effect(operation, check_count, operation.end_step, required))
    return effects


def _effects_of_fork(
    operation: Operation, interval: Interval, conversations: Sequence[str], names: Sequence[str]
) -> list[Effect]:
    """Return the read of the source and the write of the target, or the refusal by one of them."""
    number = operation.number
    source = conversations.index(operation.conversation)
    new_id = operation.arguments["new_id"]
    target = conversations.index(new_id)
    if operation.is_acknowledged and operation.has_error:
        index = source if isinstance(operation.answer, NotFound) else target

        def refuse(combined: CombinedState) -> Iterator[CombinedState]:
            for state in rules.refuse_fork(combined.states[index], operation, interval):
                yield combined.with_state(index, state)

        return [Effect(operation, refuse, _hint(operation, conversations[index]))]

    def read(combined: CombinedState) -> Iterator[CombinedState]:
        for state, copy in rules.fork_source(combined.states[source], operation, interval):
            yield combined.with_state(source, state).with_carried(number, copy)

    def write(combined: CombinedState) -> Iterator[CombinedState]:
        copy = combined.carried_value(number)
        entries: tuple[ModelEntry, ...] = combined.carried_value(-number) or ()
        before = combined.states[target]
        for state in rules.fork_target(before, operation, interval, copy, entries):
            yield (
                combined.with_state(target, state)
                .with_carried(number, None)
                .with_carried(-number, None)
            )

    hint = _hint(operation, operation.conversation)
    effects = [Effect(operation, read, hint)]
    for name in names:

        def read_entry(combined: CombinedState, name: str = name) -> Iterator[CombinedState]:
            before = combined.states[source]
            others: tuple[ModelEntry, ...] = combined.carried_value(-number) or ()
            for state, entry in rules.copied_entry(before, interval, name):
                copied = others if entry is None else tuple(sorted((*others, entry)))
                yield combined.with_state(source, state).with_carried(-number, copied or None)

        effects.append(Effect(operation, read_entry, hint))
    return [*effects, Effect(operation, write, _hint(operation, new_id), effects)]
