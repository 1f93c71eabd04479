"""Is there an order of the operations, consistent with real time, that explains every answer?

The search of Wing and Gong (1993) with the memory of Lowe (2017), as Porcupine and Knossos do it:
of the operations that may come next one is tried after another, and a set of operations that leads
to a state once seen to fail is not tried again. Those come first that took effect first as far as
one could see, so that a history that can be explained mostly is at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from chatledger.conversations import Listing
from chatledger.errors import NotFound
from chatledger.testing.simulation import rules
from chatledger.testing.simulation.history import PENDING, Operation
from chatledger.testing.simulation.model import NEVER, Moment, State

AGAIN = 3
"""How often a conversation may begin anew while its owner's are being deleted."""
MOST_STEPS = 200_000
"""Of one search; a history that needs more is given up on, and counted as explained."""


class World(NamedTuple):
    """The state of every conversation, and what operations of several steps carry along."""

    states: tuple[State, ...]
    carried: tuple[tuple[int, Any], ...] = ()

    def having(self, place: int, state: State) -> "World":
        if state is self.states[place]:
            return self
        states = list(self.states)
        states[place] = state
        return World(tuple(states), self.carried)

    def carries(self, number: int) -> Any:
        return next((value for key, value in self.carried if key == number), None)

    def carrying(self, number: int, value: Any) -> "World":
        others = tuple(entry for entry in self.carried if entry[0] != number)
        return World(self.states, others if value is None else (*others, (number, value)))


Apply: TypeAlias = Callable[[World], Iterator[World]]


@dataclass(slots=True, eq=False)
class Move:
    """A step of an operation that happens at one moment, behind those that it ``follows``."""

    operation: Operation
    apply: Apply
    hint: float
    follows: Sequence["Move"] = ()
    optional: bool = False


def unexplained(operations: Sequence[Operation], conversations: Sequence[str]) -> str | None:
    """None where there is such an order; else the first answer that makes it impossible."""
    if explained(operations, conversations):
        return None
    for operation in sorted(operations, key=lambda one: one.done):
        if operation.acknowledged and not explained(
            _until(operations, operation.done), conversations
        ):
            told = f"[{operation.number}] {operation.kind}"
            return f"no order of the operations explains what {told} was answered"
    return "no order of the operations explains what they were answered"


def _until(operations: Sequence[Operation], end: float) -> list[Operation]:
    """The history as it was at that step: what was under way had no answer yet."""
    return [
        operation if operation.done <= end else replace(operation, done=NEVER, answer=PENDING)
        for operation in operations
        if operation.begun <= end
    ]


def explained(operations: Sequence[Operation], conversations: Sequence[str]) -> bool:
    """Whether there is such an order."""
    moves = [
        move
        for operation in operations
        for move in _moves(operation, operation.moment(operations), conversations)
    ]
    moves.sort(key=lambda move: move.hint)
    return _Search(moves).succeeds(World((State(),) * len(conversations)), 0)


class _Search:
    def __init__(self, moves: Sequence[Move]) -> None:
        bits = {id(move): 1 << n for n, move in enumerate(moves)}
        self._moves = [
            (
                bits[id(move)],
                sum(bits[id(other)] for other in move.follows),
                move.operation.begun,
                move.apply,
            )
            for move in moves
        ]
        self._required = [
            (bits[id(move)], move.operation.done)
            for move in moves
            if move.operation.acknowledged and not move.optional
        ]
        # By their end, so that the first that is not done yet bounds what may come next.
        self._required.sort(key=lambda entry: entry[1])
        self._failed: set[tuple[int, World]] = set()
        self._steps = 0

    def succeeds(self, world: World, done: int) -> bool:
        horizon = next((end for bit, end in self._required if not done & bit), None)
        if horizon is None:
            return True
        if self._failed and (done, world) in self._failed:
            return False
        self._steps += 1
        if self._steps > MOST_STEPS:
            return True
        for bit, follows, begun, apply in self._moves:
            if not done & bit and follows & done == follows and begun < horizon:
                for after in apply(world):
                    if self.succeeds(after, done | bit):
                        return True
        self._failed.add((done, world))
        return False


