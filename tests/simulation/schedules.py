"""Draw the schedule of a seed, run it, and check it."""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from chatledger.conversations import Tail
from chatledger.entries import Entries
from chatledger.stores.dynamodb.table import DAY, HOUR, SECOND
from tests.simulation.checker import find_violation
from tests.simulation.clients import Client
from tests.simulation.garbage import find_garbage
from tests.simulation.limits import simulation_settings
from tests.simulation.model import time_in_ms
from tests.simulation.network import TableLike
from tests.simulation.operations import (
    ENTRY_NAMES,
    KINDS,
    LASTING_ENTRY,
    OWNER_PLACES,
    OWNERS,
    WHOLE_CONVERSATION,
    Workload,
    draw_arguments,
)
from tests.simulation.schedule_state import Environment
from tests.simulation.scheduler import StoreScheduler, Violation

LONG_JUMP_DURATIONS = (61 * SECOND, 2 * HOUR, 5 * HOUR, 23 * HOUR, 26 * HOUR, 60 * HOUR)
LONG_JUMPS: tuple[tuple[float, tuple[int, ...]], ...] = ((0.0, ()), (0.06, LONG_JUMP_DURATIONS))
"""Choices of ``Environment.long_jump`` and ``Environment.long_jump_durations``."""

MIXED_DEFAULT_LIFETIMES: tuple[tuple[int | None, ...], ...] = (
    (HOUR, None),
    (DAY, None),
    (DAY, HOUR),
    (40 * DAY, HOUR),
    (40 * DAY, None),
)
"""Choices of the lifetimes that the stores of one schedule are opened with."""

