"""One schedule by its number: drawn, played, and checked."""

from dataclasses import dataclass
from random import Random
from typing import Any

from chatledger.conversations import Tail
from chatledger.stores.dynamodb.table import DAY, HOUR, SECOND
from chatledger.testing.simulation import operations
from chatledger.testing.simulation.checker import unexplained
from chatledger.testing.simulation.clients import Client
from chatledger.testing.simulation.garbage import needless
from chatledger.testing.simulation.limits import small_limits
from chatledger.testing.simulation.model import time_of
from chatledger.testing.simulation.network import AnyTable
from chatledger.testing.simulation.operations import OWNERS, Taste
from chatledger.testing.simulation.schedule_state import Circumstances
from chatledger.testing.simulation.world import World, Wrong

WEIGHTS = {
    "create": 1.0,
    "append": 6.0,
    "get": 1.0,
    "tail": 2.0,
    "page": 1.5,
    "list": 0.7,
    "update": 1.0,
    "truncate": 1.2,
    "pop": 1.0,
    "replace": 1.2,
    "fork": 0.8,
    "delete": 1.0,
    "delete_owner": 0.3,
    "sweep": 0.3,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule that shows a fault, and its history as a script."""

    seed: int
    reason: str
    script: str

    def __str__(self) -> str:
        again = f"python -m chatledger.testing.simulation --seed {self.seed}"
        return f"{self.script}\n\nSeed {self.seed}: {self.reason}. Again: {again}"


def simulate(seed: int) -> Failure | None:
    """Play the schedule of that number, and again with its script kept where it shows a fault."""
    with small_limits():
        reason = play_through(drawn(seed))
        if reason is None:
            return None
        world = drawn(seed, trace=True)
        again = play_through(world)
    if again != reason:
        reason = f"{reason}; but when played again: {again}"
    return Failure(seed, reason, _text(world))


def script(seed: int) -> str:
    """The history of that number, and what is wrong with it."""
    with small_limits():
        world = drawn(seed, trace=True)
        reason = play_through(world)
    return f"{_text(world)}\n\n{reason or 'All of it can be explained'}."


def _text(world: World) -> str:
    assert world.course.script is not None
    return "\n".join(world.course.script)


def play_through(world: World) -> str | None:
    """Play the world to its end and check it: why it is wrong, or None."""
    try:
        _prepare(world)
        world.play()
        _finish(world)
    except Wrong as wrong:
        return str(wrong)
    return unexplained(world.history, world.taste.everywhere)


def _prepare(world: World) -> None:
    """What was there before: most operations need a conversation."""
    random, taste = world.course.random, world.taste
    with world.calm() as writer:
        for conversation in taste.conversations:
            for kind in random.choice(BEFORE):
                given = operations.arguments(kind, conversation, taste, world.known, random)
                given["owner"] = taste.owners[0]
                world.ask(writer, kind, conversation, given)


SPANS = (61 * SECOND, 2 * HOUR, 5 * HOUR, 23 * HOUR, 26 * HOUR, 60 * HOUR)
DAYS: tuple[tuple[float, tuple[int, ...]], ...] = ((0.0, ()), (0.06, SPANS))
LIVING = ("append", "tail", "page")
CUTTING = ("append", "truncate", "pop", "replace", "delete")
ENDING = ("append", "create", "delete", "delete_owner", "sweep")
FOCUSES: tuple[tuple[str, ...], ...] = ((), (), CUTTING, ENDING)
"""What some schedules try more often than all else."""
BEFORE = ((), ("create",), ("append",), ("create", "append", "append"))


def _finish(world: World) -> None:
    """Have a fresh client look at everything: at once, just before it expires, and after sweeps."""
    everywhere = world.taste.everywhere
    with world.calm() as reader:
        # More than clocks differ by, and a reader mends what lags behind.
        world.pass_time(30 * 60 * SECOND)
        tails = [_tail(world, reader, conversation) for conversation in everywhere]
        for tail in tails:
            if isinstance(tail, Tail):
                world.ask(reader, "page", tail.conversation.id, operations.EVERYTHING)
        world.ask(reader, "list", "", {"owner": world.taste.owners[0] or OWNERS[0]})
        for tail in sorted((tail for tail in tails if _expires(tail)), key=_expires):
            world.pass_time(_expires(tail) - world.course.now - 2)
            world.reap_all()
            _tail(world, reader, tail.conversation.id)
        for _ in range(2):  # what the first one finishes leaves fences, which the second one finds
            world.pass_time(27 * HOUR)
            world.ask(reader, "sweep", "", {})
        tails = [_tail(world, reader, conversation) for conversation in everywhere]
    living = {tail.conversation.id: tail for tail in tails if isinstance(tail, Tail)}
    leftovers = needless(world.table.items(), living, world.course.now)
    if leftovers:
        raise Wrong(f"a sweep left what nobody needs: {'; '.join(leftovers)}")


def _expires(answer: Any) -> int:
    """When the conversation expires; 0: never, or there is none."""
    expires_at = answer.conversation.expires_at if isinstance(answer, Tail) else None
    return 0 if expires_at is None else time_of(expires_at)


def _tail(world: World, reader: Client, conversation: str) -> Any:
    return world.ask(reader, "tail", conversation, {"n": 1_000, "owner": None})


def drawn(seed: int, *, trace: bool = False, table: AnyTable | None = None) -> World:
    """The world of that number, before anything happens."""
    random = Random(seed)
    pick = random.choice
    lifetimes: tuple[int | None, ...] = (None,)
    default_lifetimes: tuple[int | None, ...] = (None,)
    if random.random() < 0.4:
        lifetime = pick((SECOND, 60 * SECOND, HOUR, DAY))
        match random.randrange(10):
            case 0 | 1 | 2 | 3:
                default_lifetimes = (lifetime,)
            case 4 | 5 | 6 | 7:
                lifetimes = (None, lifetime)
            case 8:
                lifetimes, default_lifetimes = (None, lifetime), (DAY,)
            case 9:
                default_lifetimes = (HOUR, SECOND, lifetime)
    days, spans = pick(DAYS)
    focus = pick(FOCUSES)
    if lives_on := random.random() < 0.15:
        # Until stamps must be renewed, and while others take it to live otherwise.
        lifetimes, default_lifetimes = (None,), pick(((DAY,), (DAY,), (DAY, None)))
        days, spans, focus = 0.3, (20 * HOUR, 23 * HOUR), LIVING
    weights = dict(WEIGHTS)
    for kind in weights:
        if random.random() < 0.3:
            weights[kind] *= pick((0, 0.2, 4))
        if focus:
            weights[kind] = max(weights[kind], 2.0) if kind in focus else weights[kind] * 0.1
    taste = Taste(
        weights=weights,
        conversations=pick((("a",), ("a", "b"))),
        owners=pick(((None,), ("ada",), ("ada",), ("ada", "bob"), ("ada", None))),
        keys=pick(((), ("k",), ("k", "l"))),
        longs=pick((0, 0, 0.2, 0.6)),
        lifetimes=lifetimes,
    )
    if not any(weights.values()):
        weights["append"] = 1
    rough = Circumstances(
        clients=pick((2, 2, 3, 3) if lives_on else (2, 2, 3, 3, 4, 5, 6)),
        operations=pick((10, 12) if lives_on else (4, 5, 6, 7, 8, 9, 10)),
        shared=pick((0, 0, 0.5)),
        faults=pick((0, 0.03, 0.1, 0.25)),
        slow=pick((0, 0.2, 0.6)),
        sticky=pick((0, 0.5, 0.8, 0.95)),
        late=pick((0, 1)),
        dying=pick((0, 0.1, 0.4, 0.8)),
        unprocessed=pick((0, 0.3)),
        ticks=pick(((0,), (1,), (0, 1, 5, 40))),
        short_jumps=pick((0, 0, 0.02, 0.1)),
        long_jumps=days,
        to_ends=0.1 if lives_on else 0.4,
        spans=spans,
        reaping=0.2 if days else 0.05,
        cold=pick((0, 0.1, 0.5)),
        skews=pick(((0,), (0,), (0, 7, 2_000), (-600_000, 0, 600_000))),
        patience=pick((0.1, 0.5, 20.0)),
        page_items=pick((None, None, None, 1, 2)),
        lifetimes=default_lifetimes,
    )
    return World(random, taste, rough, trace=trace, table=table)