def _moves(operation: Operation, moment: Moment, conversations: Sequence[str]) -> list[Move]:
    """The steps of the operation; none where it cannot have changed or told anything."""
    if not operation.acknowledged and (
        not operation.may_have_landed or operation.kind in _TELLING_ONLY
    ):
        return []
    match operation.kind:
        case "sweep":
            return []  # it frees what nobody sees
        case "list":
            return _of_list(operation, moment, conversations)
        case "delete_owner":
            return _of_deletion(operation, moment, conversations)
        case "fork":
            return _of_fork(operation, moment, conversations)
    place = conversations.index(operation.conversation)
    hint = _hint(operation, operation.conversation)

    def ruled(rule: rules.Rule, *follows: Move) -> Move:
        def apply(world: World) -> Iterator[World]:
            for state in rule(world.states[place], operation, moment):
                yield world.having(place, state)

        return Move(operation, apply, hint, follows)

    if operation.kind == "update" and operation.acknowledged and not operation.refused:
        read = ruled(rules.update_read)
        read.hint = operation.begun
        return [read, ruled(rules.update, read)]
    return [ruled(rules.RULES[operation.kind])]


_TELLING_ONLY = frozenset({"get", "tail", "page", "list"})


def _hint(operation: Operation, conversation: str) -> float:
    return operation.hints.get(conversation, operation.done)


def _of_list(operation: Operation, moment: Moment, conversations: Sequence[str]) -> list[Move]:
    answer = operation.answer
    assert isinstance(answer, Listing)
    shown = {conversation.id: conversation for conversation in answer.conversations}
    moves = []
    for place, name in enumerate(conversations):

        def apply(world: World, place: int = place, name: str = name) -> Iterator[World]:
            for state in rules.listed(world.states[place], operation, moment, shown.get(name)):
                yield world.having(place, state)

        moves.append(Move(operation, apply, _hint(operation, "")))
    return moves


def _of_deletion(operation: Operation, moment: Moment, conversations: Sequence[str]) -> list[Move]:
    number = operation.number
    moves = []
    for place, name in enumerate(conversations):

        def apply(world: World, place: int = place) -> Iterator[World]:
            for state, count in rules.owner_deleted(world.states[place], operation, moment):
                after = world.having(place, state)
                yield after.carrying(number, (after.carries(number) or 0) + count)

        def again(world: World, place: int = place) -> Iterator[World]:
            before = world.states[place]
            for state, count in rules.owner_deleted(before, operation, moment):
                if state is not before:
                    after = world.having(place, state)
                    yield after.carrying(number, (after.carries(number) or 0) + count)

        moves.append(Move(operation, apply, _hint(operation, name)))
        # It looks again at the end, and what began meanwhile goes too.
        for _ in range(AGAIN):
            moves.append(Move(operation, again, operation.done, moves[-1:], optional=True))

    def count(world: World) -> Iterator[World]:
        if (world.carries(number) or 0) == operation.answer:
            yield world.carrying(number, None)

    if operation.acknowledged:
        moves.append(
            Move(operation, count, operation.done, [move for move in moves if not move.optional])
        )
    return moves


def _of_fork(operation: Operation, moment: Moment, conversations: Sequence[str]) -> list[Move]:
    number = operation.number
    source = conversations.index(operation.conversation)
    new_id = operation.arguments["new_id"]
    target = conversations.index(new_id)
    if operation.acknowledged and operation.refused:
        place = source if isinstance(operation.answer, NotFound) else target

        def refuse(world: World) -> Iterator[World]:
            for state in rules.fork_refused(world.states[place], operation, moment):
                yield world.having(place, state)

        return [Move(operation, refuse, _hint(operation, conversations[place]))]

    def copy(world: World) -> Iterator[World]:
        for state, copied in rules.copied(world.states[source], operation, moment):
            yield world.having(source, state).carrying(number, copied)

    def put(world: World) -> Iterator[World]:
        copied = world.carries(number)
        for state in rules.forked(world.states[target], operation, moment, copied):
            yield world.having(target, state).carrying(number, None)

    copying = Move(operation, copy, _hint(operation, operation.conversation))
    return [copying, Move(operation, put, _hint(operation, new_id), (copying,))]