CLOCK_SKEWS: tuple[tuple[int, ...], ...] = (
    (0,),
    (0,),
    (0, 7, 2_000),
    (-600_000, 0, 600_000),
    (-HOUR // 2, 0, HOUR // 2),
)
"""Choices of the differences between clocks and the true time: an hour between two at most."""

ACTIVITY = ("append", "tail", "page")
TRUNCATION = ("append", "truncate", "pop", "replace", "remove", "delete")
DELETION = ("append", "create", "delete", "delete_owner", "sweep")
BEGINNING = ("append", "create", "fork", "claim", "delete")
RESTORING = ("append", "restore", "delete", "copy", "update", "sweep")
FOCUSES: tuple[tuple[str, ...], ...] = ((), (), (), TRUNCATION, TRUNCATION, DELETION, RESTORING)
"""Choices of the operations that a schedule calls more often than all others; (): none."""

PREPARATIONS = ((), ("create",), ("append",), ("create", "append", "append"))
"""Choices of the operations called for each conversation before the schedule proper."""


@dataclass(frozen=True, slots=True)
class ScheduleFailure:
    """A schedule that revealed a bug: its seed, what is wrong, and its trace."""

    seed: int
    reason: str
    trace: str

    def __str__(self) -> str:
        command = f"python -m tests.simulation --seed {self.seed}"
        return f"{self.trace}\n\nSeed {self.seed}: {self.reason}. Run it again: {command}"


def run_schedule(seed: int) -> ScheduleFailure | None:
    """Run the schedule of that seed. If it fails, run it again with a trace, and return both."""
    with simulation_settings():
        reason = run_and_check(draw_schedule(seed))
        if reason is None:
            return None
        scheduler = draw_schedule(seed, trace=True)
        second_reason = run_and_check(scheduler)
    if second_reason != reason:
        reason = f"{reason}; but the second run gave: {second_reason}"
    return ScheduleFailure(seed, reason, _trace_text(scheduler))


def trace_schedule(seed: int) -> str:
    """Run the schedule of that seed, and return its trace, with the verdict in the last line."""
    with simulation_settings():
        scheduler = draw_schedule(seed, trace=True)
        reason = run_and_check(scheduler)
    return f"{_trace_text(scheduler)}\n\n{reason or 'Every answer can be explained'}."


def _trace_text(scheduler: StoreScheduler) -> str:
    assert scheduler.state.trace is not None
    return "\n".join(scheduler.state.trace)


def run_and_check(scheduler: StoreScheduler) -> str | None:
    """Run the schedule to its end, check it, and return what is wrong with it, or None."""
    try:
        _prepare(scheduler)
        scheduler.run()
        _check_final_state(scheduler)
    except Violation as violation:
        return str(violation)
    return find_violation(scheduler.history, scheduler.workload.all_conversations)


def _prepare(scheduler: StoreScheduler) -> None:
    """Create some conversations beforehand, because most operations need one."""
    random, workload = scheduler.state.random, scheduler.workload
    with scheduler.without_faults() as writer:
        for conversation in workload.conversations:
            for kind in random.choice(PREPARATIONS):
                arguments = draw_arguments(
                    kind,
                    conversation,
                    workload,
                    scheduler.known_numbers,
                    random,
                    scheduler.state.now,
                )
                arguments["owner"] = workload.owners[0]
                arguments["idempotency_key"] = None
                scheduler.call(writer, kind, conversation, arguments)
            if scheduler.known_numbers.revisions.get(conversation) and random.random() < 0.7:
                entry = {
                    "name": LASTING_ENTRY,
                    "value": scheduler.known_numbers.draw_value(random, workload.long_messages),
                    "lifetime": None,
                    "revision": None,
                    "owner": None,
                }
                scheduler.call(writer, "put_entry", conversation, entry)


def _check_final_state(scheduler: StoreScheduler) -> None:
    """Have a new client read everything: now, just before it expires, and after two sweeps.

    The answers become part of the history. Raises ``Violation`` if the second sweep leaves garbage.
    """
    conversations = scheduler.workload.all_conversations
    with scheduler.without_faults() as reader:
        # Longer than clocks differ, and long enough for a reader to rebuild a head that lags.
        scheduler.advance_time(30 * 60 * SECOND)
        tails = [_read_tail(scheduler, reader, conversation) for conversation in conversations]
        _read_all_entries(scheduler, reader)
        for tail in tails:
            if isinstance(tail, Tail):
                scheduler.call(reader, "page", tail.conversation.id, WHOLE_CONVERSATION)
        scheduler.call(reader, "list", "", {"owner": scheduler.workload.owners[0] or OWNERS[0]})
        scheduler.call(reader, "scan", "", {"owner": None, "limit": 100})
        for tail in sorted((tail for tail in tails if _expiry(tail)), key=_expiry):
            scheduler.advance_time(_expiry(tail) - scheduler.state.now - 2)
            scheduler.delete_all_overdue()
            _read_tail(scheduler, reader, tail.conversation.id)
            _read_all_entries(scheduler, reader)
        for _ in range(2):  # the second sweep deletes the tombstones that the first one left
            scheduler.advance_time(27 * HOUR)
            scheduler.call(reader, "sweep", "", {})
        tails = [_read_tail(scheduler, reader, conversation) for conversation in conversations]
        entries = _read_all_entries(scheduler, reader)
    live = {tail.conversation.id: tail for tail in tails if isinstance(tail, Tail)}
    garbage = find_garbage(scheduler.table.items(), live, entries, scheduler.state.now)
    if garbage:
        raise Violation(f"two sweeps left garbage: {'; '.join(garbage)}")


def _expiry(answer: Any) -> int:
    """Return when the conversation expires (ms since 1970); 0 if never, or if there is none."""
    expires_at = answer.conversation.expires_at if isinstance(answer, Tail) else None
    return 0 if expires_at is None else time_in_ms(expires_at)


def _read_tail(scheduler: StoreScheduler, reader: Client, conversation: str) -> Any:
    return scheduler.call(reader, "tail", conversation, {"limit": 1_000, "owner": None})


def _read_all_entries(scheduler: StoreScheduler, reader: Client) -> dict[str, set[str]]:
    """Read all entries; return their names, by the conversation or owner."""
    names: dict[str, set[str]] = {}
    for place in (*scheduler.workload.all_conversations, *OWNER_PLACES):
        owner = OWNERS[OWNER_PLACES.index(place)] if place in OWNER_PLACES else None
        arguments = {"owner": owner, "prefix": "", "limit": 100}
        answer = scheduler.call(reader, "entries", place, arguments)
        names[place] = {entry.name for entry in answer} if isinstance(answer, Entries) else set()
    return names


def draw_schedule(
    seed: int, *, trace: bool = False, table: TableLike | None = None
) -> StoreScheduler:
    """Draw the workload and the environment of that seed.

    Every draw, here and later, comes from one ``Random``; to add or move a draw gives every seed
    another schedule.
    """
    random = Random(seed)
    choose = random.choice
    lifetimes: tuple[int | None, ...] = (None,)
    lifetimes_of_copies: tuple[int | None, ...] = (None,)
    default_lifetimes: tuple[int | None, ...] = (None,)
    if random.random() < 0.4:
        lifetime = choose((SECOND, 60 * SECOND, HOUR, DAY))
        match random.randrange(10):
            case 0 | 1 | 2 | 3:
                default_lifetimes = (lifetime,)
            case 4 | 5 | 6 | 7:
                lifetimes = (None, lifetime)
            case 8:
                lifetimes, default_lifetimes = (None, lifetime), (DAY,)
            case 9:
                default_lifetimes = (HOUR, SECOND, lifetime)
    long_jump, long_jump_durations = choose(LONG_JUMPS)
    focus = choose(FOCUSES)
    if focus is RESTORING:
        # An id is used again only when TTL has deleted what it stood for.
        long_jump, long_jump_durations = 0.3, (23 * HOUR, 26 * HOUR, 60 * HOUR)
    if extends_ttls := random.random() < 0.15:
        # Conversations stay active until their TTLs must be extended, while some processes
        # disagree about their lifetime.
        lifetimes, default_lifetimes = (None,), choose(((DAY,), (DAY,), (DAY, None)))
        long_jump, long_jump_durations, focus = 0.3, (20 * HOUR, 23 * HOUR), ACTIVITY
    long_messages = choose((0, 0, 0.2, 0.6))
    if extends_ttls:
        long_messages = max(long_messages, 0.3)  # body parts have TTLs of their own
    if mixes_lifetimes := not extends_ttls and random.random() < 0.15:
        # Conversations of different lifetimes, with long messages, are kept active for weeks.
        lifetimes = choose(((None, 40 * DAY), (None, HOUR)))
        lifetimes_of_copies = (None, 40 * DAY, HOUR, DAY)
        default_lifetimes = choose(MIXED_DEFAULT_LIFETIMES)
        long_messages = choose((0.2, 0.6))
        long_jump, focus = choose((0.1, 0.3)), choose(((), ACTIVITY, BEGINNING))
        long_jump_durations = choose(((50 * 60 * SECOND,), (50 * 60 * SECOND, 23 * HOUR, 39 * DAY)))
        if random.random() < 0.2:
            long_jump_durations = (2 * HOUR, 26 * HOUR, 45 * DAY)
    weights = {kind: each.weight for kind, each in KINDS.items()}
    for kind in weights:
        if random.random() < 0.3:
            weights[kind] *= choose((0, 0.2, 4))
        if focus:
            weights[kind] = max(weights[kind], 2.0) if kind in focus else weights[kind] * 0.1
    workload = Workload(
        weights=weights,
        conversations=choose((("a",), ("a", "b"))),
        owners=choose(((None,), ("ada",), ("ada",), ("ada", "bob"), ("ada", None))),
        idempotency_keys=choose(((), ("k",), ("k", "l"))),
        entry_names=choose((("x",), ENTRY_NAMES[1:])),
        long_messages=long_messages,
        lifetimes=lifetimes,
        lifetimes_of_copies=lifetimes_of_copies,
        lifetimes_of_restored=choose(((None,), (None, HOUR, DAY, 40 * DAY))),
    )
    if not any(weights.values()):
        weights["append"] = 1
    is_long = extends_ttls or mixes_lifetimes
    stale_reads = choose((0, 0, 0, 0, 0, 0.6))
    environment = Environment(
        clients=choose((2, 2, 3, 3) if is_long else (2, 2, 3, 3, 4, 5, 6)),
        operations=choose((10, 12, 16) if is_long else (4, 5, 6, 7, 8, 9, 10)),
        shared_process=choose((0, 0, 0.5)),
        call_failure=choose((0, 0.03, 0.1, 0.25)),
        split_query=choose((0, 0.2, 0.6)),
        same_client=choose((0, 0.5, 0.8, 0.95)),
        late_call=choose((0, 1)),
        crash=choose((0, 0.1, 0.4, 0.8)),
        partial_batch=choose((0, 0.3)),
        split_transaction=choose((0, 0.5)),
        partial_reasons=choose((0, 0.5)),
        index_lag=choose((0, 0, 0, 0.3, 0.9)),
        stale_reads=stale_reads,
        consistent=(True, False) if stale_reads else (True,),
        call_durations=choose(((0,), (1,), (0, 1, 5, 40))),
        short_jump=choose((0, 0, 0.02, 0.1)),
        long_jump=long_jump,
        jump_to_expiry=0.1 if is_long else 0.4,
        long_jump_durations=long_jump_durations,
        ttl_deletion=0.2 if long_jump else 0.05,
        restart=choose((0, 0.1, 0.5)),
        clock_skews=choose(CLOCK_SKEWS),
        clock_change=choose((0, 0, 0.05)),
        sleep=choose((0, 0, 0, 0.12)),
        patience=choose((0.1, 0.5, 20.0)),
        page_items=choose((None, None, None, 1, 2)),
        default_lifetimes=default_lifetimes,
        cleanup_seconds=choose(((2.0,), (2.0,), (0.0,), (0.0, 0.02, 2.0))),
    )
    if random.random() < 0.2:
        workload, environment = _about_entries(random, workload, environment)
    return StoreScheduler(random, workload, environment, trace=trace, table=table)


def _about_entries(
    random: Random, workload: Workload, environment: Environment
) -> tuple[Workload, Environment]:
    """Return a schedule of entries and little else.

    It plays writes that arrive late, conversations that end, begin anew and are forked, or TTLs
    that must be renewed.
    """
    match random.randrange(3):
        case 0:
            weights = {
                "put_entry": 4.0,
                "delete_entry": 3,
                "entry": 1,
                "entries": 0.5,
                "append": 0.3,
            }
            environment = replace(
                environment,
                call_failure=0.2,
                late_call=1,
                crash=0,
                patience=20.0,
                sleep=0,
                short_jump=random.choice((0, 0.1)),
                ttl_deletion=0.4,
                long_jump=0,
            )
        case 1:
            weights = {"put_entry": 2.0, "delete_entry": 0.3, "entries": 0.5, "fork": 2.5}
            weights |= {"create": 1, "delete": 2, "append": 0.5, "claim": 0.2, "sweep": 0.3}
            weights |= {"restore": 0.5, "delete_owner": 0.3}
        case _:
            weights = {"put_entry": 0.3, "entries": 0.3, "append": 5.0, "truncate": 0.2}
            weights |= {"claim": 0.2, "fork": 0.2}
            workload = replace(workload, lifetimes=(None,), long_messages=0.4)
            environment = replace(
                environment,
                clients=2,
                operations=16,
                default_lifetimes=(DAY,),
                sleep=0,
                long_jump=0.6,
                long_jump_durations=(20 * HOUR, 23 * HOUR),
                jump_to_expiry=0.1,
                ttl_deletion=0.2,
                stale_reads=0,
            )
    every = dict.fromkeys(workload.weights, 0.0) | weights
    names = random.choice((("x",), ENTRY_NAMES[1:]))
    return replace(workload, weights=every, entry_names=names), environment
